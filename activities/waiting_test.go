package activities_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
)

// A page of a run in which each charge has a workflow waits for the sweep. The database is
// replaced: the watch ends, and with it the sweep; the run waits for the page before it
// begins anew.
func TestChargePage_WaitingSeesThatTheDatabaseWasReplaced(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t), true)
	run := b.record(t, billing.RunRunning, modelstest.Long)
	b.Exec(t, "UPDATE billing_run SET workflow_per_charge = true")
	b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, run_id, customer_id, sku_id, created_at)
		SELECT '2026-11-x' || g, 'x' || g, '2026-11', 'pending', 'nobody', '2026-11/1', 'x', 7, now() FROM generate_series(1, 1000) g`)
	b.SetTestTimeout(10 * time.Second)
	value, err := b.ExecuteActivity(b.acts.ChargePage, activities.ChargePageInput{
		RunRef: activities.RunRef{Installation: ours, RunID: run.ID, Period: november, Recalled: "the incarnation of before", Execution: "e"},
		Number: 1, UpTo: "z", Concurrency: 1,
	})
	require.NoError(t, err, "it waits for ever")
	var page activities.ChargePageOutput
	require.NoError(t, value.Get(&page))
	require.Equal(t, activities.StopReplaced, page.Stop)
}
