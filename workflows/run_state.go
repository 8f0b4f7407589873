package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/billing"
)

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
	// lockedPause is the wait before a page is charged again for rows that were locked. A
	// subscription that is locked for longer than lockedPatience is not charged by this run.
	lockedPause    = 5 * time.Second
	lockedPatience = 15 * time.Minute
	// refreshEvery is how often the run counts, at most, while pages come in; refreshIdle
	// is how often if none do.
	refreshEvery = 5 * time.Second
	refreshIdle  = time.Minute
	// settlingPause is the wait between two looks at charges that still retry; it
	// grows up to refreshIdle.
	settlingPause = 2 * time.Second
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
	// ConfirmPast must be true for a month that is over. If a schedule starts the run, it
	// need not be: then Nominal is its time, which is the cut-off, in its Timezone.
	ConfirmPast bool      `json:"confirm_past,omitempty"`
	Nominal     time.Time `json:"nominal,omitzero"`
	Timezone    string    `json:"timezone,omitempty"`
	State       *runState `json:"state,omitempty"`
}

// runState is what a run carries through continue-as-new. A run that begins anew carries
// its row only.
type runState struct {
	// Run is the run's row as last read; the row decides.
	Run billing.Run `json:"run"`
	// Recalled is the incarnation of the database with which the run began, Execution
	// Temporal's id of the execution that began it.
	Recalled  string `json:"recalled,omitempty"`
	Execution string `json:"execution,omitempty"`
	// Queue are the planned pages that are still to be charged.
	Queue      []pageRange `json:"queue,omitempty"`
	PlannedTo  string      `json:"planned_to,omitempty"`
	AllPlanned bool        `json:"all_planned,omitempty"`
	Pages      int         `json:"pages,omitempty"` // planned so far
	Bad        int         `json:"bad,omitempty"`   // pages that stopped in a row
	// Swept says that the first sweep has taken up what earlier runs and requests left.
	Swept bool `json:"swept,omitempty"`
}

// pageRange is a page that is still to be charged: from After on.
type pageRange struct {
	Number int    `json:"number"`
	From   string `json:"from"` // where the page begins
	After  string `json:"after"`
	UpTo   string `json:"up_to"`
	// Locked counts the rows passed over. The page is gone through again for them, not
	// before NotBefore; LockedSince is when it first met one.
	Locked      int       `json:"locked,omitempty"`
	LockedSince time.Time `json:"locked_since,omitzero"`
	NotBefore   time.Time `json:"not_before,omitzero"`
}

// planOptions are for activities that read through all subscriptions.
func planOptions(ctx workflow.Context, summary string) workflow.Context {
	return longOptions(ctx, 10*time.Minute, summary)
}

// pageOptions are for activities that may take long and report on the way.
func pageOptions(ctx workflow.Context, summary string) workflow.Context {
	return longOptions(ctx, pageTimeout, summary)
}

func longOptions(ctx workflow.Context, most time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: most,
		HeartbeatTimeout:    beatTimeout,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second},
		Summary:             summary,
	})
}
