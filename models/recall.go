package models

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"drayman/billing"
)

// incarnation is an SQL expression that tells the database from any other that takes its
// place: a backup that was restored, a standby that lacks the last second (decision 0019).
// It also changes if nothing is lost: on PostgreSQL when the server restarts or the ledger
// is rewritten; on SQLite when a worker starts ([Store.Mark]) or the schema changes.
func (s *Store) incarnation() string {
	if s.dialect == SQLite {
		return "(SELECT user_version || '/' || schema_version FROM pragma_user_version, pragma_schema_version)"
	}
	return `(SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()), oid, pg_relation_filenode('charge'))
		FROM pg_database WHERE datname = current_database())`
}

// Mark makes a SQLite database another incarnation, because its file may have been put back
// while no worker ran. On PostgreSQL the server's start time tells.
func (s *Store) Mark(ctx context.Context) error {
	if s.dialect != SQLite {
		return nil
	}
	return s.write.WithContext(ctx).Exec(fmt.Sprintf("PRAGMA user_version = %d", rand.Int32())).Error
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

// PutBack writes a charge that the database lacks, and reports whether it did. It does
// nothing if the ledger has the request id, or a charge that stands for the subscription and
// period.
func (s *Store) PutBack(ctx context.Context, c billing.Charge) (bool, error) {
	row := newChargeRow(&c)
	written := s.write.WithContext(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&row)
	if written.Error != nil {
		return false, fmt.Errorf("putting a charge back: %w", written.Error)
	}
	return written.RowsAffected == 1, nil
}

// PutBackRequest claims a charge of which only the request is known: its workflow has begun,
// and may have asked an idempotent shop. The claim is nobody's, and the workflow takes it
// over. It does nothing if the request would be refused now, or has its row.
func (s *Store) PutBackRequest(ctx context.Context, req billing.ChargeRequest) error {
	return s.inTransaction(ctx, func(tx *gorm.DB) error {
		if err := s.lockSubscription(tx, req.SubscriptionID); err != nil {
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		facts, err := s.chargeFacts(tx, req, now)
		if err != nil {
			return err
		}
		var claim billing.Claim
		if claim.Step, claim.Charge, err = billing.Decide(req, facts); err == nil && claim.Step == billing.StepPlace {
			err = s.insertClaim(tx, &claim, claimant{req: req, facts: facts, owner: billing.Nobody, idempotentShop: true, now: now})
		}
		if billing.CodeOf(err) != "" {
			return nil // a page would not charge it either
		}
		return err
	})
}

// Recalled records that this incarnation of the database has been looked through, so that it
// may charge again. Any pending charge may have been sent: with [billing.DoubtRepeat] it sets
// their sent_at, with [billing.DoubtConfirm] they become unresolved. It puts back the rows of runs that the database lacks, and ends those that have ended by Temporal.
// Each run that was under way, by its row or by Temporal, gets the doubt; with
// [billing.DoubtConfirm] it is paused for a person.
//
// It returns an error if the database is another incarnation by now.
func (s *Store) Recalled(ctx context.Context, incarnation string, remembered []billing.Run, doubt billing.RunDoubt) error {
	return s.inTransaction(ctx, func(tx *gorm.DB) error {
		if err := tx.Exec(s.lockLedger()).Error; err != nil {
			return err
		}
		found, err := s.installation(tx)
		switch {
		case err != nil:
			return err
		case found.Incarnation != incarnation:
			return fmt.Errorf("the database was replaced again: it is %q, not %q", found.Incarnation, incarnation)
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		if err := doubtPending(tx, doubt, now); err != nil {
			return err
		}
		for _, run := range remembered {
			if err := putBackRun(tx, run, doubt); err != nil {
				return err
			}
		}
		open := func() *gorm.DB { return tx.Model(&runRow{}).Where("ended_at IS NULL") }
		if err := open().Update("doubt", string(doubt)).Error; err != nil {
			return err
		}
		if doubt == billing.DoubtConfirm {
			err := open().Where("state = ?", string(billing.RunRunning)).
				Updates(map[string]any{"state": string(billing.RunPaused), "reason": billing.ReasonReplaced}).Error
			if err != nil {
				return err
			}
		}
		return tx.Exec("UPDATE installation SET recalled = ?", incarnation).Error
	})
}

// doubtPending notes that what is pending may have been sent, whatever its row says: the row
// may be older. At a shop that is not idempotent that makes it a person's; whoever has a
// call under way settles it all the same.
func doubtPending(tx *gorm.DB, doubt billing.RunDoubt, now time.Time) error {
	pending := func() *gorm.DB { return tx.Model(&chargeRow{}).Where("status = 'pending'") }
	if doubt == billing.DoubtRepeat {
		// Nobody holds a claim in another database than the one in which it was made.
		held := pending().Where("claimed_until IS NOT NULL").Updates(map[string]any{"claimed_until": nil, "owner": billing.Nobody})
		return cmp.Or(held.Error, pending().Update("sent_at", timestamp{now}).Error)
	}
	return pending().Updates(map[string]any{
		"status": string(billing.Unresolved), "failure_code": billing.FailureInDoubt, "settled_at": timestamp{now}, "claimed_until": nil,
		"failure_detail": "the database was replaced while the charge was under way, and the shop is not idempotent",
	}).Error
}

// putBackRun writes the row of a remembered run that the database lacks. If it has the row,
// it ends the run that the row shows as open; and of one that Temporal has at work the row
// gets the doubt, also if somebody has ended it there since.
func putBackRun(tx *gorm.DB, run billing.Run, doubt billing.RunDoubt) error {
	run.Doubt = doubt
	row := rowOfRun(run)
	written := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(row)
	if written.Error != nil || written.RowsAffected == 1 {
		return written.Error
	}
	there := tx.Model(&runRow{}).Where("execution_id = ?", row.ExecutionID)
	if !run.Ended() {
		return there.Update("doubt", row.Doubt).Error
	}
	return there.Where("ended_at IS NULL").
		Updates(map[string]any{"state": row.State, "reason": row.Reason, "ended_at": row.EndedAt, "doubt": row.Doubt}).Error
}

// lockLedger is a statement after which nobody can put another ledger in the place of this
// one until the transaction ends.
func (s *Store) lockLedger() string {
	if s.dialect == SQLite {
		return "SELECT 1" // the immediate transaction does it
	}
	return "LOCK TABLE charge IN ROW SHARE MODE"
}
