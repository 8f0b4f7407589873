// Package activities is what workflows do to the world: claim a place in the
// ledger, ask the shop, record its answer. Each activity is one step, safe to
// repeat: Temporal runs it again when a worker dies, and then it must find its
// own traces in the ledger and go on from there.
//
// A result is an outcome that stands. An error is "not now": Temporal tries
// again, after the delay the shop asked for. Errors of the domain
// ([billing.Error]) are final; they cross to the workflow as application errors
// whose type is their code.
//
// No step trusts its input where money moves: the ledger's row says what is ordered,
// the run's row which month is charged and how. Inputs are checked as the API checks
// them; an error about one is final.
//
// The package imports billing and shop; the database is behind [Store].
package activities
