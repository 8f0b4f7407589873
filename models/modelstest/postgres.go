package modelstest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"drayman/migrations"
	"drayman/models"
)

// Postgres makes a database on the server of TEST_DATABASE_URL, a superuser's.
// It orders text as people do, not by bytes, wherever a query does not say
// otherwise: real databases do so.
func Postgres(t testing.TB) Database {
	t.Helper()
	requireServer(t)
	template, err := template()
	require.NoError(t, err)
	d := create(t, quoted(template.name))
	d.makeInstallation(t)
	return d
}

// PostgresIn makes an empty database, not migrated, in the encoding, such as "LATIN1".
func PostgresIn(t testing.TB, encoding string) Database {
	t.Helper()
	requireServer(t)
	return create(t, "template0 ENCODING '"+encoding+"' LOCALE 'C'")
}

func requireServer(t testing.TB) {
	t.Helper()
	if os.Getenv("TEST_DATABASE_URL") == "" {
		t.Fatal("TEST_DATABASE_URL is not set: run the tests with `make test`, which starts PostgreSQL")
	}
}

// create makes a database out of a template, and drops it when the test ends.
func create(t testing.TB, template string) Database {
	t.Helper()
	server, err := sql.Open("pgx", os.Getenv("TEST_DATABASE_URL"))
	require.NoError(t, err)
	name := "drayman_test_" + strings.ToLower(rand.Text())
	onServer(t, server, "CREATE DATABASE "+quoted(name)+" TEMPLATE "+template)
	t.Cleanup(func() {
		onServer(t, server, "DROP DATABASE "+quoted(name)+" WITH (FORCE)")
		require.NoError(t, server.Close())
	})
	d := Database{URL: urlOf(name), Dialect: models.Postgres}
	d.Pool, err = sql.Open("pgx", d.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Pool.Close() })
	return d
}

// WithParameter is the same PostgreSQL database, opened with a run-time parameter.
func (d Database) WithParameter(t testing.TB, name, value string) Database {
	t.Helper()
	address, err := url.Parse(d.URL)
	require.NoError(t, err)
	query := address.Query()
	query.Set(name, value)
	address.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // PostgreSQL's URLs know no + for a space
	d.URL = address.String()
	return d
}

// urlOf is the URL of a database on the server; a bad one fails at its use.
func urlOf(database string) string {
	u, err := url.Parse(os.Getenv("TEST_DATABASE_URL"))
	if err != nil {
		return os.Getenv("TEST_DATABASE_URL")
	}
	u.Path = "/" + database
	return u.String()
}

// WithPlainRole makes a role that may read and write the rows of all tables and nothing
// else, and returns the database's URL as that role.
func (d Database) WithPlainRole(t testing.TB) string {
	t.Helper()
	role := "drayman_test_" + strings.ToLower(rand.Text())
	for _, statement := range []string{
		"CREATE ROLE " + role + " LOGIN",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO " + role,
	} {
		d.Exec(t, statement)
	}
	t.Cleanup(func() { onServer(t, d.Pool, "DROP OWNED BY "+role, "DROP ROLE "+role) })
	address, err := url.Parse(d.URL)
	require.NoError(t, err)
	address.User = url.User(role)
	return address.String()
}

const templatePrefix = "drayman_template_"

// copied is the migrated database that the others are copies of.
type copied struct {
	name string
	// maker holds the advisory lock that tells other processes that the database is
	// in use. It must stay reachable: the garbage collector closes what is not.
	maker *pgx.Conn
}

// template makes the database to copy, once a process. Nothing tells a package
// that its tests are over, so the next process drops it: one whose maker is gone
// is one whose advisory lock is free.
var template = sync.OnceValues(func() (copied, error) {
	ctx := context.Background()
	// Stays open as long as the process lives; without a pool's goroutine.
	maker, err := pgx.Connect(ctx, os.Getenv("TEST_DATABASE_URL"))
	if err != nil {
		return copied{}, err
	}
	if err := dropAbandoned(ctx, maker); err != nil {
		return copied{}, err
	}
	name := templatePrefix + strings.ToLower(rand.Text())
	for _, statement := range []string{
		"SELECT pg_advisory_lock(hashtextextended('" + name + "', 0))",
		"CREATE DATABASE " + name + " TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'und'",
	} {
		if _, err := maker.Exec(ctx, statement); err != nil {
			return copied{}, err
		}
	}
	return copied{name: name, maker: maker}, migrate(ctx, name)
})

func migrate(ctx context.Context, name string) error {
	pool, err := sql.Open("pgx", urlOf(name))
	if err != nil {
		return err
	}
	if _, err := migrations.Up(ctx, pool, migrations.Postgres); err != nil {
		return err
	}
	return pool.Close()
}

func dropAbandoned(ctx context.Context, session *pgx.Conn) error {
	var names string
	err := session.QueryRow(ctx, `SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database
		WHERE starts_with(datname, $1)`, templatePrefix).Scan(&names)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(names) {
		var abandoned bool
		err := session.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", name).Scan(&abandoned)
		if err != nil {
			return err
		}
		if !abandoned {
			continue
		}
		if _, err := session.Exec(ctx, "DROP DATABASE IF EXISTS "+quoted(name)+" WITH (FORCE)"); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot copies the PostgreSQL database, to which nobody else may be connected.
// What it returns puts the copy in the place of the database, whoever is
// connected then: a backup that is restored under running processes.
func (d Database) Snapshot(t *testing.T) (restore func()) {
	t.Helper()
	address, err := url.Parse(d.URL)
	require.NoError(t, err)
	name := strings.TrimPrefix(address.Path, "/")
	server, err := sql.Open("pgx", os.Getenv("TEST_DATABASE_URL"))
	require.NoError(t, err)
	snapshot := name + "_snapshot"
	d.Pool.SetMaxIdleConns(0) // from now on: none may be there that the server has cut
	onServer(t, server, "CREATE DATABASE "+quoted(snapshot)+" TEMPLATE "+quoted(name))
	t.Cleanup(func() {
		onServer(t, server, "DROP DATABASE "+quoted(snapshot)+" WITH (FORCE)")
		require.NoError(t, server.Close())
	})
	return func() {
		onServer(t, server, "DROP DATABASE "+quoted(name)+" WITH (FORCE)", "CREATE DATABASE "+quoted(name)+" TEMPLATE "+quoted(snapshot))
	}
}
