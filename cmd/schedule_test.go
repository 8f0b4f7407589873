package cmd_test

import (
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"drayman/activities"
	"drayman/api"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop"
	"drayman/shop/shoptest"
	"drayman/worker"
	"drayman/workflows"
)

// planner is a Temporal namespace, a database where nobody is due with an API over it,
// and the environment of a command that speaks to both.
type planner struct {
	env      map[string]string
	db       modelstest.Database
	temporal client.Client
}

func newPlanner(t *testing.T) *planner {
	t.Helper()
	address := binary(t, "TEST_TEMPORAL_ADDRESS")
	namespace := newNamespace(t, address)
	log := slog.New(slog.DiscardHandler)
	c, err := client.Dial(client.Options{HostPort: address, Namespace: namespace, Logger: sdklog.NewStructuredLogger(log)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, worker.Prepare(t.Context(), c, namespace, log))
	db := modelstest.SQLite(t)
	handler := api.New(api.Config{Store: db.Open(t, nil), Temporal: c, Zone: time.UTC})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &planner{temporal: c, db: db, env: map[string]string{
		"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": namespace, "TEMPORAL_CONFIG_FILE": os.DevNull, "API_URL": server.URL,
	}}
}

// schedule runs drayman schedule and wants it to go well.
func (p *planner) schedule(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := run(t, p.env, append([]string{"schedule"}, args...)...)
	require.Zero(t, code, errs)
	return out
}

type shown struct {
	Paused   bool
	Note     string
	Problem  string
	Day      int `json:"billing_day"`
	Hour     int `json:"billing_hour"`
	Timezone string
	Settings struct {
		OrdersPerSecond   float64 `json:"orders_per_second"`
		PageSize          int     `json:"page_size"`
		WorkflowPerCharge bool    `json:"workflow_per_charge"`
	}
	Next, Last []struct {
		Time       time.Time
		Period     string
		WorkflowID string `json:"workflow_id"`
	}
}

func (p *planner) show(t *testing.T) shown {
	t.Helper()
	var s shown
	require.NoError(t, json.Unmarshal([]byte(p.schedule(t, "show", "--json")), &s))
	return s
}

func TestScheduleApplyTwice(t *testing.T) {
	t.Parallel()
	p := newPlanner(t)
	args := []string{"apply", "--billing-day", "28", "--billing-hour", "23", "--billing-timezone", "America/Sao_Paulo", "--orders-per-second", "25", "--workflow-per-charge"}
	require.Contains(t, p.schedule(t, args...), "has been made\nBills each month on day 28 at 23:00 in America/Sao_Paulo: 25 orders/s, pages of 500")
	require.Contains(t, p.schedule(t, args...), "is up to date already\n")
	p.schedule(t, "pause", "--reason", "stock-take")

	p.env["BILLING_DAY"] = "1"
	out := p.schedule(t, "apply", "--billing-hour", "0", "--billing-timezone", "Asia/Tokyo", "--page-size", "100")
	require.Contains(t, out, "has been updated\n")
	require.Contains(t, out, "It is paused: stock-take\n")
	s := p.show(t)
	require.True(t, s.Paused)
	require.Equal(t, "stock-take", s.Note)
	require.Equal(t, 1, s.Day)
	require.Zero(t, s.Hour)
	require.Equal(t, 100, s.Settings.PageSize)
	require.Zero(t, s.Settings.OrdersPerSecond, "what is not given is as by default, not as it was")
	require.False(t, s.Settings.WorkflowPerCharge)
	require.Len(t, s.Next, 3)
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	require.NoError(t, err)
	for _, next := range s.Next {
		require.Equal(t, next.Time.In(tokyo).Format("2006-01"), next.Period)
		require.Equal(t, "01 00:00", next.Time.In(tokyo).Format("02 15:04"))
		require.NotEqual(t, next.Time.UTC().Format("2006-01"), next.Period)
	}
	// The time of this month is past, and the schedule does not make up for it.
	require.Contains(t, out, "drayman schedule backfill "+time.Now().In(tokyo).Format("2006-01"))

	d, err := p.temporal.ScheduleClient().GetHandle(t.Context(), workflows.Names("").ScheduleID()).Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE, d.Schedule.Policy.Overlap)
	require.Equal(t, 31*24*time.Hour, d.Schedule.Policy.CatchupWindow)
	require.Equal(t, "scheduled-run", d.Schedule.Action.(*client.ScheduleWorkflowAction).ID)
}

func TestSchedulePauseResumeRemove(t *testing.T) {
	t.Parallel()
	p := newPlanner(t)
	for _, command := range []string{"show", "pause", "resume", "remove", "backfill 2026-01"} {
		code, out, errs := run(t, p.env, append([]string{"schedule"}, strings.Fields(command)...)...)
		require.Equal(t, 1, code, command)
		require.Empty(t, out)
		require.Regexp(t, `^drayman: there is no schedule in the Temporal namespace "test-.*"; drayman schedule apply makes it\n$`, errs)
	}
	require.Contains(t, p.schedule(t, "apply"), "Bills each month on day 1 at 06:00 in UTC: no cap on the pace")
	require.False(t, p.show(t).Paused)
	p.schedule(t, "pause")
	require.Contains(t, p.schedule(t, "show"), "It is paused: Paused by drayman schedule pause.\n")
	require.NotContains(t, p.schedule(t, "resume"), "It is paused")
	require.False(t, p.show(t).Paused)
	p.schedule(t, "remove")
	code, _, _ := run(t, p.env, "schedule", "show")
	require.Equal(t, 1, code)
	require.Contains(t, p.schedule(t, "apply"), "has been made\n")
}

// Somebody has changed the schedule in the Temporal UI.
func TestScheduleChangedByOtherMeans(t *testing.T) {
	t.Parallel()
	p := newPlanner(t)
	p.schedule(t, "apply")
	err := p.temporal.ScheduleClient().GetHandle(t.Context(), workflows.Names("").ScheduleID()).Update(t.Context(), client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			in.Description.Schedule.Spec.Calendars[0].DayOfMonth = []client.ScheduleRange{{Start: 1, End: 2}}
			return &client.ScheduleUpdate{Schedule: &in.Description.Schedule}, nil
		},
	})
	require.NoError(t, err)
	require.Contains(t, p.schedule(t, "show"), "not as drayman schedule apply makes it")
	code, _, errs := run(t, p.env, "schedule", "backfill", "2026-08")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "its times have been changed")
	require.Contains(t, p.schedule(t, "apply"), "has been updated\n")
	require.Empty(t, p.show(t).Problem)
}

func TestScheduleUsage(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"apply --billing-day 0", "--billing-day"},
		{"apply --billing-day 29", "a month that has no day 29 would not be billed"},
		{"apply --billing-day 31", "a month that has no day 31 would not be billed"},
		{"apply --billing-hour 24", "--billing-hour"},
		{"apply --billing-hour 2 --billing-day 8 --billing-timezone America/New_York", "clock is put forward"},
		{"apply --billing-timezone Local", "BILLING_TIMEZONE"},
		{"apply --page-size 0", "--page-size"},
		{"apply --orders-per-second -1", "orders-per-second"},
		{"backfill", "from"},
		{"backfill 2026-8", "2026-11"},
	} {
		code, _, errs := run(t, nil, append([]string{"schedule"}, strings.Fields(c.args)...)...)
		require.Equal(t, 2, code, c.args)
		require.Contains(t, errs, c.says)
		require.Equal(t, 1, strings.Count(errs, "\n"), errs)
	}
}

func TestScheduleWithoutTemporal(t *testing.T) {
	code, _, errs := run(t, map[string]string{"TEMPORAL_ADDRESS": "127.0.0.1:1", "TEMPORAL_CONFIG_FILE": os.DevNull}, "schedule", "show")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "cannot reach Temporal at 127.0.0.1:1 (TEMPORAL_ADDRESS)")
	require.Equal(t, 1, strings.Count(errs, "\n"), errs)
}

// work runs a worker on the namespace.
func (p *planner) work(t *testing.T, db modelstest.Database) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	shopClient, err := shop.New(shop.Config{URL: shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"}).URL, APIKey: "key", APISecret: "secret", Timeout: time.Second})
	require.NoError(t, err)
	t.Cleanup(shopClient.Close)
	policy := activities.Policy{Idempotent: true, RetryFor: time.Hour, ShopTimeout: time.Second}
	namespace := p.env["TEMPORAL_NAMESPACE"]
	acts := activities.New(activities.Config{
		Store: db.Open(t, nil), Shop: shopClient, Policy: policy, Zone: time.UTC, Log: log,
		Temporal: workflows.Temporal{Client: p.temporal, Namespace: namespace},
	})
	workers := worker.New(p.temporal, "", acts, 20*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- workers.Run(t.Context(), p.temporal, namespace, log) }()
	t.Cleanup(func() { require.NoError(t, <-ended) })
}

// executions returns the ids of the workflows that have been started.
func (p *planner) executions(t *testing.T) []string {
	t.Helper()
	answer, err := p.temporal.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{
		Query: "WorkflowType IN ('BillingRun', 'ScheduledRun')",
	})
	require.NoError(t, err)
	var ids []string
	for _, execution := range answer.Executions {
		ids = append(ids, execution.Execution.WorkflowId)
	}
	return ids
}

// requireAsked says that a backfill of July to September names the cut-offs, and
// starts nothing where nobody can be asked.
func (p *planner) requireAsked(t *testing.T, cutOffs string) {
	t.Helper()
	code, out, errs := run(t, p.env, "schedule", "backfill", "2026-07", "2026-09")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, errs, cutOffs)
	require.Contains(t, errs, "give --yes")
	require.Equal(t, 1, strings.Count(errs, "\n"), errs)
}

// membersAbout makes a database of people who joined, or left, about the cut-off
// of August.
func membersAbout(t *testing.T, cutOff time.Time) modelstest.Database {
	t.Helper()
	db := modelstest.SQLite(t)
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "of-august", 1, "a", modelstest.Since(billing.Active, cutOff))
	db.AddSubscription(t, "of-september", 1, "b", modelstest.Since(billing.Active, cutOff.Add(time.Microsecond)))
	db.AddSubscription(t, "of-today", 1, "c", modelstest.Since(billing.Active, time.Now().Add(-time.Second)))
	db.AddSubscription(t, "of-july-only", 1, "d", modelstest.Since(billing.Active, modelstest.Long), modelstest.Since(billing.Cancelled, cutOff))
	return db
}

// In Tokyo the month begins when the one before it still lasts in UTC.
func TestScheduleBackfillBillsThePastMonths(t *testing.T) {
	t.Parallel()
	p := newPlanner(t)
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	require.NoError(t, err)
	p.schedule(t, "apply", "--billing-hour", "0", "--billing-timezone", "Asia/Tokyo", "--orders-per-second", "7")
	p.schedule(t, "pause")
	code, _, errs := run(t, p.env, "schedule", "backfill", "2026-09", "2026-08")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "must not be before 2026-09")
	next := time.Now().AddDate(0, 2, 0).Format("2006-01")
	code, _, errs = run(t, p.env, "schedule", "backfill", "2026-08", next)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "nothing was started")

	p.requireAsked(t, "2026-07 at 2026-07-01T00:00:00+09:00, 2026-08 at 2026-08-01T00:00:00+09:00, 2026-09 at ")
	require.Contains(t, p.schedule(t, "backfill", "2026-07", "2026-09", "--yes"),
		"2026-08 is being started, with the cut-off 2026-08-01T00:00:00+09:00, for those who were due then and still are: drayman run watch 2026-08\n")
	db := membersAbout(t, time.Date(2026, 7, 31, 15, 0, 0, 0, time.UTC))
	p.work(t, db) // in UTC: the schedule's zone tells the month

	want := []string{
		"billing-run/2026-07", "billing-run/2026-08", "billing-run/2026-09",
		"scheduled-run-2026-06-30T15:00:00Z", "scheduled-run-2026-07-31T15:00:00Z", "scheduled-run-2026-08-31T15:00:00Z",
	}
	require.Eventually(t, func() bool { return len(p.executions(t)) >= len(want) }, 60*time.Second, 100*time.Millisecond)
	require.ElementsMatch(t, want, p.executions(t))
	for _, id := range want[:3] {
		period := strings.TrimPrefix(id, "billing-run/")
		var ended struct {
			Period   string
			CutOff   time.Time `json:"cut_off"`
			State    string
			Settings struct {
				OrdersPerSecond float64 `json:"orders_per_second"`
			}
		}
		require.NoError(t, p.temporal.GetWorkflow(t.Context(), id, "").Get(t.Context(), &ended))
		require.Equal(t, period, ended.Period)
		require.Equal(t, "finished", ended.State)
		require.Equal(t, period+"-01 00:00", ended.CutOff.In(tokyo).Format("2006-01-02 15:04"))
		require.InDelta(t, 7, ended.Settings.OrdersPerSecond, 0)
		d, err := p.temporal.DescribeWorkflow(t.Context(), id, "")
		require.NoError(t, err)
		attribute, _ := d.TypedSearchAttributes.GetKeyword(workflows.BillingPeriodKey)
		require.Equal(t, period, attribute)
	}
	require.Contains(t, p.schedule(t, "show"), "bills 2026-08  started ")
	require.ElementsMatch(t, []string{"2026-08 of-august", "2026-09 of-august", "2026-09 of-september"},
		db.Lines(t, "SELECT period || ' ' || subscription_id FROM charge WHERE status = 'charged'"))

	// Again: the month has been billed, and the run is started all the same.
	p.schedule(t, "backfill", "2026-08", "--yes")
	require.Eventually(t, func() bool { return len(p.executions(t)) == len(want)+2 }, 60*time.Second, 100*time.Millisecond)
}

// The schedule of another installation, found under the same name, is neither taken over
// nor backfilled.
func TestSchedule_OfAnotherInstallationIsLeftAlone(t *testing.T) {
	t.Parallel()
	p := newPlanner(t)
	p.schedule(t, "apply")
	p.db.Exec(t, "UPDATE installation SET id = 'a copy'")
	for _, args := range [][]string{{"apply", "--billing-day", "2"}, {"backfill", "2026-08", "--yes"}} {
		code, _, errs := run(t, p.env, append([]string{"schedule"}, args...)...)
		require.Equal(t, 1, code)
		require.Contains(t, errs, `the schedule bills the months of installation "`+modelstest.Installation+`"`)
		require.Contains(t, errs, `"a copy"`)
	}
	require.Equal(t, 1, p.show(t).Day)
	require.Empty(t, p.executions(t))
	p.env["INSTALLATION"] = "staging"
	code, _, errs := run(t, p.env, "schedule", "apply")
	require.Equal(t, 1, code)
	require.Contains(t, errs, `is "staging", and the database of the API`)
}
