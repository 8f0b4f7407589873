// Package api is the HTTP face of Drayman: it reads the store, writes what is one
// transaction (a subscription, a status, a person's resolution), and starts a
// workflow for everything that touches the shop.
//
//	origins.go        web pages: whom the guard refuses, who may read (CORS)
//	router.go         the engine, limits, both slash forms, 404 and 405
//	problem.go        every error, as application/problem+json (RFC 9457)
//	clubs.go          clubs and subscribing
//	subscriptions.go  status, reads, explain
//	eligible.go       the stream of who is due
//	charges.go        charging, and the ledger's reads
//	runs.go           billing runs
//	health.go         livez, readyz, docs
//
// # Invariants
//
//   - Bad input never reaches Temporal or the shop.
//   - What was answered is in the database: a 2xx survives the death of every
//     process.
//   - The caller hanging up stops nothing that was started.
//   - Internals are logged; the caller gets a code and a sentence.
//
// The package imports workflows, billing and guard and uses the Temporal client; the
// database is behind [Store].
package api
