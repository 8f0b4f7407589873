package models_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
	"drayman/models/modelstest"
)

func (b bundle) change(t *testing.T, now time.Time, c billing.StatusChange) *billing.Subscription {
	t.Helper()
	b.clock.set(now)
	s, err := b.ChangeStatus(t.Context(), "s", c)
	require.NoError(t, err)
	require.Equal(t, now, s.At)
	return s
}

func (b bundle) statusAt(t *testing.T, at time.Time) billing.Status {
	t.Helper()
	e, err := b.Explain(t.Context(), "s", at)
	require.NoError(t, err)
	return billing.Status(e.Subscription.StatusID)
}

func TestPauseReturnsByItself(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		s := b.change(t, day(0), billing.StatusChange{Status: billing.Paused, IntervalDays: 30, Details: "holidays'; --"})

		require.Equal(t, int(billing.Paused), s.Current.StatusID)
		require.Equal(t, "holidays'; --", s.Current.Details)
		require.Len(t, s.Scheduled, 1)
		require.Equal(t, day(30), *s.Scheduled[0].EffectDate)
		require.Equal(t, billing.AutomaticReturnDetails, s.Scheduled[0].Details)
		require.Equal(t, billing.Paused, b.statusAt(t, day(30).Add(-time.Microsecond)))
		require.Equal(t, billing.Active, b.statusAt(t, day(30)))
	})
}

func TestCancelledInAPauseIsCancelledForEver(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.change(t, day(0), billing.StatusChange{Status: billing.Paused, IntervalDays: 30})
		s := b.change(t, day(5), billing.StatusChange{Status: billing.Cancelled})

		require.Empty(t, s.Scheduled)
		b.clock.set(day(31))
		read, err := b.Subscription(t.Context(), "s")
		require.NoError(t, err)
		require.Equal(t, int(billing.Cancelled), read.Current.StatusID)
		require.Empty(t, eligible(t, b.Store, billing.EligibleQuery{At: day(31)}))
		_, err = b.ClaimCharge(t.Context(), request("r"), "o", true)
		require.Equal(t, billing.CodeNotEligible, billing.CodeOf(err))
	})
}

func TestExplicitlyScheduledChangesStay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.change(t, day(0), billing.StatusChange{Status: billing.Cancelled, EffectDate: day(20)})
		s := b.change(t, day(1), billing.StatusChange{Status: billing.Paused, IntervalDays: 30})
		require.Len(t, s.Scheduled, 1, "the cancel, and no return after it")
		b.change(t, day(2), billing.StatusChange{Status: billing.Active})
		require.Equal(t, billing.Active, b.statusAt(t, day(2)))
		require.Equal(t, billing.Cancelled, b.statusAt(t, day(40)))
	})
}

// The clock gives one microsecond three times.
func TestTheLastOfSeveralWordsAtOneMoment(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for range 5 {
			for _, status := range []billing.Status{billing.Cancelled, billing.Active, billing.Paused} {
				s := b.change(t, day(0), billing.StatusChange{Status: status})
				require.Equal(t, int(status), s.Current.StatusID)
			}
		}
	})
}

func TestChangeStatusIsInForceWhenItHasAnswered(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		db.AddClub(t, 1, 7)
		db.AddSubscription(t, "s", 1, "anna")
		store := db.Open(t, nil) // the real clock
		_, err := store.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Cancelled})
		require.NoError(t, err)
		_, err = store.ClaimCharge(t.Context(), request("r"), "o", true)
		require.Equal(t, billing.CodeNotEligible, billing.CodeOf(err))
	})
}

func TestChangeStatusRefuses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for _, id := range []string{"S", "unknown", "s ", "%", "'", strings.Repeat("x", 40)} {
			_, err := b.ChangeStatus(t.Context(), id, billing.StatusChange{Status: billing.Active})
			require.Equal(t, billing.CodeSubscriptionNotFound, billing.CodeOf(err), id)
			_, err = b.Subscription(t.Context(), id)
			require.Equal(t, billing.CodeSubscriptionNotFound, billing.CodeOf(err), id)
			_, err = b.Explain(t.Context(), id, day(0))
			require.Equal(t, billing.CodeSubscriptionNotFound, billing.CodeOf(err), id)
		}
		for _, bad := range []billing.StatusChange{{Status: 9}, {Status: billing.Active, IntervalDays: 1}, {Status: billing.Active, Details: strings.Repeat("x", 257)}} {
			_, err := b.ChangeStatus(t.Context(), "s", bad)
			require.Equal(t, billing.CodeInvalid, billing.CodeOf(err))
		}
		require.Len(t, b.Lines(t, "SELECT id FROM subscription_status_history"), 1, "nothing was written")
	})
}

// A change says which charge it comes too late for.
func TestChangeStatusTellsOfAChargeInProgress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		cancel := billing.StatusChange{Status: billing.Cancelled}
		require.Nil(t, b.change(t, day(0), billing.StatusChange{Status: billing.Active}).InProgress)

		claimed := b.claim(t, "r", "o").Charge
		late := b.change(t, day(1), cancel).InProgress
		require.NotNil(t, late)
		require.Equal(t, billing.Pending, late.Status)
		require.Equal(t, november, late.Period)

		b.settle(t, *claimed, billing.Unresolved)
		require.Equal(t, billing.Unresolved, b.change(t, day(2), cancel).InProgress.Status)

		b.settle(t, *claimed, billing.Charged)
		require.Nil(t, b.change(t, day(3), cancel).InProgress)
	})
}

// Whatever is done to it, in whatever order: what the plan says is what stands
// in the tables.
func TestChangesThroughTheStore(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		rapid.Check(t, func(rt *rapid.T) {
			b.Exec(t, "DELETE FROM subscription_status_history")
			var history []billing.Change
			for n := range rapid.IntRange(1, 6).Draw(rt, "changes") {
				c := billing.StatusChange{
					Status:     rapid.SampledFrom([]billing.Status{billing.Active, billing.Cancelled, billing.Paused}).Draw(rt, "status"),
					EffectDate: day(rapid.IntRange(0, 8).Draw(rt, "day")),
				}
				if c.Status == billing.Paused {
					c.IntervalDays = rapid.IntRange(0, 4).Draw(rt, "interval")
				}
				b.clock.set(day(n / 2))
				_, err := b.ChangeStatus(t.Context(), "s", c)
				require.NoError(rt, err)
				history = planned(history, c, day(n/2))
			}
			rows := []string{}
			for _, c := range history {
				rows = append(rows, fmt.Sprint(c.StatusID, *c.EffectDate, *c.CreateDate, c.Details))
			}
			read, err := b.Subscription(t.Context(), "s")
			require.NoError(rt, err)
			current, _ := billing.StatusAt(history, read.At)
			require.Equal(rt, current.StatusID, read.Current.StatusID)
			require.ElementsMatch(rt, rows, historyOf(t, b))
		})
	})
}

// historyOf are the rows of s, but for their ids.
func historyOf(t *testing.T, b bundle) []string {
	t.Helper()
	rows, err := b.Pool.QueryContext(t.Context(), `SELECT status_id, effect_date, create_date, coalesce(details, '')
		FROM subscription_status_history WHERE subscription_id = 's'`)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }() // rows.Err tells what went wrong
	history := []string{}
	for rows.Next() {
		var c billing.Change
		require.NoError(t, rows.Scan(&c.StatusID, &c.EffectDate, &c.CreateDate, &c.Details))
		history = append(history, fmt.Sprint(c.StatusID, c.EffectDate.UTC(), c.CreateDate.UTC(), c.Details))
	}
	require.NoError(t, rows.Err())
	return history
}

func planned(history []billing.Change, c billing.StatusChange, now time.Time) []billing.Change {
	plan := billing.PlanStatusChange(history, c, now, uuid.NewString)
	return append(slices.DeleteFunc(history, func(row billing.Change) bool {
		return slices.ContainsFunc(plan.Remove, func(r billing.Change) bool { return r.ID == row.ID })
	}), plan.Add...)
}
