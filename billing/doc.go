// Package billing is the domain of Drayman: who is due, for which month, and
// what a charge request comes to. It holds rules, no state: pure functions
// that take the time as an argument, on the standard library alone.
//
// # Terms
//
//   - A status history is a list of effective-dated rows ([Change]). The status
//     at a time is asked ([StatusAt]), never kept.
//   - A [Period] is a calendar month in the billing time zone.
//   - A subscription is eligible at t if it is ACTIVE at t and its club is
//     ACTIVE or CLOSED at t ([WhyNotEligible]).
//   - A subscription is due in a run if it is eligible at the run's cut-off
//     ([RunStart.CutOff]) and at the claim.
//   - A [RequestID] is the idempotency key that the shop gets.
//   - A [Charge] is one row of the ledger: one request id, for one subscription
//     and period.
//
// docs/product.md has all terms, the table of a charge request and the states of a
// charge.
//
// # Invariants
//
//   - At most one charge per subscription and period is pending, charged or
//     unresolved. Declined and withdrawn ones are history.
//   - A charge without a time of sending ([Charge].SentAt) has certainly made no
//     order, and no call for it is under way. Every claim sets the time. Whoever takes
//     a claim over, or asks for permission to send, moves a time that is set by a microsecond,
//     so that only the last one to have done so can clear it: after its own call,
//     which certainly made no order, and only if nobody can have called before.
//   - A request id belongs to one subscription and period always.
//   - [Decide] is the one place that says what a charge request comes to. The
//     API asks it before it starts a workflow, so that bad input never reaches
//     Temporal; the claim asks it again under a lock, and that answer counts.
//
// Ids of subscriptions, customers and histories are opaque strings of 1 to 36
// characters, never parsed. Times are UTC with microseconds, the resolution of
// the approved tables; intervals are half-open: inclusive on the from side and
// exclusive on the to side.
//
// The package imports nothing of ours. Every other package may import it.
package billing
