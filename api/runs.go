package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"drayman/billing"
	"drayman/workflows"
)

func (a *api) registerRuns(h huma.API) {
	start := operation(http.MethodPost, "/billing-run/{period}", "start-run", "Start the billing run of a month",
		"Charges everyone who is due and not charged yet: who was eligible at the cut-off, and is when the order is made. The "+
			"cut-off is the start, and for a month that is over its last microsecond. Such a month must be confirmed with "+
			"confirm_past; else 409 past_period_unconfirmed says how many would be due. 202: it has started. 200: one is "+
			"running already. After one has ended, another charges only what is missing.", http.StatusConflict)
	start.DefaultStatus = http.StatusAccepted
	huma.Register(h, start, a.startRun)
	huma.Register(h, operation(http.MethodGet, "/billing-run/{period}", "get-run", "Read a run's progress",
		"The newest run of the month.", http.StatusNotFound), a.getRun)
	huma.Register(h, operation(http.MethodGet, "/billing-runs", "list-runs", "List the runs", "The newest month first."), a.listRuns)
	huma.Register(h, operation(http.MethodPost, "/billing-run/{period}/pause", "pause-run", "Pause a run",
		"No more orders go out, within two seconds.", http.StatusNotFound, http.StatusConflict), a.pauseRun)
	huma.Register(h, operation(http.MethodPost, "/billing-run/{period}/resume", "resume-run", "Resume a paused run",
		"It goes on where it stood.", http.StatusNotFound, http.StatusConflict), a.moveRun(billing.RunRunning))
	huma.Register(h, operation(http.MethodPost, "/billing-run/{period}/cancel", "cancel-run", "Cancel a run",
		"Open orders finish, no more start. Another run can charge the rest.", http.StatusNotFound, http.StatusConflict), a.moveRun(billing.RunCancelled))
	huma.Register(h, operation(http.MethodPost, "/billing-run/{period}/pace", "pace-run", "Change a run's pace",
		"Holds from the next batch of orders on.", http.StatusNotFound, http.StatusConflict), a.paceRun)
	huma.Register(h, operation(http.MethodGet, "/billing-run/{period}/report", "report-run", "Account for a month",
		"Of those eligible at the cut-off of the newest run: what became of each, in all and by club and SKU. With ids, a bare "+
			"array of the ids of one class.", http.StatusNotFound), a.reportRun)
}

// RunPath names a month.
type RunPath struct {
	Period string `path:"period" doc:"a month in the billing time zone" example:"2026-11"`
}

// Resolve implements huma.Resolver.
func (p *RunPath) Resolve(huma.Context) []error {
	_, err := billing.ParsePeriod(p.Period)
	return inputErrors("path.period", err)
}

func (p *RunPath) period() billing.Period {
	period, _ := billing.ParsePeriod(p.Period) // Resolve has seen to it
	return period
}

type startRunInput struct {
	RunPath
	Body *struct {
		OrdersPerSecond   Pace `json:"orders_per_second,omitempty" doc:"cap on the orders of the whole run; 0: none" minimum:"0" maximum:"100000"`
		PageSize          int  `json:"page_size,omitempty" doc:"subscriptions a page; default 500" minimum:"1" maximum:"5000"`
		Concurrency       int  `json:"concurrency,omitempty" doc:"orders in flight at once; default 64" minimum:"1" maximum:"1000"`
		WorkflowPerCharge bool `json:"workflow_per_charge,omitempty" doc:"give each charge a workflow of its own"`
		ConfirmPast       bool `json:"confirm_past,omitempty" doc:"the month may be one that is over"`
	}
}

// Pace is a cap in orders a second. Only an explicit 0 is no cap.
type Pace float64

// UnmarshalJSON refuses a null.
func (p *Pace) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return billing.Invalid("orders_per_second", "must not be null; leave it out for the default, or give 0 for no cap")
	}
	return json.Unmarshal(data, (*float64)(p))
}

// run is what the body asks for, with defaults for what it does not say.
func (in *startRunInput) run(zone *time.Location) (workflows.RunInput, error) {
	run := workflows.RunInput{Period: in.period(), Timezone: zone.String()}
	if b := in.Body; b != nil {
		run.ConfirmPast = b.ConfirmPast
		run.Settings = billing.RunSettings{
			OrdersPerSecond: float64(b.OrdersPerSecond), PageSize: b.PageSize, Concurrency: b.Concurrency, WorkflowPerCharge: b.WorkflowPerCharge,
		}
	}
	run.Settings = run.Settings.WithDefaults()
	return run, run.Settings.Validate()
}

type progressOutput struct {
	Status int
	Body   billing.Progress
}

const (
	// recordedWithin is how long a start waits until the run is on record.
	recordedWithin = 10 * time.Second
	// startAgain is the wait between two tries to start a run while another is in the way.
	startAgain = 200 * time.Millisecond
	runSilent  = "a run is in the way that is not on record; Temporal or all workers may be away; ask again, which is safe"
)

func (a *api) startRun(ctx context.Context, in *startRunInput) (*progressOutput, error) {
	run, err := in.run(a.zone)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if run.Installation, err = a.charging(ctx); err != nil {
		return nil, err
	}
	switch err := a.mayStart(ctx, run); {
	case billing.CodeOf(err) == billing.CodePastUnconfirmed && a.isRunning(ctx, in.period()):
		return a.progressOf(ctx, in.period(), "", nil, http.StatusOK)
	case err != nil:
		return nil, a.problem(ctx, err)
	}
	run.ConfirmPast = true // or it is the current month, which may end before a worker comes
	return a.beginRun(ctx, run)
}

// beginRun starts the run, or finds the one that is running. Two others may be in its way: a
// run that has ended by its row, and will by Temporal in a moment; and one that is about to
// make its row again, in a database that was restored.
func (a *api) beginRun(ctx context.Context, in workflows.RunInput) (*progressOutput, error) {
	deadline := time.Now().Add(recordedWithin)
	for {
		started, err := a.executeRun(ctx, in)
		var running *serviceerror.WorkflowExecutionAlreadyStarted
		switch {
		case err == nil:
			return a.progressOf(ctx, in.Period, started.GetRunID(), refusalOf(ctx, started), http.StatusAccepted)
		case !errors.As(err, &running):
			a.log.WarnContext(ctx, "could not start a billing run", "error", err)
			return nil, newProblem(codeTemporalUnavailable, "the run could not be started; ask again, which is safe")
		case a.mayBeActive(ctx, in.Period):
			return a.progressOf(ctx, in.Period, "", nil, http.StatusOK)
		case time.Now().After(deadline):
			return nil, newProblem(codeTemporalUnavailable, runSilent)
		}
		select {
		case <-ctx.Done():
			return nil, a.problem(ctx, ctx.Err())
		case <-time.After(startAgain):
		}
	}
}

// mayStart checks the month, as the run will again. For one that is over and not confirmed
// it says how many would be charged.
func (a *api) mayStart(ctx context.Context, in workflows.RunInput) error {
	now, err := a.store.Now(ctx)
	if err != nil {
		return err
	}
	_, err = billing.RunStart{Period: in.Period, ConfirmPast: in.ConfirmPast, Zone: a.zone}.CutOff(now)
	var refusal *billing.Error
	if !errors.As(err, &refusal) || refusal.Code != billing.CodePastUnconfirmed {
		return err
	}
	due, err := a.store.CountDue(ctx, in.Period, *refusal.CutOff)
	if err != nil {
		return err
	}
	refusal.Due = &due
	refusal.Detail += fmt.Sprintf("; %d would be due", due)
	return refusal
}

// isRunning reports that the period's run is active, by its record and by Temporal.
func (a *api) isRunning(ctx context.Context, period billing.Period) bool {
	if !a.mayBeActive(ctx, period) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	d, err := a.temporal.DescribeWorkflow(ctx, a.names.RunWorkflowID(period), "")
	return err == nil && d.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// mayBeActive reports that the period's newest run has not ended by its record,
// or that nobody can tell.
func (a *api) mayBeActive(ctx context.Context, period billing.Period) bool {
	run, err := a.store.Run(ctx, period)
	if err != nil {
		return billing.CodeOf(err) != billing.CodeRunNotFound
	}
	return run.EndedAt == nil
}

func (a *api) executeRun(ctx context.Context, in workflows.RunInput) (client.WorkflowRun, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	return a.temporal.ExecuteWorkflow(ctx, a.names.RunOptions(in), workflows.BillingRunName, in)
}

// refusalOf returns why an execution fails that has begun nothing yet: another installation's
// worker has it, or the worker refuses it by its clock or settings.
func refusalOf(ctx context.Context, run client.WorkflowRun) <-chan *billing.Error {
	refused := make(chan *billing.Error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordedWithin)
		defer cancel()
		if known := workflows.FailureOf(run.Get(ctx, nil)); known != nil {
			refused <- known
		}
	}()
	return refused
}

// progressOf reads the newest run; with an execution it waits until that one is
// on record, or refused.
func (a *api) progressOf(ctx context.Context, period billing.Period, executionID string, refused <-chan *billing.Error, status int) (*progressOutput, error) {
	deadline := time.Now().Add(recordedWithin)
	for {
		run, err := a.store.Run(ctx, period)
		recorded := err == nil && (executionID == "" || run.ExecutionID == executionID)
		unknown := billing.CodeOf(err) == billing.CodeRunNotFound && executionID != ""
		switch {
		case recorded:
			return a.progressOutput(ctx, *run, status)
		case err != nil && !unknown:
			return nil, a.problem(ctx, err)
		case time.Now().After(deadline):
			// It will be, as soon as a worker polls.
			settings := billing.RunSettings{}.WithDefaults()
			return &progressOutput{Status: status, Body: billing.Progress{Run: billing.Run{Period: period, State: billing.RunRunning, Settings: settings}}}, nil
		}
		select {
		case <-ctx.Done():
			return nil, a.problem(ctx, ctx.Err())
		case known := <-refused:
			return nil, knownProblem(known)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (a *api) progressOutput(ctx context.Context, run billing.Run, status int) (*progressOutput, error) {
	counts, err := a.store.RunCounts(ctx, run.ID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	now, err := a.store.Now(ctx)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &progressOutput{Status: status, Body: billing.NewProgress(run, counts, now)}, nil
}

func (a *api) getRun(ctx context.Context, in *RunPath) (*progressOutput, error) {
	return a.progressOf(ctx, in.period(), "", nil, http.StatusOK)
}

type runsOutput struct{ Body []billing.Run }

func (a *api) listRuns(ctx context.Context, _ *struct{}) (*runsOutput, error) {
	runs, err := a.store.Runs(ctx)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &runsOutput{Body: runs}, nil
}

type pauseRunInput struct {
	RunPath
	Body *struct {
		Reason string `json:"reason,omitempty" maxLength:"500" doc:"shown with the progress"`
	}
}

func (a *api) pauseRun(ctx context.Context, in *pauseRunInput) (*progressOutput, error) {
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	if err := billing.ValidateText("reason", reason, 0, billing.MaxReason); err != nil {
		return nil, a.problem(ctx, err)
	}
	return a.changeRun(ctx, in.period(), billing.PauseRun(reason))
}

// moveRun handles a change of the run's state that has no argument.
func (a *api) moveRun(state billing.RunState) func(context.Context, *RunPath) (*progressOutput, error) {
	return func(ctx context.Context, in *RunPath) (*progressOutput, error) {
		return a.changeRun(ctx, in.period(), billing.RunChange{State: state})
	}
}

type paceRunInput struct {
	RunPath
	Body struct {
		OrdersPerSecond float64 `json:"orders_per_second" doc:"the new cap; 0: none" minimum:"0" maximum:"100000"`
	}
}

func (a *api) paceRun(ctx context.Context, in *paceRunInput) (*progressOutput, error) {
	return a.changeRun(ctx, in.period(), billing.RunChange{OrdersPerSecond: &in.Body.OrdersPerSecond})
}

// changeRun writes to the row of the month's newest run, which decides: its pages read it
// before each batch, and its workflow watches it. So it works while Temporal is away.
func (a *api) changeRun(ctx context.Context, period billing.Period, change billing.RunChange) (*progressOutput, error) {
	run, err := a.store.Run(ctx, period)
	if err == nil {
		run, err = a.store.ChangeRun(ctx, run.ID, change)
	}
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return a.progressOutput(ctx, *run, http.StatusOK)
}

type reportInput struct {
	RunPath
	IDs string `query:"ids" doc:"list the ids of this class instead" enum:"charged_in_run,charged_before,declined,unresolved,pending,skipped,missing"`
}

func (a *api) reportRun(ctx context.Context, in *reportInput) (*huma.StreamResponse, error) {
	run, err := a.store.Run(ctx, in.period())
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if in.IDs != "" {
		return a.idsResponse(ctx, func(ctx context.Context, yield func(string) error) error {
			return a.store.ReportIDs(ctx, *run, billing.ReportClass(in.IDs), yield)
		}), nil
	}
	report, err := a.store.Report(ctx, *run)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return jsonResponse(report), nil
}
