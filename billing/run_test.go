package billing_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
)

func TestRunSettingsValidate(t *testing.T) {
	t.Parallel()
	with := func(change func(*billing.RunSettings)) billing.RunSettings {
		s := billing.RunSettings{}.WithDefaults()
		change(&s)
		return s
	}
	page := func(n int) billing.RunSettings { return with(func(s *billing.RunSettings) { s.PageSize = n }) }
	concurrency := func(n int) billing.RunSettings { return with(func(s *billing.RunSettings) { s.Concurrency = n }) }
	pace := func(n float64) billing.RunSettings {
		return with(func(s *billing.RunSettings) { s.OrdersPerSecond = n })
	}
	for _, good := range []billing.RunSettings{
		with(func(*billing.RunSettings) {}), page(1), page(5000), concurrency(1), concurrency(1000),
		pace(0), pace(0.01), pace(2.5), pace(100_000), pace(math.Copysign(0, -1)),
	} {
		require.NoError(t, good.Validate(), "%+v", good)
		require.Equal(t, good, good.WithDefaults())
	}
	for field, bad := range map[string][]billing.RunSettings{
		"page_size":   {page(0), page(-1), page(5001), page(math.MinInt), {Concurrency: 1}},
		"concurrency": {concurrency(0), concurrency(-1), concurrency(1001), {PageSize: 1}},
		"orders_per_second": {
			pace(math.NaN()), pace(math.Inf(1)), pace(math.Inf(-1)), pace(-1), pace(0.0099), pace(math.SmallestNonzeroFloat64),
			pace(math.Nextafter(100_000, math.MaxFloat64)), pace(math.MaxFloat64),
		},
	} {
		for _, s := range bad {
			var problem *billing.Error
			require.ErrorAs(t, s.Validate(), &problem, "%+v", s)
			require.Equal(t, billing.CodeInvalid, problem.Code)
			require.Equal(t, field, problem.Field, "%+v", s)
		}
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	run := billing.Run{ID: "2026-11/1", State: billing.RunRunning, CutOff: day(0), Due: 100}
	for name, c := range map[string]struct {
		ended  *time.Time
		counts billing.RunCounts
		after  time.Duration
		left   int
		pace   float64
		end    *time.Time
	}{
		"just begun":                      {after: 0, left: 100},
		"the clock went back":             {after: -time.Hour, left: 100, counts: billing.RunCounts{}},
		"orders, and the clock back":      {after: -time.Hour, left: 90, counts: billing.RunCounts{Charged: 10}},
		"nothing yet":                     {after: time.Hour, left: 100},
		"only pending":                    {after: time.Second, left: 60, counts: billing.RunCounts{Pending: 40}},
		"half":                            {after: 10 * time.Second, counts: billing.RunCounts{Charged: 30, Declined: 15, Unresolved: 5}, left: 50, pace: 5, end: new(day(0).Add(20 * time.Second))},
		"half, some pending":              {after: 10 * time.Second, counts: billing.RunCounts{Charged: 40, Pending: 10}, left: 50, pace: 4, end: new(day(0).Add(22 * time.Second))},
		"all":                             {after: 10 * time.Second, counts: billing.RunCounts{Charged: 100}, pace: 10},
		"more than were due":              {after: 10 * time.Second, counts: billing.RunCounts{Charged: 120}, pace: 12},
		"ended early":                     {ended: new(day(0).Add(10 * time.Second)), after: time.Hour, counts: billing.RunCounts{Charged: 20}, pace: 2},
		"ended at once":                   {ended: new(day(0)), after: time.Hour, counts: billing.RunCounts{Charged: 20}},
		"ended, and seen by a slow clock": {ended: new(day(0).Add(10 * time.Second)), after: time.Second, counts: billing.RunCounts{Charged: 20}, pace: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run
			r.EndedAt = c.ended
			want := billing.Progress{Run: r, Counts: c.counts, Left: c.left, OrdersPerSecond: c.pace, ExpectedEnd: c.end}
			require.Equal(t, want, billing.NewProgress(r, c.counts, day(0).Add(c.after)))
		})
	}
}

// However slow or long a run is, its progress is sound and goes over JSON.
func TestProgressIsSound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 100_000_000))
		run := billing.Run{Period: november, State: billing.RunRunning, Due: count.Draw(t, "due")}
		if rapid.Bool().Draw(t, "cut off") {
			run.CutOff = day(0)
		}
		counts := billing.RunCounts{
			Charged: count.Draw(t, "charged"), Declined: count.Draw(t, "declined"),
			Pending: count.Draw(t, "pending"), Unresolved: count.Draw(t, "unresolved"),
		}
		now := day(0).Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(90*24*time.Hour)).Draw(t, "later")))

		p := billing.NewProgress(run, counts, now)

		require.Equal(t, max(0, run.Due-counts.Tried()), p.Left)
		require.GreaterOrEqual(t, p.OrdersPerSecond, 0.0)
		require.False(t, math.IsNaN(p.OrdersPerSecond) || math.IsInf(p.OrdersPerSecond, 0))
		if p.ExpectedEnd != nil {
			require.False(t, p.ExpectedEnd.Before(now.Truncate(time.Second)), "expected end %s, now %s", p.ExpectedEnd, now)
			require.Positive(t, p.Left)
		}
		_, err := json.Marshal(p)
		require.NoError(t, err)
	})
}

// A month of millions whose first day brought one order must not end in the past.
func TestTheExpectedEndOfASlowRunIsNotInThePast(t *testing.T) {
	t.Parallel()
	p := billing.NewProgress(billing.Run{CutOff: day(0), Due: 1_000_000}, billing.RunCounts{Charged: 1}, day(1))
	require.Nil(t, p.ExpectedEnd, "it cannot be told")
	p = billing.NewProgress(billing.Run{CutOff: day(0), Due: 366}, billing.RunCounts{Charged: 1}, day(1))
	require.Equal(t, day(366), *p.ExpectedEnd)
}

func TestNewReport(t *testing.T) {
	t.Parallel()
	for class, closed := range map[billing.ReportClass]bool{
		billing.ClassChargedInRun: true, billing.ClassChargedBefore: true, billing.ClassDeclined: true, billing.ClassSkipped: true,
		billing.ClassUnresolved: false, billing.ClassPending: false, billing.ClassMissing: false,
	} {
		require.Contains(t, billing.ReportClasses(), class)
		lines := []billing.ReportLine{
			{ClubID: 1, SKU: 7, Counts: map[billing.ReportClass]int{class: 2, billing.ClassDeclined: 1}},
			{ClubID: 2, SKU: 7, Counts: map[billing.ReportClass]int{class: 3}},
		}
		if class == billing.ClassDeclined {
			lines[0].Counts[class] = 3
		}
		r := billing.NewReport(billing.Run{ID: "r"}, lines)
		require.Equal(t, 6, r.Eligible)
		require.Equal(t, closed, r.Closed, class)
		require.Equal(t, lines, r.Lines)
		want := map[billing.ReportClass]int{}
		for _, c := range billing.ReportClasses() {
			want[c] = lines[0].Counts[c] + lines[1].Counts[c]
		}
		require.Equal(t, want, r.Totals)
	}
	require.Len(t, billing.ReportClasses(), 7)
}
