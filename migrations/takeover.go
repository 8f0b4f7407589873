package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/pressly/goose/v3/database"
)

const (
	alembicTable = "alembic_version"
	// alembicHead is the revision that the Python version deployed.
	alembicHead = "6640484e5703"
)

// lookups are the rows of the lookup tables that Drayman's status ids refer to.
var lookups = []string{
	"status 1 ATIVO", "status 2 CANCELADO", "status 3 PAUSADO",
	"club_status 1 ATIVO", "club_status 2 FECHADO", "club_status 3 INATIVO",
}

// compareHead returns what is wrong about alembic_version, and nothing if it
// holds the known head.
func compareHead(ctx context.Context, q querier) ([]string, error) {
	heads, err := queryLines(ctx, q, "SELECT version_num::text FROM "+alembicTable+" ORDER BY version_num")
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", alembicTable, err)
	}
	if slices.Equal(heads, []string{alembicHead}) {
		return nil, nil
	}
	if len(heads) == 0 {
		heads = []string{"no revision"}
	}
	return []string{fmt.Sprintf("found: %s holds %s, expected one row: %s",
		alembicTable, strings.Join(heads, " and "), alembicHead)}, nil
}

// compareBaseline returns the differences between the six tables and step 1, and
// nothing if there are none. The names of constraints and the order of columns
// do not count: nothing depends on them, and a restored copy may have others. Further
// tables and indexes that are not unique do not count either. A further column,
// constraint or unique index does: it would not be the approved model.
func compareBaseline(ctx context.Context, q querier) ([]string, error) {
	lines, err := queryLines(ctx, q, describeTables)
	if err != nil {
		return nil, err
	}
	extra := lines
	var differences []string
	for _, expected := range strings.Split(strings.TrimSpace(baselineDescription), "\n") {
		if i := slices.Index(extra, expected); i >= 0 {
			extra = slices.Delete(extra, i, i+1)
		} else {
			differences = append(differences, "missing: "+expected)
		}
	}
	for _, line := range extra {
		differences = append(differences, "found: "+line)
	}
	return differences, nil
}

// takeOver records the baseline as applied. It reads the lookup rows and leaves
// them as they are, since people own them, but returns a warning for each that
// is not as Drayman's status ids have it.
func takeOver(ctx context.Context, session *sql.DB, versionTableExists bool) (warnings []string, err error) {
	rows, err := queryLines(ctx, session, `SELECT format('status %s %s', id, name) FROM status
		UNION ALL SELECT format('club_status %s %s', id, name) FROM club_status`)
	if err != nil {
		return nil, fmt.Errorf("reading the lookup tables, nothing was changed: %w", err)
	}
	for _, expected := range lookups {
		if !slices.Contains(rows, expected) {
			warnings = append(warnings, "the lookup row "+expected+" is missing or has another name; it was left so, check it")
		}
	}
	if err := recordBaseline(ctx, session, versionTableExists); err != nil {
		return nil, fmt.Errorf("recording the baseline, nothing was changed: %w", err)
	}
	return warnings, nil
}

func recordBaseline(ctx context.Context, session *sql.DB, versionTableExists bool) error {
	store, err := database.NewStore(database.DialectPostgres, versionTable)
	if err != nil {
		return err
	}
	tx, err := session.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	versions := []int64{baseline}
	if !versionTableExists {
		if err := store.CreateVersionTable(ctx, tx); err != nil {
			return err
		}
		versions = []int64{0, baseline} // goose wants its row of version 0
	}
	for _, version := range versions {
		if err := store.Insert(ctx, tx, database.InsertRequest{Version: version}); err != nil {
			return err
		}
	}
	return tx.Commit()
}
