package workflows_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/workflows"
)

// Operators who change a run at once, and one cancels it: the workflow and the
// run's row agree on what came last. A fault campaign found a cancelled run that
// its workflow took for running, and that never closed.
func TestBillingRun_UpdatesAtOnce(t *testing.T) {
	t.Parallel()
	for round := range 8 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			db := modelstest.Postgres(t)
			db.AddClub(t, 1, 1)
			for i := range 100 {
				db.AddSubscription(t, fmt.Sprintf("s-%03d", i), 1, "c")
			}
			histories := runOnServer(t, db, billing.RunSettings{PageSize: 10, OrdersPerSecond: 1}, nil, func(t *testing.T, c client.Client, _ modelstest.Database) {
				var all sync.WaitGroup
				for i := range 12 {
					all.Go(func() {
						switch {
						case i == 6+round%4:
							tryUpdate(t, c, workflows.CancelUpdate)
						case i%3 == 0:
							tryUpdate(t, c, workflows.PauseUpdate, workflows.PauseRequest{Reason: "lunch"})
						case i%3 == 1:
							tryUpdate(t, c, workflows.ResumeUpdate)
						default:
							tryUpdate(t, c, workflows.PaceUpdate, workflows.PaceRequest{OrdersPerSecond: 1 + float64(i)/10})
						}
					})
				}
				all.Wait()
			})
			require.Len(t, histories, 1)
			run, err := db.Open(t, nil).Run(t.Context(), november(t))
			require.NoError(t, err)
			require.Equal(t, billing.RunCancelled, run.State)
			require.NoError(t, replay(histories[0]))
		})
	}
}

// The row decides, whoever writes it: here a person, in the database. While the run is
// paused, its history does not grow.
func TestBillingRun_RowIsChangedByHand(t *testing.T) {
	t.Parallel()
	db := modelstest.Postgres(t)
	db.AddClub(t, 1, 1)
	for i := range 60 {
		db.AddSubscription(t, fmt.Sprintf("s-%03d", i), 1, fmt.Sprintf("c-%03d", i))
	}
	const charged = "SELECT CAST(count(*) AS text) FROM charge WHERE status = 'charged'"
	histories := runOnServer(t, db, billing.RunSettings{PageSize: 10, OrdersPerSecond: 20}, nil, func(t *testing.T, c client.Client, _ modelstest.Database) {
		require.Eventually(t, func() bool {
			return len(db.Lines(t, "SELECT id FROM billing_run")) == 1
		}, 30*time.Second, 20*time.Millisecond)
		db.Exec(t, "UPDATE billing_run SET state = 'paused', reason = 'by hand'")
		said := func() billing.Progress {
			var p billing.Progress
			value, err := c.QueryWorkflow(t.Context(), workflows.Names("").RunWorkflowID(november(t)), "", workflows.ProgressQuery)
			if err == nil {
				_ = value.Get(&p)
			}
			return p
		}
		require.Eventually(t, func() bool { return said().State == billing.RunPaused }, 30*time.Second, 50*time.Millisecond)
		require.Equal(t, "by hand", said().Reason)
		before := db.Lines(t, charged)
		require.NotEqual(t, []string{"60"}, before)
		db.Exec(t, "UPDATE billing_run SET state = 'running', reason = NULL")
	})
	require.Equal(t, []string{"60"}, db.Lines(t, charged))
	require.Less(t, len(histories[0].Events), 150)
}

// Somebody deletes the row of a run that is under way: it is there again, with its cut-off,
// and the run begins anew and orders nothing twice.
func TestBillingRun_RowIsDeleted(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"running", "paused"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			db := modelstest.Postgres(t)
			db.AddClub(t, 1, 1)
			for i := range 60 {
				db.AddSubscription(t, fmt.Sprintf("s-%03d", i), 1, fmt.Sprintf("c-%03d", i))
			}
			cutOff := []string{}
			histories := runOnServer(t, db, billing.RunSettings{PageSize: 10, OrdersPerSecond: 40}, nil, func(t *testing.T, c client.Client, _ modelstest.Database) {
				require.Eventually(t, func() bool {
					return len(db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'")) > 5
				}, 30*time.Second, 20*time.Millisecond)
				if state == "paused" {
					update(t, c, workflows.PauseUpdate, workflows.PauseRequest{Reason: "lunch"})
				}
				cutOff = db.Lines(t, "SELECT id || ' ' || cut_off FROM billing_run")
				db.Exec(t, "DELETE FROM billing_run")
				require.Eventually(t, func() bool {
					return len(db.Lines(t, "SELECT id FROM billing_run WHERE state = '"+state+"'")) == 1
				}, 30*time.Second, 20*time.Millisecond)
				if state == "paused" {
					update(t, c, workflows.ResumeUpdate)
				}
			})
			require.GreaterOrEqual(t, len(histories), 2)
			require.Equal(t, cutOff, db.Lines(t, "SELECT id || ' ' || cut_off FROM billing_run"))
			require.Equal(t, []string{"60"}, db.Lines(t, "SELECT CAST(count(*) AS text) FROM charge WHERE status = 'charged'"))
		})
	}
}

// tryUpdate sends an update that may come too late.
func tryUpdate(t *testing.T, c client.Client, name string, args ...any) {
	handle, err := c.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: workflows.Names("").RunWorkflowID(november(t)), UpdateName: name, Args: args, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		_ = handle.Get(t.Context(), &billing.Progress{})
	}
}
