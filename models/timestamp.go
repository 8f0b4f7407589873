package models

import (
	"database/sql/driver"
	"time"
)

// timestamp is a "timestamp without time zone", UTC, in microseconds. As text it
// always has six decimals, so that SQLite orders it rightly.
type timestamp struct{ time.Time }

const timestampLayout = "2006-01-02 15:04:05.000000"

// Value implements driver.Valuer.
func (t timestamp) Value() (driver.Value, error) {
	return t.UTC().Format(timestampLayout), nil
}

// The moments that are told apart. PostgreSQL has others, and people write them
// by hand: infinity, or a year with a digit too many. They are taken for these,
// since no JSON can carry them; next to all other dates they mean the same.
var (
	earliest = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

// MarshalJSON gives the same text, for batches that cross as JSON.
func (t timestamp) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + timestampLayout + `"`)), nil
}

// Scan implements sql.Scanner, for the tables that are ours. A time that cannot be
// read, which only a change by hand leaves there, is taken for one long ago: so a
// claim is not held by it, and a request not believed unsent.
func (t *timestamp) Scan(src any) error {
	read, ok := readTime(src)
	if !ok {
		read = time.Unix(0, 0)
	}
	t.Time = *within4Digits(&read)
	return nil
}

// newTimestamp and timeOf convert from and to the nullable times of billing.
func newTimestamp(t *time.Time) *timestamp {
	if t == nil {
		return nil
	}
	return &timestamp{*t}
}

func timeOf(t *timestamp) *time.Time {
	if t == nil {
		return nil
	}
	return &t.Time
}
