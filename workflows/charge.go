package workflows

import (
	"errors"
	"fmt"
	"time"

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
	// firstOrderTimeout bounds the first order call, inside the workflow task: it
	// must end well below chargeTaskTimeout.
	firstOrderTimeout = 5 * time.Second
	// orderPause is the wait before the second order call, where the shop names
	// none; it doubles up to orderPauseMax.
	orderPause    = time.Second
	orderPauseMax = 5 * time.Minute
	// heldPause is the wait for a charge that a page of a billing run has claimed.
	heldPause = time.Second
)

// ChargeInput asks for one order. ClubID serves the search attribute only.
type ChargeInput struct {
	SubscriptionID  string            `json:"subscription_id"`
	Period          billing.Period    `json:"period"`
	RequestID       billing.RequestID `json:"request_id"`
	RequireEligible bool              `json:"require_eligible"`
	ClubID          int               `json:"club_id"`
	// RunID is the billing run that asks; the request id is then derived.
	RunID string `json:"run_id,omitempty"`
	// Remembered is the request id of the charge with which an earlier execution has
	// completed, see [billing.ChargeRequest].
	Remembered billing.RequestID `json:"remembered_request_id,omitempty"`
}

// ChargeSubscription asks the shop for the order of one subscription and period,
// at most once, and keeps what came of it in the ledger. It completes with the
// charge when it is charged, now or before. Any other outcome fails it, with an
// application error whose type is the code and whose details are the
// [billing.Error]: charge_declined, charge_unresolved, not_eligible, ….
//
// A happy charge is one workflow task: claim, order and settle are local
// activities.
func ChargeSubscription(ctx workflow.Context, in ChargeInput) (*billing.Charge, error) {
	claim, err := claimCharge(ctx, in)
	if err != nil {
		return nil, err
	}
	if claim.Step != billing.StepPlace {
		return outcome(claim.Charge)
	}
	placed, interrupted := placeOrder(ctx, claim)
	settled, err := settleCharge(ctx, placed)
	switch {
	case err != nil:
		return nil, err
	case interrupted != nil:
		return nil, interrupted
	}
	return outcome(settled)
}

var acts *activities.Activities // nil: only the names of its methods are used

// claimCharge claims the charge, or waits while a page of a billing run has it.
func claimCharge(ctx workflow.Context, in ChargeInput) (*activities.ClaimChargeOutput, error) {
	ctx = workflow.WithLocalActivityOptions(ctx, ledgerOptions(fmt.Sprintf("claim as %s", in.RequestID)))
	for {
		var claim activities.ClaimChargeOutput
		err := workflow.ExecuteLocalActivity(ctx, acts.ClaimCharge, activities.ClaimChargeInput{
			SubscriptionID: in.SubscriptionID, Period: in.Period, RequestID: in.RequestID, RunID: in.RunID,
			RequireEligible: in.RequireEligible, Owner: billing.ChargeOwner, Remembered: in.Remembered,
		}).Get(ctx, &claim)
		if err != nil || claim.Step != billing.StepJoin {
			return &claim, err
		}
		workflow.SetCurrentDetails(ctx, "A billing run has claimed this charge; waiting for its outcome.")
		if err := workflow.Sleep(ctx, heldPause); err != nil {
			return nil, err
		}
	}
}

func ledgerOptions(summary string) workflow.LocalActivityOptions {
	return workflow.LocalActivityOptions{
		StartToCloseTimeout:    ledgerTimeout,
		ScheduleToCloseTimeout: ledgerPatience,
		RetryPolicy:            ledgerRetries(),
		Summary:                summary,
	}
}

// ledgerRetries are those of a call to the database, in a local activity or not.
func ledgerRetries() *temporal.RetryPolicy {
	return &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second}
}

// placeOrder asks the shop until it answers well or the retries have run out,
// and returns the charge to settle. It also returns why it was interrupted: an
// operator cancelled the workflow. Then too the charge must be settled, as
// unresolved: the shop may have the order.
func placeOrder(ctx workflow.Context, claim *activities.ClaimChargeOutput) (placed billing.Charge, interrupted error) {
	charge := *claim.Charge
	if claim.Policy.Idempotent {
		first := workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
			StartToCloseTimeout:    firstOrderTimeout,
			ScheduleToCloseTimeout: firstOrderTimeout,
			RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
			Summary:                fmt.Sprintf("order %s", charge.RequestID),
		})
		err := workflow.ExecuteLocalActivity(first, acts.PlaceOrder, activities.PlaceOrderInput{Charge: charge}).Get(first, &placed)
		if err == nil {
			return placed, nil
		}
		if err := pauseAfter(ctx, &charge, err, claim.Policy); err != nil {
			return unplaced(charge), err
		}
	}
	retried := workflow.WithActivityOptions(ctx, orderOptions(&charge, claim.Policy))
	err := workflow.ExecuteActivity(retried, acts.PlaceOrder, activities.PlaceOrderInput{Charge: charge}).Get(retried, &placed)
	if err == nil {
		return placed, nil
	}
	noteFailure(&charge, err)
	if !temporal.IsCanceledError(err) {
		err = nil
	}
	return unplaced(charge), err
}

// pauseAfter waits, after the first call has failed, as long as the shop asked,
// but not longer than the retries may go on.
func pauseAfter(ctx workflow.Context, charge *billing.Charge, failure error, policy activities.Policy) error {
	noteFailure(charge, failure)
	wait := orderPause
	var asked *temporal.ApplicationError
	if errors.As(failure, &asked) {
		wait = max(wait, asked.NextRetryDelay())
	}
	wait = min(wait, policy.RetryFor)
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("The shop did not take the order at once: %s\n\nRetrying until %s.",
		charge.FailureDetail, workflow.Now(ctx).Add(policy.RetryFor).UTC().Format(time.RFC3339)))
	return workflow.NewTimerWithOptions(ctx, wait, workflow.TimerOptions{Summary: "before the order is asked for again"}).Get(ctx, nil)
}

func orderOptions(charge *billing.Charge, policy activities.Policy) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue: OrderTaskQueue,
		// Leaves room for the ledger's part of the activity.
		StartToCloseTimeout:    policy.ShopTimeout + ledgerTimeout,
		ScheduleToCloseTimeout: policy.RetryFor,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: orderPause, BackoffCoefficient: 2, MaximumInterval: orderPauseMax,
		},
		Summary: fmt.Sprintf("order %s, with retries", charge.RequestID),
	}
}

// noteFailure keeps what the shop last said.
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
func settleCharge(ctx workflow.Context, placed billing.Charge) (*billing.Charge, error) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	ctx = workflow.WithLocalActivityOptions(ctx, ledgerOptions(fmt.Sprintf("settle %s as %s", placed.RequestID, placed.Status)))
	var settled billing.Charge
	err := workflow.ExecuteLocalActivity(ctx, acts.SettleCharge, activities.SettleChargeInput{Charge: placed}).Get(ctx, &settled)
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
	case billing.Pending, billing.Unresolved:
		failure.Detail = "it is not known whether the shop has the order, or it could not be reached: " + c.FailureDetail
	}
	return nil, temporal.NewApplicationErrorWithOptions(failure.Detail, string(failure.Code),
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{failure}})
}
