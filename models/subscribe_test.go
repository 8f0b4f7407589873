package models_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

func TestSubscribe(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		made, err := b.Subscribe(t.Context(), 1, "bert")

		require.NoError(t, err)
		require.Len(t, made.ID, 36)
		require.Equal(t, 1, made.ClubID)
		require.Equal(t, "bert", made.CustomerID)
		require.Equal(t, int(billing.Active), made.Current.StatusID)
		require.Equal(t, day(0), *made.Current.EffectDate)
		require.Equal(t, day(0), *made.CreateDate)
		require.Empty(t, made.Scheduled)
		require.Nil(t, made.InProgress)

		read, err := b.Subscription(t.Context(), made.ID)
		require.NoError(t, err)
		require.Equal(t, made, read, "the answer is what stands there")
	})
}

func TestSubscribeTakesAnyCustomerID(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for _, id := range append([]string{strings.Repeat("ä", 36)}, nastyIDs...) {
			made, err := b.Subscribe(t.Context(), 1, id)
			require.NoError(t, err, id)
			_, err = b.Subscribe(t.Context(), 1, id)
			requireAlreadySubscribed(t, made.ID, err)
		}
	})
}

func requireAlreadySubscribed(t *testing.T, id string, err error) {
	t.Helper()
	var problem *billing.Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, billing.CodeAlreadySubscribed, problem.Code)
	require.Equal(t, id, problem.SubscriptionID)
}

func TestSubscribeWhereTheClubIsNotActive(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddClub(t, 2, 1, modelstest.Since(billing.ClubClosed, day(-1)))
		b.AddClub(t, 3, 1, modelstest.Since(billing.ClubInactive, day(-1)))
		b.AddClub(t, 4, 1, modelstest.Since(billing.ClubActive, day(1)))
		b.AddClub(t, 5, 1, billing.Change{StatusID: int(billing.ClubActive)})
		b.AddClub(t, 6, 1, modelstest.Since(billing.ClubActive, day(-2)), modelstest.Since(billing.ClubStatus(0), day(-1)))
		for _, club := range []int{2, 3, 4, 5, 6} {
			_, err := b.Subscribe(t.Context(), club, "anna")
			require.Equal(t, billing.CodeClubNotActive, billing.CodeOf(err), "club %d", club)
		}
		for _, club := range []int{0, -1, 7, 1 << 31, 1 << 40, -1 << 40} {
			_, err := b.Subscribe(t.Context(), club, "anna")
			require.Equal(t, billing.CodeClubNotFound, billing.CodeOf(err), "club %d: %v", club, err)
			_, err = b.Club(t.Context(), club)
			require.Equal(t, billing.CodeClubNotFound, billing.CodeOf(err), "club %d: %v", club, err)
		}
		require.Equal(t, []string{"s"}, b.Lines(t, "SELECT id FROM subscription"), "nothing was made")
	})
}

// A customer subscribes to a club once, whatever became of it; and a duplicate
// by hand breaks nothing.
func TestSubscribeTwice(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		_, err := b.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Cancelled})
		require.NoError(t, err)
		_, err = b.Subscribe(t.Context(), 1, "anna")
		requireAlreadySubscribed(t, "s", err)

		b.AddSubscription(t, "S", 1, "anna")
		b.AddSubscription(t, "by-hand", 1, "anna")
		_, err = b.Subscribe(t.Context(), 1, "anna")
		requireAlreadySubscribed(t, firstOf(t, b, "by-hand", "S", "s"), err)

		b.AddClub(t, 2, 1)
		_, err = b.Subscribe(t.Context(), 2, "anna")
		require.NoError(t, err, "another club")
		_, err = b.Subscribe(t.Context(), 1, "Anna")
		require.NoError(t, err, "another customer")
	})
}

// firstOf is the one of the ids that the Store names, always the same one.
func firstOf(t *testing.T, b bundle, ids ...string) string {
	t.Helper()
	_, err := b.Subscribe(t.Context(), 1, "anna")
	var problem *billing.Error
	require.ErrorAs(t, err, &problem)
	require.Contains(t, ids, problem.SubscriptionID)
	return problem.SubscriptionID
}

func TestAHundredIdenticalSubscribes(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		db.AddClub(t, 1, 7)
		stores := []*models.Store{db.Open(t, nil), db.Open(t, nil)} // as two processes have them
		var mu sync.Mutex
		var made, existing []string
		var failures []error
		together(100, func(i int) {
			s, err := stores[i%2].Subscribe(t.Context(), 1, "anna")
			mu.Lock()
			defer mu.Unlock()
			if known, ok := errorAs[*billing.Error](err); ok && known.Code == billing.CodeAlreadySubscribed {
				existing = append(existing, known.SubscriptionID)
			} else if err != nil {
				failures = append(failures, err)
			} else {
				made = append(made, s.ID)
			}
		})

		require.Empty(t, failures)
		require.Len(t, made, 1)
		require.Len(t, existing, 99)
		for _, id := range existing {
			require.Equal(t, made[0], id)
		}
		require.Equal(t, made, db.Lines(t, "SELECT id FROM subscription"))
		require.Equal(t, made, db.Lines(t, "SELECT subscription_id FROM subscription_status_history"))
	})
}

// Two processes write into one file; SQLite's "busy" must not surface.
func TestFiftyWritersAtOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		db.AddClub(t, 1, 7)
		stores := []*models.Store{db.Open(t, nil), db.Open(t, nil)}
		failures := make([]error, 50)
		together(50, func(i int) {
			store := stores[i%2]
			s, err := store.Subscribe(t.Context(), 1, fmt.Sprintf("customer %d", i))
			if err == nil {
				_, err = store.ChangeStatus(t.Context(), s.ID, billing.StatusChange{Status: billing.Paused, IntervalDays: 1})
			}
			if err == nil {
				_, err = store.Subscription(t.Context(), s.ID)
			}
			failures[i] = err
		})
		for _, err := range failures {
			require.NoError(t, err)
		}
		require.Len(t, db.Lines(t, "SELECT id FROM subscription_status_history"), 150)
	})
}

// Nearly everything may be null, by hand.
func TestRowsFullOfNulls(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.Exec(t, "INSERT INTO club (id) VALUES (2)")
		b.Exec(t, "INSERT INTO subscription (id) VALUES ('n')")
		b.Exec(t, "INSERT INTO subscription_status_history (id) VALUES ('of nobody')")
		b.Exec(t, "INSERT INTO subscription_status_history (id, subscription_id) VALUES ('of n', 'n')")
		b.Exec(t, "INSERT INTO club_status_history (id) VALUES ('of no club')")
		b.Exec(t, "INSERT INTO club_status_history (id, club_id) VALUES ('of club 2', 2)")

		clubs, err := b.Clubs(t.Context())
		require.NoError(t, err)
		require.Len(t, clubs, 2)
		require.Equal(t, "Club 1", clubs[0].Name)
		require.Equal(t, billing.Club{ID: 2}, clubs[1])

		s, err := b.Subscription(t.Context(), "n")
		require.NoError(t, err)
		require.Equal(t, &billing.Subscription{ID: "n", At: day(0), Scheduled: []billing.Change{}}, s)

		changed, err := b.ChangeStatus(t.Context(), "n", billing.StatusChange{Status: billing.Active})
		require.NoError(t, err)
		require.Equal(t, int(billing.Active), changed.Current.StatusID)

		_, err = b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "n", Period: november, RequestID: "r"}, "o", true)
		require.Equal(t, billing.CodeNotEligible, billing.CodeOf(err))
	})
}

// PostgreSQL has moments that Go has not; people write "for ever" so.
func TestDatesBeyondTheCalendar(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	b.Exec(t, "INSERT INTO subscription (id, club_id, customer_store_id, create_date) VALUES ('x', 1, 'x', '-infinity')")
	for id, row := range map[string]string{
		"always":     "1, '-infinity', '-infinity'",
		"never":      "2, 'infinity', 'infinity'",
		"long ago":   "3, '0100-01-01 BC', '0100-01-01 BC'",
		"far future": "2, '20000-01-01', '20000-01-01'",
	} {
		b.Exec(t, "INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date) VALUES ('"+id+"', 'x', "+row+")")
	}
	b.Exec(t, "UPDATE club_status_history SET effect_date = '-infinity', create_date = 'infinity'")

	s, err := b.Subscription(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, "long ago", s.Current.ID)
	require.Len(t, s.Scheduled, 2)
	for _, c := range s.Scheduled {
		_, err := c.EffectDate.MarshalJSON()
		require.NoError(t, err)
	}
	_, err = b.Clubs(t.Context())
	require.NoError(t, err)
	changed, err := b.ChangeStatus(t.Context(), "x", billing.StatusChange{Status: billing.Active})
	require.NoError(t, err)
	require.Equal(t, int(billing.Active), changed.Current.StatusID)
	require.Equal(t, []string{"s", "x"}, eligible(t, b.Store, billing.EligibleQuery{At: day(0)}))
}

// What people write into SQLite by hand, with datetime('now') or CURRENT_TIMESTAMP.
func TestDatesAsSQLiteWritesThem(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.SQLite(t))
	for id, date := range map[string]string{"second": "2026-11-01 11:59:59", "milliseconds": "2026-11-01 11:59:58.123"} {
		b.Exec(t, "INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date) VALUES ($1, 's', 2, $2, $2)", id, date)
	}
	e, err := b.Explain(t.Context(), "s", time.Time{})
	require.NoError(t, err)
	require.Equal(t, billing.ReasonSubscriptionCancelled, e.Reason)
	require.Equal(t, "second", e.Subscription.ID)
	require.Equal(t, time.Date(2026, 11, 1, 11, 59, 59, 0, time.UTC), *e.Subscription.EffectDate)
	require.Empty(t, eligible(t, b.Store, billing.EligibleQuery{At: day(0)}))
}
