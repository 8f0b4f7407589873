package models_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models/modelstest"
)

// members adds to s, who is due in every run, who is not in one of October that is
// started on day 5: it says since or until when each is ACTIVE.
func members(t *testing.T, b bundle) {
	t.Helper()
	last := october.LastMicrosecond(time.UTC)
	active := func(at time.Time) billing.Change { return modelstest.Since(billing.Active, at) }
	b.AddSubscription(t, "at the end", 1, "x", active(last))
	b.AddSubscription(t, "too late", 1, "x", active(last.Add(time.Microsecond)))
	b.AddSubscription(t, "today", 1, "x", active(day(5)))
	b.AddSubscription(t, "cancelled since", 1, "x", active(modelstest.Long), modelstest.Since(billing.Cancelled, day(1)))
	b.AddSubscription(t, "back since", 1, "x", modelstest.Since(billing.Paused, modelstest.Long), active(day(1)))
	b.AddClub(t, 2, 8, modelstest.Since(billing.ClubInactive, modelstest.Long), modelstest.Since(billing.ClubActive, day(1)))
	b.AddSubscription(t, "in a club that opened since", 2, "x")
	b.clock.set(day(5))
}

var dueInOctober = []string{"at the end", "s"}

func TestRun_PastMonthIsForThoseOfItsEnd(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		members(t, b)
		n, err := b.CountDue(t.Context(), october, october.LastMicrosecond(time.UTC))
		require.NoError(t, err)
		require.Equal(t, len(dueInOctober), n)
		run, err := begun(b.Store, runOf(october, "a", settings(0)))
		require.NoError(t, err)
		require.Equal(t, time.Date(2026, 10, 31, 23, 59, 59, 999_999_000, time.UTC), run.CutOff)
		require.Equal(t, len(dueInOctober), run.Due)

		require.Equal(t, dueInOctober, eligible(t, b.Store, billing.EligibleQuery{At: day(5), CutOff: run.CutOff, Uncharged: october}))
		ends, more, err := b.PlanPages(t.Context(), *run, "", 1, 10)
		require.NoError(t, err)
		require.Equal(t, dueInOctober, ends)
		require.False(t, more)
		for _, id := range []string{"too late", "today", "back since", "in a club that opened since", "cancelled since", "at the end"} {
			claim, err := b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: id, Period: october, RunID: run.ID, RequireEligible: true}, billing.ChargeOwner, true)
			var known *billing.Error
			switch id {
			case "at the end":
				require.NoError(t, err)
				require.Equal(t, billing.StepPlace, claim.Step)
			default:
				require.ErrorAs(t, err, &known)
				require.Equal(t, billing.CodeNotEligible, known.Code)
				require.Equal(t, id != "cancelled since", known.Reason == billing.ReasonNotDueInRun, known)
			}
		}
		in := pageOf("", last, 2)
		in.RunID, in.Period = run.ID, october
		claimed, left := walk(t, b.Store, in)
		require.Equal(t, []string{"s"}, subscriptions(claimed))
		require.Empty(t, left)
		report, err := b.Report(t.Context(), *run)
		require.NoError(t, err)
		require.Zero(t, report.Totals[billing.ClassMissing], "who came later is not missing")
	})
}

// Whoever joins while the run of the current month is paused belongs to a later one.
func TestRun_JoinedSinceIsForALaterRun(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.clock.set(day(4))
		run := startRun(t, b.Store, "a", 0)
		require.Equal(t, day(4), run.CutOff)
		b.clock.set(day(5))
		b.AddSubscription(t, "t", 1, "x", modelstest.Since(billing.Active, day(5)))
		ofRun := billing.ChargeRequest{SubscriptionID: "t", Period: november, RunID: run.ID, RequireEligible: true}
		claim := func(req billing.ChargeRequest) error {
			_, err := b.ClaimCharge(t.Context(), req, billing.ChargeOwner, true)
			return err
		}
		require.ErrorContains(t, claim(ofRun), "later run")
		in := pageOf("", last, 2)
		in.RunID = run.ID
		claimed, _ := walk(t, b.Store, in)
		require.Equal(t, []string{"s"}, subscriptions(claimed))

		later := startRun(t, b.Store, "b", 0)
		require.Equal(t, 1, later.Due)
		require.ErrorContains(t, claim(ofRun), "later run", "the workflow of the run before")
		ofRun.RunID = later.ID
		require.NoError(t, claim(ofRun))
		ofRun.SubscriptionID, ofRun.RunID = "s", "2026-11/99"
		require.NoError(t, claim(ofRun), "what is open is seen through")
		b.Exec(t, "DELETE FROM charge")
		require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(claim(ofRun)), "nobody knows who was due in it")
		in.RunID = "2026-11/99"
		_, err := b.ClaimPage(t.Context(), in)
		require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(err))
		ofRun.RunID, ofRun.RequestID = "", "r"
		require.NoError(t, claim(ofRun), "a request has no cut-off")
	})
}

func TestLeftOver_OfThoseWhoCameLaterIsForALaterRun(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		recordRun(t, b.Database, thisRun.ID, day(0))
		b.AddSubscription(t, "came later", 1, "x", modelstest.Since(billing.Active, day(0).Add(time.Microsecond)))
		b.AddSubscription(t, "came later, put back by the run", 1, "x", modelstest.Since(billing.Active, day(1)))
		b.AddSubscription(t, "cancelled since", 1, "x", modelstest.Since(billing.Active, modelstest.Long), modelstest.Since(billing.Cancelled, day(-1)))
		for id, run := range map[string]any{"came later": nil, "came later, put back by the run": thisRun.ID, "cancelled since": nil, "deleted": nil, "s": "2026-11/1"} {
			b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, run_id, customer_id, sku_id, created_at)
				VALUES ($1, $2, '2026-11', 'unresolved', 'o', $3, '', 1, $4)`, id, id, run, day(0))
		}
		left, err := b.LeftOver(context.Background(), leftOver)
		require.NoError(t, err)
		require.Equal(t, []string{"came later, put back by the run", "cancelled since", "deleted", "s"}, left)
		gone := leftOver
		gone.RunID = "2026-11/99"
		_, err = b.LeftOver(context.Background(), gone)
		require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(err))
	})
}

func TestStartRun_AsksForTheMonthTwice(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		start := runOf(october, "a", settings(0))
		start.ConfirmPast = false
		_, err := begun(b.Store, start)
		require.Equal(t, billing.CodePastUnconfirmed, billing.CodeOf(err))
		start.Period = billing.PeriodAt(day(31), time.UTC)
		_, err = begun(b.Store, start)
		require.Equal(t, billing.CodePeriodInFuture, billing.CodeOf(err))
		require.Empty(t, b.Lines(t, "SELECT id FROM billing_run"))

		// A schedule needs no confirmation, and keeps its time however late it is.
		nominal := time.Date(2026, 10, 1, 6, 0, 0, 0, time.UTC)
		start.Period, start.Nominal = october, nominal
		run, err := begun(b.Store, start)
		require.NoError(t, err)
		require.Equal(t, nominal, run.CutOff)
		// The activity runs again when the month is over.
		current := runOf(november, "b", settings(0))
		current.ConfirmPast = false
		first, err := begun(b.Store, current)
		require.NoError(t, err)
		b.clock.set(day(31))
		again, err := begun(b.Store, current)
		require.NoError(t, err)
		require.Equal(t, first, again)
	})
}

// A blank customer is nobody: the shop is not asked, and the others of the page are not
// held up.
func TestClaim_BlankCustomerIsNotCharged(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		for i, blank := range []string{"", "   ", "\u00a0"} {
			b.AddSubscription(t, fmt.Sprint("blank-", i), 1, blank)
			req := request(billing.RequestID(fmt.Sprint("r-", i)))
			req.SubscriptionID = fmt.Sprint("blank-", i)
			_, err := b.ClaimCharge(t.Context(), req, "o", true)
			require.Equal(t, billing.CodeNotEligible, billing.CodeOf(err), "%q", blank)
		}
		claimed, left := walk(t, b.Store, pageOf("", last, 10))
		require.Equal(t, []string{"s"}, subscriptions(claimed))
		require.Empty(t, left)
	})
}
