package models_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models/modelstest"
)

// hand is a value as it stands in SQL.
type hand = string

// readableForms are forms of times, most of them of day 0, at noon.
var readableForms = map[hand]time.Time{
	"'2026-11-01 12:00:00.000000'":                            day(0),
	"'2026-11-01 12:00:00'":                                   day(0), // datetime('now'), CURRENT_TIMESTAMP
	"'2026-11-01 12:00:00.000'":                               day(0),
	"'2026-11-01 12:00'":                                      day(0),
	"'2026-11-01 9:00'":                                       day(0).Add(-3 * time.Hour),
	"'2026-11-01'":                                            day(0).Add(-12 * time.Hour),
	"' 2026-11-01 12:00:00 '":                                 day(0),
	"'2026-11-01 12:00:00' || char(10)":                       day(0),
	"'2026-11-01T12:00:00'":                                   day(0),
	"'2026-11-01t12:00:00z'":                                  day(0),
	"'2026-11-01T12:00'":                                      day(0),
	"'2026-11-01T12:00Z'":                                     day(0),
	"'2026-11-01T12:00:00.000Z'":                              day(0), // strftime('…%fZ'), toISOString()
	"'2026-11-01T12:00:00.000000+00:00'":                      day(0), // isoformat()
	"'2026-11-01 12:00:00+00'":                                day(0), // as PostgreSQL shows a timestamptz
	"'2026-11-01 12:00:00 UTC'":                               day(0),
	"'2026-11-01 12:00:00 +0000 UTC'":                         day(0), // as Go shows it
	"'2026-11-01T13:30:00+01:30'":                             day(0),
	"'2026-11-01T13:30:00+0130'":                              day(0),
	"'2026-10-31T18:00:00.000000-18'":                         day(0),
	"'2026-11-01T12:00:00,5'":                                 day(0).Add(500 * time.Millisecond),
	"'2026-11-01 12:00:00.123456789Z'":                        day(0).Add(123_456 * time.Microsecond),
	"'2026-11-01 12:00:00.1234567890123'":                     day(0).Add(123_456 * time.Microsecond),
	"'2026-10-31 24:00:00'":                                   day(0).Add(-12 * time.Hour),
	"'2026-11-01T11:59:60Z'":                                  day(0),
	"strftime('%Y-%m-%dT%H:%M:%fZ', 1793534400, 'unixepoch')": day(0),
	"1793534400":                                              day(0),
	"'1793534400'":                                            day(0), // the column makes a number of it
	"1793534400.25":                                           day(0).Add(250 * time.Millisecond),
	"'2000-01-01T00:00:01'":                                   modelstest.Long.Add(time.Second),
	"'9999-12-31T23:59:59Z'":                                  time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	"'infinity'":                                              time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
}

// unreadableForms are values that are no times, with what is shown of them.
var unreadableForms = map[hand]string{
	"'27.11.2026 00:00'":        "27.11.2026 00:00",
	"'2026/11/01'":              "2026/11/01",
	"'2026-11-1'":               "2026-11-1",
	"'20261101'":                "20261101",
	"20261101":                  "20261101",
	"202611011200":              "202611011200",
	"1793534400000":             "1793534400000", // milliseconds
	"946684799":                 "946684799",     // of 1999
	"0":                         "0",
	"-1":                        "-1",
	"9223372036854775807":       "9223372036854775807",
	"2461346.25":                "2.46134625e+06", // a Julian day
	"9e999":                     "+Inf",
	"''":                        "",
	"' '":                       " ",
	"'now'":                     "now",
	"'12:00'":                   "12:00",
	"'2026-11-01 '  || char(0)": "2026-11-01 \uFFFD",
	"'2026-11-01 12:00:00.000000' || char(0)": "2026-11-01 12:00:00.000000\uFFFD",
	"'2026-13-01'":                               "2026-13-01",
	"'2026-02-29 00:00:00.000000'":               "2026-02-29 00:00:00.000000",
	"'2026-11-01 24:00:01'":                      "2026-11-01 24:00:01",
	"'2026-11-01 25:00:00.000000'":               "2026-11-01 25:00:00.000000",
	"'2026-11-01 12:60'":                         "2026-11-01 12:60",
	"'2026-11-01 12:00:61'":                      "2026-11-01 12:00:61",
	"'2026-11-01 12'":                            "2026-11-01 12",
	"'2026-11-01T'":                              "2026-11-01T",
	"'2026-11-01Z'":                              "2026-11-01Z",
	"'2026-11-01  12:00'":                        "2026-11-01  12:00",
	"'2026-11-01 12:00:00.+12345'":               "2026-11-01 12:00:00.+12345",
	"'2026-11-01 12:00:00+02:00Z'":               "2026-11-01 12:00:00+02:00Z",
	"'2026-11-01 12:00:00+24:00'":                "2026-11-01 12:00:00+24:00",
	"'2026-11-01 12:00:00 CET'":                  "2026-11-01 12:00:00 CET",
	"'2026-11-01 12:00 PM'":                      "2026-11-01 12:00 PM",
	"'0000-01-01 00:00:00.000000'":               "0000-01-01 00:00:00.000000",
	"'0001-01-01T00:00+01'":                      "0001-01-01T00:00+01",
	"'10000-01-01'":                              "10000-01-01",
	"'9999-12-31T23:00-01:00'":                   "9999-12-31T23:00-01:00",
	"CAST('2026-11-01 12:00:00.000000' AS BLOB)": "x'323032362d31312d30312031323a30303a30302e303030303030'",
	"CAST(x'ff' AS TEXT)":                        "\uFFFD",
	"'２０２６-11-01'":                               "２０２６-11-01",
	"replace(hex(zeroblob(100)), '0', 'long ')":  "long long long long long long long long long long long long lon…",
}

func onSQLite(t *testing.T, test func(t *testing.T, b bundle)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); test(t, setup(t, modelstest.SQLite(t))) })
}

// byHand cancels s, or makes club 1 INACTIVE, as a person does.
func (b bundle) byHand(t *testing.T, of string, effect, create hand) {
	t.Helper()
	into := map[string]string{
		"s":      "subscription_status_history (id, subscription_id, status_id, effect_date, create_date) VALUES ('by hand', 's', 2, ",
		"club 1": "club_status_history (id, club_id, club_status_id, effect_date, create_date) VALUES ('by hand', 1, 3, ",
	}[of]
	b.Exec(t, "INSERT INTO "+into+effect+", "+create+")")
}

func (b bundle) forget(t *testing.T) {
	t.Helper()
	b.Exec(t, "DELETE FROM subscription_status_history WHERE id = 'by hand'")
	b.Exec(t, "DELETE FROM club_status_history WHERE id = 'by hand'")
}

// requireEligible asks every reader about s as of now: the list, the explanation,
// the subscription, both claims, the run's count and its report.
func (b bundle) requireEligible(t *testing.T, want bool, now time.Time, what ...any) {
	t.Helper()
	b.clock.set(now)
	ctx := context.Background()
	list := eligible(t, b.Store, billing.EligibleQuery{At: now})
	require.Equal(t, want, len(list) == 1, "the list: %v", what)

	e, err := b.Explain(ctx, "s", time.Time{})
	require.NoError(t, err, what)
	require.Equal(t, want, e.Reason == "", "the explanation: %v", what)
	s, err := b.Subscription(ctx, "s")
	require.NoError(t, err, what)
	require.Equal(t, e.Subscription, s.Current, what)
	club, err := b.Club(ctx, 1)
	require.NoError(t, err, what)
	require.Equal(t, e.Club, club.Current, what)
	require.ElementsMatch(t, e.Unreadable, append(s.Unreadable, club.Unreadable...), what)

	facts, err := b.ChargeFacts(ctx, request("r"))
	require.NoError(t, err, what)
	require.Equal(t, e.Reason, billing.WhyNotEligible(facts.Standing), "the claim: %v", what)
	month := billing.PeriodAt(now, time.UTC)
	run, err := begun(b.Store, runOf(month, fmt.Sprint(what, now), billing.RunSettings{PageSize: 500, Concurrency: 1}))
	require.NoError(t, err, what)
	require.Equal(t, want, run.Due == 1, "the count: %v", what)
	report, err := b.Report(ctx, *run)
	require.NoError(t, err, what)
	require.Equal(t, want, report.Eligible == 1, "the report: %v", what)
	page, err := b.ClaimPage(ctx, billing.PageClaim{RunID: run.ID, Owner: "page", Period: month, UpTo: "~", Limit: 10})
	require.NoError(t, err, what)
	require.Equal(t, want, len(page.Charges) == 1, "the page: %v", what)
	b.Exec(t, "DELETE FROM charge")
	b.Exec(t, "DELETE FROM billing_run")
}

func TestWrittenTime_ReadableFormIsReadAlikeByAll(t *testing.T) {
	t.Parallel()
	onSQLite(t, func(t *testing.T, b bundle) {
		for _, of := range []string{"s", "club 1"} {
			for form, want := range readableForms {
				b.byHand(t, of, form, form)
				decides := form != "'infinity'"
				b.requireEligible(t, true, want.Add(-time.Microsecond), of, form)
				b.requireEligible(t, !decides, want, of, form)
				e, err := b.Explain(t.Context(), "s", want)
				require.NoError(t, err)
				require.Empty(t, e.Unreadable)
				if row := map[string]billing.Change{"s": e.Subscription, "club 1": e.Club}[of]; decides {
					require.Equal(t, billing.Change{ID: "by hand", StatusID: row.StatusID, EffectDate: &want, CreateDate: &want}, row)
				}
				b.forget(t)
			}
		}
	})
}

// A readable row that lies before the others decides only without them.
func TestWrittenTime_EarliestIsRead(t *testing.T) {
	t.Parallel()
	onSQLite(t, func(t *testing.T, b bundle) {
		for _, form := range []hand{"'-infinity'", "'0001-01-01'", "'0001-01-01T02:00+02:00'"} {
			b.byHand(t, "s", form, form)
			b.requireEligible(t, true, day(0), form)
			b.Exec(t, "UPDATE subscription_status_history SET subscription_id = NULL WHERE id <> 'by hand'")
			b.requireEligible(t, false, day(0), form)
			s, err := b.Subscription(t.Context(), "s")
			require.NoError(t, err)
			require.Equal(t, time.Time{}, *s.Current.EffectDate)
			b.Exec(t, "UPDATE subscription_status_history SET subscription_id = 's'")
			b.forget(t)
		}
	})
}

func TestWrittenTime_UnreadableEffectDateDoesNotCountAndIsShown(t *testing.T) {
	t.Parallel()
	onSQLite(t, func(t *testing.T, b bundle) {
		for of, table := range map[string]string{"s": "subscription_status_history", "club 1": "club_status_history"} {
			for form, text := range unreadableForms {
				b.byHand(t, of, form, "NULL")
				b.requireEligible(t, true, day(1), of, form)
				e, err := b.Explain(t.Context(), "s", time.Time{})
				require.NoError(t, err)
				require.Equal(t, []billing.Unreadable{{Table: table, ID: "by hand", Column: "effect_date", Text: text}}, e.Unreadable, form)
				changed, err := b.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Active})
				require.NoError(t, err, form)
				require.Len(t, changed.Unreadable, map[string]int{"s": 1}[of], form)
				b.forget(t)
			}
		}
	})
}

// A create date breaks a tie: one that cannot be read is the earliest, as null is.
func TestWrittenTime_CreateDateBreaksTies(t *testing.T) {
	t.Parallel()
	onSQLite(t, func(t *testing.T, b bundle) {
		b.Exec(t, "DELETE FROM subscription_status_history")
		b.AddChanges(t, "s", billing.Change{ID: "a", StatusID: 1, EffectDate: new(day(0)), CreateDate: new(day(0))})
		for create, wins := range map[hand]bool{
			"'2026-11-01T11:59:59'": false, "'2026-11-01T12:00:01'": true, "'2026-11-01T12:00Z'": true, // by the id
			"1793534401": true, "1793534399": false, "'2026-11-01T14:00:01+02:00'": true, "'2026-11-01T14:00:00+02:01'": false,
			"'tomorrow'": false, "x'ff'": false, "20301101": false,
		} {
			b.byHand(t, "s", "'2026-11-01T12:00:00Z'", create)
			b.requireEligible(t, !wins, day(0), create)
			b.forget(t)
		}
		b.Exec(t, "UPDATE subscription SET create_date = 'long ago'")
		s, err := b.Subscription(t.Context(), "s")
		require.NoError(t, err)
		require.Nil(t, s.CreateDate)
		require.Equal(t, []billing.Unreadable{{Table: "subscription", ID: "s", Column: "create_date", Text: "long ago"}}, s.Unreadable)
	})
}

// What SQLite keeps in other columns: a status, a club and a SKU that are no
// integers count as null, and a customer that is no text cannot be asked for.
func TestWrittenValue_NobodyIsChargedByIt(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change   string
		eligible bool // but the shop cannot be asked
	}{
		"a status in words":          {"UPDATE subscription_status_history SET status_id = 'ACTIVE'", false},
		"a status as bytes":          {"UPDATE subscription_status_history SET status_id = x'31'", false},
		"a status and a half":        {"UPDATE subscription_status_history SET status_id = 1.5", false},
		"a great status":             {"UPDATE subscription_status_history SET status_id = 4294967297", false},
		"a club's status in words":   {"UPDATE club_status_history SET club_status_id = 'ATIVO'", false},
		"a club's status as bytes":   {"UPDATE club_status_history SET club_status_id = x'31'", false},
		"a club in words":            {"UPDATE subscription SET club_id = '1st'", false},
		"a club as bytes":            {"UPDATE subscription SET club_id = x'31'", false},
		"a club and a half":          {"UPDATE subscription SET club_id = 1.5", false},
		"a history's club":           {"UPDATE club_status_history SET club_id = '1st'", false},
		"an SKU in words":            {"UPDATE club SET store_sku = '7 or 8'", true},
		"an SKU as bytes":            {"UPDATE club SET store_sku = x'37'", true},
		"half an SKU":                {"UPDATE club SET store_sku = 7.5", true},
		"a customer that is no text": {"UPDATE subscription SET customer_store_id = x'616e6e61'", true},
		"a customer not in UTF-8":    {"UPDATE subscription SET customer_store_id = CAST(x'4a6f73e9' AS TEXT)", true},
		"a customer with a NUL":      {"UPDATE subscription SET customer_store_id = 'anna' || char(0) || 'b'", true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := setup(t, modelstest.SQLite(t))
			b.Exec(t, "PRAGMA foreign_keys = 0") // as the sqlite3 shell has it
			b.Exec(t, c.change)
			b.AddClub(t, 2, 7)
			b.AddSubscription(t, "u", 2, "ulla")

			list := map[bool][]string{true: {"s", "u"}, false: {"u"}}[c.eligible]
			require.Equal(t, list, eligible(t, b.Store, billing.EligibleQuery{At: day(0)}))
			e, err := b.Explain(t.Context(), "s", time.Time{})
			require.NoError(t, err)
			require.Equal(t, c.eligible, e.Reason == "", "%s", e.Reason)
			_, err = b.Clubs(t.Context())
			require.NoError(t, err)
			_, err = b.ClaimCharge(t.Context(), request("r"), "me", true)
			require.Equal(t, billing.CodeNotEligible, billing.CodeOf(err), "%v", err)
			require.Equal(t, []string{"u"}, b.chargePage(t, len(list)))
		})
	}
}

// chargePage claims all that are due, and returns whose charges were claimed.
func (b bundle) chargePage(t *testing.T, due int) []string {
	t.Helper()
	run, err := begun(b.Store, runOf(november, "x", billing.RunSettings{PageSize: 1, Concurrency: 1}))
	require.NoError(t, err)
	require.Equal(t, due, run.Due)
	ends, more, err := b.PlanPages(t.Context(), *run, "", 100, 2)
	require.NoError(t, err)
	require.False(t, more)
	require.Len(t, ends, 1)
	page, err := b.ClaimPage(t.Context(), billing.PageClaim{RunID: run.ID, Owner: "page", Period: november, UpTo: ends[0], Limit: 100})
	require.NoError(t, err)
	require.True(t, page.Done)
	require.Zero(t, page.Locked)
	report, err := b.Report(t.Context(), *run)
	require.NoError(t, err)
	require.Equal(t, due, report.Eligible)
	require.Zero(t, report.Totals["missing"])
	charged := []string{}
	for _, c := range page.Charges {
		charged = append(charged, c.SubscriptionID)
	}
	return charged
}

// An id that JSON would change cannot be handed to a workflow or a next page.
func TestWrittenValue_IDThatIsNoTextIsNoSubscription(t *testing.T) {
	t.Parallel()
	onSQLite(t, func(t *testing.T, b bundle) {
		b.Exec(t, "PRAGMA foreign_keys = 0")
		for i, id := range []hand{"x'ff'", "x'74'", "CAST(x'73ff' AS TEXT)", "CAST(x'e9' AS TEXT)", "'t' || char(0)", "CAST(x'eda080' AS TEXT)"} {
			b.Exec(t, "INSERT INTO subscription VALUES ("+id+", 1, 'anna', NULL)")
			b.Exec(t, fmt.Sprintf("INSERT INTO subscription_status_history VALUES ('%d', %s, 1, '2026-01-01', NULL, NULL)", i, id))
		}
		b.Exec(t, "INSERT INTO subscription VALUES (4711, 1, 0815, NULL)") // texts to these columns
		b.AddChanges(t, "4711", modelstest.Since(billing.Active, modelstest.Long))
		require.Equal(t, []string{"4711", "s"}, eligible(t, b.Store, billing.EligibleQuery{At: day(0)}))
		require.Equal(t, []string{"4711", "s"}, b.chargePage(t, 2))
	})
}

// The last tie goes to the greater id, also to one that is stored as bytes.
func TestWrittenValue_IDsOfRowsAreOrderedByBytes(t *testing.T) {
	t.Parallel()
	onSQLite(t, func(t *testing.T, b bundle) {
		b.AddChanges(t, "s", billing.Change{ID: "m", StatusID: 1, EffectDate: new(day(0)), CreateDate: new(day(0))})
		for id, wins := range map[hand]bool{"x'6c'": false, "x'6e'": true, "CAST(x'ff' AS TEXT)": true, "'m' || char(0)": true} {
			b.Exec(t, `INSERT INTO subscription_status_history VALUES (`+id+`, 's', 2, '2026-11-01 12:00:00.000000', '2026-11-01 12:00:00.000000', 'by hand')`)
			b.requireEligible(t, !wins, day(0), id)
			b.Exec(t, "DELETE FROM subscription_status_history WHERE details = 'by hand'")
		}
	})
}

// The ledger is not to be changed by hand. If it is, nothing fails, and an order
// that may have been sent is not sent again.
func TestWrittenTime_InTheLedger(t *testing.T) {
	t.Parallel()
	onSQLite(t, func(t *testing.T, b bundle) {
		run := startRun(t, b.Store, "x", 0)
		leftOver := func() []string {
			require.NoError(t, b.LiftHolds(t.Context(), november, false))
			ids, err := b.LeftOver(t.Context(), billing.LeftOverQuery{RunID: run.ID, Period: november, All: true, Unresolved: true, Pages: "page ", Limit: 9})
			require.NoError(t, err)
			return ids
		}
		b.claim(t, "r", "me")
		for _, c := range []struct {
			form hand
			free bool
		}{
			{"'2026-11-01T11:00'", true}, {"'2026-11-01T13:00'", false}, {"1793530800", true}, {"1793538000", false}, {"'soon'", true}, {"x'ff'", true},
		} {
			b.Exec(t, "UPDATE charge SET run_id = '"+run.ID+"', created_at = "+c.form+", claimed_until = "+c.form)
			require.Equal(t, c.free, len(leftOver()) == 1, c.form)
		}
		b.Exec(t, "UPDATE charge SET customer_id = CAST(x'4a6f73e9' AS TEXT)")
		_, err := b.ClaimCharge(t.Context(), request("r"), "me", true)
		require.Equal(t, billing.CodeNotEligible, billing.CodeOf(err), "%v", err)
		b.Exec(t, "UPDATE charge SET created_at = '2026-11-01', claimed_until = NULL, subscription_id = CAST(x'73ff' AS TEXT)")
		require.Empty(t, leftOver())
		b.Exec(t, "UPDATE charge SET subscription_id = 's', created_at = 'x', sent_at = 'then', settled_at = x'00', period = '2026-13'")
		charges, err := b.Charges(t.Context(), "s")
		require.NoError(t, err)
		require.False(t, charges[0].SentAt.IsZero())
		permitted, _, err := b.PermitSending(t.Context(), "r", day(0), "")
		require.NoError(t, err)
		require.False(t, permitted)
		_, err = b.ClaimCharge(t.Context(), request("r"), "me", true)
		require.Equal(t, billing.CodeRequestIDReused, billing.CodeOf(err))
	})
}

// PostgreSQL's times go further than JSON's: those beyond are told apart when one
// decides, and only shown as the first or the last that JSON has.
func TestWrittenTime_BeyondJSONIsReadAlike(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.Postgres(t))
	b.Exec(t, "DELETE FROM subscription_status_history")
	last := time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	for _, c := range []struct {
		active, cancelled hand // effect and create dates
		at                time.Time
		eligible          bool
	}{
		{"'2026-01-01', NULL", "'infinity', NULL", last, true},
		{"'2026-01-01', NULL", "'10000-01-01', NULL", last, true},
		{"'2026-01-01', NULL", "'9999-12-31 23:59:59.999999', NULL", last, false},
		{"'4000-01-01 BC', NULL", "'-infinity', 'infinity'", day(0), true},
		{"'-infinity', 'infinity'", "'4000-01-01 BC', NULL", day(0), false},
		{"'0100-01-01 BC', NULL", "'0200-01-01 BC', 'infinity'", day(0), true},
		{"'2026-01-01', 'infinity'", "'2026-01-01', '294276-01-01'", day(0), true},
		{"'2026-01-01', NULL", "'2026-01-01', '-infinity'", day(0), false},
	} {
		for status, dates := range map[int]string{1: c.active, 2: c.cancelled} {
			b.Exec(t, fmt.Sprintf("INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date) VALUES ('%d', 's', %d, %s)", status, status, dates))
		}
		b.requireEligible(t, c.eligible, c.at, c.active, c.cancelled)
		s, err := b.Subscription(t.Context(), "s")
		require.NoError(t, err)
		_, err = json.Marshal(s)
		require.NoError(t, err)
		b.Exec(t, "DELETE FROM subscription_status_history")
	}
}
