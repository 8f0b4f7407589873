package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"drayman/shop/shoptest"
)

// Where the shop books every call, a ledger that has forgotten orders needs a person:
// before anybody lets a run go on, the orders are copied from the shop's book.

// landing is longer than a request that has left drayman can take to the shop, also
// over a link that holds it back.
const landing = 4*time.Second + removeLimit + shopTimeout

// copies is how far a person has come with copying.
type copies struct {
	mu     sync.Mutex
	lapses int // that have been seen to
}

// byHand is the owner of a row that a person has copied from the shop's book.
const byHand = "by hand"

// resume has the month's run go on, as an operator does who has seen to the cause:
// after a setback, at a shop that books every call, that is what the ledger lacks.
func (c *campaign) resume(ctx context.Context, month string) {
	c.desk.RLock() // the database is not replaced meanwhile
	defer c.desk.RUnlock()
	if err := c.copyForgotten(ctx); err != nil {
		c.out.Printf("seed %d: %s is not resumed: %v", c.plan.Sizes.Seed, month, err)
		return
	}
	c.client.send(ctx, http.MethodPost, "/billing-run/"+month+"/resume", "")
}

// copyBook sees to all setbacks so far.
func (c *campaign) copyBook(ctx context.Context) error {
	c.desk.RLock()
	defer c.desk.RUnlock()
	return c.copyForgotten(ctx)
}

// copyForgotten has the ledger know each order of the shop's, once for each setback.
// Whoever calls it holds the desk.
func (c *campaign) copyForgotten(ctx context.Context) error {
	c.copied.mu.Lock()
	defer c.copied.mu.Unlock()
	if c.plan.Sizes.Idempotent || c.copied.lapses == len(c.lapses) {
		return nil
	}
	if !wait(ctx, time.Until(c.lapses[len(c.lapses)-1].To.Add(landing))) {
		return ctx.Err()
	}
	orders, err := readBook(c.bookFile())
	if err != nil {
		return err
	}
	now := &books{plan: c.plan, months: c.months, orders: orders, subs: map[string]subscription{}, cutOffs: map[string]time.Time{}}
	if err := c.readTables(ctx, now); err != nil {
		return err
	}
	var failures []error
	for _, o := range now.unknown() {
		failures = append(failures, c.copyOrder(ctx, now, o))
	}
	if err := errors.Join(failures...); err != nil {
		return err
	}
	c.copied.lapses = len(c.lapses)
	return nil
}

// unknown are the orders of which the ledger has no row.
func (b *books) unknown() (orders []shoptest.Order) {
	rows := b.keyed()
	for _, o := range b.orders {
		if _, ok := rows[o.RequestID]; !ok {
			orders = append(orders, o)
		}
	}
	return orders
}

// copyByHand is what operations.md has a person do.
const copyByHand = `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, settled_at)
	VALUES ($1, $2, $3, 'charged', '` + byHand + `', $4, $5, $6, $6)
	ON CONFLICT (request_id) DO UPDATE SET status = 'charged', settled_at = excluded.settled_at WHERE charge.status <> 'charged'`

// copyOrder writes the row of an order. An unresolved charge that stands in its way
// is settled first: as the shop has it, which is no order unless there are two.
func (c *campaign) copyOrder(ctx context.Context, b *books, o shoptest.Order) error {
	subscription := b.subscriptionOf(o)
	if _, ok := b.subs[subscription]; !ok { // the database has forgotten the subscription as well
		return nil
	}
	booked := bookedIDs(b.orders)
	for _, r := range b.ledger {
		if r.Subscription != subscription || r.Period != b.monthOf(o) || r.Status == "declined" {
			continue
		}
		if r.Status != "unresolved" || booked[r.RequestID] { // the shop has, or is about to have, two
			return nil
		}
		if err := c.resolve(ctx, r.Subscription, r.Period, r.RequestID, false); err != nil {
			return err
		}
	}
	if _, err := c.db.Exec(ctx, copyByHand, o.RequestID, subscription, b.monthOf(o), o.CustomerID, o.SKU, o.CreatedAt.UTC()); err != nil {
		return fmt.Errorf("copying order %s: %w", o.RequestID, err)
	}
	return nil
}
