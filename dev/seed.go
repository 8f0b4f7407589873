package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// seedClubs makes three clubs if there is none: two that take subscriptions
// and one that is closed to newcomers but still sends its beer.
const seedClubs = `
INSERT INTO club (id, name, store_sku)
SELECT * FROM (VALUES (1, 'Lager of the month', 1), (2, 'Ale trail', 2), (3, 'Stout cellar', 3))
WHERE NOT EXISTS (SELECT 1 FROM club)`

const seedClubStatuses = `
INSERT INTO club_status_history (id, club_id, club_status_id, effect_date, create_date, details)
SELECT printf('sample-club-%d', c.id), c.id, CASE c.id WHEN 3 THEN 2 ELSE 1 END, @now, @now, 'sample'
FROM club c WHERE c.id <= 3 AND NOT EXISTS (SELECT 1 FROM club_status_history h WHERE h.club_id = c.id)`

// Sample subscriptions are numbered; adding more goes on where the last ended.
const seedSubscriptions = `
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < @count)
INSERT INTO subscription (id, club_id, customer_store_id, create_date)
SELECT printf('sample-%08d', i), 1 + i % 3, printf('customer-%08d', i), @now FROM n WHERE true
ON CONFLICT DO NOTHING`

const seedSubscriptionStatuses = `
INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date, details)
SELECT 'status-' || s.id, s.id, 1, @now, @now, NULL FROM subscription s WHERE s.id LIKE 'sample-%'
ON CONFLICT DO NOTHING`

// seed puts sample clubs into a fresh database, and adds subscriptions until
// there are as many as asked for. It runs after the migrations and before the
// API and the worker start. What is there already stays as it is.
func seed(ctx context.Context, path string, subscriptions int) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing is left to write
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no-op after the commit
	statements := []string{seedClubs, seedClubStatuses}
	if subscriptions > 0 {
		statements = append(statements, seedSubscriptions, seedSubscriptionStatuses)
	}
	now := time.Now().UTC().Format("2006-01-02 15:04:05.000000")
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement, sql.Named("now", now), sql.Named("count", subscriptions)); err != nil {
			return fmt.Errorf("%w in %s", err, statement)
		}
	}
	return tx.Commit()
}
