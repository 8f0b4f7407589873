// Package workflows is the orchestration: what happens in which order, what is
// tried again and for how long. It is deterministic: it reads no clock and no
// setting but through its input and the results of activities. workflowcheck and
// replays of committed histories hold it to that.
//
//	ChargeSubscription   one order for one subscription and period
//	BillingRun           a month: everyone who is due and not charged yet
//	ScheduledRun         starts the BillingRun of the month of its nominal time
//
// names.go has the names, ids and policies that the API, the workers and the
// tests share.
//
// The ledger decides whether a charge was made; a workflow id only makes it
// single-flight while Temporal remembers it.
//
// The package imports activities and billing.
package workflows
