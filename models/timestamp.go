package models

import (
	"database/sql/driver"
	"time"
)

// timestamp is a "timestamp without time zone", UTC, in microseconds. As text it
// always has six decimals, so that SQLite orders it by time.
type timestamp struct{ time.Time }

const timestampLayout = "2006-01-02 15:04:05.000000"

// Value implements driver.Valuer.
func (t timestamp) Value() (driver.Value, error) {
	return t.UTC().Format(timestampLayout), nil
}

// The earliest and the latest time that JSON can carry. PostgreSQL has others, which
// people write by hand: infinity, or a year with a digit too many. They are read as
// these; compared with all other dates they mean the same.
var (
	earliest = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

// MarshalJSON gives the same text, for batches that cross as JSON.
func (t timestamp) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + timestampLayout + `"`)), nil
}

// Scan implements sql.Scanner, for our own tables. A time that cannot be read, which
// only a change by hand leaves there, is read as one long ago: then it holds no claim,
// and does not make a request count as unsent.
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
