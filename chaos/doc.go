// Chaos puts Drayman through a fault campaign and holds three books against each
// other afterwards: the shop's orders, the ledger, and the log of every HTTP
// answer that was given.
//
//	make chaos ARGS='--seed 7 --shop-idempotent=false'
//
// # What runs
//
// Real processes: two of drayman's API, three workers, a Temporal server and
// PostgreSQL on disk, and the fake shop with its order book in a file. Between
// them and the shop, the database and Temporal stands toxiproxy, in this process.
// Customers subscribe, charge, pause and cancel through the API and repeat what
// was not answered; operators start, pause, pace, cancel and repeat the billing
// runs of several months at once. Meanwhile a killer sends SIGKILL to processes,
// which come back a moment later, connections are cut, delayed and left half
// open, and the shop refuses, declines, answers late or not at all.
//
// Then everything is left in peace: the runs are started once more, and what is
// unresolved with a shop that is not idempotent is settled by a person, who looks
// into the shop's book. Now [check] reads the books. It knows nothing of how
// Drayman works but what docs/ promise.
//
// # Terms
//
//	plan     everything that will be done and when, a function of the seed and
//	         the sizes alone: a seed repeats its plan, though not its outcome
//	step     one thing of the plan, at a time after the beginning
//	node     a process that is started again whenever it ends
//	finding  a broken promise; a campaign without any has passed
//
// A campaign's directory keeps the plan, the logs and the books of one that
// failed.
package main
