package models_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models"
)

// corrected is the correction of charges to the outcome.
func corrected(outcome billing.ChargeStatus, ids ...billing.RequestID) billing.Correction {
	return billing.Correction{RequestIDs: ids, Outcome: outcome, By: "Ana", Note: "the answer was a maintenance page"}
}

// correct corrects charges, which must succeed.
func (b bundle) correct(t *testing.T, outcome billing.ChargeStatus, ids ...billing.RequestID) []billing.Charge {
	t.Helper()
	charges, err := b.Correct(t.Context(), corrected(outcome, ids...))
	require.NoError(t, err)
	return charges
}

// requireRefused holds that the correction is refused, and has written nothing.
func (b bundle) requireRefused(t *testing.T, c billing.Correction, code billing.Code) *refusal {
	t.Helper()
	ledger, audit := b.ledger(t), b.audit(t)
	_, err := b.Correct(t.Context(), c)
	refused, ok := errorAs[*billing.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, refused.Code, refused.Detail)
	require.Equal(t, ledger, b.ledger(t))
	require.Equal(t, audit, b.audit(t))
	return (*refusal)(refused)
}

// refusal is an error that a test has looked at.
type refusal billing.Error

func (b bundle) ledger(t *testing.T) []string {
	t.Helper()
	return b.Lines(t, "SELECT request_id || ' ' || status || ' ' || coalesce(resolved_note, '') FROM charge ORDER BY request_id")
}

func (b bundle) audit(t *testing.T) []string {
	t.Helper()
	return b.Lines(t, "SELECT coalesce(actor, '') || '|' || action || '|' || subject || '|' || reason FROM audit ORDER BY id")
}

// charged claims and settles a charge of s with an order of the shop's.
func (b bundle) charged(t *testing.T, id billing.RequestID) billing.Charge {
	t.Helper()
	c := *b.claim(t, id, "o").Charge
	c.Order, c.Attempts = json.RawMessage(`{"order_id": "`+id+`"}`), 1
	return *b.settle(t, c, billing.Charged)
}

func TestCorrect_ChargedToDeclined(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		before := b.charged(t, "r-1")
		b.clock.set(day(1))

		charges := b.correct(t, billing.Declined, "r-1")

		want := before
		want.Status, want.FailureCode, want.FailureDetail = billing.Declined, "corrected", "the answer was a maintenance page"
		want.ResolvedBy, want.ResolvedNote, want.SettledAt = "Ana", "the answer was a maintenance page", new(day(1))
		require.Equal(t, []billing.Charge{want}, charges, "the shop's answer is kept")
		require.Equal(t, []string{"Ana|charge.correct|charge/r-1|the answer was a maintenance page"}, b.audit(t))
		require.True(t, strings.HasPrefix(b.Lines(t, "SELECT CAST(at AS text) FROM audit")[0], "2026-11-02 12:00:00"))
		var detail struct {
			From, To string
			Before   billing.Charge
		}
		require.NoError(t, json.Unmarshal([]byte(b.Lines(t, "SELECT detail FROM audit")[0]), &detail))
		require.Equal(t, "charged declined", detail.From+" "+detail.To)
		require.Equal(t, before.SettledAt, detail.Before.SettledAt)

		again := b.claim(t, "r-1", "o")
		require.Equal(t, billing.StepAnswer, again.Step)
		require.Equal(t, want, *again.Charge)
		require.Equal(t, billing.StepPlace, b.claim(t, "r-2", "o").Step, "a new request id is a new attempt")
	})
}

func TestCorrect_DeclinedToCharged(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		c := *b.claim(t, "r-1", "o").Charge
		c.FailureCode, c.FailureDetail, c.Order = "declined", "402", json.RawMessage(`{"error":"x"}`)
		before := b.settle(t, c, billing.Declined)
		b.clock.set(day(1))

		charges, err := b.Correct(t.Context(), billing.Correction{
			SubscriptionID: "s", Period: november, Outcome: billing.Charged, Note: "it's order \"4711\" 🍺\nsee the back office",
		})

		require.NoError(t, err)
		want := *before
		want.Status, want.FailureCode, want.FailureDetail, want.SettledAt = billing.Charged, "", "", new(day(1))
		want.ResolvedNote = "it's order \"4711\" 🍺\nsee the back office"
		require.Equal(t, []billing.Charge{want}, charges)
		require.Equal(t, []string{"|charge.correct|charge/r-1|" + want.ResolvedNote}, b.audit(t))
		require.Contains(t, b.Lines(t, "SELECT detail FROM audit")[0], `"failure_detail":"402"`, "nothing is lost")
		answer := b.claim(t, "r-2", "o")
		require.Equal(t, billing.StepAnswer, answer.Step)
		require.Equal(t, want, *answer.Charge)
	})
}

func TestCorrect_ToTheOutcomeThatItHas(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		before := b.charged(t, "r-1")
		b.clock.set(day(1))
		require.Equal(t, []billing.Charge{before}, b.correct(t, billing.Charged, "r-1"))
		require.Empty(t, b.audit(t))

		first := b.correct(t, billing.Declined, "r-1")
		b.clock.set(day(2))
		again := corrected(billing.Declined, "r-1")
		again.By, again.Note = "Bob", "the same"
		charges, err := b.Correct(t.Context(), again)
		require.NoError(t, err, "an answer that was lost is asked for again")
		require.Equal(t, first, charges)
		require.Len(t, b.audit(t), 1)

		b.correct(t, billing.Charged, "r-1")
		b.correct(t, billing.Declined, "r-1")
		require.Len(t, b.audit(t), 3, "to and fro")
	})
}

// The other charge of the month is named, whatever its state; with the subscription's
// row or without it.
func TestCorrect_AnotherChargeStands(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{false, true} {
		t.Run(fmt.Sprint("deleted ", deleted), func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, b bundle) {
				b.settle(t, *b.claim(t, "r-1", "o").Charge, billing.Declined)
				other := *b.claim(t, "r-2", "o").Charge
				if deleted {
					b.Exec(t, "DELETE FROM subscription_status_history")
					b.Exec(t, "DELETE FROM subscription")
				}
				for _, status := range []billing.ChargeStatus{billing.Pending, billing.Unresolved, billing.Charged} {
					if status != billing.Pending {
						b.settle(t, other, status)
					}
					refused := b.requireRefused(t, corrected(billing.Charged, "r-1"), billing.CodeChargeStands)
					require.Equal(t, billing.RequestID("r-2"), refused.Charge.RequestID)
					require.Equal(t, status, refused.Charge.Status)
					require.Contains(t, refused.Detail, "r-2")
				}
				b.correct(t, billing.Declined, "r-2")
				b.correct(t, billing.Charged, "r-1")
				refused := b.requireRefused(t, corrected(billing.Charged, "r-2"), billing.CodeChargeStands)
				require.Equal(t, billing.RequestID("r-1"), refused.Charge.RequestID)
			})
		})
	}
}

func TestCorrect_Refuses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		byPeriod := billing.Correction{SubscriptionID: "s", Period: november, Outcome: billing.Charged, Note: "n"}
		b.requireRefused(t, byPeriod, billing.CodeChargeNotFound)
		pending := *b.claim(t, "r-1", "o").Charge
		for _, status := range []billing.ChargeStatus{billing.Pending, billing.Unresolved} {
			if status != billing.Pending {
				b.settle(t, pending, status)
			}
			for _, c := range []billing.Correction{byPeriod, corrected(billing.Declined, "r-1"), corrected(billing.Charged, "r-1")} {
				refused := b.requireRefused(t, c, billing.CodeChargeNotSettled)
				require.Equal(t, status, refused.Charge.Status)
			}
		}
		b.settle(t, pending, billing.Declined)
		b.charged(t, "r-2")

		missing := b.requireRefused(t, corrected(billing.Declined, "r-2", "none", "R-2"), billing.CodeChargeNotFound)
		require.Contains(t, missing.Detail, "none, R-2", "all that are missing are named")
		ambiguous := b.requireRefused(t, byPeriod, billing.CodeInvalid)
		require.Equal(t, "request_id", ambiguous.Field)
		require.Contains(t, ambiguous.Detail, "r-1, r-2")
		elsewhere := corrected(billing.Declined, "r-2")
		elsewhere.SubscriptionID, elsewhere.Period = "t", november
		b.requireRefused(t, elsewhere, billing.CodeChargeNotFound)
		elsewhere.SubscriptionID, elsewhere.Period = "s", billing.PeriodAt(day(31), time.UTC)
		b.requireRefused(t, elsewhere, billing.CodeChargeNotFound)
		b.requireRefused(t, billing.Correction{Outcome: billing.Charged, Note: "n"}, billing.CodeInvalid)
		b.requireRefused(t, billing.Correction{RequestIDs: []billing.RequestID{"r-2"}, Outcome: billing.Declined}, billing.CodeInvalid)

		elsewhere.Period = november
		_, err := b.Correct(t.Context(), elsewhere)
		require.NoError(t, err, "named with its subscription and period")
	})
}

func TestCorrect_AList(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		const n = billing.MaxCorrections
		var ids []billing.RequestID
		long := strings.Repeat("x", 100)
		for i := range n {
			id := billing.RequestID(fmt.Sprintf("%s-%04d", long, (i*7)%n))
			ids = append(ids, id)
			status := billing.Charged
			if i == 5 {
				status = billing.Declined
			}
			b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
				VALUES ($1, $2, '2026-11', $3, 'x', 'c', 1, $4)`, string(id), fmt.Sprintf("gone-%d", i%n), string(status), day(0))
		}
		b.claim(t, "r-1", "o")
		b.requireRefused(t, corrected(billing.Declined, append(ids[:n-1:n-1], "r-1")...), billing.CodeChargeNotSettled)
		b.requireRefused(t, corrected(billing.Declined, append(ids[:n-1:n-1], "none")...), billing.CodeChargeNotFound)
		b.requireRefused(t, corrected(billing.Declined, append(ids, "one-more")...), billing.CodeInvalid)

		charges := b.correct(t, billing.Declined, ids...)

		require.Len(t, charges, n)
		for i, c := range charges {
			require.Equal(t, ids[i], c.RequestID, "in the order of the question")
			require.Equal(t, billing.Declined, c.Status)
		}
		require.Len(t, b.audit(t), n-1, "one for each that changed")
		require.Len(t, b.correct(t, billing.Declined, ids[3], ids[3], ids[2]), 2, "each once")
	})
}

func TestCorrect_TwoOfOneMonth(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.settle(t, *b.claim(t, "r-1", "o").Charge, billing.Declined)
		b.settle(t, *b.claim(t, "r-2", "o").Charge, billing.Declined)
		b.requireRefused(t, corrected(billing.Charged, "r-1", "r-2"), billing.CodeChargeStands)
		b.correct(t, billing.Charged, "r-1")
		b.requireRefused(t, corrected(billing.Charged, "r-2", "r-1"), billing.CodeChargeStands)
		b.correct(t, billing.Declined, "r-1", "r-2")
	})
}

// A charge of the run that was corrected is not this run's to try again, neither by a
// page nor by a workflow, but the next one's, under a request id of its own.
func TestCorrect_TheNextRunOrdersAnew(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		in := pageOf("", last, 10)
		charges, _ := walk(t, b.Store, in)
		charges[0].Status = billing.Charged
		require.NoError(t, b.SettlePage(t.Context(), placed(charges), true))
		b.correct(t, billing.Declined, charges[0].RequestID)

		again, left := walk(t, b.Store, in)
		require.Empty(t, again)
		require.Empty(t, left)
		request := billing.ChargeRequest{SubscriptionID: "s", Period: november, RunID: in.RunID, RequireEligible: true}
		claim, err := b.ClaimCharge(t.Context(), request, "o", true)
		require.NoError(t, err)
		require.Equal(t, billing.StepAnswer, claim.Step)
		require.Equal(t, billing.Declined, claim.Charge.Status)

		in.RunID = "2026-11/9"
		recordRun(t, b.Database, in.RunID, day(0))
		first, _ := walk(t, b.Store, in)
		require.Empty(t, first, "a second attempt is a workflow's")
		next, err := b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, billing.RequestID("2026-11-s-2"), next.RequestID)

		// Another's open charge is taken up by a run that has tried before.
		request.RunID = thisRun.ID
		claim, err = b.ClaimCharge(t.Context(), request, billing.ChargeOwner, true)
		require.NoError(t, err)
		require.Equal(t, billing.StepPlace, claim.Step)
		require.Equal(t, next.RequestID, claim.Charge.RequestID)
	})
}

// The corrected charge was a caller's. The run has not tried this subscription.
func TestCorrect_ARunOrdersAnewAfterACaller(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.charged(t, "r-1")
		b.correct(t, billing.Declined, "r-1")
		claimed, _ := walk(t, b.Store, pageOf("", last, 10))
		require.Len(t, claimed, 1)
		require.Equal(t, billing.RequestID("2026-11-s"), claimed[0].RequestID)
	})
	onRun(t, func(t *testing.T, b bundle) {
		b.charged(t, "2026-11-s") // as a run would have called it
		b.correct(t, billing.Declined, "2026-11-s")
		claimed, _ := walk(t, b.Store, pageOf("", last, 10))
		require.Len(t, claimed, 1)
		require.Equal(t, billing.RequestID("2026-11-s-2"), claimed[0].RequestID)
	})
}

// An outcome that is recorded once more, because nobody heard that it was, is no news;
// one that the person cannot have known is.
func TestCorrect_StaysWhoeverComesLate(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		answered := b.charged(t, "r-1")
		want := b.correct(t, billing.Declined, "r-1")[0]
		require.NoError(t, b.SettlePage(t.Context(), placed([]billing.Charge{answered}), true))
		for _, late := range []billing.ChargeStatus{billing.Charged, billing.Declined, billing.Unresolved} {
			require.Equal(t, want, *b.settle(t, answered, late))
		}
		put, err := b.PutBack(t.Context(), answered)
		require.NoError(t, err)
		require.False(t, put)

		answered.Order = json.RawMessage(`{"order_id":"another"}`)
		_, err = b.SettleCharge(t.Context(), answered)
		require.Equal(t, billing.CodeLedgerConflict, billing.CodeOf(err))
		err = b.SettlePage(t.Context(), placed([]billing.Charge{answered}), true)
		require.Equal(t, billing.CodeLedgerConflict, billing.CodeOf(err))

		want = b.correct(t, billing.Charged, "r-1")[0]
		for _, late := range []billing.ChargeStatus{billing.Charged, billing.Declined, billing.Unresolved} {
			require.Equal(t, want, *b.settle(t, answered, late))
		}
	})
}

// The history's request id is repeated only if the ledger has lost it.
func TestClaim_WhatTemporalRemembers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.charged(t, "r-1")
		req := request("r-2")
		req.Remembered = "r-1"
		claim := func() billing.Claim {
			claim, err := b.ClaimCharge(t.Context(), req, "o", true)
			require.NoError(t, err)
			return claim
		}
		require.Equal(t, billing.RequestID("r-1"), claim().Charge.RequestID, "charged already")

		b.correct(t, billing.Declined, "r-1")
		req.RequestID = "r-1"
		require.Equal(t, billing.StepAnswer, claim().Step, "declined under this request id")
		req.RequestID = "r-2"
		anew := claim()
		require.Equal(t, billing.StepPlace, anew.Step)
		require.Equal(t, billing.RequestID("r-2"), anew.Charge.RequestID)

		b.Exec(t, "DELETE FROM charge") // the database was restored
		anew = claim()
		require.Equal(t, billing.StepPlace, anew.Step)
		require.Equal(t, billing.RequestID("r-1"), anew.Charge.RequestID)
	})
}

func TestResolve_IsInTheAudit(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		c := *b.claim(t, "r-1", "o").Charge
		c.FailureCode, c.FailureDetail = "in_doubt", "no answer"
		b.settle(t, c, billing.Unresolved)
		wrong := billing.Resolution{SubscriptionID: "s", Period: november, Outcome: billing.Declined, By: "Ana", Note: "not in the books"}
		for name, spoil := range map[string]func(*billing.Resolution){
			"note":    func(r *billing.Resolution) { r.Note = " " },
			"by":      func(r *billing.Resolution) { r.By = "a\x00" },
			"outcome": func(r *billing.Resolution) { r.Outcome = billing.Pending },
		} {
			spoilt := wrong
			spoil(&spoilt)
			_, err := b.Resolve(t.Context(), spoilt)
			require.Equal(t, billing.CodeInvalid, billing.CodeOf(err), name)
		}
		_, err := b.Resolve(t.Context(), wrong)
		require.NoError(t, err)
		_, err = b.Resolve(t.Context(), wrong)
		require.Equal(t, billing.CodeChargeNotUnresolved, billing.CodeOf(err))
		require.Equal(t, []string{"Ana|charge.resolve|charge/r-1|not in the books"}, b.audit(t))
		require.Contains(t, b.Lines(t, "SELECT detail FROM audit")[0], `"from":"unresolved","to":"declined"`)

		// It was wrong. Meanwhile another charge was made.
		b.charged(t, "r-2")
		b.requireRefused(t, corrected(billing.Charged, "r-1"), billing.CodeChargeStands)
		b.correct(t, billing.Declined, "r-2")
		right := b.correct(t, billing.Charged, "r-1")[0]
		require.Empty(t, right.FailureCode)
		require.Equal(t, billing.RequestID("r-1"), b.claim(t, "r-3", "o").Charge.RequestID)
	})
}

// A claim that is under way has the lock: the correction sees what it made.
func TestCorrect_WaitsForAClaim(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, b bundle) {
		b.settle(t, *b.claim(t, "r-1", "o").Charge, billing.Declined)
		looking, goOn := make(chan struct{}), make(chan struct{})
		store := b.Open(t, func() time.Time { // the claim asks for the time under its lock
			close(looking)
			<-goOn
			return day(0)
		})
		claimed, refused := make(chan error), make(chan error)
		go func() {
			_, err := store.ClaimCharge(t.Context(), request("r-2"), "o", true)
			claimed <- err
		}()
		<-looking
		go func() {
			_, err := b.Correct(t.Context(), corrected(billing.Charged, "r-1"))
			refused <- err
		}()
		waitForLock(t, b.Database, 1)
		close(goOn)
		require.NoError(t, <-claimed)
		require.Equal(t, billing.CodeChargeStands, billing.CodeOf(<-refused))
		require.Empty(t, b.audit(t))
	})
}

// Where no row of the subscription is left to lock, the index has the last word.
func TestCorrect_ARowThatComesWithoutTheLock(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, b bundle) {
		b.settle(t, *b.claim(t, "r-1", "o").Charge, billing.Declined)
		tx, err := b.Pool.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = tx.Rollback() })
		_, err = tx.ExecContext(t.Context(), `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
			VALUES ('by-hand', 's', '2026-11', 'charged', 'x', 'c', 1, '2026-11-01')`)
		require.NoError(t, err)
		refused := make(chan error)
		go func() {
			_, err := b.Correct(t.Context(), corrected(billing.Charged, "r-1"))
			refused <- err
		}()
		waitForLock(t, b.Database, 1)
		require.NoError(t, tx.Commit())
		problem, ok := errorAs[*billing.Error](<-refused)
		require.True(t, ok)
		require.Equal(t, billing.CodeChargeStands, problem.Code)
		require.Equal(t, billing.RequestID("by-hand"), problem.Charge.RequestID)
		require.Empty(t, b.audit(t))
	})
}

// Corrections one way, the other way, of lists in any order, and claims, all at once:
// the month has one charge at most, and the audit tells each change.
func TestCorrect_AtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "bert")
		ids := []billing.RequestID{"r-1", "r-2", "t-1"}
		b.settle(t, *b.claim(t, "r-1", "o").Charge, billing.Declined)
		b.settle(t, *b.claim(t, "r-2", "o").Charge, billing.Declined)
		b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
			VALUES ('t-1', 't', '2026-11', 'charged', 'x', 'bert', 1, $1)`, day(0))
		failures := make([]error, 50)
		together(len(failures), func(i int) {
			switch i % 5 {
			case 0:
				_, failures[i] = b.Correct(t.Context(), corrected(billing.Charged, ids[i%3], "t-1"))
			case 1:
				_, failures[i] = b.Correct(t.Context(), corrected(billing.Charged, "t-1", ids[(i+1)%2]))
			case 2, 3:
				_, failures[i] = b.Correct(t.Context(), corrected(billing.Declined, ids[i%3], ids[(i+1)%3], ids[(i+2)%3]))
			default:
				req := request(billing.RequestID(fmt.Sprint("new-", i)))
				if i%2 == 0 {
					req.SubscriptionID = "t"
				}
				var claim billing.Claim
				claim, failures[i] = b.ClaimCharge(t.Context(), req, fmt.Sprint(i), true)
				if errors.Is(failures[i], models.ErrClaimRaced) { // settled while it was taken over
					failures[i] = nil
					return
				}
				if failures[i] == nil && claim.Step == billing.StepPlace {
					claim.Charge.Status = billing.Charged
					_, failures[i] = b.SettleCharge(t.Context(), *claim.Charge)
				}
			}
		})
		for _, err := range failures {
			if err != nil {
				require.Contains(t, []billing.Code{billing.CodeChargeStands, billing.CodeChargeNotSettled}, billing.CodeOf(err), "%v", err)
			}
		}
		require.Empty(t, b.Lines(t, `SELECT subscription_id FROM charge WHERE status <> 'declined' GROUP BY subscription_id, period HAVING count(*) > 1`))
		status := map[string]string{"charge/r-1": "declined", "charge/r-2": "declined", "charge/t-1": "charged"}
		changes := b.Lines(t, "SELECT subject || ' ' || detail FROM audit ORDER BY id")
		require.NotEmpty(t, changes)
		for _, line := range changes {
			subject, text, _ := strings.Cut(line, " ")
			var change struct{ From, To string }
			require.NoError(t, json.Unmarshal([]byte(text), &change))
			if known, ok := status[subject]; ok {
				require.Equal(t, known, change.From, "a change is missing from the audit of %s", subject)
			}
			status[subject] = change.To
		}
		for subject, want := range status {
			require.Equal(t, []string{want}, b.Lines(t, "SELECT status FROM charge WHERE request_id = $1", strings.TrimPrefix(subject, "charge/")), subject)
		}
	})
}
