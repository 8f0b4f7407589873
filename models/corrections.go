package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm"

	"drayman/billing"
)

// verdict is what a person has said about a charge.
type verdict struct {
	action   string // in the audit
	outcome  billing.ChargeStatus
	by, note string
}

// verdictDetail is what a verdict changed. Before is the charge before it, without the
// shop's answer, which stays in the ledger.
type verdictDetail struct {
	From   billing.ChargeStatus `json:"from"`
	To     billing.ChargeStatus `json:"to"`
	Before billing.Charge       `json:"before"`
}

// about is the verdict's audit entry.
func (v verdict) about(before billing.Charge) billing.AuditEntry {
	before.Order = nil
	return billing.AuditEntry{
		Actor: v.by, Action: v.action, Subject: "charge/" + string(before.RequestID), Reason: v.note,
		Detail: verdictDetail{From: before.Status, To: v.outcome, Before: before},
	}
}

// correctionTries bounds how often a correction looks again because another charge took the
// place in the month that it needs.
const correctionTries = 3

// Correct changes settled charges to the outcome that a person says they had: all of
// them or none, with an audit entry for each that changes. One that has the outcome
// already stays as it is, so correcting twice is harmless. It returns the charges as
// they stand, in the order of the request ids, each once. The shop is not asked.
//
// A charge that is corrected to declined keeps the shop's answer, and leaves its
// subscription's month free. One that is corrected to charged needs it free.
//
// It returns validation_failed, charge_not_found, charge_not_settled with the charge,
// or charge_stands with the other charge of the subscription and period.
func (s *Store) Correct(ctx context.Context, c billing.Correction) (corrected []billing.Charge, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	for range correctionTries {
		err = s.inTransaction(ctx, func(tx *gorm.DB) error {
			corrected, err = s.correct(tx, c)
			return err
		})
		if !errors.Is(err, ErrClaimRaced) {
			return corrected, err
		}
	}
	return nil, err
}

func (s *Store) correct(tx *gorm.DB, c billing.Correction) ([]billing.Charge, error) {
	charges, err := s.lockCharges(tx, c)
	if err != nil {
		return nil, err
	}
	now, err := s.now(tx)
	if err != nil {
		return nil, err
	}
	var ids []billing.RequestID
	var entries []billing.AuditEntry
	for _, charge := range charges {
		if err := correctable(charge); err != nil {
			return nil, err
		}
		if charge.Status != c.Outcome {
			ids = append(ids, charge.RequestID)
			entries = append(entries, verdict{"charge.correct", c.Outcome, c.By, c.Note}.about(charge))
		}
	}
	if len(ids) == 0 {
		return charges, nil
	}
	if err := othersStand(tx, c.Outcome, charges); err != nil {
		return nil, err
	}
	changes := map[string]any{
		"status": string(c.Outcome), "settled_at": timestamp{now}, "failure_code": nil, "failure_detail": nil,
		"resolved_by": orNull(c.By), "resolved_note": c.Note,
	}
	if c.Outcome == billing.Declined {
		changes["failure_code"], changes["failure_detail"] = billing.FailureCorrected, c.Note
	}
	written := tx.Model(&chargeRow{}).Where("request_id IN ?", ids).Updates(changes)
	switch {
	case errors.Is(written.Error, gorm.ErrDuplicatedKey), written.Error == nil && written.RowsAffected < int64(len(ids)):
		return nil, ErrClaimRaced // somebody put a row back, or deleted one, without the lock
	case written.Error != nil:
		return nil, fmt.Errorf("correcting charges: %w", written.Error)
	}
	if err := insertAudit(tx, now, entries...); err != nil {
		return nil, err
	}
	return readCharges(tx, requestIDs(charges))
}

// lockCharges returns the charges that the correction names. It locks their
// subscriptions, as a claim does, and then the settled rows: if a subscription is gone,
// these are all there is to lock.
func (s *Store) lockCharges(tx *gorm.DB, c billing.Correction) ([]billing.Charge, error) {
	if len(c.RequestIDs) == 0 {
		if err := s.lockSubscription(tx, c.SubscriptionID); err != nil {
			return nil, err
		}
		only, err := onlySettled(tx, c)
		if err != nil {
			return nil, err
		}
		c.RequestIDs = []billing.RequestID{only.RequestID}
	}
	var subscriptions []string
	err := tx.Model(&chargeRow{}).Where("request_id IN ?", c.RequestIDs).Distinct().Pluck("subscription_id", &subscriptions).Error
	if err != nil {
		return nil, fmt.Errorf("reading charges: %w", err)
	}
	if err := s.lockSubscriptions(tx, subscriptions); err != nil {
		return nil, err
	}
	if s.dialect == Postgres {
		var locked []string
		err := tx.Raw(`SELECT request_id FROM charge WHERE request_id IN ? AND `+settled+`
			ORDER BY request_id FOR UPDATE`, c.RequestIDs).Scan(&locked).Error
		if err != nil {
			return nil, fmt.Errorf("locking charges: %w", err)
		}
	}
	return named(tx, c)
}

// named reads the charges under the correction's request ids.
func named(tx *gorm.DB, c billing.Correction) ([]billing.Charge, error) {
	charges, err := readCharges(tx, c.RequestIDs)
	if err != nil {
		return nil, err
	}
	charges = slices.DeleteFunc(charges, func(charge billing.Charge) bool {
		return c.SubscriptionID != "" && (charge.SubscriptionID != c.SubscriptionID || charge.Period != c.Period)
	})
	missing := slices.DeleteFunc(slices.Clone(c.RequestIDs), func(id billing.RequestID) bool {
		return slices.ContainsFunc(charges, func(charge billing.Charge) bool { return charge.RequestID == id })
	})
	if len(missing) > 0 {
		where := ""
		if c.SubscriptionID != "" {
			where = fmt.Sprintf(" of subscription %q in %s", c.SubscriptionID, c.Period)
		}
		return nil, billing.Errorf(billing.CodeChargeNotFound, "there is no charge%s with the request id %s", where, enumerate(missing))
	}
	return charges, nil
}

// onlySettled reads the charge that a correction without request ids means.
func onlySettled(tx *gorm.DB, c billing.Correction) (*billing.Charge, error) {
	var ids []billing.RequestID
	err := tx.Model(&chargeRow{}).Order("created_at, request_id").
		Where("subscription_id = ? AND period = ? AND "+settled, c.SubscriptionID, c.Period.String()).
		Pluck("request_id", &ids).Error
	if err != nil {
		return nil, fmt.Errorf("reading the charges: %w", err)
	}
	if len(ids) > 1 {
		return nil, billing.Invalid("request_id", "must be given, the period has several charges: "+enumerate(ids))
	}
	return newestCharge(tx, c.SubscriptionID, c.Period)
}

func correctable(c billing.Charge) error {
	instead := ""
	switch c.Status {
	case billing.Charged, billing.Declined:
		return nil
	case billing.Pending:
		instead = "wait for its outcome"
	case billing.Unresolved:
		instead = "resolve it"
	case billing.Withdrawn:
		instead = "nothing was ordered under it, and nothing will be"
	}
	return &billing.Error{
		Code: billing.CodeChargeNotSettled, Charge: &c,
		Detail: fmt.Sprintf("the charge under the request id %s is %s; %s", c.RequestID, c.Status, instead),
	}
}

// othersStand returns charge_stands if one of the charges cannot become charged because
// of another of its subscription and period, in the ledger or among them.
func othersStand(tx *gorm.DB, outcome billing.ChargeStatus, charges []billing.Charge) error {
	if outcome == billing.Declined {
		return nil
	}
	type month struct{ subscription, period string }
	takes := map[month]billing.Charge{}
	var subscriptions []string
	for _, c := range charges {
		its := month{c.SubscriptionID, c.Period.String()}
		if other, taken := takes[its]; taken {
			return &billing.Error{
				Code: billing.CodeChargeStands, Charge: &other,
				Detail: fmt.Sprintf("the request ids %s and %s are of one subscription and period: only one charge of them can be charged", other.RequestID, c.RequestID),
			}
		}
		takes[its] = c
		subscriptions = append(subscriptions, c.SubscriptionID)
	}
	var rows []chargeRow
	err := tx.Where("subscription_id IN ? AND "+stands, subscriptions).Find(&rows).Error
	if err != nil {
		return fmt.Errorf("looking for charges that stand: %w", err)
	}
	for _, r := range rows {
		c, taken := takes[month{r.SubscriptionID, r.Period}]
		if !taken || string(c.RequestID) == r.RequestID {
			continue
		}
		other, err := r.charge()
		if err != nil {
			return err
		}
		return anotherStands(c, *other)
	}
	return nil
}

func anotherStands(c, other billing.Charge) error {
	return &billing.Error{
		Code: billing.CodeChargeStands, Charge: &other,
		Detail: fmt.Sprintf("the charge under the request id %s cannot become charged: the one under %s is %s, for the same subscription and %s",
			c.RequestID, other.RequestID, other.Status, c.Period),
	}
}

// readCharges returns the charges that there are, in the order of the request ids.
func readCharges(tx *gorm.DB, ids []billing.RequestID) ([]billing.Charge, error) {
	var rows []chargeRow
	if err := tx.Where("request_id IN ?", ids).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("reading charges: %w", err)
	}
	position := map[string]int{}
	for i, id := range ids {
		position[string(id)] = i
	}
	slices.SortFunc(rows, func(a, b chargeRow) int { return position[a.RequestID] - position[b.RequestID] })
	return chargesOf(rows)
}

func requestIDs(charges []billing.Charge) []billing.RequestID {
	ids := make([]billing.RequestID, 0, len(charges))
	for _, c := range charges {
		ids = append(ids, c.RequestID)
	}
	return ids
}

// enumerate names the request ids, the first ten of many.
func enumerate(ids []billing.RequestID) string {
	const most = 10
	var names []string
	for _, id := range ids[:min(len(ids), most)] {
		names = append(names, string(id))
	}
	text := strings.Join(names, ", ")
	if more := len(ids) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
