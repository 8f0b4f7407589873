// Drayman-dev is everything that Drayman needs around it, in one program, for
// development and for tests. Nothing of it is meant for production.
//
//	drayman-dev up           everything in one process; the default
//	drayman-dev temporal     only the Temporal server and its UI
//	drayman-dev shop         only the fake shop
//	drayman-dev postgres     only a PostgreSQL server
//	drayman-dev env -- CMD   run CMD with a PostgreSQL and a Temporal of its own
//
// It is a module of its own: a Temporal server has two hundred dependencies and takes
// minutes to compile, which the module drayman must not need. It imports drayman/cmd (the API and the worker),
// drayman/shop/shoptest (the fake shop) and drayman/guard, and is imported by nobody.
//
// # Terms
//
// A part is something with a start and a stop: the Temporal server, its UI, the
// fake shop, PostgreSQL, the API with the worker. Parts start one after the
// other and stop in reverse, so that no part loses what it still needs.
//
// The data directory is where parts keep their state:
//
//	temporal.db   the Temporal server: workflows, histories, schedules, visibility
//	orders.jsonl  the order book of the fake shop
//	drayman.db    Drayman's own tables
//	postgres/     the cluster of drayman-dev postgres
//	lock          held while a Temporal server runs there
//
// # Invariants
//
// Temporal and its UI have no passwords here, so they listen on loopback and
// refuse any other address. A browser on the machine reaches loopback, too: what
// speaks HTTP refuses web pages of other origins and foreign host names (drayman/guard).
// Temporal speaks gRPC only, which no page can.
//
// State survives a SIGKILL. What is written in several steps (a database schema,
// a PostgreSQL cluster) is made in one transaction or under another name first,
// so that a kill in between leaves nothing half done.
//
// Child processes end with us. On Linux the kernel ends them, even after a SIGKILL;
// elsewhere a SIGKILL leaves them running.
//
// A mistake of the user's is one line on stderr which names what to change, and
// exit code 1 (2 for wrong flags). Nothing calls out: no version check, no news,
// no telemetry.
package main
