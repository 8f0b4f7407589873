package models_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

// day is a moment n days after the first of November 2026.
func day(n int) time.Time { return time.Date(2026, 11, 1+n, 12, 0, 0, 0, time.UTC) }

var (
	november = billing.PeriodAt(day(0), time.UTC)
	october  = billing.PeriodAt(day(-2), time.UTC)
)

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// bundle is a database with club 1 (SKU 7), its ACTIVE subscription "s" of the
// customer anna, and a Store whose clock stands at day 0.
type bundle struct {
	modelstest.Database
	*models.Store
	clock *clock
}

func setup(t *testing.T, db modelstest.Database) bundle {
	t.Helper()
	db.AddClub(t, 1, 7)
	db.AddSubscription(t, "s", 1, "anna")
	c := &clock{now: day(0)}
	return bundle{db, db.Open(t, c.Now), c}
}

// onBoth runs a test on both databases, each with a bundle of its own.
func onBoth(t *testing.T, test func(t *testing.T, b bundle)) {
	t.Helper()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) { test(t, setup(t, db)) })
}

// together calls fn n times at once, and waits for all.
func together(n int, fn func(i int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() { <-start; fn(i) })
	}
	close(start)
	all.Wait()
}

// eligible collects what the query yields.
func eligible(t require.TestingT, s *models.Store, q billing.EligibleQuery) []string {
	ids := []string{}
	err := s.Eligible(context.Background(), q, func(id string) error {
		ids = append(ids, id)
		return nil
	})
	require.NoError(t, err)
	return ids
}

// request asks for November's order of the subscription s.
func request(id billing.RequestID) billing.ChargeRequest {
	return billing.ChargeRequest{SubscriptionID: "s", Period: november, RequestID: id, RequireEligible: true}
}

// claim claims November's order of s, which must succeed.
func (b bundle) claim(t *testing.T, id billing.RequestID, owner string) billing.Claim {
	t.Helper()
	claim, err := b.ClaimCharge(t.Context(), request(id), owner, true)
	require.NoError(t, err)
	return claim
}

// settle settles a claimed charge, which must succeed.
func (b bundle) settle(t *testing.T, c billing.Charge, status billing.ChargeStatus) *billing.Charge {
	t.Helper()
	c.Status = status
	settled, err := b.SettleCharge(t.Context(), c)
	require.NoError(t, err)
	return settled
}

// waitForLock returns when n sessions of the database wait for a lock.
func waitForLock(t *testing.T, db modelstest.Database, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return len(db.Lines(t, `SELECT pid::text FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`)) >= n
	}, 10*time.Second, 2*time.Millisecond, "nobody waits for a lock")
}

// errorAs is errors.As with the target as a result.
func errorAs[E error](err error) (E, bool) {
	var target E
	ok := errors.As(err, &target)
	return target, ok
}
