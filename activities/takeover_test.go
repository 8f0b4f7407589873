package activities_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/activities"
	"drayman/billing"
	"drayman/models/modelstest"
)

const pageOwner = "billing-run/2026-11/1 e page 1"

// addClaim writes a claim of s, under the request id r.
func (b *bench) addClaim(t *testing.T, owner string, until, sentAt *time.Time) {
	t.Helper()
	b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, sent_at, run_id, club_id, customer_id, sku_id, created_at)
		VALUES ('r', 's', '2026-11', 'pending', $1, $2, $3, '2026-11/1', 1, 'anna', 7, $4)`, owner, until, sentAt, modelstest.Long)
}

// at is the time of the bench and so much later.
func at(later time.Duration) *time.Time {
	t := time.Date(2026, 11, 15, 0, 0, 0, 0, time.UTC).Add(later)
	return &t
}

// claimAs asks for the charge of s as a ChargeSubscription workflow does.
func (b *bench) claimAs(t *testing.T, id billing.RequestID) activities.ClaimChargeOutput {
	t.Helper()
	value, err := b.ExecuteActivity(b.acts.ClaimCharge, billing.ChargeRequest{SubscriptionID: "s", Period: november, RequestID: id, Installation: ours})
	require.NoError(t, err)
	var out activities.ClaimChargeOutput
	require.NoError(t, value.Get(&out))
	return out
}

func TestClaimCharge_WhoMayTakeOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		owner string
		until *time.Time
		taken bool
	}{
		"its owner, at any time":    {billing.ChargeOwner, at(time.Hour), true},
		"its owner, held by nobody": {billing.ChargeOwner, nil, true},
		"anybody, of nobody":        {billing.Nobody, nil, true},
		"anybody, of a page":        {pageOwner, nil, true},
		"anybody, the hold is over": {pageOwner, at(0), true},
		"a page holds it":           {pageOwner, at(time.Microsecond), false},
	} {
		for _, idempotent := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
					b := setup(t, db, idempotent)
					b.addClaim(t, c.owner, c.until, nil)
					out := b.claimAs(t, "another")
					require.Equal(t, billing.RequestID("r"), out.Charge.RequestID, "the claim's own stays")
					row, err := b.store.ChargeByRequestID(t.Context(), "r")
					require.NoError(t, err)
					if c.taken {
						require.Equal(t, billing.StepPlace, out.Step)
						require.Equal(t, billing.ChargeOwner, row.Owner)
						require.Zero(t, row.ClaimedUntil)
						return
					}
					require.Equal(t, billing.StepJoin, out.Step)
					require.Equal(t, c.owner, row.Owner)
					require.Equal(t, *c.until, row.ClaimedUntil)
				})
			})
		}
	}
}

// A run that begins lifts the holds of its month: all of them at an idempotent shop, else
// those that are over.
func TestStartRun_LiftsHolds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		idempotent bool
		until      *time.Time
		lifted     bool
	}{
		"idempotent, held":     {true, at(time.Hour), true},
		"idempotent, over":     {true, at(-time.Hour), true},
		"not idempotent, held": {false, at(time.Hour), false},
		"not idempotent, over": {false, at(-time.Hour), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				b := setup(t, db, c.idempotent)
				b.record(t, billing.RunRunning, modelstest.Long.AddDate(0, 1, 0))
				b.addClaim(t, pageOwner, c.until, at(0))
				_, err := b.ExecuteActivity(b.acts.StartRun, activities.StartRunInput{
					Installation: ours, Period: november, ExecutionID: "next", Settings: billing.RunSettings{}.WithDefaults(), ConfirmPast: true,
				})
				require.NoError(t, err)
				row, err := b.store.ChargeByRequestID(t.Context(), "r")
				require.NoError(t, err)
				want := billing.Charge{Owner: pageOwner, ClaimedUntil: *c.until}
				if c.lifted {
					want = billing.Charge{Owner: billing.Nobody}
				}
				require.Equal(t, want.Owner, row.Owner)
				require.Equal(t, want.ClaimedUntil, row.ClaimedUntil)
				require.Equal(t, *at(0), row.SentAt, "whether it was sent is another question")
			})
		})
	}
}

// What may be sent: at an idempotent shop each claim; at another one a claim that was
// certainly not sent before, or that is the very one that sends.
func TestPlaceOrder_WhatMayBeSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sentAt *time.Time                   // in the ledger, before the claim is taken over
		since  func(t *testing.T, b *bench) // what happens between the claim and the call
		once   bool                         // a shop that is not idempotent is asked
	}{
		"sent_at is NULL":       {nil, nil, true},
		"an earlier one's":      {at(-time.Hour), nil, false},
		"moved since the claim": {nil, func(t *testing.T, b *bench) { b.claimAs(t, "another") }, false},
		"cleared since the claim": {nil, func(t *testing.T, b *bench) {
			require.NoError(t, b.store.NotOrdered(t.Context(), "r", b.sent(t, "r")))
		}, true},
	} {
		for _, idempotent := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
					b := setup(t, db, idempotent)
					b.addClaim(t, pageOwner, nil, c.sentAt)
					out := b.claimAs(t, "another")
					require.Equal(t, c.sentAt == nil, out.Unsent)
					if c.since != nil {
						c.since(t, b)
					}
					placed, err := b.placeIn(false, activities.PlaceOrderInput{Charge: *out.Charge, Unsent: out.Unsent})
					require.NoError(t, err)
					if idempotent || c.once {
						require.Equal(t, billing.Charged, placed.Status)
						require.Len(t, b.shop.Calls(), 1)
						require.Equal(t, "r", b.shop.Calls()[0].RequestID)
						return
					}
					require.Equal(t, billing.Unresolved, placed.Status)
					require.Equal(t, billing.FailureInDoubt, placed.FailureCode)
					require.Empty(t, b.shop.Calls())
				})
			})
		}
	}
}
