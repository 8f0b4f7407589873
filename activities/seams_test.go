package activities_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
)

// record writes the row of the run 2026-11/1, whose cut-off is the time.
func (b *bench) record(t *testing.T, state billing.RunState, cutOff time.Time) billing.Run {
	t.Helper()
	b.Exec(t, `INSERT INTO billing_run (id, period, number, execution_id, state, cut_off, due, orders_per_second, page_size, concurrency, workflow_per_charge)
		VALUES ('2026-11/1', '2026-11', 1, 'execution', $1, $2, 1, 0, 500, 64, false)`, string(state), cutOff)
	run, err := b.store.RunByID(t.Context(), "2026-11/1")
	require.NoError(t, err)
	return *run
}

// requireRetried holds that an activity fails, says the part, and is tried again.
func requireRetried(t *testing.T, err error, code, part string) {
	t.Helper()
	var failure *temporal.ApplicationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, code, failure.Type())
	require.Contains(t, failure.Message(), part)
	require.False(t, failure.NonRetryable())
}

// A run charges nobody who has cancelled since its cut-off, whatever the input of the
// claim says, and one that was cancelled charges nobody at all.
func TestClaimCharge_RunChargesWhoIsDueOnly(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		b.record(t, billing.RunRunning, modelstest.Long.AddDate(0, 1, 0))
		claim := func(id string) error {
			_, err := b.ExecuteActivity(b.acts.ClaimCharge, billing.ChargeRequest{SubscriptionID: id, Period: november, RunID: "2026-11/1", Installation: ours})
			return err
		}
		db.AddChanges(t, "s", modelstest.Since(billing.Cancelled, modelstest.Long.AddDate(1, 0, 0)))
		requireFinal(t, claim("s"), string(billing.CodeNotEligible))
		for _, state := range []billing.RunState{billing.RunCancelled, billing.RunAbandoned} {
			db.Exec(t, "UPDATE billing_run SET state = $1", string(state))
			requireFinal(t, claim("t"), string(billing.CodeRunNotActive))
		}
		db.Exec(t, "UPDATE billing_run SET state = 'running'")
		require.NoError(t, claim("t"))
	})
}

// A charge or a run whose database awaits a person's word waits for it: what was
// accepted is not lost. Nothing is claimed meanwhile.
func TestClaimCharge_WaitsForTheAdoption(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		db.Exec(t, "UPDATE installation SET name = 'elsewhere'")
		const code = string(billing.CodeNotAdopted)
		in := billing.ChargeRequest{SubscriptionID: "s", Period: november, RequestID: "r", Installation: ours}
		_, err := b.ExecuteActivity(b.acts.ClaimCharge, in)
		requireRetried(t, err, code, "drayman adopt")
		start := activities.StartRunInput{Period: november, ExecutionID: "e", Settings: billing.RunSettings{}.WithDefaults(), ConfirmPast: true, Installation: ours}
		_, err = b.ExecuteActivity(b.acts.StartRun, start)
		requireRetried(t, err, code, "drayman adopt")
		require.Empty(t, db.Lines(t, "SELECT request_id FROM charge UNION ALL SELECT id FROM billing_run"))

		_, changed, err := b.store.Adopt(t.Context(), billing.Adoption{Note: "restored"})
		require.NoError(t, err)
		require.True(t, changed)
		_, err = b.ExecuteActivity(b.acts.ClaimCharge, in)
		require.NoError(t, err)
		_, err = b.ExecuteActivity(b.acts.StartRun, start)
		require.NoError(t, err)
	})
}

// twoInstallations is what Temporal lists of two that share a namespace and copied ids:
// the other's execution is the later one. Histories are read by workflows.Memory, which
// has tests of its own.
type twoInstallations struct{ ours billing.Charge }

func (twoInstallations) Executions(_ context.Context, _ billing.Period, completed bool, _ []byte) ([]activities.Execution, []byte, error) {
	if !completed {
		return nil, nil, nil
	}
	const id = "charge/s/2026-11"
	return []activities.Execution{{WorkflowID: id, RunID: "theirs", SubscriptionID: "s"}, {WorkflowID: id, RunID: "ours", SubscriptionID: "s"}}, nil, nil
}

func (m twoInstallations) Charge(_ context.Context, _ string, e activities.Execution) (*billing.Charge, error) {
	if e.RunID != "ours" {
		return nil, nil
	}
	return &m.ours, nil
}

// What another installation has charged later hides nothing of ours.
func TestRecallCharges_AnothersExecutionHidesNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		run := b.record(t, billing.RunRunning, modelstest.Long)
		activities.WithMemory(b.acts, twoInstallations{billing.Charge{
			RequestID: "callers-own", SubscriptionID: "s", Period: november, Status: billing.Charged, CustomerID: "anna", SKU: 7,
		}})
		value, err := b.ExecuteActivity(b.acts.RecallCharges, activities.RecallChargesInput{Run: run, Installation: ours})
		require.NoError(t, err)
		var out activities.RecallChargesOutput
		require.NoError(t, value.Get(&out))
		require.Equal(t, 1, out.Recalled)
		require.Equal(t, []string{"callers-own charged"}, db.Lines(t, "SELECT request_id || ' ' || status FROM charge"))
	})
}

// One remembered charge that the ledger cannot take, because its request id is another's
// there, does not hold the others up.
func TestRecallCharges_ATakenRequestIDStopsNobody(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		b.claim(t, "t", "callers-own", billing.ChargeOwner)
		run := b.record(t, billing.RunRunning, modelstest.Long)
		activities.WithMemory(b.acts, twoInstallations{billing.Charge{
			RequestID: "callers-own", SubscriptionID: "s", Period: november, Status: billing.Charged, CustomerID: "anna", SKU: 7,
		}})
		_, err := b.ExecuteActivity(b.acts.RecallCharges, activities.RecallChargesInput{Run: run, Installation: ours})
		require.NoError(t, err)
		require.Equal(t, []string{"t pending"}, db.Lines(t, "SELECT subscription_id || ' ' || status FROM charge"))
	})
}
