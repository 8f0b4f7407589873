package migrations

import (
	"context"
	"fmt"
)

// encodings say what encoding the database keeps its texts in, and which one it
// needs to. In any other encoding the bytes of names and ids would have two meanings; in
// SQLite's UTF-16 they are not even ordered by code points.
var encodings = map[Dialect]struct{ query, needed, fix string }{
	Postgres: {
		"current_setting('server_encoding')", "UTF8",
		"dump it (pg_dump), create a database with TEMPLATE template0 ENCODING 'UTF8', and restore it there",
	},
	SQLite: {
		"(SELECT encoding FROM pragma_encoding)", "UTF-8",
		"put it into a new file: sqlite3 OLD .dump | sqlite3 NEW",
	},
}

// refuseEncoding returns an error of one line unless the encoding found is the one
// that is needed.
func refuseEncoding(d Dialect, found string) error {
	if e := encodings[d]; found != e.needed {
		return fmt.Errorf("the database's encoding is %s and %s is needed: %s", found, e.needed, e.fix)
	}
	return nil
}

// checkEncoding reads nothing but the encoding, which needs no table.
func checkEncoding(ctx context.Context, q querier, d Dialect) error {
	found, err := queryLines(ctx, q, "SELECT "+encodings[d].query)
	if err != nil {
		return fmt.Errorf("reading the database's encoding: %w", err)
	}
	return refuseEncoding(d, found[0])
}
