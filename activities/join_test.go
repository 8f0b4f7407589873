package activities_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
)

// attempt runs an activity in an environment of its own, as another attempt in the same
// process. The channel gets its result; the zero value with an error.
func attempt[T any](b *bench, activity, in any) <-chan T {
	suite := testsuite.WorkflowTestSuite{}
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(time.Minute)
	env.RegisterActivity(b.acts)
	result := make(chan T, 1)
	go func() {
		var out T
		if value, err := env.ExecuteActivity(activity, in); err == nil {
			_ = value.Get(&out)
		}
		result <- out
	}()
	return result
}

// awaitCall waits until the shop is being asked.
func (b *bench) awaitCall(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return len(b.shop.Calls()) == 1 }, time.Minute, time.Millisecond)
}

// Given a call that Temporal has lost sight of while it is under way, and asks for again
// in the same process: there is one call, and both hear its answer. A shop that is not
// idempotent would permit no second one: without the answer, the order would be in doubt.
func TestPlaceOrder_CallUnderWayIsJoined(t *testing.T) {
	t.Parallel()
	for name, idempotent := range map[string]bool{"idempotent": true, "not idempotent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				b := setup(t, db, idempotent)
				b.shop.SetFaults(shoptest.Fault{Delay: 2 * time.Second})
				in := activities.PlaceOrderInput{Charge: b.claim(t, "s", "r", billing.ChargeOwner), Installation: ours, Unsent: true}
				first := attempt[billing.Charge](b, b.acts.PlaceOrder, in)
				b.awaitCall(t)
				second := attempt[billing.Charge](b, b.acts.PlaceOrder, in)
				charged := <-first
				require.Equal(t, billing.Charged, charged.Status)
				require.Equal(t, charged, <-second)
				require.Len(t, b.shop.Calls(), 1)
			})
		})
	}
}

// The same for a page, which has no PlaceOrder: a shop that takes a repeated request id
// for the same order need not take two at once.
func TestChargePage_CallUnderWayIsJoined(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		run := b.record(t, billing.RunRunning, modelstest.Long.AddDate(0, 1, 0))
		b.shop.SetFaults(shoptest.Fault{Delay: 2 * time.Second})
		in := activities.ChargePageInput{
			RunRef: activities.RunRef{Installation: ours, RunID: run.ID, Period: run.Period, Execution: "e"}, Number: 1, UpTo: "s", Concurrency: 1,
		}
		first := attempt[activities.ChargePageOutput](b, b.acts.ChargePage, in)
		b.awaitCall(t)
		second := attempt[activities.ChargePageOutput](b, b.acts.ChargePage, in)
		require.True(t, (<-first).Done)
		require.True(t, (<-second).Done)
		require.Len(t, b.shop.Calls(), 1)
		require.Equal(t, []string{"s charged"}, db.Lines(t, "SELECT subscription_id || ' ' || status FROM charge"))
	})
}
