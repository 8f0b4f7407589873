package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// subscribers adds n subscriptions to club 1, "s-0000" and so on; the customers
// have the same numbers.
func subscribers(t *testing.T, db modelstest.Database, n int) {
	t.Helper()
	db.AddClub(t, 1, 1)
	for i := range n {
		db.AddSubscription(t, fmt.Sprintf("s-%04d", i), 1, fmt.Sprintf("c-%04d", i))
	}
}

func (s *system) startRun(t *testing.T, settings string) string {
	t.Helper()
	path := "/billing-run/" + thisPeriod(t, s).String()
	started := s.do(t, http.MethodPost, path, settings)
	require.Equal(t, http.StatusAccepted, started.Code, started.Raw)
	return path
}

// run reads the progress; it does not end the test, so that it can be polled.
func (s *system) run(path string) (p billing.Progress, err error) {
	r, err := s.try(http.MethodGet, path, "")
	if err == nil {
		err = json.Unmarshal([]byte(r.Raw), &p)
	}
	return p, err
}

func (s *system) awaitRun(t *testing.T, path string, until func(billing.Progress) bool) billing.Progress {
	t.Helper()
	var p billing.Progress
	require.Eventually(t, func() bool {
		var err error
		p, err = s.run(path)
		return err == nil && until(p)
	}, 90*time.Second, 50*time.Millisecond, "the run stands at %+v", &p)
	return p
}

func in(state billing.RunState) func(billing.Progress) bool {
	return func(p billing.Progress) bool { return p.State == state }
}

func (s *system) report(t *testing.T, path string) billing.Report {
	t.Helper()
	var report billing.Report
	require.NoError(t, json.Unmarshal([]byte(s.do(t, http.MethodGet, path+"/report", "").Raw), &report))
	return report
}

func TestBillingRun(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		const n = 400
		subscribers(t, db, n)
		s.shop.SetFaults(
			shoptest.Fault{CustomerIDs: []string{"c-0003", "c-0300"}, Status: http.StatusPaymentRequired},
			shoptest.Fault{CustomerIDs: []string{"c-0010", "c-0020", "c-0390"}, Status: http.StatusBadGateway, BookFirst: true, Times: 2},
		)
		require.Equal(t, http.StatusOK, s.charge(t, "s-0001", "by-hand").Code)
		db.Exec(t, "UPDATE subscription_status_history SET status_id = 3 WHERE subscription_id = 's-0002'")

		path := s.startRun(t, `{"page_size":30,"concurrency":8}`)
		ended := s.awaitRun(t, path, in(billing.RunFinished))
		require.Equal(t, n-2, ended.Due)
		require.Equal(t, billing.RunCounts{Charged: n - 4, Declined: 2}, ended.Counts)

		report := s.report(t, path)
		require.True(t, report.Closed)
		require.Equal(t, n-1, report.Eligible)
		require.Equal(t, n-4, report.Totals[billing.ClassChargedInRun])
		require.Equal(t, 1, report.Totals[billing.ClassChargedBefore])
		require.Equal(t, 2, report.Totals[billing.ClassDeclined])
		require.Equal(t, "[\"s-0003\",\"s-0300\"]\n", s.do(t, http.MethodGet, path+"/report?ids=declined", "").Raw)

		orders := s.shop.Orders()
		require.Len(t, orders, n-3)
		period := thisPeriod(t, s)
		for _, o := range orders {
			if o.CustomerID != "c-0001" {
				id := billing.DerivedRequestID(period, "s"+o.CustomerID[1:], 1)
				require.Equal(t, string(id), o.RequestID)
			}
		}
		// The exceptions, and they alone, had workflows of their own.
		for _, id := range []string{"s-0010", "s-0020", "s-0390"} {
			_, err := s.temporal.DescribeWorkflow(t.Context(), workflows.Names("").ChargeWorkflowID(id, period), "")
			require.NoError(t, err)
		}
		_, err := s.temporal.DescribeWorkflow(t.Context(), workflows.Names("").ChargeWorkflowID("s-0011", period), "")
		require.Error(t, err)

		// Again: only what is missing, under a new request id after a decline.
		s.shop.SetFaults()
		s.startRun(t, "")
		again := s.awaitRun(t, path, func(p billing.Progress) bool { return p.Number == 2 && p.State == billing.RunFinished })
		require.Equal(t, billing.RunCounts{Charged: 2}, again.Counts)
		require.Len(t, s.shop.Orders(), n-1)
		require.Equal(t, string(billing.DerivedRequestID(period, "s-0003", 2)), s.shop.OrdersFor("c-0003")[0].RequestID)
		require.Contains(t, s.do(t, http.MethodGet, "/billing-runs", "").Raw, period.String()+"/1")
	})
}

func TestRunControls(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	const n = 600
	subscribers(t, db, n)
	path := s.startRun(t, `{"orders_per_second":50,"page_size":100}`)
	second := s.do(t, http.MethodPost, path, "")
	require.Equal(t, http.StatusOK, second.Code, "two starts are one run")

	s.awaitRun(t, path, func(p billing.Progress) bool { return p.Counts.Charged > 20 })
	for range 2 {
		paused := s.do(t, http.MethodPost, path+"/pause", `{"reason":"stock taking"}`)
		require.Equal(t, http.StatusOK, paused.Code, paused.Raw)
		require.Contains(t, paused.Raw, `"state":"paused","reason":"stock taking"`)
	}
	at := time.Now()
	require.Eventually(t, func() bool {
		calls := s.shop.Calls()
		return time.Since(calls[len(calls)-1].At) > time.Second
	}, 10*time.Second, 20*time.Millisecond)
	calls := s.shop.Calls()
	require.Less(t, calls[len(calls)-1].At.Sub(at), 2*time.Second, "pause took effect")
	require.Less(t, len(calls), n)

	require.Equal(t, "validation_failed", s.do(t, http.MethodPost, path+"/pace", `{"orders_per_second":-1}`).Problem.Code)
	for range 2 {
		require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/pace", `{"orders_per_second":200}`).Code)
		require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/resume", "").Code)
	}
	s.awaitRun(t, path, func(p billing.Progress) bool { return p.Counts.Charged > 200 })
	cancelled := s.do(t, http.MethodPost, path+"/cancel", "")
	require.Contains(t, cancelled.Raw, `"state":"cancelled"`)
	run := s.temporal.GetWorkflow(t.Context(), workflows.Names("").RunWorkflowID(thisPeriod(t, s)), "")
	require.NoError(t, run.Get(t.Context(), nil))
	require.Equal(t, "run_not_active", s.do(t, http.MethodPost, path+"/cancel", "").Problem.Code)
	done := len(s.shop.Orders())
	require.Less(t, done, n)
	require.Equal(t, done, s.report(t, path).Totals[billing.ClassChargedInRun], "open orders were settled")
	require.Equal(t, n-done, s.report(t, path).Totals[billing.ClassMissing])

	s.startRun(t, "")
	s.awaitRun(t, path, func(p billing.Progress) bool { return p.Number == 2 && p.State == billing.RunFinished })
	require.Len(t, s.shop.Orders(), n)
	require.Len(t, s.shop.Calls(), n, "each was asked for once")
}

func TestRunPeriods(t *testing.T) {
	db := modelstest.Postgres(t)
	clock := newClock("2026-11-15T00:00:00Z")
	s := setup(t, db, options{clock: clock.now})
	subscribers(t, db, 3)
	require.Equal(t, "period_in_future", s.do(t, http.MethodPost, "/billing-run/2026-12", "").Problem.Code)
	require.Equal(t, "run_not_found", s.do(t, http.MethodGet, "/billing-run/2026-10", "").Problem.Code)
	require.Equal(t, "run_not_found", s.do(t, http.MethodGet, "/billing-run/2026-10/report", "").Problem.Code)
	require.Equal(t, "run_not_found", s.do(t, http.MethodPost, "/billing-run/2026-10/pause", "").Problem.Code)
	for _, body := range []string{`{"page_size":-1}`, `{"page_size":5001}`, `{"concurrency":1001}`, `{"orders_per_second":-1}`, `{"orders_per_second":0.001}`, `{"x":1}`, `[]`, `{`} {
		s.requireRefused(t, http.MethodPost, "/billing-run/2026-11", body)
	}
	for _, path := range []string{"/billing-run/2026-13", "/billing-run/now", "/billing-run/2026-11/report?ids=all"} {
		s.requireRefused(t, http.MethodGet, path, "")
	}
	s.requireNothingStarted(t)
	require.Equal(t, "past_period_unconfirmed", s.do(t, http.MethodPost, "/billing-run/2026-09", "").Problem.Code)
	s.requireNothingStarted(t)
	require.Equal(t, http.StatusAccepted, s.do(t, http.MethodPost, "/billing-run/2026-09/", `{"confirm_past":true}`).Code)
	s.awaitRun(t, "/billing-run/2026-09", in(billing.RunFinished))
	require.ElementsMatch(t, []string{"2026-09-s-0000", "2026-09-s-0001", "2026-09-s-0002"}, requestIDs(s.shop.Orders()))
}

func TestTheShopRefusesUsDuringARun(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	const n = 300
	subscribers(t, db, n)
	s.shop.SetFaults(shoptest.Fault{Status: http.StatusUnauthorized})
	path := s.startRun(t, `{"page_size":50,"concurrency":8}`)
	paused := s.awaitRun(t, path, in(billing.RunPaused))
	require.Contains(t, paused.Reason, "SHOP_API_SECRET")
	require.Zero(t, paused.Counts.Declined)
	require.Less(t, len(s.shop.Calls()), 50)

	s.shop.SetFaults()
	require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/resume", "").Code)
	ended := s.awaitRun(t, path, in(billing.RunFinished))
	require.Equal(t, billing.RunCounts{Charged: n}, ended.Counts)
	require.Len(t, s.shop.Orders(), n)
}

func TestTheShopFailsForMostOfARun(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	const n = 300
	subscribers(t, db, n)
	s.shop.SetFaults(shoptest.Fault{Status: http.StatusInternalServerError, Percent: 80, BookFirst: true})
	path := s.startRun(t, `{"page_size":50,"concurrency":8}`)
	paused := s.awaitRun(t, path, in(billing.RunPaused))
	require.Contains(t, paused.Reason, "most orders fail")

	s.shop.SetFaults()
	require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, path+"/resume", "").Code)
	s.awaitRun(t, path, in(billing.RunFinished))
	require.Len(t, s.shop.Orders(), n)
	require.True(t, s.report(t, path).Closed)
}

func TestWorkflowPerCharge(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	const n = 60
	subscribers(t, db, n)
	path := s.startRun(t, `{"workflow_per_charge":true,"page_size":25}`)
	ended := s.awaitRun(t, path, in(billing.RunFinished))
	require.Equal(t, billing.RunCounts{Charged: n}, ended.Counts)
	require.Len(t, s.shop.Orders(), n)
	require.Equal(t, int64(n+1), s.workflowCountEventually(t, n+1))
}

// A page and a request want the same order at the same time.
func TestAPageAndARequestShareOneOrder(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	const n = 40
	subscribers(t, db, n)
	s.shop.SetFaults(shoptest.Fault{Delay: 300 * time.Millisecond})
	path := s.startRun(t, `{"page_size":10,"concurrency":4}`)
	answers := make([]response, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			answers[i], errs[i] = s.try(http.MethodPost, fmt.Sprintf("/subscription/s-%04d/charge/r-%d", i, i), "", "Prefer", "wait=60")
		})
	}
	all.Wait()
	s.awaitRun(t, path, in(billing.RunFinished))
	require.Len(t, s.shop.Orders(), n)
	require.Len(t, s.shop.Calls(), n, "no order was asked for twice")
	for i, a := range answers {
		require.NoError(t, errs[i])
		require.Equal(t, http.StatusOK, a.Code, a.Raw)
		require.Equal(t, s.shop.OrdersFor(fmt.Sprintf("c-%04d", i))[0].OrderID, a.Charge.Order.OrderID)
	}
}

// A person's open transaction holds a row: the page goes on without it.
func TestAHeldSubscriptionDoesNotHoldUpItsPage(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	const n = 30
	subscribers(t, db, n)
	pool, err := s.store.WritingPool()
	require.NoError(t, err)
	person, err := pool.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = person.ExecContext(t.Context(), `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date) VALUES ('h', 's-0007', 2, '2020-01-01')`)
	require.NoError(t, err)

	path := s.startRun(t, "")
	s.awaitRun(t, path, func(p billing.Progress) bool { return p.Counts.Charged == n-1 })
	require.NoError(t, person.Commit()) // now it is cancelled, before the claim
	s.awaitRun(t, path, in(billing.RunFinished))
	require.Len(t, s.shop.Orders(), n-1)
	require.Empty(t, s.shop.OrdersFor("c-0007"))
}

func TestRunOfAShopThatIsNotIdempotent(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{notIdempotent: true, shop: shoptest.Options{NewOrderPerCall: true}})
	const n = 100
	subscribers(t, db, n)
	s.shop.SetFaults(
		shoptest.Fault{CustomerIDs: []string{"c-0005", "c-0006"}, Cut: shoptest.CutAfter},
		shoptest.Fault{CustomerIDs: []string{"c-0008"}, Status: http.StatusTooManyRequests, Times: 1},
	)
	path := s.startRun(t, `{"page_size":20}`)
	ended := s.awaitRun(t, path, in(billing.RunFinished))
	require.Equal(t, billing.RunCounts{Charged: n - 2, Unresolved: 2}, ended.Counts)
	require.Len(t, s.shop.Orders(), n)
	s.startRun(t, "") // and again: what is in doubt stays so
	s.awaitRun(t, path, func(p billing.Progress) bool { return p.Number == 2 && p.State == billing.RunFinished })
	require.Len(t, s.shop.Orders(), n)
	require.False(t, s.report(t, path).Closed)
}

func (s *system) workflowCountEventually(t *testing.T, want int64) int64 {
	t.Helper()
	var got int64
	require.Eventually(t, func() bool { // visibility lags
		got = s.workflowCount(t)
		return got >= want
	}, 20*time.Second, 100*time.Millisecond)
	return got
}

// The progress is to be seen in the Temporal UI, too.
func TestTheProgressIsAQuery(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	subscribers(t, db, 5)
	path := s.startRun(t, "")
	s.awaitRun(t, path, in(billing.RunFinished))
	value, err := s.temporal.QueryWorkflow(t.Context(), workflows.Names("").RunWorkflowID(thisPeriod(t, s)), "", workflows.ProgressQuery)
	require.NoError(t, err)
	var p billing.Progress
	require.NoError(t, value.Get(&p))
	require.Equal(t, 5, p.Counts.Charged)
}

func requestIDs(orders []shoptest.Order) []string {
	var ids []string
	for _, o := range orders {
		ids = append(ids, o.RequestID)
	}
	return ids
}
