package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Step is one numbered change of the schema.
type Step struct {
	Version   int64
	Name      string // such as "baseline"
	State     State
	AppliedAt time.Time // UTC; zero unless applied
}

// State says how a step stands, in words for a reader.
type State string

// The states of a step.
const (
	Applied State = "applied"
	Pending State = "pending"
	// ToTakeOver is the state of step 1 on an Alembic database before [Up].
	ToTakeOver State = "baseline found, will be taken over"
)

// newer is the name of an applied step that only a newer program knows.
const newer = "(of a newer version of Drayman)"

// Status lists the steps and how they stand, and writes nothing. For a database
// that [Up] would refuse it returns the same [*Refusal].
func Status(ctx context.Context, db *sql.DB, d Dialect) ([]Step, error) {
	steps, err := steps(d)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx) // all questions to one session: the schema is its schema
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // it only goes back to the pool
	found, err := survey(ctx, conn, d)
	if err != nil {
		return nil, err
	}
	steps = found.mark(steps)
	if found.takeOver {
		steps[0].State = ToTakeOver
	}
	return steps, nil
}

// Check returns nil if the database's encoding is UTF-8 and the schema has the
// version that this program needs, or a newer one, and an error of one line
// otherwise. It is one query, for readiness probes and the start-up.
func Check(ctx context.Context, db *sql.DB, d Dialect) error {
	steps, err := steps(d)
	if err != nil {
		return err
	}
	needed := steps[len(steps)-1].Version
	var version sql.NullInt64
	var encoding string
	failure := db.QueryRowContext(ctx, "SELECT max(version_id), "+encodings[d].query+" FROM "+versionTable).Scan(&version, &encoding)
	if failure == nil {
		err = refuseEncoding(d, encoding)
	} else {
		// Only now it is worth a second query to tell a missing table from a
		// database that does not answer.
		var names map[string]bool
		if names, err = relations(ctx, db, d); err != nil || names[versionTable] {
			return fmt.Errorf("the schema's version cannot be read: %w", failure)
		}
		err = checkEncoding(ctx, db, d)
	}
	if err != nil {
		return err
	}
	if version.Int64 < needed {
		return fmt.Errorf("the database's schema is at version %d and version %d is needed: run `drayman migrate up`",
			version.Int64, needed)
	}
	return nil
}

// mark says of each step how it stands, and adds those that only the database knows.
func (f found) mark(steps []Step) []Step {
	marked := make([]Step, 0, len(steps))
	last := int64(0)
	for _, step := range steps {
		if at, ok := f.applied[step.Version]; ok {
			step.State, step.AppliedAt = Applied, at
		}
		marked = append(marked, step)
		last = step.Version
	}
	for version := last + 1; version <= f.version(); version++ {
		if at, ok := f.applied[version]; ok {
			marked = append(marked, Step{Version: version, Name: newer, State: Applied, AppliedAt: at})
		}
	}
	return marked
}
