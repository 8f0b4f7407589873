package models_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models/modelstest"
)

func TestPutBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		settled := day(1)
		charged := billing.Charge{
			RequestID: "r-1", SubscriptionID: "s", Period: november, Status: billing.Charged, Owner: "recall", RunID: "2026-11/1",
			CustomerID: "anna", SKU: 1, Attempts: 2, Order: []byte(`{"order_id":"4711"}`), CreatedAt: day(0), SettledAt: &settled,
		}
		put := func(c billing.Charge) bool {
			written, err := b.PutBack(t.Context(), c)
			require.NoError(t, err)
			return written
		}
		ids := []string{"s", "other", "nobody"}
		standing, err := b.Standing(t.Context(), november, ids)
		require.NoError(t, err)
		require.Empty(t, standing)

		require.True(t, put(charged))
		stands, err := b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, charged, *stands)
		require.False(t, put(charged), "twice")
		second, reused, declined := charged, charged, charged
		second.RequestID = "r-2"
		require.False(t, put(second), "another stands for the month")
		reused.SubscriptionID = "other"
		require.False(t, put(reused), "the request id is taken")
		declined.RequestID, declined.SubscriptionID, declined.Status = "r-3", "other", billing.Declined
		require.True(t, put(declined))

		standing, err = b.Standing(t.Context(), november, ids)
		require.NoError(t, err)
		require.Equal(t, map[string]billing.ChargeStatus{"s": billing.Charged}, standing)
	})
}

// What is not the database that the run has looked through gives no claim.
func TestAnotherIncarnation(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		incarnation, err := b.Incarnation(t.Context())
		require.NoError(t, err)
		page := pageOf("", last, 10)

		page.Incarnation = "another"
		claimed, err := b.ClaimPage(t.Context(), page)
		require.Equal(t, billing.CodeDatabaseReplaced, billing.CodeOf(err), "%v", err)
		require.Zero(t, claimed)
		require.Empty(t, b.Lines(t, "SELECT request_id FROM charge"))

		page.Incarnation = incarnation
		require.Len(t, claimPage(t, b.Store, page).Charges, 1)
	})
}

func TestARewrittenLedgerIsAnotherIncarnation(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	before, err := b.Incarnation(t.Context())
	require.NoError(t, err)
	b.AddSubscription(t, "other", 1, "bob")
	same, err := b.Incarnation(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, same)

	b.Exec(t, "TRUNCATE charge") // as pg_restore into the same database does it

	after, err := b.Incarnation(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, before, after)
}

// SQLite: somebody may have replaced the file while no worker was there.
func TestAMarkedFileIsAnotherIncarnation(t *testing.T) {
	t.Parallel()
	db := modelstest.SQLite(t)
	incarnation := func() string {
		incarnation, err := db.Open(t, nil).Incarnation(t.Context())
		require.NoError(t, err)
		return incarnation
	}
	before := incarnation()
	require.Equal(t, before, incarnation(), "who only reads changes nothing")
	require.NoError(t, db.Open(t, nil).Mark(t.Context()))
	marked := incarnation()
	require.NotEqual(t, before, marked)
	db.Exec(t, "CREATE TABLE restored (id)") // what sqlite3's .restore does to the schema's number
	require.NotEqual(t, marked, incarnation())
}
