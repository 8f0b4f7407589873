package workflows_test

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
// versions to come: go test ./workflows -run Record -record. Only those of paths
// that have none yet: a history stands for a version that has run somewhere, and
// is never recorded again.
var record = flag.Bool("record", false, "write the recorded histories to testdata")

// recording is the version that -record writes. It is raised when it is released. Until
// then a change of a workflow may record its histories anew.
const recording = "v1"

// manifest lists the histories with their SHA-256, in the form of sha256sum. Each
// line in it is a promise: that history replays, on this version and all after.
const manifest = "testdata/SHA256SUMS"

func newReplayer() sdk.WorkflowReplayer {
	replayer := sdk.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(workflows.ChargeSubscription, workflow.RegisterOptions{Name: workflows.ChargeSubscriptionName})
	replayer.RegisterWorkflowWithOptions(workflows.BillingRun, workflow.RegisterOptions{Name: workflows.BillingRunName})
	replayer.RegisterWorkflowWithOptions(workflows.ScheduledRun, workflow.RegisterOptions{Name: workflows.ScheduledRunName})
	return replayer
}

// replay replays a history under its workflow's id, which the SDK leaves out.
func replay(h *history.History) error {
	id := h.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
	return newReplayer().ReplayWorkflowHistoryWithOptions(discard(), h, sdk.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}})
}

// Every history of a version that was ever released replays on this one.
func TestReplay_CommittedHistories(t *testing.T) {
	require.NotEmpty(t, promised(t))
	for file := range promised(t) {
		t.Run(file, func(t *testing.T) {
			content, err := os.Open(filepath.Join("testdata", file))
			require.NoError(t, err)
			defer func() { _ = content.Close() }() // it is only read
			h, err := client.HistoryFromJSON(content, client.HistoryJSONOptions{})
			require.NoError(t, err)
			require.NoError(t, replay(h))
		})
	}
}

// No history is lost, changed, recorded again or left out.
func TestReplay_HistoriesAreThoseCommitted(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	require.NoError(t, err)
	found := map[string]string{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		found[filepath.Base(file)] = fmt.Sprintf("%x", sha256.Sum256(content))
	}
	require.Equal(t, promised(t), found, "bring back what is missing or changed; -record lists what is new")
}

// promised returns the manifest: file and hash.
func promised(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(manifest)
	require.NoError(t, err)
	files := map[string]string{}
	for line := range strings.Lines(string(content)) {
		hash, file, found := strings.Cut(strings.TrimSpace(line), "  ")
		require.True(t, found, line)
		files[file] = hash
	}
	return files
}

// A workflow whose first step is another one does not replay: an incompatible
// change is noticed.
func TestReplay_NoticesAnotherFirstStep(t *testing.T) {
	for name, file := range map[string]string{
		workflows.ChargeSubscriptionName: "charge-v1-charged.json",
		workflows.BillingRunName:         "run-v1-finished-1.json",
		workflows.ScheduledRunName:       "scheduled-v1-started.json",
	} {
		replayer := sdk.NewWorkflowReplayer()
		replayer.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ any) (any, error) {
			return nil, workflow.Sleep(ctx, time.Hour)
		}, workflow.RegisterOptions{Name: name})
		err := replayer.ReplayWorkflowHistoryFromJSONFile(discard(), filepath.Join("testdata", file))
		require.ErrorContains(t, err, "[TMPRL1100]", file) // the SDK's number for a replay that differs
	}
}

func discard() sdklog.Logger { return sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)) }

// Charges on a real server, of every kind, replay as they ran; a happy one is
// one workflow task.
func TestRecord_Charges(t *testing.T) {
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
				VALUES ('page', 's', '2026-11', 'pending', 'billing-run/1', $1, 'anna', 1, '2026-11-01')`, inNovember().Add(4*time.Second))
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

			require.NoError(t, replay(got))
			if c.tasks > 0 {
				require.Equal(t, c.tasks, count(got, enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED))
				require.LessOrEqual(t, len(got.Events), 8)
			}
			save(t, "charge", name, got)
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

// save writes a history that there is none of yet, and lists it.
func save(t *testing.T, kind, name string, h *history.History) {
	t.Helper()
	file := fmt.Sprintf("%s-%s-%s.json", kind, recording, name)
	if _, listed := promised(t)[file]; !*record || listed {
		return
	}
	content, err := protojson.Marshal(h)
	require.NoError(t, err)
	content = append(content, '\n')
	require.NoError(t, os.WriteFile(filepath.Join("testdata", file), content, 0o600))
	list, err := os.OpenFile(manifest, os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = fmt.Fprintf(list, "%x  %s\n", sha256.Sum256(content), file)
	require.NoError(t, errors.Join(err, list.Close()))
}

// chargeOnServer charges subscription s for 2026-11 and returns the history.
func chargeOnServer(t *testing.T, db modelstest.Database, policy activities.Policy, faults []shoptest.Fault) *history.History {
	t.Helper()
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	server.SetFaults(faults...)
	c := startWorker(t, db, server, policy)
	in := workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{SubscriptionID: "s", Period: november(t), RequestID: "r-1", RequireEligible: true, Installation: modelstest.Installation}, ClubID: 1}
	run, err := c.ExecuteWorkflow(t.Context(), workflows.Names("").ChargeOptions(in), workflows.ChargeSubscriptionName, in)
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
