package models_test

import (
	"context"
	"testing"
	"time"

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

// replace makes the database one that the recall has not looked through.
func (b bundle) replace(t *testing.T) {
	t.Helper()
	b.Exec(t, "UPDATE installation SET recalled = 'another'")
}

func (b bundle) installation(t require.TestingT) billing.Installation {
	found, err := b.Installation(context.Background())
	require.NoError(t, err)
	return found
}

// Whatever leads to an order is refused by a database that was replaced, until it is
// recalled; and for a run that has begun with another one also afterwards.
func TestReplaced_NothingIsClaimed(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "x")
		before := b.installation(t).Recalled
		held := claimPage(t, b.Store, pageOf("", "s", 10)).Charges[0]
		page, later := pageOf("s", last, 10), pageOf("s", last, 10)
		later.Recalled = before
		ask := func(in billing.PageClaim) map[string]error {
			errs := map[string]error{}
			_, errs["claim"] = b.ClaimCharge(t.Context(), request("r"), billing.ChargeOwner, true)
			_, errs["page"] = b.ClaimPage(t.Context(), in)
			_, errs["hold"] = b.HoldClaims(t.Context(), in, []billing.RequestID{held.RequestID})
			_, _, errs["send"] = b.PermitSending(t.Context(), held.RequestID, held.SentAt, "")
			_, errs["start"] = begun(b.Store, runOf(november, "e", settings(0)))
			_, errs["finish"] = b.ChangeRun(t.Context(), thisRun.ID, billing.RunChange{State: billing.RunFinished, Recalled: before})
			return errs
		}
		rows := b.Lines(t, "SELECT request_id || status || owner FROM charge")
		b.replace(t)
		for what, err := range ask(page) {
			require.Equal(t, billing.CodeDatabaseReplaced, billing.CodeOf(err), what)
		}
		require.Equal(t, rows, b.Lines(t, "SELECT request_id || status || owner FROM charge"))
		_, err := b.ChangeRun(t.Context(), thisRun.ID, billing.PauseRun(""))
		require.NoError(t, err, "a person pauses it all the same")

		require.Error(t, b.Recalled(t.Context(), "yet another", nil, billing.DoubtRepeat), "it was replaced while it was looked through")
		require.NoError(t, b.Recalled(t.Context(), b.installation(t).Incarnation, nil, billing.DoubtRepeat))
		b.Exec(t, "UPDATE installation SET recalled = recalled") // what follows is about a run of before
		_, err = b.ClaimPage(t.Context(), page)
		require.NoError(t, err)
		later.Recalled = "of before"
		for _, what := range []string{"page", "hold"} {
			require.Equal(t, billing.CodeDatabaseReplaced, billing.CodeOf(ask(later)[what]), what)
		}
	})
}

// What is pending may have been sent since the database was as it is: its row does not say
// so. At a shop that is not idempotent that is a person's to settle, or of whoever has a
// call under way.
func TestRecalled_Pending(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		const rows = "SELECT subscription_id || ' ' || status || CASE WHEN sent_at IS NULL THEN '' ELSE ' sent' END FROM charge ORDER BY 1"
		b.AddSubscription(t, "t", 1, "x")
		claimed := claimPage(t, b.Store, pageOf("", "s", 10)).Charges
		unheld := pageOf("s", last, 10)
		unheld.Unheld = true
		claimPage(t, b.Store, unheld)
		require.Equal(t, []string{"s pending sent", "t pending"}, b.Lines(t, rows))
		recall := func(doubt billing.RunDoubt) {
			b.replace(t)
			b.clock.set(day(1))
			require.NoError(t, b.Recalled(t.Context(), b.installation(t).Incarnation, nil, doubt))
		}
		recall(billing.DoubtRepeat)
		require.Equal(t, []string{"s pending sent", "t pending sent"}, b.Lines(t, rows))
		permitted, _, err := b.PermitSending(t.Context(), claimed[0].RequestID, claimed[0].SentAt, "")
		require.NoError(t, err)
		require.False(t, permitted)
		recall(billing.DoubtConfirm)
		require.Equal(t, []string{"s unresolved sent", "t unresolved sent"}, b.Lines(t, rows))
		require.Equal(t, billing.Charged, b.settle(t, claimed[0], billing.Charged).Status, "its call was under way")
	})
}

// A run that Temporal remembers and the database lacks is there again, one that has ended
// meanwhile ends, and those under way are in doubt; at a shop that is not idempotent they
// wait for a person.
func TestRecalled_Runs(t *testing.T) {
	t.Parallel()
	for _, doubt := range []billing.RunDoubt{billing.DoubtRepeat, billing.DoubtConfirm} {
		t.Run(string(doubt), func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, b bundle) {
				start := func(period billing.Period, execution string) billing.Run {
					run, err := begun(b.Store, runOf(period, execution, settings(2)))
					require.NoError(t, err)
					return *run
				}
				ended, err := b.ChangeRun(t.Context(), start(november, "finished").ID, billing.RunChange{State: billing.RunFinished})
				require.NoError(t, err)
				finished := *ended
				atWork := start(october, "at work") // by Temporal; a person has cancelled it in the replaced database
				_, err = b.ChangeRun(t.Context(), atWork.ID, billing.RunChange{State: billing.RunCancelled})
				require.NoError(t, err)
				open := start(november, "open")
				cancelled := start(october, "cancelled")
				cancelled.State, cancelled.EndedAt = billing.RunCancelled, new(day(1))
				lost, lostAndOver := open, finished
				lost.ID, lost.Number, lost.ExecutionID, lost.Reason = "2026-09/4", 4, "lost", "why"
				lost.Period = billing.PeriodAt(day(-40), time.UTC)
				lostAndOver.ID, lostAndOver.Number, lostAndOver.ExecutionID = "2026-11/7", 7, "lost and over"
				lostAndOver.State, lostAndOver.EndedAt = billing.RunFinished, new(day(1))

				err = b.Recalled(t.Context(), b.installation(t).Incarnation, []billing.Run{finished, open, cancelled, atWork, lost, lostAndOver}, doubt)
				require.NoError(t, err)
				state := map[billing.RunDoubt]string{billing.DoubtRepeat: "running", billing.DoubtConfirm: "paused"}[doubt]
				require.Equal(t, []string{
					"2026-09/4 " + state + " " + string(doubt), "2026-10/1 cancelled " + string(doubt), "2026-10/2 cancelled " + string(doubt),
					"2026-11/1 finished ", "2026-11/2 " + state + " " + string(doubt), "2026-11/7 finished " + string(doubt),
				}, b.Lines(t, "SELECT id || ' ' || state || ' ' || COALESCE(doubt, '') FROM billing_run ORDER BY id"))
				again, err := b.RunByID(t.Context(), lost.ID)
				require.NoError(t, err)
				require.Equal(t, lost.Settings, again.Settings)
				require.Equal(t, lost.CutOff, again.CutOff)

				next := start(november, "next")
				if doubt == billing.DoubtConfirm {
					require.Equal(t, billing.RunPaused, next.State)
					require.Equal(t, billing.ReasonReplaced, next.Reason)
					_, err = b.ChangeRun(t.Context(), next.ID, billing.RunChange{State: billing.RunRunning})
					require.NoError(t, err)
					require.Empty(t, b.Lines(t, "SELECT id FROM billing_run WHERE period = '2026-11' AND doubt IS NOT NULL"), "a person has looked")
					require.NotEmpty(t, b.Lines(t, "SELECT id FROM billing_run WHERE doubt IS NOT NULL"), "not at the other months")
				} else {
					require.Equal(t, billing.RunRunning, next.State)
				}
			})
		})
	}
}

// The claims of a replaced database are held by nobody, but whose workflow has them keeps
// its own; all may have been sent.
func TestRecalled_NobodyHoldsAClaim(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.claim(t, "of-a-workflow", billing.ChargeOwner)
		b.Exec(t, "UPDATE charge SET sent_at = NULL")
		b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, customer_id, sku_id, created_at)
			SELECT 'of-a-page', 'other', period, status, 'page 1', $1, customer_id, sku_id, created_at FROM charge`, day(9))

		require.NoError(t, b.Recalled(t.Context(), b.installation(t).Incarnation, nil, billing.DoubtRepeat))

		require.Equal(t, []string{"of-a-page " + billing.Nobody, "of-a-workflow " + billing.ChargeOwner}, b.Lines(t,
			"SELECT request_id || ' ' || owner FROM charge WHERE claimed_until IS NULL AND sent_at IS NOT NULL ORDER BY request_id"))
	})
}

// A page may have ordered what the ledger lacks. At an idempotent shop a new claim repeats
// the request id that the page would have used; at another one it asks nothing.
func TestClaimCharge_InAMonthInDoubt(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.Exec(t, "UPDATE billing_run SET doubt = 'repeat'")
		claim := b.claim(t, "callers-own", billing.ChargeOwner)
		require.Equal(t, billing.StepPlace, claim.Step)
		require.Equal(t, billing.DerivedRequestID(november, "s", 1), claim.Charge.RequestID)
		b.settle(t, *claim.Charge, billing.Declined)
		claim = b.claim(t, "callers-second", billing.ChargeOwner)
		require.Equal(t, billing.RequestID("callers-second"), claim.Charge.RequestID, "no page has ordered: its request id was declined")

		b.Exec(t, "DELETE FROM charge")
		require.NoError(t, b.PutBackRequest(t.Context(), request("of-a-workflow")))
		require.Equal(t, []string{"2026-11-s " + billing.Nobody}, b.Lines(t, "SELECT request_id || ' ' || owner FROM charge"), "so it has claimed, since the month is in doubt")

		b.Exec(t, "DELETE FROM charge")
		claim, err := b.ClaimCharge(t.Context(), request("callers-own"), billing.ChargeOwner, false)
		require.NoError(t, err)
		require.Equal(t, billing.Unresolved, claim.Charge.Status, "the shop is no longer idempotent")

		b.Exec(t, "DELETE FROM charge")
		b.Exec(t, "UPDATE billing_run SET doubt = 'confirm'")
		claim, err = b.ClaimCharge(t.Context(), request("callers-own"), billing.ChargeOwner, false)
		require.NoError(t, err)
		require.Equal(t, billing.StepResume, claim.Step, "nothing is asked")
		require.Equal(t, billing.Unresolved, claim.Charge.Status)
		require.Equal(t, []string{"callers-own unresolved in_doubt"}, b.Lines(t, "SELECT request_id || ' ' || status || ' ' || failure_code FROM charge"))
	})
}

// A run whose row is gone has it again when it begins anew; of its state and the row's the
// stricter holds.
func TestStartRun_BeginsAnew(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		start := runOf(november, "e", settings(3))
		run, err := begun(b.Store, start)
		require.NoError(t, err)
		b.Exec(t, "DELETE FROM billing_run")
		known := *run
		known.State, known.Reason, start.Known = billing.RunPaused, "lunch", &known
		again, err := begun(b.Store, start)
		require.NoError(t, err)
		require.Equal(t, known, *again)

		b.Exec(t, "UPDATE billing_run SET state = 'running', reason = NULL")
		again, err = begun(b.Store, start)
		require.NoError(t, err)
		require.Equal(t, known, *again, "the older row forgot the pause")
		known.State, known.Reason = billing.RunRunning, ""
		again, err = begun(b.Store, start)
		require.NoError(t, err)
		require.Equal(t, billing.RunPaused, again.State, "the row was paused since")
		b.Exec(t, "UPDATE billing_run SET state = 'cancelled', ended_at = cut_off")
		again, err = begun(b.Store, start)
		require.NoError(t, err)
		require.Equal(t, billing.RunCancelled, again.State)
	})
}

func TestIncarnation_RewrittenLedger(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	before := b.installation(t).Incarnation
	b.AddSubscription(t, "other", 1, "bob")
	require.Equal(t, before, b.installation(t).Incarnation)

	b.Exec(t, "TRUNCATE charge") // as pg_restore into the same database does it

	require.NotEqual(t, before, b.installation(t).Incarnation)
}

// SQLite: somebody may have replaced the file while no worker was there.
func TestIncarnation_MarkedFile(t *testing.T) {
	t.Parallel()
	db := modelstest.SQLite(t)
	incarnation := func() string {
		found, err := db.Open(t, nil).Installation(t.Context())
		require.NoError(t, err)
		return found.Incarnation
	}
	before := incarnation()
	require.Equal(t, before, incarnation(), "who only reads changes nothing")
	require.NoError(t, db.Open(t, nil).Mark(t.Context()))
	marked := incarnation()
	require.NotEqual(t, before, marked)
	db.Exec(t, "CREATE TABLE restored (id)") // what sqlite3's .restore does to the schema's number
	require.NotEqual(t, marked, incarnation())
}
