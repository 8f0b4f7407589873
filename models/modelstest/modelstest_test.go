package modelstest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

func TestEachDatabaseIsFreshAndMigrated(t *testing.T) {
	t.Parallel()
	for range 2 {
		modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
			require.Empty(t, db.Lines(t, "SELECT id FROM subscription"))
			db.AddClub(t, 1, 7)
			db.AddSubscription(t, "s", 1, "anna", modelstest.Since(billing.Paused, modelstest.Long))

			now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
			s, err := db.Open(t, func() time.Time { return now }).Subscription(t.Context(), "s")

			require.NoError(t, err)
			require.Equal(t, int(billing.Paused), s.Current.StatusID)
			require.Equal(t, now, s.At)
		})
	}
}

// A suite that orders by bytes by accident would not notice a missing COLLATE.
func TestPostgresDoesNotOrderByBytes(t *testing.T) {
	t.Parallel()
	db := modelstest.Postgres(t)
	require.Equal(t, models.Postgres, db.Dialect)
	require.Equal(t, []string{"a", "B"}, db.Lines(t, "SELECT id FROM (VALUES ('B'::varchar), ('a')) v(id) ORDER BY id"))
}
