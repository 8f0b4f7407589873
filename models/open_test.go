package models_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/migrations"
	"drayman/models"
	"drayman/models/modelstest"
)

const password = "pass-Wört:/?#[]@word"

func TestOpenRefusesBadURLsInOneLine(t *testing.T) {
	t.Parallel()
	secret, closed := url.QueryEscape(password), closedPort(t)
	for _, bad := range []string{
		"", "drayman.db", "mysql://u:" + secret + "@localhost/db", "sqlite:", "sqlite::memory:", "sqlite:" + t.TempDir(),
		"sqlite:" + filepath.Join(t.TempDir(), "no such folder", "x.db"), "sqlite://relative/x.db",
		"postgres://u:" + secret + "@127.0.0.1:notaport/db", "postgres://u:" + secret + "@127.0.0.1:" + closed + "/db?connect_timeout=5",
		"postgres://u:" + secret + "@[::1/db", "postgres://u:" + password + "@127.0.0.1:" + closed + "/db",
		"postgresql://u:" + secret + "@127.0.0.1:" + closed + "/db?sslmode=nonsense",
		"postgres://127.0.0.1:" + closed + "/db?user=u&password=" + secret,
		"postgres:host=127.0.0.1 port=" + closed + " password=" + password,
		"host=127.0.0.1 port=" + closed + " password=" + password,
	} {
		_, err := models.Open(t.Context(), bad, models.Options{})
		require.Error(t, err, bad)
		require.True(t, strings.HasPrefix(err.Error(), "DATABASE_URL: "), "%v", err)
		require.NotContains(t, err.Error(), "\n")
		for _, shown := range []string{password, secret, "pass-W"} {
			require.NotContains(t, err.Error(), shown)
		}
	}
}

// closedPort is a port of this machine where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}

func TestOpenShowsNoPasswordThatTheServerRefuses(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(modelstest.Postgres(t).URL)
	require.NoError(t, err)
	u.User = url.UserPassword("no_such_user", password)
	_, err = models.Open(t.Context(), u.String(), models.Options{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "pass-W")
	require.NotContains(t, err.Error(), "\n")
}

func TestOpenTakesAnySQLitePath(t *testing.T) {
	for _, name := range []string{
		"plain.db", "with space.db", "q?mark=1&_pragma=x.db", "ha#sh.db", "per%20cent%.db", "plus+.db", "ümlaut.db", "quo'te\".db", "semi;.db", "co:lon.db", "~tilde",
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a b#c?d%")
			require.NoError(t, os.Mkdir(dir, 0o700))
			t.Chdir(dir)
			for _, path := range []string{filepath.Join(dir, "absolute "+name), name} {
				store, err := models.Open(t.Context(), "sqlite:"+path, models.Options{})
				require.NoError(t, err)
				defer store.Close()
				pool, err := store.WritingPool()
				require.NoError(t, err)
				_, err = migrations.Up(t.Context(), pool, migrations.SQLite)
				require.NoError(t, err)
				require.FileExists(t, path)
				require.Empty(t, eligible(t, store, billing.EligibleQuery{At: day(0)}), "the readers have the same file")
			}
			files, err := filepath.Glob("*")
			require.NoError(t, err)
			for _, file := range files {
				require.Contains(t, file, name, "a file elsewhere")
			}
		})
	}
}

// Go's texts are UTF-8, whatever others have made the session's default.
func TestOpen_SpeaksUTF8(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, db modelstest.Database) modelstest.Database{
		"URL": func(t *testing.T, db modelstest.Database) modelstest.Database {
			return db.WithParameter(t, "client_encoding", "LATIN1")
		},
		"options": func(t *testing.T, db modelstest.Database) modelstest.Database {
			return db.WithParameter(t, "options", "-c client_encoding=LATIN1")
		},
		"database": func(t *testing.T, db modelstest.Database) modelstest.Database {
			db.Exec(t, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET client_encoding = LATIN1', current_database()); END $$")
			return db
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.Postgres(t)
			db.AddClub(t, 1, 7)
			_, err := open(t, db).Open(t, nil).Subscribe(t.Context(), 1, "José")
			require.NoError(t, err)
			require.Equal(t, []string{"4a6f73c3a9"}, db.Lines(t, "SELECT encode(customer_store_id::bytea, 'hex') FROM subscription"))
		})
	}
}

// Every process has the database's clock, however wrong its own is.
func TestTheClockIsTheDatabases(t *testing.T) {
	t.Parallel()
	db := modelstest.Postgres(t)
	db.AddClub(t, 1, 7)
	db.Exec(t, `CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
		AS $$ SELECT timestamptz '2001-02-03 04:05:06.789012+00' $$`)
	db = db.WithParameter(t, "search_path", "public,pg_catalog").WithParameter(t, "timezone", "America/Sao_Paulo") // so that ours is found first
	store := db.Open(t, nil)

	now, err := store.Now(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Date(2001, 2, 3, 4, 5, 6, 789_012_000, time.UTC), now)
	made, err := store.Subscribe(t.Context(), 1, "anna")
	require.NoError(t, err)
	require.Equal(t, now, *made.CreateDate)
	require.Equal(t, []string{"2001-02-03 04:05:06.789012"}, db.Lines(t, "SELECT effect_date::text FROM subscription_status_history"))
}

func TestAClockOfATestIsTaken(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		store := db.Open(t, func() time.Time { return day(0).Add(1999).In(time.FixedZone("x", 3600)) })
		now, err := store.Now(t.Context())
		require.NoError(t, err)
		require.Equal(t, day(0).Add(time.Microsecond), now, "UTC, in microseconds")
	})
}

func TestIsUnavailable(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		require.False(t, models.IsUnavailable(nil))
		require.False(t, models.IsUnavailable(errors.New("x")))
		require.True(t, models.IsUnavailable(models.ErrClaimRaced))
		_, err := b.Subscription(t.Context(), "unknown")
		require.False(t, models.IsUnavailable(err))

		b.Exec(t, "DROP TABLE charge")
		_, err = b.Charges(t.Context(), "s")
		require.Error(t, err)
		require.False(t, models.IsUnavailable(err), "a missing table does not come back by itself")
		require.True(t, models.IsUnavailable(fmt.Errorf("x: %w", timedOut(t, b))))
	})
}

// timedOut is the error of a call whose time was over before it began.
func timedOut(t *testing.T, b bundle) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err := b.Subscription(ctx, "s")
	require.Error(t, err)
	return err
}

func TestTheDatabaseGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	_, err := b.Subscription(t.Context(), "s")
	require.NoError(t, err)

	// All sessions end: whatever is asked next fails as unavailable, or works.
	b.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	if _, err := b.ClaimCharge(t.Context(), request("r"), "o", true); err != nil {
		require.True(t, models.IsUnavailable(err), "%v", err)
	}
	require.Eventually(t, func() bool { return b.Ping(t.Context()) == nil }, 10*time.Second, time.Millisecond)
	b.claim(t, "r", "o")

	// In the middle of a list, too.
	b.Exec(t, "INSERT INTO subscription (id, club_id) SELECT 'many ' || n, 1 FROM generate_series(1, 30000) n")
	b.Exec(t, `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date)
		SELECT id, id, 1, '2001-01-01' FROM subscription WHERE id LIKE 'many %'`)
	calls := 0
	err = b.Eligible(t.Context(), billing.EligibleQuery{At: day(0)}, func(string) error {
		if calls++; calls == 1 {
			b.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		}
		return nil
	})
	if err == nil { // the server had sent everything
		require.Equal(t, 30001, calls, "a list cut short was taken for the whole")
	} else {
		require.True(t, models.IsUnavailable(err), "%v", err)
	}
	requireIdle(t, b)
}
