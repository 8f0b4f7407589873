package models_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

// due is a world with all that decides what becomes of a subscription in a run.
type due struct {
	world
	sku       map[int]int       // by club; 0: null
	customers map[string]string // by subscription; "-": null
	ledger    map[string][]entry
}

// entry is a row of the ledger.
type entry struct {
	period string
	status billing.ChargeStatus
	run    string // "": null
}

// thisRun is the run that is reported on.
var thisRun = billing.Run{ID: "2026-11/2", Period: november}

func genDue() *rapid.Generator[due] {
	return rapid.Custom(func(t *rapid.T) due {
		w := due{genWorld().Draw(t, "world"), map[int]int{}, map[string]string{}, map[string][]entry{}}
		w.charges = nil
		for id := range len(w.clubs) {
			w.sku[id+1] = rapid.SampledFrom([]int{7, 7, 8, 0}).Draw(t, "sku")
		}
		if len(w.clubs) > 0 && rapid.Bool().Draw(t, "a plain club") {
			w.clubs[1], w.sku[1] = []billing.Change{{ID: "plain", StatusID: int(billing.ClubActive), EffectDate: new(day(-9))}}, 7
		}
		for i, id := range sortedKeys(w.subs) { // the general history seldom changes just between
			if club := w.subs[id].club; club != 0 && rapid.IntRange(0, 2).Draw(t, "due, then not") == 0 {
				row := func(n int, status billing.Status) billing.Change {
					return billing.Change{ID: fmt.Sprintf("due %d %d", i, n), StatusID: int(status), EffectDate: new(day(n)), CreateDate: new(day(n))}
				}
				w.subs[id] = subscription{club, []billing.Change{row(-2, billing.Active), row(rapid.IntRange(-1, 3).Draw(t, "until"), billing.Cancelled)}}
			}
		}
		run := rapid.SampledFrom([]string{thisRun.ID, thisRun.ID, "2026-11/1", "2026-10/2", ""})
		open := []billing.ChargeStatus{billing.Charged, billing.Charged, billing.Pending, billing.Unresolved}
		for _, id := range sortedKeys(w.subs) {
			w.customers[id] = rapid.SampledFrom([]string{"anna", "anna", "anna", "", "-"}).Draw(t, "customer")
			for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "declined") {
				w.ledger[id] = append(w.ledger[id], entry{"2026-11", billing.Declined, run.Draw(t, "run")})
			}
			for _, period := range []string{"2026-10", "2026-11", "2026-12"} {
				if rapid.IntRange(0, 2).Draw(t, "open") == 0 {
					w.ledger[id] = append(w.ledger[id], entry{period, rapid.SampledFrom(open).Draw(t, "status"), run.Draw(t, "run")})
				}
			}
		}
		return w
	})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (w due) put(t require.TestingT, db modelstest.Database) {
	w.world.put(t, db)
	tx, err := db.Pool.BeginTx(context.Background(), nil)
	require.NoError(t, err)
	exec := func(query string, args ...any) {
		_, err := tx.ExecContext(context.Background(), query, args...)
		require.NoError(t, err, query)
	}
	for id, sku := range w.sku {
		exec("UPDATE club SET store_sku = $1 WHERE id = $2", null(sku), id)
	}
	for id, customer := range w.customers {
		exec("UPDATE subscription SET customer_store_id = NULLIF($1, '-') WHERE id = $2", customer, id)
	}
	for id, entries := range w.ledger {
		for i, e := range entries {
			exec(`INSERT INTO charge (request_id, subscription_id, period, status, owner, run_id, customer_id, sku_id, created_at)
				VALUES ($1, $2, $3, $4, '', NULLIF($5, ''), '', 1, '2026-11-01 00:00:00.000000')`, fmt.Sprintf("%d %s", i, id), id, e.period, string(e.status), e.run)
		}
	}
	require.NoError(t, tx.Commit())
}

// chargeable says that the shop can be asked.
func (w due) chargeable(id string) bool {
	return w.customers[id] != "" && w.customers[id] != "-" && w.sku[w.subs[id].club] != 0
}

// class is what has become of the subscription, by the words of the report.
func (w due) class(id string, now time.Time) billing.ReportClass {
	declined := false
	for _, e := range w.ledger[id] {
		switch {
		case e.period != "2026-11":
		case e.status == billing.Declined:
			declined = true
		case e.status == billing.Pending:
			return billing.ClassPending
		case e.status == billing.Unresolved:
			return billing.ClassUnresolved
		case e.run == thisRun.ID:
			return billing.ClassChargedInRun
		default:
			return billing.ClassChargedBefore
		}
	}
	switch {
	case declined:
		return billing.ClassDeclined
	case w.chargeable(id) && w.explain(id, now).Reason == "":
		return billing.ClassMissing
	}
	return billing.ClassSkipped
}

func reportIDs(t require.TestingT, s *models.Store, run billing.Run, class billing.ReportClass) []string {
	ids := []string{}
	require.NoError(t, s.ReportIDs(context.Background(), run, class, func(id string) error {
		ids = append(ids, id)
		return nil
	}))
	return ids
}

// onDue checks a property of many worlds, on both databases.
func onDue(t *testing.T, property func(t *rapid.T, b bundle, w due)) {
	t.Helper()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		for _, table := range []string{"status", "club_status"} {
			db.Exec(t, "INSERT INTO "+table+" (id, name) VALUES (9, 'by hand')")
		}
		c := &clock{now: day(1)}
		b := bundle{db, db.Open(t, c.Now), c}
		rapid.Check(t, func(t *rapid.T) {
			w := genDue().Draw(t, "due")
			w.put(t, db)
			property(t, b, w)
		})
	})
}

func TestTheReportAccountsForEverybody(t *testing.T) {
	t.Parallel()
	onDue(t, func(t *rapid.T, b bundle, w due) {
		run := thisRun
		run.CutOff = day(rapid.IntRange(-1, 2).Draw(t, "cut-off"))
		now := run.CutOff.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 24, 48}).Draw(t, "later")) * time.Hour)
		b.clock.set(now)

		report, err := b.Report(context.Background(), run)
		require.NoError(t, err)

		ids, totals := map[billing.ReportClass][]string{}, map[billing.ReportClass]int{}
		lines := map[[2]int]map[billing.ReportClass]int{}
		due := w.eligible(run.CutOff, false)
		for _, id := range due {
			class, club := w.class(id, now), w.subs[id].club
			ids[class] = append(ids[class], id)
			totals[class]++
			line := [2]int{club, w.sku[club]}
			if lines[line] == nil {
				lines[line] = map[billing.ReportClass]int{}
			}
			lines[line][class]++
		}
		got := map[[2]int]map[billing.ReportClass]int{}
		for _, line := range report.Lines {
			require.NotContains(t, got, [2]int{line.ClubID, line.SKU})
			got[[2]int{line.ClubID, line.SKU}] = line.Counts
		}
		require.Equal(t, lines, got)
		require.True(t, slices.IsSortedFunc(report.Lines, func(x, y billing.ReportLine) int { return x.ClubID - y.ClubID }))
		require.Equal(t, len(due), report.Eligible)
		require.Len(t, report.Totals, len(billing.ReportClasses()))
		for _, class := range billing.ReportClasses() {
			require.Equal(t, totals[class], report.Totals[class], class)
			require.Equal(t, append([]string{}, ids[class]...), reportIDs(t, b.Store, run, class), class)
		}
		open := totals[billing.ClassMissing] + totals[billing.ClassPending] + totals[billing.ClassUnresolved]
		require.Equal(t, open == 0, report.Closed)
		require.Equal(t, run, report.Run)
	})
}

// Between the cut-off and now people cancel, come back, and clubs close for good.
func TestTheReportAsksWhoCanBeChargedNow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddClub(t, 2, 8, modelstest.Since(billing.ClubActive, modelstest.Long), modelstest.Since(billing.ClubInactive, day(1)))
		b.AddSubscription(t, "t", 1, "x", modelstest.Since(billing.Active, modelstest.Long), modelstest.Since(billing.Cancelled, day(1)))
		b.AddSubscription(t, "u", 1, "x", modelstest.Since(billing.Active, day(1)))
		b.AddSubscription(t, "v", 2, "x")
		run := thisRun
		run.CutOff = day(0)
		for now, want := range map[time.Time][2][]string{
			day(1).Add(-time.Microsecond): {{"s", "t", "v"}, {}}, day(1): {{"s"}, {"t", "v"}},
		} {
			b.clock.set(now)
			require.Equal(t, want[0], reportIDs(t, b.Store, run, billing.ClassMissing))
			require.Equal(t, want[1], reportIDs(t, b.Store, run, billing.ClassSkipped))
			report, err := b.Report(context.Background(), run)
			require.NoError(t, err)
			require.Equal(t, len(want[0]), report.Totals[billing.ClassMissing])
			require.Equal(t, 3, report.Eligible)
		}
	})
}

func TestAnEmptyReportIsClosed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		run := thisRun
		run.CutOff = modelstest.Long.Add(-time.Hour)
		report, err := b.Report(context.Background(), run)
		require.NoError(t, err)
		require.Equal(t, billing.NewReport(run, []billing.ReportLine{}), report)
		require.True(t, report.Closed)
		require.NotNil(t, report.Lines, "an array in JSON")
	})
}

func TestReportIDsStopsAtYieldsError(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "bert")
		run, enough := thisRun, errors.New("enough")
		run.CutOff = day(0)
		for range 40 {
			require.ErrorIs(t, b.ReportIDs(context.Background(), run, billing.ClassMissing, func(string) error { return enough }), enough)
		}
		requireIdle(t, b)
		require.Empty(t, reportIDs(t, b.Store, run, "' OR 1=1 --"))
		require.Equal(t, []string{"s", "t"}, reportIDs(t, b.Store, run, billing.ClassMissing))
	})
}

// plannedPages are the ends of the pages after an id, and whether there are more.
func plannedPages(t require.TestingT, s *models.Store, cutOff time.Time, after string, size, limit int) ([]string, bool) {
	ends, more, err := s.PlanPages(context.Background(), billing.Run{Period: november, CutOff: cutOff}, after, size, limit)
	require.NoError(t, err)
	return ends, more
}

// However pages are cut, walking through them charges everyone once.
func TestPagesCoverAll(t *testing.T) {
	t.Parallel()
	onDue(t, func(t *rapid.T, b bundle, w due) {
		b.clock.set(day(1))
		size, limit := rapid.IntRange(1, 4).Draw(t, "size"), rapid.IntRange(1, 3).Draw(t, "limit")
		cutOff := day(rapid.IntRange(-1, 2).Draw(t, "cut-off"))
		want := w.uncharged(day(1), cutOff)
		after, all := "", []string{}
		for round := 0; ; round++ {
			require.Less(t, round, 20)
			ends, more := plannedPages(t, b.Store, cutOff, after, size, limit)
			rest := slices.DeleteFunc(slices.Clone(want), func(id string) bool { return id <= after })
			require.Len(t, ends, min(limit, (len(rest)+size-1)/size))
			for i, end := range ends {
				require.Equal(t, rest[min((i+1)*size, len(rest))-1], end)
			}
			if len(rest) > size*limit {
				require.True(t, more)
			}
			if len(rest) < size*limit {
				require.False(t, more)
			}
			all = append(all, ends...)
			if !more {
				break
			}
			after = ends[len(ends)-1]
		}
		require.True(t, slices.IsSorted(all))
		if len(want) > 0 {
			require.Equal(t, want[len(want)-1], all[len(all)-1], "nobody lies behind the last page")
		}
	})
}

// uncharged are those who are due in a run with the cut-off and have nothing that
// stands for November.
func (w due) uncharged(at, cutOff time.Time) []string {
	then := w.eligible(cutOff, false)
	return slices.DeleteFunc(w.eligible(at, false), func(id string) bool {
		return !slices.Contains(then, id) || slices.ContainsFunc(w.ledger[id], func(e entry) bool {
			return e.period == "2026-11" && e.status != billing.Declined
		})
	})
}

// "More" at an exact multiple may send the caller on to an empty plan, never
// stop it too early.
func TestPlansAtExactMultiples(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		ends, more := plannedPages(t, b.Store, day(0), "s", 2, 2)
		require.Empty(t, ends)
		require.False(t, more)
		for _, id := range []string{"t", "u", "v"} {
			b.AddSubscription(t, id, 1, "x")
		}
		ends, more = plannedPages(t, b.Store, day(0), "", 2, 2)
		require.Equal(t, []string{"t", "v"}, ends)
		if more {
			ends, more = plannedPages(t, b.Store, day(0), "v", 2, 2)
			require.Empty(t, ends)
			require.False(t, more)
		}
		b.AddSubscription(t, "w", 1, "x")
		ends, more = plannedPages(t, b.Store, day(0), "", 2, 2)
		require.Equal(t, []string{"t", "v"}, ends)
		require.True(t, more)
	})
}
