package models

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"gorm.io/gorm"

	"drayman/billing"
)

// Eligible calls yield with the id of each subscription that the query asks for, in the
// order of the ids. It reads one consistent snapshot, in constant memory. It stops at
// yield's first error and returns it.
func (s *Store) Eligible(ctx context.Context, q billing.EligibleQuery, yield func(id string) error) error {
	where := []string{isEligible}
	if !q.CutOff.IsZero() {
		where[0] = isDue
	}
	if !q.Uncharged.IsZero() {
		where = append(where, notOpenYet)
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
