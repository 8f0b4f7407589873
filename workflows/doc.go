// Package workflows is the orchestration: what happens in which order, what is
// tried again and for how long. It is deterministic: it reads no clock and no
// setting but through its input and the results of activities. workflowcheck and
// replays of committed histories hold it to that.
//
//	ChargeSubscription   one order for one subscription and period
//	BillingRun           a month: everyone who is due and not charged yet
//	ScheduledRun         starts the BillingRun of the month of its nominal time
//	Recall               puts back what a replaced database lacks
//
// names.go has the names, ids and policies that the API, the workers and the
// tests share.
//
// # Terms
//
//   - A page is a range of subscription ids that one activity charges. The pages in
//     flight are those being charged; the queue has those that are not.
//   - The run's row is the run in the database. The row decides: the workflow reads it
//     and follows (decision 0019).
//   - To begin anew is to continue as new with nothing but the run's row, because the
//     database was replaced.
//   - To drain is to begin no more pages, and to wait for those in flight.
//
// Package activities defines batch, slot, claim, hold, exception, left-over, watch and
// sweep; docs/product.md has all terms.
//
// # Invariants
//
//   - The ledger decides whether a charge was made; a workflow id only makes it
//     single-flight while Temporal remembers it.
//   - A workflow that completes has charged. Any other outcome fails it, with the
//     code as the failure's type.
//   - What was sent is settled, also after a cancellation.
//
// The package imports activities and billing.
package workflows
