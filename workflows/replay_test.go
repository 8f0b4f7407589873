package workflows_test

import (
	"flag"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// record writes the histories that these tests make into testdata, for the
// versions to come: go test ./workflows -run Record -record. A file is never
// replaced: it stands for a version that has run somewhere.
var record = flag.Bool("record", false, "write the recorded histories to testdata")

func newReplayer() sdk.WorkflowReplayer {
	replayer := sdk.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(workflows.ChargeSubscription, workflow.RegisterOptions{Name: workflows.ChargeSubscriptionName})
	replayer.RegisterWorkflowWithOptions(workflows.BillingRun, workflow.RegisterOptions{Name: workflows.BillingRunName})
	replayer.RegisterWorkflowWithOptions(workflows.ScheduledRun, workflow.RegisterOptions{Name: workflows.ScheduledRunName})
	return replayer
}

// Every history of a version that was ever released replays on this one.
func TestReplayCommittedHistories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			require.NoError(t, newReplayer().ReplayWorkflowHistoryFromJSONFile(discard(), file))
		})
	}
}

func discard() sdklog.Logger { return sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)) }

// Charges on a real server, of every kind, replay as they ran; a happy one is
// one workflow task.
func TestRecordCharges(t *testing.T) {
	for name, c := range map[string]struct {
		notIdempotent bool
		faults        []shoptest.Fault
		prepare       func(*testing.T, modelstest.Database)
		tasks         int // workflow tasks, 0: any number
	}{
		"charged":    {tasks: 1},
		"declined":   {tasks: 1, faults: []shoptest.Fault{{Status: http.StatusPaymentRequired}}},
		"retried":    {faults: []shoptest.Fault{{Status: http.StatusServiceUnavailable, Times: 2, RetryAfter: "1"}}},
		"unresolved": {faults: []shoptest.Fault{{Status: http.StatusInternalServerError}}},
		"in-doubt":   {notIdempotent: true, faults: []shoptest.Fault{{Cut: shoptest.CutAfter}}},
		"not-eligible": {tasks: 1, prepare: func(t *testing.T, db modelstest.Database) {
			db.Exec(t, "DELETE FROM subscription_status_history")
		}},
		"already-charged": {tasks: 1, prepare: func(t *testing.T, db modelstest.Database) {
			db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, settled_at)
				VALUES ('old', 's', '2026-11', 'charged', 'x', 'anna', 1, '2026-11-01', '2026-11-01')`)
		}},
		"held-by-a-page": {prepare: func(t *testing.T, db modelstest.Database) {
			db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, customer_id, sku_id, created_at)
				VALUES ('page', 's', '2026-11', 'pending', 'billing-run/1', now() AT TIME ZONE 'UTC' + interval '4 seconds', 'anna', 1, '2026-11-01')`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.Postgres(t)
			db.AddClub(t, 1, 1)
			db.AddSubscription(t, "s", 1, "anna")
			if c.prepare != nil {
				c.prepare(t, db)
			}
			got := chargeOnServer(t, db, activities.Policy{Idempotent: !c.notIdempotent, RetryFor: 3 * time.Second, ShopTimeout: 5 * time.Second}, c.faults)

			require.NoError(t, newReplayer().ReplayWorkflowHistory(discard(), got))
			if c.tasks > 0 {
				require.Equal(t, c.tasks, count(got, enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED))
				require.LessOrEqual(t, len(got.Events), 8)
			}
			save(t, "charge-v1-"+name, got)
		})
	}
}

func count(h *history.History, kind enumspb.EventType) int {
	n := 0
	for _, e := range h.Events {
		if e.EventType == kind {
			n++
		}
	}
	return n
}

func save(t *testing.T, name string, h *history.History) {
	t.Helper()
	file := filepath.Join("testdata", name+".json")
	if _, err := os.Stat(file); !*record || err == nil {
		return
	}
	content, err := protojson.Marshal(h)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(content, '\n'), 0o600))
}

// chargeOnServer charges subscription s for 2026-11 and returns the history.
func chargeOnServer(t *testing.T, db modelstest.Database, policy activities.Policy, faults []shoptest.Fault) *history.History {
	t.Helper()
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	server.SetFaults(faults...)
	c := startWorker(t, db, server, policy)
	in := workflows.ChargeInput{SubscriptionID: "s", Period: november(t), RequestID: "r-1", RequireEligible: true, ClubID: 1}
	run, err := c.ExecuteWorkflow(t.Context(), workflows.ChargeOptions(in), workflows.ChargeSubscriptionName, in)
	require.NoError(t, err)
	_ = run.Get(t.Context(), &billing.Charge{}) // failures are histories, too
	return historyOf(t, c, run.GetID(), run.GetRunID())
}

func newNamespace(t *testing.T) (client.Client, string) {
	t.Helper()
	address := os.Getenv("TEST_TEMPORAL_ADDRESS")
	require.NotEmpty(t, address, "TEST_TEMPORAL_ADDRESS is not set: run make test")
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: address, Logger: discard()})
	require.NoError(t, err)
	defer namespaces.Close()
	name := "test-" + uuid.NewString()
	require.NoError(t, namespaces.Register(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}))
	c, err := client.NewLazyClient(client.Options{HostPort: address, Namespace: name, Logger: discard()})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, name
}
