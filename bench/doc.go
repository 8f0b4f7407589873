// Bench measures a billing run on real processes: drayman's API and worker, a
// fake shop without delay, PostgreSQL and a Temporal server. It prints what it
// measures and asserts no figure. It fails if the run does not end, or if the shop's
// book and the ledger do not hold exactly one order per subscription.
//
//	bin/drayman-dev env -- go -C bench run . --charges 100000
//
// TEST_DATABASE_URL is a PostgreSQL superuser, TEST_TEMPORAL_ADDRESS a Temporal
// server. Each round has a database, a namespace and processes of its own; the
// database is dropped at the end, the namespace stays, with a retention of a day.
//
// # Terms
//
// The run is timed twice, by one clock each: from the first order to the last by
// the shop's, and from just before the request to the run's end by the database's.
//
// The baselines are what else one could do on the same machine, in the same
// round, with the same shop process, client and concurrency:
//
//	calls       the orders alone, nothing recorded: no run can be faster
//	row by row  for each subscription: insert a claim, order, update it
//
// Both run in this process, before the run, one after the other. The machine
// that does them is the one that does the run, so the ratios say more than the
// rates. docs/performance.md says what a figure means.
//
// An action is what Temporal Cloud bills. Those that leave events are counted in
// the histories; heartbeats leave none and are estimated, see actions.count.
//
// # Invariants
//
// CPU and memory of processes are read from /proc: elsewhere than on Linux, and
// for a PostgreSQL on another machine, they are 0. The module imports of drayman
// only the shop's client, so that baselines pay the same for a call.
package main
