package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"drayman/billing"
)

// ChargePageInput is a range of subscription ids to charge: (After, UpTo].
type ChargePageInput struct {
	RunRef
	Number int    `json:"number"` // of the page; it owns its claims
	After  string `json:"after"`
	UpTo   string `json:"up_to"`
	// Concurrency is how many orders the page has in flight.
	Concurrency int `json:"concurrency"`
}

// Why a page ended before its range was through.
const (
	StopRun      = "run"      // the run is paused or has ended
	StopRefused  = "refused"  // the shop refuses our credentials or address
	StopFailing  = "failing"  // most orders of the page fail
	StopReplaced = "replaced" // the database was replaced, or lacks the run
)

// ChargePageOutput is how far a page came.
type ChargePageOutput struct {
	Cursor string `json:"cursor"`
	Done   bool   `json:"done"`
	// Locked counts the subscriptions up to Cursor that were passed over, because another
	// transaction held their rows.
	Locked int    `json:"locked,omitempty"`
	Stop   string `json:"stop,omitempty"`
	Detail string `json:"detail,omitempty"` // what the shop said, with refused and failing
}

// Limits of a batch. It grows while batches are quick, up to maxBatch, and shrinks when they
// take longer than batchTime. A pause takes effect after the batch under way, and a cancelled
// subscription is not charged if its batch is not claimed yet.
const (
	maxBatch  = 500
	batchTime = time.Second
	// sendFor is how long after its claims the orders of a batch are sent. settleTime is
	// the time to settle them, after the last call. See [page.heldFor].
	sendFor    = 150 * time.Second
	settleTime = 150 * time.Second
	// maxWaiting bounds the claims that wait for a workflow to be started, in a run that has
	// a workflow for each charge.
	maxWaiting = 1000
	// enoughToJudge is how many orders a page must have tried before "most of
	// them fail" means anything.
	enoughToJudge = 20
)

// page is one run of ChargePage.
type page struct {
	*Activities
	in        ChargePageInput
	owner     string
	perCharge bool // each charge gets a workflow of its own
	batch     int

	mu  sync.Mutex // guards out, which heartbeats read
	out ChargePageOutput

	own           []billing.Charge // claims of an earlier try, to be placed first
	sendUntil     time.Time        // orders of the batch are sent no later
	unknown       error            // why it is not known how a claim of an earlier try stands
	tried, failed int
}

// ChargePage charges everyone of a range who is due in the run at the claim and
// not charged yet. For each batch, one statement claims, the orders are sent concurrently
// at the run's pace, and one statement settles.
//
// If it runs again after a worker's death, it first finds its own open claims and repeats
// their request ids. Then it goes on from its last heartbeat.
//
// It lets go of exceptions: the run's sweep starts a workflow for each.
func (a *Activities) ChargePage(ctx context.Context, in ChargePageInput) (*ChargePageOutput, error) {
	if in.Number < 1 {
		return nil, asFailure(billing.Invalid("number", "must be at least 1"))
	}
	p := &page{
		Activities: a, in: in, owner: fmt.Sprint(in.pageOwners(), in.Number), out: ChargePageOutput{Cursor: in.After},
	}
	run, err := a.recorded(ctx, in.RunRef)
	if failureCode(err) == billing.CodeRunNotFound {
		p.stop(StopReplaced, "")
		return &p.out, nil
	}
	if err != nil {
		return nil, err
	}
	p.perCharge = run.Settings.WorkflowPerCharge
	p.in.Concurrency = max(1, min(in.Concurrency, billing.MaxConcurrency))
	p.batch = min(maxBatch, p.in.Concurrency)
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &p.out); err != nil {
			return nil, err
		}
	}
	ctx, stop := keepBeating(ctx, p.progress)
	defer stop()
	return p.run(ctx)
}

// heldFor is how long a batch's claims are held: longer than any batch takes in a worker
// that lives, however long one call takes.
func (p *page) heldFor() time.Duration { return sendFor + p.policy.ShopTimeout + settleTime }

func (p *page) progress() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

func (p *page) run(ctx context.Context) (_ *ChargePageOutput, err error) {
	p.own, err = within(ctx, func(ctx context.Context) ([]billing.Charge, error) {
		return p.store.OwnClaims(ctx, p.in.RunID, p.owner)
	})
	if err != nil {
		return nil, err
	}
	p.out.Done = p.out.Done && len(p.own) == 0
	for !p.out.Done && p.out.Stop == "" {
		if err := p.stopIfReplaced(ctx, p.nextBatch(ctx)); err != nil {
			return nil, asFailure(p.notYet(ctx, p.in.Installation, err))
		}
	}
	return &p.out, p.release(ctx)
}

// stopIfReplaced stops the page if the error says that the database is another one than
// that with which the run began.
func (p *page) stopIfReplaced(ctx context.Context, err error) error {
	switch billing.CodeOf(err) {
	case billing.CodeDatabaseReplaced:
		p.startRecall(ctx, p.in.Installation)
	case billing.CodeRunNotFound:
	default:
		return err
	}
	p.stop(StopReplaced, "")
	return nil
}

// holdOwn holds the claims of an earlier try, without those that somebody has taken
// over or settled since.
func (p *page) holdOwn(ctx context.Context) error {
	ids := make([]billing.RequestID, 0, len(p.own))
	for _, c := range p.own {
		ids = append(ids, c.RequestID)
	}
	held, err := within(ctx, func(ctx context.Context) ([]billing.RequestID, error) {
		return p.store.HoldClaims(ctx, p.claim(0), ids)
	})
	if err != nil {
		return err
	}
	p.own = slices.DeleteFunc(p.own, func(c billing.Charge) bool { return !slices.Contains(held, c.RequestID) })
	return nil
}

// claim asks for the next claims of the page, at most limit.
func (p *page) claim(limit int) billing.PageClaim {
	return billing.PageClaim{
		RunID: p.in.RunID, Owner: p.owner, Period: p.in.Period, After: p.out.Cursor, UpTo: p.in.UpTo,
		Limit: limit, HeldFor: p.heldFor(), Unheld: p.perCharge, Installation: p.in.Installation, Recalled: p.in.Recalled,
	}
}

// release no longer holds the claims of an earlier try that this one does not place, because
// the page has stopped. They stay its own for when it goes on; others may take them over. Of
// a run that was cancelled, what was not sent is withdrawn.
func (p *page) release(ctx context.Context) error {
	claims := make([]billing.PlacedCharge, 0, len(p.own))
	for _, c := range p.own {
		claims = append(claims, *p.notPlaced(c))
	}
	if err := p.settle(ctx, claims); err != nil || p.out.Stop != StopRun {
		return err
	}
	_, err := within(ctx, done(func(ctx context.Context) error { return p.store.WithdrawCancelled(ctx, p.in.RunID) }))
	return err
}

// notPlaced is a claim of an earlier try as the page leaves it: free to be taken over, or in
// doubt if it may have reached a shop that is not idempotent.
func (p *page) notPlaced(charge billing.Charge) *billing.PlacedCharge {
	if !p.policy.Idempotent && !charge.SentAt.IsZero() {
		charge = *unresolved(charge, billing.FailureInDoubt, sentEarlier)
	}
	return &billing.PlacedCharge{Charge: charge}
}

// nextBatch claims, orders and settles one batch, as soon as the run's pace permits
// it.
func (p *page) nextBatch(ctx context.Context) error {
	if p.perCharge {
		return p.claimForWorkflows(ctx)
	}
	slots, err := within(ctx, func(ctx context.Context) (billing.Slots, error) {
		return p.store.ReserveSlots(ctx, p.in.RunID, p.batch)
	})
	switch {
	case err != nil:
		return err
	case slots.State != billing.RunRunning:
		p.stop(StopRun, "")
		return nil
	case slots.Count == 0:
		return sleep(ctx, min(slots.Wait, patience))
	}
	first := time.Now().Add(slots.Wait)
	if err := sleep(ctx, slots.Wait); err != nil {
		return err
	}
	if len(p.own) > 0 {
		return p.placeOwn(ctx, slots, first)
	}
	return p.claimAndPlace(ctx, slots, first)
}

// claimForWorkflows makes claims that nobody holds, and the run's sweep starts a workflow for
// each. It does not run far ahead of the workflows: a subscription that is cancelled before
// the claim is not charged.
func (p *page) claimForWorkflows(ctx context.Context) error {
	run, err := within(ctx, func(ctx context.Context) (*billing.Run, error) { return p.store.RunByID(ctx, p.in.RunID) })
	switch {
	case err != nil:
		return err
	case run.State != billing.RunRunning:
		p.stop(StopRun, "")
		return nil
	}
	waiting, err := within(ctx, func(ctx context.Context) (int, error) { return p.store.OpenCharges(ctx, p.in.RunID, billing.Nobody) })
	if err != nil {
		return err
	}
	if waiting >= maxWaiting {
		// It claims nothing meanwhile, and would not learn that the database was replaced.
		found, err := within(ctx, p.store.Installation)
		if err == nil {
			err = found.Permits(p.in.Installation, p.in.Recalled)
		}
		if err != nil {
			return err
		}
		return sleep(ctx, patience)
	}
	claimed, err := p.claimNext(ctx, maxBatch)
	p.passed(claimed)
	return err
}

func (p *page) claimNext(ctx context.Context, limit int) (billing.PageClaimed, error) {
	return within(ctx, func(ctx context.Context) (billing.PageClaimed, error) { return p.store.ClaimPage(ctx, p.claim(limit)) })
}

// passed records how far the page has come.
func (p *page) passed(claimed billing.PageClaimed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if claimed.Cursor != "" {
		p.out.Cursor, p.out.Done = claimed.Cursor, claimed.Done && p.out.Stop == ""
		p.out.Locked += claimed.Locked
	}
}

func (p *page) placeOwn(ctx context.Context, slots billing.Slots, first time.Time) error {
	if err := p.holdOwn(ctx); err != nil {
		return err
	}
	n := min(len(p.own), slots.Count)
	again := p.own[:n]
	p.own = p.own[n:]
	return p.place(ctx, again, first, slots.Interval, p.orderAgain)
}

func (p *page) claimAndPlace(ctx context.Context, slots billing.Slots, first time.Time) error {
	claimed, err := p.claimNext(ctx, slots.Count)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := p.place(ctx, claimed.Charges, first, slots.Interval, p.order); err != nil {
		return err
	}
	p.adapt(time.Since(begun), len(claimed.Charges))
	p.passed(claimed)
	return nil
}

// adapt aims at batches that take between a quarter of batchTime and all of it.
// A batch smaller than the concurrency would not be quicker.
func (p *page) adapt(took time.Duration, orders int) {
	switch {
	case took > batchTime:
		p.batch = max(p.in.Concurrency, p.batch/2)
	case took < batchTime/4 && orders == p.batch:
		p.batch = min(maxBatch, p.batch*4)
	}
}

// place asks the shop for the orders, the first at the time of its slot and the others an
// interval apart. Then it settles them. An order that is not sent, because the page stops,
// keeps its claim as order leaves it.
func (p *page) place(ctx context.Context, charges []billing.Charge, first time.Time, interval time.Duration, order func(context.Context, billing.Charge) *billing.PlacedCharge) error {
	if len(charges) == 0 {
		return nil
	}
	p.sendUntil = time.Now().Add(sendFor)
	placed := make([]*billing.PlacedCharge, len(charges))
	var orders errgroup.Group
	orders.SetLimit(max(p.in.Concurrency, 1))
	for i, charge := range charges {
		// An error of sleep is the end of ctx, which order meets, too.
		_ = sleep(ctx, time.Until(first.Add(time.Duration(i)*interval)))
		orders.Go(func() error {
			placed[i] = order(ctx, charge)
			return nil
		})
	}
	_ = orders.Wait() // no order returns an error
	var settled []billing.PlacedCharge
	for _, charge := range placed {
		if charge != nil {
			settled = append(settled, *charge)
		}
	}
	p.judge(settled)
	if err := p.settle(ctx, settled); err != nil {
		return err
	}
	return errors.Join(ctx.Err(), p.unknown)
}

// order places an order that was claimed just now. If the page stops, it returns the claim
// as it is, certainly not sent: it stays the page's, held no longer.
func (p *page) order(ctx context.Context, charge billing.Charge) *billing.PlacedCharge {
	if ctx.Err() != nil || p.stopped() || time.Now().After(p.sendUntil) {
		return &billing.PlacedCharge{Charge: charge, NotOrdered: true}
	}
	// A stop does not cut the call, or the order would be in doubt. The call ends within the
	// shop's timeout.
	charge, answer := p.ask(context.WithoutCancel(ctx), charge)
	if charge.FailureCode == FailureShopRefused {
		p.stop(StopRefused, charge.FailureDetail)
	}
	return &billing.PlacedCharge{Charge: charge, NotOrdered: charge.Status == billing.Pending && !answer.Doubt}
}

// orderAgain places an order that an earlier try of the page has claimed and may have sent.
// Only to an idempotent shop is such an order sent again.
func (p *page) orderAgain(ctx context.Context, charge billing.Charge) *billing.PlacedCharge {
	if ctx.Err() != nil || p.stopped() {
		return p.notPlaced(charge)
	}
	permitted := false
	if !p.policy.Idempotent || charge.SentAt.IsZero() {
		var sentAt time.Time
		var err error
		permitted, sentAt, err = p.permit(ctx, charge.RequestID, time.Time{}, p.in.Installation)
		switch {
		case err != nil:
			p.giveUp(err)
			return nil
		case sentAt.IsZero(): // somebody has settled it
			return nil
		case !permitted && !p.policy.Idempotent:
			return &billing.PlacedCharge{Charge: *unresolved(charge, billing.FailureInDoubt, sentEarlier)}
		}
		charge.SentAt = sentAt
	}
	ordered := p.order(ctx, charge)
	ordered.NotOrdered = ordered.NotOrdered && permitted // else an earlier call may have ordered
	return ordered
}

// giveUp fails this try after its batch; the next one finds the claim again.
func (p *page) giveUp(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unknown = err
}

func (p *page) stop(why, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Stop, p.out.Detail = why, detail
}

func (p *page) stopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Stop != ""
}

// settle records a batch. It tries as long as the activity lives, because what was ordered
// must be recorded. If it fails, the next try of the page finds the claims.
func (p *page) settle(ctx context.Context, charges []billing.PlacedCharge) error {
	for wait := patience; ; wait = min(2*wait, beat) {
		// What was ordered is recorded also after the activity was told to end.
		_, err := within(context.WithoutCancel(ctx), func(ctx context.Context) (struct{}, error) {
			return struct{}{}, p.store.SettlePage(ctx, charges, !p.stopped())
		})
		switch {
		case err == nil:
			return nil
		case billing.CodeOf(err) == billing.CodeLedgerConflict: // the rest is settled
			p.log.ErrorContext(ctx, "the shop has an order that the ledger does not take; look into it", "owner", p.owner, "error", err)
			return nil
		}
		p.log.WarnContext(ctx, "a page cannot be settled yet", "owner", p.owner, "error", err)
		if sleep(ctx, wait) != nil {
			return err
		}
	}
}

// judge looks at what came of a batch: if most orders that the page has sent fail, it stops.
// An order in doubt fails, too: else a shop that is down would leave a whole month
// unresolved. The claims of a page that has stopped stay its own, for when it goes on.
func (p *page) judge(placed []billing.PlacedCharge) {
	detail := ""
	for _, c := range placed {
		if c.Attempts == 0 {
			continue // not sent, because the time for it was over
		}
		p.tried++
		if c.Status == billing.Pending || c.Status == billing.Unresolved {
			p.failed++
			detail = c.FailureDetail
		}
	}
	if !p.stopped() && p.tried >= enoughToJudge && 2*p.failed > p.tried {
		p.stop(StopFailing, detail)
	}
}
