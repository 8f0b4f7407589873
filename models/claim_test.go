package models_test

import (
	"errors"
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

func TestClaimCharge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		claim := b.claim(t, "r", "workflow")

		want := &billing.Charge{
			RequestID: "r", SubscriptionID: "s", Period: november, Status: billing.Pending, ClubID: 1,
			CustomerID: "anna", SKU: 7, CreatedAt: day(0), SentAt: day(0), Owner: "workflow",
			StatusRow:     b.Lines(t, "SELECT id FROM subscription_status_history")[0],
			ClubStatusRow: b.Lines(t, "SELECT id FROM club_status_history")[0],
		}
		require.Equal(t, billing.Claim{Step: billing.StepPlace, Charge: want, Unsent: true}, claim)
		standing, err := b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, want, standing, "the answer is what stands there")
	})
}

func TestClaimCharge_Refuses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "cancelled", 1, "x", modelstest.Since(billing.Cancelled, modelstest.Long))
		b.AddSubscription(t, "no-customer", 1, "")
		b.AddClub(t, 2, 0)
		b.AddSubscription(t, "no-sku", 2, "x")
		for id, want := range map[string]billing.Code{
			"unknown": billing.CodeSubscriptionNotFound, "cancelled": billing.CodeNotEligible,
			"no-customer": billing.CodeNotEligible, "no-sku": billing.CodeNotEligible,
		} {
			_, err := b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: id, Period: november, RequestID: "r", RequireEligible: true}, "o", true)
			require.Equal(t, want, billing.CodeOf(err), id)
		}
		require.Empty(t, b.Lines(t, "SELECT request_id FROM charge"))

		claim, err := b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "cancelled", Period: november, RequestID: "r"}, "o", true)
		require.NoError(t, err, "the check is turned off")
		require.Equal(t, billing.StepPlace, claim.Step)
	})
}

// The status that counts is that at the claim, by the one clock.
func TestClaimCharge_AsksTheStatusNow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddChanges(t, "s", modelstest.Since(billing.Cancelled, day(1)))
		b.clock.set(day(1))
		_, err := b.ClaimCharge(t.Context(), request("r"), "o", true)
		require.Equal(t, billing.CodeNotEligible, billing.CodeOf(err))
		b.clock.set(day(1).Add(-time.Microsecond))
		require.Equal(t, billing.StepPlace, b.claim(t, "r", "o").Step)
	})
}

func TestClaimCharge_Settled(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		first := b.claim(t, "r-1", "o")
		b.settle(t, *first.Charge, billing.Declined)
		again := b.claim(t, "r-1", "o")
		require.Equal(t, billing.StepAnswer, again.Step)
		require.Equal(t, billing.Declined, again.Charge.Status)

		second := b.claim(t, "r-2", "o")
		require.Equal(t, billing.StepPlace, second.Step, "a new request id is a new attempt")
		b.settle(t, *second.Charge, billing.Charged)
		for _, id := range []billing.RequestID{"r-1", "r-2", "r-3"} {
			answer := b.claim(t, id, "other")
			require.Equal(t, billing.StepAnswer, answer.Step)
			require.Equal(t, billing.RequestID("r-2"), answer.Charge.RequestID)
			require.Equal(t, billing.Charged, answer.Charge.Status)
		}
	})
}

func TestClaimCharge_UsedRequestID(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "bert")
		b.claim(t, "r", "o")
		elsewhere, later := request("r"), request("r")
		elsewhere.SubscriptionID = "t"
		later.Period = billing.PeriodAt(day(31), time.UTC)
		for _, req := range []billing.ChargeRequest{elsewhere, later} {
			_, err := b.ClaimCharge(t.Context(), req, "o", true)
			require.Equal(t, billing.CodeRequestIDReused, billing.CodeOf(err))
		}
		later.RequestID = "R"
		b.clock.set(day(30))
		claim, err := b.ClaimCharge(t.Context(), later, "o", true)
		require.NoError(t, err, "request ids differ by case; periods are apart")
		require.Equal(t, billing.StepPlace, claim.Step)
	})
}

func TestClaimCharge_TakesOverAPendingCharge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for name, c := range map[string]struct {
			owner string
			until *time.Time
			step  billing.Step
		}{
			"its own":             {"me", nil, billing.StepPlace},
			"its own, still held": {"me", new(day(1)), billing.StepPlace},
			"held by nobody":      {"page", nil, billing.StepPlace},
			"held until now":      {"page", new(day(0)), billing.StepPlace},
			"held":                {"page", new(day(0).Add(time.Microsecond)), billing.StepJoin},
		} {
			b.Exec(t, "DELETE FROM charge")
			b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, attempts, customer_id, sku_id, created_at)
				VALUES ('page-1', 's', '2026-11', 'pending', $1, $2, 3, 'old anna', 5, $3)`, c.owner, c.until, day(-1))

			claim := b.claim(t, "r", "me")

			require.Equal(t, c.step, claim.Step, name)
			require.Equal(t, billing.RequestID("page-1"), claim.Charge.RequestID, name)
			require.Equal(t, "old anna", claim.Charge.CustomerID, "the shop was told of her: %s", name)
			require.Equal(t, 3, claim.Charge.Attempts, name)
			owner := c.owner
			if c.step == billing.StepPlace {
				owner = "me"
				require.Equal(t, []string{"me"}, b.Lines(t, "SELECT owner FROM charge WHERE claimed_until IS NULL"), name)
			}
			require.Equal(t, []string{owner}, b.Lines(t, "SELECT owner FROM charge"), name)
		}
	})
}

func TestClaimCharge_TakesUpAnUnresolvedCharge(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		first := *b.claim(t, "r-1", "o").Charge
		first.FailureCode, first.FailureDetail, first.Attempts = "shop_not_now", "it's \"down\"", 9
		b.settle(t, first, billing.Unresolved)

		claim, err := b.ClaimCharge(t.Context(), request("r-2"), "p", false)
		require.NoError(t, err)
		require.Equal(t, billing.StepResume, claim.Step, "a shop that is not idempotent is not asked again")
		require.Equal(t, billing.Unresolved, claim.Charge.Status)
		require.Equal(t, "it's \"down\"", claim.Charge.FailureDetail)

		claim, err = b.ClaimCharge(t.Context(), request("r-2"), "p", true)
		require.NoError(t, err)
		require.Equal(t, billing.StepPlace, claim.Step)
		require.Equal(t, billing.RequestID("r-1"), claim.Charge.RequestID)
		require.Equal(t, 9, claim.Charge.Attempts)
		standing, err := b.Charge(t.Context(), "s", november)
		require.NoError(t, err)
		require.Equal(t, claim.Charge, standing)
		require.Equal(t, billing.Pending, standing.Status)
		require.Nil(t, standing.SettledAt)
		require.Empty(t, standing.FailureCode+standing.FailureDetail)
	})
}

func TestClaimCharge_FiftyAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		other := b.Open(t, b.clock.Now)
		stores := []*models.Store{b.Store, other}
		claims, failures := make([]billing.Claim, 50), make([]error, 50)
		together(50, func(i int) {
			claims[i], failures[i] = stores[i%2].ClaimCharge(t.Context(), request(billing.RequestID(fmt.Sprintf("r-%d", i))), fmt.Sprintf("owner %d", i), true)
		})
		ids := b.Lines(t, "SELECT request_id FROM charge")
		require.Len(t, ids, 1)
		for i := range claims {
			require.NoError(t, failures[i])
			require.Equal(t, ids[0], string(claims[i].Charge.RequestID), "whoever asks the shop asks for the same order")
		}
	})
}

// One request id, many subscriptions: it goes to one of them, and the others
// are told, at once or when they ask again.
func TestClaimCharge_OneRequestIDForManyAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for i := range 10 {
			b.AddSubscription(t, fmt.Sprintf("many-%d", i), 1, "x")
		}
		var mu sync.Mutex
		placed := 0
		var others []error
		together(10, func(i int) {
			req := billing.ChargeRequest{SubscriptionID: fmt.Sprintf("many-%d", i), Period: november, RequestID: "r"}
			_, err := b.ClaimCharge(t.Context(), req, "o", true)
			if errors.Is(err, models.ErrClaimRaced) {
				_, err = b.ClaimCharge(t.Context(), req, "o", true)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				placed++
			} else {
				others = append(others, err)
			}
		})
		require.Equal(t, 1, placed)
		for _, err := range others {
			require.Equal(t, billing.CodeRequestIDReused, billing.CodeOf(err), "%v", err)
		}
	})
}

// Either the cancel tells of the charge, or the charge is refused.
func TestClaimCharge_AgainstACancel(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		other := b.Open(t, b.clock.Now)
		refused := 0
		for n := range 60 {
			id := fmt.Sprintf("race-%d", n)
			b.AddSubscription(t, id, 1, "x")
			var claim billing.Claim
			var cancelled *billing.Subscription
			var claimErr, cancelErr error
			together(2, func(i int) {
				if i == n%2 {
					claim, claimErr = b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: id, Period: november, RequestID: billing.RequestID(id), RequireEligible: true}, "o", true)
				} else {
					cancelled, cancelErr = other.ChangeStatus(t.Context(), id, billing.StatusChange{Status: billing.Cancelled})
				}
			})
			require.NoError(t, cancelErr)
			if claimErr != nil {
				refused++
				require.Equal(t, billing.CodeNotEligible, billing.CodeOf(claimErr))
				require.Nil(t, cancelled.InProgress)
				continue
			}
			require.Equal(t, billing.StepPlace, claim.Step)
			require.NotNil(t, cancelled.InProgress, "a cancel has answered, and an order is placed all the same")
		}
		t.Logf("%d of 60 claims were refused", refused)
	})
}

// permit returns a function that asks for permission to send.
func (b bundle) permit(t *testing.T) func(id billing.RequestID, claimed time.Time) (bool, time.Time) {
	return func(id billing.RequestID, claimed time.Time) (bool, time.Time) {
		permitted, sentAt, err := b.PermitSending(t.Context(), id, claimed, "")
		require.NoError(t, err)
		require.Equal(t, sentAt.IsZero(), len(b.Lines(t, "SELECT request_id FROM charge WHERE status = 'pending' AND sent_at = $1", modelstest.Time(sentAt))) == 0)
		return permitted, sentAt
	}
}

func TestPermitSending_Once(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		none, permit := time.Time{}, b.permit(t)
		given, sentAt := permit("r", none)
		require.False(t, given, "no such charge")
		require.Zero(t, sentAt)

		// The claim itself has set the time; only its own leave moves that.
		claim := b.claim(t, "r", "o")
		require.True(t, claim.Unsent)
		require.Equal(t, day(0), claim.Charge.SentAt)
		for _, wrong := range []time.Time{none, day(0).Add(time.Microsecond), day(1)} {
			given, moved := permit("r", wrong)
			require.False(t, given, wrong)
			require.True(t, moved.After(day(0)))
			b.Exec(t, "UPDATE charge SET sent_at = $1", day(0))
		}
		all, failures := make([]bool, 20), make([]error, 20)
		together(20, func(i int) { all[i], _, failures[i] = b.PermitSending(t.Context(), "r", day(0), "") })
		leaves := 0
		for i := range all {
			require.NoError(t, failures[i])
			if all[i] {
				leaves++
			}
		}
		require.Equal(t, 1, leaves)

		// Whoever takes the charge over does not know better, and who has sent it before
		// clears nothing any longer.
		stands, err := b.ChargeByRequestID(t.Context(), "r")
		require.NoError(t, err)
		taken := b.claim(t, "r", "another owner")
		require.False(t, taken.Unsent)
		require.Equal(t, stands.SentAt.Add(time.Microsecond), taken.Charge.SentAt, "the first time stays, nearly")
		require.NoError(t, b.NotOrdered(t.Context(), "r", stands.SentAt))
		given, _ = permit("r", none)
		require.False(t, given)
	})
}

// If nothing was ordered, the next call is certain again.
func TestNotOrdered_TheNextCallIsPermitted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		none, permit := time.Time{}, b.permit(t)
		claim := b.claim(t, "r", "o")
		require.NoError(t, b.NotOrdered(t.Context(), "r", claim.Charge.SentAt))
		b.clock.set(day(2))
		taken := b.claim(t, "r", "o")
		require.True(t, taken.Unsent)
		require.Equal(t, day(2), taken.Charge.SentAt)
		given, sentAt := permit("r", day(2))
		require.True(t, given)
		require.NoError(t, b.NotOrdered(t.Context(), "r", sentAt))
		given, sentAt = permit("r", none)
		require.True(t, given)
		require.Equal(t, day(2), sentAt)
		given, _ = permit("r", none)
		require.False(t, given)

		settled := b.settle(t, *claim.Charge, billing.Charged)
		require.NoError(t, b.NotOrdered(t.Context(), "r", settled.SentAt))
		given, sentAt = permit("r", settled.SentAt)
		require.False(t, given, "a settled charge is not sent")
		require.Zero(t, sentAt)
		stands, err := b.ChargeByRequestID(t.Context(), "r")
		require.NoError(t, err)
		require.Equal(t, settled.SentAt, stands.SentAt)
		require.NoError(t, b.NotOrdered(t.Context(), "no such charge", day(0)))
	})
}

// Nothing is permitted in a database that may not charge, as after a restore elsewhere.
func TestPermitSending_AsksTheInstallation(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		claim := b.claim(t, "r", "o")
		_, _, err := b.PermitSending(t.Context(), "r", claim.Charge.SentAt, "another")
		require.Equal(t, billing.CodeOtherInstallation, billing.CodeOf(err), "%v", err)
		b.Exec(t, "UPDATE installation SET seat = 'elsewhere'")
		_, _, err = b.PermitSending(t.Context(), "r", claim.Charge.SentAt, "")
		require.Equal(t, billing.CodeNotAdopted, billing.CodeOf(err), "%v", err)
		stands, err := b.ChargeByRequestID(t.Context(), "r")
		require.NoError(t, err)
		require.Equal(t, claim.Charge.SentAt, stands.SentAt)
	})
}

// Ids are data, whatever they look like.
func TestClaimCharge_AnyID(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for i, id := range append([]string{strings.Repeat("ä", 36)}, nastyIDs...) {
			customer := id
			if billing.IsBlank(id) { // a subscription's id may be, a customer's not
				customer = "anna"
			}
			b.AddSubscription(t, id, 1, customer)
			req := billing.ChargeRequest{SubscriptionID: id, Period: november, RequestID: billing.DerivedRequestID(november, id, 1), RequireEligible: true}
			claim, err := b.ClaimCharge(t.Context(), req, "o'; --", true)
			require.NoError(t, err, id)
			require.Equal(t, customer, claim.Charge.CustomerID)
			settled := b.settle(t, *claim.Charge, billing.Charged)
			require.Equal(t, id, settled.SubscriptionID)
			all, err := b.Charges(t.Context(), id)
			require.NoError(t, err)
			require.Len(t, all, 1, id)
			require.Len(t, b.Lines(t, "SELECT request_id FROM charge"), i+1)
		}
		require.Equal(t, []string{"s"}, eligible(t, b.Store, billing.EligibleQuery{At: day(0), Uncharged: november}))
	})
}

// Rows of the approved tables go when people like; the ledger's stay.
func TestClaimCharge_SubscriptionIsDeleted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		claimed := b.claim(t, "r", "o").Charge
		for _, table := range []string{"subscription_status_history", "club_status_history", "subscription", "club"} {
			b.Exec(t, "DELETE FROM "+table)
		}
		claim := b.claim(t, "r-2", "o")
		require.Equal(t, billing.StepPlace, claim.Step, "what is claimed is seen through")
		claimed.SentAt = claim.Charge.SentAt
		require.Equal(t, claimed, claim.Charge, "with the rows that decided")
		require.Equal(t, billing.Charged, b.settle(t, *claimed, billing.Charged).Status)
		all, err := b.Charges(t.Context(), "s")
		require.NoError(t, err)
		require.Len(t, all, 1)
		facts, err := b.ChargeFacts(t.Context(), request("r-3"))
		require.NoError(t, err)
		require.False(t, facts.Exists)
		require.NotNil(t, facts.Open)
	})
}

// A new charge is of the current month, whatever the time zone, unless a run of its
// month asks for it; what was claimed in time is seen through later.
func TestClaimCharge_OtherMonthIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		begin, end := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
		for at, code := range map[time.Time]billing.Code{
			begin.Add(-27 * time.Hour): billing.CodePeriodInFuture,
			begin.AddDate(-20, 0, 0):   billing.CodePeriodInFuture,
			end.Add(27 * time.Hour):    billing.CodeInvalid,
			end.AddDate(80, 0, 0):      billing.CodeInvalid,
		} {
			b.clock.set(at)
			_, err := b.ClaimCharge(t.Context(), request("r"), "o", true)
			require.Equal(t, code, billing.CodeOf(err), at)
			_, err = b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "s", Period: november, RunID: "2026-11/1"}, "o", true)
			require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(err), at)
		}
		require.Empty(t, b.Lines(t, "SELECT request_id FROM charge"))
		for i, at := range []time.Time{begin.Add(-25 * time.Hour), end.Add(25 * time.Hour)} {
			b.clock.set(at)
			id := billing.RequestID(fmt.Sprint("in-time-", i))
			claimed := b.claim(t, id, "o")
			b.clock.set(end.AddDate(1, 0, 0))
			require.Equal(t, billing.StepPlace, b.claim(t, id, "o").Step, "it is seen through")
			b.settle(t, *claimed.Charge, billing.Declined)
		}
		run, err := begun(b.Store, runOf(november, "execution", billing.RunSettings{}.WithDefaults()))
		require.NoError(t, err)
		claim, err := b.ClaimCharge(t.Context(), billing.ChargeRequest{SubscriptionID: "s", Period: november, RunID: run.ID}, "o", true)
		require.NoError(t, err)
		require.Equal(t, billing.StepPlace, claim.Step)
	})
}

// What the ledger cannot hold is refused for good; what a person can repair is not.
func TestClaimCharge_DatabaseRefuses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "blocked", 1, "bert")
		if b.Database.Dialect == models.Postgres {
			b.Exec(t, "ALTER TABLE charge ADD CONSTRAINT by_hand CHECK (subscription_id <> 'blocked')")
		} else {
			b.Exec(t, `CREATE TRIGGER by_hand BEFORE INSERT ON charge WHEN NEW.subscription_id = 'blocked' BEGIN SELECT RAISE(ABORT, 'no'); END`)
		}
		require.NoError(t, b.Recalled(t.Context(), b.installation(t).Incarnation, nil, billing.DoubtRepeat)) // SQLite counts changes of the schema
		blocked := request("r")
		blocked.SubscriptionID = "blocked"
		_, err := b.ClaimCharge(t.Context(), blocked, "o", true)
		require.Equal(t, billing.CodeDatabaseRefused, billing.CodeOf(err), err)

		b.Exec(t, "DROP TABLE charge")
		_, err = b.ClaimCharge(t.Context(), request("r"), "o", true)
		require.Error(t, err)
		require.Empty(t, billing.CodeOf(err))
	})
}
