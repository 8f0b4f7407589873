package models

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"

	"drayman/billing"
)

// hasNoOpenCharge says of subscription s that nothing stands for @period.
const hasNoOpenCharge = `NOT EXISTS (SELECT 1 FROM charge l
	WHERE l.subscription_id = s.id AND l.period = @period AND l.status <> 'declined')`

// The same for a batch of a page, and that the run has not been declined for s
// before: a page that runs again must not take a decline for an invitation.
//
// A batch asks about few subscriptions while the ledger of the month grows under
// it, which PostgreSQL's planner cannot know: it takes the month for empty and
// reads all of it for each batch. So these leave it one way only, by the
// subscription's id: a count cannot become a join, and "|| ”" hides the other
// columns from their indexes. docs/performance.md has the figures.
const (
	notOpenYet = `(SELECT count(*) FROM charge l
		WHERE l.subscription_id = s.id AND l.period || '' = @period AND l.status <> 'declined') = 0`
	untried = `(SELECT count(*) FROM charge d
		WHERE d.subscription_id = s.id AND d.period || '' = @period AND d.run_id || '' = @run) = 0`
)

// ClaimPage claims the next batch of a page: those of the range that are due in
// the run, by the cut-off of its row, and have no charge yet. All claims are
// committed together before it returns. It returns run_not_found where the row is
// gone.
//
// Rows that another transaction holds are not waited for: they are LeftOver, for
// a workflow of their own. The rest stay locked from before their eligibility is
// read until the claims are committed, as in [Store.ClaimCharge].
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
			WHERE s.id COLLATE "C" > @after AND s.id COLLATE "C" <= @upto AND `+notOpenYet+` AND `+untried+` AND `+isDue+`
			ORDER BY s.id COLLATE "C" LIMIT @limit`), named...).Scan(&found).Error
		if err != nil {
			return fmt.Errorf("finding the next of a page: %w", err)
		}
		// Behind the search: it holds a lock of the ledger, which nobody can replace now.
		if replaced, err := s.replaced(tx, in.Incarnation); replaced || err != nil {
			page.Replaced = replaced
			return err
		}
		if err := s.mayCharge(tx, in.Installation); err != nil {
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
		// The time now, not that of the search: a cancel may have come in between.
		if now, err = s.now(tx); err != nil {
			return err
		}
		charges, err := s.claimable(tx, in, locked, run.CutOff, now)
		if err != nil {
			return err
		}
		page.Charges, err = s.insertClaims(tx, charges)
		page.LeftOver = leftOver(found, locked, charges, page.Charges)
		return err
	})
	return page, err
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

// claimable makes the charges of those that are due, now that they are locked, and
// that the shop can be asked about.
func (s *Store) claimable(tx *gorm.DB, in billing.PageClaim, ids []string, cutOff, now time.Time) ([]billing.Charge, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []struct {
		ID              string
		ClubID          int
		CustomerStoreID string
		StoreSKU        int `gorm:"column:store_sku"`
		Declined        int
	}
	err := tx.Raw(s.sql(`SELECT s.id, s.club_id, s.customer_store_id AS customer_store_id, k.store_sku AS store_sku, (SELECT count(*) FROM charge d
				WHERE d.subscription_id = s.id AND d.period || '' = @period AND d.run_id IS NOT NULL) AS declined
			FROM subscription s JOIN club k ON k.id = s.club_id
			WHERE s.id IN @ids AND `+isChargeable+` AND `+notOpenYet+` AND `+untried+` AND `+isDue),
		append(pageArguments(in, cutOff, now), sql.Named("ids", ids))...).Scan(&rows).Error
	charges := make([]billing.Charge, 0, len(rows))
	for _, r := range rows {
		if billing.IsBlank(r.CustomerStoreID) {
			continue // SQL knows fewer blanks
		}
		charge := billing.Charge{
			RequestID:      billing.DerivedRequestID(in.Period, r.ID, r.Declined+1),
			SubscriptionID: r.ID, Period: in.Period, Status: billing.Pending, Owner: in.Owner, ClaimedUntil: now.Add(in.HeldFor),
			RunID: in.RunID, ClubID: r.ClubID, CustomerID: r.CustomerStoreID, SKU: r.StoreSKU, CreatedAt: now,
		}
		if !in.IdempotentShop {
			charge.SentAt = now
		}
		charges = append(charges, charge)
	}
	return charges, err
}

// isChargeable says of subscription s and its club k that the shop can be asked.
const isChargeable = `COALESCE(s.customer_store_id, '') <> '' AND k.store_sku IS NOT NULL`

// leftOver returns those found that were neither locked, or were claimable and
// yet not claimed. Who is no longer eligible is not among them.
func leftOver(found, locked []string, claimable, claimed []billing.Charge) []string {
	var left []string
	for _, id := range found {
		if !slices.Contains(locked, id) {
			left = append(left, id)
		}
	}
	if len(claimable) == len(claimed) {
		return left
	}
	have := map[string]bool{}
	for _, c := range claimed {
		have[c.SubscriptionID] = true
	}
	for _, c := range claimable {
		if !have[c.SubscriptionID] {
			left = append(left, c.SubscriptionID)
		}
	}
	return left
}

// batchRow is a charge as it crosses into SQL, many at once, as one JSON text.
type batchRow struct {
	RequestID      string     `json:"request_id"`
	SubscriptionID string     `json:"subscription_id"`
	Period         string     `json:"period"`
	Status         string     `json:"status"`
	Owner          string     `json:"owner"`
	ClaimedUntil   *timestamp `json:"claimed_until"`
	SentAt         *timestamp `json:"sent_at"`
	Attempts       int        `json:"attempts"`
	RunID          string     `json:"run_id"`
	ClubID         *int       `json:"club_id"`
	CustomerID     string     `json:"customer_id"`
	SKU            int        `json:"sku_id"`
	ShopOrder      *string    `json:"shop_order"`
	FailureCode    *string    `json:"failure_code"`
	FailureDetail  *string    `json:"failure_detail"`
	CreatedAt      timestamp  `json:"created_at"`
}

// batchColumns are the names and types of batchRow, for json_to_recordset.
var batchColumns = []struct{ name, kind string }{
	{"request_id", "text"},
	{"subscription_id", "text"},
	{"period", "text"},
	{"status", "text"},
	{"owner", "text"},
	{"claimed_until", "timestamp"},
	{"sent_at", "timestamp"},
	{"attempts", "integer"},
	{"run_id", "text"},
	{"club_id", "integer"},
	{"customer_id", "text"},
	{"sku_id", "integer"},
	{"shop_order", "text"},
	{"failure_code", "text"},
	{"failure_detail", "text"},
	{"created_at", "timestamp"},
}

// batch is the FROM clause that turns the argument @batch into rows named b, and
// that argument.
func (s *Store) batch(charges []billing.Charge) (string, any, error) {
	rows := make([]batchRow, 0, len(charges))
	for i := range charges {
		r := newChargeRow(&charges[i])
		rows = append(rows, batchRow{
			r.RequestID, r.SubscriptionID, r.Period, r.Status, r.Owner, r.ClaimedUntil, r.SentAt, r.Attempts, valueOf(r.RunID),
			r.ClubID, r.CustomerID, r.SKUID, r.ShopOrder, r.FailureCode, r.FailureDetail, r.CreatedAt,
		})
	}
	text, err := json.Marshal(rows)
	names := make([]string, 0, len(batchColumns))
	for _, c := range batchColumns {
		if s.dialect == SQLite {
			names = append(names, fmt.Sprintf("value ->> '%s' AS %s", c.name, c.name))
		} else {
			names = append(names, c.name+" "+c.kind)
		}
	}
	columns := strings.Join(names, ", ")
	if s.dialect == SQLite {
		return "(SELECT " + columns + " FROM json_each(@batch)) AS b", sql.Named("batch", string(text)), err
	}
	return "json_to_recordset(@batch) AS b(" + columns + ")", sql.Named("batch", string(text)), err
}

// insertClaims inserts the claims and returns those that it could: a request id
// that is taken by something else is left out.
func (s *Store) insertClaims(tx *gorm.DB, charges []billing.Charge) ([]billing.Charge, error) {
	if len(charges) == 0 {
		return nil, nil
	}
	from, argument, err := s.batch(charges)
	if err != nil {
		return nil, err
	}
	const columns = `request_id, subscription_id, period, status, owner, claimed_until, sent_at, attempts, run_id, club_id, customer_id, sku_id, created_at`
	var inserted []string
	err = tx.Raw(`INSERT INTO charge (`+columns+`) SELECT `+columns+` FROM `+from+` WHERE true
		ON CONFLICT DO NOTHING RETURNING request_id`, argument).Scan(&inserted).Error
	if err != nil {
		return nil, fmt.Errorf("claiming a page: %w", err)
	}
	return among(charges, inserted), nil
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

// OwnClaims returns the charges that the owner has claimed in the run and not
// settled: what a page that died or was stopped has left to its next try.
func (s *Store) OwnClaims(ctx context.Context, runID, owner string) ([]billing.Charge, error) {
	var rows []chargeRow
	err := s.read.WithContext(ctx).Where("run_id = ? AND status = 'pending' AND owner = ?", runID, owner).Order("request_id").Find(&rows).Error
	if err != nil {
		return nil, err
	}
	return chargesOf(rows)
}

// HoldClaims holds those of the owner's claims again that it still has, and returns
// their request ids: nobody takes over what it is about to ask for.
func (s *Store) HoldClaims(ctx context.Context, owner string, ids []billing.RequestID, heldFor time.Duration) ([]billing.RequestID, error) {
	var held []billing.RequestID
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		return tx.Raw(`UPDATE charge SET claimed_until = `+s.asTimestamp("@until")+`
			WHERE request_id IN @ids AND status = 'pending' AND owner = @owner RETURNING request_id`,
			sql.Named("until", timestamp{now.Add(heldFor)}), sql.Named("ids", ids), sql.Named("owner", owner)).Scan(&held).Error
	})
	return held, err
}

// SettlePage records how the claims of a page ended, all in one statement. One
// that is still pending was surely not ordered, or the shop is idempotent: it is
// let go, so that a workflow can take it over at once; but not where somebody has
// got leave to send it since. A row that is missing is
// written anew, as by [Store.SettleCharge].
func (s *Store) SettlePage(ctx context.Context, charges []billing.Charge) error {
	if len(charges) == 0 {
		return nil
	}
	from, argument, err := s.batch(charges)
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
				sent_at = CASE b.status WHEN 'pending' THEN NULL ELSE charge.sent_at END,
				settled_at = CASE b.status WHEN 'pending' THEN NULL ELSE `+s.asTimestamp("@now")+` END
			FROM `+from+`
			WHERE charge.request_id = b.request_id AND charge.subscription_id = b.subscription_id AND charge.period = b.period
				AND charge.status IN ('pending', 'unresolved')
				AND (b.status <> 'pending' OR charge.status = 'pending' AND charge.owner = b.owner AND charge.sent_at IS NOT DISTINCT FROM b.sent_at)
			RETURNING charge.request_id`, argument, sql.Named("now", timestamp{now})).Scan(&settled).Error
	})
	if err != nil {
		return fmt.Errorf("settling a page: %w", err)
	}
	return s.settleMissing(ctx, charges, settled)
}

// preferKeyLookups has PostgreSQL find each row of a batch by its primary key,
// whatever it believes of a table that was empty a moment ago.
func (s *Store) preferKeyLookups(tx *gorm.DB) error {
	if s.dialect == SQLite {
		return nil
	}
	return tx.Exec("SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off").Error
}

// asTimestamp gives a text argument its type, where nothing else tells it.
func (s *Store) asTimestamp(argument string) string {
	if s.dialect == SQLite {
		return argument
	}
	return "CAST(" + argument + " AS timestamp)"
}

// settleMissing settles one by one what the statement for all did not find. A
// ledger_conflict comes last, when all that can be is settled.
func (s *Store) settleMissing(ctx context.Context, charges []billing.Charge, settled []string) (conflicts error) {
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
		_, err := s.SettleCharge(ctx, c)
		if err != nil && billing.CodeOf(err) != billing.CodeLedgerConflict {
			return err
		}
		conflicts = errors.Join(conflicts, err)
	}
	return conflicts
}
