package models_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

const cancelByHand = `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date)
	VALUES ('by hand', 's', 2, '2026-10-31 00:00:00', '2026-10-31 00:00:00')`

// byHand opens a person's transaction, with a cancel in it.
func byHand(t *testing.T, db modelstest.Database) *sql.Tx {
	t.Helper()
	tx, err := db.Pool.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	_, err = tx.ExecContext(t.Context(), cancelByHand)
	require.NoError(t, err)
	return tx
}

// isolations are the defaults that a database may have for transactions.
func isolations(t *testing.T, test func(t *testing.T, b bundle)) {
	t.Helper()
	for _, isolation := range []string{"read committed", "repeatable read", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			db := modelstest.Postgres(t)
			b := setup(t, db)
			strict := db.WithParameter(t, "default_transaction_isolation", isolation)
			b.Store = strict.Open(t, b.clock.Now)
			test(t, b)
		})
	}
}

// A person's cancel, begun before the claim and committed while the claim waits
// for it, is honoured.
func TestClaimCharge_WaitsForACancelByHand(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, b bundle) {
		person := byHand(t, b.Database)
		refused := make(chan error)
		go func() {
			_, err := b.ClaimCharge(t.Context(), request("r"), "o", true)
			refused <- err
		}()
		waitForLock(t, b.Database, 1)
		require.NoError(t, person.Commit())

		require.Equal(t, billing.CodeNotEligible, billing.CodeOf(<-refused))
		require.Empty(t, b.Lines(t, "SELECT request_id FROM charge"))
	})
}

// A change of status waits so too, and then counts from what it finds.
func TestChangeStatus_WaitsForACancelByHand(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, b bundle) {
		person := byHand(t, b.Database)
		changed := make(chan error)
		var s *billing.Subscription
		go func() {
			var err error
			s, err = b.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Paused, IntervalDays: 3})
			changed <- err
		}()
		waitForLock(t, b.Database, 1)
		require.NoError(t, person.Commit())

		require.NoError(t, <-changed)
		require.Equal(t, int(billing.Paused), s.Current.StatusID)
		require.Empty(t, s.Scheduled, "it is cancelled: nothing brings it back")
	})
}

// A hundred identical subscribes wait for one another, whatever the isolation.
func TestSubscribe_WaitsForAnother(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, b bundle) {
		codes := make([]billing.Code, 20)
		together(20, func(i int) {
			_, err := b.Subscribe(t.Context(), 1, "bert")
			codes[i] = billing.CodeOf(err)
			if err != nil && codes[i] == "" {
				codes[i] = billing.Code(err.Error())
			}
		})
		made := 0
		for _, code := range codes {
			if code == "" {
				made++
			} else {
				require.Equal(t, billing.CodeAlreadySubscribed, code)
			}
		}
		require.Equal(t, 1, made)
	})
}

// The other way round: a claim that has looked holds a person's cancel up until
// its row is committed, so the cancel comes after it for everybody.
func TestClaimCharge_ACancelByHandWaitsForIt(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	looking, goOn := make(chan struct{}), make(chan struct{})
	store := b.Open(t, func() time.Time { // the claim asks for the time under its lock
		close(looking)
		<-goOn
		return day(0)
	})
	claimed, cancelled := make(chan error), make(chan error)
	go func() {
		_, err := store.ClaimCharge(t.Context(), request("r"), "o", true)
		claimed <- err
	}()
	<-looking
	go func() {
		_, err := b.Pool.ExecContext(t.Context(), cancelByHand)
		cancelled <- err
	}()
	waitForLock(t, b.Database, 1)
	require.Empty(t, b.Lines(t, "SELECT id FROM subscription_status_history WHERE id = 'by hand'"))
	close(goOn)

	require.NoError(t, <-claimed)
	require.NoError(t, <-cancelled)
	require.Equal(t, []string{"pending"}, b.Lines(t, "SELECT status FROM charge"))
}

// A forgotten transaction holds nothing up for long, and nobody else.
func TestLock_WaitIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	b.AddSubscription(t, "t", 1, "bert")
	byHand(t, b.Database)

	began, failures := time.Now(), make([]error, 2)
	together(2, func(i int) {
		if i == 0 {
			_, failures[i] = b.ClaimCharge(t.Context(), request("r"), "o", true)
		} else {
			_, failures[i] = b.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Active})
		}
	})
	for _, err := range failures {
		require.Error(t, err)
		require.True(t, models.IsUnavailable(err), "%v", err)
	}
	require.Less(t, time.Since(began), 10*time.Second)
	other := request("r-2")
	other.SubscriptionID = "t"
	_, err := b.ClaimCharge(t.Context(), other, "o", true)
	require.NoError(t, err, "another subscription")
	_, err = b.Subscription(t.Context(), "s")
	require.NoError(t, err, "reading waits for nobody")
	requireIdle(t, b)
}
