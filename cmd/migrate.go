package cmd

import (
	"context"
	"database/sql"
	"fmt"
	"text/tabwriter"
	"time"

	"drayman/migrations"
	"drayman/models"
)

type migrateCommand struct {
	Up     migrateUpCommand     `cmd:"" help:"Apply what is missing; take over a database of the Python version (Alembic)."`
	Status migrateStatusCommand `cmd:"" help:"Show which migrations are applied; change nothing."`
}

type migrateUpCommand struct {
	databaseFlags
	logFlags
}

type migrateStatusCommand struct {
	databaseFlags
	logFlags
}

// withDatabase opens the database for a migration.
func withDatabase(ctx context.Context, env *environment, d databaseFlags, l logFlags, fn func(*models.Store, *sql.DB) error) error {
	store, err := d.open(ctx, l.logger(env.stderr))
	if err != nil {
		return err
	}
	defer store.Close()
	db, err := store.WritingPool()
	if err != nil {
		return err
	}
	return fn(store, db)
}

// Run applies the migrations and says what it did.
func (c *migrateUpCommand) Run(ctx context.Context, env *environment) error {
	return withDatabase(ctx, env, c.databaseFlags, c.logFlags, func(store *models.Store, db *sql.DB) error {
		report, err := migrations.Up(ctx, db, migrations.Dialect(store.Dialect()))
		if report.TakenOver != "" {
			fmt.Fprintf(env.stdout, "took over the Alembic database at %s; its tables are as they were\n", report.TakenOver)
		}
		for _, w := range report.Warnings {
			fmt.Fprintln(env.stdout, "warning:", w)
		}
		for _, s := range report.Applied {
			fmt.Fprintf(env.stdout, "applied %05d %s\n", s.Version, s.Name)
		}
		if err == nil {
			fmt.Fprintf(env.stdout, "the schema is at version %d, this program needs %d\n", report.Version, report.Needed)
			err = makeInstallation(ctx, env, store)
		}
		return err
	})
}

// makeInstallation makes the database an installation, or says that it is one which
// charges nobody here.
func makeInstallation(ctx context.Context, env *environment, store *models.Store) error {
	if err := store.MakeInstallation(ctx); err != nil {
		return err
	}
	found, err := store.Installation(ctx)
	if err != nil {
		return err
	}
	if err := found.MayCharge(); err != nil {
		fmt.Fprintln(env.stdout, "warning:", err)
	}
	return nil
}

// Run lists the migrations.
func (c *migrateStatusCommand) Run(ctx context.Context, env *environment) error {
	return withDatabase(ctx, env, c.databaseFlags, c.logFlags, func(store *models.Store, db *sql.DB) error {
		steps, err := migrations.Status(ctx, db, migrations.Dialect(store.Dialect()))
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
		for _, s := range steps {
			applied := ""
			if !s.AppliedAt.IsZero() {
				applied = s.AppliedAt.Format(time.RFC3339)
			}
			fmt.Fprintf(table, "%05d\t%s\t%s\t%s\n", s.Version, s.Name, s.State, applied)
		}
		return table.Flush()
	})
}

// checkSchema stops a process whose database is not migrated yet.
func checkSchema(ctx context.Context, store *models.Store) error {
	db, err := store.ReadingPool()
	if err != nil {
		return err
	}
	return migrations.Check(ctx, db, migrations.Dialect(store.Dialect()))
}
