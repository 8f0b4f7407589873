package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/billing"
	"drayman/workflows"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loaded, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loaded
}

func period(t *testing.T, text string) billing.Period {
	t.Helper()
	p, err := billing.ParsePeriod(text)
	require.NoError(t, err)
	return p
}

// scheduled runs ScheduledRun as of the nominal time, "" for none, and returns
// the run that it has started.
func scheduled(t *testing.T, nominal, timezone string) (started workflows.RunInput, id string, out workflows.ScheduledRunOutput, err error) {
	t.Helper()
	env := setup(t, activities.Policy{Idempotent: true}).env
	env.RegisterWorkflowWithOptions(workflows.ScheduledRun, workflow.RegisterOptions{Name: workflows.ScheduledRunName})
	env.RegisterWorkflowWithOptions(workflows.BillingRun, workflow.RegisterOptions{Name: workflows.BillingRunName})
	if nominal != "" {
		at, err := time.Parse(time.RFC3339, nominal)
		require.NoError(t, err)
		key := temporal.NewSearchAttributeKeyTime("TemporalScheduledStartTime")
		require.NoError(t, env.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(key.ValueSet(at))))
	}
	env.SetOnChildWorkflowStartedListener(func(info *workflow.Info, _ workflow.Context, args converter.EncodedValues) {
		id = info.WorkflowExecution.ID
		require.NoError(t, args.Get(&started))
	})
	env.ExecuteWorkflow(workflows.ScheduledRunName, workflows.ScheduledRunInput{Timezone: timezone, Settings: billing.RunSettings{OrdersPerSecond: 5}})
	require.True(t, env.IsWorkflowCompleted())
	if err = env.GetWorkflowError(); err == nil {
		require.NoError(t, env.GetWorkflowResult(&out))
	}
	return started, id, out, err
}

func TestScheduledRun_BillsTheMonthOfItsNominalTime(t *testing.T) {
	for _, c := range []struct{ nominal, timezone, month string }{
		{"2026-03-01T00:30:00-03:00", "America/Sao_Paulo", "2026-03"},
		{"2026-03-01T02:59:59Z", "America/Sao_Paulo", "2026-02"}, // the 1st in UTC, the 28th there
		{"2026-03-01T00:30:00+09:00", "Asia/Tokyo", "2026-03"},   // the 28th in UTC, the 1st there
		{"2026-03-01T06:00:00Z", "UTC", "2026-03"},
		{"2027-01-01T00:30:00+13:00", "Pacific/Auckland", "2027-01"}, // summer time, and another year in UTC
		{"2026-07-01T00:30:00+12:00", "Pacific/Auckland", "2026-07"}, // winter time
	} {
		started, id, out, err := scheduled(t, c.nominal, c.timezone)
		require.NoError(t, err)
		require.Equal(t, workflows.ScheduledRunOutput{Period: period(t, c.month)}, out)
		require.Equal(t, "billing-run/"+c.month, id)
		require.Equal(t, period(t, c.month), started.Period)
		require.Equal(t, c.timezone, started.Timezone)
		nominal, err := time.Parse(time.RFC3339, c.nominal)
		require.NoError(t, err)
		require.True(t, nominal.Equal(started.Nominal), "the cut-off: %s", started.Nominal)
		require.Equal(t, billing.RunSettings{OrdersPerSecond: 5}.WithDefaults(), started.Settings)
	}
}

func TestScheduledRun_WithoutASchedule(t *testing.T) {
	_, id, _, err := scheduled(t, "", "UTC")
	var failure *temporal.ApplicationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, "not_scheduled", failure.Type())
	require.True(t, failure.NonRetryable())
	require.Empty(t, id)
}

func TestSchedule_Validate(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		day, hour int
		zone      string
		says      string
	}{
		{1, 0, "UTC", ""},
		{28, 23, "America/New_York", ""},
		{1, 2, "America/New_York", ""},           // clocks go forward on a later day
		{1, 1, "America/New_York", ""},           // 01:00 on November 1 may come twice: no harm
		{8, 2, "America/New_York", "2037-03-08"}, // does not come at all
		{0, 6, "UTC", "must be 1 to 28"},
		{29, 6, "UTC", "must be 1 to 28, not 29: a month that has no day 29"},
		{31, 6, "UTC", "must be 1 to 28, not 31"},
		{32, 6, "UTC", "must be 1 to 28"},
		{1, -1, "UTC", "must be 0 to 23"},
		{1, 24, "UTC", "must be 0 to 23"},
	} {
		err := workflows.Schedule{Day: c.day, Hour: c.hour, Zone: zone(t, c.zone)}.Validate(now)
		if c.says == "" {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(err))
		require.ErrorContains(t, err, c.says)
	}
	slow := workflows.Schedule{Day: 1, Zone: time.UTC, Settings: billing.RunSettings{OrdersPerSecond: -1}}
	require.ErrorContains(t, slow.Validate(now), "orders_per_second")
}

func TestSchedule_Backfill(t *testing.T) {
	s := workflows.Schedule{Day: 1, Hour: 0, Zone: zone(t, "Asia/Tokyo")}
	now := time.Date(2026, 10, 31, 15, 0, 0, 0, time.UTC) // November begins in Tokyo
	times, periods, err := s.Backfill(period(t, "2025-12"), period(t, "2026-02"), now)
	require.NoError(t, err)
	require.Equal(t, []billing.Period{period(t, "2025-12"), period(t, "2026-01"), period(t, "2026-02")}, periods)
	require.Len(t, times, 3)
	require.True(t, times[0].Start.Before(s.NominalTime(periods[0])), "Temporal takes the start as exclusive")
	require.Equal(t, time.Date(2025, 11, 30, 15, 0, 0, 0, time.UTC), s.NominalTime(periods[0]).UTC())
	require.Equal(t, enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ALL, times[0].Overlap)

	_, periods, err = s.Backfill(period(t, "2026-11"), period(t, "2026-11"), now)
	require.NoError(t, err)
	require.Len(t, periods, 1)
	_, _, err = s.Backfill(period(t, "2026-11"), period(t, "2026-11"), now.Add(-time.Second))
	require.Equal(t, billing.CodePeriodInFuture, billing.CodeOf(err))
	_, _, err = s.Backfill(period(t, "2026-11"), period(t, "2026-10"), now)
	require.Equal(t, billing.CodeInvalid, billing.CodeOf(err))
	_, _, err = s.Backfill(period(t, "2024-10"), period(t, "2026-10"), now)
	require.ErrorContains(t, err, "at most 24 months")
}
