package activities_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"drayman/activities"
	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
	"drayman/shop"
	"drayman/shop/shoptest"
)

// bench is the activities around a real database and a (fake) shop over HTTP.
type bench struct {
	modelstest.Database
	*testsuite.TestActivityEnvironment
	acts     *activities.Activities
	store    *models.Store
	shop     *shoptest.Server
	temporal seam
}

var november = billing.PeriodAt(time.Date(2026, 11, 15, 0, 0, 0, 0, time.UTC), time.UTC)

const ours = modelstest.Installation

func setup(t *testing.T, db modelstest.Database, idempotent bool) *bench {
	t.Helper()
	b := &bench{Database: db, shop: shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})}
	b.store = db.Open(t, func() time.Time { return time.Date(2026, 11, 15, 0, 0, 0, 0, time.UTC) })
	db.AddClub(t, 1, 7)
	for _, id := range []string{"s", "t"} {
		db.AddSubscription(t, id, 1, "customer of "+id)
	}
	client, err := shop.New(shop.Config{URL: b.shop.URL, APIKey: "key", APISecret: "secret", Timeout: 5 * time.Second})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	suite := testsuite.WorkflowTestSuite{}
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	b.TestActivityEnvironment = suite.NewTestActivityEnvironment()
	b.SetTestTimeout(time.Minute)
	b.acts = activities.New(activities.Config{
		Store: b.store, Shop: client, Zone: time.UTC, Temporal: &b.temporal, Log: slog.New(slog.DiscardHandler),
		Policy: activities.Policy{Idempotent: idempotent, RetryFor: time.Hour, ShopTimeout: 5 * time.Second},
	})
	b.RegisterActivity(b.acts)
	return b
}

func (b *bench) claim(t *testing.T, subscription string, id billing.RequestID, owner string) billing.Charge {
	t.Helper()
	claim, err := b.store.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: subscription, Period: november, RequestID: id}, owner, true)
	require.NoError(t, err)
	return *claim.Charge
}

func (b *bench) place(c billing.Charge) (out billing.Charge, err error) {
	value, err := b.ExecuteActivity(b.acts.PlaceOrder, activities.PlaceOrderInput{Installation: ours, Charge: c, Unsent: true})
	if err == nil {
		err = value.Get(&out)
	}
	return out, err
}

func requireFinal(t *testing.T, err error, code string) {
	t.Helper()
	var failure *temporal.ApplicationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, code, failure.Type())
	require.True(t, failure.NonRetryable())
	require.NotEmpty(t, failure.Message())
}

// The shop is asked for what was claimed, whatever the input says.
func TestPlaceOrder_AsksForWhatWasClaimed(t *testing.T) {
	t.Parallel()
	for name, idempotent := range map[string]bool{"idempotent": true, "not idempotent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				b := setup(t, db, idempotent)
				forged := b.claim(t, "s", "r", billing.ChargeOwner)
				forged.CustomerID, forged.SKU, forged.ClubID, forged.Status = "somebody", 777, 9, billing.Charged
				placed, err := b.place(forged)
				require.NoError(t, err)
				require.Equal(t, billing.Charged, placed.Status)
				require.Equal(t, 1, placed.ClubID)
				require.Len(t, b.shop.Orders(), 1)
				require.Equal(t, "customer of s", b.shop.Orders()[0].CustomerID)
				require.Equal(t, 7, b.shop.Orders()[0].SKU)
			})
		})
	}
}

// Without its claim nothing is asked of the shop.
func TestPlaceOrder_NoClaimAsksNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		claimed := b.claim(t, "s", "r", billing.ChargeOwner)
		for code, change := range map[string]func(c *billing.Charge){
			string(billing.CodeChargeNotFound): func(c *billing.Charge) { c.RequestID = "R" },
			"request_id_reused":                func(c *billing.Charge) { c.SubscriptionID = "t" },
		} {
			c := claimed
			change(&c)
			_, err := b.place(c)
			requireFinal(t, err, code)
		}
		later := claimed
		later.Period = billing.PeriodAt(time.Date(2026, 12, 15, 0, 0, 0, 0, time.UTC), time.UTC)
		_, err := b.place(later)
		requireFinal(t, err, "request_id_reused")
		_, err = b.place(billing.Charge{})
		requireFinal(t, err, string(billing.CodeChargeNotFound))

		db.Exec(t, "UPDATE charge SET owner = 'billing-run/2026-11/1 page 1', claimed_until = $1", time.Date(2026, 11, 15, 0, 5, 0, 0, time.UTC))
		_, err = b.place(claimed)
		requireRetried(t, err, activities.FailureShopNotNow, "is held by")
		db.Exec(t, "UPDATE charge SET request_id = '../../admin', owner = 'charge', claimed_until = NULL")
		claimed.RequestID = "../../admin"
		_, err = b.place(claimed)
		requireFinal(t, err, string(billing.CodeInvalid))
		require.Empty(t, b.shop.Calls())
	})
}

// What is settled already is the answer.
func TestPlaceOrder_SettledRowIsReturned(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		claimed := b.claim(t, "s", "r", billing.ChargeOwner)
		for _, status := range []billing.ChargeStatus{billing.Unresolved, billing.Declined, billing.Charged} {
			db.Exec(t, "UPDATE charge SET status = $1", string(status))
			placed, err := b.place(claimed)
			require.NoError(t, err)
			require.Equal(t, status, placed.Status)
		}
		require.Empty(t, b.shop.Calls())
	})
}

// The run's row decides its month and settings, and inputs that no run of ours gives
// are refused for good.
func TestRunActivities_RefuseBadInput(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		run, recalled, err := b.store.StartRun(t.Context(), billing.RunStart{
			Period: november, ExecutionID: "e", Settings: billing.RunSettings{}.WithDefaults(), ConfirmPast: true, Zone: time.UTC, Installation: ours,
		})
		require.NoError(t, err)
		named := activities.RunRef{Installation: ours, RunID: run.ID, Period: november, Recalled: recalled}
		december, unknown := named, named
		december.Period = billing.PeriodAt(time.Date(2026, 12, 15, 0, 0, 0, 0, time.UTC), time.UTC)
		unknown.RunID = "2026-11/9"
		pace := -3.0
		good := billing.RunSettings{}.WithDefaults()
		bad := func(change func(s *billing.RunSettings)) billing.RunSettings { s := good; change(&s); return s }
		const invalid, gone = string(billing.CodeInvalid), string(billing.CodeRunNotFound)
		for _, of := range []struct {
			activity, in any
			code         string
		}{
			{b.acts.StartRun, activities.StartRunInput{Installation: ours, ExecutionID: "x", Settings: good}, invalid},
			{b.acts.StartRun, activities.StartRunInput{Installation: ours, Period: november, Settings: good}, invalid},
			{b.acts.StartRun, activities.StartRunInput{Installation: ours, Period: november, ExecutionID: "x"}, invalid},
			{b.acts.StartRun, activities.StartRunInput{Installation: ours, Period: november, ExecutionID: "x", Settings: bad(func(s *billing.RunSettings) { s.PageSize = 1e9 })}, invalid},
			{b.acts.StartRun, activities.StartRunInput{Installation: ours, Period: november, ExecutionID: "x", Settings: bad(func(s *billing.RunSettings) { s.OrdersPerSecond = -3 })}, invalid},
			{b.acts.PlanRun, activities.PlanRunInput{RunRef: unknown, PageSize: 10, Pages: 1}, gone},
			{b.acts.PlanRun, activities.PlanRunInput{RunRef: named, PageSize: -1, Pages: 1}, invalid},
			{b.acts.PlanRun, activities.PlanRunInput{RunRef: named, PageSize: 10}, invalid},
			{b.acts.PlanRun, activities.PlanRunInput{RunRef: named, PageSize: 5000, Pages: 1e9}, invalid},
			{b.acts.ChargePage, activities.ChargePageInput{RunRef: named, UpTo: "z"}, invalid},
			{b.acts.ChargePage, activities.ChargePageInput{RunRef: december, Number: 1, UpTo: "z"}, invalid},
			{b.acts.WatchRun, activities.WatchRunInput{RunRef: december, State: billing.RunRunning}, invalid},
			{b.acts.ChangeRun, activities.ChangeRunInput{RunRef: named}, invalid},
			{b.acts.ChangeRun, activities.ChangeRunInput{RunRef: named, Change: billing.RunChange{State: billing.RunAbandoned}}, invalid},
			{b.acts.ChangeRun, activities.ChangeRunInput{RunRef: named, Change: billing.RunChange{OrdersPerSecond: &pace}}, invalid},
			{b.acts.ChangeRun, activities.ChangeRunInput{RunRef: unknown, Change: billing.RunChange{State: billing.RunPaused}}, gone},
			{b.acts.Progress, unknown, gone},
			{b.acts.Recall, activities.RecallInput{Installation: "another"}, string(billing.CodeOtherInstallation)},
			{b.acts.SettleCharge, activities.SettleChargeInput{Installation: ours}, invalid},
			{b.acts.SettleCharge, activities.SettleChargeInput{Installation: ours, Charge: billing.Charge{RequestID: "r", SubscriptionID: "s", Period: november, Status: billing.Pending}}, invalid},
			{b.acts.ClaimCharge, billing.ChargeRequest{Installation: ours, SubscriptionID: "s", Period: november, RequestID: "a/../../b"}, invalid},
			{b.acts.ClaimCharge, billing.ChargeRequest{Installation: ours, SubscriptionID: "s", RequestID: "r"}, invalid},
			{b.acts.ClaimCharge, billing.ChargeRequest{Installation: ours, SubscriptionID: "s", Period: november, RunID: unknown.RunID}, gone},
		} {
			_, err := b.ExecuteActivity(of.activity, of.in)
			requireFinal(t, err, of.code)
		}
		require.Empty(t, b.shop.Calls())
		require.Empty(t, db.Lines(t, "SELECT request_id FROM charge"))
		require.Equal(t, []string{"running 0"}, db.Lines(t, "SELECT state || ' ' || CAST(CAST(orders_per_second AS integer) AS text) FROM billing_run"))
	})
}

// Ids that people have put into the tables are charged by runs as they are.
func TestClaimCharge_RunTakesIDsOfTheTables(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		db.AddSubscription(t, "a\tb", 1, "tab")
		run, _, err := b.store.StartRun(t.Context(), billing.RunStart{
			Period: november, ExecutionID: "e", Settings: billing.RunSettings{}.WithDefaults(), ConfirmPast: true, Zone: time.UTC, Installation: ours,
		})
		require.NoError(t, err)
		_, err = b.ExecuteActivity(b.acts.ClaimCharge, billing.ChargeRequest{Installation: ours, SubscriptionID: "a\tb", Period: november, RunID: run.ID})
		require.NoError(t, err)
		require.Equal(t, []string{"a\tb"}, db.Lines(t, "SELECT subscription_id FROM charge"))
	})
}
