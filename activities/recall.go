package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"drayman/billing"
)

// Execution is one run of a ChargeSubscription workflow, as Temporal lists it.
type Execution struct {
	WorkflowID     string
	RunID          string // Temporal's
	SubscriptionID string
	Period         billing.Period
}

// RecallInput names the installation whose database is to be looked through.
type RecallInput struct {
	Installation string `json:"installation"`
}

// RecallOutput says what the ledger had forgotten.
type RecallOutput struct {
	Charges int `json:"charges"` // put back
	// Incarnation is the database's that may charge again.
	Incarnation string `json:"incarnation"`
}

const (
	// recallReads is how many histories are read at once.
	recallReads = 8
	// listPause is the wait between two looks at Temporal's list. When the list has caught
	// up, it is also the wait for what other shards of the server still have to write.
	listPause = 500 * time.Millisecond
)

// Recall writes into the ledger what Temporal remembers of every month and the ledger does
// not: the database was restored to an earlier time, or a standby took its place (decision
// 0019). Then the database may charge again; see models.Store.Recalled for what becomes of
// the runs.
//
// A run would ask again for most of what was forgotten, under the same request ids. It would
// not for the charges that callers made under ids of their own, nor for second attempts.
//
// If nothing is forgotten, it lists the executions that Temporal keeps, a thousand at a
// time, and makes one query for each thousand.
func (a *Activities) Recall(ctx context.Context, in RecallInput) (*RecallOutput, error) {
	ctx, stop := keepBeating(ctx, nothing)
	defer stop()
	found, err := within(ctx, a.store.Installation)
	if err == nil {
		err = found.Requires(in.Installation)
	}
	if err == nil {
		err = found.Adopted()
	}
	out := &RecallOutput{Incarnation: found.Incarnation}
	if err != nil || found.Recalled == found.Incarnation {
		return out, asFailure(err)
	}
	if err := a.awaitList(ctx); err != nil {
		return nil, err
	}
	if out.Charges, err = a.recallCharges(ctx, in); err != nil {
		return nil, err
	}
	runs, err := a.temporal.Runs(ctx, in.Installation)
	if err != nil {
		return nil, fmt.Errorf("reading the runs that Temporal remembers: %w", err)
	}
	doubt := billing.DoubtRepeat
	if !a.policy.Idempotent {
		doubt = billing.DoubtConfirm
	}
	// Not within ledgerTime: it reads through the whole ledger for what is pending.
	return out, a.store.Recalled(ctx, found.Incarnation, runs, doubt)
}

// awaitList waits until Temporal's list shows this very execution. The list lags a moment
// behind the executions. Nobody has been charged since this one began.
func (a *Activities) awaitList(ctx context.Context) error {
	own := activity.GetInfo(ctx).WorkflowExecution
	for {
		listed, err := a.temporal.IsListed(ctx, own.ID, own.RunID)
		if err != nil {
			return fmt.Errorf("asking Temporal's list: %w", err)
		}
		if err := sleep(ctx, listPause); err != nil || listed {
			return err
		}
	}
}

// recallCharges returns how many charges it has put back.
func (a *Activities) recallCharges(ctx context.Context, in RecallInput) (recalled int, err error) {
	// The others are listed first: one that completes meanwhile is in both lists.
	others, err := a.forgotten(ctx, false)
	if err != nil {
		return 0, err
	}
	charged, err := a.forgotten(ctx, true)
	if err != nil {
		return 0, err
	}
	// Those that have charged are put back first: their histories are complete.
	for _, forgotten := range [][]Execution{charged, others} {
		n, err := a.recall(ctx, in, forgotten)
		if recalled += n; err != nil {
			return recalled, err
		}
	}
	if recalled > 0 {
		a.log.WarnContext(ctx, "Temporal remembers charges that the ledger did not have; it has them again. Was the database restored?",
			"charges", recalled)
	}
	return recalled, nil
}

// forgotten lists executions that the ledger does not know. Completed ones have charged: it
// lists those of which the ledger shows no charge that is charged, the latest first. Of the
// others it lists those for whose subscription nothing stands, the earliest first.
func (a *Activities) forgotten(ctx context.Context, completed bool) ([]Execution, error) {
	var found []Execution
	for token := []byte(nil); ; {
		page, next, err := a.temporal.Executions(ctx, completed, token)
		if err != nil {
			return nil, fmt.Errorf("listing the charges that Temporal remembers: %w", err)
		}
		months := map[billing.Period][]string{}
		for _, e := range page {
			months[e.Period] = append(months[e.Period], e.SubscriptionID)
		}
		standing := map[billing.Period]map[string]billing.ChargeStatus{}
		for period, ids := range months {
			standing[period], err = within(ctx, func(ctx context.Context) (map[string]billing.ChargeStatus, error) {
				return a.store.Standing(ctx, period, ids)
			})
			if err != nil {
				return nil, err
			}
		}
		for _, e := range page {
			switch status := standing[e.Period][e.SubscriptionID]; {
			case status == "", completed && status != billing.Charged:
				found = append(found, e)
			}
		}
		if token = next; len(token) == 0 {
			if !completed {
				slices.Reverse(found)
			}
			return found, nil
		}
	}
}

// recall reads histories, a few at once, and writes their charges in the given order. Of
// several that have charged a subscription in a month, the first counts: a person has
// corrected the others (decision 0018). It returns how many charges it has put back.
func (a *Activities) recall(ctx context.Context, in RecallInput, forgotten []Execution) (recalled int, err error) {
	charged := map[string]bool{}
	for len(forgotten) > 0 {
		batch := forgotten[:min(len(forgotten), recallReads)]
		forgotten = forgotten[len(batch):]
		charges := make([]*billing.Charge, len(batch))
		reads, readCtx := errgroup.WithContext(ctx)
		for i, e := range batch {
			reads.Go(func() (err error) {
				charges[i], err = a.temporal.Charge(readCtx, in.Installation, e)
				return err
			})
		}
		if err := reads.Wait(); err != nil {
			return recalled, fmt.Errorf("reading a charge that Temporal remembers: %w", err)
		}
		for _, c := range charges {
			if c == nil {
				continue
			}
			month := c.Period.String() + " " + c.SubscriptionID
			if c.Status == billing.Charged && charged[month] {
				continue
			}
			charged[month] = charged[month] || c.Status == billing.Charged
			c.Installation = in.Installation
			written, err := within(ctx, func(ctx context.Context) (bool, error) { return a.putBack(ctx, *c) })
			if err != nil {
				return recalled, err
			}
			if written {
				recalled++
			}
		}
	}
	return recalled, nil
}

// putBack writes a remembered charge into the ledger, if nothing stands there. One that has
// charged also settles a row that is pending or unresolved there. The sweep of a run takes up
// what is open.
func (a *Activities) putBack(ctx context.Context, c billing.Charge) (bool, error) {
	c.Owner, c.ClaimedUntil = billing.Nobody, time.Time{}
	switch {
	case c.CustomerID == "" && !a.policy.Idempotent:
		return false, nil // such a shop is first called when the customer is in the history
	case c.CustomerID == "":
		return false, a.store.PutBackRequest(ctx, billing.ChargeRequest{
			SubscriptionID: c.SubscriptionID, Period: c.Period, RequestID: c.RequestID, RunID: c.RunID,
			RequireEligible: true, Installation: c.Installation,
		})
	case c.Status == billing.Pending && !a.policy.Idempotent:
		c = *unresolved(c, billing.FailureInDoubt, "the database was restored to before this charge, and the shop is not idempotent")
	}
	written, err := a.store.PutBack(ctx, c)
	if written || err != nil || c.Status != billing.Charged {
		return written, err
	}
	settled, err := a.store.SettleCharge(ctx, c)
	if billing.CodeOf(err) == billing.CodeLedgerConflict {
		a.log.ErrorContext(ctx, "the shop has an order that the ledger does not take; look into it", "request_id", c.RequestID, "error", err)
		return false, nil
	}
	return err == nil && settled.Status == billing.Charged, err // else a person has corrected it
}
