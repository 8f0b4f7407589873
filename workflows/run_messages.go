package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/billing"
)

// BillingRunName is the workflow's type.
const BillingRunName = "BillingRun"

// The messages of a run, for the Temporal UI: the API writes to the run's row itself. Each
// update may come any number of times.
const (
	PauseUpdate   = "pause"  // argument: PauseRequest, optional
	ResumeUpdate  = "resume" // no argument
	CancelUpdate  = "cancel" // no argument: open orders finish, no more start
	PaceUpdate    = "pace"   // argument: PaceRequest, each field given
	ProgressQuery = "progress"
)

// PauseRequest says why a run is paused.
type PauseRequest struct {
	Reason string `json:"reason,omitempty"`
}

// PaceRequest is a new pace in orders a second; 0 is no cap.
type PaceRequest struct {
	OrdersPerSecond float64 `json:"orders_per_second"`
}

// RunOptions start BillingRun. A second start while it runs is an error; a run
// that has ended may be followed by another, which charges what is missing.
func (n Names) RunOptions(in RunInput) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID:                                       n.RunWorkflowID(in.Period),
		TaskQueue:                                n.TaskQueue(),
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            "Billing run of " + in.Period.Title(),
		StaticDetails: "Charges everyone who was eligible at the cut-off, still is, and is not charged yet, page by page.\n\n" +
			"Updates: `pause`, `resume`, `cancel`, `pace`. Exceptions have a `ChargeSubscription` workflow each.",
		TypedSearchAttributes: temporal.NewSearchAttributes(BillingPeriodKey.ValueSet(in.Period.String())),
	}
}

// describe is the progress, as it was at the time, for the Temporal UI.
func describe(p billing.Progress, at time.Time) string {
	text := fmt.Sprintf("### Billing run of %s: %s\n\n", p.Period.Title(), p.State)
	if p.Reason != "" {
		text += "**" + p.Reason + "**\n\n"
	}
	text += "| due | charged | declined | unresolved | retrying | left |\n| --- | --- | --- | --- | --- | --- |\n"
	text += fmt.Sprintf("| %d | %d | %d | %d | %d | %d |\n\n", p.Due, p.Counts.Charged, p.Counts.Declined, p.Counts.Unresolved, p.Counts.Pending, p.Left)
	text += fmt.Sprintf("%.1f orders/s on average", p.OrdersPerSecond)
	if p.ExpectedEnd != nil {
		text += ", expected end " + p.ExpectedEnd.Format(time.RFC3339)
	}
	return text + ". As of " + at.UTC().Format(time.RFC3339) + "."
}

// handleMessages registers the query and the updates.
func (r *billingRun) handleMessages(ctx workflow.Context) error {
	err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (billing.Progress, error) { return r.progress, nil })
	if err != nil {
		return err
	}
	pause := func(ctx workflow.Context, raw converter.RawValue) (*billing.Progress, error) {
		in, err := readPause(raw)
		if err != nil {
			return nil, err
		}
		return r.update(ctx, billing.PauseRun(in.Reason))
	}
	resume := func(ctx workflow.Context, _ converter.RawValue) (*billing.Progress, error) {
		return r.update(ctx, billing.RunChange{State: billing.RunRunning})
	}
	cancel := func(ctx workflow.Context, _ converter.RawValue) (*billing.Progress, error) {
		return r.update(ctx, billing.RunChange{State: billing.RunCancelled})
	}
	pace := func(ctx workflow.Context, raw converter.RawValue) (*billing.Progress, error) {
		in, err := readPace(raw)
		if err != nil {
			return nil, err
		}
		return r.update(ctx, billing.RunChange{OrdersPerSecond: &in.OrdersPerSecond})
	}
	validPause := func(raw converter.RawValue) error { _, err := readPause(raw); return err }
	validPace := func(raw converter.RawValue) error { _, err := readPace(raw); return err }
	handle := func(name string, handler any, validator func(converter.RawValue) error, description string) error {
		return workflow.SetUpdateHandlerWithOptions(ctx, name, handler, workflow.UpdateHandlerOptions{Validator: validator, Description: description})
	}
	return errors.Join(
		handle(PauseUpdate, pause, validPause, "Start no more orders until resumed: "+pauseForm+"."),
		handle(ResumeUpdate, resume, readNothing, "Go on where the run stood: "+nothingForm+"."),
		handle(CancelUpdate, cancel, readNothing, "Let open orders finish and start no more: "+nothingForm+"."),
		handle(PaceUpdate, pace, validPace, "Change the cap, in orders a second: "+paceForm+"."),
	)
}

// update changes the run's row, as the API does, once the run is recorded.
func (r *billingRun) update(ctx workflow.Context, change billing.RunChange) (*billing.Progress, error) {
	// A cancellation of the workflow must not fail the update: cancelWith handles it.
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	if err := workflow.Await(ctx, r.isRecorded); err != nil {
		return nil, err
	}
	change.UpdateID = workflow.GetInfo(ctx).WorkflowExecution.RunID + "/" + workflow.GetCurrentUpdateInfo(ctx).ID
	run, err := r.changeRow(ctx, change)
	if err == nil {
		r.read(run, nil)
		r.refresh(ctx)
	}
	return &r.progress, err
}

func (r *billingRun) isRecorded() bool { return r.state.Execution != "" }

// changeRow writes to the run's row. It is no local activity: the history would show the
// write only when the workflow task is done. If the worker and then Temporal died in between,
// the sender of the update would not learn what the row says.
func (r *billingRun) changeRow(ctx workflow.Context, change billing.RunChange) (*billing.Run, error) {
	what := "run: " + string(change.State)
	if change.OrdersPerSecond != nil {
		what = fmt.Sprintf("run: pace %g orders/s", *change.OrdersPerSecond)
	}
	ctx = workflow.WithActivityOptions(ctx, ledgerActivity(what))
	// A fresh value: decoding into an old one would keep what is absent now.
	var run billing.Run
	err := workflow.ExecuteActivity(ctx, acts.ChangeRun, activities.ChangeRunInput{RunRef: r.named(), Change: change}).Get(ctx, &run)
	return &run, err
}

// cancelWith has a cancellation of the workflow from outside mean the same as the update.
func (r *billingRun) cancelWith(ctx, work workflow.Context) {
	workflow.Go(work, func(work workflow.Context) {
		if ctx.Done().Receive(work, nil); ctx.Err() != nil {
			r.read(r.changeRow(work, billing.RunChange{State: billing.RunCancelled, Reason: "the workflow was cancelled"}))
			r.events++
		}
	})
}

// handlersDone waits for updates that are being handled: ending under them would
// leave their senders without an answer.
func (r *billingRun) handlersDone(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
}
