package api_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/workflows"
)

// asked is what the API asks back about a month that is over.
type asked struct {
	Code   string
	Detail string
	Due    *int
	CutOff *time.Time `json:"cut_off"`
}

func (s *system) askedBack(t *testing.T, month string) asked {
	t.Helper()
	r := s.do(t, http.MethodPost, "/billing-run/"+month, "")
	require.Equal(t, http.StatusConflict, r.Code, r.Raw)
	var a asked
	require.NoError(t, json.Unmarshal([]byte(r.Raw), &a))
	require.Equal(t, "past_period_unconfirmed", a.Code)
	return a
}

// runConfirmed carries a run of a month that is over through.
func (s *system) runConfirmed(t *testing.T, month string) billing.Progress {
	t.Helper()
	path := "/billing-run/" + month
	started := s.do(t, http.MethodPost, path, `{"confirm_past":true}`)
	require.Equal(t, http.StatusAccepted, started.Code, started.Raw)
	return s.awaitRun(t, path, in(billing.RunFinished))
}

func TestRun_PastMonthChargesThoseOfItsEnd(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		subscribers(t, db, 2)
		now := time.Now().UTC()
		last := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).Add(-time.Microsecond)
		active := func(at time.Time) billing.Change { return modelstest.Since(billing.Active, at) }
		db.AddSubscription(t, "at-its-end", 1, "at-its-end", active(last))
		db.AddSubscription(t, "too-late", 1, "too-late", active(last.Add(time.Microsecond)))
		db.AddSubscription(t, "cancelled", 1, "cancelled", active(modelstest.Long), modelstest.Since(billing.Cancelled, last.Add(time.Minute)))
		require.Equal(t, http.StatusCreated, s.do(t, http.MethodPost, "/club/1/subscribe/", `{"customer_id":"today"}`).Code)

		month := last.Format("2006-01")
		question := s.askedBack(t, month)
		require.Equal(t, 3, *question.Due)
		require.Equal(t, last, *question.CutOff)
		require.Contains(t, question.Detail, "3 would be due")
		require.Zero(t, *s.askedBack(t, "1999-12").Due)
		require.Zero(t, *s.askedBack(t, "0001-01").Due)
		s.requireNothingStarted(t)

		ended := s.runConfirmed(t, month)
		require.Equal(t, last, ended.CutOff)
		require.Equal(t, 3, ended.Due)
		require.Equal(t, billing.RunCounts{Charged: 3}, ended.Counts)
		require.Less(t, ended.EndedAt.Sub(*ended.BegunAt), time.Minute)
		require.Greater(t, ended.OrdersPerSecond, 0.01, "the average begins with the first claim, not with the cut-off")
		require.ElementsMatch(t, []string{month + "-s-0000", month + "-s-0001", month + "-at-its-end"}, requestIDs(s.shop.Orders()))
		report := s.report(t, "/billing-run/"+month)
		require.True(t, report.Closed)
		require.Equal(t, 4, report.Eligible)
		require.Equal(t, 1, report.Totals[billing.ClassSkipped], "cancelled since")

		require.Zero(t, s.runConfirmed(t, "1999-12").Due)
		require.Zero(t, s.runConfirmed(t, "0001-01").Due)
		require.Len(t, s.shop.Orders(), 3)
	})
}

// A month begins where its zone says, the year's summer time included.
func TestRun_MonthsEdgeIsTheZones(t *testing.T) {
	for name, c := range map[string]struct{ now, last string }{
		"America/Sao_Paulo": {"2026-11-01T03:00:00Z", "2026-11-01T02:59:59.999999Z"},
		"Europe/Berlin":     {"2026-10-31T23:00:00Z", "2026-10-31T22:59:59.999999Z"},
		"Asia/Tokyo":        {"2026-10-31T15:00:00Z", "2026-10-31T14:59:59.999999Z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone, err := time.LoadLocation(name)
			require.NoError(t, err)
			last, err := time.Parse(time.RFC3339Nano, c.last)
			require.NoError(t, err)
			db := modelstest.SQLite(t)
			clock := newClock("2026-10-31T12:00:00Z")
			s := setup(t, db, options{clock: clock.now, zone: zone})
			db.AddClub(t, 1, 1)
			db.AddSubscription(t, "a", 1, "a", modelstest.Since(billing.Active, last))
			db.AddSubscription(t, "b", 1, "b", modelstest.Since(billing.Active, last.Add(time.Microsecond)))
			require.Equal(t, "period_in_future", s.do(t, http.MethodPost, "/billing-run/2026-11", `{"confirm_past":true}`).Problem.Code)

			clock.set(c.now)
			require.Equal(t, last, *s.askedBack(t, "2026-10").CutOff)
			require.Equal(t, 1, s.runConfirmed(t, "2026-10").Counts.Charged)
			require.Equal(t, []string{"2026-10-a"}, requestIDs(s.shop.Orders()))
			require.Equal(t, http.StatusAccepted, s.do(t, http.MethodPost, "/billing-run/2026-11", "").Code)
			s.awaitRun(t, "/billing-run/2026-11", in(billing.RunFinished))
			require.ElementsMatch(t, []string{"2026-10-a", "2026-11-a", "2026-11-b"}, requestIDs(s.shop.Orders()))
		})
	}
}

// One that is active is joined, whatever the month: nobody is asked twice.
func TestRun_ActiveOneOfAPastMonthIsNotConfirmedAgain(t *testing.T) {
	db := modelstest.Postgres(t)
	clock := newClock("2026-11-15T00:00:00Z")
	s := setup(t, db, options{clock: clock.now})
	subscribers(t, db, 3)
	const path = "/billing-run/2026-09"
	require.Equal(t, http.StatusAccepted, s.do(t, http.MethodPost, path, `{"confirm_past":true,"orders_per_second":0.01}`).Code)
	require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/pause", "").Code)
	require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path, "").Code)
	require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path, `{"confirm_past":true}`).Code)
	require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/cancel", "").Code)
	s.awaitRun(t, path, in(billing.RunCancelled))
	s.askedBack(t, "2026-09")

	// One that Temporal has lost runs no longer.
	require.Equal(t, http.StatusAccepted, s.do(t, http.MethodPost, path, `{"confirm_past":true,"orders_per_second":0.01}`).Code)
	require.NoError(t, s.temporal.TerminateWorkflow(t.Context(), "billing-run/2026-09", "", "gone"))
	s.askedBack(t, "2026-09")
}

// Whoever joins while a run is paused belongs to a later one, on every way.
func TestRun_WhoJoinsMeanwhileIsForALaterRun(t *testing.T) {
	for name, settings := range map[string]string{"pages": `"page_size":2`, "workflow per charge": `"workflow_per_charge":true,"page_size":2`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				clock := newClock("2026-11-05T12:00:00Z")
				s := setup(t, db, options{clock: clock.now})
				subscribers(t, db, 6)
				const path = "/billing-run/2026-11"
				require.Equal(t, http.StatusAccepted, s.do(t, http.MethodPost, path, `{"orders_per_second":0.01,`+settings+`}`).Code)
				require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/pause", "").Code)
				clock.set("2026-11-06T12:00:00Z")
				for _, id := range []string{"a-0001", "s-0002-b", "z-0001"} { // before, in and behind the pages
					db.AddSubscription(t, id, 1, id, modelstest.Since(billing.Active, time.Date(2026, 11, 6, 0, 0, 0, 0, time.UTC)))
				}
				run, err := workflows.Names("").StartCharge(t.Context(), s.temporal, workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{
					SubscriptionID: "s-0002-b", Period: thisPeriod(t, s), RunID: "2026-11/1", RequireEligible: true,
					Installation: modelstest.Installation,
				}})
				require.NoError(t, err)
				require.ErrorContains(t, run.Get(t.Context(), nil), "not eligible at the run's cut-off")
				require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/pace", `{"orders_per_second":0}`).Code)
				require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/resume", "").Code)
				ended := s.awaitRun(t, path, in(billing.RunFinished))
				require.Equal(t, billing.RunCounts{Charged: 6}, ended.Counts)
				require.Equal(t, 6, ended.Due)
				require.Len(t, s.shop.Orders(), 6)
				require.True(t, s.report(t, path).Closed, "nobody who came later is missing")

				s.startRun(t, `{"page_size":2}`)
				again := s.awaitRun(t, path, func(p billing.Progress) bool { return p.Number == 2 && p.State == billing.RunFinished })
				require.Equal(t, billing.RunCounts{Charged: 3}, again.Counts)
			})
		})
	}
}

// Whoever starts the workflow itself meets the same rules as at the API.
func TestRun_StartedByHandIsRefusedAtOnce(t *testing.T) {
	db := modelstest.Postgres(t)
	clock := newClock("2026-11-15T00:00:00Z")
	s := setup(t, db, options{clock: clock.now})
	subscribers(t, db, 3)
	for name, c := range map[string]struct{ input, code, says string }{
		"a future month":           {`{"period":"2099-02","confirm_past":true}`, "period_in_future", "2099-02 has not begun"},
		"next month":               {`{"period":"2026-12"}`, "period_in_future", "the current month is 2026-11"},
		"a past month":             {`{"period":"2025-11"}`, "past_period_unconfirmed", "2025-11 is over"},
		"no month":                 {`{}`, "validation_failed", "period must be a month"},
		"a time in another month":  {`{"period":"2025-11","nominal":"2026-11-01T06:00:00Z"}`, "validation_failed", "nominal must lie in 2025-11"},
		"a time to come":           {`{"period":"2026-11","nominal":"2026-11-20T06:00:00Z"}`, "period_in_future", "has not come"},
		"a zone that there is not": {`{"period":"2025-11","nominal":"2025-11-20T06:00:00Z","timezone":"Mars/Olympus"}`, "validation_failed", "timezone"},
	} {
		t.Run(name, func(t *testing.T) {
			var input workflows.RunInput
			require.NoError(t, json.Unmarshal([]byte(c.input), &input))
			input.Installation = modelstest.Installation
			run, err := s.temporal.ExecuteWorkflow(t.Context(), workflows.Names("").RunOptions(input), workflows.BillingRunName, input)
			require.NoError(t, err)
			err = run.Get(t.Context(), nil)
			var failure *temporal.ApplicationError
			require.ErrorAs(t, err, &failure)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, c.code, failure.Type())
			require.True(t, failure.NonRetryable())
		})
	}
	require.Empty(t, db.Lines(t, "SELECT id FROM billing_run"))
	require.Empty(t, s.shop.Orders())
}

// A null could be meant as "no cap"; and the month is that of the API's zone, whatever
// the worker's is: a person has confirmed its cut-off.
func TestRun_StartIsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	db := modelstest.SQLite(t)
	zone, err := time.LoadLocation("America/Sao_Paulo")
	require.NoError(t, err)
	s := setup(t, db, options{clock: newClock("2026-11-15T00:00:00Z").now, zone: zone, workerZone: time.UTC})
	refused := s.do(t, http.MethodPost, "/billing-run/2026-11", `{"orders_per_second":null}`)
	require.Equal(t, http.StatusUnprocessableEntity, refused.Code)
	require.Contains(t, refused.Raw, "orders_per_second must not be null")
	require.Equal(t, http.StatusAccepted, s.do(t, http.MethodPost, "/billing-run/2025-12", `{"confirm_past":true}`).Code)
	ended := s.awaitRun(t, "/billing-run/2025-12", in(billing.RunFinished))
	require.Equal(t, "2026-01-01T02:59:59.999999Z", ended.CutOff.UTC().Format(time.RFC3339Nano))
}
