package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
)

// What activities that live long have in common: how long a step may take, how they tell
// that they live, and how they wait.
const (
	// beat is how often a long activity says that it lives; its heartbeat timeout
	// is several times that.
	beat = 2 * time.Second
	// patience is the wait before looking again whether a run goes on or a slot
	// is free.
	patience = 200 * time.Millisecond
	// ledgerTime bounds one call to the database: the heartbeats go on while a connection
	// that leads nowhere keeps the call waiting, which the operating system notices after
	// minutes, if at all.
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

// nothing are the details of heartbeats that only tell that an activity lives.
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
// called. The context that it returns also ends when the worker is told to stop: a
// long activity then ends at the next step, for another worker to go on. It beats
// on until then: a page that fell silent while its last orders are under way would
// be run by another worker at the same time.
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
