package modelstest

import (
	"context"
	"database/sql"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/migrations"
	"drayman/models"
)

// Database is a migrated database, with no row but the names of the statuses.
type Database struct {
	URL     string // as in DATABASE_URL
	Dialect models.Dialect
	// Pool is a way into the database past the Store, as people have it. Both
	// dialects take $1, $2 …; times must be written with [Time].
	Pool *sql.DB
}

// Each runs the test on both kinds of database, in parallel subtests. The
// PostgreSQL server is that of TEST_DATABASE_URL; without it the test fails.
func Each(t *testing.T, test func(t *testing.T, db Database)) {
	t.Helper()
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, Postgres(t)) })
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, SQLite(t)) })
}

// SQLite makes a database in a file.
func SQLite(t testing.TB) Database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drayman.db")
	pool, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+
		"?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_pragma=synchronous(OFF)")
	require.NoError(t, err)
	pool.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = pool.Close() })
	_, err = migrations.Up(t.Context(), pool, migrations.SQLite)
	require.NoError(t, err)
	d := Database{URL: "sqlite:" + path, Dialect: models.SQLite, Pool: pool}
	d.makeInstallation(t)
	return d
}

// Installation is the id of the installation that every database here is.
const Installation = "the-installation-of-tests"

// makeInstallation does what `drayman migrate up` does after the migrations.
func (d Database) makeInstallation(t testing.TB) {
	t.Helper()
	store, err := models.Open(t.Context(), d.URL, models.Options{})
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.MakeInstallation(t.Context()))
	d.Exec(t, "UPDATE installation SET id = $1", Installation)
}

// connections of a Store: the tests of several packages share a server.
const connections = 10

// Open opens a Store, which is closed at the end of the test. Without a clock
// its time is what it is in production.
func (d Database) Open(t testing.TB, clock func() time.Time) *models.Store {
	t.Helper()
	store, err := models.Open(t.Context(), d.URL, models.Options{Clock: clock})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	if d.Dialect == models.Postgres {
		pool, err := store.WritingPool()
		require.NoError(t, err)
		pool.SetMaxOpenConns(connections)
	}
	return store
}

// Exec does by hand what no Store would do. Times among the arguments may be
// time.Time and *time.Time.
func (d Database) Exec(t testing.TB, query string, args ...any) {
	t.Helper()
	for i, arg := range args {
		switch v := arg.(type) {
		case time.Time:
			args[i] = Time(v)
		case *time.Time:
			args[i] = nil
			if v != nil {
				args[i] = Time(*v)
			}
		}
	}
	_, err := d.Pool.ExecContext(t.Context(), query, args...)
	require.NoError(t, err, query)
}

// Lines returns the rows of a query of one text column.
func (d Database) Lines(t testing.TB, query string, args ...any) []string {
	t.Helper()
	rows, err := d.Pool.QueryContext(t.Context(), query, args...)
	require.NoError(t, err, query)
	defer func() { _ = rows.Close() }() // rows.Err tells what went wrong
	lines := []string{}
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		lines = append(lines, line)
	}
	require.NoError(t, rows.Err())
	return lines
}

// Time is the text of a time in the tables.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }

// onServer runs statements that no transaction may hold, past the test's end too.
func onServer(t testing.TB, server *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := server.ExecContext(context.WithoutCancel(t.Context()), s)
		require.NoError(t, err, s)
	}
}

// quoted is a name as SQL has it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
