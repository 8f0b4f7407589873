package models

import (
	"database/sql/driver"
	"fmt"
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

// Scan implements sql.Scanner, for what pgx and modernc.org/sqlite give.
func (t *timestamp) Scan(src any) error {
	switch v := src.(type) {
	case time.Time:
		t.Time = time.Date(v.Year(), v.Month(), v.Day(), v.Hour(), v.Minute(), v.Second(), v.Nanosecond(), time.UTC)
		if t.Before(earliest) {
			t.Time = earliest
		} else if t.After(latest) {
			t.Time = latest
		}
		return nil
	case string:
		if bound, ok := map[string]time.Time{"-infinity": earliest, "infinity": latest}[v]; ok {
			t.Time = bound
			return nil
		}
		for _, layout := range []string{timestampLayout, "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02"} {
			if parsed, err := time.Parse(layout, v); err == nil {
				t.Time = parsed
				return nil
			}
		}
	}
	return fmt.Errorf("models: %v (%T) is no timestamp", src, src)
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
