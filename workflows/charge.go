package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/billing"
)

// Timeouts and waits of a charge.
const (
	// ledgerTimeout bounds one call to the database; it is tried again for
	// ledgerPatience, longer than any outage that leaves the system worth running.
	ledgerTimeout  = 5 * time.Second
	ledgerPatience = 30 * 24 * time.Hour
	// ledgerTries is how many tries in a row fail before the workflow shows that it waits
	// for the database.
	ledgerTries = 4
	// heldPause is the wait for a charge that a page of a billing run has claimed.
	heldPause = time.Second
)

// ChargeInput asks for one order. ClubID serves the search attribute only.
type ChargeInput struct {
	billing.ChargeRequest
	ClubID int `json:"club_id"`
}

// ChargeSubscription asks the shop for the order of one subscription and period,
// at most once, and records the outcome in the ledger. It completes with the
// charge when it is charged, now or before. Any other outcome fails it, with an
// application error whose type is the code and whose details are the
// [billing.Error]: charge_declined, charge_unresolved, not_eligible, ….
//
// A charge that goes through at once is one workflow task: claim, order and settle are
// local activities.
//
// The input is a [ChargeInput]; one that the API would not take fails it at once.
func ChargeSubscription(ctx workflow.Context, raw converter.RawValue) (*billing.Charge, error) {
	in, err := readCharge(ctx, raw)
	if err != nil {
		return nil, refusal(err)
	}
	claim, err := claimCharge(ctx, in)
	if err != nil {
		return nil, err
	}
	if err := showCharge(ctx, in, claim.Charge); err != nil {
		return nil, err
	}
	if claim.Step != billing.StepPlace {
		return outcome(claim.Charge)
	}
	placed, interrupted := placeOrder(ctx, in.Installation, claim)
	settled, err := settleCharge(ctx, in.Installation, placed)
	switch {
	case err != nil:
		return nil, err
	case interrupted != nil:
		return nil, interrupted
	}
	return outcome(settled)
}

// showCharge has operators find the workflow by the request id of its row in the ledger,
// which is another than was asked for where the charge has joined one, or a run asks.
func showCharge(ctx workflow.Context, in ChargeInput, c *billing.Charge) error {
	if c.RequestID == in.RequestID && c.ClubID == in.ClubID {
		return nil
	}
	return workflow.UpsertTypedSearchAttributes(ctx, RequestIDKey.ValueSet(string(c.RequestID)), ClubIDKey.ValueSet(fmt.Sprint(c.ClubID)))
}

var acts *activities.Activities // nil: only the names of its methods are used

// claimCharge claims the charge, or waits while a page of a billing run has it.
//
// At an idempotent shop, Unsent stays in the claim only if a local activity has just made
// it: a process that repeats this workflow task then claims again. Otherwise an earlier
// process may have made the first call, and died before that was recorded.
func claimCharge(ctx workflow.Context, in ChargeInput) (*activities.ClaimChargeOutput, error) {
	for {
		var claim activities.ClaimChargeOutput
		local, err := tryLedger(ctx, fmt.Sprintf("claim as %s", in.RequestID), acts.ClaimCharge, in.ChargeRequest, &claim)
		if claim.Policy.Idempotent && (!local || workflow.IsReplaying(ctx)) { // no command depends on it
			claim.Unsent = false
		}
		if err != nil || claim.Step != billing.StepJoin {
			return &claim, err
		}
		workflow.SetCurrentDetails(ctx, "A billing run has claimed this charge; waiting for its outcome.")
		if err := workflow.Sleep(ctx, heldPause); err != nil {
			return nil, err
		}
	}
}

// callLedger carries out a step in the database, as a local activity. If ledgerTries in a row
// fail, it says so in the Temporal UI and goes on as an activity, for ledgerPatience or until
// an error is final. The tries of an activity add nothing to the history, and any worker can
// make them, also one on the right database.
func callLedger(ctx workflow.Context, summary string, step, in, out any) error {
	_, err := tryLedger(ctx, summary, step, in, out)
	return err
}

// tryLedger is callLedger, and says whether the local activity made the step.
func tryLedger(ctx workflow.Context, summary string, step, in, out any) (local bool, err error) {
	err = workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(ctx, ledgerOptions(summary)), step, in).Get(ctx, out)
	var failure *temporal.ApplicationError
	said := errors.As(err, &failure)
	if err == nil || temporal.IsCanceledError(err) || said && failure.NonRetryable() {
		return true, err
	}
	detail := err.Error()
	if said {
		detail = failure.Message()
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("A step in the database fails (%s): %s\n\nIt is tried again until %s.",
		summary, detail, workflow.Now(ctx).Add(ledgerPatience).UTC().Format(time.RFC3339)))
	err = workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, ledgerActivity(summary)), step, in).Get(ctx, out)
	if err == nil {
		workflow.SetCurrentDetails(ctx, "")
	}
	return false, err
}

// ledgerActivity are the options of a step in the database that is an activity.
func ledgerActivity(summary string) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		StartToCloseTimeout:    ledgerTimeout,
		ScheduleToCloseTimeout: ledgerPatience,
		RetryPolicy:            ledgerRetries(),
		Summary:                summary,
	}
}

func ledgerOptions(summary string) workflow.LocalActivityOptions {
	return workflow.LocalActivityOptions{
		StartToCloseTimeout:    ledgerTimeout,
		ScheduleToCloseTimeout: ledgerPatience,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 2, MaximumAttempts: ledgerTries},
		Summary:                summary,
	}
}

// ledgerRetries are those of a call to the database that is no local activity.
func ledgerRetries() *temporal.RetryPolicy {
	return &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second}
}

// placeOrder asks the shop until it answers finally or the retries are over, and returns the
// charge to settle. It also returns why it was interrupted: an operator cancelled the
// workflow. The charge must then be settled as unresolved, because the shop may have the
// order.
func placeOrder(ctx workflow.Context, installation string, claim *activities.ClaimChargeOutput) (placed billing.Charge, interrupted error) {
	charge := *claim.Charge
	if claim.Policy.Idempotent {
		placed, err := placeAtOnce(ctx, activities.PlaceOrderInput{Charge: charge, Installation: installation, Unsent: claim.Unsent})
		if err == nil && placed.RequestID != "" { // else no call was free
			return placed, nil
		}
		if err == nil {
			err = ctx.Err()
		} else {
			err = pauseAfter(ctx, &charge, err, claim.Policy)
		}
		if err != nil {
			return unplaced(charge), err
		}
	}
	retried := workflow.WithActivityOptions(ctx, orderOptions(ctx, &charge))
	in := activities.PlaceOrderInput{Charge: charge, RetryFor: claim.Policy.RetryFor, Installation: installation, Unsent: claim.Unsent && !claim.Policy.Idempotent}
	err := workflow.ExecuteActivity(retried, acts.PlaceOrder, in).Get(retried, &placed)
	if err == nil {
		return placed, nil
	}
	noteFailure(&charge, err)
	return unplaced(charge), ctx.Err()
}

// placeAtOnce asks the shop inside the workflow task, whose heartbeats keep it open as long
// as the call takes. A cancellation does not cut the call. It returns no charge if too many
// such calls are under way in the worker.
func placeAtOnce(ctx workflow.Context, in activities.PlaceOrderInput) (placed billing.Charge, err error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout:    activities.PlaceOrderTime,
		ScheduleToCloseTimeout: ledgerPatience, // the wait for a place is no part of the call
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
		Summary:                fmt.Sprintf("order %s", in.Charge.RequestID),
	})
	err = workflow.ExecuteLocalActivity(ctx, acts.PlaceOrder, in).Get(ctx, &placed)
	return placed, err
}

// pauseAfter waits, after the first call has failed, as long as the shop asked,
// but not longer than the retries may go on.
func pauseAfter(ctx workflow.Context, charge *billing.Charge, failure error, policy activities.Policy) error {
	noteFailure(charge, failure)
	wait := activities.OrderPause
	var asked *temporal.ApplicationError
	if errors.As(failure, &asked) {
		wait = max(wait, asked.NextRetryDelay())
	}
	wait = min(wait, policy.RetryFor)
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("The shop did not take the order at once: %s\n\nRetrying until %s.",
		charge.FailureDetail, workflow.Now(ctx).Add(policy.RetryFor).UTC().Format(time.RFC3339)))
	return workflow.NewTimerWithOptions(ctx, wait, workflow.TimerOptions{Summary: "before the order is asked for again"}).Get(ctx, nil)
}

// orderOptions are those of the retries. The activity itself ends them after
// CHARGE_RETRY_FOR: a ScheduleToCloseTimeout would cut a call that is under way, and
// so would a cancellation that is not waited for.
func orderOptions(ctx workflow.Context, charge *billing.Charge) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue:           orderTaskQueue(ctx),
		StartToCloseTimeout: activities.PlaceOrderTime,
		HeartbeatTimeout:    beatTimeout,
		WaitForCancellation: true,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: activities.OrderPause, BackoffCoefficient: 2, MaximumInterval: activities.OrderPauseMax,
		},
		Summary: fmt.Sprintf("order %s, with retries", charge.RequestID),
	}
}

// noteFailure records what the shop last said.
func noteFailure(charge *billing.Charge, failure error) {
	charge.FailureCode, charge.FailureDetail = activities.FailureShopNotNow, "the shop gave no answer in time"
	var said *temporal.ApplicationError
	var details activities.NotPlaced
	if errors.As(failure, &said) && said.HasDetails() && said.Details(&details) == nil {
		charge.FailureCode, charge.FailureDetail, charge.Attempts = details.Code, details.Detail, details.Attempts
	}
}

func unplaced(charge billing.Charge) billing.Charge {
	charge.Status = billing.Unresolved
	return charge
}

// settleCharge records the outcome, whatever becomes of the workflow: it goes on
// after a cancellation, and until the database takes it.
func settleCharge(ctx workflow.Context, installation string, placed billing.Charge) (*billing.Charge, error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	var settled billing.Charge
	err := callLedger(ctx, fmt.Sprintf("settle %s as %s", placed.RequestID, placed.Status), acts.SettleCharge, activities.SettleChargeInput{Charge: placed, Installation: installation}, &settled)
	return &settled, err
}

// outcome completes the workflow with a charge that is charged and fails it with
// any other, so that the status column of the Temporal UI is the outcome.
func outcome(c *billing.Charge) (*billing.Charge, error) {
	failure := &billing.Error{Code: billing.CodeChargeUnresolved, Charge: c}
	switch c.Status {
	case billing.Charged:
		return c, nil
	case billing.Declined:
		failure = billing.ChargeDeclined(c)
	case billing.Withdrawn:
		failure = billing.ChargeWithdrawn(c)
	case billing.Pending, billing.Unresolved:
		failure.Detail = "it is not known whether the shop has the order, or it could not be reached: " + c.FailureDetail
	}
	return nil, refusal(failure)
}
