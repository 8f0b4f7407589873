package models_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
)

func TestSettleCharge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		c := *b.claim(t, "r", "o").Charge
		c.Status, c.Attempts = billing.Charged, 3
		c.Order = json.RawMessage(` {"order" : "it's \"ön\"  🍺", "a":"\u0000", "q":"?@at$1%"}` + "\n")
		b.clock.set(day(1))

		settled, err := b.SettleCharge(t.Context(), c)

		require.NoError(t, err)
		c.SettledAt = new(day(1))
		require.Equal(t, &c, settled)
		require.Equal(t, string(c.Order), string(settled.Order), "byte for byte")
	})
}

func TestSettleCharge_KeepsALargeOrder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		c := *b.claim(t, "r", "o").Charge
		c.Status, c.Order = billing.Charged, json.RawMessage(`"`+strings.Repeat("ä", 32<<10-1)+`"`)
		require.Len(t, c.Order, 64<<10)

		settled, err := b.SettleCharge(t.Context(), c)

		require.NoError(t, err)
		require.Equal(t, string(c.Order), string(settled.Order))
	})
}

// Settling is retried until the database takes it: no sentence of a shop or a
// driver may be one that it never takes.
func TestSettleCharge_TakesAnyFailureDetail(t *testing.T) {
	t.Parallel()
	for name, detail := range map[string]string{
		"long": strings.Repeat("ä", 5000), "binary": "a\x00b\xffc", "binary and long": strings.Repeat("\xff\x00ä", 2000), "empty": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, b bundle) {
				c := *b.claim(t, "r", "o").Charge
				c.Status, c.FailureCode, c.FailureDetail = billing.Declined, strings.Repeat("c", 100), detail
				settled, err := b.SettleCharge(t.Context(), c)
				require.NoError(t, err)
				require.Equal(t, billing.Declined, settled.Status)
				require.LessOrEqual(t, len([]rune(settled.FailureDetail)), 1024)
				if detail != "" {
					require.NotEmpty(t, settled.FailureDetail)
				}
			})
		})
	}
}

// What stands settled stays, whoever comes late.
func TestSettleCharge_Twice(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		c := *b.claim(t, "r", "o").Charge
		c.Order = json.RawMessage(`1`)
		b.settle(t, c, billing.Unresolved)
		first := b.settle(t, c, billing.Charged)
		b.clock.set(day(1))
		c.Order = json.RawMessage(`2`)
		for _, late := range []billing.ChargeStatus{billing.Charged, billing.Declined, billing.Unresolved} {
			require.Equal(t, first, b.settle(t, c, late), "as it stands, not as it was asked for")
		}
	})
}

func TestSettleCharge_AfterAPersonHas(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		c := *b.claim(t, "r", "o").Charge
		b.settle(t, c, billing.Unresolved)
		resolved, err := b.Resolve(t.Context(), billing.Resolution{SubscriptionID: "s", Period: november, Outcome: billing.Charged, By: "Ana", Note: "seen"})
		require.NoError(t, err)
		for _, late := range []billing.ChargeStatus{billing.Charged, billing.Declined, billing.Unresolved} {
			require.Equal(t, resolved, b.settle(t, c, late))
		}
	})
}

// The order exists, so it must have its row, even if a person or an older
// database has lost it.
func TestSettleCharge_WritesALostRowAnew(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		c := *b.claim(t, "r", "o").Charge
		b.Exec(t, "DELETE FROM charge")

		settled := b.settle(t, c, billing.Charged)

		c.Status, c.SettledAt = billing.Charged, new(day(0))
		require.Equal(t, &c, settled)
		require.Equal(t, billing.StepAnswer, b.claim(t, "r-2", "o").Step)
	})
}

func TestSettleCharge_AnotherHasTakenThePlace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		lost := *b.claim(t, "r-1", "o").Charge
		b.Exec(t, "DELETE FROM charge")
		b.claim(t, "r-2", "o")
		for _, status := range []billing.ChargeStatus{billing.Charged, billing.Unresolved} {
			lost.Status = status
			_, err := b.SettleCharge(t.Context(), lost)
			require.Equal(t, billing.CodeLedgerConflict, billing.CodeOf(err), "%v", err)
			require.ErrorContains(t, err, "r-1")
		}
		require.Equal(t, billing.Declined, b.settle(t, lost, billing.Declined).Status, "a decline takes nobody's place")
	})
}

func TestResolve(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		resolution := billing.Resolution{SubscriptionID: "s", Period: november, Outcome: billing.Declined, By: "Ana", Note: "it's not \"there\" 🍺"}
		_, err := b.Resolve(t.Context(), resolution)
		require.Equal(t, billing.CodeChargeNotFound, billing.CodeOf(err))

		c := *b.claim(t, "r", "o").Charge
		_, err = b.Resolve(t.Context(), resolution)
		problem, ok := errorAs[*billing.Error](err)
		require.True(t, ok)
		require.Equal(t, billing.CodeChargeNotUnresolved, problem.Code)
		require.Equal(t, billing.Pending, problem.Charge.Status)

		b.settle(t, c, billing.Unresolved)
		b.clock.set(day(2))
		resolved, err := b.Resolve(t.Context(), resolution)
		require.NoError(t, err)
		require.Equal(t, billing.Declined, resolved.Status)
		require.Equal(t, "Ana", resolved.ResolvedBy)
		require.Equal(t, resolution.Note, resolved.ResolvedNote)
		require.Equal(t, day(2), *resolved.SettledAt)
		require.Equal(t, billing.StepPlace, b.claim(t, "r-2", "o").Step, "the month is free again")
	})
}

// Several charges of one microsecond: the answer is the one that was settled.
func TestResolve_ShowsTheChargeThatItSettled(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.settle(t, *b.claim(t, "z", "o").Charge, billing.Declined)
		b.settle(t, *b.claim(t, "a", "o").Charge, billing.Unresolved)
		resolved, err := b.Resolve(t.Context(), billing.Resolution{SubscriptionID: "s", Period: november, Outcome: billing.Declined, Note: "n"})
		require.NoError(t, err)
		require.Equal(t, billing.RequestID("a"), resolved.RequestID)
	})
}

func TestResolve_Once(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.settle(t, *b.claim(t, "r", "o").Charge, billing.Unresolved)
		failures := make([]error, 10)
		together(10, func(i int) {
			outcome := []billing.ChargeStatus{billing.Charged, billing.Declined}[i%2]
			_, failures[i] = b.Resolve(t.Context(), billing.Resolution{SubscriptionID: "s", Period: november, Outcome: outcome, Note: fmt.Sprint(i)})
		})
		done := 0
		for _, err := range failures {
			if err == nil {
				done++
			} else {
				require.Equal(t, billing.CodeChargeNotUnresolved, billing.CodeOf(err), "%v", err)
			}
		}
		require.Equal(t, 1, done)
	})
}

func TestCharges_NewestFirst(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		none, err := b.Charges(t.Context(), "s")
		require.NoError(t, err)
		require.NotNil(t, none, "an empty list in JSON is no null")
		_, err = b.Charge(t.Context(), "s", november)
		require.Equal(t, billing.CodeChargeNotFound, billing.CodeOf(err))

		order := []string{}
		for n, id := range []billing.RequestID{"b", "C", "a"} {
			b.clock.set(day(n))
			b.settle(t, *b.claim(t, id, "o").Charge, billing.Declined)
			order = append([]string{string(id)}, order...)
		}
		last, err := b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, billing.RequestID("a"), last.RequestID, "the last that was declined")

		b.clock.set(day(-1))
		b.claim(t, "open", "o")
		open, err := b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, billing.RequestID("open"), open.RequestID, "what is open comes first, however old")
		december := billing.ChargeRequest{SubscriptionID: "s", Period: billing.PeriodAt(day(31), time.UTC), RequestID: "dec"}
		b.clock.set(day(30))
		_, err = b.ClaimCharge(t.Context(), december, "o", true)
		require.NoError(t, err)

		all, err := b.Charges(t.Context(), "s")
		require.NoError(t, err)
		got := []string{}
		for _, c := range all {
			got = append(got, string(c.RequestID))
		}
		require.Equal(t, append(append([]string{"dec"}, order...), "open"), got)
		_, err = b.Charge(t.Context(), "S", november)
		require.Equal(t, billing.CodeChargeNotFound, billing.CodeOf(err))
	})
}

// An outcome is recorded only for the charge that was claimed.
func TestSettleCharge_AnotherChargesRequestID(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "bert")
		claimed := *b.claim(t, "r", "o").Charge
		other, later := claimed, claimed
		other.SubscriptionID, later.Period = "t", billing.PeriodAt(day(31), time.UTC)
		for _, c := range []billing.Charge{other, later} {
			c.Status = billing.Charged
			_, err := b.SettleCharge(t.Context(), c)
			require.Equal(t, billing.CodeLedgerConflict, billing.CodeOf(err))
		}
		require.Equal(t, []string{"s pending"}, b.Lines(t, "SELECT subscription_id || ' ' || status FROM charge"))
	})
}
