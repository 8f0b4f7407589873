package migrations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/migrations"
)

func TestEncoding_OtherThanUTF8IsRefused(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "LATIN9", "WIN1252", "SQL_ASCII", "EUC_JP", "KOI8R"} {
		for name, fill := range map[string]func(t *testing.T, d database){
			"empty":   func(*testing.T, database) {},
			"alembic": func(t *testing.T, d database) { loadFixture(t, d.db) },
			"migrated": func(t *testing.T, d database) {
				exec(t, d.db, "CREATE TABLE drayman_migration (id integer, version_id bigint, tstamp timestamp)")
				exec(t, d.db, "INSERT INTO drayman_migration VALUES (1, 99, now())")
			},
		} {
			t.Run(encoding+" "+name, func(t *testing.T) {
				t.Parallel()
				d := postgresWith(t, "ENCODING '"+encoding+"' LOCALE 'C'").with(t, "client_encoding", "UTF8")
				fill(t, d)
				requireRefused(t, d, "the database's encoding is "+encoding+" and UTF8 is needed: dump it (pg_dump), "+
					"create a database with TEMPLATE template0 ENCODING 'UTF8', and restore it there")
			})
		}
	}
}

func TestEncoding_UTF16OfSQLiteIsRefused(t *testing.T) {
	t.Parallel()
	for encoding, created := range map[string]string{"UTF-16le": "CREATE TABLE x (y)", "UTF-16be": "CREATE TABLE drayman_migration (version_id)"} {
		d := sqlite(t)
		exec(t, d.db, "PRAGMA encoding = '"+encoding+"'")
		exec(t, d.db, created)
		requireRefused(t, d, "the database's encoding is "+encoding+" and UTF-8 is needed: put it into a new file: sqlite3 OLD .dump | sqlite3 NEW")
	}
}

// requireRefused says that nothing is written to the database, and nothing started.
func requireRefused(t *testing.T, d database, refusal string) {
	t.Helper()
	before := dump(t, d)
	_, upErr := migrations.Up(t.Context(), d.db, d.dialect)
	_, statusErr := migrations.Status(t.Context(), d.db, d.dialect)
	require.EqualError(t, upErr, "nothing was changed: "+refusal)
	require.EqualError(t, statusErr, "nothing was changed: "+refusal)
	require.EqualError(t, migrations.Check(t.Context(), d.db, d.dialect), refusal)
	require.Equal(t, before, dump(t, d))
}
