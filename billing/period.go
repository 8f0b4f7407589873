package billing

import (
	"cmp"
	"fmt"
	"time"
)

// Period is a calendar month in the billing time zone, written "2026-11". The
// zero value is no period.
type Period struct {
	year  int
	month time.Month
}

// PeriodAt returns the period in which t lies in the zone.
func PeriodAt(t time.Time, zone *time.Location) Period {
	local := t.In(zone)
	return Period{year: local.Year(), month: local.Month()}
}

// ParsePeriod reads "2026-11": four digits, a hyphen, a month from 01 to 12. Its
// error has [CodeInvalid].
func ParsePeriod(s string) (Period, error) {
	// time.Parse alone would do, but for its tolerance of forms like "2026-1".
	t, err := time.Parse("2006-01", s)
	if err != nil || len(s) != len("2006-01") || t.Year() == 0 {
		return Period{}, Period{}.Validate()
	}
	return Period{year: t.Year(), month: t.Month()}, nil
}

// String returns the form that [ParsePeriod] reads; "" for the zero value.
func (p Period) String() string {
	if p.IsZero() {
		return ""
	}
	return fmt.Sprintf("%04d-%02d", p.year, p.month)
}

// LastMicrosecond returns the last microsecond of the period in the zone, in UTC: if
// the clocks go back over midnight, that of the second time.
func (p Period) LastMicrosecond(zone *time.Location) time.Time {
	midnight := time.Date(p.year, p.month+1, 1, 0, 0, 0, 0, time.UTC) // as the zone's clocks show it
	// Back from a day later, through the times between two changes of the clock.
	for until := midnight.AddDate(0, 0, 1); ; {
		local := until.Add(-1).In(zone)
		_, offset := local.Zone()
		end := midnight.Add(-time.Duration(offset) * time.Second)
		if until.Before(end) { // put forward over midnight, or back across it
			end = until
		}
		since, _ := local.ZoneBounds()
		if since.IsZero() || end.After(since) {
			return end.Add(-time.Microsecond).UTC()
		}
		until = since
	}
}

// Title returns the period for people: "November 2026".
func (p Period) Title() string { return fmt.Sprintf("%s %d", p.month, p.year) }

// IsZero reports whether p is no period.
func (p Period) IsZero() bool { return p == Period{} }

// Validate returns an error with [CodeInvalid] if p is no period.
func (p Period) Validate() error {
	if p.IsZero() {
		return Invalid("period", "must be a month such as 2026-11")
	}
	return nil
}

// Compare orders periods by time.
func (p Period) Compare(q Period) int {
	return cmp.Or(cmp.Compare(p.year, q.year), cmp.Compare(p.month, q.month))
}

// MarshalText lets a period cross JSON as "2026-11".
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText; "" is the zero value.
func (p *Period) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*p = Period{}
		return nil
	}
	parsed, err := ParsePeriod(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}
