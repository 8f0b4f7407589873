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

// seam is Temporal as a test wants it. Lists and histories are read by workflows.Temporal,
// which has tests of its own with a real server.
type seam struct {
	executions []activities.Execution // that have completed
	charge     func(e activities.Execution) *billing.Charge
	runs       []billing.Run
	started    []string // ids of subscriptions
	recalls    int
}

func (s *seam) StartCharge(_ context.Context, req billing.ChargeRequest) error {
	s.started = append(s.started, req.SubscriptionID)
	return nil
}

func (s *seam) StartRecall(context.Context, string) error {
	s.recalls++
	return nil
}

func (s *seam) IsListed(context.Context, string, string) (bool, error) { return true, nil }

func (s *seam) Executions(_ context.Context, completed bool, _ []byte) ([]activities.Execution, []byte, error) {
	if !completed {
		return nil, nil, nil
	}
	return s.executions, nil, nil
}

func (s *seam) Charge(_ context.Context, _ string, e activities.Execution) (*billing.Charge, error) {
	return s.charge(e), nil
}

func (s *seam) Runs(context.Context, string) ([]billing.Run, error) { return s.runs, nil }

// twoInstallations has Temporal list what two have charged that share a namespace and
// copied ids: the other's execution is the later one.
func (b *bench) twoInstallations(ours billing.Charge) {
	const id = "charge/s/2026-11"
	b.temporal.executions = []activities.Execution{
		{WorkflowID: id, RunID: "theirs", SubscriptionID: "s", Period: november}, {WorkflowID: id, RunID: "ours", SubscriptionID: "s", Period: november},
	}
	b.temporal.charge = func(e activities.Execution) *billing.Charge {
		if e.RunID != "ours" {
			return nil
		}
		return &ours
	}
}

// recall looks through the database as one that was replaced.
func (b *bench) recall(t *testing.T) (out activities.RecallOutput) {
	t.Helper()
	b.Exec(t, "UPDATE installation SET recalled = 'another'")
	value, err := b.ExecuteActivity(b.acts.Recall, activities.RecallInput{Installation: ours})
	require.NoError(t, err)
	require.NoError(t, value.Get(&out))
	found, err := b.store.Installation(t.Context())
	require.NoError(t, err)
	require.NoError(t, found.MayCharge())
	return out
}

// What another installation has charged later hides nothing of ours.
func TestRecall_OtherInstallationHidesNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		b.twoInstallations(billing.Charge{RequestID: "callers-own", SubscriptionID: "s", Period: november, Status: billing.Charged, CustomerID: "anna", SKU: 7})
		require.Equal(t, 1, b.recall(t).Charges)
		require.Equal(t, []string{"callers-own charged"}, db.Lines(t, "SELECT request_id || ' ' || status FROM charge"))
		require.Zero(t, b.recall(t).Charges, "it is known now")
	})
}

// One remembered charge that the ledger cannot take, because its request id is another's
// there, does not hold the others up.
func TestRecall_TakenRequestIDStopsNobody(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		b.claim(t, "t", "callers-own", billing.ChargeOwner)
		b.twoInstallations(billing.Charge{RequestID: "callers-own", SubscriptionID: "s", Period: november, Status: billing.Charged, CustomerID: "anna", SKU: 7})
		b.recall(t)
		require.Equal(t, []string{"t pending"}, db.Lines(t, "SELECT subscription_id || ' ' || status FROM charge"))
	})
}

// Whoever meets a database that was replaced starts the recall, does nothing else, and is
// tried again. Nothing reaches the shop.
func TestReplaced_EachActivityStartsTheRecall(t *testing.T) {
	t.Parallel()
	for _, idempotent := range []bool{true, false} {
		modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
			b := setup(t, db, idempotent)
			run := b.record(t, billing.RunRunning, modelstest.Long)
			claimed := b.claim(t, "s", "r-1", billing.ChargeOwner)
			named := activities.RunRef{Installation: ours, RunID: run.ID, Period: november, Recalled: "before", Execution: "e"}
			db.Exec(t, "UPDATE installation SET recalled = 'another'")
			for what, of := range map[string]struct{ activity, in any }{
				"claim": {b.acts.ClaimCharge, billing.ChargeRequest{Installation: ours, SubscriptionID: "t", Period: november, RequestID: "r-2"}},
				"order": {b.acts.PlaceOrder, activities.PlaceOrderInput{Installation: ours, Charge: claimed}},
				"start": {b.acts.StartRun, activities.StartRunInput{Installation: ours, Period: november, ExecutionID: "e", Settings: billing.RunSettings{}.WithDefaults()}},
			} {
				b.temporal.recalls = 0
				_, err := b.ExecuteActivity(of.activity, of.in)
				requireRetried(t, err, string(billing.CodeDatabaseReplaced), "Recall")
				require.Equal(t, 1, b.temporal.recalls, what)
			}
			value, err := b.ExecuteActivity(b.acts.WatchRun, activities.WatchRunInput{RunRef: named, State: billing.RunPaused})
			require.NoError(t, err)
			var watched activities.WatchRunOutput
			require.NoError(t, value.Get(&watched))
			require.True(t, watched.Replaced)
			value, err = b.ExecuteActivity(b.acts.ChargePage, activities.ChargePageInput{RunRef: named, Number: 1, UpTo: "z", Concurrency: 1})
			require.NoError(t, err)
			var page activities.ChargePageOutput
			require.NoError(t, value.Get(&page))
			require.Equal(t, activities.StopReplaced, page.Stop)
			require.Empty(t, b.shop.Calls())
			require.Len(t, db.Lines(t, "SELECT request_id FROM charge"), 1)
		})
	}
}
