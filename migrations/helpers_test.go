package migrations_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"drayman/migrations"
)

// database is a fresh, empty database of one test.
type database struct {
	dialect migrations.Dialect
	driver  string
	dsn     string
	db      *sql.DB
}

// open returns one more pool on the database, as another process would have.
func (d database) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(d.driver, d.dsn)
	require.NoError(t, err)
	if d.dialect == migrations.SQLite {
		db.SetMaxOpenConns(1) // as models has it for the pool that writes
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// with returns the same PostgreSQL database, with a parameter for its sessions.
func (d database) with(t *testing.T, key, value string) database {
	t.Helper()
	u, err := url.Parse(d.dsn)
	require.NoError(t, err)
	query := u.Query()
	query.Set(key, value)
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // to PostgreSQL a plus is a plus
	d.dsn = u.String()
	d.db = d.open(t)
	return d
}

func postgres(t *testing.T) database {
	t.Helper()
	return postgresWith(t, "")
}

// postgresWith is an empty database made with these options of CREATE DATABASE.
func postgresWith(t *testing.T, options string) database {
	t.Helper()
	server := os.Getenv("TEST_DATABASE_URL")
	require.NotEmpty(t, server, "TEST_DATABASE_URL is not set: run the tests with `make test`, which starts PostgreSQL")
	u, err := url.Parse(server)
	require.NoError(t, err)
	admin, err := sql.Open("pgx", server)
	require.NoError(t, err)
	name := "drayman_migrations_" + strings.ToLower(rand.Text())
	exec(t, admin, "CREATE DATABASE "+name+" TEMPLATE template0 "+options)
	t.Cleanup(func() {
		_, err := admin.ExecContext(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)")
		require.NoError(t, err)
		require.NoError(t, admin.Close())
	})
	u.Path = "/" + name
	d := database{dialect: migrations.Postgres, driver: "pgx", dsn: u.String()}
	d.db = d.open(t)
	return d
}

// alembic is a PostgreSQL database as the Python version left it.
func alembic(t *testing.T) database {
	t.Helper()
	d := postgres(t)
	loadFixture(t, d.db)
	return d
}

func loadFixture(t *testing.T, db *sql.DB) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "alembic_baseline.sql"))
	require.NoError(t, err)
	exec(t, db, string(text))
}

func sqlite(t *testing.T) database {
	t.Helper()
	d := database{dialect: migrations.SQLite, driver: "sqlite", dsn: sqliteDSN(filepath.Join(t.TempDir(), "drayman.db"))}
	d.db = d.open(t)
	return d
}

func sqliteDSN(path string) string {
	return "file:" + path + "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)"
}

// onBoth runs a test on a fresh database of each kind.
func onBoth(t *testing.T, test func(t *testing.T, d database)) {
	t.Helper()
	t.Run("postgres", func(t *testing.T) { t.Parallel(); test(t, postgres(t)) })
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, sqlite(t)) })
}

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err, query)
}

// lines returns the rows of a query of one text column.
func lines(t *testing.T, db *sql.DB, query string, args ...any) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	require.NoError(t, err, query)
	defer func() { require.NoError(t, rows.Close()) }()
	var out []string
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		out = append(out, line)
	}
	require.NoError(t, rows.Err())
	return out
}

func up(t *testing.T, d database) migrations.Report {
	t.Helper()
	report, err := migrations.Up(t.Context(), d.db, d.dialect)
	require.NoError(t, err)
	return report
}

// dump is all that stands in the database: schema, sequences and rows, each row
// with the transaction that wrote it.
func dump(t *testing.T, d database) []string {
	t.Helper()
	if d.dialect == migrations.SQLite {
		all := lines(t, d.db, "SELECT coalesce(sql, name) FROM sqlite_master ORDER BY 1")
		for _, table := range lines(t, d.db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1") {
			all = append(all, fmt.Sprint(table, lines(t, d.db, "SELECT count(*) FROM "+table)))
		}
		return all
	}
	return append(schema(t, d), rowsOf(t, d, lines(t, d.db, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`)...)...)
}

func rowsOf(t *testing.T, d database, tables ...string) []string {
	t.Helper()
	var all []string
	for _, table := range tables {
		all = append(all, lines(t, d.db, `SELECT '`+table+`: ' || xmin::text || ctid::text || t::text FROM `+table+` t ORDER BY t::text`)...)
	}
	return all
}

// schema describes all relations, columns, constraints, indexes and sequences
// by their names.
func schema(t *testing.T, d database) []string {
	t.Helper()
	return lines(t, d.db, `
		WITH c AS (
			SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'))
		SELECT format('relation %s: kind %s, owner %s', oid::regclass, relkind, relowner::regrole) FROM c
		UNION ALL
		SELECT format('column %s.%s: number %s, %s, not null %s, default %s', c.oid::regclass, attname, attnum,
			format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
		FROM c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum
		UNION ALL
		SELECT format('constraint %s on %s: %s', conname, c.oid::regclass, pg_get_constraintdef(k.oid)) FROM c JOIN pg_constraint k ON conrelid = c.oid
		UNION ALL
		SELECT format('index %s on %s: valid %s, %s', c.oid::regclass, indrelid::regclass, indisvalid, pg_get_indexdef(c.oid)) FROM c JOIN pg_index ON indexrelid = c.oid
		UNION ALL
		SELECT format('sequence %s: type %s, start %s, increment %s, minimum %s, maximum %s, cache %s, cycles %s, owned by %s.%s', c.oid::regclass, seqtypid::regtype,
			seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle, refobjid::regclass, refobjsubid)
		FROM c JOIN pg_sequence ON seqrelid = c.oid LEFT JOIN pg_depend ON objid = c.oid AND deptype = 'a'
		ORDER BY 1`)
}
