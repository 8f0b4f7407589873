package workflows_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// chargingServer is a shop and a worker of a namespace of its own, with the
// subscription s.
func chargingServer(t *testing.T) (modelstest.Database, *shoptest.Server, client.Client) {
	t.Helper()
	db := modelstest.Postgres(t)
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	return db, server, startWorker(t, db, server, activities.Policy{Idempotent: true, RetryFor: time.Hour, ShopTimeout: 5 * time.Second})
}

// The ledger has forgotten a charge that Temporal remembers (decision 7).
func TestRecord_ChargeTakenUpAgain(t *testing.T) {
	t.Parallel()
	db, server, c := chargingServer(t)
	charge := func(requestID billing.RequestID) client.WorkflowRun {
		run, err := workflows.Names("").StartCharge(t.Context(), c, workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{
			SubscriptionID: "s", Period: november(t), RequestID: requestID, RequireEligible: true,
			Installation: modelstest.Installation,
		}, ClubID: 1})
		require.NoError(t, err)
		var charged billing.Charge
		require.NoError(t, run.Get(t.Context(), &charged))
		require.Equal(t, billing.RequestID("r-1"), charged.RequestID)
		return run
	}
	charge("r-1")
	db.Exec(t, "DELETE FROM charge")
	again := charge("r-2")
	require.Len(t, server.Orders(), 1)
	h := historyOf(t, c, again.GetID(), again.GetRunID())
	require.NoError(t, replay(h))
	save(t, "charge", "taken-up-again", h)
}

// An operator cancels a charge that is being tried again.
func TestRecord_CancelledCharge(t *testing.T) {
	t.Parallel()
	_, server, c := chargingServer(t)
	server.SetFaults(shoptest.Fault{Status: http.StatusServiceUnavailable})
	in := workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{SubscriptionID: "s", Period: november(t), RequestID: "r-1", RequireEligible: true, Installation: modelstest.Installation}, ClubID: 1}
	run, err := workflows.Names("").StartCharge(t.Context(), c, in)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(server.Calls()) >= 3 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, c.CancelWorkflow(t.Context(), run.GetID(), run.GetRunID()))
	require.Error(t, run.Get(t.Context(), nil))
	h := historyOf(t, c, run.GetID(), run.GetRunID())
	require.NoError(t, replay(h))
	save(t, "charge", "cancelled", h)
}

// What the schedule starts: the month's run; the run that is under way already;
// nothing, where no schedule has started it.
func TestRecord_ScheduledRuns(t *testing.T) {
	month := period(t, "2024-01") // its time has been
	schedule := workflows.Schedule{Day: 1, Hour: 6, Zone: time.UTC, Installation: modelstest.Installation}
	for name, prepare := range map[string]func(*testing.T, client.Client){
		"started": func(*testing.T, client.Client) {},
		"already-running": func(t *testing.T, c client.Client) {
			in := workflows.RunInput{Period: month, Settings: billing.RunSettings{OrdersPerSecond: 0.01}, ConfirmPast: true, Installation: modelstest.Installation}
			_, err := c.ExecuteWorkflow(t.Context(), workflows.Names("").RunOptions(in), workflows.BillingRunName, in)
			require.NoError(t, err)
			handle, err := c.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
				WorkflowID: workflows.Names("").RunWorkflowID(month), UpdateName: workflows.PauseUpdate, WaitForStage: client.WorkflowUpdateStageCompleted,
			})
			require.NoError(t, err)
			require.NoError(t, handle.Get(t.Context(), nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, c := chargingServer(t)
			prepare(t, c)
			handle, err := c.ScheduleClient().Create(t.Context(), schedule.Options())
			require.NoError(t, err)
			times, _, err := schedule.Backfill(month, month, schedule.NominalTime(month))
			require.NoError(t, err)
			require.NoError(t, handle.Backfill(t.Context(), client.ScheduleBackfillOptions{Backfill: times}))
			id := workflows.Names("").ScheduledRunID() + "-" + schedule.NominalTime(month).UTC().Format(time.RFC3339)
			var out workflows.ScheduledRunOutput
			require.Eventually(t, func() bool {
				return c.GetWorkflow(t.Context(), id, "").Get(t.Context(), &out) == nil
			}, time.Minute, 100*time.Millisecond)
			require.Equal(t, workflows.ScheduledRunOutput{Period: month, AlreadyRunning: name == "already-running"}, out)
			h := historyOf(t, c, id, "")
			require.NoError(t, replay(h))
			save(t, "scheduled", name, h)
		})
	}
	t.Run("not-scheduled", func(t *testing.T) {
		t.Parallel()
		_, _, c := chargingServer(t)
		run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "by-hand", TaskQueue: workflows.Names("").TaskQueue()},
			workflows.ScheduledRunName, workflows.ScheduledRunInput{Timezone: "UTC"})
		require.NoError(t, err)
		require.ErrorContains(t, run.Get(t.Context(), nil), "no schedule has started this")
		h := historyOf(t, c, run.GetID(), run.GetRunID())
		require.NoError(t, replay(h))
		save(t, "scheduled", "not-scheduled", h)
	})
}
