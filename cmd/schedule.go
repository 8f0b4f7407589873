package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"drayman/billing"
	"drayman/workflows"
)

// scheduleCommands speak to Temporal, with the settings of the workers.
type scheduleCommands struct {
	Apply    scheduleApplyCommand    `cmd:"" help:"Make the monthly schedule, or bring it up to date; a paused one stays paused."`
	Show     scheduleShowCommand     `cmd:"" help:"Show the schedule: next times, last ones, whether it is paused and why, settings."`
	Pause    schedulePauseCommand    `cmd:"" help:"Pause the schedule: no month is started. Runs under way go on."`
	Resume   scheduleResumeCommand   `cmd:"" help:"Resume the schedule. Months whose time has passed meanwhile are not caught up; see backfill."`
	Remove   scheduleRemoveCommand   `cmd:"" help:"Remove the schedule. Runs under way go on."`
	Backfill scheduleBackfillCommand `cmd:"" help:"Start the runs of past months now, as the schedule would have."`
}

// temporalTimeout bounds a command on the schedule.
const temporalTimeout = 30 * time.Second

// schedule is the one schedule in Temporal.
type schedule struct {
	client.ScheduleHandle
	client    client.ScheduleClient
	namespace string
}

// withSchedule connects to Temporal.
func withSchedule(ctx context.Context, env *environment, f installationFlags, run func(context.Context, *schedule) error) error {
	options, err := temporalOptions(env, slog.New(slog.DiscardHandler)) // what goes wrong is returned
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return fmt.Errorf("cannot reach Temporal at %s (TEMPORAL_ADDRESS): %s",
			cmp.Or(options.HostPort, client.DefaultHostPort), oneLine(err.Error()))
	}
	defer temporal.Close()
	schedules := temporal.ScheduleClient()
	s := &schedule{ScheduleHandle: schedules.GetHandle(ctx, f.names().ScheduleID()), client: schedules, namespace: options.Namespace}
	return s.explain(run(ctx, s))
}

// explain says what Temporal's errors mean here.
func (s *schedule) explain(err error) error {
	var absent *serviceerror.NotFound
	var known *billing.Error
	var noNamespace *serviceerror.NamespaceNotFound
	switch {
	case errors.As(err, &absent):
		return fmt.Errorf("there is no schedule in the Temporal namespace %q; drayman schedule apply makes it", s.namespace)
	case errors.As(err, &noNamespace):
		return fmt.Errorf("there is no Temporal namespace %q (TEMPORAL_NAMESPACE)", s.namespace)
	case errors.As(err, &known):
		return errors.New(known.Detail)
	}
	return err
}

// parsed reads the schedule as apply has made it.
func (s *schedule) parsed(ctx context.Context) (workflows.Schedule, *client.ScheduleDescription, error) {
	description, err := s.Describe(ctx)
	if err != nil {
		return workflows.Schedule{}, nil, err
	}
	parsed, err := workflows.ParseSchedule(*description)
	if err != nil {
		return parsed, description, fmt.Errorf("the schedule is not as drayman schedule apply makes it: %w", err)
	}
	return parsed, description, nil
}

type scheduleApplyCommand struct {
	installationFlags
	apiFlags
	BillingDay  int `help:"Day of the month, 1 to 28: later ones do not exist in every month." default:"1"`
	BillingHour int `help:"Hour of the day in the billing time zone, 0 to 23." default:"6"`
	zoneFlags
	settingsFlags

	schedule workflows.Schedule
}

// Validate implements kong's validation.
func (c *scheduleApplyCommand) Validate() error {
	zone, err := c.zone()
	if err != nil {
		return err
	}
	c.schedule = workflows.Schedule{Day: c.BillingDay, Hour: c.BillingHour, Zone: zone, Settings: c.over(billing.RunSettings{})}
	return cmp.Or(c.apiFlags.validate(), c.settingsFlags.validate(), flagError(c.schedule.Validate(time.Now())))
}

// Run makes the schedule or updates it. Which installation's months it bills, the API
// tells: a schedule that named none could start the month of another one.
func (c *scheduleApplyCommand) Run(ctx context.Context, env *environment) error {
	id, err := installationAt(ctx, c.apiFlags, c.installationFlags)
	if err != nil {
		return err
	}
	c.schedule.Installation, c.schedule.Names = id, c.names()
	return withSchedule(ctx, env, c.installationFlags, func(ctx context.Context, s *schedule) error {
		done, err := s.apply(ctx, c.schedule)
		if err != nil {
			return err
		}
		view, err := s.view(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(env.stdout, "the schedule %s\n", done)
		view.print(env.stdout)
		if now := time.Now(); done != applyUnchanged {
			passed(env.stdout, c.schedule, now)
		}
		return nil
	})
}

// What apply has done.
const (
	applyMade      = "has been made"
	applyUpdated   = "has been updated"
	applyUnchanged = "is up to date already"
)

func (s *schedule) apply(ctx context.Context, wanted workflows.Schedule) (done string, err error) {
	_, err = s.client.Create(ctx, wanted.Options())
	if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return applyMade, err
	}
	done = applyUnchanged
	err = s.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		update, err := wanted.Revise(in)
		if err == nil {
			done = applyUpdated
		}
		return update, err
	}})
	return done, err
}

// passed points to the current month, if the schedule comes too late for it.
func passed(w io.Writer, s workflows.Schedule, now time.Time) {
	if month := billing.PeriodAt(now, s.Zone); !s.NominalTime(month).After(now) {
		fmt.Fprintf(w, "Its time in %s has passed. If that month is not billed yet: drayman schedule backfill %s, "+
			"for those who were due then and still are; or drayman run start %s, for those who are due now\n", month.Title(), month, month)
	}
}

// installationAt asks the API for the id of the installation whose months are billed.
func installationAt(ctx context.Context, f apiFlags, named installationFlags) (string, error) {
	found, err := newRunAPI(f.APIURL).installation(ctx)
	if err == nil && found.Name != string(named.Installation) {
		err = fmt.Errorf("--installation ($INSTALLATION): is %q, and the database of the API at %s is the installation named %q; "+
			"if that is not adopted yet, see drayman adopt", named.Installation, f.APIURL, found.Name)
	}
	return found.ID, err
}

type scheduleShowCommand struct {
	installationFlags
	JSON bool `name:"json" once:"" help:"Show it as JSON."`
}

// Run shows the schedule.
func (c *scheduleShowCommand) Run(ctx context.Context, env *environment) error {
	return withSchedule(ctx, env, c.installationFlags, func(ctx context.Context, s *schedule) error {
		view, err := s.view(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			encoder := json.NewEncoder(env.stdout)
			encoder.SetIndent("", "  ")
			return encoder.Encode(view)
		}
		view.print(env.stdout)
		return nil
	})
}

// scheduleView is what show shows. Problem says in what it is not as apply makes
// it; then day, hour and settings are left out.
type scheduleView struct {
	Paused   bool                 `json:"paused"`
	Note     string               `json:"note,omitempty"`
	Problem  string               `json:"problem,omitempty"`
	Day      int                  `json:"billing_day,omitempty"`
	Hour     *int                 `json:"billing_hour,omitempty"`
	Timezone string               `json:"billing_timezone"`
	Settings *billing.RunSettings `json:"settings,omitempty"`
	Next     []scheduledTime      `json:"next"`
	Last     []scheduledTime      `json:"last"`
	Missed   int                  `json:"missed"` // times that were dropped: too late, or one running and one waiting

	zone *time.Location
}

// scheduledTime is a nominal time and the month that it bills.
type scheduledTime struct {
	Time       time.Time      `json:"time"`
	Period     billing.Period `json:"period"`
	StartedAt  *time.Time     `json:"started_at,omitempty"`
	WorkflowID string         `json:"workflow_id,omitempty"`
}

// shownTimes is how many of the times to come are shown.
const shownTimes = 3

func (s *schedule) view(ctx context.Context) (*scheduleView, error) {
	parsed, d, err := s.parsed(ctx)
	if d == nil {
		return nil, err
	}
	v := &scheduleView{
		Timezone: d.Schedule.Spec.TimeZoneName, zone: cmp.Or(parsed.Zone, time.UTC), Next: []scheduledTime{}, Last: []scheduledTime{},
		Missed: d.Info.NumActionsMissedCatchupWindow + d.Info.NumActionsSkippedOverlap,
	}
	if state := d.Schedule.State; state != nil {
		v.Paused, v.Note = state.Paused, state.Note
	}
	if err != nil {
		v.Problem = err.Error()
	} else {
		settings := parsed.Settings.WithDefaults()
		v.Day, v.Hour, v.Settings = parsed.Day, &parsed.Hour, &settings
	}
	for _, t := range d.Info.NextActionTimes[:min(shownTimes, len(d.Info.NextActionTimes))] {
		v.Next = append(v.Next, v.at(t))
	}
	for _, action := range d.Info.RecentActions {
		last, started := v.at(action.ScheduleTime), action.ActualTime.In(v.zone)
		last.StartedAt = &started
		if action.StartWorkflowResult != nil {
			last.WorkflowID = action.StartWorkflowResult.WorkflowID
		}
		v.Last = append(v.Last, last)
	}
	return v, nil
}

func (v *scheduleView) at(t time.Time) scheduledTime {
	return scheduledTime{Time: t.In(v.zone), Period: billing.PeriodAt(t, v.zone)}
}

func (v *scheduleView) print(w io.Writer) {
	if v.Problem != "" {
		fmt.Fprintln(w, oneLine(v.Problem))
	} else {
		fmt.Fprintf(w, "Bills each month on day %d at %02d:00 in %s: %s.\n", v.Day, *v.Hour, v.Timezone, settingsText(*v.Settings))
	}
	if v.Paused {
		fmt.Fprintf(w, "It is paused: %s\n", cmp.Or(oneLine(v.Note), "no reason was given"))
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, last := range v.Last {
		fmt.Fprintf(table, "last\t%s\tbills %s\tstarted %s by %s\n",
			last.Time.Format(time.RFC3339), last.Period, last.StartedAt.Format(time.RFC3339), last.WorkflowID)
	}
	for _, next := range v.Next {
		when := "next"
		if v.Paused {
			when = "paused"
		}
		fmt.Fprintf(table, "%s\t%s\tbills %s\t\n", when, next.Time.Format(time.RFC3339), next.Period)
	}
	_ = table.Flush() // to a terminal or to a buffer; there is nobody to tell
	if v.Missed > 0 {
		fmt.Fprintf(w, "%d times were missed; drayman schedule backfill starts a month that was not billed.\n", v.Missed)
	}
}

func settingsText(s billing.RunSettings) string {
	pace := "no cap on the pace"
	if s.OrdersPerSecond > 0 {
		pace = fmt.Sprintf("%v orders/s", s.OrdersPerSecond)
	}
	text := fmt.Sprintf("%s, pages of %d, %d orders in flight", pace, s.PageSize, s.Concurrency)
	if s.WorkflowPerCharge {
		text += ", a workflow per charge"
	}
	return text
}

type schedulePauseCommand struct {
	installationFlags
	Reason string `once:"" help:"Shown by drayman schedule show and in the Temporal UI." default:"Paused by drayman schedule pause." placeholder:"TEXT"`
}

// Run pauses the schedule.
func (c *schedulePauseCommand) Run(ctx context.Context, env *environment) error {
	return withSchedule(ctx, env, c.installationFlags, func(ctx context.Context, s *schedule) error {
		if err := s.Pause(ctx, client.SchedulePauseOptions{Note: c.Reason}); err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, "the schedule is paused; a month whose time passes meanwhile is not started; see backfill")
		return nil
	})
}

type scheduleResumeCommand struct{ installationFlags }

// Run resumes the schedule.
func (c *scheduleResumeCommand) Run(ctx context.Context, env *environment) error {
	return withSchedule(ctx, env, c.installationFlags, func(ctx context.Context, s *schedule) error {
		if err := s.Unpause(ctx, client.ScheduleUnpauseOptions{Note: "Resumed by drayman schedule resume."}); err != nil {
			return err
		}
		view, err := s.view(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, "the schedule is active; a month whose time passed meanwhile is started with drayman schedule backfill")
		view.print(env.stdout)
		return nil
	})
}

type scheduleRemoveCommand struct{ installationFlags }

// Run removes the schedule.
func (c *scheduleRemoveCommand) Run(ctx context.Context, env *environment) error {
	return withSchedule(ctx, env, c.installationFlags, func(ctx context.Context, s *schedule) error {
		if err := s.Delete(ctx); err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, "the schedule is removed; no month is started by itself")
		return nil
	})
}

type scheduleBackfillCommand struct {
	installationFlags
	apiFlags
	From billing.Period `arg:"" help:"The first month, such as 2026-08."`
	To   billing.Period `arg:"" optional:"" help:"The last month; by default the first."`
	Yes  bool           `once:"" help:"Start months that are over without asking."`
}

// Validate implements kong's validation.
func (c *scheduleBackfillCommand) Validate() error { return c.apiFlags.validate() }

// Run starts the months. It connects twice: a person may take long to answer.
func (c *scheduleBackfillCommand) Run(ctx context.Context, env *environment) error {
	id, err := installationAt(ctx, c.apiFlags, c.installationFlags)
	if err != nil {
		return err
	}
	var parsed workflows.Schedule
	var times []client.ScheduleBackfill
	var periods []billing.Period
	now := time.Now()
	err = withSchedule(ctx, env, c.installationFlags, func(ctx context.Context, s *schedule) (err error) {
		parsed, _, err = s.parsed(ctx)
		if err == nil && parsed.Installation != id {
			return fmt.Errorf("the schedule bills the months of installation %q, and the API's is %q; see drayman schedule apply", parsed.Installation, id)
		}
		if err == nil {
			times, periods, err = parsed.Backfill(c.From, cmp.Or(c.To, c.From), now)
		}
		return err
	})
	if err != nil {
		return err
	}
	if over := monthsOver(parsed, periods, now); over != "" {
		what := "Of months that are over, each run charges who was eligible at its cut-off, still is, and is not charged for it: " + over + "."
		if err := env.confirm(ctx, c.Yes, what, "Start them?", "started"); err != nil {
			return err
		}
	}
	err = withSchedule(ctx, env, c.installationFlags, func(ctx context.Context, s *schedule) error {
		return s.Backfill(ctx, client.ScheduleBackfillOptions{Backfill: times})
	})
	if err != nil {
		return err
	}
	for _, period := range periods {
		fmt.Fprintf(env.stdout, "%s is being started, with the cut-off %s, for those who were due then and still are: drayman run watch %s\n",
			period, parsed.NominalTime(period).Format(time.RFC3339), period)
	}
	return nil
}

// monthsOver lists those of the periods that are over, with their cut-offs.
func monthsOver(s workflows.Schedule, periods []billing.Period, now time.Time) string {
	var over []string
	for _, period := range periods {
		if period.Compare(billing.PeriodAt(now, s.Zone)) < 0 {
			over = append(over, fmt.Sprintf("%s at %s", period, s.NominalTime(period).Format(time.RFC3339)))
		}
	}
	return strings.Join(over, ", ")
}
