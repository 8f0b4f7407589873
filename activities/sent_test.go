package activities_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
)

// sent returns when the ledger says that the charge was sent; zero: never.
func (b *bench) sent(t *testing.T, id billing.RequestID) time.Time {
	t.Helper()
	c, err := b.store.ChargeByRequestID(t.Context(), id)
	require.NoError(t, err)
	return c.SentAt
}

// placeIn places the order inside a workflow task, or as an activity.
func (b *bench) placeIn(task bool, in activities.PlaceOrderInput) (*billing.Charge, error) {
	in.Installation = ours
	execute := b.ExecuteActivity
	if task {
		execute = b.ExecuteLocalActivity
	}
	value, err := execute(b.acts.PlaceOrder, in)
	if err != nil {
		return nil, err
	}
	var out *billing.Charge
	return out, value.Get(&out)
}

// What the shop says of one call, and whether it then certainly made no order.
var answers = map[string]struct {
	fault   shoptest.Fault
	certain bool
}{
	"429":         {shoptest.Fault{Status: http.StatusTooManyRequests}, true},
	"401":         {shoptest.Fault{Status: http.StatusUnauthorized}, true},
	"503":         {shoptest.Fault{Status: http.StatusServiceUnavailable}, false},
	"no answer":   {shoptest.Fault{Cut: shoptest.CutAfter}, false},
	"302, booked": {shoptest.Fault{Status: http.StatusFound, BookFirst: true}, false},
}

// The time of sending is cleared by who knows that nothing was ordered, and by nobody
// else: not if any earlier call may have ordered, or may have been made at all.
func TestPlaceOrder_IdempotentShop_ClearsWhatIsCertain(t *testing.T) {
	t.Parallel()
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				b := setup(t, db, true)
				b.shop.SetFaults(answer.fault)
				claimed := b.claim(t, "s", "r", billing.ChargeOwner)
				claimedAt := claimed.SentAt
				_, err := b.placeIn(true, activities.PlaceOrderInput{Charge: claimed, Unsent: true})
				require.Error(t, err)
				require.Equal(t, answer.certain, b.sent(t, "r").IsZero())
				if !answer.certain {
					require.Equal(t, claimedAt, b.sent(t, "r"))
				}

				// The next call sets it again, and knows as much about itself.
				_, err = b.placeIn(false, activities.PlaceOrderInput{Charge: claimed})
				require.Error(t, err)
				require.Equal(t, answer.certain, b.sent(t, "r").IsZero())

				// After a call in doubt no later answer is certain.
				b.shop.SetFaults(shoptest.Fault{Status: http.StatusServiceUnavailable})
				_, err = b.placeIn(false, activities.PlaceOrderInput{Charge: claimed})
				require.Error(t, err)
				b.shop.SetFaults(shoptest.Fault{Status: http.StatusTooManyRequests})
				for range 2 {
					_, err = b.placeIn(false, activities.PlaceOrderInput{Charge: claimed})
					require.Error(t, err)
					require.False(t, b.sent(t, "r").IsZero())
				}
				b.shop.SetFaults()
				placed, err := b.placeIn(false, activities.PlaceOrderInput{Charge: claimed})
				require.NoError(t, err)
				require.Equal(t, billing.Charged, placed.Status)
			})
		})
	}
}

// A process may have called and died before anything was recorded: what comes after is
// no first call, whoever makes it and however the charge came to it.
func TestPlaceOrder_IdempotentShop_AfterACrash(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		for name, next := range map[string]func(b *bench, claimed billing.Charge){
			"the call again, in a workflow task": func(b *bench, claimed billing.Charge) {
				_, err := b.placeIn(true, activities.PlaceOrderInput{Charge: claimed})
				require.Error(t, err)
			},
			"the call again, as an activity": func(b *bench, claimed billing.Charge) {
				_, err := b.placeIn(false, activities.PlaceOrderInput{Charge: claimed, Unsent: true})
				require.Error(t, err)
			},
			"the whole workflow task again": func(b *bench, _ billing.Charge) {
				value, err := b.ExecuteActivity(b.acts.ClaimCharge, billing.ChargeRequest{SubscriptionID: "s", Period: november, RequestID: "r", Installation: ours})
				require.NoError(t, err)
				var again activities.ClaimChargeOutput
				require.NoError(t, value.Get(&again))
				require.Equal(t, billing.StepPlace, again.Step)
				require.False(t, again.Unsent)
				_, err = b.placeIn(true, activities.PlaceOrderInput{Charge: *again.Charge, Unsent: again.Unsent})
				require.Error(t, err)
			},
			"the first process comes late": func(b *bench, claimed billing.Charge) {
				b.claim(t, "s", "r", billing.ChargeOwner) // another has begun the task again
				_, err := b.placeIn(true, activities.PlaceOrderInput{Charge: claimed, Unsent: true})
				require.Error(t, err)
			},
		} {
			db.Exec(t, "DELETE FROM charge")
			for _, table := range []string{"subscription_status_history", "subscription", "club_status_history", "club"} {
				db.Exec(t, "DELETE FROM "+table)
			}
			b := setup(t, db, true)
			b.shop.SetFaults(shoptest.Fault{Status: http.StatusTooManyRequests})
			claimed := b.claim(t, "s", "r", billing.ChargeOwner)
			next(b, claimed)
			require.False(t, b.sent(t, "r").IsZero(), name)
		}
	})
}

// A shop that is not idempotent is asked only by the very claim, or after a certain no.
func TestPlaceOrder_NotIdempotent_SendsOnce(t *testing.T) {
	t.Parallel()
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				b := setup(t, db, false)
				b.shop.SetFaults(answer.fault)
				claimed := b.claim(t, "s", "r", billing.ChargeOwner)
				claim := activities.PlaceOrderInput{Charge: claimed, Unsent: true}
				placed, err := b.placeIn(false, claim)
				require.Equal(t, answer.certain, err != nil)
				if answer.certain {
					require.Zero(t, b.sent(t, "r"))
					b.shop.SetFaults()
					placed, err = b.placeIn(false, claim)
					require.NoError(t, err)
					require.Equal(t, billing.Charged, placed.Status)
					return
				}
				require.Equal(t, billing.Unresolved, placed.Status)
				require.True(t, b.sent(t, "r").After(claimed.SentAt), "moved before the call")
				placed, err = b.placeIn(false, claim) // the try after a crash in the call
				require.NoError(t, err)
				require.Equal(t, billing.Unresolved, placed.Status)
				require.Len(t, b.shop.Calls(), 1)
			})
		})
	}
}

// Whoever takes over a claim that may have been sent does not send it.
func TestPlaceOrder_NotIdempotent_TakenOver(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, false)
		claim := func() activities.ClaimChargeOutput {
			value, err := b.ExecuteActivity(b.acts.ClaimCharge, billing.ChargeRequest{SubscriptionID: "s", Period: november, RequestID: "r", Installation: ours})
			require.NoError(t, err)
			var out activities.ClaimChargeOutput
			require.NoError(t, value.Get(&out))
			return out
		}
		// A page has claimed it, and died: it may have been sent.
		run := b.record(t, billing.RunRunning, modelstest.Long.AddDate(0, 1, 0))
		page, err := b.store.ClaimPage(t.Context(), billing.PageClaim{RunID: run.ID, Owner: "page", Period: november, UpTo: "s", Limit: 1})
		require.NoError(t, err)
		db.Exec(t, "UPDATE charge SET claimed_until = NULL")
		taken := claim()
		require.False(t, taken.Unsent)
		placed, err := b.placeIn(false, activities.PlaceOrderInput{Charge: *taken.Charge, Unsent: taken.Unsent})
		require.NoError(t, err)
		require.Equal(t, billing.Unresolved, placed.Status)
		require.Empty(t, b.shop.Calls())

		// It has released it instead: then it is sent.
		require.NoError(t, b.store.SettlePage(t.Context(), []billing.PlacedCharge{{Charge: page.Charges[0], NotOrdered: true}}, true))
		db.Exec(t, "UPDATE charge SET sent_at = NULL, owner = 'page'")
		taken = claim()
		require.True(t, taken.Unsent)
		placed, err = b.placeIn(false, activities.PlaceOrderInput{Charge: *taken.Charge, Unsent: taken.Unsent})
		require.NoError(t, err)
		require.Equal(t, billing.Charged, placed.Status)
		require.Len(t, b.shop.Calls(), 1)
	})
}

// In another installation's database nothing is sent, whatever the row says.
func TestPlaceOrder_RestoredDatabaseSendsNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, false)
		claimed := b.claim(t, "s", "r", billing.ChargeOwner)
		db.Exec(t, "UPDATE installation SET seat = 'elsewhere'")
		_, err := b.placeIn(false, activities.PlaceOrderInput{Charge: claimed, Unsent: true})
		requireRetried(t, err, string(billing.CodeNotAdopted), "drayman adopt")
		require.Empty(t, b.shop.Calls())
		require.Equal(t, claimed.SentAt, b.sent(t, "r"))
	})
}

// Nothing can be placed or settled of what was withdrawn since.
func TestPlaceOrder_Withdrawn(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		b := setup(t, db, true)
		claimed := b.claim(t, "s", "r", billing.ChargeOwner)
		db.Exec(t, "UPDATE charge SET status = 'withdrawn'")
		placed, err := b.placeIn(false, activities.PlaceOrderInput{Charge: claimed})
		require.NoError(t, err)
		require.Equal(t, billing.Withdrawn, placed.Status)
		value, err := b.ExecuteActivity(b.acts.SettleCharge, activities.SettleChargeInput{Charge: *placed, Installation: ours})
		require.NoError(t, err)
		var settled billing.Charge
		require.NoError(t, value.Get(&settled))
		require.Equal(t, billing.Withdrawn, settled.Status)
		require.Empty(t, b.shop.Calls())
	})
}

// page charges all of a month in one page of the run 2026-11/1.
func (b *bench) page(t *testing.T, run billing.Run) activities.ChargePageOutput {
	t.Helper()
	value, err := b.ExecuteActivity(b.acts.ChargePage, activities.ChargePageInput{RunRef: activities.RunRef{Installation: ours, RunID: run.ID, Period: run.Period, Execution: "e"}, Number: 1, UpTo: "z", Concurrency: 2})
	require.NoError(t, err)
	var out activities.ChargePageOutput
	require.NoError(t, value.Get(&out))
	return out
}

// A page lets go of what did not go through, and clears the time of sending where its
// call, the first one, certainly made no order.
func TestChargePage_ClearsWhatIsCertain(t *testing.T) {
	t.Parallel()
	for name, answer := range answers {
		for _, idempotent := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
					b := setup(t, db, idempotent)
					run := b.record(t, billing.RunRunning, modelstest.Long.AddDate(0, 1, 0))
					b.shop.SetFaults(answer.fault)
					b.page(t, run)
					for _, line := range db.Lines(t, "SELECT status || CASE WHEN sent_at IS NULL THEN '' ELSE ' sent' END || CASE WHEN claimed_until IS NULL THEN '' ELSE ' held' END FROM charge WHERE attempts > 0") {
						switch {
						case answer.certain:
							require.Equal(t, "pending", line)
						case idempotent:
							require.Equal(t, "pending sent", line)
						default:
							require.Equal(t, "unresolved sent", line)
						}
					}
				})
			})
		}
	}
}

// A page that runs again finds its claims. What an earlier try may have sent stays in
// doubt, however certain the answer to this one is.
func TestChargePage_SecondTry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		idempotent, sent bool // by the earlier try, for all that the ledger says
		status           int  // of the shop, 0: it charges
		want             string
	}{
		{"idempotent, maybe sent, 429", true, true, http.StatusTooManyRequests, "pending sent"},
		{"idempotent, maybe sent, charged", true, true, 0, "charged sent"},
		{"idempotent, released, 429", true, false, http.StatusTooManyRequests, "pending"},
		{"idempotent, released, 503", true, false, http.StatusServiceUnavailable, "pending sent"},
		{"idempotent, released, charged", true, false, 0, "charged sent"},
		{"maybe sent", false, true, 0, "unresolved sent"},
		{"released, 429", false, false, http.StatusTooManyRequests, "pending"},
		{"released, 503", false, false, http.StatusServiceUnavailable, "unresolved sent"},
		{"released, charged", false, false, 0, "charged sent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				b := setup(t, db, c.idempotent)
				run := b.record(t, billing.RunRunning, modelstest.Long.AddDate(0, 1, 0))
				page, err := b.store.ClaimPage(t.Context(), billing.PageClaim{
					RunID: run.ID, Owner: "billing-run/2026-11/1 e page 1", Period: november, UpTo: "s", Limit: 1, HeldFor: time.Minute,
				})
				require.NoError(t, err)
				require.Len(t, page.Charges, 1)
				if !c.sent {
					require.NoError(t, b.store.SettlePage(t.Context(), []billing.PlacedCharge{{Charge: page.Charges[0], NotOrdered: true}}, false))
				}
				if c.status != 0 {
					b.shop.SetFaults(shoptest.Fault{Status: c.status})
				}
				db.Exec(t, "DELETE FROM subscription_status_history WHERE subscription_id = 't'")
				b.page(t, run)
				require.Equal(t, []string{c.want}, db.Lines(t, "SELECT status || CASE WHEN sent_at IS NULL THEN '' ELSE ' sent' END FROM charge"))
				calls := 1
				if !c.idempotent && c.sent {
					calls = 0
				}
				require.Len(t, b.shop.Calls(), calls)
			})
		})
	}
}

// While the shop is down a page stops, whether its orders may be sent again or are in doubt.
func TestChargePage_ShopIsDown(t *testing.T) {
	t.Parallel()
	for _, idempotent := range []bool{true, false} {
		t.Run(fmt.Sprint(idempotent), func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				b := setup(t, db, idempotent)
				for i := range 100 {
					db.AddSubscription(t, fmt.Sprintf("u-%03d", i), 1, "customer")
				}
				run := b.record(t, billing.RunRunning, modelstest.Long.AddDate(0, 1, 0))
				b.shop.SetFaults(shoptest.Fault{Status: http.StatusServiceUnavailable})
				out := b.page(t, run)
				require.Equal(t, activities.StopFailing, out.Stop)
				require.Contains(t, out.Detail, "503")
				require.False(t, out.Done)
				require.Less(t, len(b.shop.Calls()), 100)
			})
		})
	}
}
