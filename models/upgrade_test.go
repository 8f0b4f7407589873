package models_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models/modelstest"
)

// A newer version's migration adds a column while this program serves. Its
// connections have prepared their statements before: a "SELECT *" among them
// fails then, with "cached plan must not change result type", and within a
// transaction nothing tries it again.
func TestAColumnMoreBreaksNoPreparedStatement(t *testing.T) {
	t.Parallel()
	db := modelstest.Postgres(t)
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	store := db.Open(t, nil)
	pool, err := store.WritingPool()
	require.NoError(t, err)
	pool.SetMaxOpenConns(1) // the one that has prepared them
	period := billing.PeriodAt(time.Now(), time.UTC)
	run, err := begun(store, runOf(period, "e", billing.RunSettings{OrdersPerSecond: 1000}.WithDefaults()))
	require.NoError(t, err)
	use := func() {
		claim, err := store.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "s", Period: period, RequestID: "r"}, "me", true)
		require.NoError(t, err)
		_, err = store.SettleCharge(t.Context(), *claim.Charge)
		require.NoError(t, err)
		_, err = store.Charges(t.Context(), "s")
		require.NoError(t, err)
		_, err = store.Charge(t.Context(), "s", period)
		require.NoError(t, err)
		_, err = store.OwnClaims(t.Context(), run.ID, "me")
		require.NoError(t, err)
		_, err = store.ReserveSlots(t.Context(), run.ID, 1)
		require.NoError(t, err)
		_, err = store.Runs(t.Context())
		require.NoError(t, err)
		_, err = store.Resolve(t.Context(), billing.Resolution{SubscriptionID: "s", Period: period, Outcome: billing.Charged, Note: "n"})
		require.Equal(t, billing.CodeChargeNotUnresolved, billing.CodeOf(err), "%v", err)
	}
	use()
	for _, table := range []string{"charge", "billing_run"} {
		db.Exec(t, "ALTER TABLE "+table+" ADD COLUMN more text")
		use()
	}
}
