package workflows_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// remembered is a charge that Temporal remembers, of a subscription and customer
// of the name.
type remembered struct {
	forRun    bool           // its request id is derived
	fault     shoptest.Fault // without an effect: charged
	terminate bool
	cancelled bool // the subscription, by the backup
	claimed   bool // by the backup, which knows no outcome
	unheard   bool // no worker takes it up: its history has the input only
	joined    bool // it waits for a page that has claimed the charge
	charged   bool // else it fails, or is being retried
	want      billing.ChargeStatus
}

// Charges are made over one database and then recalled into another that knows
// the subscriptions only, as a backup from before.
func TestRecall_PutsChargesBack(t *testing.T) {
	busy := shoptest.Fault{Status: http.StatusTooManyRequests}
	later := shoptest.Fault{Status: http.StatusTooManyRequests, RetryAfter: "600"}
	for name, cases := range map[string]map[string]remembered{
		"idempotent": {
			"charged":           {charged: true, want: billing.Charged},
			"charged-cancelled": {charged: true, cancelled: true, want: billing.Charged},
			"charged-claimed":   {charged: true, claimed: true, want: billing.Charged},
			"charged-by-run":    {charged: true, forRun: true, want: billing.Charged},
			"declined":          {fault: shoptest.Fault{Status: http.StatusPaymentRequired}, want: billing.Declined},
			"retried":           {fault: busy, want: billing.Pending},
			"retried-by-run":    {fault: busy, forRun: true, want: billing.Pending},
			"joined":            {joined: true, want: billing.Pending},
			"unheard":           {unheard: true, terminate: true},
			"terminated":        {fault: busy, terminate: true, want: billing.Pending},
			"waits":             {fault: later, want: billing.Pending},
			"waits-cancelled":   {fault: later, cancelled: true, want: billing.Pending}, // it was claimed before, and goes on
		},
		"not idempotent": {
			"charged": {charged: true, want: billing.Charged},
			"claimed": {charged: true, claimed: true, want: billing.Charged},
			"doubted": {fault: shoptest.Fault{Cut: shoptest.CutAfter}, want: billing.Unresolved},
			"retried": {fault: busy, want: billing.Unresolved},
			"joined":  {joined: true, want: billing.Unresolved},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := activities.Policy{Idempotent: name == "idempotent", RetryFor: time.Hour, ShopTimeout: 5 * time.Second}
			live, backup := modelstest.Postgres(t), modelstest.Postgres(t)
			server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
			server.SetFaults(subscribeAll(t, cases, live, backup)...)
			recordRun(t, live)
			recordRun(t, backup)
			temporal, namespace := startWorkerIn(t, live, server, policy, io.Discard)
			want := []string{}
			for id, c := range cases {
				request := chargeAs(t, temporal, server, id, c)
				if c.want != "" {
					want = append(want, id+" "+string(request)+" "+string(c.want))
				}
			}
			slices.Sort(want)

			recall := recaller(t, backup, temporal, namespace, policy, io.Discard)
			ledger := func() []string {
				return backup.Lines(t, `SELECT subscription_id || ' ' || request_id || ' ' || status FROM charge ORDER BY subscription_id COLLATE "C"`)
			}
			recall()
			require.Equal(t, want, ledger())
			pending, err := backup.Open(t, nil).LeftOver(t.Context(), billing.LeftOverQuery{
				RunID: november(t).String() + "/1", Period: november(t), All: true, Pages: "pages", Limit: len(cases),
			})
			require.NoError(t, err)
			require.Equal(t, backup.Lines(t, "SELECT subscription_id FROM charge WHERE status = 'pending' ORDER BY 1"), append([]string{}, pending...))
			require.Zero(t, recall().Charges, "they are known now")
			const orders = `SELECT subscription_id || customer_id || sku_id || shop_order FROM charge WHERE status = 'charged' ORDER BY 1`
			require.Equal(t, live.Lines(t, orders), backup.Lines(t, orders))
		})
	}
}

// recordRun writes the row of the run that charges for a run name.
func recordRun(t *testing.T, db modelstest.Database) {
	t.Helper()
	db.Exec(t, `INSERT INTO billing_run (id, period, number, execution_id, state, cut_off, due, orders_per_second, page_size, concurrency, workflow_per_charge)
		VALUES ('2026-11/1', '2026-11', 1, 'execution', 'running', $1, 1, 0, 500, 64, false)`, modelstest.Long)
}

// subscribeAll adds the subscriptions to both databases and returns their faults.
func subscribeAll(t *testing.T, cases map[string]remembered, live, backup modelstest.Database) (faults []shoptest.Fault) {
	t.Helper()
	live.AddClub(t, 1, 1)
	backup.AddClub(t, 1, 1)
	for id, c := range cases {
		live.AddSubscription(t, id, 1, id)
		backup.AddSubscription(t, id, 1, id)
		if c.cancelled {
			backup.AddChanges(t, id, modelstest.Since(billing.Cancelled, modelstest.Long.AddDate(1, 0, 0)))
		}
		if c.claimed {
			backup.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
				VALUES ($1, $2, '2026-11', 'pending', 'a worker', $2, 1, $3)`, "r-"+id, id, modelstest.Long)
		}
		if c.joined {
			live.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, customer_id, sku_id, created_at)
				VALUES ($1, $2, '2026-11', 'pending', 'a page', $3, $2, 1, $4)`, string(billing.DerivedRequestID(november(t), id, 1)), id,
				inNovember().Add(time.Hour), modelstest.Long)
		}
		if c.fault.Validate() == nil {
			c.fault.CustomerIDs = []string{id}
			faults = append(faults, c.fault)
		}
	}
	return faults
}

// chargeAs asks for the charge, waits until its history tells what the case is
// about, and returns its request id.
func chargeAs(t *testing.T, c client.Client, server *shoptest.Server, id string, of remembered) billing.RequestID {
	t.Helper()
	in := workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{SubscriptionID: id, Period: november(t), RequestID: billing.RequestID("r-" + id), RequireEligible: true, Installation: modelstest.Installation}, ClubID: 1}
	request := in.RequestID
	if of.forRun {
		in.RequestID, in.RunID = "", "2026-11/1"
		request = billing.DerivedRequestID(november(t), id, 1)
	}
	if of.joined {
		request = billing.DerivedRequestID(november(t), id, 1)
	}
	options := workflows.Names("").ChargeOptions(in)
	if of.unheard {
		options.TaskQueue = "nobody's"
	}
	run, err := c.ExecuteWorkflow(t.Context(), options, workflows.ChargeSubscriptionName, in)
	require.NoError(t, err)
	if of.charged {
		require.NoError(t, run.Get(t.Context(), nil))
		return request
	}
	require.Eventually(t, func() bool {
		d, err := c.DescribeWorkflow(t.Context(), run.GetID(), run.GetRunID())
		// Six events: it has ended, or waits for its second try, or has an activity for it.
		return err == nil && (of.unheard || of.joined && d.HistoryLength >= 6 || d.HistoryLength >= 6 &&
			slices.ContainsFunc(server.Calls(), func(call shoptest.Call) bool { return call.RequestID == string(request) }))
	}, time.Minute, 50*time.Millisecond)
	if of.terminate {
		require.NoError(t, c.TerminateWorkflow(t.Context(), run.GetID(), "", "gone"))
	}
	return request
}

// recaller returns a function that looks through the database as one that was replaced. A
// worker of the database does it, on task queues of its own.
func recaller(t *testing.T, db modelstest.Database, c client.Client, namespace string, policy activities.Policy, log io.Writer) func() activities.RecallOutput {
	t.Helper()
	acts := activities.New(activities.Config{
		Store: db.Open(t, inNovember), Policy: policy, Zone: time.UTC, Log: slog.New(slog.NewTextHandler(log, nil)),
		Temporal: workflows.Temporal{Client: c, Namespace: namespace},
	})
	queue := "recall-" + uuid.NewString()
	w := sdk.New(c, queue, sdk.Options{})
	w.RegisterActivity(acts)
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, in activities.RecallInput) (out activities.RecallOutput, err error) {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
		err = workflow.ExecuteActivity(ctx, acts.Recall, in).Get(ctx, &out)
		return out, err
	}, workflow.RegisterOptions{Name: "recall"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	return func() (out activities.RecallOutput) {
		db.Exec(t, "UPDATE installation SET recalled = 'another'")
		run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{TaskQueue: queue}, "recall",
			activities.RecallInput{Installation: db.Lines(t, "SELECT id FROM installation")[0]})
		require.NoError(t, err)
		require.NoError(t, run.Get(t.Context(), &out))
		return out
	}
}

// A charge that no database would claim has asked nothing of the shop: its own request id is
// none that is to be repeated.
func TestRecall_AChargeThatWaitsForItsClaim(t *testing.T) {
	t.Parallel()
	policy := activities.Policy{Idempotent: true, RetryFor: time.Hour, ShopTimeout: 5 * time.Second}
	live, backup := modelstest.Postgres(t), modelstest.Postgres(t)
	subscribeAll(t, map[string]remembered{"s": {}}, live, backup)
	live.Exec(t, "UPDATE installation SET seat = 'elsewhere'")
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	temporal, namespace := startWorkerIn(t, live, server, policy, io.Discard)
	in := workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{
		SubscriptionID: "s", Period: november(t), RequestID: "own", Installation: modelstest.Installation,
	}, ClubID: 1}
	run, err := temporal.ExecuteWorkflow(t.Context(), workflows.Names("").ChargeOptions(in), workflows.ChargeSubscriptionName, in)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		d, err := temporal.DescribeWorkflow(t.Context(), run.GetID(), run.GetRunID())
		return err == nil && len(d.RawResponse.GetPendingActivities()) == 1
	}, time.Minute, 50*time.Millisecond)

	recaller(t, backup, temporal, namespace, policy, io.Discard)()

	require.Empty(t, backup.Lines(t, "SELECT request_id FROM charge"))
	require.Empty(t, server.Calls())
}

// Two installations share a namespace: each recalls what it has asked for itself.
func TestRecall_LeavesOutOtherInstallations(t *testing.T) {
	t.Parallel()
	policy := activities.Policy{Idempotent: true, RetryFor: time.Hour, ShopTimeout: 5 * time.Second}
	live, same, other := modelstest.Postgres(t), modelstest.Postgres(t), modelstest.Postgres(t)
	for _, db := range []modelstest.Database{live, same, other} {
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")
	}
	other.Exec(t, "UPDATE installation SET id = 'another'")
	server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
	temporal, namespace := startWorkerIn(t, live, server, policy, io.Discard)
	chargeAs(t, temporal, server, "s", remembered{charged: true})

	recallSame, recallOther := recaller(t, same, temporal, namespace, policy, io.Discard), recaller(t, other, temporal, namespace, policy, io.Discard)
	require.Equal(t, 1, recallSame().Charges)
	require.Zero(t, recallOther().Charges)
	require.Empty(t, other.Lines(t, "SELECT request_id FROM charge"))
}

// What a person has corrected stays, run after run, and nobody is alarmed by it; of
// charges that Temporal remembers as charged, the latest is put back.
func TestRecall_CorrectedChargeStays(t *testing.T) {
	for _, idempotent := range []bool{true, false} {
		t.Run(fmt.Sprint("idempotent ", idempotent), func(t *testing.T) {
			t.Parallel()
			policy := activities.Policy{Idempotent: idempotent, RetryFor: time.Hour, ShopTimeout: 5 * time.Second}
			live, backup := modelstest.Postgres(t), modelstest.Postgres(t)
			server := shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})
			cases := map[string]remembered{"once": {charged: true}, "again": {charged: true}}
			subscribeAll(t, cases, live, backup)
			temporal, namespace := startWorkerIn(t, live, server, policy, io.Discard)
			store := live.Open(t, nil)
			for id, c := range cases {
				chargeAs(t, temporal, server, id, c)
				_, err := store.Correct(t.Context(), billing.Correction{
					RequestIDs: []billing.RequestID{billing.RequestID("r-" + id)}, Outcome: billing.Declined, Note: "no order",
				})
				require.NoError(t, err)
			}
			run, err := workflows.Names("").StartCharge(t.Context(), temporal, workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{
				SubscriptionID: "again", Period: november(t), RequestID: "second", RequireEligible: true,
				Installation: modelstest.Installation,
			}})
			require.NoError(t, err)
			var second billing.Charge
			require.NoError(t, run.Get(t.Context(), &second))
			require.Equal(t, billing.RequestID("second"), second.RequestID, "a new attempt")
			const ledger = `SELECT request_id || ' ' || status FROM charge ORDER BY 1`
			corrected := []string{"r-again declined", "r-once declined", "second charged"}
			require.Equal(t, corrected, live.Lines(t, ledger))

			var log bytes.Buffer
			recall := recaller(t, backup, temporal, namespace, policy, &log)
			recall()
			require.Equal(t, []string{"r-once charged", "second charged"}, backup.Lines(t, ledger))
			require.NotContains(t, log.String(), "level=ERROR")

			log = bytes.Buffer{}
			recall = recaller(t, live, temporal, namespace, policy, &log)
			for range 2 {
				require.Zero(t, recall().Charges)
			}
			require.Equal(t, corrected, live.Lines(t, ledger))
			require.Empty(t, log.String())
			require.Len(t, server.Orders(), 3)
		})
	}
}
