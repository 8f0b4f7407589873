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

// billingRun is a run at work. Its fields are shared by coroutines, of which one
// runs at a time.
type billingRun struct {
	in       RunInput
	state    runState
	progress billing.Progress // as last counted

	pages     int  // being charged
	anew      bool // the database was replaced, or lacks the run's row
	draining  bool // about to continue as new
	events    int  // what came back: pages, and the watch
	slowUntil time.Time
	refreshed time.Time
	failed    error // of an activity that failed for good
}

// BillingRun charges everyone who is due in the period and not charged yet, and
// completes with the progress that it ended with. It is one run for an
// operator, however often it continues as new. The input is a [RunInput].
func BillingRun(ctx workflow.Context, raw converter.RawValue) (*billing.Progress, error) {
	in, err := readRun(ctx, raw)
	if err != nil {
		return nil, refusal(err)
	}
	r := &billingRun{in: in}
	if in.State != nil {
		r.state = *in.State
		r.progress = billing.NewProgress(r.state.Run, billing.RunCounts{}, workflow.Now(ctx))
	}
	if err := r.handleMessages(ctx); err != nil {
		return nil, err
	}
	return r.run(ctx)
}

// run is the story of a run. The run's row says whether it is running, paused or over:
// pages read it before each batch, and the watch tells the workflow.
func (r *billingRun) run(ctx workflow.Context) (*billing.Progress, error) {
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	// What is under way must settle, so the work does not hear of a cancellation from
	// outside: that changes the row, as the update does.
	work, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	r.cancelWith(ctx, work)
	workflow.Go(work, r.watch)

	r.chargePages(work)
	r.awaitSettled(work)
	if r.goesOn() && !r.draining {
		r.read(r.changeRow(work, billing.RunChange{State: billing.RunFinished, Recalled: r.state.Recalled}))
	}
	r.refresh(work)
	switch {
	case r.failed != nil:
		return nil, r.failed
	case r.anew:
		return nil, r.continueAsNew(work, runState{Run: r.state.Run})
	case !r.state.Run.Ended():
		return nil, r.continueAsNew(work, r.state)
	}
	return &r.progress, r.handlersDone(work)
}

// begin records the run, or finds its row again, and waits until the database may charge.
// It does nothing if the run goes on after it has continued as new.
func (r *billingRun) begin(ctx workflow.Context) error {
	if r.state.Execution != "" {
		return nil
	}
	info := workflow.GetInfo(ctx)
	in := activities.StartRunInput{
		Period: r.in.Period, ExecutionID: info.FirstRunID, Settings: r.in.Settings.WithDefaults(), Installation: r.in.Installation,
		ConfirmPast: r.in.ConfirmPast, Nominal: r.in.Nominal, Timezone: r.in.Timezone,
	}
	if r.in.State != nil { // it begins anew, and is not to be lost by a cancellation
		in.Known = &r.in.State.Run
		ctx, _ = workflow.NewDisconnectedContext(ctx)
	}
	var out activities.StartRunOutput
	err := workflow.ExecuteActivity(planOptions(ctx, "record the run and count who is due"), acts.StartRun, in).Get(ctx, &out)
	r.state = runState{Run: out.Run, Recalled: out.Recalled, Execution: info.WorkflowExecution.RunID}
	return err
}

// goesOn says that nothing is in the way of the run but, maybe, a pause.
func (r *billingRun) goesOn() bool { return !r.state.Run.Ended() && !r.anew && r.failed == nil }

// begins says that another page may begin now.
func (r *billingRun) begins() bool {
	return r.goesOn() && !r.draining && r.state.Run.State == billing.RunRunning
}

// chargePages plans and charges pages until there are no more, or the run goes no further
// in this execution. Then it waits for the pages in flight.
func (r *billingRun) chargePages(ctx workflow.Context) {
	for r.goesOn() && !r.draining {
		seen := r.events
		r.plan(ctx)
		wait := r.dispatch(ctx)
		if r.pages == 0 && r.state.AllPlanned && len(r.state.Queue) == 0 {
			return
		}
		if workflow.Now(ctx).Sub(r.refreshed) >= refreshEvery {
			r.refresh(ctx)
		}
		r.awaitEvent(ctx, seen, wait)
		r.draining = r.draining || workflow.GetInfo(ctx).GetContinueAsNewSuggested()
	}
	for r.pages > 0 {
		through, _ := workflow.AwaitWithTimeout(ctx, refreshIdle, func() bool { return r.pages == 0 })
		if !through {
			r.refresh(ctx)
		}
	}
}

// plan plans the next pages, once the queue is empty.
func (r *billingRun) plan(ctx workflow.Context) {
	if len(r.state.Queue) > 0 || r.state.AllPlanned || !r.begins() {
		return
	}
	var planned activities.PlanRunOutput
	err := workflow.ExecuteActivity(planOptions(ctx, "cut pages after "+r.state.PlannedTo), acts.PlanRun, activities.PlanRunInput{
		RunRef: r.named(), After: r.state.PlannedTo, PageSize: r.state.Run.Settings.PageSize, Pages: plannedPages,
	}).Get(ctx, &planned)
	if r.stopsFor(err) {
		return
	}
	for _, end := range planned.Ends {
		r.state.Pages++
		r.state.Queue = append(r.state.Queue, pageRange{Number: r.state.Pages, From: r.state.PlannedTo, After: r.state.PlannedTo, UpTo: end})
		r.state.PlannedTo = end
	}
	r.state.AllPlanned = !planned.More
}

// dispatch charges the next pages of the queue, and returns how long to wait for one whose
// time has not come; 0 if for none.
func (r *billingRun) dispatch(ctx workflow.Context) time.Duration {
	now := workflow.Now(ctx)
	if !r.begins() || r.pages == parallelPages {
		return 0
	}
	if wait := r.slowUntil.Sub(now); wait > 0 {
		return wait
	}
	var soonest time.Duration
	for i := 0; i < len(r.state.Queue) && r.pages < parallelPages; {
		next := r.state.Queue[i]
		if wait := next.NotBefore.Sub(now); wait > 0 {
			if soonest == 0 || wait < soonest {
				soonest = wait
			}
			i++
			continue
		}
		r.state.Queue = append(r.state.Queue[:i:i], r.state.Queue[i+1:]...)
		r.pages++
		workflow.Go(ctx, func(ctx workflow.Context) { r.charge(ctx, next) })
	}
	return soonest
}

func (r *billingRun) charge(ctx workflow.Context, page pageRange) {
	defer func() { r.pages, r.events = r.pages-1, r.events+1 }()
	var out activities.ChargePageOutput
	options := pageOptions(ctx, fmt.Sprintf("page %d: (%s … %s]", page.Number, page.After, page.UpTo))
	err := workflow.ExecuteActivity(options, acts.ChargePage, activities.ChargePageInput{
		RunRef: r.named(), Number: page.Number, After: page.After, UpTo: page.UpTo,
		Concurrency: max(1, r.state.Run.Settings.Concurrency/parallelPages),
	}).Get(ctx, &out)
	if !r.stopsFor(err) {
		r.cameBack(ctx, page, out)
	}
}

// cameBack puts what a page has left back into the queue: the rest, if it stopped early, or
// all of it, for rows that were locked.
func (r *billingRun) cameBack(ctx workflow.Context, page pageRange, out activities.ChargePageOutput) {
	now := workflow.Now(ctx)
	page.After, page.Locked = out.Cursor, page.Locked+out.Locked
	if page.Locked > 0 && page.LockedSince.IsZero() {
		page.LockedSince = now
	}
	switch {
	case !out.Done:
		r.state.Queue = append([]pageRange{page}, r.state.Queue...)
	case page.Locked > 0 && now.Sub(page.LockedSince) < lockedPatience:
		page.After, page.Locked, page.NotBefore = page.From, 0, now.Add(lockedPause)
		r.state.Queue = append(r.state.Queue, page)
	}
	switch out.Stop {
	case "":
		r.state.Bad = 0
	case activities.StopRun:
		r.refresh(ctx) // the row says why, before the watch does
	case activities.StopRefused, activities.StopFailing:
		r.slowDown(ctx, out)
	case activities.StopReplaced:
		r.anew = true
	}
}

// slowDown waits longer with each page that stops in a row, and then pauses the run: else a
// month of orders would fail.
func (r *billingRun) slowDown(ctx workflow.Context, out activities.ChargePageOutput) {
	r.state.Bad++
	r.slowUntil = workflow.Now(ctx).Add(slowdown << (r.state.Bad - 1))
	if r.state.Bad < badPages || r.state.Run.State != billing.RunRunning {
		return
	}
	reason := "most orders fail; the shop says: " + out.Detail
	if out.Stop == activities.StopRefused {
		reason = "the shop refuses our credentials or address (SHOP_URL, SHOP_API_KEY, SHOP_API_SECRET); it says: " + out.Detail
	}
	r.read(r.changeRow(ctx, billing.RunChange{State: billing.RunPaused, Reason: reason}))
}

// watch follows the run's row, whoever writes it, as long as the run goes on. The activity
// also starts the workflows of the charges that pages, and others before them, have left.
func (r *billingRun) watch(ctx workflow.Context) {
	for ctx.Err() == nil && r.goesOn() {
		in := activities.WatchRunInput{RunRef: r.named(), State: r.state.Run.State, First: !r.state.Swept}
		watching, stop := workflow.WithCancel(pageOptions(ctx, "watch the run's row; start workflows for what is left over"))
		watched := workflow.ExecuteActivity(watching, acts.WatchRun, in)
		// The workflow may learn of another state first: a watch that has missed it would
		// wait for ever.
		_ = workflow.Await(ctx, func() bool { return watched.IsReady() || r.state.Run.State != in.State }) // the loop sees ctx
		if watched.IsReady() {
			var out activities.WatchRunOutput
			err := watched.Get(ctx, &out)
			r.anew = r.anew || out.Replaced
			r.read(&out.Run, err)
			r.events++
		}
		stop()
		r.state.Swept = r.state.Swept || in.State == billing.RunRunning
	}
}

// awaitSettled waits until no charge of the run is retried any longer, or the
// run goes no further in this execution.
func (r *billingRun) awaitSettled(ctx workflow.Context) {
	for wait := settlingPause; r.goesOn() && !r.draining; wait = min(max(2*wait, settlingPause), refreshIdle) {
		seen := r.events
		r.refresh(ctx)
		switch {
		case r.state.Run.State == billing.RunPaused:
			wait = 0 // until it is resumed
		case r.progress.Counts.Pending == 0:
			return
		}
		r.awaitEvent(ctx, seen, wait)
		r.draining = workflow.GetInfo(ctx).GetContinueAsNewSuggested()
	}
}

// awaitEvent waits until something came back that was not seen yet, at most for the time, if
// one is given; if none is, at most [refreshIdle] while the run is running, so that its caller
// counts again, and for as long as it takes while it is paused.
func (r *billingRun) awaitEvent(ctx workflow.Context, seen int, most time.Duration) {
	if most == 0 && r.state.Run.State == billing.RunRunning {
		most = refreshIdle
	}
	changed := func() bool { return r.events != seen || !r.goesOn() }
	if most == 0 {
		_ = workflow.Await(ctx, changed) // the context is never cancelled
		return
	}
	_, _ = workflow.AwaitWithTimeout(ctx, most, changed)
}

// read takes over what the run's row says.
func (r *billingRun) read(run *billing.Run, err error) {
	if r.stopsFor(err) || r.anew {
		return
	}
	if run.State != r.state.Run.State {
		r.events++
		r.refreshed = time.Time{} // what people see is no longer true
		if run.State == billing.RunRunning {
			r.state.Bad, r.slowUntil = 0, time.Time{}
		}
	}
	r.state.Run = *run
}

// stopsFor records an error that was not retried away, and says whether there is one. If the
// database was replaced, or lacks the run, the run begins anew.
func (r *billingRun) stopsFor(err error) bool {
	var failure *temporal.ApplicationError
	switch {
	case err == nil:
		return false
	case r.failed != nil: // the first one is told
	case !errors.As(err, &failure):
		r.failed = err
	case failure.Type() == string(billing.CodeDatabaseReplaced), failure.Type() == string(billing.CodeRunNotFound):
		r.anew = true
	case failure.Type() != string(billing.CodeRunNotActive): // else it has ended: its row will say so
		r.failed = err
	}
	return true
}

// refresh reads the run's row, and counts its charges for the query and the Temporal UI.
func (r *billingRun) refresh(ctx workflow.Context) {
	var progress billing.Progress
	if r.stopsFor(callLedger(ctx, "count", acts.Progress, r.named(), &progress)) {
		return
	}
	r.read(&progress.Run, nil)
	r.progress, r.refreshed = progress, workflow.Now(ctx)
	workflow.SetCurrentDetails(ctx, describe(progress, r.refreshed))
}

// named is how activities know the run.
func (r *billingRun) named() activities.RunRef {
	return activities.RunRef{
		Installation: r.in.Installation, RunID: r.state.Run.ID, Period: r.in.Period,
		Recalled: r.state.Recalled, Execution: r.state.Execution,
	}
}

func (r *billingRun) continueAsNew(ctx workflow.Context, state runState) error {
	if err := r.handlersDone(ctx); err != nil {
		return err
	}
	in := r.in
	in.State = &state
	return workflow.NewContinueAsNewError(ctx, BillingRunName, in)
}
