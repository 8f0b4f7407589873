package workflows_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// typed is JSON as a person types it in the Temporal UI.
func typed(text string) converter.RawValue {
	return converter.NewRawValue(&commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(converter.MetadataEncodingJSON)}, Data: []byte(text),
	})
}

// requireRefused checks that an error is final, has the code and tells the field.
func requireRefused(t *testing.T, err error, code, part string) {
	t.Helper()
	var failure *temporal.ApplicationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, code, failure.Type())
	require.True(t, failure.NonRetryable())
	require.Contains(t, failure.Message(), part)
	require.Less(t, len(failure.Message()), 1000)
}

// badInput is one, and what the workflow of the id then says.
type badInput struct{ workflow, id, input, code, part string }

func badInputs() []badInput {
	run := func(more string) string { return `{"period":"2026-11"` + more + `}` }
	charge := func(more string) string {
		return `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","period":"2026-11"` + more + `}`
	}
	state := `,"state":{"run":{"id":"2026-11/1","period":"2026-11","state":"running","settings":{"page_size":0}},"planned_to":"","pages":1,"bad":-5}`
	return []badInput{
		{"BillingRun", "billing-run/2026-11", ``, "validation_failed", "input must be given"},
		{"BillingRun", "billing-run/2026-11", `null`, "validation_failed", `it takes {"installation": "…", "period": "2026-11"`},
		{"BillingRun", "billing-run/2026-11", `"2026-11"`, "validation_failed", "input must be an object"},
		{"BillingRun", "billing-run/2026-11", `[{"period":"2026-11"}]`, "validation_failed", "input must be an object"},
		{"BillingRun", "billing-run/2026-11", `{"period":`, "validation_failed", "input must be JSON"},
		{"BillingRun", "billing-run/2026-11", `{}`, "validation_failed", "period must be given"},
		{"BillingRun", "billing-run/", `{"period":""}`, "validation_failed", "period must be a month"},
		{"BillingRun", "billing-run/2026-13", `{"period":"2026-13"}`, "validation_failed", "period must be a month"},
		{"BillingRun", "billing-run/2026-11", `{"period":202611}`, "validation_failed", "period must be a text"},
		{"BillingRun", "billing-run/2026-11", `{"period":null}`, "validation_failed", "period must not be null"},
		{"BillingRun", "billing-run/2026-11", `{"period":"2026-11","period":"2026-10"}`, "validation_failed", `"period" must not stand twice`},
		{"BillingRun", "by-hand", run(``), "validation_failed", `workflow id must be "billing-run/2026-11"`},
		{"BillingRun", "billing-run/2026-10", run(``), "validation_failed", `workflow id must be "billing-run/2026-11"`},
		{"BillingRun", "billing-run/2026-11", run(`,"ordersPerSecond":5`), "validation_failed", `no field "ordersPerSecond"`},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"Orders_Per_Second":5}`), "validation_failed", `no field settings."Orders_Per_Second"`},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"orders_per_second":null}`), "validation_failed", "settings.orders_per_second must not be null"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"orders_per_second":"5"}`), "validation_failed", "settings.orders_per_second must be a number"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"orders_per_second":-3}`), "validation_failed", "orders_per_second must be 0"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"orders_per_second":1e999}`), "validation_failed", "orders_per_second must be a number"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":null`), "validation_failed", "settings must not be null"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":[]`), "validation_failed", "settings must be an object"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"page_size":-1}`), "validation_failed", "page_size must be 1 to 5000"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"page_size":1000000000}`), "validation_failed", "page_size must be 1 to 5000"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"page_size":2.5}`), "validation_failed", "page_size must be a whole number"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"concurrency":-1}`), "validation_failed", "concurrency must be 1 to 1000"},
		{"BillingRun", "billing-run/2026-11", run(`,"settings":{"workflow_per_charge":"yes"}`), "validation_failed", "workflow_per_charge must be true or false"},
		{"BillingRun", "billing-run/2026-11", run(`,"state":{}`), "validation_failed", "state must not be given"},
		{"BillingRun", "billing-run/2026-11", run(state), "validation_failed", "state must not be given"},
		{"ChargeSubscription", "charge/s/2026-11", ``, "validation_failed", "input must be given"},
		{"ChargeSubscription", "charge/s/", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","period":"","request_id":"r"}`, "validation_failed", "period must be a month"},
		{"ChargeSubscription", "charge/s/", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","request_id":"r"}`, "validation_failed", "period must be given"},
		{"ChargeSubscription", "charge/s/2026-11", charge(``), "validation_failed", "request_id must have"},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"request_id":"../../admin"`), "validation_failed", "request_id must have"},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"request_id":".."`), "validation_failed", "request_id must have"},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"request_id":"` + strings.Repeat("r", 200) + `"`), "validation_failed", "request_id must have"},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"request_id":"r\u0000"`), "validation_failed", "request_id must have"},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"request_id":7`), "validation_failed", "request_id must be a text"},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"request_id":"r","require_eligble":true`), "validation_failed", `no field "require_eligble"`},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"run_id":"2026-10/1"`), "validation_failed", "run_id must be that of a run of 2026-11"},
		{"ChargeSubscription", "charge/s/2026-11", charge(`,"run_id":"2026-11/1"`), "run_not_found", "no such billing run"},
		{"ChargeSubscription", "charge/s/2026-11", `{"require_eligible":true,"subscription_id":"s","period":"2026-11","request_id":"r"}`, "validation_failed", "installation must be"},
		{"ChargeSubscription", "charge/s/2026-11", `{"installation":"the-installation-of-tests","subscription_id":"s","period":"2026-11","request_id":"r"}`, "validation_failed", "require_eligible must be given"},
		{"BillingRun", "billing-run/2026-11", run(``), "validation_failed", "installation must be"},
		{"ChargeSubscription", "by-hand", charge(`,"request_id":"r"`), "validation_failed", `workflow id must be "charge/s/2026-11"`},
		{"ChargeSubscription", "charge//2026-11", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"","period":"2026-11","request_id":"r"}`, "validation_failed", "subscription_id must have"},
		{"ChargeSubscription", "charge/s%00/2026-11", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s\u0000","period":"2026-11","request_id":"r"}`, "validation_failed", "subscription_id must not contain"},
		{"ChargeSubscription", "charge/s%00/2026-11", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s\u0000","period":"2026-11","run_id":"2026-11/1"}`, "database_refused", "invalid byte sequence"},
		{"ChargeSubscription", "charge/s/2099-01", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","period":"2099-01","request_id":"r"}`, "period_in_future", "2099-01 has not begun"},
		{"ChargeSubscription", "charge/s/2026-12", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","period":"2026-12","request_id":"r"}`, "period_in_future", "2026-12 has not begun"},
		{"ChargeSubscription", "charge/s/2026-10", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","period":"2026-10","request_id":"r"}`, "validation_failed", "period must be the current month"},
		{"ChargeSubscription", "charge/s/0001-01", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","period":"0001-01","request_id":"r"}`, "validation_failed", "period must be the current month"},
		{"ScheduledRun", "scheduled-run", `{"timezone":"UTC","settings":{"order_per_second":5}}`, "validation_failed", `no field settings."order_per_second"`},
		{"ScheduledRun", "scheduled-run", ``, "validation_failed", "input must be given"},
	}
}

// A workflow that is started by hand with an input that the API would refuse fails
// at once, with a sentence; nobody is charged, and its id is free again.
func TestWorkflows_StartedByHand_BadInputFails(t *testing.T) {
	t.Parallel()
	db, server, c := chargingServer(t)
	for _, of := range badInputs() {
		t.Run(of.workflow+" "+of.input, func(t *testing.T) {
			var args []any
			if of.input != "" {
				args = append(args, typed(of.input))
			}
			run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: of.id, TaskQueue: workflows.Names("").TaskQueue()}, of.workflow, args...)
			require.NoError(t, err)
			requireRefused(t, run.Get(t.Context(), nil), of.code, of.part)
		})
	}
	require.Empty(t, server.Calls())
	require.Empty(t, db.Lines(t, "SELECT request_id FROM charge UNION ALL SELECT id FROM billing_run"))
}

// A standalone activity, and one of a workflow that is not ours, does nothing.
func TestActivities_StartedByHand_Refused(t *testing.T) {
	t.Parallel()
	db, server, c := chargingServer(t)
	charge := `{"charge":{"request_id":"standalone","subscription_id":"s","period":"2026-11","status":"charged","customer_id":"anna","sku_id":777}}`
	for _, of := range []struct{ activity, input string }{
		{"PlaceOrder", charge},
		{"PlaceOrder", `{"charge":7}`},
		{"PlaceOrder", ``},
		{"SettleCharge", charge},
		{"ClaimCharge", `{"installation":"the-installation-of-tests","require_eligible":true,"subscription_id":"s","period":"2026-11","request_id":"r"}`},
		{"StartRun", `{"period":"2099-02","execution_id":"e","settings":{"page_size":1,"concurrency":1}}`},
		{"ChargePage", `{"run_id":"2026-11/1","period":"2026-11","number":1,"up_to":"z","concurrency":1}`},
		{"WatchRun", `{"run_id":"2026-11/1","period":"2026-11","state":"running"}`},
		{"Recall", `{"installation":"the-installation-of-tests"}`},
	} {
		for _, queue := range []string{workflows.Names("").TaskQueue(), workflows.Names("").OrderTaskQueue()} {
			t.Run(of.activity+" "+of.input+" "+queue, func(t *testing.T) {
				var args []any
				if of.input != "" {
					args = append(args, typed(of.input))
				}
				handle, err := c.ExecuteActivity(t.Context(), client.StartActivityOptions{
					ID: "by-hand-" + uuid.NewString(), TaskQueue: queue, StartToCloseTimeout: time.Minute,
				}, of.activity, args...)
				require.NoError(t, err)
				requireRefused(t, handle.Get(t.Context(), nil), "not_asked_by_a_workflow", "asked for by nobody")
			})
		}
	}
	require.Empty(t, server.Calls())
	require.Empty(t, db.Lines(t, "SELECT request_id FROM charge UNION ALL SELECT id FROM billing_run"))
}

func badData() []struct{ update, data, part string } {
	huge := strings.Repeat("9", 100_000)
	return []struct{ update, data, part string }{
		{"pace", ``, "input must be given"},
		{"pace", `null`, "input must be given"},
		{"pace", `{}`, "orders_per_second must be given"},
		{"pace", `20`, "input must be an object"},
		{"pace", `[20]`, "input must be an object"},
		{"pace", `"20"`, "input must be an object"},
		{"pace", `{"OrdersPerSecond":20}`, `no field "OrdersPerSecond"`},
		{"pace", `{"Orders_Per_Second":20}`, `no field "Orders_Per_Second"`},
		{"pace", `{"orders_per_second":20,"page_size":5}`, `no field "page_size"`},
		{"pace", `{"orders_per_second":5,"orders_per_second":0}`, "must not stand twice"},
		{"pace", `{"orders_per_second":null}`, "orders_per_second must not be null"},
		{"pace", `{"orders_per_second":"20"}`, "orders_per_second must be a number, not string"},
		{"pace", `{"orders_per_second":true}`, "orders_per_second must be a number, not bool"},
		{"pace", `{"orders_per_second":{}}`, "orders_per_second must be a number, not object"},
		{"pace", `{"orders_per_second":-1}`, "orders_per_second must be 0 (no cap)"},
		{"pace", `{"orders_per_second":0.001}`, "orders_per_second must be 0 (no cap)"},
		{"pace", `{"orders_per_second":1e308}`, "orders_per_second must be 0 (no cap)"},
		{"pace", `{"orders_per_second":1e999}`, "orders_per_second must be a number"},
		{"pace", `{"orders_per_second":` + huge + `}`, "orders_per_second must be"},
		{"pace", `{"orders_per_second":NaN}`, "input must be JSON"},
		{"pace", `{"` + huge + `":1}`, "no field"},
		{"pace", "{\"orders_per_second\":20,\"\xff\":1}", "valid UTF-8"},
		{"pause", `{"reson":"lunch"}`, `no field "reson"`},
		{"pause", `{"reason":7}`, "reason must be a text"},
		{"pause", `{"reason":null}`, "reason must not be null"},
		{"pause", `"lunch"`, "input must be an object"},
		{"pause", `{"reason":"` + huge + `"}`, "reason must have 0 to 500 characters"},
		{"pause", `{"reason":"a\u0000"}`, "reason must not contain control characters"},
		{"resume", `{"orders_per_second":5}`, `no field "orders_per_second"; it takes no data`},
		{"resume", `true`, "input must be an object; it takes no data"},
		{"cancel", `{"reason":"lunch"}`, `no field "reason"; it takes no data`},
	}
}

// An update whose data is absent, misspelt or of another type is refused with a
// sentence that shows what it takes, and leaves no trace: the run keeps its cap.
func TestBillingRun_Updates_BadDataIsRefused(t *testing.T) {
	t.Parallel()
	db := modelstest.Postgres(t)
	db.AddClub(t, 1, 1)
	for i := range 40 {
		db.AddSubscription(t, fmt.Sprintf("s-%03d", i), 1, fmt.Sprintf("c-%03d", i))
	}
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	c := startWorker(t, db, server, activities.Policy{Idempotent: true, RetryFor: time.Minute, ShopTimeout: 5 * time.Second})
	in := workflows.RunInput{Period: november(t), Settings: billing.RunSettings{OrdersPerSecond: 1}, Installation: modelstest.Installation}
	run, err := c.ExecuteWorkflow(t.Context(), workflows.Names("").RunOptions(in), workflows.BillingRunName, in)
	require.NoError(t, err)
	update(t, c, workflows.PauseUpdate)
	before := historyOf(t, c, run.GetID(), run.GetRunID())

	shown, err := metadata(t.Context(), c, run.GetID())
	require.NoError(t, err)
	require.Len(t, shown.GetDefinition().GetUpdateDefinitions(), 4)
	for _, u := range shown.GetDefinition().GetUpdateDefinitions() {
		require.Contains(t, u.GetDescription(), map[string]string{
			"pace": `{"orders_per_second": 20}; 0 is no cap`, "pause": `{"reason": "…"}`, "resume": "no data", "cancel": "no data",
		}[u.GetName()])
	}

	for _, of := range badData() {
		t.Run(of.update+" "+of.data[:min(len(of.data), 40)], func(t *testing.T) {
			var args []any
			if of.data != "" {
				args = append(args, typed(of.data))
			}
			err := updateByHand(t, c, of.update, args...)
			requireRefused(t, err, "validation_failed", of.part)
			if of.update == "pace" && !strings.Contains(of.part, "must be 0") {
				require.ErrorContains(t, err, `it takes {"orders_per_second": 20}; 0 is no cap`)
			}
		})
	}
	require.ErrorContains(t, updateByHand(t, c, "pace", []byte("20")), "must be JSON")

	after := historyOf(t, c, run.GetID(), run.GetRunID())
	require.Equal(t, accepted(before), accepted(after), "what is refused is not accepted first")
	require.Equal(t, []string{"1 paused"}, db.Lines(t, "SELECT orders_per_second || ' ' || state FROM billing_run"))
	for _, args := range [][]any{{}, {nil}, {typed(`null`)}, {typed(`{}`)}, {typed(`{"reason":"lunch"}`)}} {
		require.NoError(t, updateByHand(t, c, "pause", args...))
	}
	require.Equal(t, []string{"lunch"}, db.Lines(t, "SELECT reason FROM billing_run"))
	require.NoError(t, updateByHand(t, c, "pace", typed(`{"orders_per_second":0}`)), "no cap is said explicitly")
	require.Equal(t, []string{"0"}, db.Lines(t, "SELECT orders_per_second FROM billing_run"))
	require.NoError(t, updateByHand(t, c, "cancel", typed(`{}`)))
}

func updateByHand(t *testing.T, c client.Client, name string, args ...any) error {
	t.Helper()
	handle, err := c.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: workflows.Names("").RunWorkflowID(november(t)), UpdateName: name, Args: args, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(t.Context(), nil)
}

func accepted(h *history.History) int {
	return count(h, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED)
}

// metadata is what the Temporal UI shows of a workflow.
func metadata(ctx context.Context, c client.Client, workflowID string) (*sdkpb.WorkflowMetadata, error) {
	shown := &sdkpb.WorkflowMetadata{}
	value, err := c.QueryWorkflow(ctx, workflowID, "", "__temporal_workflow_metadata")
	if err == nil {
		err = value.Get(shown)
	}
	return shown, err
}

// A step in the database that fails is told: in the Temporal UI what fails and until
// when it is tried, in the log each try. It goes through when the cause is gone.
func TestChargeSubscription_FailingClaimIsTold(t *testing.T) {
	t.Parallel()
	db := modelstest.Postgres(t)
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	db.Exec(t, "ALTER TABLE charge RENAME TO taken_away")
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	logged := &lines{}
	c, _ := startWorkerIn(t, db, server, activities.Policy{Idempotent: true, RetryFor: time.Minute, ShopTimeout: 5 * time.Second}, logged)
	in := workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{SubscriptionID: "s", Period: november(t), RequestID: "r", Installation: modelstest.Installation}}
	run, err := workflows.Names("").StartCharge(t.Context(), c, in)
	require.NoError(t, err)

	const sentence = `relation "charge" does not exist`
	require.Eventually(t, func() bool {
		shown, err := metadata(t.Context(), c, run.GetID())
		return err == nil && strings.Contains(shown.GetCurrentDetails(), sentence)
	}, time.Minute, 100*time.Millisecond)
	require.GreaterOrEqual(t, logged.count(sentence), 4, "each try")
	db.Exec(t, "ALTER TABLE taken_away RENAME TO charge")
	require.NoError(t, run.Get(t.Context(), nil))
	require.Len(t, server.Orders(), 1)
	shown, err := metadata(t.Context(), c, run.GetID())
	require.NoError(t, err)
	require.Empty(t, shown.GetCurrentDetails())
	require.NoError(t, replay(historyOf(t, c, run.GetID(), run.GetRunID())))
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, line...)
	return len(line), nil
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(strings.ReplaceAll(string(l.text), `\"`, `"`), part)
}

// A run that continues checks what it was handed; no state makes it panic.
func TestBillingRun_ForgedStateIsRefused(t *testing.T) {
	t.Parallel()
	for _, state := range []string{
		`{}`,
		`{"run":{"id":"2026-10/1","period":"2026-10"}}`,
		`{"run":{"id":"2026-10/1","period":"2026-11"}}`,
		`{"run":{"id":"2026-11/x","period":"2026-11"}}`,
		`{"run":{"id":"2026-11/1","period":"2026-11","state":"running","settings":{"page_size":0,"concurrency":1}}}`,
		`{"run":{"id":"2026-11/1","period":"2026-11","state":"running","settings":{"page_size":1,"concurrency":1,"orders_per_second":-1}}}`,
		`{"run":{"id":"2026-11/1","period":"2026-11","state":"running","settings":{"page_size":1,"concurrency":1}},"bad":-5}`,
		`{"run":{"id":"2026-11/1","period":"2026-11","state":"running","settings":{"page_size":1,"concurrency":1}},"pages":-1}`,
	} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			env := setup(t, activities.Policy{Idempotent: true}).env
			env.RegisterWorkflowWithOptions(workflows.BillingRun, workflow.RegisterOptions{Name: workflows.BillingRunName})
			env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.Names("").RunWorkflowID(november(t)), TaskQueue: workflows.Names("").TaskQueue()})
			env.SetContinuedExecutionRunID("before")
			env.ExecuteWorkflow(workflows.BillingRunName, typed(`{"period":"2026-11","state":`+state+`}`))
			requireRefused(t, env.GetWorkflowError(), "validation_failed", "must")
		})
	}
}
