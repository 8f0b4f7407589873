package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"drayman/billing"
)

// ErrClaimRaced says that another claim took the subscription's place in the
// ledger between our look and our insert. Claim again.
var ErrClaimRaced = errors.New("another claim of the subscription came first; try again")

// ChargeFacts reads what a charge request meets now: the subscription, its
// standing, and the ledger. It locks nothing: a claim may meet something else.
func (s *Store) ChargeFacts(ctx context.Context, req billing.ChargeRequest) (billing.ChargeFacts, error) {
	tx := s.read.WithContext(ctx)
	now, err := s.now(tx)
	if err != nil {
		return billing.ChargeFacts{}, err
	}
	return s.chargeFacts(tx, req, now)
}

func (s *Store) chargeFacts(tx *gorm.DB, req billing.ChargeRequest, at time.Time) (billing.ChargeFacts, error) {
	facts, err := s.subscriptionFacts(tx, req.SubscriptionID, at)
	if err != nil {
		return facts, err
	}
	var rows []chargeRow
	found := tx.Where("request_id = ?", string(req.RequestID)).
		Or("subscription_id = ? AND period = ? AND "+stands, req.SubscriptionID, req.Period.String())
	if derives(req) {
		found = found.Or("subscription_id = ? AND period = ? AND run_id = ?", req.SubscriptionID, req.Period.String(), req.RunID)
	}
	if err := found.Find(&rows).Error; err != nil {
		return facts, fmt.Errorf("reading the ledger: %w", err)
	}
	charges, err := chargesOf(rows)
	if err != nil {
		return facts, err
	}
	facts.Open, facts.SameRequest = standing(charges, req)
	if req.RunID != "" && facts.Open == nil {
		facts.AtCutOff, err = s.standingAtCutOff(tx, req)
	}
	return facts, err
}

// derives says that a run asks, and that the claim is to derive the request id.
func derives(req billing.ChargeRequest) bool { return req.RequestID == "" && req.RunID != "" }

// standing returns two of the charges that a request meets, see [billing.ChargeFacts]: the
// one that stands, and the one under the same request id.
func standing(charges []billing.Charge, req billing.ChargeRequest) (open, same *billing.Charge) {
	var tried *billing.Charge
	for i := range charges {
		c := &charges[i]
		switch {
		case c.SubscriptionID == req.SubscriptionID && c.Period == req.Period && c.Status.Stands():
			open = c
		case derives(req):
			tried = c
		}
		if c.RequestID == req.RequestID {
			same = c
		}
	}
	if open == nil && derives(req) {
		same = tried
	}
	return open, same
}

// standingAtCutOff reads the cut-off in the run's row, whatever the workflow that claims
// says. Without the row it returns run_not_found: nobody can tell who was due in the run.
func (s *Store) standingAtCutOff(tx *gorm.DB, req billing.ChargeRequest) (*billing.Standing, error) {
	run, err := readRun(tx.Where("id = ?", req.RunID))
	if err != nil {
		return nil, err
	}
	then, err := s.subscriptionFacts(tx, req.SubscriptionID, run.CutOff)
	return &then.Standing, err
}

func (s *Store) subscriptionFacts(tx *gorm.DB, id string, at time.Time) (billing.ChargeFacts, error) {
	var rows []struct {
		ClubID          whole
		CustomerStoreID *string
		StoreSKU        whole `gorm:"column:store_sku"`
		Status          whole
		ClubStatus      whole
		StatusRow       *string
		ClubStatusRow   *string
	}
	err := tx.Raw(s.sql(`SELECT s.club_id, s.customer_store_id AS customer_store_id, c.store_sku,
			`+subscriptionStatusAt+` AS status, `+clubStatusAt+` AS club_status,
			`+subscriptionStatusRowAt+` AS status_row, `+clubStatusRowAt+` AS club_status_row
		FROM subscription s LEFT JOIN club c ON c.id = s.club_id WHERE s.id = @id`),
		sql.Named("at", timestamp{at}), sql.Named("id", id)).Scan(&rows).Error
	if err != nil || len(rows) == 0 {
		return billing.ChargeFacts{}, err
	}
	r := rows[0]
	return billing.ChargeFacts{
		Exists: true, ClubID: valueOf(r.ClubID.n), CustomerID: valueOf(r.CustomerStoreID), SKU: r.StoreSKU.n,
		Standing: billing.Standing{
			Subscription: billing.Status(valueOf(r.Status.n)),
			Club:         billing.ClubStatus(valueOf(r.ClubStatus.n)),
			HasClub:      r.ClubID.n != nil,
		},
		StatusRow: valueOf(r.StatusRow), ClubStatusRow: valueOf(r.ClubStatusRow),
	}, nil
}

// ClaimCharge takes the subscription's place in the ledger for the period, or
// finds out who has it. Only after it has committed may the shop hear of the
// charge. The owner is who asks. carryOut says which claims it takes over.
//
// It returns the refusals of [billing.ChargeRequest.Validate], [billing.Decide] and,
// for a new charge, [billing.CheckClaimable]; run_not_found if a new claim would be made
// for a run that has no row; database_refused; or [ErrClaimRaced].
func (s *Store) ClaimCharge(ctx context.Context, req billing.ChargeRequest, owner string, idempotentShop bool) (billing.Claim, error) {
	var claim billing.Claim
	if err := req.Validate(); err != nil {
		return claim, err
	}
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		if err := s.lockSubscription(tx, req.SubscriptionID); err != nil {
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		if req.RequestID, err = requestIDOf(tx, req); err != nil {
			return err
		}
		facts, err := s.chargeFacts(tx, req, now)
		if err != nil {
			return err
		}
		if err := s.mayCharge(tx, req.Installation, ""); err != nil {
			return err
		}
		claim.Step, claim.Charge, err = billing.Decide(req, facts)
		if err != nil {
			return err
		}
		return s.carryOut(tx, &claim, claimant{req, facts, owner, idempotentShop, now})
	})
	return claim, finally(err)
}

// requestIDOf is the request id of the claim: the remembered one if the ledger has lost
// its row. If the row is there, the ledger has decided about it, whatever Temporal
// remembers: a person may have corrected it since.
func requestIDOf(tx *gorm.DB, req billing.ChargeRequest) (billing.RequestID, error) {
	if req.Remembered == "" {
		return req.RequestID, nil
	}
	var known int64
	err := tx.Model(&chargeRow{}).Where("request_id = ?", string(req.Remembered)).Count(&known).Error
	if err != nil || known > 0 {
		return req.RequestID, err
	}
	return req.Remembered, nil
}

type claimant struct {
	req            billing.ChargeRequest
	facts          billing.ChargeFacts
	owner          string
	idempotentShop bool
	now            time.Time
}

// carryOut follows the decision, and the rule of taking over (docs/product.md):
//
// A claim's owner may take it over at any time. Anybody may take it over once nobody holds
// it: claimed_until is NULL or past. A run that begins at an idempotent shop lifts all
// holds of its month ([Store.LiftHolds]). Whoever takes over keeps the claim's request id.
// To an idempotent shop, whoever has the claim may send it, and take up an unresolved one
// again. To another shop it may be sent only if sent_at is NULL, or is still the time that
// the sender's own claim has set ([Store.PermitSending]). Each claim sets sent_at before
// anything is sent, because the process may die after the call; only the claims that pages
// make for workflows (workflow_per_charge, second attempts) do not. If it is set already, a take-over and a
// permission move it by a microsecond: an earlier owner then finds that it may neither send
// nor clear it.
func (s *Store) carryOut(tx *gorm.DB, claim *billing.Claim, by claimant) error {
	switch claim.Step {
	case billing.StepPlace:
		return s.insertClaim(tx, claim, by)
	case billing.StepJoin:
		held := claim.Charge.Owner != by.owner && by.now.Before(claim.Charge.ClaimedUntil)
		if held {
			return nil
		}
		return takeOver(tx, claim, by)
	case billing.StepResume:
		if !by.idempotentShop {
			return nil
		}
		return takeOver(tx, claim, by)
	case billing.StepAnswer:
	}
	return nil
}

// insertClaim makes a new claim. In a month in doubt, pages may have ordered what the ledger
// lacks. The claim then gets the request id that they would have used, or is unresolved at
// once; see [billing.RunDoubt] and decision 0019.
func (s *Store) insertClaim(tx *gorm.DB, claim *billing.Claim, by claimant) error {
	if err := mayBegin(tx, by); err != nil {
		return err
	}
	doubt, err := doubtOf(tx, by.req.Period)
	if err != nil {
		return err
	}
	if doubt == billing.DoubtRepeat && !by.idempotentShop {
		doubt = billing.DoubtConfirm // it was idempotent when the database was replaced
	}
	id := by.req.RequestID
	if id == "" || doubt == billing.DoubtRepeat && by.req.Remembered == "" {
		derived, err := nextDerivedID(tx, by.req.Period, by.req.SubscriptionID)
		if err != nil {
			return err
		}
		// Once the ledger has the first attempt of a run, a page's order is not missing: pages
		// make first attempts only.
		if id == "" || derived == billing.DerivedRequestID(by.req.Period, by.req.SubscriptionID, 1) {
			id = derived
		}
	}
	claim.Charge = &billing.Charge{
		RequestID: id, SubscriptionID: by.req.SubscriptionID, Period: by.req.Period,
		Status: billing.Pending, Owner: by.owner, RunID: by.req.RunID, ClubID: by.facts.ClubID,
		CustomerID: by.facts.CustomerID, SKU: *by.facts.SKU, CreatedAt: by.now, SentAt: by.now,
		Installation: by.req.Installation, StatusRow: by.facts.StatusRow, ClubStatusRow: by.facts.ClubStatusRow,
	}
	claim.Unsent = true
	if doubt == billing.DoubtConfirm {
		claim.Step, claim.Unsent = billing.StepResume, false
		claim.Charge.Status, claim.Charge.SettledAt = billing.Unresolved, &by.now
		claim.Charge.FailureCode, claim.Charge.FailureDetail = billing.FailureInDoubt, "a page of a billing run may have ordered it before the database was "+
			"replaced, and the shop is not idempotent; nothing was asked of the shop now"
	}
	row := newChargeRow(claim.Charge)
	inserted := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&row)
	if inserted.Error == nil && inserted.RowsAffected == 0 {
		return ErrClaimRaced
	}
	return inserted.Error
}

// mayBegin refuses a new charge if no run asks for it and the month is not the current
// one; or if the run that asks was cancelled, or has a successor.
func mayBegin(tx *gorm.DB, by claimant) error {
	if by.req.RunID == "" {
		return billing.CheckClaimable(by.req.Period, by.now)
	}
	run, err := readRun(tx.Where("id = ? AND period = ?", by.req.RunID, by.req.Period.String()))
	if err == nil && (run.State == billing.RunCancelled || run.State == billing.RunAbandoned) {
		return billing.Errorf(billing.CodeRunNotActive, "the run %s is %s and begins no more charges", run.ID, run.State)
	}
	return err
}

// nextDerivedID returns the request id of the next attempt of billing runs: after
// those that were declined or withdrawn, and after any that a caller has used for
// something else. If all are used, the error is errNoDerivedID.
func nextDerivedID(tx *gorm.DB, period billing.Period, subscriptionID string) (billing.RequestID, error) {
	for attempt := 1; attempt <= billing.MaxAttempt; attempt++ {
		id := billing.DerivedRequestID(period, subscriptionID, attempt)
		var used int64
		if err := tx.Model(&chargeRow{}).Where("request_id = ?", string(id)).Count(&used).Error; err != nil {
			return "", err
		}
		if used == 0 {
			return id, nil
		}
	}
	return "", fmt.Errorf("%w: %d of the subscription for %s", errNoDerivedID, billing.MaxAttempt, period)
}

var errNoDerivedID = errors.New("all request ids that runs derive are used")

// takeOver makes the claimant the owner of the row that it found, if the row still stands
// as it was found.
func takeOver(tx *gorm.DB, claim *billing.Claim, by claimant) error {
	found := claim.Charge
	if !isCarried(found.CustomerID) { // written by hand: the shop would be asked about another customer
		return billing.Errorf(billing.CodeNotEligible, "the customer id of request id %q in the ledger is no text in UTF-8", found.RequestID)
	}
	sentAt := by.now
	if !found.SentAt.IsZero() {
		sentAt = found.SentAt.Add(time.Microsecond)
	}
	taken := tx.Model(&chargeRow{}).
		Where("request_id = ? AND status = ? AND owner = ?", string(found.RequestID), string(found.Status), found.Owner).
		Updates(map[string]any{
			"status": string(billing.Pending), "owner": by.owner, "claimed_until": nil,
			"failure_code": nil, "failure_detail": nil, "settled_at": nil, "sent_at": timestamp{sentAt},
		})
	if taken.Error == nil && taken.RowsAffected == 0 {
		return ErrClaimRaced
	}
	claim.Step, claim.Unsent = billing.StepPlace, found.SentAt.IsZero()
	found.SentAt = sentAt
	found.Status, found.Owner, found.ClaimedUntil = billing.Pending, by.owner, time.Time{}
	found.FailureCode, found.FailureDetail, found.SettledAt = "", "", nil
	return taken.Error
}

// PermitSending asks, before a call to the shop, whether the request has certainly
// not gone out earlier: sent_at is NULL, or equals claimed, the time that the caller's own
// claim has set (zero: none). Either way it moves sent_at, so that nobody is permitted
// twice, and returns it, for [Store.NotOrdered]. Without a pending charge it permits
// nothing, and the time is zero.
//
// It returns the refusals of [billing.Installation], as a claim does.
func (s *Store) PermitSending(ctx context.Context, id billing.RequestID, claimed time.Time, installation string) (permitted bool, sentAt time.Time, err error) {
	err = s.inTransaction(ctx, func(tx *gorm.DB) error {
		permitted, sentAt = false, time.Time{}
		var found []chargeRow
		err := s.forUpdate(tx).Where("request_id = ? AND status = 'pending'", string(id)).Find(&found).Error
		if err == nil {
			err = s.mayCharge(tx, installation, "")
		}
		if err != nil || len(found) == 0 {
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		permitted, sentAt = true, now
		if sent := timeOf(found[0].SentAt); sent != nil {
			permitted = !claimed.IsZero() && sent.Equal(claimed)
			sentAt = sent.Add(time.Microsecond)
		}
		return tx.Model(&chargeRow{}).Where("request_id = ?", string(id)).Update("sent_at", timestamp{sentAt}).Error
	})
	return permitted, sentAt, err
}

// NotOrdered clears sent_at of a pending charge: the shop has certainly made no order. The
// caller knows it of its own call, the only one since sentAt, when it claimed or was
// permitted to send. If somebody has moved that time since, nothing changes.
func (s *Store) NotOrdered(ctx context.Context, id billing.RequestID, sentAt time.Time) error {
	return s.inTransaction(ctx, func(tx *gorm.DB) error {
		return tx.Model(&chargeRow{}).
			Where("request_id = ? AND status = 'pending' AND sent_at = ?", string(id), timestamp{sentAt}).Update("sent_at", nil).Error
	})
}

// SettleCharge records how a claimed charge ended: its Status, Order, failure
// and Attempts. It returns the row as it stands afterwards, so settling twice is
// harmless: what is charged stays charged, and what a person has resolved or corrected
// stays so. A missing row was deleted by hand, or lost with an older database. It is
// written anew: an order that exists must have its row. If another charge has taken its
// place meanwhile, or its request id, the error has the code ledger_conflict.
func (s *Store) SettleCharge(ctx context.Context, c billing.Charge) (*billing.Charge, error) {
	var settled *billing.Charge
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		c.SettledAt = &now
		row := newChargeRow(&c)
		err = tx.Clauses(clause.OnConflict{
			Columns: []clause.Column{{Name: "request_id"}},
			Where: clause.Where{Exprs: []clause.Expression{
				clause.Expr{SQL: "charge." + unsettled + " AND charge.subscription_id = excluded.subscription_id AND charge.period = excluded.period"},
			}},
			DoUpdates: clause.AssignmentColumns([]string{
				"status", "attempts", "shop_order", "failure_code", "failure_detail", "settled_at",
			}),
		}).Create(&row).Error
		if errors.Is(err, gorm.ErrDuplicatedKey) {
			return billing.Errorf(billing.CodeLedgerConflict,
				"request id %q was %s at the shop, but another charge of the subscription stands for %s", c.RequestID, c.Status, c.Period)
		}
		if err != nil {
			return fmt.Errorf("settling the charge: %w", err)
		}
		settled, err = readCharge(tx.Where("request_id = ?", string(c.RequestID)))
		if err == nil && (settled.SubscriptionID != c.SubscriptionID || settled.Period != c.Period) {
			return billing.Errorf(billing.CodeLedgerConflict,
				"request id %q was %s at the shop, but the ledger has it for another subscription or period", c.RequestID, c.Status)
		}
		if err == nil && c.Status == billing.Charged && !settled.Status.Stands() && !correctedSince(settled, row.ShopOrder) {
			return billing.Errorf(billing.CodeLedgerConflict,
				"the shop has an order for request id %q, but the ledger has it as %s, by %q", c.RequestID, settled.Status, settled.ResolvedBy)
		}
		return err
	})
	return settled, err
}

// correctedSince says of a declined charge that a person has corrected it, knowing this
// answer of the shop.
func correctedSince(c *billing.Charge, answer *string) bool {
	return c.FailureCode == billing.FailureCorrected && string(c.Order) == valueOf(answer)
}

// Resolve settles an unresolved charge by a person's word, and keeps who, when and why in
// its row and in the audit. It returns validation_failed, charge_not_found, or
// charge_not_unresolved with the charge as it is.
func (s *Store) Resolve(ctx context.Context, r billing.Resolution) (*billing.Charge, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var resolved *billing.Charge
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		found, err := newestCharge(tx, r.SubscriptionID, r.Period)
		if err != nil {
			return err
		}
		changed := tx.Model(&chargeRow{}).
			Where("request_id = ? AND status = 'unresolved'", string(found.RequestID)).
			Updates(map[string]any{
				"status": string(r.Outcome), "resolved_by": r.By, "resolved_note": r.Note, "settled_at": timestamp{now},
			})
		if changed.Error != nil {
			return changed.Error
		}
		resolved, err = readCharge(tx.Where("request_id = ?", string(found.RequestID)))
		if err == nil && changed.RowsAffected == 0 {
			return &billing.Error{
				Code: billing.CodeChargeNotUnresolved, Charge: resolved,
				Detail: fmt.Sprintf("the charge of %s is %s; only an unresolved one is resolved, and a settled one corrected", r.Period, resolved.Status),
			}
		}
		if err != nil {
			return err
		}
		return insertAudit(tx, now, verdict{"charge.resolve", r.Outcome, r.By, r.Note}.about(*found))
	})
	return resolved, err
}

// Charges reads the subscription's charges, the newest first.
func (s *Store) Charges(ctx context.Context, subscriptionID string) ([]billing.Charge, error) {
	var rows []chargeRow
	err := s.read.WithContext(ctx).Where("subscription_id = ?", subscriptionID).
		Order("period DESC, created_at DESC, request_id DESC").Find(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("reading the charges: %w", err)
	}
	return chargesOf(rows)
}

// Charge reads the subscription's charge of the period: the one that stands, or else
// the newest that does not. It returns charge_not_found.
func (s *Store) Charge(ctx context.Context, subscriptionID string, p billing.Period) (*billing.Charge, error) {
	return newestCharge(s.read.WithContext(ctx), subscriptionID, p)
}

// ChargeByRequestID reads one row of the ledger, or returns charge_not_found.
func (s *Store) ChargeByRequestID(ctx context.Context, id billing.RequestID) (*billing.Charge, error) {
	c, err := readCharge(s.read.WithContext(ctx).Where("request_id = ?", string(id)))
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, billing.Errorf(billing.CodeChargeNotFound, "the ledger has no charge with request id %q", id)
	}
	return c, err
}

func newestCharge(tx *gorm.DB, subscriptionID string, p billing.Period) (*billing.Charge, error) {
	c, err := readCharge(tx.Where("subscription_id = ? AND period = ?", subscriptionID, p.String()).
		Order("CASE WHEN " + stands + " THEN 0 ELSE 1 END, created_at DESC, request_id DESC"))
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, billing.Errorf(billing.CodeChargeNotFound, "subscription %q has no charge in %s", subscriptionID, p)
	}
	return c, err
}

// chargeInProgress returns the charge for which a status change comes too late: pending or
// unresolved, of the earliest period; nil if there is none.
func chargeInProgress(tx *gorm.DB, subscriptionID string) (*billing.Charge, error) {
	c, err := readCharge(tx.Where("subscription_id = ? AND "+unsettled, subscriptionID).Order("period"))
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, nil
	}
	return c, err
}

func readCharge(scope *gorm.DB) (*billing.Charge, error) {
	var row chargeRow
	if err := scope.Take(&row).Error; err != nil {
		return nil, err
	}
	return row.charge()
}
