package activities

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"drayman/billing"
)

// StartRunInput begins a billing run.
type StartRunInput struct {
	Period       billing.Period      `json:"period"`
	ExecutionID  string              `json:"execution_id"`
	Settings     billing.RunSettings `json:"settings"`
	Installation string              `json:"installation"` // the id of the one that asks
	// ConfirmPast says that a month that is over is meant; Nominal is the time of
	// the schedule that starts the run. Timezone is that of the month, "": ours.
	ConfirmPast bool      `json:"confirm_past,omitempty"`
	Nominal     time.Time `json:"nominal,omitzero"`
	Timezone    string    `json:"timezone,omitempty"`
}

// StartRun records the run, with its cut-off, once for each execution. It refuses
// what the API refuses: a workflow can be started by hand. As with
// [Activities.ClaimCharge], a run of another installation fails for good.
func (a *Activities) StartRun(ctx context.Context, in StartRunInput) (*billing.Run, error) {
	if err := cmp.Or(in.Period.Validate(), in.Settings.Validate()); err != nil {
		return nil, asFailure(err)
	}
	if in.ExecutionID == "" {
		return nil, asFailure(billing.Invalid("execution_id", "must be given"))
	}
	ctx, stop := keepBeating(ctx, nothing) // counting who is due takes seconds for a million
	defer stop()
	found, err := within(ctx, a.store.Installation)
	if err != nil {
		return nil, err
	}
	if err := found.Requires(in.Installation); err != nil {
		return nil, asFailure(err)
	}
	zone, err := a.zoneOf(ctx, in)
	if err != nil {
		return nil, asFailure(err)
	}
	run, err := a.store.StartRun(ctx, billing.RunStart{
		Period: in.Period, ExecutionID: in.ExecutionID, Settings: in.Settings,
		ConfirmPast: in.ConfirmPast, Nominal: in.Nominal, Zone: zone,
	})
	return run, asFailure(a.notAdopted(ctx, err))
}

// zoneOf returns the zone in which the month of the run is meant: that of the schedule
// or of the API, whose cut-off a person has confirmed, or else ours.
func (a *Activities) zoneOf(ctx context.Context, in StartRunInput) (*time.Location, error) {
	if in.Timezone == "" || in.Timezone == a.zone.String() {
		return a.zone, nil
	}
	zone, err := time.LoadLocation(in.Timezone)
	if err != nil || in.Timezone == "Local" {
		return nil, billing.Invalid("timezone", fmt.Sprintf("must be a time zone, not %q", in.Timezone))
	}
	a.log.WarnContext(ctx, "the run's time zone is another than BILLING_TIMEZONE: they begin the month at different times",
		"period", in.Period.String(), "timezone", in.Timezone, "billing_timezone", a.zone.String())
	return zone, nil
}

// recorded reads the run's row, which decides its period and settings, whatever the
// input of an activity says.
func (a *Activities) recorded(ctx context.Context, runID string, period billing.Period) (*billing.Run, error) {
	run, err := within(ctx, func(ctx context.Context) (*billing.Run, error) { return a.store.RunByID(ctx, runID) })
	if err == nil && run.Period != period {
		err = billing.Invalid("period", fmt.Sprintf("must be that of the run, which is %s", run.Period))
	}
	return run, asFailure(err)
}

// ControlRunInput changes the state of a run, or, where OrdersPerSecond is set,
// its pace.
type ControlRunInput struct {
	RunID           string           `json:"run_id"`
	State           billing.RunState `json:"state,omitempty"`
	Reason          string           `json:"reason,omitempty"`
	OrdersPerSecond *float64         `json:"orders_per_second,omitempty"`
	Installation    string           `json:"installation"`
}

// ControlRun writes to the run's row, which pages read before each batch. It
// returns the run as it stands.
func (a *Activities) ControlRun(ctx context.Context, in ControlRunInput) (*billing.Run, error) {
	if err := a.requireOurs(ctx, in.Installation); err != nil {
		return nil, err
	}
	if in.OrdersPerSecond != nil {
		if err := billing.ValidatePace(*in.OrdersPerSecond); err != nil {
			return nil, asFailure(err)
		}
		run, err := a.store.SetRunPace(ctx, in.RunID, *in.OrdersPerSecond)
		return run, asFailure(err)
	}
	switch in.State {
	case billing.RunRunning, billing.RunFinished, billing.RunCancelled:
	case billing.RunPaused:
		a.log.WarnContext(ctx, "billing run pauses", "run", in.RunID, "reason", in.Reason)
	default:
		return nil, asFailure(billing.Invalid("state", "must be running, paused, finished or cancelled"))
	}
	run, err := a.store.SetRunState(ctx, in.RunID, in.State, in.Reason)
	return run, asFailure(err)
}

// ProgressInput names a run.
type ProgressInput struct {
	Run          billing.Run `json:"run"`
	Installation string      `json:"installation"`
}

// ProgressOutput is the progress, and the database that tells it.
type ProgressOutput struct {
	billing.Progress
	Incarnation string `json:"incarnation"`
}

// Progress counts what has become of the run's charges.
func (a *Activities) Progress(ctx context.Context, in ProgressInput) (*ProgressOutput, error) {
	if err := a.requireOurs(ctx, in.Installation); err != nil {
		return nil, err
	}
	counts, err := a.store.RunCounts(ctx, in.Run.ID)
	if err != nil {
		return nil, asFailure(err)
	}
	incarnation, err := a.store.Incarnation(ctx) // after it has counted: it cannot have been another's count
	if err != nil {
		return nil, err
	}
	now, err := a.store.Now(ctx)
	return &ProgressOutput{Progress: billing.NewProgress(in.Run, counts, now), Incarnation: incarnation}, err
}

// PlanRunInput asks for the next pages of a run.
type PlanRunInput struct {
	Run      billing.Run `json:"run"`
	After    string      `json:"after"`
	PageSize int         `json:"page_size"`
	Pages    int         `json:"pages"` // at most so many

	Installation string `json:"installation"`
}

// PlanRunOutput are the last ids of the pages, in order. More says that there
// are others behind them.
type PlanRunOutput struct {
	Ends []string `json:"ends"`
	More bool     `json:"more"`
}

// PlanRun cuts those who are due and uncharged into pages.
func (a *Activities) PlanRun(ctx context.Context, in PlanRunInput) (*PlanRunOutput, error) {
	if err := a.requireOurs(ctx, in.Installation); err != nil {
		return nil, err
	}
	settings := billing.RunSettings{PageSize: in.PageSize}.WithDefaults()
	if err := settings.Validate(); err != nil {
		return nil, asFailure(err)
	}
	if in.Pages < 1 || in.Pages > maxPlanned {
		return nil, asFailure(billing.Invalid("pages", fmt.Sprintf("must be 1 to %d", maxPlanned)))
	}
	ctx, stop := keepBeating(ctx, nothing)
	defer stop()
	run, err := a.recorded(ctx, in.Run.ID, in.Run.Period)
	if err != nil {
		return nil, err
	}
	ends, more, err := a.store.PlanPages(ctx, *run, in.After, settings.PageSize, in.Pages)
	return &PlanRunOutput{Ends: ends, More: more}, asFailure(err)
}

// StartChargesInput asks for a workflow for each of the subscriptions; or, with
// LeftOver, for each charge of the period that nobody works on.
type StartChargesInput struct {
	RunID    string         `json:"run_id"`
	Period   billing.Period `json:"period"`
	IDs      []string       `json:"ids,omitempty"`
	LeftOver bool           `json:"left_over,omitempty"`
	// By and Incarnation are those of [RecallChargesOutput]: what is open and older
	// than By is left over, and no charge starts by another database. Runs of earlier
	// versions have neither.
	By           time.Time `json:"by,omitzero"`
	Incarnation  string    `json:"incarnation,omitempty"`
	Installation string    `json:"installation"`
}

// StartChargesOutput says whether the rest was not started, because another
// database stands in the place of the known one.
type StartChargesOutput struct {
	Replaced bool `json:"replaced,omitempty"`
}

const (
	// maxPlanned bounds the pages that are cut at once.
	maxPlanned = 1000
	// maxOpenCharges bounds the workflows of a run that are open at once. Pages
	// do not wait for them: those that fail for a day must not starve the rest.
	maxOpenCharges = 2000
	// leftOverBatch is how many left-over charges are looked up at a time.
	leftOverBatch = 500
	// beat is how often a long activity says that it lives; its heartbeat timeout
	// is several times that.
	beat = 2 * time.Second
	// patience is the wait before looking again whether a run goes on or a slot
	// is free.
	patience = 200 * time.Millisecond
)

// StartCharges starts them under the pace of the run, few enough at a time, and
// waits while the run is paused. It returns when all are started, or the run has
// ended. Starting one twice does no harm.
func (a *Activities) StartCharges(ctx context.Context, in StartChargesInput) (*StartChargesOutput, error) {
	if err := a.requireCharging(ctx, in.Installation); err != nil {
		return nil, err
	}
	if _, err := a.recorded(ctx, in.RunID, in.Period); err != nil {
		return nil, err
	}
	ctx, stop := keepBeating(ctx, nothing)
	defer stop()
	if !in.LeftOver {
		return a.startCharges(ctx, in, in.IDs)
	}
	for after := ""; ; {
		ids, err := within(ctx, func(ctx context.Context) ([]string, error) {
			return a.store.LeftOver(ctx, billing.LeftOverQuery{
				RunID: in.RunID, Period: in.Period, Unresolved: a.policy.Idempotent, By: in.By, After: after, Limit: leftOverBatch,
			})
		})
		if err != nil || len(ids) == 0 {
			return &StartChargesOutput{}, asFailure(err)
		}
		out, err := a.startCharges(ctx, in, ids)
		if err != nil || out.Replaced {
			return out, err
		}
		after = ids[len(ids)-1]
	}
}

func (a *Activities) startCharges(ctx context.Context, in StartChargesInput, ids []string) (*StartChargesOutput, error) {
	out := &StartChargesOutput{}
	for _, id := range ids {
		state, err := a.awaitSlot(ctx, in)
		out.Replaced = state == runReplaced
		if err != nil || state != billing.RunRunning {
			return out, asFailure(err)
		}
		if err := a.start(ctx, in.Installation, in.RunID, in.Period, id); err != nil {
			return out, err
		}
	}
	return out, nil
}

// replaced says that the database is no longer the known incarnation.
func (a *Activities) replaced(ctx context.Context, known string) (bool, error) {
	return within(ctx, func(ctx context.Context) (bool, error) { return a.store.Replaced(ctx, known) })
}

// runReplaced is the state of a run in a database that is not the known one.
const runReplaced billing.RunState = "replaced"

// awaitSlot waits until the run gives leave for one order, and until it may go out. It
// waits while the run is paused, or has too many charges open. The state is another
// than running where the run has ended, or another database stands in the place of the
// known one.
func (a *Activities) awaitSlot(ctx context.Context, in StartChargesInput) (billing.RunState, error) {
	for {
		replaced, err := a.replaced(ctx, in.Incarnation)
		if replaced || err != nil {
			return runReplaced, err
		}
		slots, err := a.nextSlot(ctx, in)
		if err != nil {
			return "", err
		}
		ended := slots.State != billing.RunRunning && slots.State != billing.RunPaused
		if ended || slots.State == billing.RunRunning && slots.Count > 0 {
			return slots.State, sleep(ctx, slots.Wait)
		}
		if err := sleep(ctx, patience); err != nil {
			return "", err
		}
	}
}

// nextSlot asks for leave. A run that has too many charges open gives none, as if it
// were paused.
func (a *Activities) nextSlot(ctx context.Context, in StartChargesInput) (billing.Slots, error) {
	if !in.LeftOver { // those are among the open ones
		open, err := within(ctx, func(ctx context.Context) (int, error) { return a.store.OpenCharges(ctx, in.RunID) })
		if err != nil || open >= maxOpenCharges {
			return billing.Slots{State: billing.RunPaused}, err
		}
	}
	return within(ctx, func(ctx context.Context) (billing.Slots, error) { return a.store.ReserveSlots(ctx, in.RunID, 1) })
}

// ledgerTime bounds one call to the database of an activity that lives long: its
// heartbeats go on while a connection that leads nowhere keeps the call waiting,
// which the operating system notices after minutes, if at all.
const ledgerTime = 30 * time.Second

// within makes such a call.
func within[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTime)
	defer cancel()
	return call(ctx)
}

// nothing are the details of heartbeats that only tell that an activity lives.
func nothing() any { return nil }

// sleep waits for d or the end of the context.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// keepBeating records heartbeats with the details until the returned function is
// called. The context that it returns also ends when the worker is told to stop: a
// long activity then ends at the next step, for another worker to go on. It beats
// on until then: a page that fell silent while its last orders are under way would
// be run by another worker at the same time.
func keepBeating(ctx context.Context, details func() any) (context.Context, func()) {
	work, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		stopping := activity.GetWorkerStopChannel(ctx)
		for {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				return
			case <-stopping:
				cancel()
				stopping = nil
			case <-ticker.C:
				activity.RecordHeartbeat(ctx, details())
			}
		}
	}()
	return work, func() {
		close(ended)
		cancel()
	}
}
