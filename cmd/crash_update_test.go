package cmd_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// The worker dies before Temporal learns that a run was resumed, and Temporal
// with it, which knows the update only in memory until then. The database and the
// workflow must agree all the same: a fault campaign found a run that was
// "running" for everybody who asked, and paused for ever.
func TestAResumeIsLost(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	temporal, address := startTemporal(t, "127.0.0.1:0", data)
	s := newSite(t, address, shoptest.Options{})
	s.subscribers(t, 40)
	_, api := s.api(t, "api")
	worker := s.worker(t)
	require.Equal(t, http.StatusAccepted, mustSend(t, http.MethodPost, runURL(api), `{"orders_per_second":20}`).Code)
	require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, runURL(api)+"/pause", "").Code)
	orders := len(s.shop.Orders())
	require.Eventually(t, func() bool { // all pages have come back
		before := orders
		orders = len(s.shop.Orders())
		return orders == before
	}, time.Minute, 3*time.Second)
	worker.kill(syscall.SIGKILL)

	c := newCrash("before workflow task completed", false)
	c.watch(s.worker(t, "DATABASE_URL="+c.onDatabase(t, s.db.URL), "TEMPORAL_ADDRESS="+c.onTemporal(t, address)))
	resumed := make(chan int, 1)
	go func() {
		a, _ := send(http.MethodPost, runURL(api)+"/resume", "") // a cut answer has the code 0
		resumed <- a.Code
	}()
	<-c.hit
	temporal.kill(syscall.SIGKILL)
	startTemporal(t, address, data)
	s.worker(t)

	if <-resumed != http.StatusOK {
		state := mustSend(t, http.MethodGet, runURL(api), "").Body["state"]
		require.Equal(t, "paused", state, "nobody was told that it runs")
		require.Eventually(t, func() bool {
			a, err := send(http.MethodPost, runURL(api)+"/resume", "")
			return err == nil && a.Code == http.StatusOK
		}, time.Minute, 100*time.Millisecond)
	}
	eventuallyRun(t, api, "finished")
	require.Len(t, s.shop.Orders(), 40)
}
