package billing_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
)

// day is a moment n days after the first of November 2026.
func day(n int) time.Time { return time.Date(2026, 11, 1+n, 12, 0, 0, 0, time.UTC) }

// genHistory makes histories in which dates and statuses meet often, and most
// things can be null.
func genHistory() *rapid.Generator[[]billing.Change] {
	return rapid.Custom(func(t *rapid.T) []billing.Change {
		date := rapid.Ptr(rapid.Map(rapid.IntRange(0, 3), day), true)
		ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "B", "_", "-", "Ä", "z", "aa", "0"}), 0, 6, rapid.ID[string]).Draw(t, "ids")
		history := make([]billing.Change, 0, len(ids))
		for _, id := range ids {
			history = append(history, billing.Change{
				ID: id, StatusID: rapid.IntRange(0, 4).Draw(t, "status"),
				EffectDate: date.Draw(t, "effect"), CreateDate: date.Draw(t, "created"),
			})
		}
		return history
	})
}

// naiveStatusAt is the sentence of docs/product.md, word by word: every row in
// question is held against every other.
func naiveStatusAt(history []billing.Change, at time.Time) (billing.Change, bool) {
	for _, c := range history {
		if c.EffectDate == nil || c.EffectDate.After(at) {
			continue
		}
		if !slices.ContainsFunc(history, func(d billing.Change) bool {
			return d.EffectDate != nil && !d.EffectDate.After(at) && wins(d, c)
		}) {
			return c, true
		}
	}
	return billing.Change{}, false
}

func wins(d, c billing.Change) bool {
	if !d.EffectDate.Equal(*c.EffectDate) {
		return d.EffectDate.After(*c.EffectDate)
	}
	created := func(c billing.Change) time.Time {
		if c.CreateDate == nil {
			return time.Time{}
		}
		return *c.CreateDate
	}
	if !created(d).Equal(created(c)) {
		return created(d).After(created(c))
	}
	return strings.Compare(d.ID, c.ID) > 0
}

func TestStatusAtIsTheRule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory().Draw(t, "history")
		at := day(rapid.IntRange(-1, 4).Draw(t, "at"))

		got, found := billing.StatusAt(history, at)

		want, wantFound := naiveStatusAt(history, at)
		require.Equal(t, wantFound, found)
		require.Equal(t, want, got)
	})
}

func TestStatusAtDoesNotDependOnTheOrderOfRows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory().Draw(t, "history")
		at := day(rapid.IntRange(-1, 4).Draw(t, "at"))

		got, _ := billing.StatusAt(rapid.Permutation(history).Draw(t, "shuffled"), at)

		want, _ := billing.StatusAt(history, at)
		require.Equal(t, want, got)
	})
}

func TestStatusAtIsInclusiveOnTheFromSide(t *testing.T) {
	t.Parallel()
	effect := day(1)
	history := []billing.Change{{ID: "x", StatusID: int(billing.Active), EffectDate: &effect}}

	_, before := billing.StatusAt(history, effect.Add(-time.Nanosecond))
	_, then := billing.StatusAt(history, effect.In(time.FixedZone("far", -11*3600)))

	require.False(t, before)
	require.True(t, then)
}

func TestWhyNotEligible(t *testing.T) {
	t.Parallel()
	subscription := map[billing.Status]billing.Reason{
		0: billing.ReasonSubscriptionWithoutStatus, billing.Active: "", billing.Cancelled: billing.ReasonSubscriptionCancelled,
		billing.Paused: billing.ReasonSubscriptionPaused, 4: billing.ReasonSubscriptionWithoutStatus, -1: billing.ReasonSubscriptionWithoutStatus,
	}
	club := map[billing.ClubStatus]billing.Reason{
		0: billing.ReasonClubWithoutStatus, billing.ClubActive: "", billing.ClubClosed: "",
		billing.ClubInactive: billing.ReasonClubInactive, 4: billing.ReasonClubWithoutStatus, -1: billing.ReasonClubWithoutStatus,
	}
	for s, why := range subscription {
		for c, whyClub := range club {
			for _, has := range []bool{true, false} {
				want := why
				switch {
				case want != "":
				case !has:
					want = billing.ReasonSubscriptionWithoutClub
				default:
					want = whyClub
				}
				standing := billing.Standing{Subscription: s, Club: c, HasClub: has}
				require.Equal(t, want, billing.WhyNotEligible(standing), "%+v", standing)
				require.Equal(t, want == "", billing.Eligible(standing), "%+v", standing)
				if want != "" {
					require.NotEqual(t, string(want), want.Sentence(), "a reason without a sentence")
				}
			}
		}
	}
}
