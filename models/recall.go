package models

import (
	"context"
	"database/sql"
	"fmt"

	"gorm.io/gorm/clause"

	"drayman/billing"
)

// WithOpenCharge returns which of the subscriptions have a charge of the period
// that is not declined.
func (s *Store) WithOpenCharge(ctx context.Context, period billing.Period, ids []string) (map[string]bool, error) {
	open := map[string]bool{}
	if len(ids) == 0 {
		return open, nil
	}
	var found []string
	err := s.read.WithContext(ctx).Raw(`SELECT subscription_id FROM charge
		WHERE subscription_id IN @ids AND period = @period AND status <> 'declined'`,
		sql.Named("ids", ids), sql.Named("period", period.String())).Scan(&found).Error
	if err != nil {
		return nil, fmt.Errorf("looking for open charges: %w", err)
	}
	for _, id := range found {
		open[id] = true
	}
	return open, nil
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
