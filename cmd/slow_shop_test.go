package cmd_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"drayman/billing"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// serveSlowly starts the program, with n subscribers and the settings, and sets the
// shop's faults.
func serveSlowly(t *testing.T, n int, settings []string, faults ...shoptest.Fault) (s *site, p *process, api string) {
	t.Helper()
	s = newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{NewOrderPerCall: true})
	s.subscribers(t, n)
	p, api = s.api(t, "serve", settings...)
	p.find(t, `(worker polls)`)
	s.shop.SetFaults(faults...)
	return s, p, api
}

// requireOneCallEach: each request id that was answered well was asked for once.
func (s *site) requireOneCallEach(t *testing.T, n int) {
	t.Helper()
	calls := map[string]int{}
	for _, call := range s.shop.Calls() {
		if call.Status != http.StatusServiceUnavailable {
			calls[call.RequestID]++
		}
	}
	require.Len(t, calls, n)
	for id, count := range calls {
		require.Equal(t, 1, count, id)
	}
	require.Len(t, s.shop.Orders(), n, "the shop makes an order of each call")
}

// Given a shop that takes longer than any limit of ours but SHOP_TIMEOUT: the first
// call, a retry and a call to a shop that is not idempotent are waited for.
func TestSlowShop_IsAskedOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		delay    time.Duration
		settings []string
		refused  int // calls before
	}{
		"first call":                            {6 * time.Second, []string{"SHOP_TIMEOUT=30s", "CHARGE_WAIT=30s"}, 0},
		"first call, longer than a task":        {11 * time.Second, []string{"SHOP_TIMEOUT=5m", "CHARGE_WAIT=30s"}, 0},
		"a retry, longer than the retries":      {3 * time.Second, []string{"CHARGE_RETRY_FOR=2s"}, 1},
		"a retry, longer than without a beat":   {12 * time.Second, []string{"SHOP_TIMEOUT=5m", "CHARGE_WAIT=30s"}, 1},
		"not idempotent":                        {6 * time.Second, []string{"SHOP_TIMEOUT=30s", "CHARGE_WAIT=30s", "SHOP_IDEMPOTENT=false"}, 0},
		"not idempotent, longer than its tries": {3 * time.Second, []string{"CHARGE_RETRY_FOR=1s", "SHOP_IDEMPOTENT=false"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slow := shoptest.Fault{Delay: c.delay}
			faults := []shoptest.Fault{slow}
			if c.refused > 0 {
				faults = []shoptest.Fault{{Status: http.StatusServiceUnavailable, Times: c.refused}, slow}
			}
			s, _, api := serveSlowly(t, 1, c.settings, faults...)
			a := mustSend(t, http.MethodPost, api+"/subscription/s-000001/charge/r", "")
			require.Equal(t, http.StatusOK, a.Code, a.Body)
			require.EqualValues(t, c.refused+1, a.Body["attempts"])
			s.requireOneCallEach(t, 1)
		})
	}
}

// A person cancels the workflow while its call is under way: what the shop says to it
// is waited for, and counts.
func TestSlowShop_CancelledWhileTheCallIsUnderWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		delay    time.Duration // the worker hears of it after 8 s
		settings []string
		refused  int
		status   int // of the slow call
		ends     enumspb.WorkflowExecutionStatus
		row      string
	}{
		"first call":             {10 * time.Second, []string{"SHOP_TIMEOUT=30s"}, 0, 0, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, "charged 1"},
		"retry":                  {3 * time.Second, nil, 1, 0, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, "charged 2"},
		"not idempotent":         {3 * time.Second, []string{"SHOP_IDEMPOTENT=false"}, 0, 0, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, "charged 1"},
		"declined":               {3 * time.Second, []string{"SHOP_IDEMPOTENT=false"}, 0, http.StatusPaymentRequired, enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, "declined 1"},
		"retry, and again later": {3 * time.Second, nil, 1, http.StatusTooManyRequests, enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED, "unresolved 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faults := []shoptest.Fault{{Delay: c.delay, Status: c.status}}
			if c.refused > 0 {
				faults = append([]shoptest.Fault{{Status: http.StatusServiceUnavailable, Times: c.refused}}, faults...)
			}
			s, _, api := serveSlowly(t, 1, c.settings, faults...)
			temporal, err := client.Dial(client.Options{HostPort: binary(t, "TEST_TEMPORAL_ADDRESS"), Namespace: s.namespace(t)})
			require.NoError(t, err)
			defer temporal.Close()
			mustSend(t, http.MethodPost, api+"/subscription/s-000001/charge/r", "", "Prefer", "respond-async")
			require.Eventually(t, func() bool { return len(s.shop.Calls()) == c.refused+1 }, time.Minute, 5*time.Millisecond)

			id := workflows.Names("").ChargeWorkflowID("s-000001", billing.PeriodAt(time.Now(), time.UTC))
			require.NoError(t, temporal.CancelWorkflow(t.Context(), id, ""))
			_ = temporal.GetWorkflow(t.Context(), id, "").Get(t.Context(), nil) // how it ended is asked below
			d, err := temporal.DescribeWorkflow(t.Context(), id, "")
			require.NoError(t, err)

			require.Equal(t, []string{c.row}, s.db.Lines(t, "SELECT status || ' ' || attempts FROM charge"))
			require.Equal(t, c.ends, d.Status)
			require.Len(t, s.shop.Calls(), c.refused+1)
		})
	}
}

// The hold of a page's claims covers a call that takes all of SHOP_TIMEOUT.
func TestSlowShop_APageHoldsItsClaims(t *testing.T) {
	t.Parallel()
	for _, timeout := range []time.Duration{time.Second, 5 * time.Minute} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			s, _, api := serveSlowly(t, 3, []string{fmt.Sprintf("SHOP_TIMEOUT=%s", timeout)}, shoptest.Fault{Delay: 500 * time.Millisecond})
			mustSend(t, http.MethodPost, runURL(api), "")
			require.Eventually(t, func() bool { return len(s.shop.Calls()) == 3 }, time.Minute, time.Millisecond)
			held := s.db.Lines(t, fmt.Sprintf(`SELECT request_id FROM charge
				WHERE claimed_until >= created_at + interval '5 minutes' + interval '%d seconds'`, int(timeout.Seconds())))
			require.Len(t, held, 3)
		})
	}
}

// A stop waits for a call under way as long as SHOP_TIMEOUT lets it take.
func TestSlowShop_AStopWaitsForTheCall(t *testing.T) {
	t.Parallel()
	s, p, api := serveSlowly(t, 1, []string{"SHOP_TIMEOUT=40s", "SHOP_IDEMPOTENT=false"}, shoptest.Fault{Delay: 22 * time.Second})
	mustSend(t, http.MethodPost, api+"/subscription/s-000001/charge/r", "", "Prefer", "respond-async")
	require.Eventually(t, func() bool { return len(s.shop.Calls()) == 1 }, time.Minute, 5*time.Millisecond)

	code, took := p.stop(t)

	require.Zero(t, code, p.text())
	require.Greater(t, took, drain, "it was not cut")
	require.Less(t, took, drain+10*time.Second)
	s.worker(t) // what the activity has answered is recorded by the next one
	require.Eventually(t, func() bool {
		return len(s.db.Lines(t, "SELECT 1 FROM charge WHERE status = 'charged' AND attempts = 1")) == 1
	}, time.Minute, 50*time.Millisecond)
	s.requireOneCallEach(t, 1)
}
