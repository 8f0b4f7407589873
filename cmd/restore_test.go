package cmd_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// customers are those of subscribers with these numbers.
func customers(numbers ...int) (ids []string) {
	for _, n := range numbers {
		ids = append(ids, fmt.Sprintf("c-%06d", n))
	}
	return ids
}

// chargeURL asks for this month's order of the subscriber with the number.
func chargeURL(api string, number int, requestID string) string {
	return fmt.Sprintf("%s/subscription/s-%06d/charge/%s", api, number, requestID)
}

// startRun asks until a new run has started; the one before may have to end.
func startRun(t *testing.T, api, body string) {
	t.Helper()
	var a answer
	require.Eventually(t, func() bool {
		var err error
		a, err = send(http.MethodPost, runURL(api), body)
		return err == nil && a.Code == http.StatusAccepted
	}, 2*time.Minute, 200*time.Millisecond, "no run starts: %v", &a)
}

// requireOneOrderEach holds that the shop has one order for each of n subscribers.
func (s *site) requireOneOrderEach(t *testing.T, n int) {
	t.Helper()
	require.Empty(t, s.ordered(2), "ordered more than once")
	require.Len(t, s.ordered(1), n)
}

// ordered are the customers with at least so many orders, sorted, each with the
// request ids of all.
func (s *site) ordered(least int) (found []string) {
	orders := map[string][]string{}
	for _, o := range s.shop.Orders() {
		orders[o.CustomerID] = append(orders[o.CustomerID], o.RequestID)
	}
	for customer, ids := range orders {
		if len(ids) >= least {
			found = append(found, fmt.Sprint(customer, ids))
		}
	}
	slices.Sort(found)
	return found
}

func requireClosed(t *testing.T, api string) {
	t.Helper()
	var a answer
	require.Eventually(t, func() bool {
		var err error
		a, err = send(http.MethodGet, runURL(api)+"/report", "")
		return err == nil && a.Body["closed"] == true
	}, 2*time.Minute, 200*time.Millisecond, "the month is not closed: %v", &a)
}

// A run is half done, and the database is put back to before it. There are
// orders that it has forgotten: of pages; of charges that are being retried; and
// of callers, under request ids of their own, which no run could derive. The run
// is started again.
func TestTheDatabaseIsRestoredInTheMiddleOfARun(t *testing.T) {
	t.Parallel()
	for name, dies := range map[string]bool{"the workers are dead": true, "the workers run": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 300
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			s.subscribers(t, n)
			serve, api := s.api(t, "serve", "CHARGE_RETRY_FOR=1h")
			require.Eventually(t, func() bool {
				a, err := send(http.MethodPost, chargeURL(api, 1, "caller-before"), "")
				return err == nil && a.Code == http.StatusOK
			}, time.Minute, 100*time.Millisecond)
			require.Zero(t, serve.kill(syscall.SIGTERM), "a snapshot is taken with nobody there")
			restore := s.db.Snapshot(t)

			_, api = s.api(t, "api")
			worker := s.worker(t, "CHARGE_RETRY_FOR=1h")
			s.shop.SetFaults(
				// Ordered, but the answer says otherwise: a page's, and a caller's.
				shoptest.Fault{CustomerIDs: customers(4, 10, 20, 30), Status: http.StatusServiceUnavailable, BookFirst: true},
				shoptest.Fault{CustomerIDs: customers(11, 21, 31), Status: http.StatusServiceUnavailable},
				shoptest.Fault{Delay: 20 * time.Millisecond},
			)
			for _, number := range []int{2, 3, n - 1} {
				require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, chargeURL(api, number, fmt.Sprint("caller-after-", number)), "").Code)
			}
			retried := mustSend(t, http.MethodPost, chargeURL(api, 4, "caller-retried"), "", "Prefer", "wait=3")
			require.Equal(t, http.StatusAccepted, retried.Code)
			startRun(t, api, `{"page_size":30,"concurrency":8}`)
			require.Eventually(t, func() bool { return len(s.shop.Orders()) > n/2 }, time.Minute, 5*time.Millisecond)
			if dies {
				worker.kill(syscall.SIGKILL)
			}

			restore()
			s.adopt(t)
			s.shop.SetFaults()
			if dies {
				s.worker(t, "CHARGE_RETRY_FOR=1h")
			}
			require.Equal(t, []string{"1"}, s.db.Lines(t, "SELECT count(*)::text FROM charge WHERE request_id = 'caller-before'"))
			startRun(t, api, "")

			eventuallyRun(t, api, "finished")
			requireClosed(t, api)
			s.requireOneOrderEach(t, n)
			require.Len(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"), n)
			require.Equal(t, []string{"caller-after-2", "caller-after-299", "caller-after-3", "caller-before", "caller-retried"},
				s.db.Lines(t, "SELECT request_id FROM charge WHERE request_id LIKE 'caller-%' ORDER BY request_id"))
		})
	}
}

// The database is put back to a moment within a run, which goes on: its record is
// there, and so is nothing of what happened since. A caller's order under a request
// id of its own is among it, of a subscription that the run has yet to come to; and
// the backup shows claims as open whose pages are long through.
func TestTheDatabaseIsRestoredToAMomentWithinARun(t *testing.T) {
	t.Parallel()
	const n = 300
	for name, c := range map[string]struct {
		notIdempotent bool
		signal        syscall.Signal // ends the processes before the backup
		since         int            // orders between backup and restore
	}{
		"pages are charged":          {signal: syscall.SIGKILL, since: n / 6},
		"all but one are charged":    {signal: syscall.SIGKILL, since: n},
		"a person copies the orders": {signal: syscall.SIGTERM, since: n / 6, notIdempotent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{NewOrderPerCall: c.notIdempotent})
			s.env = append(s.env, fmt.Sprint("SHOP_IDEMPOTENT=", !c.notIdempotent))
			s.subscribers(t, n)
			s.shop.SetFaults(
				shoptest.Fault{CustomerIDs: customers(n), Status: http.StatusTooManyRequests, RetryAfter: "1"},
				shoptest.Fault{Delay: 20 * time.Millisecond},
			)
			serve, api := s.api(t, "serve")
			ordered := func(least int) func() bool {
				return func() bool { return len(s.shop.Orders()) >= min(least, n-1) }
			}
			startRun(t, api, `{"page_size":30,"concurrency":8,"orders_per_second":40}`)
			require.Eventually(t, ordered(n/6), time.Minute, 5*time.Millisecond)
			serve.kill(c.signal) // a snapshot is taken with nobody there
			restore := s.db.Snapshot(t)
			known := len(s.shop.Orders())

			_, api = s.api(t, "serve")
			require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, chargeURL(api, n-1, "caller-after"), "").Code)
			require.Eventually(t, ordered(known+c.since), 2*time.Minute, 5*time.Millisecond)
			restore()
			s.adopt(t)

			if c.notIdempotent {
				eventuallyRun(t, api, "paused")
				require.Contains(t, mustSend(t, http.MethodGet, runURL(api), "").Body["reason"], "another stands in its place")
				s.copyTheShopsBook(t)
				require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, runURL(api)+"/resume", "").Code)
			}
			s.shop.SetFaults()
			s.seeThrough(t, api)
			if len(s.ordered(1)) < n { // what a page had let go by the backup was in doubt, and is declined now
				startRun(t, api, "")
				s.seeThrough(t, api)
			}
			requireClosed(t, api)
			s.requireOneOrderEach(t, n)
			require.Equal(t, []string{"charged"}, s.db.Lines(t, "SELECT status FROM charge WHERE request_id = 'caller-after'"))
		})
	}
}

// copyTheShopsBook has the ledger know each order of the shop's, as operations.md
// tells a person to.
func (s *site) copyTheShopsBook(t *testing.T) {
	t.Helper()
	for _, o := range s.shop.Orders() {
		s.db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, settled_at)
			VALUES ($1, $2, $3, 'charged', 'by hand', $4, $5, $6, $6)
			ON CONFLICT (request_id) DO UPDATE SET status = 'charged', settled_at = excluded.settled_at WHERE charge.status <> 'charged'`,
			o.RequestID, strings.Replace(o.CustomerID, "c-", "s-", 1), o.CreatedAt.Format("2006-01"), o.CustomerID, o.SKU, o.CreatedAt)
	}
}

// A Temporal server of its own is lost in the middle of a run, with all it knew,
// and a new one stands at its address. Nothing of ours is started again. A shop
// that is not idempotent makes an order of each call: what is in doubt is left to
// a person there.
func TestTemporalIsLostInTheMiddleOfARun(t *testing.T) {
	t.Parallel()
	for name, idempotent := range map[string]bool{"idempotent": true, "not idempotent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 300
			temporal, address := startTemporal(t, "127.0.0.1:0", t.TempDir())
			s := newSite(t, address, shoptest.Options{NewOrderPerCall: !idempotent})
			s.env = append(s.env, fmt.Sprint("SHOP_IDEMPOTENT=", idempotent), "CHARGE_RETRY_FOR=1h")
			s.subscribers(t, n)
			_, api := s.api(t, "api")
			s.worker(t)
			s.shop.SetFaults(
				shoptest.Fault{CustomerIDs: customers(2, 11, 21, 31), Status: http.StatusTooManyRequests}, // surely no order
				shoptest.Fault{CustomerIDs: customers(12, 22), Cut: shoptest.CutAfter},
				shoptest.Fault{Delay: 20 * time.Millisecond},
			)
			require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, chargeURL(api, 1, "caller-1"), "").Code)
			require.Equal(t, http.StatusAccepted, mustSend(t, http.MethodPost, chargeURL(api, 2, "caller-2"), "", "Prefer", "wait=3").Code)
			startRun(t, api, `{"page_size":30,"concurrency":8}`)
			require.Eventually(t, func() bool { return len(s.shop.Orders()) > n/2 }, time.Minute, 5*time.Millisecond)

			temporal.kill(syscall.SIGKILL)
			startTemporal(t, address, t.TempDir())
			s.shop.SetFaults()
			registerNamespace(t, address, s.namespace(t))
			startRun(t, api, "")

			eventuallyRun(t, api, "finished")
			eventuallySettled(t, s)
			if idempotent {
				requireClosed(t, api)
				s.requireOneOrderEach(t, n)
				require.Len(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"), n)
				return
			}
			require.Empty(t, s.ordered(2), "ordered more than once")
			require.Equal(t, []string{"in_doubt"}, s.db.Lines(t, "SELECT DISTINCT failure_code FROM charge WHERE status <> 'charged'"))
			require.Len(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status IN ('charged', 'unresolved')"), n)
			require.Empty(t, s.db.Lines(t, `SELECT request_id FROM charge WHERE status = 'unresolved' AND sent_at IS NULL`))
		})
	}
}

func eventuallySettled(t *testing.T, s *site) {
	t.Helper()
	require.Eventually(t, func() bool {
		return len(s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'pending'")) == 0
	}, 2*time.Minute, 200*time.Millisecond)
}
