package migrations

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// versionTable is where goose records the steps.
const versionTable = "drayman_migration"

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Dialect names a kind of database, and its folder of steps.
type Dialect string

// The databases that there are steps for.
const (
	Postgres Dialect = "postgres"
	SQLite   Dialect = "sqlite"
)

// Report says what one [Up] did.
type Report struct {
	// Applied are the steps that this call has run, in order. The baseline of a
	// database taken over is not among them.
	Applied []Step
	// TakenOver is the Alembic head of the database, if this call took it over.
	TakenOver string
	// Warnings are sentences about what a take-over found and left as it is.
	Warnings []string
	// Version is the schema's version now, Needed the one this program is made
	// for. Version > Needed: a newer program has migrated; Up did nothing.
	Version, Needed int64
}

// Up brings the schema to the version that this program needs, in the steps
// that are missing. It takes over an Alembic database (PostgreSQL only) or
// returns a [*Refusal]. It may be called from many processes at once.
//
// If a step fails, the report names those before it, which stay; on SQLite all
// are taken back. Up can then be called again. The time it takes is bounded by
// ctx: on a large table an index may need minutes.
func Up(ctx context.Context, db *sql.DB, d Dialect) (Report, error) {
	var report Report
	exclusively, ok := map[Dialect]func(context.Context, *sql.DB, func(*sql.DB) error) error{
		Postgres: exclusivelyOnPostgres,
		SQLite:   exclusivelyOnSQLite,
	}[d]
	if !ok {
		return report, fmt.Errorf("migrations: unknown dialect %q", d)
	}
	err := exclusively(ctx, db, func(session *sql.DB) (err error) {
		report, err = migrate(ctx, session, d)
		return err
	})
	if err != nil && d == SQLite {
		report = Report{}
	}
	return report, err
}

// migrate does the work of Up. It has the schema for itself.
func migrate(ctx context.Context, session *sql.DB, d Dialect) (Report, error) {
	steps, err := steps(d)
	if err != nil {
		return Report{}, err
	}
	before, err := survey(ctx, session, d)
	if err != nil {
		return Report{}, err
	}
	report := Report{Version: before.version(), Needed: steps[len(steps)-1].Version}
	if report.Version >= report.Needed {
		return report, nil
	}
	if before.takeOver {
		if report.Warnings, err = takeOver(ctx, session, before.versionTable); err != nil {
			return report, err
		}
		report.TakenOver = alembicHead
	}
	failure := runSteps(ctx, session, d)
	if failure != nil && d == SQLite {
		return report, failure
	}
	// A done ctx may be the very failure; what has been applied is still of use.
	after, err := readApplied(context.WithoutCancel(ctx), session)
	if err != nil {
		return report, errors.Join(failure, err)
	}
	report.Version = after.version()
	report.Applied = slices.DeleteFunc(after.mark(steps), func(step Step) bool {
		_, earlier := before.applied[step.Version]
		recorded := before.takeOver && step.Version == baseline
		return step.State != Applied || earlier || recorded
	})
	return report, failure
}

// runSteps lets goose run the steps that are missing.
func runSteps(ctx context.Context, session *sql.DB, d Dialect) error {
	dialect := map[Dialect]database.Dialect{Postgres: goose.DialectPostgres, SQLite: goose.DialectSQLite3}[d]
	folder, err := fs.Sub(files, string(d))
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(dialect, session, folder,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	for err == nil {
		err = runStep(ctx, session, provider, folder, d)
	}
	if errors.Is(err, goose.ErrNoNextVersion) {
		return nil
	}
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		name := strings.TrimSuffix(partial.Failed.Source.Path, ".sql")
		return fmt.Errorf("step %s: %w", name, explainLockTimeout(ctx, session, partial.Err))
	}
	return err
}

// runStep lets goose run the next step, or returns goose.ErrNoNextVersion.
func runStep(ctx context.Context, session *sql.DB, provider *goose.Provider, folder fs.FS, d Dialect) error {
	next := func() error {
		_, err := provider.UpByOne(ctx)
		return err
	}
	if d == SQLite {
		return next()
	}
	done, err := provider.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	for _, source := range provider.ListSources() { // by number
		if source.Version <= done {
			continue
		}
		text, err := fs.ReadFile(folder, source.Path)
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte("+goose NO TRANSACTION")) {
			return givingWay(ctx, session, next)
		}
		break
	}
	return next()
}

// steps lists the steps of a dialect, all pending.
func steps(d Dialect) ([]Step, error) {
	entries, err := files.ReadDir(string(d)) // sorted by name, and so by number
	if err != nil {
		return nil, fmt.Errorf("migrations: unknown dialect %q", d)
	}
	steps := make([]Step, 0, len(entries))
	for _, entry := range entries {
		version, err := goose.NumericComponent(entry.Name())
		if err != nil {
			return nil, err
		}
		_, name, _ := strings.Cut(strings.TrimSuffix(entry.Name(), ".sql"), "_")
		steps = append(steps, Step{Version: version, Name: name, State: Pending})
	}
	return steps, nil
}
