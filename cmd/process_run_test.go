package cmd_test

import (
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// subscribers adds n subscriptions at once.
func (s *site) subscribers(t *testing.T, n int) {
	t.Helper()
	s.db.Exec(t, `INSERT INTO subscription (id, club_id, customer_store_id, create_date)
		SELECT 's-' || lpad(i::text, 6, '0'), 1, 'c-' || lpad(i::text, 6, '0'), '2020-01-01' FROM generate_series(1, $1) i`, n)
	s.db.Exec(t, `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date)
		SELECT id, id, 1, '2020-01-01', '2020-01-01' FROM subscription`)
}

func runURL(api string) string { return api + "/billing-run/" + time.Now().UTC().Format("2006-01") }

func eventuallyRun(t *testing.T, api, state string) answer {
	t.Helper()
	return eventuallyRunAt(t, runURL(api), state)
}

func eventuallyRunAt(t *testing.T, url, state string) answer {
	t.Helper()
	var a answer
	require.Eventually(t, func() bool {
		var err error
		a, err = send(http.MethodGet, url, "")
		return err == nil && a.Body["state"] == state
	}, 2*time.Minute, 50*time.Millisecond, "the run does not become %s: %v", state, &a)
	return a
}

// The pace holds for the whole run, over three worker processes.
func TestThePaceHoldsOverThreeWorkers(t *testing.T) {
	const pace, window = 60, 5 * time.Second
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, 800)
	_, api := s.api(t, "api")
	for range 3 {
		s.worker(t)
	}
	started := mustSend(t, http.MethodPost, runURL(api), fmt.Sprintf(`{"orders_per_second":%d,"page_size":40}`, pace))
	require.Equal(t, http.StatusAccepted, started.Code, started.Body)
	eventuallyRun(t, api, "finished")

	var times []time.Time
	for _, call := range s.shop.Calls() {
		times = append(times, call.At)
	}
	require.Len(t, times, 800)
	slices.SortFunc(times, time.Time.Compare)
	first := 0
	for last := range times {
		for times[last].Sub(times[first]) > window {
			first++
		}
		require.LessOrEqual(t, last-first+1, int(pace*window.Seconds())+pace, "orders within %s", window)
	}
	require.Greater(t, times[len(times)-1].Sub(times[0]), 10*time.Second, "800 orders at 60 a second")
}

// Workers die in the middle of pages, again and again; others take them up.
func TestWorkersDieDuringARun(t *testing.T) {
	t.Parallel()
	const n = 3000
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, n)
	_, api := s.api(t, "api")
	s.shop.SetFaults(shoptest.Fault{Delay: 20 * time.Millisecond})
	worker := s.worker(t)
	mustSend(t, http.MethodPost, runURL(api), `{"page_size":200,"concurrency":32}`)
	for _, orders := range []int{200, 900, 1600} {
		require.Eventually(t, func() bool { return len(s.shop.Orders()) > orders }, 2*time.Minute, 2*time.Millisecond)
		worker.kill(syscall.SIGKILL)
		worker = s.worker(t)
	}
	ended := eventuallyRun(t, api, "finished")
	require.Equal(t, map[string]any{"charged": float64(n), "declined": 0.0, "pending": 0.0, "unresolved": 0.0}, ended.Body["counts"])
	require.Len(t, s.shop.Orders(), n, "one order each")
	require.Empty(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status <> 'charged'"))
	report := mustSend(t, http.MethodGet, runURL(api)+"/report", "")
	require.Equal(t, true, report.Body["closed"])
}

// The database is put back to before the run, and the run is started again: the
// shop is asked for the same orders.
func TestARestoredDatabaseAsksForTheSameOrders(t *testing.T) {
	t.Parallel()
	const n = 200
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, n)
	_, api := s.api(t, "serve")
	start := func() {
		require.Eventually(t, func() bool {
			a, err := send(http.MethodPost, runURL(api), "")
			return err == nil && a.Code == http.StatusAccepted
		}, time.Minute, 100*time.Millisecond)
	}
	start()
	eventuallyRun(t, api, "finished")
	s.db.Exec(t, "DELETE FROM charge")
	s.db.Exec(t, "DELETE FROM billing_run")
	start()
	eventuallyRun(t, api, "finished")
	require.Len(t, s.shop.Orders(), n)
	require.Len(t, s.shop.Calls(), 2*n)
}

// A run that is paused while the orders of a dead worker are in doubt holds
// nobody up: its page lets go of them.
func TestAPausedRunHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for name, idempotent := range map[string]bool{"idempotent shop": true, "every call is an order": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{NewOrderPerCall: !idempotent})
			s.env = append(s.env, fmt.Sprintf("SHOP_IDEMPOTENT=%t", idempotent), "CHARGE_WAIT=60s")
			s.subscribers(t, 6)
			_, api := s.api(t, "api")
			worker := s.worker(t)
			s.shop.SetFaults(shoptest.Fault{Delay: time.Minute}) // books at once
			require.Equal(t, http.StatusAccepted, mustSend(t, http.MethodPost, runURL(api), `{"concurrency":24}`).Code)
			require.Eventually(t, func() bool { return len(s.shop.Orders()) == 6 }, time.Minute, 5*time.Millisecond)
			worker.kill(syscall.SIGKILL)
			s.shop.SetFaults()
			s.worker(t)
			require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, runURL(api)+"/pause", "").Code)

			got := mustSend(t, http.MethodPost, api+"/subscription/s-000003/charge/by-hand", "")

			if idempotent {
				require.Equal(t, http.StatusOK, got.Code, got.Body)
				require.Equal(t, time.Now().UTC().Format("2006-01")+"-s-000003", got.Body["request_id"])
			} else {
				require.Equal(t, http.StatusConflict, got.Code, got.Body)
				require.Equal(t, "charge_unresolved", got.Body["code"])
			}
			require.Len(t, s.shop.Orders(), 6)
		})
	}
}
