package cmd_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// A worker is stopped in the middle of pages, while another is there to go on.
// The shop is slow: slower, too, than a page may be silent.
func TestAWorkerStopsInTheMiddleOfPages(t *testing.T) {
	for name, c := range map[string]struct {
		orders int
		delay  time.Duration
		env    []string
	}{
		"many waves":                    {orders: 96, delay: 2 * time.Second},
		"slow":                          {orders: 8, delay: 11 * time.Second, env: []string{"SHOP_TIMEOUT=15s"}},
		"slow, and not idempotent shop": {orders: 8, delay: 11 * time.Second, env: []string{"SHOP_TIMEOUT=15s", "SHOP_IDEMPOTENT=false"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			s.subscribers(t, c.orders)
			_, api := s.api(t, "api")
			s.shop.SetFaults(shoptest.Fault{Delay: c.delay})
			first := s.worker(t, c.env...)
			mustSend(t, http.MethodPost, runURL(api), `{"page_size":24,"concurrency":32}`)
			require.Eventually(t, func() bool { return len(s.shop.Calls()) >= min(c.orders, 32) }, time.Minute, 5*time.Millisecond)
			s.worker(t, c.env...)

			before, begun := len(s.shop.Calls()), time.Now()
			code, took := first.stop(t)
			require.Zero(t, code, first.text())
			require.Less(t, took, drain)
			eventuallyRun(t, api, "finished")

			calls := s.shop.Calls()
			if len(calls) > before {
				gap := calls[before].At.Sub(begun)
				t.Logf("worker: stopped after %s, the other's next order after %s", took.Round(time.Millisecond), gap.Round(time.Millisecond))
				require.Less(t, gap, c.delay+7*time.Second, "nobody waited for the 10 s without a heartbeat")
			}
			require.Len(t, calls, c.orders, "no order was asked for twice")
			require.Len(t, s.shop.Orders(), c.orders)
			require.Equal(t, []string{fmt.Sprint(c.orders)}, s.db.Lines(t, "SELECT count(*)::text FROM charge WHERE status = 'charged' AND attempts = 1"))
		})
	}
}
