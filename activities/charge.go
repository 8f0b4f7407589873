package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"drayman/billing"
	"drayman/shop"
)

// ClaimChargeOutput is the claim, and the worker's settings for the shop. They become part
// of the history, so that a replay on a worker with other settings goes the same way.
type ClaimChargeOutput struct {
	Step   billing.Step    `json:"step"`
	Charge *billing.Charge `json:"charge"`
	Unsent bool            `json:"unsent,omitempty"` // see [billing.Claim]
	Policy Policy          `json:"policy"`
}

// ClaimCharge claims the charge in the ledger, see models.Store.ClaimCharge.
//
// A charge of another installation fails for good. Before the claim nothing is lost by it,
// and to wait for another worker would hide that two installations share a queue. In a
// database that is not adopted, the charge waits for a person (decision 0017).
func (a *Activities) ClaimCharge(ctx context.Context, in billing.ChargeRequest) (*ClaimChargeOutput, error) {
	if in.Installation == "" {
		return nil, asFailure(billing.Invalid("installation", "must be the id of the installation that asks, see GET /installation"))
	}
	claim, err := a.store.ClaimCharge(ctx, in, billing.ChargeOwner, a.policy.Idempotent)
	if err != nil {
		return nil, asFailure(a.notYet(ctx, in.Installation, err))
	}
	return &ClaimChargeOutput{Step: claim.Step, Charge: claim.Charge, Unsent: claim.Unsent, Policy: a.policy}, nil
}

// PlaceOrderInput is a claimed charge; its Attempts are the calls made before.
// RetryFor bounds the retries, from when the activity was scheduled.
type PlaceOrderInput struct {
	Charge       billing.Charge `json:"charge"`
	RetryFor     time.Duration  `json:"retry_for,omitempty"`
	Installation string         `json:"installation"`
	// Unsent says that nothing was sent before the claim has set Charge.SentAt, see
	// [billing.Claim]. At a shop that is not idempotent the ledger decides: each call moves
	// that time first. Inside a workflow task, at an idempotent shop, Unsent also says that
	// this is the first call for the claim, by the process that has made the claim.
	Unsent bool `json:"unsent,omitempty"`
}

// NotPlaced are the details of PlaceOrder's errors: what to tell an operator if
// it is never tried again.
type NotPlaced struct {
	Code     string `json:"code"`
	Detail   string `json:"detail"`
	Attempts int    `json:"attempts"`
}

// Failure codes of charges, also the types of PlaceOrder's errors.
const (
	FailureShopNotNow  = "shop_not_now"    // the shop could not take the order yet
	FailureShopRefused = "shop_refused_us" // the shop refused our credentials or address, no customer
	FailureDeclined    = "declined"        // the shop declined this customer's order
)

// refusedRetry is the wait after the shop has refused our set-up. A person must fix that,
// and frequent calls make it worse at a shop that locks keys out.
const refusedRetry = 5 * time.Minute

// CallsAtOnce is how many calls of PlaceOrder a worker makes inside workflow tasks at a
// time. A worker has twice as many places for local activities, so that claims and
// settles do not wait while the shop hangs.
const CallsAtOnce = 100

// PlaceOrderTime bounds one PlaceOrder. It must never cut a call, so it has room for the
// longest call to the shop that any worker's SHOP_TIMEOUT allows, and for the calls to the
// database before and after it. The death of a worker shows by its heartbeats.
const PlaceOrderTime = shop.MaxTimeout + 4*ledgerTime

// The wait before the second call for an order, if the shop names none. It doubles up to
// OrderPauseMax.
const (
	OrderPause    = time.Second
	OrderPauseMax = 5 * time.Minute
)

// PlaceOrder asks the shop for the order and returns the charge as it is to be
// settled: charged, declined, or unresolved if the shop is not idempotent and the request
// may have reached it. Any other answer is an error. It is tried again until the retries
// are over. As a local activity it asks nothing and returns nil if [CallsAtOnce] calls are
// under way.
//
// It asks for what the ledger has under the request id, whatever else the input says. If
// the ledger has the charge as settled, it returns that. Without a claim of the subscription
// and period, it asks nothing, and the error is final.
//
// Only SHOP_TIMEOUT ends a call, not the end of the context. If Temporal loses sight of the
// activity and starts it again in a process that still makes the call, it joins that call.
func (a *Activities) PlaceOrder(ctx context.Context, in PlaceOrderInput) (*billing.Charge, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	ctx = context.WithoutCancel(ctx)
	_, stop := keepBeating(ctx, nothing)
	defer stop()
	if activity.GetInfo(ctx).IsLocalActivity {
		if !a.atOnce.TryAcquire(1) {
			return nil, nil
		}
		defer a.atOnce.Release(1)
	}
	c := in.Charge
	same := fmt.Sprintf("%s %s %s %s", c.RequestID, c.Period, in.Installation, c.SubscriptionID)
	placed, err, _ := a.placing.Do(same, func() (any, error) { return a.placeOrder(ctx, in) })
	charge, _ := placed.(*billing.Charge) // nil with an error
	return charge, err
}

func (a *Activities) placeOrder(ctx context.Context, in PlaceOrderInput) (*billing.Charge, error) {
	begun := time.Now()
	info := activity.GetInfo(ctx)
	waited := info.StartedTime.Sub(info.ScheduledTime) // both by Temporal's clock
	if info.Attempt > 1 && in.RetryFor > 0 && waited > in.RetryFor {
		return nil, notPlaced(in.Charge, "no worker was there to ask again in time", 0, true)
	}
	if err := a.requireCharging(ctx, in.Installation); err != nil {
		return nil, err
	}
	charge, err := a.claimed(ctx, in.Charge)
	if err != nil || charge.Status != billing.Pending {
		return &charge, err
	}
	certain, err := a.beforeCall(ctx, in, &charge)
	switch {
	case err != nil:
		return nil, err
	case !certain && !a.policy.Idempotent:
		return unresolved(charge, billing.FailureInDoubt, sentEarlier), nil
	}
	charge.Attempts += int(info.Attempt) - 1 // ask counts one
	charge, answer := a.ask(ctx, charge)
	if charge.Status != billing.Pending {
		return &charge, nil
	}
	if certain && !answer.Doubt {
		if err := a.notOrdered(ctx, charge); err != nil {
			return nil, err
		}
	}
	delay := pauseBefore(info.Attempt+1, answer)
	over := in.RetryFor > 0 && waited+time.Since(begun)+delay > in.RetryFor
	return nil, notPlaced(charge, answer.Detail, delay, over)
}

// pauseBefore is the wait before the attempt, 2 and so on.
func pauseBefore(attempt int32, last shop.Answer) time.Duration {
	switch {
	case last.Outcome == shop.Refused:
		return max(last.RetryAfter, refusedRetry)
	case last.RetryAfter > 0:
		return last.RetryAfter
	}
	return min(OrderPause<<min(attempt-2, 20), OrderPauseMax)
}

// notPlaced is the error of an order that was not made. over says that it is not tried
// again.
func notPlaced(charge billing.Charge, detail string, delay time.Duration, over bool) error {
	code := cmp.Or(charge.FailureCode, FailureShopNotNow)
	return temporal.NewApplicationErrorWithOptions(detail, code, temporal.ApplicationErrorOptions{
		NonRetryable: over, NextRetryDelay: delay,
		Details: []any{NotPlaced{Code: code, Detail: detail, Attempts: charge.Attempts}},
	})
}

// claimed reads the charge back from the ledger, with the attempts that the workflow
// has counted.
func (a *Activities) claimed(ctx context.Context, in billing.Charge) (billing.Charge, error) {
	refuse := func(err *billing.Error) (billing.Charge, error) {
		return in, temporal.NewApplicationErrorWithOptions(err.Detail, string(err.Code), temporal.ApplicationErrorOptions{
			NonRetryable: true, Details: []any{NotPlaced{Code: string(err.Code), Detail: err.Detail, Attempts: in.Attempts}},
		})
	}
	row, err := within(ctx, func(ctx context.Context) (*billing.Charge, error) {
		return a.store.ChargeByRequestID(ctx, in.RequestID)
	})
	var known *billing.Error
	switch {
	case errors.As(err, &known):
		return refuse(known)
	case err != nil:
		return in, fmt.Errorf("reading the claim back: %w", err)
	case row.SubscriptionID != in.SubscriptionID || row.Period != in.Period:
		return refuse(billing.Errorf(billing.CodeRequestIDReused, "request id %q is that of another subscription or period", in.RequestID))
	case row.Status != billing.Pending:
		return *row, nil
	case row.Owner != billing.ChargeOwner && !row.ClaimedUntil.IsZero():
		// Its page settles it, or lets it go for the next try.
		return in, notPlaced(in, fmt.Sprintf("the charge is held by %q, so nothing was asked of the shop", row.Owner), 0, false)
	}
	if _, err := billing.ParseRequestID(string(row.RequestID)); errors.As(err, &known) {
		return refuse(known) // written by hand
	}
	row.Attempts = in.Attempts
	return *row, nil
}

// beforeCall says whether the request has certainly not gone out earlier. It also makes
// sure that the ledger no longer says so, because the process may die in the call. It sets
// the charge's SentAt to the ledger's.
//
// At an idempotent shop, nothing need be written before the first call inside the workflow
// task that has claimed the charge: a process that repeats the task claims again, which
// moves the time.
func (a *Activities) beforeCall(ctx context.Context, in PlaceOrderInput, charge *billing.Charge) (certain bool, err error) {
	var claimed time.Time
	if in.Unsent {
		claimed = in.Charge.SentAt
	}
	switch first := activity.GetInfo(ctx).IsLocalActivity && in.Unsent; {
	case a.policy.Idempotent && first:
		return charge.SentAt.Equal(claimed), nil
	case a.policy.Idempotent: // a call of ours may have left the time as it was
		claimed = time.Time{}
	}
	permitted, sentAt, err := a.permit(ctx, charge.RequestID, claimed, in.Installation)
	if err == nil && !sentAt.IsZero() {
		charge.SentAt = sentAt
	}
	return permitted, err
}

func (a *Activities) permit(ctx context.Context, id billing.RequestID, claimed time.Time, installation string) (permitted bool, sentAt time.Time, err error) {
	sentAt, err = within(ctx, func(ctx context.Context) (at time.Time, err error) {
		permitted, at, err = a.store.PermitSending(ctx, id, claimed, installation)
		return at, err
	})
	switch {
	case billing.CodeOf(err) != "":
		return false, sentAt, a.notYet(ctx, installation, err)
	case err != nil:
		return false, sentAt, fmt.Errorf("asking for permission to send: %w", err)
	}
	return permitted, sentAt, nil
}

// sentEarlier says why a charge is in doubt that was claimed and not settled.
const sentEarlier = "the request may have reached the shop earlier, and the shop is not idempotent"

// notOrdered records that the shop has certainly made no order.
func (a *Activities) notOrdered(ctx context.Context, charge billing.Charge) error {
	_, err := within(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.store.NotOrdered(ctx, charge.RequestID, charge.SentAt)
	})
	if err != nil {
		return fmt.Errorf("recording that nothing was ordered: %w", err)
	}
	return nil
}

// ask calls the shop once and returns the charge as it is to be settled, and the
// answer. The charge is still pending if the answer settles nothing and the order may be
// asked for again.
func (a *Activities) ask(ctx context.Context, charge billing.Charge) (billing.Charge, shop.Answer) {
	answer := a.call(ctx, shop.Order{RequestID: string(charge.RequestID), CustomerID: charge.CustomerID, SKU: charge.SKU})
	charge.Attempts++
	charge.FailureCode, charge.FailureDetail = "", answer.Detail
	switch answer.Outcome {
	case shop.Charged:
		charge.Status, charge.Order = billing.Charged, answer.Order
		if answer.Order != nil { // else the detail says why there is nothing to keep
			charge.FailureDetail = ""
		}
	case shop.Declined:
		charge.Status, charge.Order, charge.FailureCode = billing.Declined, answer.Order, FailureDeclined
	case shop.NotNow:
		charge.FailureCode = FailureShopNotNow
	case shop.Refused:
		charge.FailureCode = FailureShopRefused
		a.log.ErrorContext(ctx, "the shop refuses us; check SHOP_URL, SHOP_API_KEY and SHOP_API_SECRET",
			"http_status", answer.HTTPStatus, "detail", answer.Detail)
	}
	if charge.Status == billing.Pending && answer.Doubt && !a.policy.Idempotent {
		charge = *unresolved(charge, billing.FailureInDoubt, answer.Detail)
	}
	return charge, answer
}

// call makes the call, or joins the one for the request id that this process makes already.
func (a *Activities) call(ctx context.Context, order shop.Order) shop.Answer {
	made, _, _ := a.calls.Do(order.RequestID, func() (any, error) { return a.shop.PlaceOrder(ctx, order), nil })
	answer, _ := made.(shop.Answer) // it is one
	return answer
}

func unresolved(charge billing.Charge, code, detail string) *billing.Charge {
	charge.Status, charge.FailureCode, charge.FailureDetail = billing.Unresolved, code, detail
	return &charge
}

// SettleChargeInput is a charge with its outcome.
type SettleChargeInput struct {
	Charge       billing.Charge `json:"charge"`
	Installation string         `json:"installation"`
}

// SettleCharge records the outcome, see models.Store.SettleCharge, and returns
// the charge as the ledger has it now.
func (a *Activities) SettleCharge(ctx context.Context, in SettleChargeInput) (*billing.Charge, error) {
	if err := a.requireOurs(ctx, in.Installation); err != nil {
		return nil, err
	}
	switch c := in.Charge; {
	case c.RequestID == "" || c.SubscriptionID == "" || c.Period.IsZero():
		return nil, asFailure(billing.Invalid("charge", "must have a request id, a subscription and a period"))
	case c.Status == billing.Withdrawn: // since it was claimed; there is nothing to record
		withdrawn, err := a.store.ChargeByRequestID(ctx, c.RequestID)
		return withdrawn, asFailure(err)
	case c.Status != billing.Charged && c.Status != billing.Declined && c.Status != billing.Unresolved:
		return nil, asFailure(billing.Invalid("status", "must be charged, declined or unresolved"))
	}
	settled, err := a.store.SettleCharge(ctx, in.Charge)
	if err != nil {
		return nil, asFailure(err)
	}
	return settled, nil
}
