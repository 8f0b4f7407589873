package models_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

// last is greater than every id.
const last = "\U0010FFFF"

// pageOf claims for thisRun.
func pageOf(after, upTo string, limit int) billing.PageClaim {
	return billing.PageClaim{
		RunID: thisRun.ID, Owner: "page 1", Period: november, After: after, UpTo: upTo, Limit: limit,
		HeldFor: time.Minute,
	}
}

// recordRun writes the row of a run, with the cut-off.
func recordRun(t require.TestingT, db modelstest.Database, id string, cutOff time.Time) {
	period, number, _ := strings.Cut(id, "/")
	_, err := db.Pool.ExecContext(context.Background(), `INSERT INTO billing_run
			(id, period, number, execution_id, state, cut_off, due, orders_per_second, page_size, concurrency, workflow_per_charge)
		VALUES ($1, $2, $3, $4, 'running', $5, 0, 0, 1, 1, false) ON CONFLICT (id) DO UPDATE SET cut_off = excluded.cut_off`,
		id, period, number, id, modelstest.Time(cutOff))
	require.NoError(t, err)
}

// onRun is onBoth with the row of thisRun, whose cut-off is day 0.
func onRun(t *testing.T, test func(t *testing.T, b bundle)) {
	t.Helper()
	onBoth(t, func(t *testing.T, b bundle) {
		recordRun(t, b.Database, thisRun.ID, day(0))
		test(t, b)
	})
}

// leftOver asks for what nobody holds, for thisRun.
var leftOver = billing.LeftOverQuery{RunID: thisRun.ID, Period: november, All: true, Unresolved: true, Pages: "page ", Limit: 10}

func claimPage(t require.TestingT, s *models.Store, in billing.PageClaim) billing.PageClaimed {
	page, err := s.ClaimPage(context.Background(), in)
	require.NoError(t, err)
	return page
}

// placed are claims as a page settles them.
func placed(charges []billing.Charge) []billing.PlacedCharge {
	var all []billing.PlacedCharge
	for _, c := range charges {
		all = append(all, billing.PlacedCharge{Charge: c, NotOrdered: c.Status == billing.Pending})
	}
	return all
}

// walk claims the whole range, batch by batch, and counts the rows that were locked.
func walk(t require.TestingT, s *models.Store, in billing.PageClaim) (claimed []billing.Charge, locked int) {
	for batches := 0; ; batches++ {
		require.Less(t, batches, 100, "the walk does not come to its end")
		page := claimPage(t, s, in)
		require.LessOrEqual(t, len(page.Charges)+page.Locked, in.Limit)
		claimed, locked = append(claimed, page.Charges...), locked+page.Locked
		if page.Done {
			require.Equal(t, in.UpTo, page.Cursor)
			return claimed, locked
		}
		require.Greater(t, page.Cursor, in.After)
		require.LessOrEqual(t, page.Cursor, in.UpTo)
		in.After = page.Cursor
	}
}

// subscriptions are the sorted ids of the charges' subscriptions.
func subscriptions(charges []billing.Charge) []string {
	ids := []string{}
	for _, c := range charges {
		ids = append(ids, c.SubscriptionID)
	}
	slices.Sort(ids)
	return ids
}

func TestClaimPage_WhoIsDue(t *testing.T) {
	t.Parallel()
	onDue(t, func(t *rapid.T, b bundle, w due) {
		b.clock.set(day(1))
		cutOff := day(rapid.IntRange(-1, 2).Draw(t, "cut-off"))
		recordRun(t, b.Database, thisRun.ID, cutOff)
		bound := rapid.SampledFrom(append([]string{"", last}, nastyIDs...))
		in := pageOf(bound.Draw(t, "after"), rapid.OneOf(rapid.Just(last), bound).Draw(t, "up to"), rapid.IntRange(1, 4).Draw(t, "limit"))
		if in.UpTo < in.After {
			in.After, in.UpTo = in.UpTo, in.After
		}
		in.Unheld, in.Installation = rapid.Bool().Draw(t, "unheld"), modelstest.Installation

		claimed, left := walk(t, b.Store, in)

		require.Empty(t, left)
		want := slices.DeleteFunc(w.uncharged(day(1), cutOff), func(id string) bool {
			tried := slices.ContainsFunc(w.ledger[id], func(e entry) bool {
				return e.period == "2026-11" && (e.run == thisRun.ID || e.run != "" && !in.Unheld) // else a second attempt is a workflow's
			})
			return id <= in.After || id > in.UpTo || !w.chargeable(id) || tried
		})
		require.Equal(t, want, subscriptions(claimed))
		for _, c := range claimed {
			club, declined := w.subs[c.SubscriptionID].club, 0
			for _, e := range w.ledger[c.SubscriptionID] {
				if e.period == "2026-11" && e.run != "" {
					declined++
				}
			}
			full := billing.Charge{
				RequestID: billing.DerivedRequestID(november, c.SubscriptionID, declined+1), SubscriptionID: c.SubscriptionID,
				Period: november, Status: billing.Pending, ClubID: club, CustomerID: "anna", SKU: w.sku[club], CreatedAt: day(1),
				Owner: "page 1", RunID: thisRun.ID, Installation: modelstest.Installation,
			}
			if in.Unheld {
				full.Owner = billing.Nobody
			} else {
				full.ClaimedUntil, full.SentAt = day(1).Add(time.Minute), day(1)
			}
			explained, err := b.Explain(context.Background(), c.SubscriptionID, day(1))
			require.NoError(t, err)
			full.StatusRow, full.ClubStatusRow = explained.Subscription.ID, explained.Club.ID
			require.Equal(t, full, c)
			stands, err := b.Charge(context.Background(), c.SubscriptionID, november)
			require.NoError(t, err)
			require.Equal(t, full, *stands)
		}
		again, left := walk(t, b.Store, in)
		require.Empty(t, again)
		require.Empty(t, left)
	})
}

func TestClaimPage_DeclinedIsTriedByTheNextRun(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		in := pageOf("", last, 10)
		for attempt, want := range []billing.RequestID{"2026-11-s", "2026-11-s-2", "2026-11-s-3"} {
			in.RunID = fmt.Sprintf("2026-11/%d", attempt+1)
			recordRun(t, b.Database, in.RunID, day(0))
			claimed, _ := walk(t, b.Store, in)
			if attempt == 0 {
				require.Len(t, claimed, 1)
			} else { // Temporal is to remember it: it is a workflow's
				require.Empty(t, claimed)
				left, err := b.LeftOver(t.Context(), billing.LeftOverQuery{RunID: in.RunID, Period: november, Pages: "page ", Limit: 10})
				require.NoError(t, err)
				require.Equal(t, []string{"s"}, left)
			}
			stands, err := b.Charge(t.Context(), "s", november)
			require.NoError(t, err)
			require.Equal(t, want, stands.RequestID)
			b.settle(t, *stands, billing.Declined)
			claimed, left := walk(t, b.Store, in)
			require.Empty(t, claimed)
			require.Empty(t, left)
		}
	})
}

// A caller may have used a derived id as its own.
func TestClaimPage_TakenRequestIDGetsTheNext(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		for _, id := range []string{"q", "r", "r2", "t", "u"} {
			b.AddSubscription(t, id, 1, "x")
		}
		for other, taken := range map[string]billing.RequestID{"r": "2026-11-s", "r2": "2026-11-s-2"} {
			first := request(taken)
			first.SubscriptionID = other
			claim, err := b.ClaimCharge(t.Context(), first, "o", true)
			require.NoError(t, err)
			b.settle(t, *claim.Charge, billing.Charged)
		}
		for attempt := 1; attempt <= billing.MaxAttempt; attempt++ { // by hand, but the month of u is free
			b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
				VALUES ($1, 'u', '2026-11', 'withdrawn', 'o', 'x', 1, $2)`, string(billing.DerivedRequestID(november, "u", attempt)), day(0))
		}

		claimed, locked := walk(t, b.Store, pageOf("", last, 2))

		require.Zero(t, locked)
		require.Equal(t, []string{"q", "s", "t"}, subscriptions(claimed), "u has no request id left")
		of := func(subscription string) billing.RequestID {
			return claimed[slices.IndexFunc(claimed, func(c billing.Charge) bool { return c.SubscriptionID == subscription })].RequestID
		}
		require.Equal(t, billing.RequestID("2026-11-s-3"), of("s"))
		require.Equal(t, billing.RequestID("2026-11-t"), of("t"))
	})
}

// A person's open transaction is not waited for.
func TestClaimPage_CountsLockedRows(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	recordRun(t, b.Database, thisRun.ID, day(0))
	for _, id := range []string{"r", "t", "u"} {
		b.AddSubscription(t, id, 1, "x")
	}
	person := byHand(t, b.Database)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()

	page, err := b.ClaimPage(ctx, pageOf("", last, 3))

	require.NoError(t, err)
	require.Equal(t, []string{"r", "t"}, subscriptions(page.Charges))
	require.Equal(t, 1, page.Locked)
	require.Equal(t, "t", page.Cursor)
	require.NoError(t, person.Commit())
	require.Empty(t, claimPage(t, b.Store, pageOf("r", "s", 3)).Charges, "cancelled by hand")
}

// Those that nobody can ask the shop about, pages full of them, stall no walk.
func TestClaimPage_PassesOverTheUnchargeable(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.AddClub(t, 2, 0)
		for n := range 7 {
			b.AddSubscription(t, fmt.Sprintf("a-%d", n), 1, "")
			b.AddSubscription(t, fmt.Sprintf("b-%d", n), 2, "x")
		}
		b.Exec(t, "UPDATE subscription SET customer_store_id = '' WHERE id = 'a-3'")
		for limit := 1; limit <= 16; limit++ {
			b.Exec(t, "DELETE FROM charge")
			claimed, left := walk(t, b.Store, pageOf("", last, limit))
			require.Equal(t, []string{"s"}, subscriptions(claimed), limit)
			require.Empty(t, left)
		}
	})
}

// Pages with the same range at once, beside requests: each subscription is
// claimed once, and what a page did not get it knows as left over.
func TestClaimPage_AtOnce(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		ids := []string{"s"}
		for n := range 60 {
			ids = append(ids, fmt.Sprintf("t-%02d", n))
			b.AddSubscription(t, ids[n+1], 1, "x")
		}
		const pages = 4
		claimed, left := make([][]billing.Charge, pages), make([]int, pages)
		together(pages+1, func(i int) {
			if i == pages {
				for _, id := range ids[20:40] {
					_, _ = b.ClaimCharge(context.Background(), billing.ChargeRequest{SubscriptionID: id, Period: november, RequestID: billing.RequestID("asked-" + id)}, "o", true)
				}
				return
			}
			in := pageOf("", last, 7+i)
			in.Owner = fmt.Sprintf("page %d", i)
			claimed[i], left[i] = walk(t, b.Store, in)
		})
		all := []string{}
		for i := range pages {
			all = append(all, subscriptions(claimed[i])...)
			own, err := b.OwnClaims(t.Context(), thisRun.ID, fmt.Sprintf("page %d", i))
			require.NoError(t, err)
			require.ElementsMatch(t, claimed[i], own)
		}
		all = append(all, b.Lines(t, "SELECT subscription_id FROM charge WHERE owner = 'o'")...)
		require.ElementsMatch(t, ids, all)
		require.Equal(t, []string{"61"}, b.Lines(t, "SELECT CAST(count(*) AS text) FROM charge"))
	})
}

// A cancel either comes before the claim and is honoured, or after it and says so.
func TestClaimPage_AgainstACancel(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, db bundle) {
		store := db.Open(t, nil) // a clock that goes
		for round := range 25 {
			id := fmt.Sprintf("t-%02d", round)
			db.AddSubscription(t, id, 1, "x")
			var page billing.PageClaimed
			var changed *billing.Subscription
			together(2, func(i int) {
				if i == 0 {
					page, _ = store.ClaimPage(context.Background(), pageOf("s", id, 100))
				} else {
					changed, _ = store.ChangeStatus(context.Background(), id, billing.StatusChange{Status: billing.Cancelled})
				}
			})
			require.NotNil(t, changed)
			require.Equal(t, len(page.Charges) == 1, changed.InProgress != nil, "claimed %v, locked %d", page.Charges, page.Locked)
			if len(page.Charges) == 0 {
				late := claimPage(t, store, pageOf("s", id, 100))
				require.Empty(t, late.Charges)
				require.Zero(t, late.Locked)
			}
		}
	})
}

// nastyTexts are what a customer, a shop or a database error may say.
var nastyTexts = []string{
	`it's "quoted"`, `\ \\ \" \n \u0000`, "line\nbreak\ttab\r\x01", "ünïcödé 🍺 \u2028 <&>", "?@at$1%s@batch@now", "null", "[]", "bad \xff utf-8", "nul \x00 byte", strings.Repeat("ä", 3000),
}

func TestSettlePage_TakesAnyText(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		for i, text := range nastyTexts {
			customer := text
			if i == 2 || i > 6 {
				customer = "x" // no table has such a customer
			}
			b.AddSubscription(t, fmt.Sprintf("t-%02d", i), 1, customer)
		}
		for i, id := range nastyIDs {
			if !slices.Contains([]string{"s"}, id) {
				b.AddSubscription(t, id, 1, fmt.Sprintf("c %d", i))
			}
		}
		claimed, left := walk(t, b.Store, pageOf("", last, 9))
		require.Empty(t, left)
		require.Len(t, claimed, 1+len(nastyTexts)+len(nastyIDs))
		for i := range claimed {
			text := nastyTexts[i%len(nastyTexts)]
			order, err := json.Marshal(map[string]any{"text": text, "nested": []any{text, nil, 1.5}})
			require.NoError(t, err)
			claimed[i].Status, claimed[i].Order, claimed[i].Attempts = billing.Charged, append([]byte("  "), order...), 2
			claimed[i].FailureCode, claimed[i].FailureDetail = text, text
		}
		b.clock.set(day(1))

		require.NoError(t, b.SettlePage(t.Context(), placed(claimed), true))

		for _, want := range claimed {
			got, err := b.Charge(t.Context(), want.SubscriptionID, november)
			require.NoError(t, err)
			require.Equal(t, string(want.Order), string(got.Order), "byte for byte")
			require.Equal(t, want.CustomerID, got.CustomerID)
			require.Equal(t, billing.Charged, got.Status)
			require.Equal(t, 2, got.Attempts)
			require.Equal(t, day(1), *got.SettledAt)
			require.Zero(t, got.ClaimedUntil)
			require.NotEmpty(t, got.FailureDetail)
			require.LessOrEqual(t, len([]rune(got.FailureDetail)), 1024)
		}
	})
}

func TestSettlePage_Hundreds(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		const many = 300
		for n := range many {
			b.AddSubscription(t, fmt.Sprintf("t-%03d", n), 1, "x")
		}
		claimed := claimPage(t, b.Store, pageOf("s", last, many)).Charges
		require.Len(t, claimed, many)
		big := json.RawMessage(`"` + strings.Repeat("ä", 32<<10-1) + `"`)
		for i := range claimed {
			claimed[i].Status, claimed[i].Order = billing.Charged, big
		}
		b.Exec(t, "DELETE FROM charge WHERE subscription_id >= 't-290'") // by hand
		require.NoError(t, b.SettlePage(t.Context(), placed(claimed), true))
		require.NoError(t, b.SettlePage(t.Context(), placed(claimed), true), "again")
		require.Equal(t, []string{"300"}, b.Lines(t, "SELECT CAST(count(*) AS text) FROM charge WHERE status = 'charged' AND length(shop_order) = $1 AND run_id = '2026-11/2'", 32<<10+1))
	})
}

// rows are the ledger's, "status owner claimed sent settled" by subscription.
func rows(t *testing.T, b bundle) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, line := range b.Lines(t, `SELECT subscription_id || '=' || status || ' ' || owner
		|| CASE WHEN claimed_until IS NULL THEN '' ELSE ' claimed' END
		|| CASE WHEN sent_at IS NULL THEN '' ELSE ' sent' END
		|| CASE WHEN settled_at IS NULL THEN '' ELSE ' settled' END FROM charge`) {
		id, row, _ := strings.Cut(line, "=")
		all[id] = row
	}
	return all
}

func TestSettlePage_AllOutcomesAtOnce(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		outcomes := map[string]billing.ChargeStatus{
			"charged": billing.Charged, "declined": billing.Declined, "unresolved": billing.Unresolved, "let go": billing.Pending,
			"taken over": billing.Pending, "settled since": billing.Charged, "declined since": billing.Declined, "pending since": billing.Pending,
			"gone": billing.Charged, "gone and pending": billing.Pending, "gone and declined": billing.Declined, "gone, another": billing.Charged, "let go in doubt": billing.Pending, "sent since": billing.Pending,
			"withdrawn since":        billing.Charged,
			"taken over and charged": billing.Charged, "unresolved by another": billing.Pending,
		}
		for id := range outcomes {
			b.AddSubscription(t, id, 1, "x")
		}
		in := pageOf("", last, 100)
		claimed := slices.DeleteFunc(claimPage(t, b.Store, in).Charges, func(c billing.Charge) bool { return c.SubscriptionID == "s" })
		b.Exec(t, "DELETE FROM charge WHERE subscription_id = 's'")
		b.Exec(t, "DELETE FROM charge WHERE subscription_id LIKE 'gone%'")
		b.Exec(t, "UPDATE charge SET owner = 'charge', claimed_until = NULL WHERE subscription_id LIKE 'taken%'")
		b.Exec(t, "UPDATE charge SET owner = 'charge', claimed_until = NULL, status = 'unresolved', settled_at = $1 WHERE subscription_id = 'unresolved by another'", day(0))
		b.Exec(t, "UPDATE charge SET status = 'declined', settled_at = $1 WHERE subscription_id IN ('settled since', 'pending since')", day(0))
		b.Exec(t, "UPDATE charge SET status = 'charged', settled_at = $1 WHERE subscription_id = 'declined since'", day(0))
		b.Exec(t, "UPDATE charge SET status = 'withdrawn', settled_at = $1 WHERE subscription_id = 'withdrawn since'", day(0))
		b.Exec(t, "UPDATE charge SET sent_at = $1 WHERE subscription_id = 'sent since'", day(0).Add(time.Microsecond))
		_, err := b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "gone, another", Period: november, RequestID: "another"}, "charge", true)
		require.NoError(t, err)
		for i := range claimed {
			claimed[i].Status, claimed[i].FailureCode = outcomes[claimed[i].SubscriptionID], "code"
		}

		settled := placed(claimed)
		for i := range settled {
			settled[i].NotOrdered = settled[i].Status == billing.Pending && settled[i].SubscriptionID != "let go in doubt"
		}
		err = b.SettlePage(t.Context(), settled, true)
		require.Equal(t, billing.CodeLedgerConflict, billing.CodeOf(err), "an order that the ledger does not take is told: %v", err)

		require.Equal(t, map[string]string{
			"charged": "charged page 1 sent settled", "declined": "declined page 1 sent settled",
			"unresolved": "unresolved page 1 sent settled", "let go": "pending nobody",
			"taken over": "pending charge sent", "taken over and charged": "charged charge sent settled",
			"settled since": "declined page 1 claimed sent settled", "declined since": "charged page 1 claimed sent settled",
			"pending since": "declined page 1 claimed sent settled", "unresolved by another": "unresolved charge sent settled",
			"gone": "charged page 1 claimed sent settled", "gone and declined": "declined page 1 claimed sent settled",
			"gone, another":   "pending charge sent",
			"let go in doubt": "pending nobody sent", "sent since": "pending page 1 claimed sent", "withdrawn since": "withdrawn page 1 claimed sent settled",
		}, rows(t, b))
		require.NoError(t, b.SettlePage(t.Context(), nil, true))
	})
}

func TestOwnClaims(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "x")
		b.AddSubscription(t, "u", 1, "x")
		page := claimPage(t, b.Store, pageOf("", last, 10))
		for run, owners := range map[string][]string{thisRun.ID: {"page 10", "", "%"}, "2026-11/1": {"page 1"}} {
			for _, owner := range owners {
				own, err := b.OwnClaims(t.Context(), run, owner)
				require.NoError(t, err)
				require.Empty(t, own)
			}
		}
		b.settle(t, page.Charges[1], billing.Charged)
		own, err := b.OwnClaims(t.Context(), thisRun.ID, "page 1")
		require.NoError(t, err)
		require.Equal(t, []string{"s", "u"}, subscriptions(own))
		require.NoError(t, b.SettlePage(t.Context(), placed(own), false), "held no longer")
		held, err := b.HoldClaims(t.Context(), pageOf("", last, 10), []billing.RequestID{own[0].RequestID, page.Charges[1].RequestID, "nobody's"})
		require.NoError(t, err)
		require.Equal(t, []billing.RequestID{own[0].RequestID}, held)
		require.Equal(t, billing.StepJoin, b.claim(t, "x", billing.ChargeOwner).Step, "held again")
		left, err := b.LeftOver(t.Context(), leftOver)
		require.NoError(t, err)
		require.Empty(t, left, "both are the page's")
		require.NoError(t, b.SettlePage(t.Context(), placed(own), false), "held no longer")
		require.Equal(t, billing.StepJoin, b.claim(t, "x", billing.ChargeOwner).Step, "not by who knows another time of sending")
		own, err = b.OwnClaims(t.Context(), thisRun.ID, "page 1")
		require.NoError(t, err)
		require.Zero(t, own[0].SentAt)
		require.NoError(t, b.SettlePage(t.Context(), placed(own), false), "held no longer")
		b.claim(t, "x", billing.ChargeOwner)
		own, err = b.OwnClaims(t.Context(), thisRun.ID, "page 1")
		require.NoError(t, err)
		require.Equal(t, []string{"u"}, subscriptions(own), "a workflow has taken s over")
		n, err := b.OpenCharges(t.Context(), thisRun.ID, billing.ChargeOwner)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

// What pages hold is lifted when their time is over, or, at an idempotent shop, when a run
// of the month begins.
func TestLiftHolds(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		claimPage(t, b.Store, pageOf("", last, 10))
		left := func() []string {
			ids, err := b.LeftOver(t.Context(), leftOver)
			require.NoError(t, err)
			return ids
		}
		lift := func(period billing.Period, all bool) {
			t.Helper()
			require.NoError(t, b.LiftHolds(t.Context(), period, all))
		}
		lift(november, false)
		lift(october, true)
		require.Empty(t, left(), "the page holds it")
		lift(november, true)
		require.Equal(t, []string{"s"}, left())
		require.Equal(t, []string{billing.Nobody}, b.Lines(t, "SELECT owner FROM charge"))

		b.Exec(t, "DELETE FROM charge")
		claimPage(t, b.Store, pageOf("", last, 10))
		b.clock.set(day(0).Add(time.Minute + time.Microsecond))
		lift(november, false)
		require.Equal(t, []string{"s"}, left())
		require.Len(t, b.Lines(t, "SELECT sent_at FROM charge WHERE sent_at IS NOT NULL"), 1, "it may have been sent")
	})
}

func TestLeftOver_ByPages(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		type kind struct{ all, unresolved bool }
		kinds := []kind{{false, false}, {true, false}, {true, true}}
		want := map[kind][]string{}
		add := func(id, period, status, owner string, until any, in ...kind) {
			b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, customer_id, sku_id, created_at)
				VALUES ($1, $2, $3, $4, $5, $6, '', 1, $7)`, period+id, id, period, status, owner, until, day(0))
			for _, k := range in {
				want[k] = append(want[k], id)
			}
		}
		for i, id := range nastyIDs {
			add(id, "2026-10", "pending", billing.Nobody, nil)
			switch i % 8 {
			case 0:
				add(id, "2026-11", "pending", billing.Nobody, nil, kinds...)
			case 1:
				add(id, "2026-11", "pending", billing.ChargeOwner, nil, kinds[1:]...)
			case 2:
				add(id, "2026-11", "pending", "page 1", day(0).Add(time.Microsecond))
			case 3:
				add(id, "2026-11", "unresolved", "o", nil, kinds[2])
			case 4:
				add(id, "2026-11", "charged", billing.Nobody, nil)
			case 5:
				add(id, "2026-11", "declined", billing.Nobody, nil)
			case 6:
				add(id, "2026-11", "pending", "page 1", nil)
			case 7:
				add(id, "2026-11", "withdrawn", billing.Nobody, nil)
			}
		}
		for _, k := range kinds {
			slices.Sort(want[k])
			for limit := 1; limit < 9; limit++ {
				got, after := []string{}, ""
				for {
					ids, err := b.LeftOver(t.Context(), billing.LeftOverQuery{
						RunID: thisRun.ID, Period: november, All: k.all, Unresolved: k.unresolved, Pages: "page ", After: after, Limit: limit,
					})
					require.NoError(t, err)
					require.LessOrEqual(t, len(ids), limit)
					if len(ids) == 0 {
						break
					}
					got, after = append(got, ids...), ids[len(ids)-1]
				}
				require.Equal(t, want[k], got, "%v", k)
			}
		}
	})
}

// Whoever subscribes into a range that is planned already is charged with it.
func TestClaimPage_WhoCameAfterThePlan(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "u", 1, "x")
		ends, more := plannedPages(t, b.Store, day(0), "", 2, 2)
		require.Equal(t, []string{"u"}, ends)
		require.False(t, more)
		for _, id := range []string{"a", "t", "v"} {
			b.AddSubscription(t, id, 1, "x")
		}
		claimed, _ := walk(t, b.Store, pageOf("", ends[0], 2))
		require.Equal(t, []string{"a", "s", "t", "u"}, subscriptions(claimed))
	})
}

// What decided at the claim is kept, whatever is written or deleted later.
func TestClaim_KeepsTheRowsThatDecided(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "x")
		row := func(id string, status int, effect int) billing.Change {
			return billing.Change{ID: id, StatusID: status, EffectDate: new(day(effect)), CreateDate: new(day(effect))}
		}
		for _, s := range []string{"s", "t"} {
			b.AddChanges(t, s, row(s+"-cancelled", 2, -3), row(s+"-active", 1, -2), row(s+"-later", 2, 3))
		}
		b.AddClubChanges(t, 1, row("club-inactive", 3, -3), row("club-active", 1, -2), row("club-later", 3, 3))
		single := b.claim(t, "r", "o").Charge
		page := claimPage(t, b.Store, pageOf("s", last, 10)).Charges
		require.Len(t, page, 1)

		b.Exec(t, "DELETE FROM subscription_status_history WHERE id LIKE '%-active'")
		b.Exec(t, "DELETE FROM club_status_history WHERE id LIKE '%-active'")
		b.AddChanges(t, "s", row("s-now", 1, -1))
		b.clock.set(day(5))
		require.NoError(t, b.SettlePage(t.Context(), []billing.PlacedCharge{{Charge: page[0]}}, true))
		b.claim(t, "r-2", "another")

		for _, of := range []billing.Charge{*single, page[0]} {
			stands, err := b.Charge(t.Context(), of.SubscriptionID, november)
			require.NoError(t, err)
			for _, c := range []billing.Charge{of, *stands} {
				require.Equal(t, of.SubscriptionID+"-active", c.StatusRow)
				require.Equal(t, "club-active", c.ClubStatusRow)
			}
		}
	})
}

// withdraw has a charge withdrawn. Nothing of ours does it yet.
func (b bundle) withdraw(t *testing.T, id billing.RequestID) {
	t.Helper()
	b.Exec(t, "UPDATE charge SET status = 'withdrawn', claimed_until = NULL, settled_at = $1 WHERE request_id = $2", day(0), string(id))
}

// A withdrawn charge is history: the month is free, under another request id.
func TestWithdrawn_IsHistory(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		b.claim(t, "r", "o")
		b.withdraw(t, "r")

		_, err := b.ClaimCharge(t.Context(), request("r"), "o", true)
		require.Equal(t, billing.CodeRequestIDReused, billing.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "withdrawn")
		permitted, _, err := b.PermitSending(t.Context(), "r", day(0), "")
		require.NoError(t, err)
		require.False(t, permitted)
		require.NoError(t, b.NotOrdered(t.Context(), "r", day(0)))
		standing, err := b.Standing(t.Context(), november, []string{"s"})
		require.NoError(t, err)
		require.Empty(t, standing)
		require.Equal(t, []string{"s"}, eligible(t, b.Store, billing.EligibleQuery{At: day(0), CutOff: day(0), Uncharged: november}))
		due, err := b.CountDue(t.Context(), november, day(0))
		require.NoError(t, err)
		require.Equal(t, 1, due)
		changed, err := b.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Active})
		require.NoError(t, err)
		require.Nil(t, changed.InProgress)
		run, err := b.RunByID(t.Context(), thisRun.ID)
		require.NoError(t, err)
		report, err := b.Report(t.Context(), *run)
		require.NoError(t, err)
		require.Equal(t, 1, report.Totals[billing.ClassMissing])
		left, err := b.LeftOver(t.Context(), leftOver)
		require.NoError(t, err)
		require.Empty(t, left)

		// No outcome reaches it any more, and an order of it is told.
		late := billing.Charge{RequestID: "r", SubscriptionID: "s", Period: november, Status: billing.Charged, CustomerID: "anna", SKU: 7, CreatedAt: day(0)}
		_, err = b.SettleCharge(t.Context(), late)
		require.Equal(t, billing.CodeLedgerConflict, billing.CodeOf(err), "%v", err)
		require.Equal(t, billing.Withdrawn, b.settle(t, late, billing.Unresolved).Status)
		put, err := b.PutBack(t.Context(), late)
		require.NoError(t, err)
		require.False(t, put)
		stands, err := b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, billing.Withdrawn, stands.Status)
		_, err = b.Resolve(t.Context(), billing.Resolution{SubscriptionID: "s", Period: november, Outcome: billing.Charged, Note: "n"})
		require.Equal(t, billing.CodeChargeNotUnresolved, billing.CodeOf(err), "%v", err)
		for _, correction := range []billing.Correction{
			{RequestIDs: []billing.RequestID{"r"}, Outcome: billing.Charged, Note: "n"},
			{SubscriptionID: "s", Period: november, Outcome: billing.Charged, Note: "n"},
		} {
			_, err = b.Correct(t.Context(), correction)
			require.Equal(t, billing.CodeChargeNotSettled, billing.CodeOf(err), "%v", err)
		}

		// A new attempt; a charge that stands is shown and corrected before it.
		second := b.claim(t, "r-2", "o").Charge
		require.Equal(t, billing.StepPlace, b.claim(t, "r", "o").Step, "any id joins the one that stands")
		b.settle(t, *second, billing.Charged)
		stands, err = b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, billing.RequestID("r-2"), stands.RequestID)
		_, err = b.Correct(t.Context(), billing.Correction{SubscriptionID: "s", Period: november, Outcome: billing.Declined, Note: "n"})
		require.NoError(t, err)
	})
}

// The run whose claim was withdrawn does not try again; the next one does, under the next
// request id.
func TestWithdrawn_IsTriedByTheNextRun(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		in := pageOf("", last, 10)
		claimed, _ := walk(t, b.Store, in)
		require.Len(t, claimed, 1)
		b.withdraw(t, claimed[0].RequestID)
		again, _ := walk(t, b.Store, in)
		require.Empty(t, again)
		_, err := b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "s", Period: november, RunID: thisRun.ID}, "o", true)
		require.Equal(t, billing.CodeRequestIDReused, billing.CodeOf(err), "%v", err)
		counts, err := b.RunCounts(t.Context(), thisRun.ID)
		require.NoError(t, err)
		require.Zero(t, counts.Tried())

		in.RunID = "2026-11/9"
		recordRun(t, b.Database, in.RunID, day(0))
		next, _ := walk(t, b.Store, in)
		require.Empty(t, next, "a second attempt is a workflow's")
		b.withdraw(t, "2026-11-s-2")
		recordRun(t, b.Database, "2026-11/10", day(0))
		claim, err := b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "s", Period: november, RunID: "2026-11/10"}, "o", true)
		require.NoError(t, err)
		require.Equal(t, billing.RequestID("2026-11-s-3"), claim.Charge.RequestID)
	})
}

// Claims that nobody holds are for whoever takes them over, as not sent.
func TestClaimPage_Unheld(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		in := pageOf("", last, 10)
		in.Unheld = true
		require.Zero(t, claimPage(t, b.Store, in).Charges[0].SentAt)
		require.Equal(t, map[string]string{"s": "pending nobody"}, rows(t, b))
		b.clock.set(day(1))
		claim := b.claim(t, "x", billing.ChargeOwner)
		require.Equal(t, billing.StepPlace, claim.Step)
		require.True(t, claim.Unsent)
		require.Equal(t, day(1), claim.Charge.SentAt)
		require.Equal(t, map[string]string{"s": "pending charge sent"}, rows(t, b))
	})
}

// Settling must not touch the indexes: the new version of a row stays on its page.
func TestSettlePage_LeavesTheIndexesAlone(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	recordRun(t, b.Database, thisRun.ID, day(0))
	b.Exec(t, "DROP INDEX charge_by_run")
	const many = 200
	for n := range many {
		b.AddSubscription(t, fmt.Sprintf("t-%03d", n), 1, "x")
	}
	claimed := claimPage(t, b.Store, pageOf("s", last, many)).Charges
	require.Len(t, claimed, many)
	for i := range claimed {
		claimed[i].Status, claimed[i].Order = billing.Charged, json.RawMessage(`"`+strings.Repeat("x", 200)+`"`)
	}
	require.NoError(t, b.SettlePage(t.Context(), placed(claimed), true))
	require.Eventually(t, func() bool {
		return b.Lines(t, "SELECT n_tup_upd || ' ' || n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'charge'")[0] == "200 200"
	}, 10*time.Second, 50*time.Millisecond, "updates and HOT updates")
}
