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
// And the database is put back to an earlier moment, twice by a backup of up to a third
// of the campaign before and twice by a copy of the cluster that lacks the last second
// or two. A person adopts what comes back as another database; where the shop books
// every call, a person who resumes a run first copies into the ledger what it has
// forgotten of the shop's book.
//
// After all faults have ended, the runs are started once more, and what is
// unresolved with a shop that is not idempotent is settled by a person, who looks
// into the shop's book. Now [check] reads the books. It knows nothing of how
// Drayman works but what docs/ promise. When all months are closed, the database is put
// back once more (the final setback), callers ask, and everything is settled and
// checked again.
//
// # Terms
//
//	plan     everything that will be done and when, a function of the seed and
//	         the sizes alone: a seed repeats its plan, though not its outcome
//	step     one thing of the plan, at a time after the beginning
//	node     a process that is started again whenever it ends
//	setback  a backup or a copy is put in the place of the database
//	lapse    the time of which a setback has made the database forget what it wrote
//	finding  a broken promise; a campaign without any has passed
//
// A campaign's directory keeps the plan, the logs and the books of one that
// failed.
package main
