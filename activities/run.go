package activities

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"drayman/billing"
)

// StartRunInput begins a billing run, or begins it anew.
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
	// Known is the run as its workflow last read it; nil at first.
	Known *billing.Run `json:"known,omitempty"`
}

// StartRunOutput is the run as recorded, and the incarnation of the database with which it
// begins.
type StartRunOutput struct {
	Run      billing.Run `json:"run"`
	Recalled string      `json:"recalled"`
}

// StartRun records the run, with its cut-off, once for each execution. It lifts the holds of
// pages that are no longer at work. It is tried again until the database may charge. It
// refuses what the API refuses, because a workflow can be started in the Temporal UI. As with
// [Activities.ClaimCharge], a run of another installation fails for good.
func (a *Activities) StartRun(ctx context.Context, in StartRunInput) (*StartRunOutput, error) {
	if err := cmp.Or(in.Period.Validate(), in.Settings.Validate()); err != nil {
		return nil, asFailure(err)
	}
	if in.ExecutionID == "" {
		return nil, asFailure(billing.Invalid("execution_id", "must be given"))
	}
	if in.Installation == "" {
		return nil, asFailure(billing.Invalid("installation", "must be the id of the installation that asks, see GET /installation"))
	}
	ctx, stop := keepBeating(ctx, nothing) // counting who is due takes seconds for a million
	defer stop()
	zone, err := a.zoneOf(ctx, in)
	if err != nil {
		return nil, asFailure(err)
	}
	run, recalled, err := a.store.StartRun(ctx, billing.RunStart{
		Period: in.Period, ExecutionID: in.ExecutionID, Settings: in.Settings, Installation: in.Installation,
		ConfirmPast: in.ConfirmPast, Nominal: in.Nominal, Zone: zone, Known: in.Known,
	})
	if err != nil {
		return nil, asFailure(a.notYet(ctx, in.Installation, err))
	}
	_, err = within(ctx, done(func(ctx context.Context) error { return a.store.LiftHolds(ctx, in.Period, a.policy.Idempotent) }))
	return &StartRunOutput{Run: *run, Recalled: recalled}, err
}

// zoneOf returns the zone in which the month of the run is meant: that of the schedule or
// of the API, in which a person has confirmed the cut-off, or else ours.
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
func (a *Activities) recorded(ctx context.Context, in RunRef) (*billing.Run, error) {
	if err := a.requireOurs(ctx, in.Installation); err != nil {
		return nil, err
	}
	run, err := within(ctx, func(ctx context.Context) (*billing.Run, error) { return a.store.RunByID(ctx, in.RunID) })
	if err == nil && run.Period != in.Period {
		err = billing.Invalid("period", fmt.Sprintf("must be that of the run, which is %s", run.Period))
	}
	return run, asFailure(err)
}

// RunRef names a run that is under way. The other inputs of a run contain it.
type RunRef struct {
	Installation string         `json:"installation"`
	RunID        string         `json:"run_id"`
	Period       billing.Period `json:"period"`
	// Recalled is the incarnation of the database with which the run began: in another one
	// it claims and finishes nothing. Execution is the one that began: it is part of the
	// name that owns the claims of pages.
	Recalled  string `json:"recalled"`
	Execution string `json:"execution"`
}

// pageOwners is the beginning of the owner's name of each page of the execution.
func (in RunRef) pageOwners() string {
	return fmt.Sprintf("billing-run/%s %s page ", in.RunID, in.Execution)
}

// ChangeRunInput asks for a change of the run's row.
type ChangeRunInput struct {
	RunRef
	Change billing.RunChange `json:"change"`
}

// ChangeRun writes to the run's row, which pages read before each batch (decision 0019). It
// returns the run as it stands. A run that has ended otherwise does not finish.
func (a *Activities) ChangeRun(ctx context.Context, in ChangeRunInput) (*billing.Run, error) {
	if err := a.requireOurs(ctx, in.Installation); err != nil {
		return nil, err
	}
	if in.Change.State == billing.RunPaused {
		a.log.WarnContext(ctx, "billing run pauses", "run", in.RunID, "reason", in.Change.Reason)
	}
	run, err := a.store.ChangeRun(ctx, in.RunID, in.Change)
	if billing.CodeOf(err) == billing.CodeRunNotActive && in.Change.State == billing.RunFinished {
		run, err = a.store.RunByID(ctx, in.RunID)
	}
	if billing.CodeOf(err) == billing.CodeNotAdopted { // a replaced database is the workflow's to know
		err = a.notYet(ctx, in.Installation, err)
	}
	return run, asFailure(err)
}

// Progress reads the run and counts what has become of its charges.
func (a *Activities) Progress(ctx context.Context, in RunRef) (*billing.Progress, error) {
	run, err := a.recorded(ctx, in)
	if err != nil {
		return nil, err
	}
	counts, err := a.store.RunCounts(ctx, in.RunID)
	if err != nil {
		return nil, asFailure(err)
	}
	now, err := a.store.Now(ctx)
	progress := billing.NewProgress(*run, counts, now)
	return &progress, err
}

// PlanRunInput asks for the next pages of a run.
type PlanRunInput struct {
	RunRef
	After    string `json:"after"`
	PageSize int    `json:"page_size"`
	Pages    int    `json:"pages"` // the greatest number of them
}

// PlanRunOutput are the last ids of the pages, in order. More says that more pages follow.
type PlanRunOutput struct {
	Ends []string `json:"ends"`
	More bool     `json:"more"`
}

// maxPlanned bounds the pages that are planned at once.
const maxPlanned = 1000

// PlanRun divides those who are due and uncharged into pages.
func (a *Activities) PlanRun(ctx context.Context, in PlanRunInput) (*PlanRunOutput, error) {
	settings := billing.RunSettings{PageSize: in.PageSize}.WithDefaults()
	if err := settings.Validate(); err != nil {
		return nil, asFailure(err)
	}
	if in.Pages < 1 || in.Pages > maxPlanned {
		return nil, asFailure(billing.Invalid("pages", fmt.Sprintf("must be 1 to %d", maxPlanned)))
	}
	ctx, stop := keepBeating(ctx, nothing)
	defer stop()
	run, err := a.recorded(ctx, in.RunRef)
	if err != nil {
		return nil, err
	}
	ends, more, err := a.store.PlanPages(ctx, *run, in.After, settings.PageSize, in.Pages)
	return &PlanRunOutput{Ends: ends, More: more}, asFailure(err)
}
