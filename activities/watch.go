package activities

import (
	"context"
	"time"

	"drayman/billing"
)

// WatchRunInput is a run as its workflow last read it.
type WatchRunInput struct {
	RunRef
	State billing.RunState `json:"state"`
	// First is set for the first watch since the run has begun. At an idempotent shop it
	// also takes up the unresolved charges.
	First bool `json:"first,omitempty"`
}

// WatchRunOutput says why the watch has ended.
type WatchRunOutput struct {
	Run billing.Run `json:"run"` // as it stands now, in another state
	// Replaced says that the database is another one than that with which the run began,
	// or lacks its row. The run begins anew.
	Replaced bool `json:"replaced,omitempty"`
}

const (
	// watchPause is the wait between two looks at the run's row.
	watchPause = 500 * time.Millisecond
	// sweepAllEvery is how often the sweep also takes up what a workflow has claimed. That
	// workflow may have been ended from outside; if it runs, the start joins it.
	sweepAllEvery = 10 * time.Minute
	// maxOpenCharges bounds the workflows of a run that are open at once. Pages do not wait
	// for them: workflows that retry for a day must not hold up the rest.
	maxOpenCharges = 2000
	// sweepBatch is how many open charges are looked up at a time.
	sweepBatch = 500
)

// WatchRun returns when the run's row is in another state than the given one, or the
// database was replaced. While the run is running it sweeps: it starts a ChargeSubscription
// for each charge of the month that was let go, as the rows appear.
//
// The first sweep, and one every ten minutes, also takes up what earlier runs and requests
// have left and what workflows have claimed, which may have been ended from outside; but not
// what the run's own pages go on with. A second start of one charge joins the first.
func (a *Activities) WatchRun(ctx context.Context, in WatchRunInput) (*WatchRunOutput, error) {
	ctx, stop := keepBeating(ctx, nothing)
	defer stop()
	s := &sweep{Activities: a, in: in, started: map[string]time.Time{}}
	for {
		out, err := a.lookAtRun(ctx, in)
		if out != nil || err != nil {
			return out, err
		}
		if in.State == billing.RunRunning {
			if err := s.run(ctx); err != nil {
				return nil, asFailure(err)
			}
		}
		if err := sleep(ctx, watchPause); err != nil {
			return nil, err
		}
	}
}

// lookAtRun returns nil while nothing has changed.
func (a *Activities) lookAtRun(ctx context.Context, in WatchRunInput) (*WatchRunOutput, error) {
	found, err := within(ctx, a.store.Installation)
	if err != nil {
		return nil, err
	}
	if billing.CodeOf(found.MayCharge()) == billing.CodeDatabaseReplaced {
		a.startRecall(ctx, in.Installation)
		return &WatchRunOutput{Replaced: true}, nil
	}
	if found.Recalled != in.Recalled {
		return &WatchRunOutput{Replaced: true}, nil
	}
	run, err := a.recorded(ctx, in.RunRef)
	switch {
	case failureCode(err) == billing.CodeRunNotFound:
		return &WatchRunOutput{Replaced: true}, nil
	case err != nil:
		return nil, err
	case run.State != in.State:
		return &WatchRunOutput{Run: *run}, nil
	}
	return nil, nil
}

// sweep starts workflows for open charges that nobody holds.
type sweep struct {
	*Activities
	in      WatchRunInput
	nextAll time.Time
	// started has the times of the last starts, by subscription: these workflows may not
	// have claimed their charges yet.
	started map[string]time.Time
}

// startedFor is how long the sweep waits for a workflow to claim its charge before it starts
// it again.
const startedFor = time.Minute

// run goes once through what is open. It returns early if the run is no longer running.
func (s *sweep) run(ctx context.Context) error {
	all := !time.Now().Before(s.nextAll)
	q := billing.LeftOverQuery{
		RunID: s.in.RunID, Period: s.in.Period, All: all, Unresolved: s.in.First && s.policy.Idempotent && s.nextAll.IsZero(),
		Pages: s.in.pageOwners(), Limit: sweepBatch,
	}
	if all {
		_, err := within(ctx, done(func(ctx context.Context) error { return s.store.LiftHolds(ctx, s.in.Period, false) }))
		if err != nil {
			return err
		}
	}
	started := map[string]time.Time{}
	for {
		ids, err := within(ctx, func(ctx context.Context) ([]string, error) { return s.store.LeftOver(ctx, q) })
		if err != nil {
			return err
		}
		for _, id := range ids {
			if at, ok := s.started[id]; ok && time.Since(at) < startedFor {
				started[id] = at
				continue
			}
			running, err := s.start(ctx, id, all)
			if err != nil || !running {
				return err
			}
			started[id] = time.Now()
		}
		if len(ids) < q.Limit {
			break
		}
		q.After = ids[len(ids)-1]
	}
	s.started = started
	if all {
		s.nextAll = time.Now().Add(sweepAllEvery)
	}
	return nil
}

// start starts one workflow as soon as the run's pace permits it and not too many are
// open. It returns false if the run is not running.
func (s *sweep) start(ctx context.Context, id string, all bool) (running bool, err error) {
	for {
		slots, err := s.nextSlot(ctx, all)
		if err != nil || slots.State != billing.RunRunning {
			return false, err
		}
		if slots.Count > 0 {
			if err := sleep(ctx, slots.Wait); err != nil {
				return false, err
			}
			break
		}
		if err := sleep(ctx, patience); err != nil {
			return false, err
		}
	}
	return true, s.temporal.StartCharge(ctx, billing.ChargeRequest{
		SubscriptionID: id, Period: s.in.Period, RunID: s.in.RunID, RequireEligible: true, Installation: s.in.Installation,
	})
}

// nextSlot asks for one slot of the run. There is none while too many charges are open; a
// sweep of all does not ask, for what it takes up is among them.
func (s *sweep) nextSlot(ctx context.Context, all bool) (billing.Slots, error) {
	if !all {
		open, err := within(ctx, func(ctx context.Context) (int, error) {
			return s.store.OpenCharges(ctx, s.in.RunID, billing.ChargeOwner)
		})
		if err != nil || open >= maxOpenCharges {
			return billing.Slots{State: billing.RunRunning}, err
		}
	}
	return within(ctx, func(ctx context.Context) (billing.Slots, error) { return s.store.ReserveSlots(ctx, s.in.RunID, 1) })
}
