package models_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/billing"
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
		open, err := b.WithOpenCharge(t.Context(), november, ids)
		require.NoError(t, err)
		require.Empty(t, open)

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

		open, err = b.WithOpenCharge(t.Context(), november, ids)
		require.NoError(t, err)
		require.Equal(t, map[string]bool{"s": true}, open)
	})
}
