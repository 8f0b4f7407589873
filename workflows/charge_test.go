package workflows_test

import (
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
	"drayman/shop"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// bench is a workflow environment that skips time, around a real database and a
// real (fake) shop over HTTP.
type bench struct {
	env   *testsuite.TestWorkflowEnvironment
	store *models.Store
	shop  *shoptest.Server
	db    modelstest.Database
}

func november(t *testing.T) billing.Period {
	t.Helper()
	p, err := billing.ParsePeriod("2026-11")
	require.NoError(t, err)
	return p
}

// inNovember is a clock that goes, and began in the middle of the month that the
// tests charge: a new charge is of the current month.
func inNovember() time.Time {
	return time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC).Add(time.Since(begun))
}

var begun = time.Now() //nolint:forbidigo // a test's clock, no workflow's

func setup(t *testing.T, policy activities.Policy) *bench {
	t.Helper()
	b := &bench{db: modelstest.SQLite(t), shop: shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"})}
	b.store = b.db.Open(t, inNovember)
	b.db.AddClub(t, 1, 1)
	b.db.AddSubscription(t, "s", 1, "anna")
	if policy.RetryFor == 0 {
		policy.RetryFor = 24 * time.Hour
	}
	policy.ShopTimeout = 5 * time.Second
	shopClient, err := shop.New(shop.Config{URL: b.shop.URL, APIKey: "key", APISecret: "secret", Timeout: policy.ShopTimeout})
	require.NoError(t, err)
	t.Cleanup(shopClient.Close)
	suite := testsuite.WorkflowTestSuite{}
	suite.SetLogger(discard())
	b.env = suite.NewTestWorkflowEnvironment()
	b.env.SetWorkerOptions(worker.Options{})
	b.env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.Names("").ChargeWorkflowID("s", november(t)), TaskQueue: workflows.Names("").TaskQueue()})
	b.env.SetTestTimeout(time.Minute)
	b.env.RegisterWorkflowWithOptions(workflows.ChargeSubscription, workflow.RegisterOptions{Name: workflows.ChargeSubscriptionName})
	b.env.RegisterActivity(activities.New(activities.Config{Store: b.store, Shop: shopClient, Policy: policy, Zone: time.UTC, Log: slog.New(slog.DiscardHandler)}))
	return b
}

// run charges and returns the error's code, "" for a completed workflow.
func (b *bench) run(t *testing.T) (billing.Charge, billing.Code) {
	t.Helper()
	b.env.ExecuteWorkflow(workflows.ChargeSubscriptionName, workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{
		SubscriptionID: "s", Period: november(t), RequestID: "r-1", RequireEligible: true,
		Installation: modelstest.Installation,
	}, ClubID: 1})
	require.True(t, b.env.IsWorkflowCompleted())
	var charge billing.Charge
	err := b.env.GetWorkflowError()
	if err == nil {
		require.NoError(t, b.env.GetWorkflowResult(&charge))
		return charge, ""
	}
	var failure *temporal.ApplicationError
	require.ErrorAs(t, err, &failure)
	var known billing.Error
	require.NoError(t, failure.Details(&known))
	require.Equal(t, string(known.Code), failure.Type())
	if known.Charge != nil {
		charge = *known.Charge
	}
	return charge, known.Code
}

// inLedger returns the charge as the ledger has it.
func (b *bench) inLedger(t *testing.T) *billing.Charge {
	t.Helper()
	c, err := b.store.Charge(t.Context(), "s", november(t))
	require.NoError(t, err)
	return c
}

func TestChargeSubscription_Charged(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	charge, code := b.run(t)
	require.Empty(t, code)
	require.Equal(t, billing.Charged, charge.Status)
	require.Equal(t, b.inLedger(t).Order, charge.Order)
}

func TestChargeSubscription_DeclinedFails(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	b.shop.SetFaults(shoptest.Fault{Status: http.StatusPaymentRequired})
	charge, code := b.run(t)
	require.Equal(t, billing.CodeChargeDeclined, code)
	require.Equal(t, billing.Declined, charge.Status)
	require.Equal(t, billing.Declined, b.inLedger(t).Status)
	require.Len(t, b.shop.Calls(), 1)
}

func TestChargeSubscription_NotEligibleClaimsNothing(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	_, err := b.store.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Cancelled})
	require.NoError(t, err)
	_, code := b.run(t)
	require.Equal(t, billing.CodeNotEligible, code)
	require.Empty(t, b.shop.Calls())
	_, err = b.store.Charge(t.Context(), "s", november(t))
	require.Equal(t, billing.CodeChargeNotFound, billing.CodeOf(err))
}

// The environment gives an activity ten attempts at most; that CHARGE_RETRY_FOR
// ends the retries is shown on a real server, see TestRecord_Charges.
func TestChargeSubscription_OutageLeavesItUnresolved(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	b.shop.SetFaults(shoptest.Fault{Status: http.StatusServiceUnavailable})
	begun := b.env.Now()
	_, code := b.run(t)
	require.Equal(t, billing.CodeChargeUnresolved, code)
	ledger := b.inLedger(t)
	require.Equal(t, billing.Unresolved, ledger.Status)
	require.Equal(t, activities.FailureShopNotNow, ledger.FailureCode)
	require.Contains(t, ledger.FailureDetail, "503")
	require.Len(t, b.shop.Calls(), 11)
	require.Equal(t, 11, ledger.Attempts)
	require.Greater(t, b.env.Now().Sub(begun), 8*time.Minute, "1 s, doubled each time")
}

func TestChargeSubscription_HonoursRetryAfter(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	b.shop.SetFaults(shoptest.Fault{Status: http.StatusTooManyRequests, RetryAfter: "600", Times: 3})
	begun := b.env.Now()
	_, code := b.run(t)
	require.Empty(t, code)
	require.Len(t, b.shop.Calls(), 4)
	require.GreaterOrEqual(t, b.env.Now().Sub(begun), 30*time.Minute)
}

func TestChargeSubscription_RefusedSetUpDeclinesNobody(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	b.shop.SetFaults(shoptest.Fault{Status: http.StatusUnauthorized, Times: 3})
	begun := b.env.Now()
	_, code := b.run(t)
	require.Empty(t, code, "charged as soon as the set-up is mended")
	require.GreaterOrEqual(t, b.env.Now().Sub(begun), 15*time.Minute, "slow retries")
}

// The wait that the shop asks for, or that a refusal brings, is no reason to try
// longer than CHARGE_RETRY_FOR.
func TestChargeSubscription_NoWaitOutlastsTheRetries(t *testing.T) {
	for name, fault := range map[string]shoptest.Fault{
		"asked for": {Status: http.StatusTooManyRequests, RetryAfter: "7200"},
		"refusal":   {Status: http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, activities.Policy{Idempotent: true, RetryFor: 20 * time.Second})
			b.shop.SetFaults(fault)
			start := b.env.Now()
			_, code := b.run(t)
			require.Equal(t, billing.CodeChargeUnresolved, code)
			require.LessOrEqual(t, b.env.Now().Sub(start), time.Minute)
		})
	}
}

func TestChargeSubscription_PageHoldsTheClaim(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	b.db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, customer_id, sku_id, created_at)
		VALUES ('page', 's', '2026-11', 'pending', 'billing-run/1', '9999-01-01 00:00:00.000000', 'anna', 1, '2026-11-01 00:00:00.000000')`)
	b.env.RegisterDelayedCallback(func() {
		require.Empty(t, b.shop.Calls())
		b.db.Exec(t, `UPDATE charge SET status = 'charged', settled_at = '2026-11-01 00:00:01.000000'`)
	}, time.Minute)
	charge, code := b.run(t)
	require.Empty(t, code)
	require.Equal(t, billing.RequestID("page"), charge.RequestID)
	require.Empty(t, b.shop.Calls())
}

func TestChargeSubscription_OperatorCancels(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	b.shop.SetFaults(shoptest.Fault{Status: http.StatusServiceUnavailable})
	b.env.RegisterDelayedCallback(b.env.CancelWorkflow, time.Minute)
	b.env.ExecuteWorkflow(workflows.ChargeSubscriptionName, workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{
		SubscriptionID: "s", Period: november(t), RequestID: "r-1", RequireEligible: true, Installation: modelstest.Installation,
	}})
	var cancelled *temporal.CanceledError
	require.ErrorAs(t, b.env.GetWorkflowError(), &cancelled)
	require.Equal(t, billing.Unresolved, b.inLedger(t).Status, "it can be taken up again")
}

func TestChargeSubscription_IdempotentShop_AsksAgainInDoubt(t *testing.T) {
	b := setup(t, activities.Policy{Idempotent: true})
	b.shop.SetFaults(shoptest.Fault{Cut: shoptest.CutAfter, Times: 5})
	_, code := b.run(t)
	require.Empty(t, code)
	require.Len(t, b.shop.Orders(), 1)
	require.Len(t, b.shop.Calls(), 6)
}

func TestChargeSubscription_NotIdempotent_DoubtIsNotAskedAgain(t *testing.T) {
	for name, fault := range map[string]shoptest.Fault{
		"cut before": {Cut: shoptest.CutBefore}, "cut after": {Cut: shoptest.CutAfter}, "500": {Status: 500, BookFirst: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, activities.Policy{})
			b.shop.SetFaults(fault)
			_, code := b.run(t)
			require.Equal(t, billing.CodeChargeUnresolved, code)
			require.Equal(t, billing.FailureInDoubt, b.inLedger(t).FailureCode)
			require.Len(t, b.shop.Calls(), 1)
		})
	}
	t.Run("busy", func(t *testing.T) {
		b := setup(t, activities.Policy{})
		b.shop.SetFaults(shoptest.Fault{Status: http.StatusTooManyRequests, Times: 4})
		_, code := b.run(t)
		require.Empty(t, code)
		require.Len(t, b.shop.Calls(), 5)
	})
}

// Where no call can have ordered, the ledger says so in the end; where one can, it does
// not forget it over later answers that are certain.
func TestChargeSubscription_ClearsSentAtIfCertain(t *testing.T) {
	t.Parallel()
	never, once := shoptest.Fault{Status: http.StatusTooManyRequests}, shoptest.Fault{Status: http.StatusServiceUnavailable, Times: 1}
	for name, c := range map[string]struct {
		faults     []shoptest.Fault
		idempotent bool
		certain    bool
	}{
		"429":                       {[]shoptest.Fault{never}, true, true},
		"503, then 429":             {[]shoptest.Fault{once, never}, true, false},
		"429, not idempotent":       {[]shoptest.Fault{never}, false, true},
		"503, not idempotent":       {[]shoptest.Fault{once, never}, false, false},
		"429, 503, then 429 always": {[]shoptest.Fault{{Status: http.StatusTooManyRequests, Times: 1}, once, never}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, activities.Policy{Idempotent: c.idempotent, RetryFor: 20 * time.Second})
			b.shop.SetFaults(c.faults...)
			_, code := b.run(t)
			require.Equal(t, billing.CodeChargeUnresolved, code)
			require.Equal(t, c.certain, b.inLedger(t).SentAt.IsZero())
		})
	}
}
