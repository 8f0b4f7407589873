package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

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
	now := &books{
		plan: c.plan, months: c.months, orders: orders, lapses: c.lapses,
		subs: map[string]subscription{}, cutOffs: map[string]time.Time{},
	}
	if err := c.readTables(ctx, now); err != nil {
		return err
	}
	if err := c.copyOrders(ctx, now); err != nil {
		return err
	}
	c.copied.lapses = len(c.lapses)
	return nil
}

// copyByHand is what operations.md has a person do.
const copyByHand = `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, settled_at)
	VALUES ($1, $2, $3, 'charged', '` + byHand + `', $4, $5, $6, $6)
	ON CONFLICT (request_id) DO UPDATE SET status = 'charged', settled_at = excluded.settled_at WHERE charge.status <> 'charged'`

// copyOrders has the ledger say of each order that it may have forgotten that it is
// there. An unresolved charge that stands in an order's way is settled first, if the
// shop has no order of it.
func (c *campaign) copyOrders(ctx context.Context, b *books) error {
	rows, booked, standing := b.keyed(), bookedIDs(b.orders), b.standing()
	var batch pgx.Batch
	underWay := 0
	for _, o := range b.orders {
		id := b.subscriptionOf(o)
		if !b.needsCopy(o, id, rows) {
			continue
		}
		other, stands := standing[id+" "+b.monthOf(o)]
		if stands && other.RequestID != o.RequestID {
			if other.Status == "pending" { // its outcome is not known yet
				underWay++
				continue
			}
			if other.Status != "unresolved" || booked[other.RequestID] { // the shop has two, or is about to
				continue
			}
			if err := c.resolve(ctx, id, other.Period, other.RequestID, false); err != nil {
				return err
			}
		}
		batch.Queue(copyByHand, o.RequestID, id, b.monthOf(o), o.CustomerID, o.SKU, o.CreatedAt.UTC())
	}
	if err := c.db.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("copying orders from the shop's book: %w", err)
	}
	if underWay > 0 {
		return fmt.Errorf("%d charges are under way for what the shop has orders of", underWay)
	}
	return nil
}

// standing are the rows that stand, by subscription and month.
func (b *books) standing() map[string]row {
	standing := map[string]row{}
	for _, r := range b.ledger {
		if r.stands() {
			standing[r.Subscription+" "+r.Period] = r
		}
	}
	return standing
}

// needsCopy says that a setback may have made the ledger forget the order, and that the
// ledger does not know its outcome: it has no row of it, or an open one. An order of a
// subscription that is forgotten as well cannot be copied.
func (b *books) needsCopy(o shoptest.Order, subscription string, rows map[string]row) bool {
	if _, there := b.subs[subscription]; !there || !b.inLapse(o) {
		return false
	}
	r, known := rows[o.RequestID]
	return !known || r.Status == "pending" || r.Status == "unresolved"
}
