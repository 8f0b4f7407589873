package migrations_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/migrations"
)

const alembicHead = "6640484e5703"

var alembicTables = []string{
	"alembic_version", "club", "club_status", "club_status_history", "status", "subscription", "subscription_status_history",
}

func TestUpTakesOverAnAlembicDatabase(t *testing.T) {
	t.Parallel()
	d := alembic(t)
	rows := rowsOf(t, d, alembicTables...)
	shape := withoutOurs(schema(t, d))
	untouched := dump(t, d)

	steps, err := migrations.Status(t.Context(), d.db, d.dialect)
	require.NoError(t, err)
	require.Equal(t, migrations.ToTakeOver, steps[0].State)
	require.Equal(t, migrations.Pending, steps[1].State)
	require.ErrorContains(t, migrations.Check(t.Context(), d.db, d.dialect), "run `drayman migrate up`")
	require.Equal(t, untouched, dump(t, d), "Status and Check must not write")

	report := up(t, d)

	require.Equal(t, alembicHead, report.TakenOver)
	require.Empty(t, report.Warnings)
	require.Equal(t, versions(latest)[1:], versionsOf(report.Applied))
	require.EqualValues(t, latest, report.Version)
	require.Equal(t, rows, rowsOf(t, d, alembicTables...))
	require.Equal(t, shape, withoutOurs(schema(t, d)))
	require.NoError(t, migrations.Check(t.Context(), d.db, d.dialect))

	again := up(t, d)
	require.Empty(t, again.TakenOver)
	require.Empty(t, again.Applied)
}

// A new database and one taken over differ in alembic_version only.
func TestTheBaselineIsTheAlembicSchema(t *testing.T) {
	t.Parallel()
	made, taken := postgres(t), alembic(t)
	fixture := slices.DeleteFunc(schema(t, taken), func(line string) bool { return strings.Contains(line, "alembic_version") })
	require.Greater(t, len(fixture), 60)

	up(t, made)
	up(t, taken)

	require.Equal(t, fixture, withoutOurs(schema(t, made)))
	ofTaken := slices.DeleteFunc(schema(t, taken), func(line string) bool { return strings.Contains(line, "alembic_version") })
	require.Equal(t, ofTaken, schema(t, made))
}

func TestUpRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ change, finding string }{
		"another head":           {"UPDATE alembic_version SET version_num = 'abc'", "found: alembic_version holds abc, expected one row: 6640484e5703"},
		"no head":                {"DELETE FROM alembic_version", "alembic_version holds no revision, expected one row"},
		"two heads":              {"INSERT INTO alembic_version VALUES ('abc')", "holds 6640484e5703 and abc, expected one row"},
		"no alembic_version":     {"DROP TABLE alembic_version", "found: club, club_status, club_status_history, status, subscription, subscription_status_history, but no alembic_version"},
		"only alembic_version":   {"DROP TABLE subscription_status_history, subscription, club_status_history, club, status, club_status", "missing: the tables club, club_status, club_status_history, status, subscription, subscription_status_history"},
		"a table missing":        {"DROP TABLE subscription_status_history", "missing: the tables subscription_status_history"},
		"a view for a table":     {"ALTER TABLE subscription_status_history RENAME TO h; CREATE VIEW subscription_status_history AS SELECT * FROM h", "found: relation of kind v subscription_status_history"},
		"a column missing":       {"ALTER TABLE subscription DROP create_date", "missing: column subscription.create_date timestamp without time zone"},
		"a column more":          {"ALTER TABLE club ADD price integer", "found: column club.price integer"},
		"a column renamed":       {"ALTER TABLE club RENAME store_sku TO sku", "missing: column club.store_sku integer"},
		"another type":           {"ALTER TABLE subscription ALTER create_date TYPE timestamptz", "found: column subscription.create_date timestamp with time zone"},
		"another length":         {"ALTER TABLE subscription ALTER customer_store_id TYPE varchar(64)", "found: column subscription.customer_store_id character varying(64)"},
		"another collation":      {`ALTER TABLE subscription ALTER customer_store_id TYPE varchar(36) COLLATE "C"`, "customer_store_id character varying(36) collate C"},
		"not null":               {"ALTER TABLE club ALTER name SET NOT NULL", "found: column club.name character varying(128) not null"},
		"a default":              {"ALTER TABLE club ALTER name SET DEFAULT 'x'", "found: column club.name character varying(128) default 'x'"},
		"no default":             {"ALTER TABLE club ALTER id DROP DEFAULT", "found: column club.id integer not null"},
		"no primary key":         {"ALTER TABLE subscription_status_history DROP CONSTRAINT subscription_status_history_pkey", "missing: constraint on subscription_status_history: PRIMARY KEY (id)"},
		"no foreign key":         {"ALTER TABLE subscription DROP CONSTRAINT subscription_club_id_fkey", "missing: constraint on subscription: FOREIGN KEY (club_id) REFERENCES club(id) ON DELETE RESTRICT"},
		"another delete rule":    {"ALTER TABLE subscription DROP CONSTRAINT subscription_club_id_fkey, ADD FOREIGN KEY (club_id) REFERENCES club ON DELETE CASCADE", "found: constraint on subscription: FOREIGN KEY (club_id) REFERENCES club(id) ON DELETE CASCADE"},
		"a foreign key twice":    {"ALTER TABLE subscription ADD FOREIGN KEY (club_id) REFERENCES club ON DELETE RESTRICT", "found: constraint on subscription: FOREIGN KEY (club_id) REFERENCES club(id) ON DELETE RESTRICT"},
		"a check":                {"ALTER TABLE club ADD CHECK (store_sku > 0)", "found: constraint on club: CHECK ((store_sku > 0))"},
		"a unique constraint":    {"ALTER TABLE subscription ADD UNIQUE (club_id, customer_store_id)", "found: constraint on subscription: UNIQUE (club_id, customer_store_id)"},
		"a unique index":         {"CREATE UNIQUE INDEX x ON subscription (club_id, customer_store_id)", "found: unique index on subscription: CREATE UNIQUE INDEX x"},
		"a charge table":         {"CREATE TABLE charge (id integer)", "found: a table charge that is not Drayman's ledger"},
		"another's audit":        {"CREATE TABLE audit (id integer)", "found: a table audit that is not Drayman's audit"},
		"a charge table, no six": {"DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE charge (id integer)", "found: a table charge that is not Drayman's ledger"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := alembic(t)
			exec(t, d.db, c.change)
			before := dump(t, d)

			_, err := migrations.Up(t.Context(), d.db, d.dialect)
			_, statusErr := migrations.Status(t.Context(), d.db, d.dialect)

			var refusal *migrations.Refusal
			require.ErrorAs(t, err, &refusal)
			require.ErrorContains(t, err, c.finding)
			require.ErrorContains(t, err, "nothing was changed")
			require.ErrorContains(t, err, alembicHead)
			require.EqualError(t, statusErr, err.Error())
			require.Equal(t, before, dump(t, d))
		})
	}
}

func TestUpTakesOverWhatOnlyLooksDifferent(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"names of constraints": "ALTER TABLE subscription RENAME CONSTRAINT subscription_club_id_fkey TO fk",
		"name of a sequence":   "ALTER SEQUENCE club_id_seq RENAME TO clubs",
		"an index":             "CREATE INDEX by_club ON subscription (club_id)",
		"a table more":         "CREATE TABLE notes (id integer REFERENCES club)",
		"order of columns":     "ALTER TABLE club_status_history DROP details; ALTER TABLE club_status_history ADD details varchar(256), DROP effect_date, ADD effect_date timestamp",
		"a trigger":            "CREATE TRIGGER t BEFORE UPDATE ON club FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := alembic(t)
			exec(t, d.db, change)
			require.Equal(t, alembicHead, up(t, d).TakenOver)
		})
	}
}

func TestATakeOverLeavesLookupRowsAndWarns(t *testing.T) {
	t.Parallel()
	d := alembic(t)
	exec(t, d.db, "UPDATE status SET name = 'ACTIVE' WHERE id = 1; DELETE FROM club_status_history; DELETE FROM club_status WHERE id = 2")
	rows := rowsOf(t, d, alembicTables...)

	report := up(t, d)

	require.Len(t, report.Warnings, 2)
	require.Contains(t, report.Warnings[0], "status 1 ATIVO")
	require.Contains(t, report.Warnings[1], "club_status 2 FECHADO")
	require.Equal(t, rows, rowsOf(t, d, alembicTables...))
}

// An interrupted first migration may leave an empty version table behind.
func TestUpGoesOnAfterAnEmptyVersionTable(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]database{"alembic": alembic(t), "empty": postgres(t)} {
		t.Run(name, func(t *testing.T) {
			exec(t, d.db, `CREATE TABLE drayman_migration (id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
				version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now());
				INSERT INTO drayman_migration (version_id, is_applied) VALUES (0, true)`)

			require.EqualValues(t, latest, up(t, d).Version)
			require.Equal(t, []string{fmt.Sprint(latest + 1)}, lines(t, d.db, "SELECT count(*)::text FROM drayman_migration"))
		})
	}
}

func TestSQLiteRefusesAHalfSchema(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ change, finding string }{
		"alembic":      {"CREATE TABLE alembic_version (version_num varchar(32))", "only on PostgreSQL"},
		"one of six":   {"CREATE TABLE club (id integer)", "found: club, but no alembic_version"},
		"a charge":     {"CREATE TABLE charge (id integer)", "not Drayman's ledger"},
		"a later view": {"CREATE VIEW subscription AS SELECT 1", "found: subscription, but no alembic_version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := sqlite(t)
			exec(t, d.db, c.change)
			before := dump(t, d)

			_, err := migrations.Up(t.Context(), d.db, d.dialect)

			var refusal *migrations.Refusal
			require.ErrorAs(t, err, &refusal)
			require.ErrorContains(t, err, c.finding)
			require.Equal(t, before, dump(t, d))
		})
	}
}

func TestUpWorksInTheCurrentSchemaOnly(t *testing.T) {
	t.Parallel()
	public := alembic(t)
	before := dump(t, public)
	exec(t, public.db, `CREATE SCHEMA "Odd ""schema"`)
	odd := public.with(t, "search_path", `"Odd ""schema", public`)

	require.Equal(t, versions(latest), versionsOf(up(t, odd).Applied), "public's tables are not of this schema")
	require.NoError(t, migrations.Check(t.Context(), odd.db, odd.dialect))
	after := slices.DeleteFunc(dump(t, public), func(line string) bool { return strings.Contains(line, "Odd") })
	require.Equal(t, before, after)

	exec(t, public.db, "CREATE SCHEMA taken")
	taken := public.with(t, "search_path", "taken")
	loadFixture(t, taken.db)
	require.Equal(t, alembicHead, up(t, taken).TakenOver)

	nowhere := public.with(t, "search_path", "nowhere")
	_, err := migrations.Up(t.Context(), nowhere.db, nowhere.dialect)
	require.ErrorContains(t, err, "search_path")
}

// withoutOurs leaves out what Drayman adds beside the approved tables.
func withoutOurs(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		_, rest, _ := strings.Cut(line, " ")
		own := func(name string) bool {
			return slices.ContainsFunc([]string{"drayman_", "charge", "billing_run", "audit", "installation"},
				func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		}
		_, on, _ := strings.Cut(line, " on ")
		return own(rest) || own(on)
	})
}
