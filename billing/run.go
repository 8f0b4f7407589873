package billing

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// RunState is where a billing run stands.
type RunState string

// The states of a run. A paused one can be resumed; the last three are final.
// Abandoned is a run that Temporal has lost and that another has succeeded.
const (
	RunRunning   RunState = "running"
	RunPaused    RunState = "paused"
	RunFinished  RunState = "finished"
	RunCancelled RunState = "cancelled"
	RunAbandoned RunState = "abandoned"
)

// RunSettings are how a billing run goes about its work. A zero field takes the
// default of [RunSettings.WithDefaults].
type RunSettings struct {
	// OrdersPerSecond caps the orders of the whole run, over all workers; 0 is no
	// cap. At most [MaxOrdersPerSecond].
	OrdersPerSecond float64 `json:"orders_per_second"`
	// PageSize is how many subscriptions a page holds, 1 to 5000.
	PageSize int `json:"page_size"`
	// Concurrency is how many orders are in flight at once, 1 to 1000.
	Concurrency int `json:"concurrency"`
	// WorkflowPerCharge gives each charge a workflow of its own: slower, and each
	// is to be seen in the Temporal UI.
	WorkflowPerCharge bool `json:"workflow_per_charge"`
}

// Limits and defaults of the settings.
const (
	MaxOrdersPerSecond = 100_000
	MinOrdersPerSecond = 0.01
	MaxPageSize        = 5000
	MaxConcurrency     = 1000
	defaultPageSize    = 500
	defaultConcurrency = 64
)

// WithDefaults fills in what was left open.
func (s RunSettings) WithDefaults() RunSettings {
	if s.PageSize == 0 {
		s.PageSize = defaultPageSize
	}
	if s.Concurrency == 0 {
		s.Concurrency = defaultConcurrency
	}
	return s
}

// Validate returns an error with [CodeInvalid] that names the first bad field.
func (s RunSettings) Validate() error {
	switch {
	case s.PageSize < 1 || s.PageSize > MaxPageSize:
		return Invalid("page_size", "must be 1 to 5000")
	case s.Concurrency < 1 || s.Concurrency > MaxConcurrency:
		return Invalid("concurrency", "must be 1 to 1000")
	}
	return ValidatePace(s.OrdersPerSecond)
}

// IsRunOf reports whether the id has the form of a run's of the period.
func IsRunOf(runID string, p Period) bool {
	number, ok := strings.CutPrefix(runID, p.String()+"/")
	n, err := strconv.Atoi(number)
	return ok && err == nil && n > 0
}

// MaxReason is the length of the reason that a person gives, in characters.
const MaxReason = 500

// ValidatePace checks a pace in orders a second: 0 for no cap, or 0.01 to 100,000.
func ValidatePace(ordersPerSecond float64) error {
	if ordersPerSecond != 0 && !(ordersPerSecond >= MinOrdersPerSecond && ordersPerSecond <= MaxOrdersPerSecond) {
		return Invalid("orders_per_second", "must be 0 (no cap) or 0.01 to 100000")
	}
	return nil
}

// Run is a billing run as the database has it. Times are UTC.
type Run struct {
	ID       string      `json:"id"` // "{period}/{number}", the number from 1 on
	Period   Period      `json:"period"`
	Number   int         `json:"number"`
	State    RunState    `json:"state"`
	Reason   string      `json:"reason,omitempty"` // why it paused itself, or who paused it
	Settings RunSettings `json:"settings"`
	CutOff   time.Time   `json:"cut_off"` // who was eligible then, and is at the claim, is due
	Due      int         `json:"due"`     // who was due at the start, and not charged yet
	EndedAt  *time.Time  `json:"ended_at,omitempty"`
	// Doubt says that the ledger may lack orders of the run's pages.
	Doubt RunDoubt `json:"doubt,omitempty"`
	// ExecutionID is Temporal's id of the first execution of the run's workflow.
	ExecutionID string `json:"execution_id"`
}

// Ended says that the run goes no further.
func (r Run) Ended() bool { return r.EndedAt != nil }

// RunDoubt is set by the recall on each run that was, or may have been, under way when the
// database was replaced. It says what becomes of new claims of the month that no page makes.
type RunDoubt string

// The doubts. A page may have ordered for a subscription of which the ledger has no row.
const (
	// DoubtRepeat: the shop is idempotent. A new claim gets the request id that a run
	// derives, under which a page would have ordered: it is then the same order.
	DoubtRepeat RunDoubt = "repeat"
	// DoubtConfirm: the shop is not idempotent. A new claim is unresolved at once, until a
	// person has compared the ledger with the shop's orders and resumes a run of the month.
	DoubtConfirm RunDoubt = "confirm"
)

// ReasonReplaced is why a run is paused while its month is in [DoubtConfirm].
const ReasonReplaced = "the database was restarted, or another stands in its place, and the shop is not idempotent: " +
	"see that the ledger has every order of the shop's, then resume"

// RunChange is a write to a run's row: to its state, or, if OrdersPerSecond is given, to
// its pace.
type RunChange struct {
	State           RunState `json:"state,omitempty"` // running, paused, finished or cancelled
	Reason          string   `json:"reason,omitempty"`
	OrdersPerSecond *float64 `json:"orders_per_second,omitempty"` // 0 is no cap
	// UpdateID is the id of the Temporal update that asks; "" for none. The change is made
	// once for each: a worker that repeats it must not undo a later one.
	UpdateID string `json:"update_id,omitempty"`
	// Recalled is the incarnation with which a run began that finishes; "" is any.
	Recalled string `json:"recalled,omitempty"`
}

// PauseRun is the change by which a person pauses a run.
func PauseRun(reason string) RunChange {
	return RunChange{State: RunPaused, Reason: cmp.Or(reason, "paused by an operator")}
}

// Validate returns an error with [CodeInvalid] that names the first bad field.
func (c RunChange) Validate() error {
	if c.OrdersPerSecond != nil {
		return ValidatePace(*c.OrdersPerSecond)
	}
	switch c.State {
	case RunRunning, RunPaused, RunFinished, RunCancelled:
		return nil
	case RunAbandoned:
	}
	return Invalid("state", "must be running, paused, finished or cancelled")
}

// Nobody owns the claims that were let go. Anybody may take them over; the sweep of a run
// starts a workflow for each.
const Nobody = "nobody"

// RunCounts is what has become of a run's charges so far.
type RunCounts struct {
	// First is when the first of them was claimed; zero: none is.
	First      time.Time `json:"-"`
	Charged    int       `json:"charged"`
	Declined   int       `json:"declined"`
	Pending    int       `json:"pending"`
	Unresolved int       `json:"unresolved"`
}

// Tried is how many charges the run has claimed.
func (c RunCounts) Tried() int { return c.Charged + c.Declined + c.Pending + c.Unresolved }

// Slots permits a number of orders, at the pace of the run.
type Slots struct {
	// State is the run's; slots are given only while it is running.
	State RunState
	// Count is how many orders may go out, 0 if none may yet.
	Count int
	// Wait is the time until the first of them; with Count 0, the time until it makes
	// sense to ask again.
	Wait time.Duration
	// Interval lies between two of them.
	Interval time.Duration
}

// LeftOverQuery asks for open charges of a period that nobody holds. The sweep of a run
// starts workflows for them.
type LeftOverQuery struct {
	RunID  string
	Period Period
	// All also asks for charges that a workflow has claimed, which may be gone, and for
	// those of pages that are no longer at work; else only for those that were let go.
	All        bool
	Unresolved bool   // with All: those too
	Pages      string // what the owners of the run's pages at work begin with
	After      string // ids greater than this one
	Limit      int
}

// PageClaim asks for the claims of a batch of a page.
type PageClaim struct {
	RunID  string
	Owner  string // the page
	Period Period
	After  string // ids greater than this one
	UpTo   string // and not greater than this one
	Limit  int
	// HeldFor is how long nobody else may take the claims over.
	HeldFor time.Duration
	// Unheld makes the claims nobody's, for the sweep to start a workflow for each. Nothing
	// is sent before a workflow takes its claim over.
	Unheld bool
	// Installation is the id of the run's installation. Recalled is the incarnation of the
	// database with which the run began: another one makes no claims.
	Installation string
	Recalled     string
}

// PageClaimed is what a batch came to.
type PageClaimed struct {
	// Charges are the claims. Their SentAt is the time of this claim: nothing was sent
	// before.
	Charges []Charge
	// Locked counts those passed over because another transaction holds their rows.
	Locked int
	// Cursor is the last id that was looked at. Done says that it is the end of the range.
	Cursor string
	Done   bool
}

// PlacedCharge is a claim of a page as it is to be settled.
type PlacedCharge struct {
	Charge // its SentAt tells whether somebody has taken the claim over since
	// NotOrdered says of a pending charge that the shop has certainly made no order: it
	// was not sent, or the only call to the shop certainly made none.
	NotOrdered bool
}

// ReportClass says what became of a subscription that was eligible at a run's
// cut-off. Each is in exactly one class.
type ReportClass string

// The classes of a report.
const (
	ClassChargedInRun  ReportClass = "charged_in_run"
	ClassChargedBefore ReportClass = "charged_before" // or beside the run, by a request
	ClassDeclined      ReportClass = "declined"
	ClassUnresolved    ReportClass = "unresolved"
	ClassPending       ReportClass = "pending"
	// ClassSkipped: no charge, and none can be made now: no longer eligible, or
	// without a customer id or SKU.
	ClassSkipped ReportClass = "skipped"
	// ClassMissing: no charge, though one could be made. Start the run again.
	ClassMissing ReportClass = "missing"
)

// ReportClasses are all classes, in the order of a report.
func ReportClasses() []ReportClass {
	return []ReportClass{
		ClassChargedInRun, ClassChargedBefore, ClassDeclined, ClassUnresolved, ClassPending, ClassSkipped, ClassMissing,
	}
}

// ReportLine counts the subscriptions of one club and SKU.
type ReportLine struct {
	ClubID int                 `json:"club_id"`
	SKU    int                 `json:"sku_id"`
	Counts map[ReportClass]int `json:"counts"`
}

// Report is the account of a period after a run.
type Report struct {
	Run Run `json:"run"`
	// Eligible is how many were eligible at the cut-off: the sum of Totals.
	Eligible int                 `json:"eligible"`
	Totals   map[ReportClass]int `json:"totals"`
	Lines    []ReportLine        `json:"lines"`
	// Closed: nobody is missing, pending or unresolved.
	Closed bool `json:"closed"`
}

// NewReport adds the lines up.
func NewReport(run Run, lines []ReportLine) Report {
	r := Report{Run: run, Totals: map[ReportClass]int{}, Lines: lines}
	for _, class := range ReportClasses() {
		r.Totals[class] = 0
	}
	for _, line := range lines {
		for class, n := range line.Counts {
			r.Totals[class] += n
			r.Eligible += n
		}
	}
	r.Closed = r.Totals[ClassMissing]+r.Totals[ClassPending]+r.Totals[ClassUnresolved] == 0
	return r
}

// Progress is a run as it stands at a moment.
type Progress struct {
	Run
	Counts RunCounts `json:"counts"`
	// Left is how many of those due have not been tried yet; 0 when it has ended.
	Left int `json:"left"`
	// BegunAt is when the run made its first claim; nil before that.
	BegunAt *time.Time `json:"begun_at,omitempty"`
	// OrdersPerSecond is the average since then, pauses included.
	OrdersPerSecond float64 `json:"average_orders_per_second"`
	// ExpectedEnd is when nobody is left, at that average; nil if it cannot be told or
	// nobody is left.
	ExpectedEnd *time.Time `json:"expected_end,omitempty"`
}

// foreseeable is how far ahead an expected end means anything.
const foreseeable = 10 * 366 * 24 * time.Hour

// NewProgress works out the progress of the run at the time now.
func NewProgress(run Run, counts RunCounts, now time.Time) Progress {
	p := Progress{Run: run, Counts: counts}
	begun, until := run.CutOff, now
	if counts.First.After(begun) { // a cut-off may lie months before the start
		begun = counts.First
	}
	if !counts.First.IsZero() {
		p.BegunAt = &begun
	}
	if run.EndedAt != nil {
		until = *run.EndedAt
	} else {
		p.Left = max(0, run.Due-counts.Tried())
	}
	if spent := until.Sub(begun).Seconds(); spent > 0 {
		p.OrdersPerSecond = float64(counts.Tried()-counts.Pending) / spent
	}
	if p.Left > 0 && p.OrdersPerSecond > 0 {
		if seconds := float64(p.Left) / p.OrdersPerSecond; seconds < foreseeable.Seconds() {
			end := now.Add(time.Duration(seconds * float64(time.Second))).Truncate(time.Second)
			p.ExpectedEnd = &end
		}
	}
	return p
}
