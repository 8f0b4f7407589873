package migrations_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/migrations"
)

const theEligible = "the eligible"

// The queries that the indexes are for, with their use by the planner.
var planned = []struct{ name, query, postgres, sqlite string }{
	{
		"status of a subscription",
		`SELECT status_id FROM subscription_status_history WHERE subscription_id = '7' AND effect_date <= '2025-06-01'
			ORDER BY effect_date DESC, create_date DESC NULLS LAST, id COLLATE "C" DESC LIMIT 1`,
		"Index Only Scan using drayman_subscription_status_at",
		"COVERING INDEX drayman_subscription_status_at (subscription_id=? AND effect_date<?)",
	},
	{
		"status of a club",
		`SELECT club_status_id FROM club_status_history WHERE club_id = 7 AND effect_date <= '2025-06-01'
			ORDER BY effect_date DESC, create_date DESC NULLS LAST, id COLLATE "C" DESC LIMIT 1`,
		"Index Only Scan using drayman_club_status_at",
		"COVERING INDEX drayman_club_status_at (club_id=? AND effect_date<?)",
	},
	{
		"a page of ids",
		`SELECT id, club_id FROM subscription WHERE id COLLATE "C" > '7' ORDER BY id COLLATE "C" LIMIT 500`,
		"Index Only Scan using drayman_subscription_id",
		"COVERING INDEX drayman_subscription_id (id>?)",
	},
	{
		theEligible,
		`SELECT s.id FROM subscription s WHERE s.club_id IN (SELECT id FROM club) AND (SELECT h.status_id FROM subscription_status_history h
			WHERE h.subscription_id = s.id AND h.effect_date <= '2025-06-01'
			ORDER BY h.effect_date DESC, h.create_date DESC NULLS LAST, h.id COLLATE "C" DESC LIMIT 1) = 1 ORDER BY s.id COLLATE "C" LIMIT 500`,
		"Index Only Scan using drayman_subscription_status_at",
		"COVERING INDEX drayman_subscription_id",
	},
	{
		"a customer's subscription",
		`SELECT id FROM subscription WHERE club_id = 7 AND customer_store_id = '7'`,
		"using drayman_subscription_customer",
		"INDEX drayman_subscription_customer (customer_store_id=? AND club_id=?)",
	},
	{
		"the open charge",
		`SELECT request_id FROM charge WHERE subscription_id = '7' AND period = '2025-06' AND closed_as = ''`,
		"using charge_once",
		"INDEX charge_once (subscription_id=? AND period=? AND closed_as=?)",
	},
	{
		"the charges of a subscription",
		`SELECT request_id FROM charge WHERE subscription_id = '7' ORDER BY period DESC`,
		"charge_once",
		"INDEX charge_once (subscription_id=?)",
	},
	{
		"charges that nobody holds",
		`SELECT subscription_id FROM charge WHERE open_in = '2025-06' AND subscription_id > '7' ORDER BY subscription_id LIMIT 100`,
		"charge_open",
		"INDEX charge_open (open_in=? AND subscription_id>?)",
	},
}

func TestTheQueriesUseTheIndexes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		fill(t, d)
		for _, c := range planned {
			plan := explain(t, d, c.query)
			want := c.postgres
			if d.dialect == migrations.SQLite {
				want = c.sqlite
			}
			require.Contains(t, plan, want, c.name)
			require.NotContains(t, plan, "TEMP B-TREE", c.name)
			if c.name != theEligible { // PostgreSQL takes any one status for rare, and may sort the few
				require.NotContains(t, plan, "Sort", c.name)
			}
		}
	})
}

// fill makes 20,000 subscriptions (2,000 on SQLite, whose planner does not count
// them) with two status rows and one charge each.
func fill(t *testing.T, d database) {
	t.Helper()
	numbers := "(SELECT n FROM generate_series(1, 20000) n)"
	if d.dialect == migrations.SQLite {
		numbers = "(WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 2000) SELECT n FROM g)"
	}
	for _, statement := range []string{
		"INSERT INTO club (id, name) SELECT n, 'club' FROM # q WHERE n <= 20",
		"INSERT INTO club_status_history SELECT CAST(n AS text), 1 + n % 20, 1, '2019-01-01', NULL, NULL FROM # q",
		"INSERT INTO subscription SELECT CAST(n AS text), 1 + n % 20, CAST(n AS text), '2019-01-01' FROM # q",
		"INSERT INTO subscription_status_history SELECT CAST(n AS text), CAST(n AS text), 1, '2019-01-01', '2019-01-01', NULL FROM # q",
		"INSERT INTO subscription_status_history SELECT 'x' || n, CAST(n AS text), 2, '2020-01-01', NULL, NULL FROM # q",
		"INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at) " +
			"SELECT 'r' || n, CAST(n AS text), '2025-06', CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'charged' END, 'o', 'c', 1, '2025-06-01' FROM # q",
	} {
		exec(t, d.db, strings.ReplaceAll(statement, "#", numbers))
	}
	if d.dialect == migrations.Postgres {
		exec(t, d.db, "VACUUM ANALYZE")
	}
}

func explain(t *testing.T, d database, query string) string {
	t.Helper()
	if d.dialect == migrations.Postgres {
		return strings.Join(lines(t, d.db, "EXPLAIN "+query), "\n")
	}
	rows, err := d.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+strings.ReplaceAll(query, `COLLATE "C"`, "COLLATE BINARY"))
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		plan = append(plan, detail)
	}
	require.NoError(t, rows.Err())
	return strings.Join(plan, "\n")
}

func TestAnOpenTransactionIsNotWaitedForForever(t *testing.T) {
	t.Parallel()
	// Given a session that has read the tables and keeps its transaction open.
	d := alembic(t).with(t, "lock_timeout", "200ms")
	reader := reading(t, d)
	rows := rowsOf(t, d, alembicTables...)

	// When Up meets it, then it ends with an error that says who is in the way.
	report, err := migrations.Up(t.Context(), d.db, d.dialect)
	require.ErrorContains(t, err, "step 00003_subscription_status_at: another session's open transaction is in the way (the oldest: pid ")
	require.ErrorContains(t, err, "run `drayman migrate up` again")
	require.Equal(t, alembicHead, report.TakenOver)
	require.Equal(t, []int64{2}, versionsOf(report.Applied))
	require.EqualValues(t, 2, report.Version)
	require.ErrorContains(t, migrations.Check(t.Context(), d.db, d.dialect), fmt.Sprintf("at version 2 and version %d is needed", latest))
	require.Equal(t, []string{"drayman_subscription_status_at"}, invalidIndexes(t, d), "what an interrupted build leaves")

	// And when the session is gone, the next Up drops that and builds it again.
	require.NoError(t, reader.Rollback())
	report = up(t, d)
	require.Equal(t, versions(latest)[2:], versionsOf(report.Applied))
	require.Empty(t, invalidIndexes(t, d))
	require.Equal(t, rows, rowsOf(t, d, alembicTables...))
}

func invalidIndexes(t *testing.T, d database) []string {
	t.Helper()
	return lines(t, d.db, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
}

func TestTheTablesStayInUseWhileIndexesAreBuilt(t *testing.T) {
	t.Parallel()
	// Given an index build that waits for an open transaction, and a second Up.
	d := alembic(t)
	reader := reading(t, d)
	done := make(chan error, 2)
	for range cap(done) {
		goUp(t, d, done)
	}
	require.Eventually(t, func() bool { return len(builders(t, d)) == 1 }, time.Minute, 10*time.Millisecond)

	// When others write meanwhile, then nothing keeps them waiting.
	writer := d.with(t, "lock_timeout", "2s")
	exec(t, writer.db, "INSERT INTO subscription VALUES ('new', 1, 'someone', now())")
	exec(t, writer.db, "INSERT INTO subscription_status_history VALUES ('new', 'new', 1, now(), now(), NULL)")
	exec(t, writer.db, "UPDATE subscription SET club_id = 2 WHERE id = 'new'")
	exec(t, writer.db, "DELETE FROM subscription_status_history WHERE subscription_id = '00000000-0000-000-00000-000000000003'")
	exec(t, writer.db, "DELETE FROM subscription WHERE id = '00000000-0000-000-00000-000000000003'")

	// And both Ups end well once the transaction is over.
	require.NoError(t, reader.Commit())
	for range cap(done) {
		require.NoError(t, <-done)
	}
	require.NoError(t, migrations.Check(t.Context(), d.db, d.dialect))
	require.Empty(t, invalidIndexes(t, d))
}

func TestUpCanBeKilledWhileItBuildsAnIndex(t *testing.T) {
	t.Parallel()
	// Given an index build that waits, with the migration's lock held.
	d := alembic(t)
	reader := reading(t, d)
	done := make(chan error, 1)
	goUp(t, d, done)
	require.Eventually(t, func() bool { return len(builders(t, d)) == 1 }, time.Minute, 10*time.Millisecond)

	// When its session is killed, then Up fails, and the lock is gone with it.
	exec(t, d.db, "SELECT pg_terminate_backend($1)", builders(t, d)[0])
	require.ErrorContains(t, <-done, "step 00003_subscription_status_at")
	require.NoError(t, reader.Commit())
	require.Equal(t, versions(latest)[2:], versionsOf(up(t, d).Applied))
	require.Empty(t, invalidIndexes(t, d))
}

// reading opens a transaction that has read a table which gets an index.
func reading(t *testing.T, d database) *sql.Tx {
	t.Helper()
	tx, err := d.open(t).BeginTx(t.Context(), nil)
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM subscription_status_history").Scan(&n))
	return tx
}

// goUp starts an Up with a pool of its own.
func goUp(t *testing.T, d database, done chan<- error) {
	t.Helper()
	db := d.open(t)
	go func() {
		_, err := migrations.Up(t.Context(), db, d.dialect)
		done <- err
	}()
}

// builders are the sessions whose index build waits for others.
func builders(t *testing.T, d database) []string {
	t.Helper()
	return lines(t, d.db, `SELECT pid::text FROM pg_stat_activity WHERE datname = current_database()
		AND query LIKE '%CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()`)
}

func TestUpEndsWithItsContext(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		// Given another session that keeps what Up needs.
		keeper, err := d.open(t).Conn(t.Context())
		require.NoError(t, err)
		begin := "BEGIN IMMEDIATE"
		if d.dialect == migrations.Postgres {
			begin = "SELECT pg_advisory_lock(hashtextextended('drayman migrate public', 0))"
		}
		_, err = keeper.ExecContext(t.Context(), begin)
		require.NoError(t, err)
		before := dump(t, d)

		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err = migrations.Up(ctx, d.db, d.dialect)

		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, before, dump(t, d))
		require.NoError(t, keeper.Close())
	})
}
