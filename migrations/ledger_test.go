package migrations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/migrations"
)

// insertCharge returns the error of inserting a charge for the subscription s.
func insertCharge(t *testing.T, d database, requestID, period, status string) error {
	t.Helper()
	_, err := d.db.ExecContext(t.Context(), `INSERT INTO charge
		(request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
		VALUES ($1, 's', $2, $3, 'test', 'customer', 1, '2026-11-01 00:00:00')`, requestID, period, status)
	return err
}

func TestOneChargeOfAPeriodIsOpen(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		for _, id := range []string{"declined-1", "declined-2", "declined-3"} {
			require.NoError(t, insertCharge(t, d, id, "2026-11", "declined"))
			require.NoError(t, insertCharge(t, d, "w"+id, "2026-11", "withdrawn"))
		}
		require.NoError(t, insertCharge(t, d, "open-1", "2026-11", "pending"))
		for _, status := range []string{"pending", "charged", "unresolved"} {
			require.Error(t, insertCharge(t, d, "open-2", "2026-11", status), "two orders in one month")
		}
		require.NoError(t, insertCharge(t, d, "declined-4", "2026-11", "declined"))
		require.NoError(t, insertCharge(t, d, "open-2", "2026-12", "pending"), "another month")

		// A decline makes room for a new attempt; none can turn back then.
		exec(t, d.db, "UPDATE charge SET status = 'declined' WHERE request_id = 'open-1'")
		require.NoError(t, insertCharge(t, d, "open-3", "2026-11", "charged"))
		_, err := d.db.ExecContext(t.Context(), "UPDATE charge SET status = 'pending' WHERE request_id = 'open-1'")
		require.Error(t, err)
	})
}

// The columns that the database works out follow every change, also one by hand.
func TestTheLedger_GeneratedColumns(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		require.NoError(t, insertCharge(t, d, "r", "2026-11", "pending"))
		for _, c := range []struct{ status, until, closed, open string }{
			{"pending", "NULL", "", "2026-11"},
			{"pending", "'2026-11-01 00:00:00'", "", "none"},
			{"unresolved", "NULL", "", "2026-11"},
			{"unresolved", "'2026-11-01 00:00:00'", "", "none"},
			{"charged", "NULL", "", "none"},
			{"declined", "NULL", "r", "none"},
			{"withdrawn", "NULL", "r", "none"},
			{"pending", "NULL", "", "2026-11"},
		} {
			exec(t, d.db, "UPDATE charge SET status = '"+c.status+"', claimed_until = "+c.until)
			require.Equal(t, []string{c.closed + "/" + c.open}, lines(t, d.db, "SELECT closed_as || '/' || COALESCE(open_in, 'none') FROM charge"), c)
		}
		exec(t, d.db, "UPDATE charge SET period = '2026-12', request_id = 'q', status = 'withdrawn'")
		require.Equal(t, []string{"q"}, lines(t, d.db, "SELECT closed_as FROM charge"))
		exec(t, d.db, "UPDATE charge SET status = 'pending'")
		require.Equal(t, []string{"2026-12"}, lines(t, d.db, "SELECT open_in FROM charge"))
		for _, column := range []string{"closed_as", "open_in"} {
			_, err := d.db.ExecContext(t.Context(), "UPDATE charge SET "+column+" = '2026-12'")
			require.Error(t, err)
		}
	})
}

func TestTheLedgerRefusesNonsense(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		require.NoError(t, insertCharge(t, d, "r", "2026-11", "pending"))
		require.Error(t, insertCharge(t, d, "r", "2026-12", "pending"), "a request id twice")
		require.Error(t, insertCharge(t, d, "q", "2026-12", "paid"))
		for _, period := range []string{"", "202611", "2026-1", "26-11", "2026/11", "2026-11\n", "x2026-11"} {
			require.Error(t, insertCharge(t, d, "q", period, "pending"), period)
		}
		require.Equal(t, []string{"0"}, lines(t, d.db, "SELECT CAST(attempts AS text) FROM charge"))
	})
}

func TestTheLedgerKeepsNobodyFromDeleting(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		exec(t, d.db, "INSERT INTO club (id, name) VALUES (1, 'club')")
		exec(t, d.db, "INSERT INTO subscription (id, club_id) VALUES ('s', 1)")
		exec(t, d.db, "INSERT INTO subscription_status_history (id, subscription_id, status_id) VALUES ('h', 's', 1)")
		require.NoError(t, insertCharge(t, d, "r", "2026-11", "charged"))
		exec(t, d.db, "UPDATE charge SET club_id = 1")

		for _, table := range []string{
			"subscription_status_history", "subscription", "club_status_history", "club", "status", "club_status",
		} {
			exec(t, d.db, "DELETE FROM "+table)
		}

		require.Equal(t, []string{"r"}, lines(t, d.db, "SELECT request_id FROM charge"))
	})
}

// Ids are ordered by bytes on a database of any collation.
func TestIDsAreOrderedByBytes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d database) {
		up(t, d)
		for _, id := range []string{"b", "B", "a", "-", "ä"} {
			require.NoError(t, insertCharge(t, d, id, "2026-11", "declined"))
		}
		require.Equal(t, []string{"-", "B", "a", "b", "ä"}, lines(t, d.db, "SELECT request_id FROM charge ORDER BY request_id"))
		if d.dialect == migrations.Postgres { // the test's database may happen to order by bytes itself
			require.Equal(t, []string{"closed_as", "open_in", "period", "request_id", "subscription_id"}, lines(t, d.db,
				"SELECT column_name::text FROM information_schema.columns WHERE table_name = 'charge' AND collation_name = 'C' ORDER BY 1"))
		}
	})
}

func TestAnUnknownDialectIsAnError(t *testing.T) {
	t.Parallel()
	d := sqlite(t)
	_, err := migrations.Up(t.Context(), d.db, "oracle")
	require.ErrorContains(t, err, `unknown dialect "oracle"`)
	_, err = migrations.Status(t.Context(), d.db, "oracle")
	require.ErrorContains(t, err, "oracle")
	require.ErrorContains(t, migrations.Check(t.Context(), d.db, "oracle"), "oracle")
}
