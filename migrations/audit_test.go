package migrations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/migrations"
)

// Nobody changes what the audit has, not even by accident.
func TestAudit_OnlyInsertedInto(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		const row = "(at, actor, action, subject, reason) VALUES ('2026-11-01 00:00:00', 'Ana', 'charge.correct', 'charge/r', 'a test')"
		exec(t, d.db, "INSERT INTO audit "+row)
		exec(t, d.db, "INSERT INTO audit "+row)
		const all = "SELECT CAST(id AS text) || ' ' || actor || ' ' || reason FROM audit ORDER BY id"
		want := []string{"1 Ana a test", "2 Ana a test"}
		require.Equal(t, want, lines(t, d.db, all))

		statements := []string{
			"UPDATE audit SET actor = 'Bob'", "UPDATE audit SET reason = reason WHERE id = 1", "DELETE FROM audit WHERE id = 2", "DELETE FROM audit",
		}
		if d.dialect == migrations.SQLite {
			const same = "(id, at, action, subject, reason) VALUES (1, '2026-11-01 00:00:00', 'other', 'other', 'other')"
			statements = append(statements, "INSERT OR REPLACE INTO audit "+same, "REPLACE INTO audit "+same,
				"INSERT INTO audit "+same+" ON CONFLICT (id) DO UPDATE SET actor = 'Bob'", "UPDATE OR REPLACE audit SET id = 2 WHERE id = 1")
		} else {
			const same = "(id, at, action, subject, reason) OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-01 00:00:00', 'other', 'other', 'other')"
			statements = append(statements, "TRUNCATE audit", "TRUNCATE club, audit CASCADE",
				"INSERT INTO audit "+same+" ON CONFLICT (id) DO UPDATE SET actor = 'Bob'", "MERGE INTO audit USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE")
		}
		for _, statement := range statements {
			_, err := d.db.ExecContext(t.Context(), statement)
			require.ErrorContains(t, err, "neither changed nor deleted", statement)
		}
		require.Equal(t, want, lines(t, d.db, all))
	})
}
