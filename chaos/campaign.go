package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	out    io.Writer

	kills  atomic.Int64
	poison atomic.Int64
}

// result is what a campaign came to.
type result struct {
	Sizes    sizes         `json:"sizes"`
	Took     time.Duration `json:"took"`
	Kills    int           `json:"kills"`
	Toxics   int           `json:"toxics"`
	Figures  figures       `json:"figures"`
	Findings []string      `json:"findings"`
}

// runCampaign makes a site in dir, carries out the plan of the sizes, and checks
// the books.
func runCampaign(ctx context.Context, dir string, programs programs, s sizes, out io.Writer) (_ *result, err error) {
	begun := time.Now()
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
	c := &campaign{site: site, plan: p, client: client, out: out, months: months(time.Now().UTC(), s.Months)}
	fmt.Fprintf(out, "seed %d: all is up after %s\n", s.Seed, time.Since(begun).Round(time.Second))
	c.rage(ctx)
	fmt.Fprintf(out, "seed %d: left in peace after %s, %d kills\n", s.Seed, time.Since(begun).Round(time.Second), c.kills.Load())
	unsettled := c.settle(ctx)
	if err := client.close(); err != nil {
		return nil, fmt.Errorf("the log of answers: %w", err)
	}
	books, err := c.readBooks(ctx)
	if err != nil {
		return nil, err
	}
	r := &result{
		Sizes: s, Kills: int(c.kills.Load()), Toxics: int(c.poison.Load()),
		Figures: books.figures(), Findings: append(unsettled, books.check()...),
	}
	r.Took = time.Since(begun)
	return r, writeJSON(filepath.Join(dir, "result.json"), r)
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

// rage carries out the plan. Customers who are still asking at its end go on, in
// settle's time.
func (c *campaign) rage(ctx context.Context) {
	ctx, over := context.WithTimeout(ctx, c.plan.Sizes.Duration)
	defer over()
	begin := time.Now()
	var all, customers sync.WaitGroup
	patience, stop := context.WithTimeout(context.WithoutCancel(ctx), c.plan.Sizes.Duration+settleLimit)
	defer stop()

	all.Go(func() {
		each(ctx, begin, c.plan.Charges, func(s charge) (time.Duration, func()) {
			return s.At, func() { c.client.charge(patience, s.Subscription, s.RequestID) }
		}, &customers)
	})
	all.Go(func() {
		each(ctx, begin, c.plan.Changes, func(s change) (time.Duration, func()) {
			return s.At, func() { c.client.change(patience, s) }
		}, &customers)
	})
	all.Go(func() {
		each(ctx, begin, c.plan.Joins, func(s join) (time.Duration, func()) {
			return s.At, func() { c.client.join(patience, s) }
		}, &customers)
	})
	all.Go(func() {
		each(ctx, begin, c.plan.Runs, func(s runStep) (time.Duration, func()) {
			return s.At, func() { c.client.operate(ctx, c.months[s.Month], s) }
		}, &all)
	})
	all.Go(func() { c.client.watchRuns(ctx, c.months) })
	c.disturb(ctx, begin, &all)
	all.Wait()
	c.calm(patience)
	customers.Wait()
}

// disturb starts the killer, the poisoner and the shop's storms.
func (c *campaign) disturb(ctx context.Context, begin time.Time, all *sync.WaitGroup) {
	all.Go(func() {
		each(ctx, begin, c.plan.Kills, func(k kill) (time.Duration, func()) {
			return k.At, func() { c.kill(ctx, k) }
		}, all)
	})
	var number atomic.Int64
	for link := range c.links { // one toxic at a time on each
		all.Go(func() {
			for _, t := range c.plan.Toxics {
				if t.Link != link || !wait(ctx, time.Until(begin.Add(t.At))) {
					continue
				}
				if err := c.links.apply(ctx, int(number.Add(1)), t); err != nil {
					fmt.Fprintf(c.out, "toxic %+v: %v\n", t, err)
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
			c.faults.set(ctx, func(b *faultBoard) { b.declined = declinedAtLast })
		}
	})
}

func (c *campaign) kill(ctx context.Context, k kill) {
	if !c.nodes[k.Node].kill(ctx, k.Down) {
		return
	}
	c.kills.Add(1)
	if k.Node == "shop" {
		c.faults.post(ctx) // a new one knows of no faults
	}
}

// calm ends all disturbance.
func (c *campaign) calm(ctx context.Context) {
	c.faults.set(ctx, func(b *faultBoard) { b.calm, b.storm, b.declined = true, nil, declinedAtLast })
	if err := c.awaitReady(ctx); err != nil {
		fmt.Fprintln(c.out, "after the campaign:", err)
	}
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
