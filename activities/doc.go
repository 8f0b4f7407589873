// Package activities is what workflows do to the world: claim a place in the
// ledger, ask the shop, record its answer. Each activity is one step that is safe to
// repeat: Temporal runs it again when a worker dies. It then finds in the ledger what was
// done, and goes on from there.
//
// A result is an outcome that stands. An error says "not now": Temporal tries again, after
// the delay that the shop asked for. Errors of the domain ([billing.Error]) are final. They
// reach the workflow as application errors whose type is their code.
//
// # Terms
//
//   - A claim is a pending charge. It is committed before the shop is asked.
//   - An owner works on a claim: a page, or a ChargeSubscription workflow. A hold is
//     the time until which nobody else may take the claim over.
//   - A page is a range of subscription ids ([Activities.ChargePage]). It works in
//     batches: the orders that are claimed, sent and settled together.
//   - A slot permits one order of a run. A page reserves slots before each batch, and
//     so keeps the run's pace.
//   - An exception is an order of a page that did not go through at once. The page lets
//     go of its claim, which is then a left-over: pending, owned and held by nobody.
//   - The watch is the activity that follows the run's row ([Activities.WatchRun]). Its
//     sweep starts a ChargeSubscription workflow for each left-over.
//
// docs/product.md says who may take over a claim, and what may be sent. Decisions 0010
// (batches), 0011 (the sweep) and 0019 (the row decides) have the reasons.
//
// # Invariants
//
//   - No step trusts its input about money: the ledger's row says what is ordered, the
//     run's row which month is charged and how. Inputs are checked as the API checks
//     them; an error about one is final.
//   - The claim is committed before the first byte leaves, and every retry sends the
//     claim's request id.
//   - Nobody is charged in a replaced database before the recall.
//
// The package imports billing, models and shop.
package activities
