package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// aftermath is the final setback, after all faults have ended and while no run is
// under way: all months are closed, a backup of the time of the disturbance is put in
// the database's place, and callers ask under request ids of their own before anybody
// has started a run.
func (c *campaign) aftermath(ctx context.Context) error {
	a := c.plan.Aftermath
	if a == nil || c.spare == nil {
		return nil
	}
	if err := c.putBack(ctx, c.spare, a.setback); err != nil {
		return fmt.Errorf("the final setback: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	var callers sync.WaitGroup
	begin := time.Now()
	each(ctx, begin, a.Charges, func(s charge) (time.Duration, func()) {
		return s.At, func() {
			if !c.client.charge(ctx, s.Subscription, s.RequestID) {
				c.unanswered.Add(1)
			}
		}
	}, &callers)
	callers.Wait()
	return nil
}
