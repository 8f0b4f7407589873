package workflows_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop"
	"drayman/shop/shoptest"
	"drayman/worker"
	"drayman/workflows"
)

// startSmallWorker runs a worker with two places for local activities, one of which
// may wait for the shop, and one for retries.
func startSmallWorker(t *testing.T, db modelstest.Database, server *shoptest.Server) client.Client {
	t.Helper()
	policy := activities.Policy{Idempotent: true, RetryFor: time.Hour, ShopTimeout: 30 * time.Second}
	shopClient, err := shop.New(shop.Config{URL: server.URL, APIKey: "key", APISecret: "secret", Timeout: policy.ShopTimeout})
	require.NoError(t, err)
	t.Cleanup(shopClient.Close)
	c, namespace := newNamespace(t)
	log := slog.New(slog.DiscardHandler)
	require.NoError(t, worker.Prepare(t.Context(), c, namespace, log))
	acts := activities.New(activities.Config{Store: db.Open(t, inNovember), Shop: shopClient, Policy: policy, Zone: time.UTC, Log: log, CallsAtOnce: 1})
	flows := sdk.New(c, workflows.Names("").TaskQueue(), sdk.Options{MaxConcurrentLocalActivityExecutionSize: 2, LocalActivityWorkerOnly: true})
	flows.RegisterWorkflowWithOptions(workflows.ChargeSubscription, workflow.RegisterOptions{Name: workflows.ChargeSubscriptionName})
	retries := sdk.New(c, workflows.Names("").OrderTaskQueue(), sdk.Options{MaxConcurrentActivityExecutionSize: 1, DisableWorkflowWorker: true})
	for _, w := range []sdk.Worker{flows, retries} {
		w.RegisterActivity(acts)
		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
	}
	return c
}

// Given more charges at once than a worker has places for their calls, and a shop that
// takes a second: the wait for a place is no part of a call, and each is asked for once.
func TestSlowShop_MoreChargesThanPlaces(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		const n = 12
		db.AddClub(t, 1, 1)
		server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret", NewOrderPerCall: true})
		server.SetFaults(shoptest.Fault{Delay: time.Second})
		c := startSmallWorker(t, db, server)
		var runs []client.WorkflowRun
		for i := range n {
			id := fmt.Sprintf("s-%d", i)
			db.AddSubscription(t, id, 1, "c-"+id)
			in := workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{SubscriptionID: id, Period: november(t), RequestID: billing.RequestID("r-" + id), RequireEligible: true, Installation: modelstest.Installation}, ClubID: 1}
			run, err := c.ExecuteWorkflow(t.Context(), workflows.Names("").ChargeOptions(in), workflows.ChargeSubscriptionName, in)
			require.NoError(t, err)
			runs = append(runs, run)
		}
		queued := 0
		for _, run := range runs {
			require.NoError(t, run.Get(t.Context(), &billing.Charge{}))
			h := historyOf(t, c, run.GetID(), run.GetRunID())
			requireDeathIsNoticed(t, h)
			require.NoError(t, replay(h))
			queued += count(h, enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
			require.Zero(t, count(h, enumspb.EVENT_TYPE_TIMER_STARTED), "nobody was asked to wait")
		}
		require.NotZero(t, queued, "those without a place in a workflow task went to the queue of the retries")
		require.Len(t, server.Calls(), n)
		require.Len(t, server.Orders(), n)
	})
}
