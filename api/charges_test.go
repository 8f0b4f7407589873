package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"

	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// oddID is in use in the approved database, and is no valid UUID.
const oddID = "00000000-0000-000-00000-000000000000"

func TestChargeOnce(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 7)
		db.AddSubscription(t, oddID, 1, "anna")

		first := s.charge(t, oddID, "r-1")
		require.Equal(t, http.StatusOK, first.Code, first.Raw)
		require.Equal(t, "charged", first.Charge.Status)
		require.False(t, first.Charge.AlreadyCharged)
		require.NotEmpty(t, first.Charge.Order.OrderID)

		for _, path := range []string{"r-1", "r-2", "r-3/"} { // the same id, another one, the other slash form
			again := s.charge(t, oddID, path)
			require.Equal(t, http.StatusOK, again.Code, again.Raw)
			require.True(t, again.Charge.AlreadyCharged)
			require.Equal(t, "r-1", again.Charge.RequestID)
			require.Equal(t, first.Charge.Order, again.Charge.Order)
		}
		orders := s.shop.Orders()
		require.Len(t, orders, 1)
		require.Equal(t, "anna", orders[0].CustomerID)
		require.Equal(t, 7, orders[0].SKU)
		require.Len(t, s.shop.Calls(), 1)
	})
}

func TestTwoHundredChargesAtOnceAreOneOrder(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")

		const requests = 200
		answers := make([]response, requests)
		errs := make([]error, requests)
		var all sync.WaitGroup
		for i := range requests {
			all.Go(func() {
				answers[i], errs[i] = s.try(http.MethodPost, fmt.Sprintf("/subscription/s/charge/r-%d", i), "", "Prefer", "wait=60")
			})
		}
		all.Wait()

		require.Len(t, s.shop.Orders(), 1)
		require.Len(t, s.shop.Calls(), 1)
		for i, a := range answers {
			require.NoError(t, errs[i])
			require.Equal(t, http.StatusOK, a.Code, a.Raw)
			require.Equal(t, answers[0].Charge.Order, a.Charge.Order)
			require.Equal(t, answers[0].Charge.RequestID, a.Charge.RequestID)
		}
	})
}

func TestTheLedgerDecidesNotTheHistory(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	first := s.charge(t, "s", "r-1")
	require.Equal(t, http.StatusOK, first.Code)

	// When Temporal forgets the charge, as it does after the retention,
	id := workflows.Names("").ChargeWorkflowID("s", thisPeriod(t, s))
	_, err := s.temporal.WorkflowService().DeleteWorkflowExecution(t.Context(), deleteRequest(s, id))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := s.temporal.DescribeWorkflow(t.Context(), id, "")
		return err != nil
	}, 30*time.Second, 50*time.Millisecond)

	// then the ledger still answers, without a second order.
	again := s.charge(t, "s", "r-2")
	require.Equal(t, http.StatusOK, again.Code)
	require.True(t, again.Charge.AlreadyCharged)
	require.Len(t, s.shop.Calls(), 1)
}

// An older database, restored, does not know the order; the history does.
func TestTheHistoryHelpsALedgerThatForgot(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	require.Equal(t, http.StatusOK, s.charge(t, "s", "r-1").Code)

	db.Exec(t, "DELETE FROM charge")
	again := s.charge(t, "s", "r-2")

	require.Equal(t, http.StatusOK, again.Code, again.Raw)
	require.Equal(t, "r-1", again.Charge.RequestID, "the order's own request id is repeated")
	require.Len(t, s.shop.Orders(), 1)
}

func TestDeclined(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")
		s.shop.SetFaults(shoptest.Fault{RequestID: "r-1", Status: 422, Body: `{"error":"card expired"}`})

		for range 2 { // the second time from the ledger
			declined := s.charge(t, "s", "r-1")
			require.Equal(t, http.StatusPaymentRequired, declined.Code, declined.Raw)
			require.Equal(t, "charge_declined", declined.Problem.Code)
			require.Contains(t, declined.Problem.Detail, "card expired")
			require.Len(t, s.shop.Calls(), 1)
		}
		read := s.do(t, http.MethodGet, "/subscription/s/charges/"+thisPeriod(t, s).String(), "")
		require.Equal(t, "declined", read.Charge.Status)

		charged := s.charge(t, "s", "r-2") // a new request id is a new attempt
		require.Equal(t, http.StatusOK, charged.Code, charged.Raw)
		require.Len(t, s.shop.Calls(), 2)

		// Now the period is charged, and that comes before the old decline.
		require.Equal(t, http.StatusOK, s.charge(t, "s", "r-1").Code)
		require.Equal(t, 2, strings.Count(s.do(t, http.MethodGet, "/subscription/s/charges/", "").Raw, "request_id\":\"r-")-1)
	})
}

func TestRequestIDReused(t *testing.T) {
	db := modelstest.Postgres(t)
	clock := newClock("2026-10-31T23:59:59.999Z")
	s := setup(t, db, options{clock: clock.now})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "a", 1, "anna")
	db.AddSubscription(t, "b", 1, "bert")
	require.Equal(t, http.StatusOK, s.charge(t, "a", "r-1").Code)

	other := s.charge(t, "b", "r-1")
	require.Equal(t, http.StatusConflict, other.Code)
	require.Equal(t, "request_id_reused", other.Problem.Code)

	clock.set("2026-11-01T00:00:00Z")
	nextMonth := s.charge(t, "a", "r-1")
	require.Equal(t, "request_id_reused", nextMonth.Problem.Code)
	require.Len(t, s.shop.Calls(), 1)
	require.Equal(t, http.StatusOK, s.charge(t, "a", "r-2").Code)
}

func TestMonthBorders(t *testing.T) {
	for _, c := range []struct{ zone, before, after string }{
		{"UTC", "2026-10-31T23:59:59.999Z", "2026-11-01T00:00:00Z"},
		{"America/Sao_Paulo", "2026-11-01T02:59:59.999Z", "2026-11-01T03:00:00Z"},
	} {
		t.Run(c.zone, func(t *testing.T) {
			db := modelstest.Postgres(t)
			zone, err := time.LoadLocation(c.zone)
			require.NoError(t, err)
			clock := newClock(c.before)
			s := setup(t, db, options{clock: clock.now, zone: zone})
			db.AddClub(t, 1, 1)
			db.AddSubscription(t, "s", 1, "anna")

			october := s.charge(t, "s", "r-1")
			require.Equal(t, "2026-10", october.Charge.Period, october.Raw)
			require.True(t, s.charge(t, "s", "r-2").Charge.AlreadyCharged)
			require.Equal(t, "[]\n", s.do(t, http.MethodGet, "/subscription/eligible?uncharged=true", "").Raw)

			clock.set(c.after)
			require.Equal(t, "[\"s\"]\n", s.do(t, http.MethodGet, "/subscription/eligible?uncharged=true", "").Raw)
			november := s.charge(t, "s", "r-3")
			require.Equal(t, "2026-11", november.Charge.Period)
			require.Len(t, s.shop.Orders(), 2)
		})
	}
}

func TestNotEligible(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.Exec(t, "INSERT INTO club (id, name, store_sku) VALUES (2, NULL, NULL), (3, 'no status', 3)")
	db.AddSubscription(t, "cancelled", 1, "anna")
	db.AddSubscription(t, "no-status-club", 3, "anna")
	db.Exec(t, "INSERT INTO subscription (id, club_id, customer_store_id) VALUES ('no-status', 1, 'x'), ('no-club', NULL, 'x')")
	db.Exec(t, `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date) VALUES
		('h1', 'no-club', 1, '2020-01-01'), ('h2', 'no-status', 1, NULL)`)
	require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, "/subscription/cancelled/status", `{"status_id":2}`).Code)

	for id, reason := range map[string]string{
		"cancelled": "subscription_cancelled", "no-status": "subscription_without_status",
		"no-club": "subscription_without_club", "no-status-club": "club_without_status",
	} {
		refused := s.charge(t, id, "r-"+id)
		require.Equal(t, http.StatusConflict, refused.Code, refused.Raw)
		require.Equal(t, "not_eligible", refused.Problem.Code)
		require.Equal(t, reason, refused.Problem.Reason)
		explained := s.do(t, http.MethodGet, "/subscription/"+id+"/explain", "")
		require.Contains(t, explained.Raw, `"eligible":false,"reason":"`+reason+`"`)
	}
	require.Equal(t, "subscription_not_found", s.charge(t, "nobody", "r").Problem.Code)
	s.requireNothingStarted(t)
}

func TestEligibilityCanBeTurnedOff(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{anybody: true})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	s.do(t, http.MethodPost, "/subscription/s/status", `{"status_id":2}`)
	require.Equal(t, http.StatusOK, s.charge(t, "s", "r").Code)
	db.Exec(t, "INSERT INTO subscription (id, club_id, customer_store_id) VALUES ('no-club', NULL, 'x')")
	require.Equal(t, "subscription_without_club", s.charge(t, "no-club", "r2").Problem.Reason)
}

func TestTheShopIsDownForAWhile(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")
		s.shop.SetFaults(shoptest.Fault{Status: 503, Times: 2})

		accepted := s.charge(t, "s", "r-1", "Prefer", "wait=1")
		require.Equal(t, http.StatusAccepted, accepted.Code, accepted.Raw)
		require.Equal(t, "wait=1", accepted.Header.Get("Preference-Applied"))
		location := accepted.Header.Get("Location")
		require.Equal(t, "/subscription/s/charges/"+thisPeriod(t, s).String(), location)

		// A cancel comes too late for it, and says so.
		cancelled := s.do(t, http.MethodPost, "/subscription/s/status", `{"status_id":2}`)
		require.Contains(t, cancelled.Raw, `"charge_in_progress":{"period":"`+thisPeriod(t, s).String()+`","state":"pending","request_id":"r-1"}`)

		charged := s.eventually(t, location, "charged")
		require.Equal(t, 3, charged.Charge.Attempts)
		require.Len(t, s.shop.Orders(), 1)
	})
}

func TestTheShopAnswersAfterOurTimeout(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{shopTimeout: 200 * time.Millisecond})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	s.shop.SetFaults(shoptest.Fault{Delay: time.Second, Times: 1}) // books, then is late
	charged := s.charge(t, "s", "r-1")
	require.Equal(t, http.StatusOK, charged.Code, charged.Raw)
	require.Len(t, s.shop.Orders(), 1)
	require.Len(t, s.shop.Calls(), 2)
}

func TestTheConnectionIsCutAfterTheOrder(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	s.shop.SetFaults(shoptest.Fault{Cut: shoptest.CutAfter, Times: 1})
	require.Equal(t, http.StatusOK, s.charge(t, "s", "r-1").Code)
	require.Len(t, s.shop.Orders(), 1)
}

func TestOurSetUpIsWrong(t *testing.T) {
	for name, fault := range map[string]shoptest.Fault{
		"credentials": {Status: 401, Body: `{"error":"bad secret ` + secret + `"}`},
		"redirect":    {Redirect: "http://127.0.0.1:1/elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			db := modelstest.Postgres(t)
			s := setup(t, db, options{})
			db.AddClub(t, 1, 1)
			db.AddSubscription(t, "s", 1, "anna")
			s.shop.SetFaults(fault)
			accepted := s.charge(t, "s", "r-1", "Prefer", "wait=2")
			require.Equal(t, http.StatusAccepted, accepted.Code, accepted.Raw)
			require.Equal(t, "pending", accepted.Charge.Status)
			require.Len(t, s.shop.Calls(), 1, "retries are slow")
			require.Contains(t, s.logs.String(), "the shop refuses us")
			s.requireNoSecretInHistory(t, workflows.Names("").ChargeWorkflowID("s", thisPeriod(t, s)))
		})
	}
}

func TestUnresolvedAndResumed(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{retryFor: 2 * time.Second})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	s.shop.SetFaults(shoptest.Fault{Status: 500, BookFirst: true})
	unresolved := s.charge(t, "s", "r-1")
	require.Equal(t, http.StatusConflict, unresolved.Code, unresolved.Raw)
	require.Equal(t, "charge_unresolved", unresolved.Problem.Code)

	// A later request takes it up, with the request id that it had.
	s.shop.SetFaults()
	resumed := s.charge(t, "s", "r-2")
	require.Equal(t, http.StatusOK, resumed.Code, resumed.Raw)
	require.Equal(t, "r-1", resumed.Charge.RequestID)
	require.Len(t, s.shop.Orders(), 1)
}

func TestAShopThatIsNotIdempotent(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{notIdempotent: true, shop: shoptest.Options{NewOrderPerCall: true}})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "cut", 1, "cut")
	db.AddSubscription(t, "busy", 1, "busy")
	s.shop.SetFaults(
		shoptest.Fault{CustomerIDs: []string{"cut"}, Cut: shoptest.CutAfter},
		shoptest.Fault{CustomerIDs: []string{"busy"}, Status: 429, Times: 1},
	)
	// What certainly made no order is tried again.
	require.Equal(t, http.StatusOK, s.charge(t, "busy", "b-1").Code)
	require.Len(t, s.shop.OrdersFor("busy"), 1)

	// What may have made one is not, whoever asks.
	for _, id := range []string{"r-1", "r-1", "r-2"} {
		unresolved := s.charge(t, "cut", id)
		require.Equal(t, http.StatusConflict, unresolved.Code, unresolved.Raw)
		require.Equal(t, "charge_unresolved", unresolved.Problem.Code)
	}
	require.Len(t, s.shop.OrdersFor("cut"), 1)

	// A person looks at the shop's books and settles it.
	location := "/subscription/cut/charges/" + thisPeriod(t, s).String()
	resolved := s.do(t, http.MethodPost, location+"/resolve", `{"outcome":"charged","note":"seen in the shop","by":"Ana"}`)
	require.Equal(t, http.StatusOK, resolved.Code, resolved.Raw)
	require.Contains(t, resolved.Raw, `"resolved_by":"Ana","resolved_note":"seen in the shop"`)
	require.Equal(t, "charge_not_unresolved", s.do(t, http.MethodPost, location+"/resolve", `{"outcome":"declined","note":"x"}`).Problem.Code)
	require.True(t, s.charge(t, "cut", "r-3").Charge.AlreadyCharged)
	require.Len(t, s.shop.OrdersFor("cut"), 1)
}

func TestASubscriptionIsDeletedWhileItsChargeRetries(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	s.shop.SetFaults(shoptest.Fault{Status: 503, Times: 2})
	accepted := s.charge(t, "s", "r-1", "Prefer", "wait=1")
	require.Equal(t, http.StatusAccepted, accepted.Code)

	db.Exec(t, "DELETE FROM subscription_status_history")
	db.Exec(t, "DELETE FROM subscription")

	s.eventually(t, accepted.Header.Get("Location"), "charged")
	require.Len(t, s.shop.Orders(), 1)
	require.Equal(t, "subscription_not_found", s.charge(t, "s", "r-2").Problem.Code)
	require.Contains(t, s.do(t, http.MethodGet, "/subscription/s/charges", "").Raw, "r-1", "the ledger outlives it")
}

// A pending row whose owner is gone, with or without its workflow, is taken up
// under its own request id.
func TestAnAbandonedClaimIsTakenUp(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, customer_id, sku_id, created_at)
		VALUES ('page-1', 's', '`+thisPeriod(t, s).String()+`', 'pending', 'billing-run/x', now() AT TIME ZONE 'UTC' + interval '1 second', 'anna', 1, '2026-01-01')`)
	charged := s.charge(t, "s", "r-1")
	require.Equal(t, http.StatusOK, charged.Code, charged.Raw)
	require.Equal(t, "page-1", charged.Charge.RequestID)
	require.Equal(t, "page-1", s.shop.Orders()[0].RequestID)
}

func TestRespondAsync(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	s.stop() // no worker: nothing is claimed, and yet the charge is under way
	accepted := s.charge(t, "s", "r-1", "Prefer", "respond-async")
	require.Equal(t, http.StatusAccepted, accepted.Code)
	require.Equal(t, "respond-async", accepted.Header.Get("Preference-Applied"))
	require.Equal(t, "pending", s.do(t, http.MethodGet, accepted.Header.Get("Location"), "").Charge.Status)
	s.start()
	s.eventually(t, accepted.Header.Get("Location"), "charged")
}

// thisPeriod is the current month in UTC by the database's clock.
func thisPeriod(t *testing.T, s *system) billing.Period {
	t.Helper()
	now, err := s.store.Now(t.Context())
	require.NoError(t, err)
	return billing.PeriodAt(now, time.UTC)
}

func (s *system) workflowCount(t *testing.T) int64 {
	t.Helper()
	count, err := s.temporal.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{})
	require.NoError(t, err)
	return count.GetCount()
}

func (s *system) requireNothingStarted(t *testing.T) {
	t.Helper()
	require.Zero(t, s.workflowCount(t), "a workflow was started")
	require.Empty(t, s.shop.Calls(), "the shop was asked")
}

// Who works on a charge, and until when, is not the caller's business.
func TestCharges_DoNotShowWhoWorksOnThem(t *testing.T) {
	db := modelstest.SQLite(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 7)
	db.AddSubscription(t, "s", 1, "anna")
	db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, run_id, customer_id, sku_id, created_at)
		VALUES ('r', 's', '2026-10', 'pending', 'hidden owner', '2047-01-01 00:00:00.000000', '2026-10/1', 'anna', 7, '2026-10-01 00:00:00.000000')`)
	correction := `{"request_ids": ["r"], "outcome": "declined", "note": "n"}`
	for _, status := range []string{"pending", "unresolved", "charged", "declined", "withdrawn"} {
		db.Exec(t, "UPDATE charge SET status = $1", status)
		for _, call := range [][3]string{
			{http.MethodGet, "/subscription/s/charges"},
			{http.MethodGet, "/subscription/s/charges/2026-10"},
			{http.MethodGet, "/subscription/s"},
			{http.MethodPost, "/subscription/s/charges/2026-10/resolve", `{"outcome": "charged", "note": "n"}`},
			{http.MethodPost, "/subscription/s/charges/2026-10/correct", `{"outcome": "declined", "note": "n"}`},
			{http.MethodPost, "/charges/correct", correction},
		} {
			answer, err := s.try(call[0], call[1], call[2])
			require.NoError(t, err)
			require.NotContains(t, answer.Raw, "hidden owner", call)
			require.NotContains(t, answer.Raw, "2047", call)
		}
	}
}
