package workflows

import (
	"context"
	"errors"
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/billing"
)

// ScheduledRunName is the type of the workflow that the schedule starts.
const ScheduledRunName = "ScheduledRun"

// scheduleCatchUp is how late a month may be started when Temporal was down at
// its time. At most two nominal times lie within 31 days, and the overlap policy
// keeps two, one started and one buffered: so none is dropped in silence.
const scheduleCatchUp = 31 * 24 * time.Hour

// nominalTimeKey is set by Temporal on what a schedule starts: the time that the
// schedule names, not the time of the start, which may be weeks later.
var nominalTimeKey = temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime")

// ScheduledRunInput is what the schedule hands on.
type ScheduledRunInput struct {
	Timezone string              `json:"timezone"`
	Settings billing.RunSettings `json:"settings"`
	// Installation is the id of the one whose months are billed, Names are its names.
	Installation string `json:"installation"`
	Names        Names  `json:"installation_name,omitempty"`
}

// ScheduledRunOutput says which month was started.
type ScheduledRunOutput struct {
	Period billing.Period `json:"period"`
	// AlreadyRunning says that the month's run was under way; it goes on.
	AlreadyRunning bool `json:"already_running,omitempty"`
}

// ScheduledRun starts the BillingRun of the month in which its nominal time lies,
// and does not wait for it. That time is the run's cut-off, however late the run starts. A
// month that was billed before is started again, and charges only what is missing.
//
// The input is a [ScheduledRunInput].
func ScheduledRun(ctx workflow.Context, raw converter.RawValue) (*ScheduledRunOutput, error) {
	var in ScheduledRunInput
	if err := decode(raw, &in, scheduledForm, "timezone"); err != nil {
		return nil, refusal(err)
	}
	if err := in.Settings.WithDefaults().Validate(); err != nil {
		return nil, refusal(err)
	}
	nominal, ok := workflow.GetTypedSearchAttributes(ctx).GetTime(nominalTimeKey)
	if !ok {
		return nil, temporal.NewNonRetryableApplicationError(
			"no schedule has started this, so it has no month; start one with drayman run start", "not_scheduled", nil)
	}
	period, err := nominalPeriod(ctx, nominal, in.Timezone)
	if err != nil {
		return nil, err
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Starts `%s`.", in.Names.RunWorkflowID(period)))
	out := &ScheduledRunOutput{Period: period}
	start := RunInput{
		Period: period, Settings: in.Settings.WithDefaults(), Nominal: nominal, Timezone: in.Timezone, Installation: in.Installation,
	}
	run := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, in.Names.scheduledChildOptions(start)), BillingRunName, start)
	// An abandoned child that is not awaited may never start.
	err = run.GetChildWorkflowExecution().Get(ctx, nil)
	var running *temporal.ChildWorkflowExecutionAlreadyStartedError
	if errors.As(err, &running) {
		out.AlreadyRunning = true
		return out, nil
	}
	return out, err
}

// scheduledChildOptions are [Names.RunOptions] for a child: it is the same run, however it is
// started. A child has no option for a run that is under way; it fails to start, which is
// what we need.
func (n Names) scheduledChildOptions(in RunInput) workflow.ChildWorkflowOptions {
	o := n.RunOptions(in)
	return workflow.ChildWorkflowOptions{
		WorkflowID:            o.ID,
		TaskQueue:             o.TaskQueue,
		WorkflowIDReusePolicy: o.WorkflowIDReusePolicy,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		StaticSummary:         o.StaticSummary,
		StaticDetails:         o.StaticDetails,
		TypedSearchAttributes: o.TypedSearchAttributes,
	}
}

// nominalPeriod finds the month in a local activity: a zone is read from a file, and zones
// change. If a worker lacks the zone, the activity is tried until some worker has it.
func nominalPeriod(ctx workflow.Context, nominal time.Time, zone string) (period billing.Period, err error) {
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout: ledgerTimeout,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
		Summary:             "the month in " + zone,
	})
	err = workflow.ExecuteLocalActivity(ctx, periodIn, nominal, zone).Get(ctx, &period)
	return period, err
}

func periodIn(_ context.Context, t time.Time, zone string) (billing.Period, error) {
	loaded, err := time.LoadLocation(zone)
	if err != nil {
		return billing.Period{}, err
	}
	return billing.PeriodAt(t, loaded), nil
}

// Schedule says when in each month its run starts, and with which settings.
type Schedule struct {
	Day      int // of the month, 1 to 28
	Hour     int // 0 to 23, in the zone
	Zone     *time.Location
	Settings billing.RunSettings // a zero field takes its default when a run starts
	// Installation is the id of the one whose months it bills, Names are its names.
	Installation string
	Names        Names
}

// Limits of a schedule. gapYears is how far ahead the zone's clock changes are
// looked at; weekdays and dates meet anew every 28 years.
const (
	maxScheduleDay    = 28
	maxScheduleHour   = 23
	gapYears          = 28
	maxBackfillMonths = 24
)

// Validate returns an error with [billing.CodeInvalid] for a schedule under which
// some month would not be billed.
func (s Schedule) Validate(now time.Time) error {
	switch {
	case s.Day > maxScheduleDay && s.Day <= 31:
		return billing.Invalid("billing-day", fmt.Sprintf("must be 1 to 28, not %d: "+
			"a month that has no day %d would not be billed", s.Day, s.Day))
	case s.Day < 1 || s.Day > 31:
		return billing.Invalid("billing-day", "must be 1 to 28")
	case s.Hour < 0 || s.Hour > maxScheduleHour:
		return billing.Invalid("billing-hour", "must be 0 to 23")
	}
	// Temporal leaves out a time that the clock skips in spring, and so the month. A time
	// that comes twice in autumn does no harm: the second run finds nothing to charge.
	for month := range 12 * gapYears {
		if t := s.nominal(now.In(s.Zone).Year(), now.In(s.Zone).Month()+time.Month(month)); t.Hour() != s.Hour {
			return billing.Invalid("billing-hour", fmt.Sprintf("%02d:00 does not exist on %s in %s, where the clock is put forward: "+
				"that month would not be billed; choose another hour", s.Hour, t.Format(time.DateOnly), s.Zone))
		}
	}
	return s.Settings.WithDefaults().Validate()
}

// NominalTime is when the period's run is to start.
func (s Schedule) NominalTime(period billing.Period) time.Time {
	month := firstOf(period)
	return s.nominal(month.Year(), month.Month())
}

func (s Schedule) nominal(year int, month time.Month) time.Time {
	return time.Date(year, month, s.Day, s.Hour, 0, 0, 0, s.Zone)
}

func firstOf(period billing.Period) time.Time {
	month, _ := time.Parse("2006-01", period.String()) // the form of each period
	return month
}

// Backfill returns what makes the schedule start the months from and to, and
// those between, as if their times were now. Each must have had its time.
func (s Schedule) Backfill(from, to billing.Period, now time.Time) ([]client.ScheduleBackfill, []billing.Period, error) {
	if from.Compare(to) > 0 {
		return nil, nil, billing.Invalid("to", fmt.Sprintf("must not be before %s", from))
	}
	var times []client.ScheduleBackfill
	var periods []billing.Period
	for month := firstOf(from); !month.After(firstOf(to)); month = month.AddDate(0, 1, 0) {
		period := billing.PeriodAt(month, time.UTC)
		nominal := s.NominalTime(period)
		switch {
		case nominal.After(now):
			return nil, nil, billing.Errorf(billing.CodePeriodInFuture, "%s has its time at %s; nothing was started", period, nominal.Format(time.RFC3339))
		case len(periods) == maxBackfillMonths:
			return nil, nil, billing.Invalid("to", fmt.Sprintf("must be at most %d months on", maxBackfillMonths))
		}
		periods = append(periods, period)
		times = append(times, client.ScheduleBackfill{
			Start: nominal.Add(-time.Second), End: nominal.Add(time.Second), // the start is exclusive
			Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL, // BUFFER_ONE would drop the third
		})
	}
	return times, periods, nil
}

// Options make the schedule. Its note is left for the reason of a pause.
func (s Schedule) Options() client.ScheduleOptions {
	return client.ScheduleOptions{
		ID:            s.Names.ScheduleID(),
		Spec:          s.spec(),
		Action:        s.action(),
		Overlap:       enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE,
		CatchupWindow: scheduleCatchUp,
		Note:          "Made by drayman schedule apply.",
	}
}

func (s Schedule) spec() client.ScheduleSpec {
	return client.ScheduleSpec{
		Calendars: []client.ScheduleCalendarSpec{{
			DayOfMonth: []client.ScheduleRange{{Start: s.Day}},
			Hour:       []client.ScheduleRange{{Start: s.Hour}},
			Comment:    fmt.Sprintf("Bills each month on day %d at %02d:00, %s.", s.Day, s.Hour, s.Zone),
		}},
		TimeZoneName: s.Zone.String(),
	}
}

func (s Schedule) action() *client.ScheduleWorkflowAction {
	return &client.ScheduleWorkflowAction{
		ID:       s.Names.ScheduledRunID(),
		Workflow: ScheduledRunName,
		Args: []any{ScheduledRunInput{
			Timezone: s.Zone.String(), Settings: s.Settings, Installation: s.Installation, Names: s.Names,
		}},
		TaskQueue:     s.Names.TaskQueue(),
		StaticSummary: "Starts the billing run of its month",
	}
}

// Revise is the update of a schedule that exists. A paused schedule stays paused. If the
// schedule is as wanted, Revise makes no update: an update forgets the times that were missed
// and not caught up yet. It returns an error with [billing.CodeOtherInstallation] for the
// schedule of another installation.
func (s Schedule) Revise(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
	if s.is(in.Description) {
		return nil, temporal.ErrSkipScheduleUpdate
	}
	if err := s.isOurs(in.Description); err != nil {
		return nil, err
	}
	spec := s.spec()
	return &client.ScheduleUpdate{Schedule: &client.Schedule{
		Action: s.action(),
		Spec:   &spec,
		Policy: &client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE, CatchupWindow: scheduleCatchUp},
		State:  in.Description.Schedule.State,
	}}, nil
}

func (s Schedule) isOurs(d client.ScheduleDescription) error {
	in, err := parseAction(d.Schedule.Action)
	if err != nil || in.Installation == "" || in.Installation == s.Installation {
		return nil //nolint:nilerr // a schedule that cannot be read was made by a person: it is replaced
	}
	return billing.Errorf(billing.CodeOtherInstallation, "the schedule bills the months of installation %q, and this is %q; "+
		"give this one an INSTALLATION, or remove that schedule with drayman schedule remove", in.Installation, s.Installation)
}

// is reports whether the description is what [Schedule.Options] makes.
func (s Schedule) is(d client.ScheduleDescription) bool {
	found, err := ParseSchedule(d)
	if err != nil || found.Day != s.Day || found.Hour != s.Hour || found.Zone.String() != s.Zone.String() || found.Settings != s.Settings ||
		found.Installation != s.Installation || found.Names != s.Names {
		return false
	}
	action, ok := d.Schedule.Action.(*client.ScheduleWorkflowAction)
	policy := d.Schedule.Policy
	return ok && action.ID == s.Names.ScheduledRunID() && action.TaskQueue == s.Names.TaskQueue() &&
		policy.Overlap == enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE && policy.CatchupWindow == scheduleCatchUp && !policy.PauseOnFailure
}

// ParseSchedule reads what [Schedule.Options] made. It returns an error for a
// schedule of another form: somebody has changed it by other means.
func ParseSchedule(d client.ScheduleDescription) (Schedule, error) {
	in, err := parseAction(d.Schedule.Action)
	if err != nil {
		return Schedule{}, err
	}
	spec := d.Schedule.Spec
	if spec == nil || len(spec.Calendars) != 1 || !isMonthly(spec.Calendars[0]) || spec.TimeZoneName != in.Timezone ||
		len(spec.Intervals)+len(spec.CronExpressions)+len(spec.Skip) > 0 ||
		spec.Jitter != 0 || !spec.StartAt.IsZero() || !spec.EndAt.IsZero() {
		return Schedule{}, errors.New("its times have been changed by other means")
	}
	zone, err := time.LoadLocation(spec.TimeZoneName)
	return Schedule{
		Day: single(spec.Calendars[0].DayOfMonth), Hour: single(spec.Calendars[0].Hour), Zone: zone, Settings: in.Settings,
		Installation: in.Installation, Names: in.Names,
	}, err
}

// isMonthly reports whether there is one time a month, at a full hour.
func isMonthly(c client.ScheduleCalendarSpec) bool {
	return single(c.DayOfMonth) > 0 && single(c.Hour) >= 0 && single(c.Minute) == 0 && single(c.Second) == 0 &&
		every(c.Month, 1, 12) && every(c.DayOfWeek, 0, 6) && len(c.Year) == 0
}

// single returns the one value of the ranges, -1 if there are more or none.
func single(ranges []client.ScheduleRange) int {
	if len(ranges) != 1 || ranges[0].End > ranges[0].Start {
		return -1
	}
	return ranges[0].Start
}

func every(ranges []client.ScheduleRange, from, to int) bool {
	return len(ranges) == 1 && ranges[0].Start == from && ranges[0].End == to && ranges[0].Step <= 1
}

func parseAction(action client.ScheduleAction) (in ScheduledRunInput, err error) {
	start, ok := action.(*client.ScheduleWorkflowAction)
	if !ok || start.Workflow != ScheduledRunName || len(start.Args) != 1 {
		return in, errors.New("it starts another workflow than ScheduledRun")
	}
	payload, ok := start.Args[0].(*commonpb.Payload)
	if !ok {
		return in, errors.New("its input cannot be read")
	}
	return in, decode(converter.NewRawValue(payload), &in, scheduledForm, "timezone")
}
