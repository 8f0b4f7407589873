package models

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"

	"drayman/billing"
)

// ClaimPage claims the next batch of a page: those of the range that are due in
// the run, by the cut-off of its row, and have no charge yet. All claims are
// committed together before it returns. It returns run_not_found if the run's row is gone,
// and database_replaced if the database is not the one with which the run began.
//
// A second attempt, after a decline or a withdrawal, is claimed for a workflow of its own. Pages make first
// attempts only, because Temporal does not remember theirs one by one (decision 0019).
//
// It does not wait for rows that another transaction has locked: it counts them as Locked,
// and the run comes back for them. It locks the others before it reads their eligibility,
// until the claims are committed, as in [Store.ClaimCharge].
func (s *Store) ClaimPage(ctx context.Context, in billing.PageClaim) (billing.PageClaimed, error) {
	var page billing.PageClaimed
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		page = billing.PageClaimed{}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		run, err := readRun(tx.Where("id = ?", in.RunID))
		if err != nil {
			return err
		}
		named := pageArguments(in, run.CutOff, now)
		var found []string
		err = tx.Raw(s.sql(`SELECT s.id FROM subscription s
			WHERE s.id COLLATE "C" > @after AND s.id COLLATE "C" <= @upto AND `+isUntried+` AND `+isDue+`
			ORDER BY s.id COLLATE "C" LIMIT @limit`), named...).Scan(&found).Error
		if err != nil {
			return fmt.Errorf("finding the next of a page: %w", err)
		}
		// After the search, which has locked the ledger: nobody can replace it now.
		if err := s.mayCharge(tx, in.Installation, in.Recalled); err != nil {
			return err
		}
		page.Cursor, page.Done = in.UpTo, len(found) < in.Limit
		if !page.Done {
			page.Cursor = found[len(found)-1]
		}
		if len(found) == 0 {
			return nil
		}
		locked, err := s.lockFree(tx, found)
		if err != nil {
			return err
		}
		// The time now, not that of the search: a status may have changed in between.
		if now, err = s.now(tx); err != nil {
			return err
		}
		charges, err := s.claimable(tx, in, locked, run.CutOff, now)
		if err != nil {
			return err
		}
		page.Locked = len(found) - len(locked)
		claimed, err := s.insertClaims(tx, charges)
		page.Charges = slices.DeleteFunc(claimed, func(c billing.Charge) bool { return !in.Unheld && c.Owner == billing.Nobody })
		return err
	})
	if err != nil {
		return billing.PageClaimed{}, err
	}
	return page, nil
}

func pageArguments(in billing.PageClaim, cutOff, now time.Time) []any {
	return []any{
		sql.Named("after", in.After), sql.Named("upto", in.UpTo), sql.Named("limit", in.Limit),
		sql.Named("period", in.Period.String()), sql.Named("run", in.RunID), sql.Named("at", timestamp{now}), sql.Named("cutoff", timestamp{cutOff}),
	}
}

// lockFree locks the subscriptions that nobody else holds and returns their ids.
func (s *Store) lockFree(tx *gorm.DB, ids []string) ([]string, error) {
	if s.dialect == SQLite {
		return ids, nil
	}
	var locked []string
	err := tx.Raw(`SELECT id FROM subscription WHERE id IN ? ORDER BY id COLLATE "C" FOR UPDATE SKIP LOCKED`, ids).Scan(&locked).Error
	return locked, err
}

// claimable makes the charges of the locked subscriptions that are still due, if the shop
// can be asked for them.
func (s *Store) claimable(tx *gorm.DB, in billing.PageClaim, ids []string, cutOff, now time.Time) ([]billing.Charge, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []struct {
		ID              string
		ClubID          int
		CustomerStoreID string
		StoreSKU        int `gorm:"column:store_sku"`
		Tried           int // rows of runs
		StatusRow       string
		ClubStatusRow   string
	}
	// The clubs are few: their rows are found once.
	err := tx.Raw(s.sql(`WITH decided AS MATERIALIZED (SELECT c.id AS club_id, `+clubStatusRowAt+` AS row_id FROM club c)
			SELECT s.id, s.club_id, s.customer_store_id AS customer_store_id, k.store_sku AS store_sku,
				`+subscriptionStatusRowAt+` AS status_row, j.row_id AS club_status_row,
				(SELECT count(*) FROM charge d WHERE d.subscription_id = s.id AND d.period = @period AND d.run_id IS NOT NULL) AS tried
			FROM subscription s JOIN club k ON k.id = s.club_id JOIN decided j ON j.club_id = s.club_id
			WHERE s.id IN @ids AND `+isChargeable+` AND `+isUntried+` AND `+isDue),
		append(pageArguments(in, cutOff, now), sql.Named("ids", ids))...).Scan(&rows).Error
	charges := make([]billing.Charge, 0, len(rows))
	for _, r := range rows {
		if billing.IsBlank(r.CustomerStoreID) {
			continue // SQL knows fewer blanks
		}
		charge := billing.Charge{
			RequestID:      billing.DerivedRequestID(in.Period, r.ID, r.Tried+1),
			SubscriptionID: r.ID, Period: in.Period, Status: billing.Pending, Owner: in.Owner,
			RunID: in.RunID, ClubID: r.ClubID, CustomerID: r.CustomerStoreID, SKU: r.StoreSKU, CreatedAt: now,
			Installation: in.Installation, StatusRow: r.StatusRow, ClubStatusRow: r.ClubStatusRow,
		}
		if in.Unheld || r.Tried > 0 {
			charge.Owner = billing.Nobody
		} else {
			charge.ClaimedUntil, charge.SentAt = now.Add(in.HeldFor), now
		}
		charges = append(charges, charge)
	}
	return charges, err
}

// batch is the FROM clause that turns the argument @batch into rows named b, and
// that argument: the rows, which are structs, as one JSON text.
func batch[T any](s *Store, rows []T) (string, any, error) {
	text, err := json.Marshal(rows)
	if s.dialect == SQLite {
		return "(SELECT " + strings.Join(batchColumns(reflect.TypeFor[T](), func(name, _ string) string {
			return fmt.Sprintf("value ->> '%s' AS %s", name, name)
		}), ", ") + " FROM json_each(@batch)) AS b", sql.Named("batch", string(text)), err
	}
	return "json_to_recordset(@batch) AS b(" + strings.Join(batchColumns(reflect.TypeFor[T](), func(name, kind string) string {
		return name + " " + kind
	}), ", ") + ")", sql.Named("batch", string(text)), err
}

// batchColumns lists the columns of a struct, by their names in JSON, with
// PostgreSQL's types.
func batchColumns(of reflect.Type, column func(name, kind string) string) (columns []string) {
	for _, field := range reflect.VisibleFields(of) {
		if field.Anonymous {
			continue
		}
		kind := "text"
		switch t := field.Type; {
		case t == reflect.TypeFor[timestamp](), t == reflect.TypeFor[*timestamp]():
			kind = "timestamp"
		case t == reflect.TypeFor[int](), t == reflect.TypeFor[*int]():
			kind = "integer"
		case t == reflect.TypeFor[bool]():
			kind = "boolean"
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		columns = append(columns, column(name, kind))
	}
	return columns
}

// insertClaims inserts the claims and returns them as they were inserted. If a derived
// request id is in use, the claim takes the next one. A claim is passed over if a charge of
// the subscription stands by now, or all derived request ids are in use.
func (s *Store) insertClaims(tx *gorm.DB, charges []billing.Charge) (claimed []billing.Charge, err error) {
	for len(charges) > 0 {
		inserted, err := s.insertNew(tx, charges)
		if err != nil {
			return nil, err
		}
		claimed = append(claimed, inserted...)
		if charges, err = renamed(tx, without(charges, inserted)); err != nil {
			return nil, err
		}
	}
	return claimed, nil
}

// insertNew inserts the claims whose request id and place in the month are free, and returns
// them.
func (s *Store) insertNew(tx *gorm.DB, charges []billing.Charge) ([]billing.Charge, error) {
	rows := make([]chargeRow, 0, len(charges))
	for i := range charges {
		rows = append(rows, newChargeRow(&charges[i]))
	}
	from, argument, err := batch(s, rows)
	if err != nil {
		return nil, err
	}
	const columns = `request_id, subscription_id, period, status, owner, claimed_until, sent_at, attempts, run_id, installation,
		status_row_id, club_status_row_id, club_id, customer_id, sku_id, created_at`
	var inserted []string
	err = tx.Raw(`INSERT INTO charge (`+columns+`) SELECT `+columns+` FROM `+from+` WHERE true
		ON CONFLICT DO NOTHING RETURNING request_id`, argument).Scan(&inserted).Error
	if err != nil {
		return nil, fmt.Errorf("claiming a page: %w", err)
	}
	return among(charges, inserted), nil
}

// without returns the charges that are not among the others.
func without(charges, others []billing.Charge) []billing.Charge {
	if len(charges) == len(others) {
		return nil
	}
	have := map[billing.RequestID]bool{}
	for _, c := range others {
		have[c.RequestID] = true
	}
	return slices.DeleteFunc(slices.Clone(charges), func(c billing.Charge) bool { return have[c.RequestID] })
}

// renamed gives claims the next derived request ids. It leaves out those whose subscription
// has a charge that stands.
func renamed(tx *gorm.DB, charges []billing.Charge) (next []billing.Charge, err error) {
	for _, c := range charges {
		var standing int64
		err := tx.Model(&chargeRow{}).Where("subscription_id = ? AND period = ? AND "+stands, c.SubscriptionID, c.Period.String()).Count(&standing).Error
		if err != nil {
			return nil, err
		}
		if standing > 0 {
			continue
		}
		c.RequestID, err = nextDerivedID(tx, c.Period, c.SubscriptionID)
		switch {
		case errors.Is(err, errNoDerivedID):
			continue
		case err != nil:
			return nil, err
		}
		next = append(next, c)
	}
	return next, nil
}

// among returns the charges with these request ids.
func among(charges []billing.Charge, requestIDs []string) []billing.Charge {
	if len(charges) == len(requestIDs) {
		return charges
	}
	wanted := map[string]bool{}
	for _, id := range requestIDs {
		wanted[id] = true
	}
	return slices.DeleteFunc(slices.Clone(charges), func(c billing.Charge) bool { return !wanted[string(c.RequestID)] })
}

// OwnClaims returns the charges that the owner has claimed in the run and not settled: the
// next try of a page that died or was stopped begins with them.
func (s *Store) OwnClaims(ctx context.Context, runID, owner string) ([]billing.Charge, error) {
	var rows []chargeRow
	err := s.read.WithContext(ctx).Where("run_id = ? AND status = 'pending' AND owner = ?", runID, owner).Order("request_id").Find(&rows).Error
	if err != nil {
		return nil, err
	}
	return chargesOf(rows)
}

// HoldClaims holds again the claims that the page still owns, and returns their request ids.
// Nobody takes over then what the page is about to order.
func (s *Store) HoldClaims(ctx context.Context, in billing.PageClaim, ids []billing.RequestID) ([]billing.RequestID, error) {
	var held []billing.RequestID
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		if err := s.mayCharge(tx, in.Installation, in.Recalled); err != nil {
			return err
		}
		return tx.Raw(`UPDATE charge SET claimed_until = `+s.asTimestamp("@until")+`
			WHERE request_id IN @ids AND status = 'pending' AND owner = @owner RETURNING request_id`,
			sql.Named("until", timestamp{now.Add(in.HeldFor)}), sql.Named("ids", ids), sql.Named("owner", in.Owner)).Scan(&held).Error
	})
	return held, err
}

// settledRow is a row of a page that is to be settled.
type settledRow struct {
	chargeRow
	NotOrdered bool `json:"not_ordered"`
}

// SettlePage records how the claims of a page ended, all in one statement. A claim that is
// still pending is held no longer, so that a workflow can take it over at once. With letGo
// it becomes nobody's, and the sweep starts that workflow; else it stays the page's. Its
// sent_at is cleared if the page knows that nothing was ordered. A claim that is
// still pending does not change if its sent_at is no longer the one that the page knows. A missing row is written anew, as by
// [Store.SettleCharge].
func (s *Store) SettlePage(ctx context.Context, charges []billing.PlacedCharge, letGo bool) error {
	if len(charges) == 0 {
		return nil
	}
	rows := make([]settledRow, 0, len(charges))
	for i := range charges {
		rows = append(rows, settledRow{newChargeRow(&charges[i].Charge), charges[i].NotOrdered})
	}
	from, argument, err := batch(s, rows)
	if err != nil {
		return err
	}
	var settled []string
	err = s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		if err := s.preferKeyLookups(tx); err != nil {
			return err
		}
		return tx.Raw(`UPDATE charge SET status = b.status, attempts = b.attempts, shop_order = b.shop_order,
				failure_code = b.failure_code, failure_detail = b.failure_detail, claimed_until = NULL,
				owner = CASE WHEN b.status = 'pending' AND `+onlyIf(letGo)+` THEN @nobody ELSE charge.owner END,
				sent_at = CASE WHEN b.status = 'pending' AND b.not_ordered THEN NULL ELSE charge.sent_at END,
				settled_at = CASE b.status WHEN 'pending' THEN NULL ELSE `+s.asTimestamp("@now")+` END
			FROM `+from+`
			WHERE charge.request_id = b.request_id AND charge.subscription_id = b.subscription_id AND charge.period = b.period
				AND charge.`+unsettled+`
				AND (b.status <> 'pending' OR charge.status = 'pending' AND charge.owner = b.owner AND charge.sent_at IS NOT DISTINCT FROM b.sent_at)
			RETURNING charge.request_id`, argument, sql.Named("now", timestamp{now}), sql.Named("nobody", billing.Nobody)).Scan(&settled).Error
	})
	if err != nil {
		return fmt.Errorf("settling a page: %w", err)
	}
	return s.settleMissing(ctx, charges, settled)
}

// settleMissing settles one by one what the statement for all did not find. It settles all
// that it can before it returns a ledger_conflict.
func (s *Store) settleMissing(ctx context.Context, charges []billing.PlacedCharge, settled []string) (conflicts error) {
	if len(settled) == len(charges) {
		return nil
	}
	done := map[string]bool{}
	for _, id := range settled {
		done[id] = true
	}
	for _, c := range charges {
		if done[string(c.RequestID)] || c.Status == billing.Pending {
			continue
		}
		_, err := s.SettleCharge(ctx, c.Charge)
		if err != nil && billing.CodeOf(err) != billing.CodeLedgerConflict {
			return err
		}
		conflicts = errors.Join(conflicts, err)
	}
	return conflicts
}
