package billing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
)

// zones have changed their clocks at all hours, at midnight and at one minute
// past it, by days, and by seconds.
var zones = []string{
	"UTC", "America/Sao_Paulo", "America/New_York", "Europe/Berlin", "America/Asuncion", "Africa/Cairo", "Asia/Amman", "America/Havana",
	"America/St_Johns", "Pacific/Kiritimati", "Pacific/Apia", "Pacific/Kwajalein", "Asia/Manila", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Monrovia",
}

func period(t require.TestingT, text string) billing.Period {
	p, err := billing.ParsePeriod(text)
	require.NoError(t, err)
	return p
}

func TestPeriod_LastMicrosecond(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, period, last string }{
		{"UTC", "2026-02", "2026-02-28T23:59:59.999999Z"},
		{"UTC", "2028-02", "2028-02-29T23:59:59.999999Z"},
		{"UTC", "2026-12", "2026-12-31T23:59:59.999999Z"},
		{"UTC", "0001-01", "0001-01-31T23:59:59.999999Z"},
		{"UTC", "9999-12", "9999-12-31T23:59:59.999999Z"},
		{"America/Sao_Paulo", "2026-10", "2026-11-01T02:59:59.999999Z"},
		{"America/Sao_Paulo", "2018-10", "2018-11-01T02:59:59.999999Z"}, // summer began three days later
		{"America/Sao_Paulo", "2018-11", "2018-12-01T01:59:59.999999Z"},
		{"Europe/Berlin", "2026-03", "2026-03-31T21:59:59.999999Z"},
		{"America/New_York", "2026-10", "2026-11-01T03:59:59.999999Z"}, // summer ends at two
		{"Asia/Tokyo", "2026-10", "2026-10-31T14:59:59.999999Z"},
		{"America/Asuncion", "2017-09", "2017-10-01T03:59:59.999999Z"}, // no midnight: it was 01:00 then
		// Back from 00:01 to 23:01, so that November began, and then began again.
		{"America/St_Johns", "2009-10", "2009-11-01T03:29:59.999999Z"},
		{"Asia/Manila", "1844-12", "1844-12-31T15:56:07.999999Z"}, // the 31st was left out
	} {
		last := period(t, c.period).LastMicrosecond(zone(t, c.zone))
		require.Equal(t, c.last, last.Format(time.RFC3339Nano), "%s in %s", c.period, c.zone)
	}
}

func TestPeriod_LastMicrosecondIsItsLast(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		loc := zone(t, rapid.SampledFrom(zones).Draw(t, "zone"))
		p := billing.PeriodAt(time.Date(rapid.IntRange(1800, 2100).Draw(t, "year"), time.Month(rapid.IntRange(1, 12).Draw(t, "month")), 15, 0, 0, 0, 0, time.UTC), time.UTC)
		last := p.LastMicrosecond(loc)
		require.Equal(t, p, billing.PeriodAt(last, loc), "%s", last)
		for later := last.Add(time.Microsecond); later.Before(last.Add(50 * time.Hour)); later = later.Add(10 * time.Minute) {
			require.Positive(t, billing.PeriodAt(later, loc).Compare(p), "%s", later)
		}
	})
}

func TestRunStart_CutOff(t *testing.T) {
	t.Parallel()
	saoPaulo := zone(t, "America/Sao_Paulo")
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339Nano, text)
		require.NoError(t, err)
		return parsed
	}
	for name, c := range map[string]struct {
		period, now, nominal string
		confirmed            bool
		cutOff               string
		code                 billing.Code
	}{
		"the current month":            {period: "2026-11", now: "2026-11-05T12:00:00Z", cutOff: "2026-11-05T12:00:00Z"},
		"confirmed all the same":       {period: "2026-11", now: "2026-11-05T12:00:00Z", confirmed: true, cutOff: "2026-11-05T12:00:00Z"},
		"current in its zone":          {period: "2026-11", now: "2026-12-01T02:59:59.999999Z", cutOff: "2026-12-01T02:59:59.999999Z"},
		"over":                         {period: "2026-11", now: "2026-12-01T03:00:00Z", code: billing.CodePastUnconfirmed},
		"over and confirmed":           {period: "2026-11", now: "2026-12-01T03:00:00Z", confirmed: true, cutOff: "2026-12-01T02:59:59.999999Z"},
		"long over":                    {period: "0001-01", now: "2026-12-01T03:00:00Z", code: billing.CodePastUnconfirmed},
		"to come":                      {period: "2026-12", now: "2026-12-01T02:59:59.999999Z", confirmed: true, code: billing.CodePeriodInFuture},
		"far to come":                  {period: "2099-02", now: "2026-11-05T12:00:00Z", confirmed: true, code: billing.CodePeriodInFuture},
		"no month":                     {now: "2026-11-05T12:00:00Z", confirmed: true, code: billing.CodeInvalid},
		"scheduled":                    {period: "2026-11", now: "2026-11-01T09:00:03Z", nominal: "2026-11-01T06:00:00-03:00", cutOff: "2026-11-01T09:00:00Z"},
		"scheduled, late":              {period: "2026-11", now: "2027-01-05T12:00:00Z", nominal: "2026-11-01T09:00:00Z", cutOff: "2026-11-01T09:00:00Z"},
		"scheduled, our clock behind":  {period: "2026-11", now: "2026-11-01T02:59:00Z", nominal: "2026-11-01T03:00:00Z", cutOff: "2026-11-01T03:00:00Z"},
		"scheduled for later":          {period: "2026-11", now: "2026-11-05T12:00:00Z", nominal: "2026-11-20T09:00:00Z", code: billing.CodePeriodInFuture},
		"scheduled, for another month": {period: "2026-10", now: "2026-11-05T12:00:00Z", nominal: "2026-11-01T09:00:00Z", code: billing.CodeInvalid},
		"scheduled, just before it":    {period: "2026-11", now: "2026-11-05T12:00:00Z", nominal: "2026-11-01T02:59:59Z", confirmed: true, code: billing.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			start := billing.RunStart{ConfirmPast: c.confirmed, Zone: saoPaulo}
			if c.period != "" {
				start.Period = period(t, c.period)
			}
			if c.nominal != "" {
				start.Nominal = at(c.nominal)
			}
			cutOff, err := start.CutOff(at(c.now))
			require.Equal(t, c.code, billing.CodeOf(err), "%v", err)
			if c.code == "" {
				require.Equal(t, at(c.cutOff), cutOff)
			}
			if c.code == billing.CodePastUnconfirmed {
				var refusal *billing.Error
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, start.Period.LastMicrosecond(saoPaulo), *refusal.CutOff)
				require.Contains(t, refusal.Detail, "confirm_past")
			}
		})
	}
}

func TestNewProgress_AverageBeginsWithTheFirstClaim(t *testing.T) {
	t.Parallel()
	begun := day(40)
	run := billing.Run{State: billing.RunRunning, CutOff: day(0), Due: 30} // of a month that is over
	p := billing.NewProgress(run, billing.RunCounts{Charged: 20, First: begun}, begun.Add(10*time.Second))
	require.InDelta(t, 2, p.OrdersPerSecond, 0)
	require.Equal(t, begun, *p.BegunAt)
	require.Equal(t, begun.Add(15*time.Second), *p.ExpectedEnd)
	require.Nil(t, billing.NewProgress(run, billing.RunCounts{}, begun).BegunAt)
}
