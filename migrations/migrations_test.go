package migrations_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"drayman/migrations"
)

// latest is the version that the steps lead to.
const latest = 9

func TestUpMakesAnEmptyDatabaseReady(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		report := up(t, d)

		require.Equal(t, versions(latest), versionsOf(report.Applied))
		require.Equal(t, "baseline", report.Applied[0].Name)
		require.Empty(t, report.TakenOver)
		require.Empty(t, report.Warnings)
		require.EqualValues(t, latest, report.Version)
		require.EqualValues(t, latest, report.Needed)
		require.Equal(t, []string{"1 ATIVO", "2 CANCELADO", "3 PAUSADO"}, lines(t, d.db, "SELECT id || ' ' || name FROM status ORDER BY id"))
		require.Equal(t, []string{"1 ATIVO", "2 FECHADO", "3 INATIVO"}, lines(t, d.db, "SELECT id || ' ' || name FROM club_status ORDER BY id"))
		require.Empty(t, lines(t, d.db, "SELECT id FROM subscription"))
		require.Empty(t, lines(t, d.db, "SELECT name FROM club"))
		require.Equal(t, []string{"4"}, lines(t, d.db, "INSERT INTO status (name) VALUES ('OTHER') RETURNING id"))
	})
}

func TestUpAgainDoesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		before := dump(t, d)

		report := up(t, d)

		require.Empty(t, report.Applied)
		require.EqualValues(t, latest, report.Version)
		require.Equal(t, before, dump(t, d))
	})
}

func TestStatusAndCheck(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		empty := dump(t, d)

		steps, err := migrations.Status(t.Context(), d.db, d.dialect)
		require.NoError(t, err)
		require.Equal(t, versions(latest), versionsOf(steps))
		for _, step := range steps {
			require.Equal(t, migrations.Pending, step.State)
			require.Zero(t, step.AppliedAt)
		}
		require.EqualError(t, migrations.Check(t.Context(), d.db, d.dialect),
			fmt.Sprintf("the database's schema is at version 0 and version %d is needed: run `drayman migrate up`", latest))
		require.Equal(t, empty, dump(t, d), "Status and Check must not write")

		up(t, d)

		steps, err = migrations.Status(t.Context(), d.db, d.dialect)
		require.NoError(t, err)
		require.Equal(t, versions(latest), versionsOf(steps))
		for _, step := range steps {
			require.Equal(t, migrations.Applied, step.State)
			require.Equal(t, time.UTC, step.AppliedAt.Location())
			require.WithinDuration(t, time.Now(), step.AppliedAt, time.Minute)
		}
		require.NoError(t, migrations.Check(t.Context(), d.db, d.dialect))
	})
}

func TestCheckTellsADeadDatabaseFromAnOldOne(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		exec(t, d.db, "DELETE FROM drayman_migration WHERE version_id = $1", latest)
		require.ErrorContains(t, migrations.Check(t.Context(), d.db, d.dialect),
			fmt.Sprintf("at version %d and version %d is needed", latest-1, latest))

		require.NoError(t, d.db.Close())
		require.ErrorContains(t, migrations.Check(t.Context(), d.db, d.dialect), "cannot be read")
	})
}

func TestANewerDatabaseIsLeftAlone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		exec(t, d.db, "INSERT INTO drayman_migration (version_id, is_applied) VALUES ($1, true)", latest+2)
		before := dump(t, d)

		report := up(t, d)

		require.Empty(t, report.Applied)
		require.EqualValues(t, latest+2, report.Version)
		require.EqualValues(t, latest, report.Needed)
		require.Equal(t, before, dump(t, d))
		require.NoError(t, migrations.Check(t.Context(), d.db, d.dialect))
		steps, err := migrations.Status(t.Context(), d.db, d.dialect)
		require.NoError(t, err)
		require.Equal(t, append(versions(latest), latest+2), versionsOf(steps))
		require.Contains(t, steps[latest].Name, "newer version")
	})
}

func TestManyUpsAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		require.Equal(t, versions(latest), manyUps(t, d, ""))
	})
	t.Run("alembic", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, versions(latest)[1:], manyUps(t, alembic(t), "6640484e5703"))
	})
}

// manyUps starts Up on many pools at once and returns the versions applied by
// all of them together. One of them must have taken over the head, if any.
func manyUps(t *testing.T, d database, head string) []int64 {
	t.Helper()
	reports := make([]migrations.Report, 10)
	var group errgroup.Group
	for i := range reports {
		db := d.open(t)
		group.Go(func() (err error) {
			reports[i], err = migrations.Up(t.Context(), db, d.dialect)
			return err
		})
	}
	require.NoError(t, group.Wait())
	var applied []int64
	var taken string
	for _, report := range reports {
		require.EqualValues(t, latest, report.Version)
		applied = append(applied, versionsOf(report.Applied)...)
		taken += report.TakenOver
	}
	require.Equal(t, head, taken)
	return applied
}

// theFile names the SQLite file for which the test binary plays another process.
const theFile = "MIGRATIONS_TEST_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(theFile); path != "" {
		os.Exit(upInThisProcess(path))
	}
	os.Exit(m.Run())
}

func upInThisProcess(path string) int {
	db, err := sql.Open("sqlite", sqliteDSN(path))
	if err == nil {
		_, err = migrations.Up(context.Background(), db, migrations.SQLite)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func TestTwoProcessesMigrateOneSQLiteFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "drayman.db")
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			other := osexec.CommandContext(t.Context(), os.Args[0])
			other.Env = append(os.Environ(), theFile+"="+path)
			if out, err := other.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
}

func TestBothDialectsHaveTheSameSteps(t *testing.T) {
	t.Parallel()
	names := func(folder string) []string {
		found, err := fs.Glob(os.DirFS(folder), "*.sql")
		require.NoError(t, err)
		return found
	}
	require.Len(t, names("postgres"), latest)
	require.Equal(t, names("postgres"), names("sqlite"))
}

func versions(last int64) []int64 {
	var all []int64
	for v := int64(1); v <= last; v++ {
		all = append(all, v)
	}
	return all
}

func versionsOf(steps []migrations.Step) []int64 {
	var all []int64
	for _, step := range steps {
		all = append(all, step.Version)
	}
	return all
}
