package cmd_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"drayman/billing"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// A worker dies when it has carried out a pause of the Temporal UI and not yet said so. An
// operator resumes the run by the API, another changes the pace; then the next worker tries
// the pause again. It must not undo the resume.
func TestRun_AWorkerDiesBetweenTwoUpdates(t *testing.T) {
	t.Parallel()
	const n = 20
	address := binary(t, "TEST_TEMPORAL_ADDRESS")
	s := newSite(t, address, shoptest.Options{})
	s.subscribers(t, n)
	_, api := s.api(t, "api")
	worker := s.worker(t)
	startRun(t, api, `{"orders_per_second":0.2}`)
	require.Eventually(t, func() bool { return len(s.shop.Orders()) > 0 }, time.Minute, 5*time.Millisecond)
	worker.kill(syscall.SIGKILL)
	temporal, err := client.Dial(client.Options{HostPort: address, Namespace: s.namespace(t)})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	answers := make(chan error, 2)
	update := func(name string, args ...any) {
		handle, err := temporal.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
			WorkflowID: workflows.Names("").RunWorkflowID(billing.PeriodAt(time.Now(), time.UTC)), UpdateName: name, Args: args,
			WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err == nil {
			err = handle.Get(t.Context(), nil)
		}
		answers <- err
	}

	c := newCrash("before activity task completed", false)
	c.watch(s.worker(t, "TEMPORAL_ADDRESS="+c.onTemporal(t, address)))
	go update(workflows.PauseUpdate)
	<-c.hit
	require.Equal(t, "paused", mustSend(t, http.MethodGet, runURL(api), "").Body["state"])
	require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, runURL(api)+"/resume", "").Code)
	go update(workflows.PaceUpdate, workflows.PaceRequest{OrdersPerSecond: 50})
	s.worker(t)

	require.NoError(t, <-answers)
	require.NoError(t, <-answers)
	eventuallyRun(t, api, "finished")
	s.requireOneOrderEach(t, n)
}
