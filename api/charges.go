package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"drayman/billing"
	"drayman/workflows"
)

// ChargeRecord is a charge as the ledger has it.
type ChargeRecord struct {
	billing.Charge
	AlreadyCharged bool `json:"already_charged,omitempty" doc:"this request asked nothing of the shop: the period was charged before"`
}

func records(charges []billing.Charge) []ChargeRecord {
	out := make([]ChargeRecord, 0, len(charges))
	for _, c := range charges {
		out = append(out, record(c))
	}
	return out
}

// record shows a charge, without its owner and hold, which a caller has no use for.
func record(c billing.Charge) ChargeRecord {
	c.Owner, c.ClaimedUntil = "", time.Time{}
	return ChargeRecord{Charge: c}
}

func (a *api) registerCharges(h huma.API) {
	huma.Register(h, operation(http.MethodPost, "/subscription/{id}/charge/{request_id}", "charge", "Charge this month's order",
		"Asks the shop for this month's order, at most one per subscription and period. 200: charged, now or before. "+
			"202: retries go on; Location says where to look. 402: declined. The request id is the idempotency key: "+
			"repeat it to ask again, use a new one for a new attempt after a decline.",
		http.StatusPaymentRequired, http.StatusNotFound, http.StatusConflict), a.charge)
	huma.Register(h, operation(http.MethodGet, "/subscription/{id}/charges", "list-charges", "List the charges",
		"The newest first. They outlive a deleted subscription.", http.StatusNotFound), a.listCharges)
	huma.Register(h, operation(http.MethodGet, "/subscription/{id}/charges/{period}", "get-charge", "Read a period's charge",
		"The charge that stands for the period, or else the last that was declined.", http.StatusNotFound), a.getCharge)
	huma.Register(h, operation(http.MethodPost, "/subscription/{id}/charges/{period}/resolve", "resolve-charge", "Settle an unresolved charge by hand",
		"For a person who has looked at the shop whether the order is there. Who, when and why are kept.",
		http.StatusNotFound, http.StatusConflict), a.resolveCharge)
	a.registerCorrections(h)
}

type chargeInput struct {
	SubscriptionPath
	RequestID string `path:"request_id" doc:"the idempotency key: 1 to 128 characters of A-Z a-z 0-9 . _ ~ : -" example:"2026-11-a"`
	Prefer    string `header:"Prefer" doc:"RFC 7240: wait=N in seconds (0 to 60), or respond-async" example:"wait=30"`
}

type chargeOutput struct {
	Status            int
	Location          string `header:"Location"`
	RetryAfter        string `header:"Retry-After"`
	PreferenceApplied string `header:"Preference-Applied"`
	Body              ChargeRecord
}

// charge answers every row of the table in docs/product.md. It asks the ledger first, and
// answers what stands there without Temporal.
func (a *api) charge(ctx context.Context, in *chargeInput) (*chargeOutput, error) {
	requestID, err := billing.ParseRequestID(in.RequestID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	now, err := a.store.Now(ctx)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	req := billing.ChargeRequest{
		SubscriptionID: in.ID, Period: billing.PeriodAt(now, a.zone),
		RequestID: requestID, RequireEligible: a.requireEligible,
	}
	facts, err := a.store.ChargeFacts(ctx, req)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if !facts.Exists {
		return nil, knownProblem(billing.SubscriptionNotFound(in.ID))
	}
	step, standing, err := billing.Decide(req, facts)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if step == billing.StepAnswer {
		return answer(standing, now)
	}
	return a.chargeByWorkflow(ctx, in, req, facts, now)
}

// answer is the response to a charge that is settled. If it was settled before the request
// came, the response says so.
func answer(c *billing.Charge, requested time.Time) (*chargeOutput, error) {
	if c.Status == billing.Declined {
		declined := billing.ChargeDeclined(c)
		declined.Detail += "; a new request id is a new attempt"
		return nil, knownProblem(declined)
	}
	before := c.SettledAt != nil && c.SettledAt.Before(requested)
	out := &chargeOutput{Status: http.StatusOK, Body: record(*c)}
	out.Body.AlreadyCharged = before
	return out, nil
}

// chargeByWorkflow starts ChargeSubscription, or joins the one that runs, and
// waits for its outcome as long as the caller likes.
func (a *api) chargeByWorkflow(ctx context.Context, in *chargeInput, req billing.ChargeRequest, facts billing.ChargeFacts, now time.Time) (*chargeOutput, error) {
	installation, err := a.charging(ctx)
	if err != nil {
		return nil, err
	}
	req.Installation = installation
	run, err := a.startCharge(ctx, workflows.ChargeInput{ChargeRequest: req, ClubID: facts.ClubID})
	if err != nil {
		a.log.WarnContext(ctx, "could not start a charge", "error", err)
		return nil, newProblem(codeTemporalUnavailable,
			"the charge could not be started; ask again with the same request id, which is safe")
	}
	wait, applied := preferredWait(in.Prefer, a.chargeWait)
	out, err := a.afterWorkflow(ctx, req, a.waitForCharge(ctx, run, wait), now)
	if out != nil {
		out.PreferenceApplied = applied
	}
	return out, err
}

// startTimeout bounds the start of a workflow. The start has a context of its
// own: a caller that hangs up must not leave it in doubt.
const startTimeout = 10 * time.Second

// startCharge starts the workflow. Requests for one charge that come together
// share one start: ten thousand of them are one call to Temporal.
func (a *api) startCharge(ctx context.Context, in workflows.ChargeInput) (client.WorkflowRun, error) {
	run, err, _ := a.starts.Do(a.names.ChargeWorkflowID(in.SubscriptionID, in.Period), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
		defer cancel()
		return a.names.StartCharge(ctx, a.temporal, in)
	})
	started, _ := run.(client.WorkflowRun) // nil with an error
	return started, err
}

var errStillRunning = errors.New("the charge is still under way")

// waitForCharge waits for the workflow's end, at most for the time, and not once the process
// is to end. Its error is how the workflow ended, or errStillRunning. All who wait for one
// workflow share one poll.
func (a *api) waitForCharge(ctx context.Context, run client.WorkflowRun, wait time.Duration) error {
	if wait == 0 {
		return errStillRunning
	}
	outcome := a.waits.DoChan(run.GetRunID(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxWait)
		defer cancel()
		return nil, run.Get(ctx, nil)
	})
	patience := time.NewTimer(wait)
	defer patience.Stop()
	select {
	case got := <-outcome:
		return got.Err
	case <-patience.C:
	case <-a.stopping:
	case <-ctx.Done():
	}
	return errStillRunning
}

// afterWorkflow answers from our own ledger, however the workflow ended: it may be one of
// another installation, or a person may have corrected its outcome. If the ledger has no
// row, all that is known is that the charge is accepted.
func (a *api) afterWorkflow(ctx context.Context, req billing.ChargeRequest, ended error, now time.Time) (*chargeOutput, error) {
	failure := workflows.FailureOf(ended)
	if failure != nil && failure.Charge == nil { // refused: it has made no row
		return nil, knownProblem(failure)
	}
	if failure != nil {
		req.RequestID = failure.Charge.RequestID // the one that it has joined
	}
	facts, err := a.store.ChargeFacts(context.WithoutCancel(ctx), req)
	if err != nil {
		a.log.WarnContext(ctx, "the outcome of a charge cannot be read yet", "error", err)
	}
	if out, err := settledAnswer(facts, failure, now); out != nil || err != nil {
		return out, err
	}
	if failure == nil && errors.As(ended, new(*temporal.WorkflowExecutionError)) {
		a.log.WarnContext(ctx, "a charge was interrupted", "error", ended)
		return nil, newProblem(codeChargeInterrupted,
			"the charge was ended from outside before it was settled; ask again with the same request id, which takes it up")
	}
	open := facts.Open
	if open == nil {
		open = underWay(req)
	}
	return &chargeOutput{
		Status: http.StatusAccepted, Location: chargeLocation(req), RetryAfter: "2", Body: record(*open),
	}, nil
}

// settledAnswer is the answer if the ledger has an outcome: the charge that stands, or the
// one under the request id. Otherwise both results are nil.
func settledAnswer(facts billing.ChargeFacts, failure *billing.Error, now time.Time) (*chargeOutput, error) {
	open, same := facts.Open, facts.SameRequest
	switch {
	case open != nil && open.Status == billing.Charged:
		return answer(open, now)
	case same == nil:
		return nil, nil
	case same.Status == billing.Declined:
		return answer(same, now)
	case failure != nil && same.Status == billing.Unresolved:
		failure.Charge = same
		return nil, knownProblem(failure)
	case failure != nil && open == nil && same.Status == billing.Withdrawn:
		return nil, knownProblem(billing.ChargeWithdrawn(same))
	}
	return nil, nil
}

// underWay is a charge that is not in the ledger yet.
func underWay(req billing.ChargeRequest) *billing.Charge {
	return &billing.Charge{
		RequestID: req.RequestID, SubscriptionID: req.SubscriptionID, Period: req.Period, Status: billing.Pending,
	}
}

func chargeLocation(req billing.ChargeRequest) string {
	return "/subscription/" + url.PathEscape(req.SubscriptionID) + "/charges/" + req.Period.String()
}

type chargesOutput struct{ Body []ChargeRecord }

func (a *api) listCharges(ctx context.Context, in *SubscriptionPath) (*chargesOutput, error) {
	charges, err := a.store.Charges(ctx, in.ID)
	if err == nil && len(charges) == 0 {
		_, err = a.store.Subscription(ctx, in.ID) // none yet, or no such subscription
	}
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &chargesOutput{Body: records(charges)}, nil
}

// PeriodPath names a subscription and a period.
type PeriodPath struct {
	SubscriptionPath
	Period string `path:"period" doc:"a month in the billing time zone" example:"2026-11"`
}

// Resolve implements huma.Resolver.
func (p *PeriodPath) Resolve(ctx huma.Context) []error {
	_, err := billing.ParsePeriod(p.Period)
	return append(p.SubscriptionPath.Resolve(ctx), inputErrors("path.period", err)...)
}

func (p *PeriodPath) period() billing.Period {
	period, _ := billing.ParsePeriod(p.Period) // Resolve has seen to it
	return period
}

type chargeRecordOutput struct{ Body ChargeRecord }

// getCharge reads the ledger. A charge that was accepted a moment ago may not
// have reached it yet; then its workflow says that it is under way.
func (a *api) getCharge(ctx context.Context, in *PeriodPath) (*chargeRecordOutput, error) {
	charge, err := a.store.Charge(ctx, in.ID, in.period())
	if billing.CodeOf(err) == billing.CodeChargeNotFound && a.isCharging(ctx, in.ID, in.period()) {
		charge, err = underWay(billing.ChargeRequest{SubscriptionID: in.ID, Period: in.period()}), nil
	}
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &chargeRecordOutput{Body: record(*charge)}, nil
}

// isCharging reports whether a workflow is at work on the charge. Without
// Temporal nothing is.
func (a *api) isCharging(ctx context.Context, subscriptionID string, period billing.Period) bool {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	d, err := a.temporal.DescribeWorkflow(ctx, a.names.ChargeWorkflowID(subscriptionID, period), "")
	return err == nil && d.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// Verdict is a person's word on how charges ended.
type Verdict struct {
	Outcome billing.ChargeStatus `json:"outcome" enum:"charged,declined" doc:"what the shop's books say"`
	Note    string               `json:"note" minLength:"1" maxLength:"1024" doc:"why, for those who ask later" example:"order 4711 is in the shop's back office"`
	By      string               `json:"by,omitempty" maxLength:"128" doc:"who says so" example:"Ana"`
}

type resolveInput struct {
	PeriodPath
	Body Verdict
}

func (a *api) resolveCharge(ctx context.Context, in *resolveInput) (*chargeRecordOutput, error) {
	charge, err := a.store.Resolve(ctx, billing.Resolution{
		SubscriptionID: in.ID, Period: in.period(), Outcome: in.Body.Outcome, By: in.Body.By, Note: in.Body.Note,
	})
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &chargeRecordOutput{Body: record(*charge)}, nil
}
