package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"drayman/billing"
)

// Execution is one run of a ChargeSubscription workflow, as Temporal lists it.
type Execution struct {
	WorkflowID     string
	RunID          string
	SubscriptionID string
}

// Memory is what Temporal remembers of charges. Package workflows knows how to
// ask; it cannot be imported here.
type Memory interface {
	// Executions lists the period's executions that have completed, and thereby
	// charged, or all others; the latest first, a page at a time.
	Executions(ctx context.Context, period billing.Period, completed bool, token []byte) (page []Execution, next []byte, err error)
	// Charge reads the charge of an execution from its history; nil if it came to
	// none, or if another installation has asked for it. It is pending where the history
	// tells no outcome; where nothing but the request id is known, its customer is empty.
	Charge(ctx context.Context, installation string, e Execution) (*billing.Charge, error)
}

// WithMemory gives the activities a memory; without one, RecallCharges does
// nothing. It is no method: those are activities.
func WithMemory(a *Activities, m Memory) *Activities {
	a.memory = m
	return a
}

// RecallChargesInput names a run that begins.
type RecallChargesInput struct {
	Run          billing.Run `json:"run"`
	Installation string      `json:"installation"`
}

// RecallChargesOutput counts what the ledger had forgotten.
type RecallChargesOutput struct {
	Recalled int `json:"recalled"`
	// Incarnation is the database's that they are in.
	Incarnation string `json:"incarnation"`
	// By is when the newest charge was made that was open while no page was at work: of
	// those that are no younger, no page works on one.
	By time.Time `json:"by"`
	// Idempotent says that the run may ask again for orders of pages that the ledger
	// has forgotten.
	Idempotent bool `json:"idempotent"`
}

// recallReads is how many histories are read at once.
const recallReads = 8

// RecallCharges frees what pages have claimed that work no longer, and puts charges
// of the month back into the ledger that Temporal remembers and the ledger does
// not: the database was restored to an earlier time. Most of them a run would ask
// for again under the same request ids; but not those that callers made under ids
// of their own, nor second attempts.
//
// Where nothing is forgotten it costs one list of the month's workflows, a
// thousand at a time, and one query for each thousand.
func (a *Activities) RecallCharges(ctx context.Context, in RecallChargesInput) (*RecallChargesOutput, error) {
	if err := a.requireCharging(ctx, in.Installation); err != nil {
		return nil, err
	}
	ctx, stop := keepBeating(ctx, nothing)
	defer stop()
	// First of all: one that is replaced while we look is not the one we looked at.
	incarnation, err := within(ctx, a.store.Incarnation)
	if err != nil {
		return nil, err
	}
	run, err := a.recorded(ctx, in.Run.ID, in.Run.Period)
	if err != nil {
		return nil, err
	}
	_, err = within(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.store.FreeClaims(ctx, *run) })
	if err != nil {
		return nil, asFailure(err)
	}
	out := &RecallChargesOutput{Incarnation: incarnation, Idempotent: a.policy.Idempotent}
	in.Run = *run
	if a.memory != nil {
		if out.Recalled, err = a.recallAll(ctx, in); err != nil {
			return nil, err
		}
	}
	// Last of all: what was put back is left over, too.
	out.By, err = within(ctx, func(ctx context.Context) (time.Time, error) { return a.store.NewestOpen(ctx, run.Period) })
	return out, err
}

// recallAll returns how many charges are in the ledger again.
func (a *Activities) recallAll(ctx context.Context, in RecallChargesInput) (recalled int, err error) {
	run := in.Run
	// The others are listed first: one that completes meanwhile is in both lists.
	others, err := a.forgotten(ctx, run.Period, false)
	if err != nil {
		return 0, err
	}
	charged, err := a.forgotten(ctx, run.Period, true)
	if err != nil {
		return 0, err
	}
	// Those that have charged are put back first: they know most.
	for _, forgotten := range [][]Execution{charged, others} {
		n, err := a.recall(ctx, in, forgotten)
		if recalled += n; err != nil {
			return recalled, err
		}
	}
	if recalled > 0 {
		a.log.WarnContext(ctx, "Temporal remembers charges that the ledger did not have; it has them again. Was the database restored?",
			"run", run.ID, "charges", recalled)
	}
	return recalled, nil
}

// forgotten lists executions of which the ledger does not know: those that have
// charged, where it shows no such charge, the latest first; others, where nothing
// stands for the subscription, the earliest first.
func (a *Activities) forgotten(ctx context.Context, period billing.Period, completed bool) ([]Execution, error) {
	var found []Execution
	for token := []byte(nil); ; {
		page, next, err := a.memory.Executions(ctx, period, completed, token)
		if err != nil {
			return nil, fmt.Errorf("listing the charges that Temporal remembers: %w", err)
		}
		ids := make([]string, 0, len(page))
		for _, e := range page {
			ids = append(ids, e.SubscriptionID)
		}
		standing, err := within(ctx, func(ctx context.Context) (map[string]billing.ChargeStatus, error) {
			return a.store.Standing(ctx, period, ids)
		})
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			switch status := standing[e.SubscriptionID]; {
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

// recall reads histories, a few at once, and writes what they know in their
// order. Of several that have charged a subscription, the first counts: a person has
// corrected the charges before it. It returns how many charges are in the ledger again.
func (a *Activities) recall(ctx context.Context, in RecallChargesInput, forgotten []Execution) (recalled int, err error) {
	charged := map[string]bool{}
	for len(forgotten) > 0 {
		batch := forgotten[:min(len(forgotten), recallReads)]
		forgotten = forgotten[len(batch):]
		charges := make([]*billing.Charge, len(batch))
		reads, readCtx := errgroup.WithContext(ctx)
		for i, e := range batch {
			reads.Go(func() (err error) {
				charges[i], err = a.memory.Charge(readCtx, in.Installation, e)
				return err
			})
		}
		if err := reads.Wait(); err != nil {
			return recalled, fmt.Errorf("reading a charge that Temporal remembers: %w", err)
		}
		for _, c := range charges {
			if c == nil || c.Status == billing.Charged && charged[c.SubscriptionID] {
				continue
			}
			charged[c.SubscriptionID] = charged[c.SubscriptionID] || c.Status == billing.Charged
			written, err := within(ctx, func(ctx context.Context) (bool, error) { return a.putBack(ctx, in.Run, *c) })
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

// putBack writes a remembered charge into the ledger: one that has charged also
// where it stands there as pending or unresolved, any other unless something stands
// there. What is open, the start of the run takes up.
func (a *Activities) putBack(ctx context.Context, run billing.Run, c billing.Charge) (bool, error) {
	c.Owner = fmt.Sprintf("billing-run/%s recall", run.ID)
	if c.Status != billing.Declined { // else this run could not try it again
		c.RunID = run.ID
	}
	switch {
	case c.CustomerID == "" && !a.policy.Idempotent:
		return false, nil // the first call to such a shop comes after the customer is in the history
	case c.CustomerID == "":
		standing, err := a.store.Standing(ctx, c.Period, []string{c.SubscriptionID})
		if err != nil || standing[c.SubscriptionID] != "" {
			return false, err // it has begun since it was listed
		}
		// Most have begun just now, and nothing was forgotten.
		_, err = a.store.ClaimCharge(ctx, billing.ChargeRequest{
			SubscriptionID: c.SubscriptionID, Period: c.Period, RequestID: c.RequestID, RunID: c.RunID, RequireEligible: true,
		}, c.Owner, false)
		if billing.CodeOf(err) != "" {
			return false, nil // no page would charge it either
		}
		return false, err
	case c.Status == billing.Pending && !a.policy.Idempotent:
		c = *unresolved(c, FailureInDoubt, "the database was restored to before this charge, and the shop is not idempotent")
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
