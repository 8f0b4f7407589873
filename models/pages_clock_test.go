package models_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models/modelstest"
)

// A cancel that has answered before a page has its locks is honoured, however
// long the page has looked for its subscriptions: eligibility is asked at a time
// after the locks.
func TestAPageHonoursACancelThatComesBeforeItsLocks(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	recordRun(t, b.Database, thisRun.ID, day(0))
	now, asked := day(0), 0
	page := b.Open(t, func() time.Time {
		if asked++; asked == 1 { // the page has begun, and a cancel overtakes it
			b.clock.set(day(0).Add(time.Second))
			s, err := b.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Cancelled})
			require.NoError(t, err)
			require.Nil(t, s.InProgress)
			defer func() { now = day(0).Add(2 * time.Second) }()
		}
		return now
	})

	claimed, err := page.ClaimPage(t.Context(), billing.PageClaim{
		RunID: thisRun.ID, Owner: "page", Period: november, UpTo: "z", Limit: 10, HeldFor: time.Minute,
	})

	require.NoError(t, err)
	require.Empty(t, claimed.Charges)
	require.Zero(t, claimed.Locked)
	require.Empty(t, b.Lines(t, "SELECT request_id FROM charge"))
}
