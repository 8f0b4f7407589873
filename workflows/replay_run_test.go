package workflows_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop"
	"drayman/shop/shoptest"
	"drayman/worker"
	"drayman/workflows"
)

// Runs on a real server, of every kind, replay as they ran: each history of the
// chain, where a run continued as new.
func TestRecord_Runs(t *testing.T) {
	for name, c := range map[string]struct {
		subscriptions int
		settings      billing.RunSettings
		faults        []shoptest.Fault
		operate       func(*testing.T, client.Client, modelstest.Database)
		executions    int // at least this number in the chain
	}{
		"finished": {subscriptions: 60, settings: billing.RunSettings{PageSize: 25}, executions: 1, faults: []shoptest.Fault{
			{CustomerIDs: []string{"c-003"}, Status: http.StatusPaymentRequired},
			{CustomerIDs: []string{"c-010", "c-050"}, Status: http.StatusServiceUnavailable, Times: 1},
		}},
		"continued-as-new": {subscriptions: 200, settings: billing.RunSettings{PageSize: 1}, executions: 2, faults: []shoptest.Fault{
			{CustomerIDs: []string{"c-005", "c-195"}, Status: http.StatusServiceUnavailable, Times: 1},
		}},
		"paused-and-cancelled": {
			subscriptions: 60, settings: billing.RunSettings{PageSize: 10, OrdersPerSecond: 20}, executions: 1, operate: pauseAndCancel,
		},
		"paused-itself": {
			subscriptions: 60, settings: billing.RunSettings{PageSize: 10, Concurrency: 4}, executions: 1, operate: awaitPauseAndCancel,
			faults: []shoptest.Fault{{Status: http.StatusForbidden}},
		},
		"cancelled-from-outside": {
			subscriptions: 60, settings: billing.RunSettings{PageSize: 10, OrdersPerSecond: 20}, executions: 1, operate: cancelFromOutside,
		},
		"database-replaced": {
			subscriptions: 60, settings: billing.RunSettings{PageSize: 10, OrdersPerSecond: 20}, executions: 2, operate: replaceTheLedger,
		},
		"workflow-per-charge": {subscriptions: 12, settings: billing.RunSettings{PageSize: 5, WorkflowPerCharge: true}, executions: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.Postgres(t)
			db.AddClub(t, 1, 1)
			for i := range c.subscriptions {
				db.AddSubscription(t, fmt.Sprintf("s-%03d", i), 1, fmt.Sprintf("c-%03d", i))
			}
			histories := runOnServer(t, db, c.settings, c.faults, c.operate)
			require.GreaterOrEqual(t, len(histories), c.executions)
			for i, h := range histories {
				require.NoError(t, replay(h))
				requireDeathIsNoticed(t, h)
				if i < 2 {
					save(t, "run", fmt.Sprintf("%s-%d", name, i+1), h)
				}
			}
		})
	}
}

func pauseAndCancel(t *testing.T, c client.Client, _ modelstest.Database) {
	update(t, c, workflows.PauseUpdate, workflows.PauseRequest{Reason: "lunch"})
	update(t, c, workflows.PaceUpdate, workflows.PaceRequest{OrdersPerSecond: 40})
	update(t, c, workflows.ResumeUpdate)
	update(t, c, workflows.CancelUpdate)
}

func awaitPauseAndCancel(t *testing.T, c client.Client, _ modelstest.Database) {
	require.Eventually(t, func() bool {
		value, err := c.QueryWorkflow(t.Context(), workflows.Names("").RunWorkflowID(november(t)), "", workflows.ProgressQuery)
		var p billing.Progress
		return err == nil && value.Get(&p) == nil && p.State == billing.RunPaused
	}, 60*time.Second, 50*time.Millisecond)
	update(t, c, workflows.CancelUpdate)
}

func cancelFromOutside(t *testing.T, c client.Client, _ modelstest.Database) {
	update(t, c, workflows.PaceUpdate, workflows.PaceRequest{OrdersPerSecond: 10}) // answered once the run is recorded
	require.NoError(t, c.CancelWorkflow(t.Context(), workflows.Names("").RunWorkflowID(november(t)), ""))
}

// replaceTheLedger has the database be another one, for all that the run can tell.
func replaceTheLedger(t *testing.T, _ client.Client, db modelstest.Database) {
	require.Eventually(t, func() bool {
		return len(db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'")) > 0
	}, 60*time.Second, 20*time.Millisecond)
	db.Exec(t, "VACUUM FULL charge")
}

func update(t *testing.T, c client.Client, name string, args ...any) {
	t.Helper()
	handle, err := c.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: workflows.Names("").RunWorkflowID(november(t)), UpdateName: name, Args: args, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(t, err)
	require.NoError(t, handle.Get(t.Context(), &billing.Progress{}))
}

// runOnServer carries a run of 2026-11 through and returns the histories of its
// chain.
func runOnServer(t *testing.T, db modelstest.Database, settings billing.RunSettings, faults []shoptest.Fault, operate func(*testing.T, client.Client, modelstest.Database)) []*history.History {
	t.Helper()
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	server.SetFaults(faults...)
	c := startWorker(t, db, server, activities.Policy{Idempotent: true, RetryFor: time.Minute, ShopTimeout: 5 * time.Second})
	in := workflows.RunInput{Period: november(t), Settings: settings, ConfirmPast: true, Installation: modelstest.Installation}
	run, err := c.ExecuteWorkflow(t.Context(), workflows.Names("").RunOptions(in), workflows.BillingRunName, in)
	require.NoError(t, err)
	if operate != nil {
		operate(t, c, db)
	}
	first := run.GetRunID() // the handle goes along with the chain
	require.NoError(t, run.Get(t.Context(), &billing.Progress{}))
	var histories []*history.History
	for id := first; id != ""; {
		h := historyOf(t, c, run.GetID(), id)
		histories = append(histories, h)
		id = h.Events[len(h.Events)-1].GetWorkflowExecutionContinuedAsNewEventAttributes().GetNewExecutionRunId()
	}
	return histories
}

func historyOf(t *testing.T, c client.Client, workflowID, runID string) *history.History {
	t.Helper()
	h := &history.History{}
	for events := c.GetWorkflowHistory(t.Context(), workflowID, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); events.HasNext(); {
		event, err := events.Next()
		require.NoError(t, err)
		h.Events = append(h.Events, event)
	}
	return h
}

// startWorker runs a worker in a namespace of its own and returns a client.
func startWorker(t *testing.T, db modelstest.Database, server *shoptest.Server, policy activities.Policy) client.Client {
	t.Helper()
	c, _ := startWorkerIn(t, db, server, policy, io.Discard)
	return c
}

// startWorkerIn also returns the namespace; it logs to a writer.
func startWorkerIn(t *testing.T, db modelstest.Database, server *shoptest.Server, policy activities.Policy, logs io.Writer) (client.Client, string) {
	t.Helper()
	shopClient, err := shop.New(shop.Config{URL: server.URL, APIKey: "key", APISecret: "secret", Timeout: policy.ShopTimeout})
	require.NoError(t, err)
	t.Cleanup(shopClient.Close)
	c, namespace := newNamespace(t)
	log := slog.New(slog.NewTextHandler(logs, nil))
	require.NoError(t, worker.Prepare(t.Context(), c, namespace, log))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	acts := activities.New(activities.Config{
		Store: db.Open(t, inNovember), Shop: shopClient, Policy: policy, Zone: time.UTC, Log: log,
		Temporal: workflows.Temporal{Client: c, Namespace: namespace},
	})
	go func() { ended <- worker.New(c, "", acts, 20*time.Second).Run(ctx, c, namespace, log) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return c, namespace
}

// Whatever activity a worker dies in, another one takes it up soon: a run that
// waits for the timeout of a whole plan stands still for as long.
func requireDeathIsNoticed(t *testing.T, h *history.History) {
	t.Helper()
	for _, e := range h.Events {
		a := e.GetActivityTaskScheduledEventAttributes()
		if a == nil {
			continue
		}
		silence := a.GetStartToCloseTimeout().AsDuration()
		if beats := a.GetHeartbeatTimeout().AsDuration(); beats > 0 {
			silence = min(silence, beats)
		}
		require.LessOrEqual(t, silence, 30*time.Second, a.GetActivityType().GetName())
	}
}
