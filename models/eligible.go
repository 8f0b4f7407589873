package models

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"gorm.io/gorm"

	"drayman/billing"
)

// The status of the subscription s, or of the club c, at the time @at. These
// are [billing.StatusAt] in SQL; a test holds them to it on generated histories.
const (
	subscriptionStatusAt = `(SELECT h.status_id FROM subscription_status_history h
		WHERE h.subscription_id = s.id AND h.effect_date <= @at
		ORDER BY h.effect_date DESC, h.create_date DESC NULLS LAST, h.id COLLATE "C" DESC LIMIT 1)`
	clubStatusAt = `(SELECT h.club_status_id FROM club_status_history h
		WHERE h.club_id = c.id AND h.effect_date <= @at
		ORDER BY h.effect_date DESC, h.create_date DESC NULLS LAST, h.id COLLATE "C" DESC LIMIT 1)`
)

// isEligible is [billing.Eligible] in SQL, over subscription s. The clubs are
// few: their statuses are found once, not for every subscription; "+ 0" keeps the
// planner from going the other way, from each club through all its subscriptions.
const isEligible = subscriptionStatusAt + ` = 1
	AND s.club_id + 0 IN (SELECT c.id FROM club c WHERE ` + clubStatusAt + ` IN (1, 2))`

// isDue says of subscription s that it is due in a run: eligible now, which is
// @at, and at the run's @cutoff. "IS TRUE" keeps PostgreSQL's planner from making
// a join of the clubs: it takes so many conditions for so rare that it would look
// through all clubs for each subscription, which takes minutes for 100,000.
var isDue = subscriptionStatusAt + ` = 1 AND ` + atCutOff(subscriptionStatusAt) + ` = 1
	AND (s.club_id IN (SELECT c.id FROM club c WHERE ` + clubStatusAt + ` IN (1, 2) AND ` + atCutOff(clubStatusAt) + ` IN (1, 2))) IS TRUE`

// atCutOff asks at @cutoff what the expression asks at @at.
func atCutOff(expression string) string { return strings.ReplaceAll(expression, "@at", "@cutoff") }

// Eligible calls yield with the id of each subscription that is due, in the
// order of the ids, of one consistent snapshot and in constant memory. It stops
// at yield's first error and returns it.
func (s *Store) Eligible(ctx context.Context, q billing.EligibleQuery, yield func(id string) error) error {
	where := []string{isEligible}
	if !q.CutOff.IsZero() {
		where[0] = isDue
	}
	if !q.Uncharged.IsZero() {
		where = append(where, hasNoOpenCharge)
	}
	if q.After != "" {
		where = append(where, `s.id COLLATE "C" > @after`)
	}
	text := `SELECT s.id FROM subscription s WHERE ` + strings.Join(where, " AND ") + ` ORDER BY s.id COLLATE "C"`
	if q.Limit > 0 {
		text += ` LIMIT @limit`
	}
	return s.read.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := s.preferIndexOrder(tx); err != nil {
			return err
		}
		rows, err := tx.Raw(s.sql(text),
			sql.Named("at", timestamp{q.At}), sql.Named("cutoff", timestamp{q.CutOff}), sql.Named("period", q.Uncharged.String()),
			sql.Named("after", q.After), sql.Named("limit", q.Limit)).Rows()
		if err != nil {
			return fmt.Errorf("listing the eligible: %w", err)
		}
		return eachID(rows, yield)
	}, s.snapshot())
}

// preferIndexOrder keeps PostgreSQL from sorting a million ids on disk before it
// gives the first: the index has them in order.
func (s *Store) preferIndexOrder(tx *gorm.DB) error {
	if s.dialect == SQLite {
		return nil
	}
	return tx.Exec("SET LOCAL enable_sort = off").Error
}

func eachID(rows *sql.Rows, yield func(id string) error) error {
	defer func() { _ = rows.Close() }() // rows.Err tells what went wrong
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("listing the eligible: %w", err)
		}
		if err := yield(id); err != nil {
			return err
		}
	}
	return rows.Err()
}
