// Package shoptest is a fake shop: an HTTP server with an order book, and with faults
// that a test sets. Tests start it with [Start]; the development program runs a [Shop]
// as a server of its own.
//
// # What it owns
//
// POST /order/{request_id} as the real shop offers it, and, to read and to disturb
// it:
//
//	GET    /orders   the order book, newest first (?customer_id= ?request_id= ?limit=)
//	GET    /calls    the calls seen, newest first (?limit=)
//	GET    /faults   the faults; PUT sets them (a JSON list), DELETE takes all away
//	GET    /healthz  200 as long as it runs
//
// # Terms
//
//   - Order: what was booked. Unless Options.NewOrderPerCall is set, a repeated
//     request id finds the order of the first call.
//   - Call: one POST /order/…, whatever became of it.
//   - Fault: a rule that makes calls go wrong. The first fault that matches a
//     call is applied, the others are not. Each says which calls it matches, how
//     often, and what happens.
//
// # Invariants
//
//   - An order is in the book, and in the journal if there is one, before
//     its call is answered; and a call's status is in the log before the answer
//     leaves. So a test that has the answer sees both.
//   - Identical calls at the same time book one order: one is answered 201, the
//     others 200.
//   - A call with wrong credentials (401) or a wrong body (422) books nothing
//     and meets no fault.
//   - The journal is read whole by [New]. A last line that is torn, as a killed
//     process leaves it, is cut off: its call was never answered.
//   - Faults and the log of calls live in memory only.
//   - A web page of another origin, or of a name that was rebound to this machine,
//     orders nothing, sets no faults and reads nothing.
//
// It is meant for tests and development: it checks no credentials on /orders,
// /calls and /faults.
//
// # Imports
//
// The standard library and package guard; in particular not package shop, whose
// tests use it.
package shoptest
