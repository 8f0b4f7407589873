package billing_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
	_ "time/tzdata" // the zones below, on any machine

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
)

func zone(t require.TestingT, name string) *time.Location {
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

func TestPeriodRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := fmt.Sprintf("%04d-%02d", rapid.IntRange(1, 9999).Draw(t, "year"), rapid.IntRange(1, 12).Draw(t, "month"))

		p, err := billing.ParsePeriod(text)
		require.NoError(t, err)
		require.Equal(t, text, p.String())

		encoded, err := json.Marshal(p)
		require.NoError(t, err)
		require.Equal(t, `"`+text+`"`, string(encoded))
		var decoded billing.Period
		require.NoError(t, json.Unmarshal(encoded, &decoded))
		require.Equal(t, p, decoded)
	})
}

func TestNoPeriodRoundTrip(t *testing.T) {
	t.Parallel()
	encoded, err := json.Marshal(billing.Period{})
	require.NoError(t, err)
	require.Equal(t, `""`, string(encoded))
	decoded := billing.PeriodAt(day(0), time.UTC)
	require.NoError(t, json.Unmarshal(encoded, &decoded))
	require.True(t, decoded.IsZero())
}

func TestParsePeriodRefusesJunk(t *testing.T) {
	t.Parallel()
	for _, junk := range []string{
		"", "2026", "2026-", "2026-0", "2026-1", "2026-00", "2026-13", "0000-01", "2026-011", "02026-01", " 2026-01", "2026-01 ",
		"2026-01\n", "+026-01", "-026-01", "2026/01", "202-601", "2026-1a", "٢٠٢٦-٠١", "2026–01", "2026-01-01", "26-01",
	} {
		_, err := billing.ParsePeriod(junk)
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(err), "%q", junk)
		var p billing.Period
		if junk != "" {
			require.Error(t, p.UnmarshalText([]byte(junk)), "%q", junk)
		}
	}
}

func TestParsePeriodTakesOnlyWhatItWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[-+ 0-9]{4}-[ 0-9]{1,2}`).Draw(t, "text")
		if p, err := billing.ParsePeriod(text); err == nil {
			require.Equal(t, text, p.String())
		}
	})
}

func TestPeriodAtTheBorderOfAMonth(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"UTC", "America/Sao_Paulo",
		// Zones that have changed their clocks at midnight.
		"America/Asuncion", "Africa/Cairo", "Asia/Amman", "America/Havana",
		"Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu",
	} {
		loc := zone(t, name)
		for month := time.January; month <= time.December; month++ {
			for _, year := range []int{1999, 2018, 2019, 2026} {
				begins := time.Date(year, month, 1, 0, 0, 0, 0, loc)
				previous := time.Date(year, month, 0, 0, 0, 0, 0, time.UTC)
				require.Equal(t, fmt.Sprintf("%04d-%02d", year, month), billing.PeriodAt(begins.UTC(), loc).String(), name)
				end := time.Date(previous.Year(), previous.Month(), previous.Day(), 23, 59, 59, 999_999_000, loc)
				require.Equal(t, previous.Format("2006-01"), billing.PeriodAt(end.UTC(), loc).String(), name)
			}
		}
	}
}

// Asunción put its clock forward at the midnight that began 2017-10-01: there
// the month begins at 01:00.
func TestPeriodWhereAMonthHasNoMidnight(t *testing.T) {
	t.Parallel()
	loc := zone(t, "America/Asuncion")
	begins := time.Date(2017, 10, 1, 4, 0, 0, 0, time.UTC) // 01:00-03

	require.Equal(t, "01:00", begins.In(loc).Format("15:04"))
	require.Equal(t, "2017-10", billing.PeriodAt(begins, loc).String())
	require.Equal(t, "2017-09", billing.PeriodAt(begins.Add(-time.Microsecond), loc).String())
}

func TestPeriodsAreOrderedByTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := day(rapid.IntRange(-2000, 2000).Draw(t, "a")), day(rapid.IntRange(-2000, 2000).Draw(t, "b"))
		p, q := billing.PeriodAt(a, time.UTC), billing.PeriodAt(b, time.UTC)
		require.Equal(t, p.Compare(q), -q.Compare(p))
		require.Equal(t, p == q, p.Compare(q) == 0)
		if p.Compare(q) < 0 {
			require.Less(t, p.String(), q.String())
			require.True(t, a.Before(b))
		}
	})
}

func TestPeriodTitle(t *testing.T) {
	t.Parallel()
	require.Equal(t, "November 2026", billing.PeriodAt(day(0), time.UTC).Title())
}
