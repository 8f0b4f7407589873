package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
)

// What long activities have in common: how long a step may take, their heartbeats, and how
// they wait.
const (
	// beat is the time between two heartbeats; the heartbeat timeout is several times that.
	beat = 2 * time.Second
	// patience is the wait before looking again whether a run goes on or a slot
	// is free.
	patience = 200 * time.Millisecond
	// ledgerTime bounds one call to the database. A connection that leads nowhere would keep
	// the call waiting while the heartbeats go on; the operating system notices it after
	// minutes, or never.
	ledgerTime = 30 * time.Second
)

// within makes a call to the database.
func within[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, ledgerTime)
	defer cancel()
	return call(ctx)
}

// done is a call to the database that returns nothing but an error, for [within].
func done(call func(context.Context) error) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) }
}

// nothing is what a heartbeat carries that only says that the activity lives.
func nothing() any { return nil }

// sleep waits for d or the end of the context.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// keepBeating records heartbeats with the details until the returned function is
// called. The context that it returns also ends when the worker is told to stop. The
// activity then ends at its next step, and another worker goes on. The heartbeats go on
// until it has ended: else another worker would run a page at the same time, while its last
// orders are under way.
func keepBeating(ctx context.Context, details func() any) (context.Context, func()) {
	work, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		stopping := activity.GetWorkerStopChannel(ctx)
		for {
			select {
			case <-ended:
				return
			case <-ctx.Done():
				return
			case <-stopping:
				cancel()
				stopping = nil
			case <-ticker.C:
				activity.RecordHeartbeat(ctx, details())
			}
		}
	}()
	return work, func() {
		close(ended)
		cancel()
	}
}
