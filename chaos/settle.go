package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	// settleLimit bounds the time after a campaign until all months are closed.
	settleLimit = 5 * time.Minute
	// quiet is longer than any request to the shop can still be on its way.
	quiet = 3 * shopTimeout
)

// settle does what operators do after a bad month: run it again until it is
// closed, and settle by hand what stays unresolved. It returns what cannot be
// settled.
func (c *campaign) settle(ctx context.Context) []string {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		var months errgroup.Group
		for _, month := range c.months {
			months.Go(func() error { return c.runAgain(ctx, month) })
		}
		err := months.Wait()
		if err == nil {
			err = c.resolveAll(ctx)
		}
		if err == nil {
			err = c.copyBook(ctx)
		}
		open, openErr := c.open(ctx)
		if err == nil && openErr == nil && len(open) == 0 {
			return nil
		}
		if !wait(ctx, time.Second) {
			open, openErr = c.open(whole)
			return append(open, fmt.Sprintf("not settled within %s: %v %v", settleLimit, err, openErr))
		}
	}
}

// runAgain waits for the month's run to end, resuming it if need be, and runs it
// once more to its end.
func (c *campaign) runAgain(ctx context.Context, month string) error {
	if c.setBackSoFar() { // a run that the database takes for running may have ended, and ends by being started
		c.client.send(ctx, http.MethodPost, "/billing-run/"+month, `{"page_size":200,"confirm_past":true}`)
	}
	if err := c.awaitEnd(ctx, month); err != nil {
		return err
	}
	if e := c.client.send(ctx, http.MethodPost, "/billing-run/"+month, `{"page_size":200,"confirm_past":true}`); e.Status != http.StatusAccepted {
		return fmt.Errorf("starting %s: %d %s%s", month, e.Status, e.Answer, e.Error)
	}
	return c.awaitEnd(ctx, month)
}

func (c *campaign) setBackSoFar() bool {
	c.desk.RLock()
	defer c.desk.RUnlock()
	return len(c.lapses) > 0
}

func (c *campaign) awaitEnd(ctx context.Context, month string) error {
	state := ""
	for try := 1; wait(ctx, 300*time.Millisecond); try++ {
		if try%50 == 0 { // a run that waits, and does not pause, may wait for what a person knows
			if err := c.copyBook(ctx); err != nil {
				return err
			}
		}
		state, _ = c.client.runState(ctx, month)
		switch state {
		case "finished", "cancelled", "abandoned", neverStarted:
			return nil
		case "paused":
			c.resume(ctx, month)
		}
	}
	return fmt.Errorf("the run of %s does not end: it is %q", month, state)
}

// open are the charges that are neither charged nor declined.
func (c *campaign) open(ctx context.Context) ([]string, error) {
	rows, err := c.db.Query(ctx, `SELECT request_id || ' is ' || status || ' of ' || owner FROM charge WHERE status IN ('pending', 'unresolved') ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// resolveAll settles by hand what is unresolved with a shop that is not
// idempotent: a person looks into the shop's book.
func (c *campaign) resolveAll(ctx context.Context) error {
	if c.plan.Sizes.Idempotent {
		return nil
	}
	wait(ctx, quiet)
	orders, err := readBook(c.bookFile())
	if err != nil {
		return err
	}
	booked := bookedIDs(orders)
	rows, err := c.db.Query(ctx, `SELECT request_id, subscription_id, period FROM charge WHERE status = 'unresolved'`)
	if err != nil {
		return err
	}
	type open struct{ RequestID, Subscription, Period string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[open])
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := c.resolve(ctx, o.Subscription, o.Period, o.RequestID, booked[o.RequestID]); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		return fmt.Errorf("%d charges were resolved by hand; once more", len(all))
	}
	return nil
}

// resolve is a person's word on a charge that is unresolved.
func (c *campaign) resolve(ctx context.Context, subscription, period, requestID string, booked bool) error {
	outcome, note := "declined", "the shop has no order "+requestID
	if booked {
		outcome, note = "charged", "the shop has the order "+requestID
	}
	body, err := json.Marshal(map[string]string{"outcome": outcome, "note": note, "by": resolver})
	if err != nil {
		return err
	}
	e := c.client.send(ctx, http.MethodPost, "/subscription/"+url.PathEscape(subscription)+"/charges/"+period+"/resolve", string(body))
	if e.Status != http.StatusOK {
		return fmt.Errorf("resolving %s: %d %s%s", requestID, e.Status, e.Answer, e.Error)
	}
	return nil
}

// resolver is who settles charges by hand.
const resolver = "chaos operator"

func (c *campaign) bookFile() string { return filepath.Join(c.dir, "data", "shop", "orders.jsonl") }
