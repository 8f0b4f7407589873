package models

import (
	"database/sql/driver"
	"regexp"
	"strings"
	"unicode/utf8"

	"modernc.org/sqlite"
)

// init registers our functions for SQL on SQLite. They are for queries only: the
// sqlite3 shell could not write to a table whose index or trigger used one.
func init() {
	for name, function := range map[string]struct {
		arguments int32
		call      func(arguments []driver.Value) driver.Value
	}{
		// drayman_time(x) is the time x as a text that is ordered as the times are,
		// null if it cannot be read.
		"drayman_time": {1, func(x []driver.Value) driver.Value {
			if t, ok := readTime(x[0]); ok {
				return plainTime(t)
			}
			return nil
		}},
		// drayman_text(x) is the text x; null if JSON, and so Temporal and the shop, would
		// not carry it unchanged.
		"drayman_text": {1, func(x []driver.Value) driver.Value {
			if text, ok := x[0].(string); ok && isCarried(text) {
				return text
			}
			return nil
		}},
		// drayman_plain(owner, id, effect_date, create_date) says whether SQL may compare a
		// row of a status history as it is. Nearly all are so, and reading each date by
		// our functions would make a list take three times as long.
		"drayman_plain": {4, func(x []driver.Value) driver.Value { return isPlainRow(x[0], x[1], x[2], x[3]) }},
	} {
		sqlite.MustRegisterFunction(name, &sqlite.FunctionImpl{
			NArgs: function.arguments, Deterministic: true,
			VolatileArgs: true, // else a text would end at its first NUL
			Scalar: func(_ *sqlite.FunctionContext, arguments []driver.Value) (driver.Value, error) {
				return function.call(arguments), nil
			},
		})
	}
}

// isCarried reports whether a text crosses JSON unchanged. A database in UTF-8
// holds no other, but SQLite's takes any bytes for text.
func isCarried(text string) bool { return utf8.ValidString(text) && !strings.Contains(text, "\x00") }

func isPlainRow(owner, id, effect, create driver.Value) bool {
	if _, ok := id.(string); !ok {
		return false
	}
	if text, ok := owner.(string); ok && !isCarried(text) {
		return false
	} else if _, blob := owner.([]byte); blob {
		return false
	}
	return isPlainOrNull(effect) && (create == effect || isPlainOrNull(create))
}

func isPlainOrNull(v driver.Value) bool {
	text, ok := v.(string)
	return v == nil || ok && isPlain(text)
}

// statusQuery finds the status subqueries in a statement: see [subscriptionStatusAt].
var statusQuery = regexp.MustCompile(`(?s)\(SELECT h\.(?:(?:club_)?status_)?id FROM (\w+) h\s+WHERE h\.(\w+) = (\w\.id) AND .*? LIMIT 1\)`)

// onSQLite adapts a statement to SQLite, whose columns hold values of any type.
//
// A status subquery goes two ways: over the index as it stands, if all rows of the
// history are plain, and by the values that our functions read otherwise.
func onSQLite(text string) string {
	text = statusQuery.ReplaceAllStringFunc(text, func(query string) string {
		m := statusQuery.FindStringSubmatch(query)
		table, of, owner := m[1], m[2], m[3]
		careful := strings.NewReplacer(
			"h.effect_date", "drayman_time(h.effect_date)", "h.create_date", "drayman_time(h.create_date)",
			"h.id COLLATE", "CAST(h.id AS TEXT) COLLATE", " = s.id", " = drayman_text(s.id)",
		).Replace(query)
		return "CASE WHEN EXISTS (SELECT 1 FROM " + table + " h WHERE h." + of + " = " + owner +
			" AND NOT drayman_plain(" + owner + ", h.id, h.effect_date, h.create_date)) THEN " + careful + " ELSE " + query + " END"
	})
	return strings.NewReplacer(
		`COLLATE "C"`, "COLLATE BINARY",
		"s.club_id + 0", "+s.club_id", // to SQLite '1st' + 0 is 1
		"s.customer_store_id", "drayman_text(s.customer_store_id)",
		"k.store_sku", "CASE typeof(k.store_sku) WHEN 'integer' THEN k.store_sku END",
	).Replace(text)
}
