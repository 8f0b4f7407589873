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

// The messages of a run. All are updates but the query, each may come any number
// of times, and a person can send them from the Temporal UI.
const (
	PauseUpdate   = "pause"  // argument: PauseRequest, optional
	ResumeUpdate  = "resume" // no argument
	CancelUpdate  = "cancel" // no argument: open orders finish, no more start
	PaceUpdate    = "pace"   // argument: PaceRequest, each field given
	CheckUpdate   = "check"  // no argument: count again; a run whose record is gone ends
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

// Numbers of a run.
const (
	// parallelPages is how many pages are charged at once; they share the run's
	// concurrency.
	parallelPages = 4
	// plannedPages is how many pages are cut at a time.
	plannedPages = 200
	// badPages is how many pages may stop in a row before the run pauses itself;
	// slowdown is the wait after the first, doubled each time.
	badPages = 3
	slowdown = 5 * time.Second
	// startedAtOnce is how many exceptions one activity starts; pages wait while
	// maxExceptions are to be started, which happens where each is one.
	startedAtOnce = 500
	maxExceptions = 10_000
	// refreshEvery is how often the run counts, at most, while pages come in.
	refreshEvery = 5 * time.Second
	// settlingPause is the wait between two looks at charges that still retry; it
	// grows up to settlingPauseMax.
	settlingPause    = 2 * time.Second
	settlingPauseMax = time.Minute
	// beatTimeout is how long a page may be silent before another worker takes it
	// up; pages report every two seconds.
	beatTimeout = 10 * time.Second
	// pageTimeout bounds one try of a page; at 0.01 orders a second, the slowest
	// pace, a page of 500 takes 14 hours.
	pageTimeout = 30 * 24 * time.Hour
)

// RunInput starts a run. State is set when it continues as new.
type RunInput struct {
	Period   billing.Period      `json:"period"`
	Settings billing.RunSettings `json:"settings"`
	// Installation is the id of the one that asks; another one's worker refuses.
	Installation string `json:"installation"`
	// ConfirmPast must be true for a month that is over, unless a schedule starts
	// the run: then Nominal is its time, which is the cut-off, in its Timezone.
	ConfirmPast bool      `json:"confirm_past,omitempty"`
	Nominal     time.Time `json:"nominal,omitzero"`
	Timezone    string    `json:"timezone,omitempty"`
	State       *runState `json:"state,omitempty"`
}

// pageRange is a page that is still to be charged.
type pageRange struct {
	Number int    `json:"number"`
	After  string `json:"after"`
	UpTo   string `json:"up_to"`
}

// runState is what a run carries through continue-as-new.
type runState struct {
	Run        billing.Run `json:"run"`
	Queue      []pageRange `json:"queue,omitempty"`
	PlannedTo  string      `json:"planned_to"`
	AllPlanned bool        `json:"all_planned"`
	Pages      int         `json:"pages"` // planned so far
	Bad        int         `json:"bad"`   // pages that stopped in a row
	// Anew: the ledger may lack charges, of this run too. Before the next page, the
	// run looks through what Temporal remembers.
	Anew bool `json:"anew,omitempty"`
	// LeftOver: charges that nobody works on are to be taken up.
	LeftOver bool `json:"left_over,omitempty"`
	// Incarnation is the database's that has been looked through, and By when.
	Incarnation string    `json:"incarnation,omitempty"`
	By          time.Time `json:"by,omitzero"`
	// Exceptions wait for workflows of their own.
	Exceptions []string `json:"exceptions,omitempty"`
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

// billingRun is a run at work. Its fields are shared by coroutines, of which one
// runs at a time.
type billingRun struct {
	in       RunInput
	state    runState
	progress billing.Progress

	pages       int  // being charged
	starting    bool // workflows for exceptions, one batch at a time
	draining    bool // about to continue as new
	events      int  // pages and starts that came back
	slowUntil   time.Time
	refreshed   time.Time
	failed      error          // an activity that failed for good
	controlling workflow.Mutex // held while the run's row is changed
}

// fail ends the run with the first error that no retry mends.
func (r *billingRun) fail(err error) {
	switch {
	case r.failed != nil || err == nil:
		return
	case failureType(err) == string(billing.CodeRunNotFound):
		// To go on would be to guess what the older database has forgotten: a
		// person starts the run again, and that looks first.
		err = temporal.NewApplicationError("the database does not know this run: it was restored to an earlier time, "+
			"or the run's row was deleted; see to that, then start the run again", string(billing.CodeRunNotFound))
	}
	r.failed = err
}

func failureType(err error) string {
	var failure *temporal.ApplicationError
	if !errors.As(err, &failure) {
		return ""
	}
	return failure.Type()
}

// BillingRun charges everyone who is due in the period and not charged yet, and
// completes with the progress that it ended with. It is one run for an
// operator, however often it continues as new. The input is a [RunInput].
func BillingRun(ctx workflow.Context, raw converter.RawValue) (*billing.Progress, error) {
	in, err := readRun(ctx, raw)
	if err != nil {
		return nil, refusal(err)
	}
	r := &billingRun{in: in, controlling: workflow.NewMutex(ctx)}
	if in.State != nil {
		r.state = *in.State
		r.progress = billing.NewProgress(r.state.Run, billing.RunCounts{}, workflow.Now(ctx))
	}
	if err := r.handleMessages(ctx); err != nil {
		return nil, err
	}
	// A cancellation from outside means the same as the update; what is under way
	// must settle all the same, so the work itself does not hear of it.
	work, _ := workflow.NewDisconnectedContext(ctx)
	workflow.Go(work, func(work workflow.Context) {
		if ctx.Done().Receive(work, nil); ctx.Err() != nil {
			r.fail(r.control(work, activities.ControlRunInput{State: billing.RunCancelled, Reason: "the workflow was cancelled"}))
		}
	})
	return r.run(work)
}

// run is the story of a run.
func (r *billingRun) run(ctx workflow.Context) (*billing.Progress, error) {
	if r.in.State == nil {
		if err := r.begin(ctx); err != nil {
			return nil, err
		}
		if _, err := r.recall(ctx); err != nil {
			r.fail(err)
			return nil, r.failed
		}
		r.startExceptions(ctx)
	}
	r.refresh(ctx)
	for {
		if err := r.chargePages(ctx); err != nil {
			return nil, err
		}
		if err := r.awaitSettled(ctx); err != nil {
			return nil, err
		}
		if !r.state.Anew || r.over() {
			break
		}
	}
	if r.ended() {
		r.refresh(ctx)
	} else {
		r.fail(r.control(ctx, activities.ControlRunInput{State: billing.RunFinished}))
	}
	if r.failed != nil {
		return nil, r.failed
	}
	return &r.progress, r.handlersDone(ctx)
}

func (r *billingRun) begin(ctx workflow.Context) error {
	in := activities.StartRunInput{
		Period: r.in.Period, ExecutionID: workflow.GetInfo(ctx).FirstRunID, Settings: r.in.Settings.WithDefaults(),
		Installation: r.in.Installation,
		ConfirmPast:  r.in.ConfirmPast, Nominal: r.in.Nominal, Timezone: r.in.Timezone,
	}
	return workflow.ExecuteActivity(planOptions(ctx, "record the run and count who is due"), acts.StartRun, in).Get(ctx, &r.state.Run)
}

// lookAgain is for a database that was restarted, or is an older one: then the ledger
// may have forgotten pages, too, and all are charged again.
func (r *billingRun) lookAgain(ctx workflow.Context) error {
	if !r.state.Anew || r.pages > 0 || r.draining || r.state.Run.State != billing.RunRunning {
		return nil
	}
	r.state.Queue, r.state.Exceptions, r.state.PlannedTo, r.state.AllPlanned = nil, nil, "", false
	recalled, err := r.recall(ctx)
	switch {
	case err != nil || r.over():
	case recalled.Idempotent:
		err = r.agree(ctx) // the older row may say that the run is paused
	default:
		err = r.control(ctx, activities.ControlRunInput{State: billing.RunPaused, Reason: replacedReason})
	}
	r.fail(err)
	return r.failed
}

// replacedReason is why a run pauses where to ask again is to order again.
const replacedReason = "the database was restarted, or another stands in its place, and the shop is not idempotent: " +
	"see that the ledger has every order of the shop's, then resume"

// recall has the ledger know what Temporal remembers of the month, before pages ask
// it who is uncharged; what is open there is to be taken up. It returns a zero output
// if the run ends before the activity does.
func (r *billingRun) recall(ctx workflow.Context) (out activities.RecallChargesOutput, err error) {
	r.state.LeftOver = true
	ctx, stop := workflow.WithCancel(pageOptions(ctx, "put back what a restored database has forgotten"))
	defer stop()
	recalled := workflow.ExecuteActivity(ctx, acts.RecallCharges, activities.RecallChargesInput{Run: r.state.Run, Installation: r.in.Installation})
	// Without Temporal's list it takes until that is back; a cancel must not wait for it.
	err = workflow.Await(ctx, func() bool { return recalled.IsReady() || r.over() })
	if err != nil || !recalled.IsReady() {
		return out, errors.Join(err, r.failed)
	}
	err = recalled.Get(ctx, &out)
	r.state.Incarnation, r.state.By, r.state.Anew = out.Incarnation, out.By, false
	return out, err
}

// planOptions are for activities that read through all subscriptions.
func planOptions(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Minute,
		HeartbeatTimeout:    beatTimeout,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
		Summary:             summary,
	})
}

// pageOptions are for activities that may take long and report on the way.
func pageOptions(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: pageTimeout,
		HeartbeatTimeout:    beatTimeout,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second},
		Summary:             summary,
	})
}

// chargePages plans and charges pages until there are no more, or the run is
// cancelled; then it waits for what is under way. It may continue as new.
func (r *billingRun) chargePages(ctx workflow.Context) error {
	for !r.over() {
		if err := r.plan(ctx); err != nil {
			return err
		}
		for r.mayDispatch(ctx) {
			r.dispatch(ctx)
		}
		r.startExceptions(ctx)
		switch {
		case r.idle() && r.nothingLeft():
			return nil
		case r.idle() && r.draining:
			return r.continueAsNew(ctx)
		}
		if err := r.awaitChange(ctx); err != nil {
			return err
		}
		r.draining = r.draining || workflow.GetInfo(ctx).GetContinueAsNewSuggested()
		r.refreshSometimes(ctx)
	}
	if err := workflow.Await(ctx, r.idle); err != nil {
		return err
	}
	return r.failed
}

// nothingLeft says that there is nothing to plan, to charge or to take up.
func (r *billingRun) nothingLeft() bool {
	s := r.state
	return s.AllPlanned && !s.Anew && !s.LeftOver && len(s.Queue)+len(s.Exceptions) == 0
}

// idle says that no activity of the run is at work.
func (r *billingRun) idle() bool { return r.pages == 0 && !r.starting }

// plan cuts the next pages, when the last ones are being charged; where the
// database may be an older one, it looks again first.
func (r *billingRun) plan(ctx workflow.Context) error {
	if err := r.lookAgain(ctx); err != nil {
		return err
	}
	if len(r.state.Queue) > 0 || r.state.AllPlanned || r.state.Anew || r.draining || r.state.Run.State != billing.RunRunning {
		return nil
	}
	var planned activities.PlanRunOutput
	err := workflow.ExecuteActivity(planOptions(ctx, "cut pages after "+r.state.PlannedTo), acts.PlanRun, activities.PlanRunInput{
		Installation: r.in.Installation,
		Run:          r.state.Run, After: r.state.PlannedTo, PageSize: r.state.Run.Settings.PageSize, Pages: plannedPages,
	}).Get(ctx, &planned)
	if err != nil {
		return err
	}
	for _, end := range planned.Ends {
		r.state.Pages++
		r.state.Queue = append(r.state.Queue, pageRange{Number: r.state.Pages, After: r.state.PlannedTo, UpTo: end})
		r.state.PlannedTo = end
	}
	r.state.AllPlanned = !planned.More
	return nil
}

func (r *billingRun) mayDispatch(ctx workflow.Context) bool {
	return len(r.state.Queue) > 0 && r.pages < parallelPages && !r.state.Anew && !r.draining && r.failed == nil &&
		len(r.state.Exceptions) < maxExceptions && r.state.Run.State == billing.RunRunning && !workflow.Now(ctx).Before(r.slowUntil)
}

// awaitChange waits until there may be something to do: a page or a start came
// back, the state was changed, now or while we planned, or the slowdown is over.
func (r *billingRun) awaitChange(ctx workflow.Context) error {
	before, state := r.events, r.state.Run.State
	changed := func() bool {
		return r.events != before || r.state.Run.State != state || r.over()
	}
	if wait := r.slowUntil.Sub(workflow.Now(ctx)); wait > 0 {
		_, err := workflow.AwaitWithTimeout(ctx, wait, changed)
		return err
	}
	return workflow.Await(ctx, changed)
}

// dispatch charges the first page of the queue.
func (r *billingRun) dispatch(ctx workflow.Context) {
	next := r.state.Queue[0]
	r.state.Queue = r.state.Queue[1:]
	r.pages++
	settings := r.state.Run.Settings
	in := activities.ChargePageInput{
		Run: r.state.Run, Number: next.Number, After: next.After, UpTo: next.UpTo,
		Concurrency: max(1, settings.Concurrency/parallelPages), Incarnation: r.state.Incarnation,
		Installation: r.in.Installation,
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		defer func() { r.pages, r.events = r.pages-1, r.events+1 }()
		var out activities.ChargePageOutput
		summary := fmt.Sprintf("page %d: (%s … %s]", next.Number, next.After, next.UpTo)
		if err := workflow.ExecuteActivity(pageOptions(ctx, summary), acts.ChargePage, in).Get(ctx, &out); err != nil {
			r.fail(err)
			return
		}
		r.pageCameBack(ctx, next, in.Incarnation, out)
	})
}

// pageCameBack notes its exceptions and, where it stopped early, puts the rest of
// it back into the queue.
func (r *billingRun) pageCameBack(ctx workflow.Context, page pageRange, incarnation string, out activities.ChargePageOutput) {
	r.state.Exceptions = append(r.state.Exceptions, out.Exceptions...)
	if !out.Done {
		page.After = out.Cursor
		r.state.Queue = append([]pageRange{page}, r.state.Queue...)
	}
	switch out.Stop {
	case "":
		r.state.Bad = 0
	case activities.StopRun:
		r.fail(r.agree(ctx))
	case activities.StopRefused, activities.StopFailing:
		r.slowDown(ctx, out)
	case activities.StopReplaced:
		r.foundReplaced(incarnation)
	}
}

// foundReplaced notes that the database is no longer the incarnation; unless the
// run has noticed by others, and knows the new one.
func (r *billingRun) foundReplaced(incarnation string) {
	if incarnation == r.state.Incarnation {
		r.state.Anew = true
	}
}

// slowDown waits longer with each page that stops in a row, and then pauses the
// run instead of spoiling the month.
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
	r.fail(r.control(ctx, activities.ControlRunInput{State: billing.RunPaused, Reason: reason}))
}

// startExceptions gives exceptions workflows of their own, a batch at a time.
func (r *billingRun) startExceptions(ctx workflow.Context) {
	if r.starting || r.draining || r.state.Anew {
		return
	}
	if r.state.LeftOver {
		r.state.LeftOver = false
		r.startCharges(ctx, activities.StartChargesInput{LeftOver: true})
		return
	}
	n := min(len(r.state.Exceptions), startedAtOnce)
	if n == 0 || r.ended() {
		return
	}
	ids := r.state.Exceptions[:n:n]
	r.state.Exceptions = r.state.Exceptions[n:]
	r.startCharges(ctx, activities.StartChargesInput{IDs: ids})
}

func (r *billingRun) startCharges(ctx workflow.Context, in activities.StartChargesInput) {
	in.RunID, in.Period, in.By, in.Incarnation = r.state.Run.ID, r.in.Period, r.state.By, r.state.Incarnation
	in.Installation = r.in.Installation
	r.starting = true
	workflow.Go(ctx, func(ctx workflow.Context) {
		defer func() { r.starting, r.events = false, r.events+1 }()
		summary := fmt.Sprintf("start %d charges", len(in.IDs))
		if in.LeftOver {
			summary = "take up what earlier runs and requests have left"
		}
		var out activities.StartChargesOutput
		r.fail(workflow.ExecuteActivity(pageOptions(ctx, summary), acts.StartCharges, in).Get(ctx, &out))
		if out.Replaced {
			r.foundReplaced(in.Incarnation)
		}
	})
}

// awaitSettled waits until no charge of the run is retried any longer, or the
// run is cancelled.
func (r *billingRun) awaitSettled(ctx workflow.Context) error {
	for wait := settlingPause; ; wait = min(2*wait, settlingPauseMax) {
		r.refresh(ctx)
		if r.over() || r.state.Anew || r.progress.Counts.Pending == 0 {
			return r.failed
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			return r.continueAsNew(ctx)
		}
		if _, err := workflow.AwaitWithTimeout(ctx, wait, r.over); err != nil {
			return err
		}
	}
}

// ended says that the run goes no further.
func (r *billingRun) ended() bool {
	return r.state.Run.State != billing.RunRunning && r.state.Run.State != billing.RunPaused
}

// over says that no more is to be begun: the run has ended, or failed.
func (r *billingRun) over() bool { return r.ended() || r.failed != nil }

func (r *billingRun) continueAsNew(ctx workflow.Context) error {
	if err := r.handlersDone(ctx); err != nil {
		return err
	}
	in := r.in
	in.State = &r.state
	return workflow.NewContinueAsNewError(ctx, BillingRunName, in)
}

// handlersDone waits for updates that are being handled: ending under them would
// leave their senders without an answer.
func (r *billingRun) handlersDone(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
}

// control changes the run's row, and with it what pages do. One at a time: of two
// that ran at once, the answer that came last could be the older one.
func (r *billingRun) control(ctx workflow.Context, in activities.ControlRunInput) error {
	if err := r.controlling.Lock(ctx); err != nil {
		return err
	}
	defer r.controlling.Unlock()
	return r.controlLocked(ctx, in)
}

// agree writes down that the run is running, where a page has found otherwise and
// nobody is just changing it: the database was restored to when it was paused. Of
// a run that has ended there, it hears so.
func (r *billingRun) agree(ctx workflow.Context) error {
	if err := r.controlling.Lock(ctx); err != nil {
		return err
	}
	defer r.controlling.Unlock()
	if r.state.Run.State != billing.RunRunning {
		return nil
	}
	return r.controlLocked(ctx, activities.ControlRunInput{State: billing.RunRunning})
}

func (r *billingRun) controlLocked(ctx workflow.Context, in activities.ControlRunInput) error {
	in.RunID, in.Installation = r.state.Run.ID, r.in.Installation
	what := string(in.State)
	if in.OrdersPerSecond != nil {
		what = fmt.Sprintf("pace %g orders/s", *in.OrdersPerSecond)
	}
	// A fresh value: decoding into the old one would keep what is absent now.
	var run billing.Run
	if err := r.executeControl(ctx, in, "run: "+what).Get(ctx, &run); err != nil {
		return err
	}
	r.state.Run = run
	if in.State == billing.RunRunning {
		r.state.Bad, r.slowUntil = 0, time.Time{}
	}
	r.refresh(ctx)
	return nil
}

// executeControl is no local activity: of an update that one has carried out, the
// history knows only when the workflow task is done. If the worker died in between,
// the row would say "running", and the workflow would stay paused for ever.
func (r *billingRun) executeControl(ctx workflow.Context, in activities.ControlRunInput, summary string) workflow.Future {
	ctx = workflow.WithActivityOptions(ctx, ledgerActivity(summary))
	return workflow.ExecuteActivity(ctx, acts.ControlRun, in)
}

// refresh counts the run's charges for the query and the Temporal UI.
func (r *billingRun) refresh(ctx workflow.Context) {
	var out activities.ProgressOutput
	known := r.state.Incarnation
	err := callLedger(ctx, "count", acts.Progress, activities.ProgressInput{Run: r.state.Run, Installation: r.in.Installation}, &out)
	if err != nil {
		r.fail(err)
		return
	}
	if known != "" && out.Incarnation != "" && out.Incarnation != known {
		r.foundReplaced(known)
	}
	r.progress, r.refreshed = out.Progress, workflow.Now(ctx)
	r.describe(ctx)
}

func (r *billingRun) refreshSometimes(ctx workflow.Context) {
	if workflow.Now(ctx).Sub(r.refreshed) >= refreshEvery {
		r.refresh(ctx)
	}
}

// describe writes the progress into the Temporal UI.
func (r *billingRun) describe(ctx workflow.Context) {
	p := r.progress
	text := fmt.Sprintf("### Billing run of %s: %s\n\n", r.in.Period.Title(), p.State)
	if p.Reason != "" {
		text += "**" + p.Reason + "**\n\n"
	}
	text += "| due | charged | declined | unresolved | retrying | left |\n| --- | --- | --- | --- | --- | --- |\n"
	text += fmt.Sprintf("| %d | %d | %d | %d | %d | %d |\n\n", p.Due, p.Counts.Charged, p.Counts.Declined, p.Counts.Unresolved, p.Counts.Pending, p.Left)
	text += fmt.Sprintf("%.1f orders/s on average", p.OrdersPerSecond)
	if p.ExpectedEnd != nil {
		text += ", expected end " + p.ExpectedEnd.Format(time.RFC3339)
	}
	workflow.SetCurrentDetails(ctx, text)
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
		if in.Reason == "" {
			in.Reason = "paused by an operator"
		}
		return r.update(ctx, activities.ControlRunInput{State: billing.RunPaused, Reason: in.Reason})
	}
	resume := func(ctx workflow.Context, _ converter.RawValue) (*billing.Progress, error) {
		return r.update(ctx, activities.ControlRunInput{State: billing.RunRunning})
	}
	cancel := func(ctx workflow.Context, _ converter.RawValue) (*billing.Progress, error) {
		return r.update(ctx, activities.ControlRunInput{State: billing.RunCancelled})
	}
	pace := func(ctx workflow.Context, raw converter.RawValue) (*billing.Progress, error) {
		in, err := readPace(raw)
		if err != nil {
			return nil, err
		}
		return r.update(ctx, activities.ControlRunInput{OrdersPerSecond: &in.OrdersPerSecond})
	}
	check := func(ctx workflow.Context, _ converter.RawValue) (*billing.Progress, error) {
		ctx, done := workflow.NewDisconnectedContext(ctx)
		defer done()
		if err := workflow.Await(ctx, func() bool { return r.state.Run.ID != "" }); err != nil {
			return nil, err
		}
		r.refresh(ctx)
		return &r.progress, r.failed
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
		handle(CheckUpdate, check, readNothing, "Count again; a run that the database does not know, because it was restored, ends: "+nothingForm+"."),
		handle(PaceUpdate, pace, validPace, "Change the cap, in orders a second: "+paceForm+"."),
	)
}

// update carries out an operator's wish once the run is recorded.
func (r *billingRun) update(ctx workflow.Context, in activities.ControlRunInput) (*billing.Progress, error) {
	// A cancellation of the workflow ends the run in its own way, not in this one.
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	if err := workflow.Await(ctx, func() bool { return r.state.Run.ID != "" }); err != nil {
		return nil, err
	}
	err := r.control(ctx, in)
	r.fail(err)
	return &r.progress, err
}
