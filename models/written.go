package models

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gorm.io/gorm"

	"drayman/billing"
)

// The approved tables hold what people write. PostgreSQL's columns have types;
// SQLite keeps whatever it is given. The types of this file read such a value, and
// never fail: what cannot be read counts as null.

// written is a time of an approved table, as somebody wrote it.
type written struct {
	at         *time.Time
	unreadable *string // what stands there, if it is no time
}

// Scan implements sql.Scanner. On SQLite the driver must not have converted the
// value: see [columns].
func (w *written) Scan(src any) error {
	*w = written{}
	if src == nil {
		return nil
	}
	if t, ok := readTime(src); ok {
		w.at = &t
		return nil
	}
	text := fmt.Sprint(src)
	if blob, ok := src.([]byte); ok {
		text = "x'" + hex.EncodeToString(blob[:min(len(blob), longestShown)]) + "'"
	}
	text = storable(text, longestShown)
	w.unreadable = &text
	return nil
}

// longestShown is how much of an unreadable value is shown, in characters.
const longestShown = 64

// Value implements driver.Valuer.
func (w written) Value() (driver.Value, error) {
	if w.at == nil {
		return nil, nil
	}
	return timestamp{*w.at}.Value()
}

// whole is an integer of an approved table.
type whole struct{ n *int }

// Scan implements sql.Scanner.
func (w *whole) Scan(src any) error {
	*w = whole{}
	if n, ok := src.(int64); ok {
		w.n = new(int(n))
	}
	return nil
}

// Value implements driver.Valuer.
func (w whole) Value() (driver.Value, error) {
	if w.n == nil {
		return nil, nil
	}
	return int64(*w.n), nil
}

// columns lists the columns of a table for a SELECT. The driver of SQLite converts
// columns of the type timestamp by rules of its own; the plus, which changes no
// value, hides the type from it.
func columns(tx *gorm.DB, names ...string) string {
	if Dialect(tx.Name()) == SQLite {
		for i, name := range names {
			names[i] = "+" + name + " AS " + name
		}
	}
	return strings.Join(names, ", ")
}

// unreadable lists the times of a row that cannot be read.
func unreadable(table, id string, effect, create written) []billing.Unreadable {
	var found []billing.Unreadable
	if effect.unreadable != nil {
		found = append(found, billing.Unreadable{Table: table, ID: id, Column: "effect_date", Text: *effect.unreadable})
	}
	if create.unreadable != nil {
		found = append(found, billing.Unreadable{Table: table, ID: id, Column: "create_date", Text: *create.unreadable})
	}
	return found
}

// PostgreSQL's infinity and -infinity, beyond all other times that it has.
var (
	always = time.Date(-1_000_000, 1, 1, 0, 0, 0, 0, time.UTC)
	never  = time.Date(1_000_000, 1, 1, 0, 0, 0, 0, time.UTC)
)

// readTime is the only reader of times, in Go and, as a function, in SQLite's SQL. It
// takes what the drivers give: a time; a text in one of the forms of
// [timeForm], without a zone in UTC; seconds since 1970, from 2000 to 2099, since
// a smaller or greater number is more likely a day such as 20261126, a Julian day
// or milliseconds. The result is UTC, cut to microseconds; a text's lies in the
// years 1 to 9999.
func readTime(src any) (time.Time, bool) {
	switch v := src.(type) {
	case time.Time:
		return v.UTC(), true
	case int64:
		return readEpoch(float64(v))
	case float64:
		return readEpoch(v)
	case string:
		return readTimeText(v)
	}
	return time.Time{}, false
}

func readEpoch(seconds float64) (time.Time, bool) {
	const from, to = 946_684_800, 4_102_444_800 // 2000-01-01, 2100-01-01
	if !(seconds >= from && seconds < to) {     // NaN is neither
		return time.Time{}, false
	}
	return time.UnixMicro(int64(math.Round(seconds * 1e6))).UTC(), true
}

// timeForm has a date, and may have a time after a T or a space, with a fraction
// after a point or a comma and a zone: Z, UTC or an offset.
var timeForm = regexp.MustCompile(`^\s*([0-9]{4}-[0-9]{2}-[0-9]{2})` +
	`(?:[Tt ]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?(?: ?(?:[Zz]|UTC|([+-])([0-9]{2}):?([0-9]{2})?(?: UTC)?))?)?\s*$`)

func readTimeText(text string) (time.Time, bool) {
	if isPlain(text) {
		t, err := time.Parse(timestampLayout, text)
		return t, err == nil
	}
	switch strings.ToLower(text) {
	case "infinity":
		return never, true
	case "-infinity":
		return always, true
	}
	m := timeForm.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	day, err := time.Parse(time.DateOnly, m[1])
	hour, minute, second := number(m[2]), number(m[3]), number(m[4])
	fraction := number((m[5] + "000000")[:6])
	zoneHour, zoneMinute := number(m[7]), number(m[8])
	switch {
	case err != nil, minute > 59, second > 60, zoneHour > 23, zoneMinute > 59,
		hour > 24, hour == 24 && minute+second+fraction > 0:
		return time.Time{}, false
	}
	offset := time.Duration(zoneHour)*time.Hour + time.Duration(zoneMinute)*time.Minute
	if m[6] == "-" {
		offset = -offset
	}
	// A 24:00 and a second 60 are the next day and the next minute, as to PostgreSQL.
	t := day.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second +
		time.Duration(fraction)*time.Microsecond - offset)
	return t, t.Year() >= 1 && t.Year() <= 9999
}

// number is that of some digits; 0 for none.
func number(digits string) int {
	n, _ := strconv.Atoi(digits) // the form has digits only
	return n
}

// isPlain reports whether the text is a time as we write it, which SQLite orders
// correctly as text. A list asks it of every row, so it seldom calls time.Parse.
func isPlain(text string) bool {
	if len(text) != len(timestampLayout) {
		return false
	}
	for i := range len(timestampLayout) {
		switch c := timestampLayout[i]; c {
		case '-', ' ', ':', '.':
			if text[i] != c {
				return false
			}
		default:
			if text[i]-'0' > 9 {
				return false
			}
		}
	}
	year, month, day, hour, minute, second := text[:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:19]
	if year < "0001" || month < "01" || month > "12" || day < "01" || hour > "23" || minute > "59" || second > "59" {
		return false
	}
	if day <= "28" {
		return true
	}
	_, err := time.Parse(timestampLayout, text)
	return err == nil
}

// plainTime is the text, ordered as the times are, of any time.
func plainTime(t time.Time) string {
	switch t {
	case always:
		return "-infinity"
	case never:
		return "infinity"
	}
	return t.Format(timestampLayout)
}

// shown is the row as JSON can carry it: see [earliest]. Decide first, then show.
func shown(c billing.Change) billing.Change {
	c.EffectDate, c.CreateDate = within4Digits(c.EffectDate), within4Digits(c.CreateDate)
	return c
}

func within4Digits(t *time.Time) *time.Time {
	switch {
	case t == nil:
		return nil
	case t.Before(earliest):
		return new(earliest)
	case t.After(latest):
		return new(latest)
	}
	return t
}
