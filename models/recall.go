package models

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"drayman/billing"
)

// Incarnation tells the database from any other that takes its place: a backup
// that was restored, a standby that lacks the last second. It changes also where
// nothing is lost: on PostgreSQL when the server restarts or the ledger is
// rewritten; on SQLite when a worker starts ([Store.Mark]) or the schema changes.
func (s *Store) Incarnation(ctx context.Context) (string, error) {
	return s.incarnation(s.read.WithContext(ctx))
}

func (s *Store) incarnation(tx *gorm.DB) (string, error) {
	query := `SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()), oid, pg_relation_filenode('charge'))
		FROM pg_database WHERE datname = current_database()`
	if s.dialect == SQLite {
		query = "SELECT user_version || '/' || schema_version FROM pragma_user_version, pragma_schema_version"
	}
	var incarnation string
	if err := tx.Raw(query).Row().Scan(&incarnation); err != nil {
		return "", fmt.Errorf("asking which database this is: %w", err)
	}
	return incarnation, nil
}

// Mark makes the database another incarnation where no server would tell that it is
// one: SQLite, whose file may be put back while the worker that starts was away.
func (s *Store) Mark(ctx context.Context) error {
	if s.dialect != SQLite {
		return nil
	}
	return s.write.WithContext(ctx).Exec(fmt.Sprintf("PRAGMA user_version = %d", rand.Int32())).Error
}

// FreeClaims is for a run of which no page is at work: what its pages, or those of
// earlier runs, have claimed and surely not sent, or to an idempotent shop, is free to
// be taken over. It returns run_not_found where the run is gone. Where the shop is not
// idempotent, claims stay held as long as a page that is cut off from Temporal could
// still send them: their orders would be settled by a person before they are placed.
func (s *Store) FreeClaims(ctx context.Context, run billing.Run) error {
	return s.inTransaction(ctx, func(tx *gorm.DB) error {
		if _, err := readRun(tx.Where("id = ?", run.ID)); err != nil {
			return err
		}
		return tx.Model(&chargeRow{}).
			Where("period = ? AND status = 'pending' AND claimed_until IS NOT NULL AND sent_at IS NULL", run.Period.String()).
			Update("claimed_until", nil).Error
	})
}

// NewestOpen returns when the newest charge of the period was made that is pending or
// unresolved; now, if there is none. The clock may have been another server's.
func (s *Store) NewestOpen(ctx context.Context, period billing.Period) (time.Time, error) {
	tx := s.read.WithContext(ctx)
	var newest *timestamp
	err := tx.Raw("SELECT max("+s.time("created_at")+") FROM charge WHERE period = ? AND "+unsettled, period.String()).Row().Scan(&newest)
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for the newest open charge: %w", err)
	}
	if newest == nil {
		return s.now(tx)
	}
	return newest.Time, nil
}

// Replaced says that the database is no longer the known incarnation; without a
// known one it cannot tell.
func (s *Store) Replaced(ctx context.Context, known string) (bool, error) {
	return s.replaced(s.read.WithContext(ctx), known)
}

func (s *Store) replaced(tx *gorm.DB, known string) (bool, error) {
	if known == "" {
		return false, nil
	}
	incarnation, err := s.incarnation(tx)
	return err == nil && incarnation != known, err
}

// Standing returns how the charges of the subscriptions in the period stand,
// without those that do not stand.
func (s *Store) Standing(ctx context.Context, period billing.Period, ids []string) (map[string]billing.ChargeStatus, error) {
	standing := map[string]billing.ChargeStatus{}
	if len(ids) == 0 {
		return standing, nil
	}
	var found []struct {
		SubscriptionID string
		Status         string
	}
	err := s.read.WithContext(ctx).Raw(`SELECT subscription_id, status FROM charge
		WHERE subscription_id IN @ids AND period = @period AND `+stands,
		sql.Named("ids", ids), sql.Named("period", period.String())).Scan(&found).Error
	if err != nil {
		return nil, fmt.Errorf("looking for charges that stand: %w", err)
	}
	for _, c := range found {
		standing[c.SubscriptionID] = billing.ChargeStatus(c.Status)
	}
	return standing, nil
}

// PutBack writes a charge that the database has forgotten, and reports whether it
// did: not where its request id, or another open charge of the subscription and
// period, stands in the ledger.
func (s *Store) PutBack(ctx context.Context, c billing.Charge) (bool, error) {
	row := newChargeRow(&c)
	written := s.write.WithContext(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&row)
	if written.Error != nil {
		return false, fmt.Errorf("putting a charge back: %w", written.Error)
	}
	return written.RowsAffected == 1, nil
}
