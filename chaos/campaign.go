package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// campaign is one at work.
type campaign struct {
	*site
	plan   *plan
	client *client
	months []string // the current one first
	out    *log.Logger

	kills      atomic.Int64
	poison     atomic.Int64
	unanswered atomic.Int64 // customers who gave up

	cluster sync.Mutex   // PostgreSQL is killed, copied or replaced by one at a time
	desk    sync.RWMutex // no person settles while the database is replaced
	lapses  []lapse      // guarded by desk
	copied  copies
	spare   *backup // for the aftermath

	mu     sync.Mutex
	failed findings // what of the plan could not be carried out
}

// result is what a campaign came to.
type result struct {
	Sizes    sizes         `json:"sizes"`
	Took     time.Duration `json:"took"`
	Kills    int           `json:"kills"`
	Toxics   int           `json:"toxics"`
	Setbacks []lapse       `json:"setbacks"`
	Figures  figures       `json:"figures"`
	Findings []string      `json:"findings"`
}

// runCampaign makes a site in dir, carries out the plan of the sizes, and checks
// the books.
func runCampaign(ctx context.Context, dir string, programs programs, s sizes, out io.Writer) (_ *result, err error) {
	begun := time.Now()
	if later := begun.UTC().Add(s.Duration + 2*settleLimit); later.Month() != begun.UTC().Month() {
		return nil, errors.New("the month ends too soon: the plan is for one")
	}
	p := newPlan(s)
	if err := writeJSON(filepath.Join(dir, "plan.json"), p); err != nil {
		return nil, err
	}
	site, err := newSite(ctx, dir, programs, p)
	defer site.close()
	if err != nil {
		return nil, fmt.Errorf("starting: %w", err)
	}
	client, err := newClient(dir, site.apis)
	if err != nil {
		return nil, err
	}
	c := &campaign{site: site, plan: p, client: client, out: log.New(out, "", 0), months: months(time.Now().UTC(), s.Months)}
	c.out.Printf("seed %d: all is up after %s", s.Seed, time.Since(begun).Round(time.Second))
	if err := c.rage(ctx); err != nil {
		return nil, err
	}
	c.out.Printf("seed %d: all faults have ended after %s, %d kills", s.Seed, time.Since(begun).Round(time.Second), c.kills.Load())
	books, found, err := c.close(ctx)
	if err != nil {
		return nil, err
	}
	if c.spare != nil {
		c.out.Printf("seed %d: settled after %s, %d findings", s.Seed, time.Since(begun).Round(time.Second), len(found))
		if err := c.aftermath(ctx); err != nil {
			return nil, err
		}
		c.out.Printf("seed %d: the final setback is over after %s", s.Seed, time.Since(begun).Round(time.Second))
		var again findings
		if books, again, err = c.close(ctx); err != nil {
			return nil, err
		}
		found = merged(found, again)
	}
	if err := client.close(); err != nil {
		return nil, fmt.Errorf("the log of answers: %w", err)
	}
	r := &result{
		Sizes: s, Kills: int(c.kills.Load()), Toxics: int(c.poison.Load()), Setbacks: c.lapses,
		Figures: books.figures(), Findings: append(c.unkept(), found...),
	}
	r.Took = time.Since(begun)
	if len(r.Findings) > 0 {
		if err := writeJSON(filepath.Join(dir, "ledger.json"), books.ledger); err != nil {
			return nil, err
		}
	}
	return r, writeJSON(filepath.Join(dir, "result.json"), r)
}

// close settles everything and holds the books against each other.
func (c *campaign) close(ctx context.Context) (*books, findings, error) {
	unsettled := c.settle(ctx)
	books, err := c.readBooks(ctx)
	if err != nil {
		return nil, nil, err
	}
	return books, append(unsettled, books.check()...), nil
}

// merged are the findings before the final setback, and those that are new after it.
func merged(before, after findings) findings {
	all := slices.Clone(before)
	for _, finding := range after {
		if !slices.Contains(before, finding) {
			all.add("after the final setback: %s", finding)
		}
	}
	return all
}

// months are the current period and those before it, as drayman writes them.
func months(now time.Time, n int) []string {
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	list := make([]string, n)
	for i := range list {
		list[i] = first.AddDate(0, -i, 0).Format("2006-01")
	}
	return list
}

// unkept says what of the plan was not carried out, or went unanswered.
func (c *campaign) unkept() []string {
	f := slices.Clone(c.failed)
	if n := c.unanswered.Load(); n > 0 {
		f.add("%d customers were never answered for good", n)
	}
	if n := int(c.kills.Load()); n < len(c.plan.Kills)*9/10 {
		f.add("only %d of %d kills hit", n, len(c.plan.Kills))
	}
	if n := int(c.poison.Load()); n < len(c.plan.Toxics)*8/10 { // some wait for the one before until the end
		f.add("only %d of %d toxics were applied", n, len(c.plan.Toxics))
	}
	return f
}

// rage carries out the plan. Customers who are still asking at its end go on after
// all faults have ended.
func (c *campaign) rage(whole context.Context) error {
	ctx, over := context.WithTimeout(whole, c.plan.Sizes.Duration)
	defer over()
	begin := time.Now()
	var all, customers sync.WaitGroup
	patience, stop := context.WithTimeout(whole, c.plan.Sizes.Duration+settleLimit)
	defer stop()
	ask := func(answered bool) {
		if !answered {
			c.unanswered.Add(1)
		}
	}

	all.Go(func() {
		each(ctx, begin, c.plan.Charges, func(s charge) (time.Duration, func()) {
			return s.At, func() { ask(c.client.charge(patience, s.Subscription, s.RequestID)) }
		}, &customers)
	})
	all.Go(func() {
		each(ctx, begin, c.plan.Changes, func(s change) (time.Duration, func()) {
			return s.At, func() { ask(c.client.change(patience, s)) }
		}, &customers)
	})
	all.Go(func() {
		each(ctx, begin, c.plan.Joins, func(s join) (time.Duration, func()) {
			return s.At, func() { ask(c.client.join(patience, s)) }
		}, &customers)
	})
	all.Go(func() {
		each(ctx, begin, c.plan.Runs, func(s runStep) (time.Duration, func()) {
			return s.At, func() { c.operate(ctx, c.months[s.Month], s) }
		}, &all)
	})
	all.Go(func() { c.watchRuns(ctx) })
	c.disturb(ctx, begin, &all)
	all.Wait()
	err := c.calm(patience)
	customers.Wait()
	return errors.Join(err, whole.Err())
}

// disturb starts the killer, the poisoner and the shop's storms.
func (c *campaign) disturb(ctx context.Context, begin time.Time, all *sync.WaitGroup) {
	all.Go(func() {
		each(ctx, begin, c.plan.Kills, func(k kill) (time.Duration, func()) {
			return k.At, func() { c.kill(ctx, k) }
		}, all)
	})
	c.setBack(ctx, begin, all)
	var number atomic.Int64
	for name, link := range c.links { // one toxic at a time on each
		all.Go(func() {
			for _, t := range c.plan.Toxics {
				if t.Link != name || !wait(ctx, time.Until(begin.Add(t.At))) {
					continue
				}
				if err := link.apply(ctx, int(number.Add(1)), t); err != nil {
					c.out.Printf("toxic %+v: %v", t, err)
					continue
				}
				c.poison.Add(1)
			}
		})
	}
	all.Go(func() {
		for _, s := range c.plan.Storms {
			if wait(ctx, time.Until(begin.Add(s.At))) {
				c.faults.rage(ctx, s)
			}
		}
	})
	all.Go(func() {
		if wait(ctx, c.plan.Sizes.Duration/2) {
			c.faults.set(ctx, func(b *faultBoard) { b.declined = c.plan.declined(true) })
		}
	})
}

func (c *campaign) kill(ctx context.Context, k kill) {
	if k.Node == "postgres" {
		c.cluster.Lock()
		defer c.cluster.Unlock()
	}
	if ctx.Err() != nil {
		return
	}
	if !c.nodes[k.Node].kill(ctx, k.Down) {
		return
	}
	c.kills.Add(1)
	if k.Node == "shop" {
		c.faults.post(ctx) // a new one knows of no faults
	}
}

// calm ends all disturbance.
func (c *campaign) calm(ctx context.Context) error {
	c.faults.set(ctx, func(b *faultBoard) { b.calm, b.storm, b.declined = true, nil, c.plan.declined(true) })
	return c.awaitReady(ctx)
}

// each carries out the steps, each at its time and beside the others.
func each[T any](ctx context.Context, begin time.Time, steps []T, do func(T) (time.Duration, func()), group *sync.WaitGroup) {
	for _, step := range steps {
		at, act := do(step)
		if !wait(ctx, time.Until(begin.Add(at))) {
			return
		}
		group.Go(act)
	}
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
