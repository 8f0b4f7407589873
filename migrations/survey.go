package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// baseline is the step that makes the six approved tables.
const baseline = int64(1)

// ours are our own tables and the steps that make them.
var ours = []struct {
	table, what string
	step        int64
}{
	{"charge", "ledger", 2},
	{"billing_run", "list of runs", 7},
	{"audit", "audit", 8},
	{"installation", "installation", 9},
}

// approved are the six tables of the baseline, in the order of their names.
var approved = []string{
	"club", "club_status", "club_status_history", "status", "subscription", "subscription_status_history",
}

// querier is what *sql.DB and *sql.Conn have in common for reading.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// found is what is in the schema before anything is changed.
type found struct {
	applied      map[int64]time.Time // the recorded steps
	versionTable bool                // whether there is one; it may be empty
	takeOver     bool                // an Alembic database, not taken over yet
}

func (f found) version() int64 {
	version := int64(0)
	for v := range f.applied {
		version = max(version, v)
	}
	return version
}

// Refusal is the error for a database that is neither empty, nor Drayman's, nor
// the known Alembic baseline. Nothing has been written to it.
type Refusal struct {
	// Findings say, a line each, what was found or what is missing.
	Findings []string
}

// Error names the first dozen findings.
func (r *Refusal) Error() string {
	const most = 12
	shown := r.Findings
	if len(shown) > most {
		shown = append(slices.Clone(shown[:most]), fmt.Sprintf("and %d more differences", len(shown)-most))
	}
	return "nothing was changed: expected an empty schema, one of Drayman's, or the six approved tables of Alembic revision " +
		alembicHead + ":\n  " + strings.Join(shown, "\n  ")
}

// survey reads what is in the schema. If Up must not touch it, the error is a *Refusal,
// or names the encoding; then it has looked at no table.
func survey(ctx context.Context, q querier, d Dialect) (found, error) {
	if err := checkEncoding(ctx, q, d); err != nil {
		return found{}, fmt.Errorf("nothing was changed: %w", err)
	}
	names, err := relations(ctx, q, d)
	if err != nil {
		return found{}, fmt.Errorf("reading the schema, nothing was changed: %w", err)
	}
	var f found
	if names[versionTable] {
		if f, err = readApplied(ctx, q); err != nil {
			return found{}, err
		}
	}
	var findings []string
	if _, known := f.applied[baseline]; !known {
		if findings, err = refuse(ctx, q, d, names); err != nil {
			return found{}, fmt.Errorf("reading the schema, nothing was changed: %w", err)
		}
		f.takeOver = names[alembicTable]
	}
	for _, o := range ours {
		if f.version() < o.step && names[o.table] {
			findings = append(findings, fmt.Sprintf("found: a table %s that is not Drayman's %s", o.table, o.what))
		}
	}
	if len(findings) > 0 {
		return found{}, &Refusal{Findings: findings}
	}
	return f, nil
}

// refuse returns what is wrong about a schema in which no baseline is recorded,
// and nothing if it is empty or an Alembic database as expected.
func refuse(ctx context.Context, q querier, d Dialect, names map[string]bool) ([]string, error) {
	var there, missing []string
	for _, table := range approved {
		if names[table] {
			there = append(there, table)
		} else {
			missing = append(missing, table)
		}
	}
	switch {
	case !names[alembicTable] && len(there) == 0:
		return nil, nil
	case !names[alembicTable]:
		return []string{"found: " + strings.Join(there, ", ") + ", but no " + alembicTable}, nil
	case d == SQLite:
		return []string{"found: " + alembicTable + ", but only on PostgreSQL a database can be taken over"}, nil
	}
	findings, err := compareHead(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return append(findings, "missing: the tables "+strings.Join(missing, ", ")), nil
	}
	differences, err := compareBaseline(ctx, q)
	return append(findings, differences...), err
}

// relations returns which names of interest are taken in the schema, by whatever
// kind of relation.
func relations(ctx context.Context, q querier, d Dialect) (map[string]bool, error) {
	known := append(slices.Clone(approved), alembicTable, versionTable)
	for _, o := range ours {
		known = append(known, o.table)
	}
	wanted := "'" + strings.Join(known, "', '") + "'"
	query := `SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = current_schema() AND c.relname IN (` + wanted + `)`
	if d == SQLite {
		query = `SELECT name FROM sqlite_master WHERE name IN (` + wanted + `)`
	}
	lines, err := queryLines(ctx, q, query)
	names := make(map[string]bool, len(lines))
	for _, name := range lines {
		names[name] = true
	}
	return names, err
}

// readApplied reads the version table, which must exist. Goose's row of version
// 0 is no step.
func readApplied(ctx context.Context, q querier) (found, error) {
	f := found{applied: map[int64]time.Time{}, versionTable: true}
	rows, err := q.QueryContext(ctx, "SELECT version_id, tstamp FROM "+versionTable+" WHERE version_id > 0 ORDER BY id")
	if err != nil {
		return f, fmt.Errorf("reading %s: %w", versionTable, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err below tells what went wrong
	for rows.Next() {
		var version int64
		var at time.Time
		if err := rows.Scan(&version, &at); err != nil {
			return f, fmt.Errorf("reading %s: %w", versionTable, err)
		}
		f.applied[version] = at.UTC()
	}
	return f, rows.Err()
}

// queryLines returns the one text column of a query.
func queryLines(ctx context.Context, q querier, query string) ([]string, error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err below tells what went wrong
	var lines []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, rows.Err()
}
