package billing_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
)

const requestIDCharset = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:-"

func TestParseRequestID(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"a", "...", "~", ":", "-", "_", ".a", "2026-11-x", requestIDCharset, strings.Repeat("a", 128), strings.Repeat(".", 128),
	} {
		id, err := billing.ParseRequestID(good)
		require.NoError(t, err, good)
		require.Equal(t, good, string(id))
	}
	for _, bad := range []string{
		"", ".", "..", strings.Repeat("a", 129), "a b", "a/b", "a\\b", "a%2Fb", "a\n", "\na", "a\x00", "é", "а" /* Cyrillic */, "a\u200b",
		"a\xff", "a+b", "a?b", "a#b", "a@b", "a;b", "１", "🍺",
	} {
		id, err := billing.ParseRequestID(bad)
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(err), "%q", bad)
		require.Empty(t, id)
	}
}

func TestParseRequestIDKnowsItsCharset(t *testing.T) {
	t.Parallel()
	for r := rune(0); r < 0x250; r++ {
		_, err := billing.ParseRequestID(string(r) + "x")
		require.Equal(t, strings.ContainsRune(requestIDCharset, r), err == nil, "%U", r)
	}
}

func TestValidateID(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"x", ".", "..", "a b", "'; DROP TABLE club; --", "00000000-0000-000-00000-000000000000", strings.Repeat("ä", 36), "%", "🍺"} {
		require.NoError(t, billing.ValidateID("id", good), good)
	}
	for _, bad := range []string{"", strings.Repeat("a", 37), strings.Repeat("ä", 37), "a\x00", "a\n", "\x7f", "a\xff", "a\u0085"} {
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(billing.ValidateID("id", bad)), "%q", bad)
	}
}

// genID makes ids that try to be taken for one another's derived request ids.
func genID() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{
			"x", "x-2", "x-2-2", "x-1", "x-02", "x-9999", "x-10000", "x-0", "-2", "-", "~", "~x", "~2d711642b726b04401627ca9fbac32f5",
			".", "..", "2026-11-x", "ä", "Ä", "a\u0308", "a/b", "a b", "A", "a", "k", "K", "\u212a", "s", "\u017f", "i", "\u0130", "\u0131", "X", "X-2", "00000000-0000-000-00000-000000000000",
			"00000000-0000-000-0000-0000000000-2", "\x00",
		}),
		rapid.StringMatching(`[x~-]{1,3}(-[0-9]{1,5}){0,3}`),
		rapid.StringN(1, 36, -1),
		rapid.StringMatching(`[A-Za-z0-9-]{36}`),
	)
}

type derived struct {
	period  billing.Period
	id      string
	attempt int
}

func genDerived() *rapid.Generator[derived] {
	return rapid.Custom(func(t *rapid.T) derived {
		return derived{
			period:  billing.PeriodAt(day(30*rapid.IntRange(0, 2).Draw(t, "month")), time.UTC),
			id:      genID().Draw(t, "id"),
			attempt: rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(1, billing.MaxAttempt), rapid.Just(billing.MaxAttempt)).Draw(t, "attempt"),
		}
	})
}

func TestNoTwoDerivedRequestIDsAreTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seen := map[billing.RequestID]derived{}
		for _, d := range rapid.SliceOfN(genDerived(), 2, 100).Draw(t, "derived") {
			id := billing.DerivedRequestID(d.period, d.id, d.attempt)

			require.Equal(t, strings.ToLower(string(id)), string(id), "a shop may compare without case")
			if before, ok := seen[id]; ok {
				require.Equal(t, before, d, "both become %s", id)
			}
			seen[id] = d
			_, err := billing.ParseRequestID(string(id))
			require.NoError(t, err)
			require.Equal(t, id, billing.DerivedRequestID(d.period, d.id, d.attempt), "it is stable")
		}
	})
}

// Given ids that differ in case alone, in ASCII and beyond: each has a request id
// of its own, also for who compares without case.
func TestDerivedRequestID_CaseIsKept(t *testing.T) {
	t.Parallel()
	p := billing.PeriodAt(day(0), time.UTC)
	seen := map[string]derived{}
	for _, id := range []string{
		"abc", "ABC", "Abc", "aBc", "abc-2", "ABC-2", "k", "K", "\u212a", "s", "S", "\u017f", "ä", "Ä", "ß", "ẞ", "ss", "SS", "i", "I", "İ", "ı",
		"ffc0ffee-0000-4000-8000-000000000000", "FFC0FFEE-0000-4000-8000-000000000000", "FFc0ffee-0000-4000-8000-000000000000",
	} {
		for _, attempt := range []int{1, 2, 12} {
			d, key := derived{p, id, attempt}, strings.ToLower(string(billing.DerivedRequestID(p, id, attempt)))
			require.NotContains(t, seen, key, "%v and %v", seen[key], d)
			require.True(t, strings.EqualFold(key, string(billing.DerivedRequestID(p, id, attempt))))
			seen[key] = d
		}
	}
}

// What one id and its attempts become must not be what a longer id becomes: all
// that can be confused, small, and complete.
func TestAttemptsAreNotTakenForIDs(t *testing.T) {
	t.Parallel()
	seen := map[billing.RequestID]derived{}
	p := billing.PeriodAt(day(0), time.UTC)
	for _, base := range []string{"x", "", "-", "x-", "x--", "~", "x-2", "1", "-1"} {
		for _, suffix := range []string{"", "-0", "-1", "-2", "-02", "-2-2", "-9999", "-10000", "--2", "-3-"} {
			for _, attempt := range []int{1, 2, 3, 22, 9999} {
				d := derived{p, base + suffix, attempt}
				id := billing.DerivedRequestID(p, d.id, attempt)
				if before, ok := seen[id]; ok {
					require.Equal(t, before, d, "both become %s", id)
				}
				seen[id] = d
			}
		}
	}
}

// These ids are at the shop already: they may never change.
func TestDerivedRequestIDsAreForEver(t *testing.T) {
	t.Parallel()
	p := billing.PeriodAt(day(0), time.UTC)
	for want, got := range map[string]billing.RequestID{
		"2026-11-00000000-0000-000-00000-000000000000": billing.DerivedRequestID(p, "00000000-0000-000-00000-000000000000", 1),
		"2026-11-x":   billing.DerivedRequestID(p, "x", 1),
		"2026-11-x-2": billing.DerivedRequestID(p, "x", 2),
		"2026-11-~e6f1a76bd1a2df6b5f3d746e5279150327f5c4436bf501dff60a1a45d31addb3": billing.DerivedRequestID(p, "x-2", 1),
		"2026-11-~4b68ab3847feda7d6c62c1fbcbeebfa35eab7351ed5e78f4ddadea5df64b8015": billing.DerivedRequestID(p, "X", 1),
	} {
		require.Equal(t, want, string(got))
	}
}

func TestParseTimestamp(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"2019-02-18T12:25:56.563000":         time.Date(2019, 2, 18, 12, 25, 56, 563_000_000, time.UTC),
		"2019-02-18T12:25:56":                time.Date(2019, 2, 18, 12, 25, 56, 0, time.UTC),
		"2019-02-18T12:25:56Z":               time.Date(2019, 2, 18, 12, 25, 56, 0, time.UTC),
		"2019-02-18T12:25:56.123456789Z":     time.Date(2019, 2, 18, 12, 25, 56, 123_456_000, time.UTC),
		"2019-02-18T12:25:56-03:00":          time.Date(2019, 2, 18, 15, 25, 56, 0, time.UTC),
		"2019-02-18T00:30:00.000001+05:30":   time.Date(2019, 2, 17, 19, 0, 0, 1_000, time.UTC),
		"9999-12-31T23:59:59.999999":         time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		"1900-01-01T00:00:00Z":               time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC),
		"2024-02-29T00:00:00":                time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"2019-02-18T12:25:56.5630000000000Z": time.Date(2019, 2, 18, 12, 25, 56, 563_000_000, time.UTC),
	} {
		got, err := billing.ParseTimestamp("at", text)
		require.NoError(t, err, text)
		require.True(t, want.Equal(got), "%s became %s", text, got)
		require.Equal(t, time.UTC, got.Location())
	}
	for _, bad := range []string{
		"", "now", "2019-02-18", "2019-02-18 12:25:56", "2019-02-30T00:00:00", "2019-13-01T00:00:00", "2019-02-18T25:00:00",
		"2019-02-18T12:25:56 03:00", "2019-02-18T12:25", "1550492756", "2019-02-18T12:25:60Z", "2019-02-18T12:25:56Z ", "20190218T122556Z",
		"0000-01-01T00:00:00", "9999-12-31T23:59:59-01:00", "1899-12-31T23:59:59", "-2019-02-18T12:25:56Z", "99999-01-01T00:00:00Z",
		"2019-02-18T1:25:56Z", "2019-02-18T12:25:56,5Z", "2019-02-18T12:25:56+24:00", "2019-02-18T12:25:56+00:60", "2019-02-18T12:25:56ZZ",
	} {
		_, err := billing.ParseTimestamp("at", bad)
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(err), "%q", bad)
		require.ErrorContains(t, err, "at ")
	}
}

func TestValidateCustomerID_BlankIsRefused(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", " a ", "0"} {
		require.NoError(t, billing.ValidateCustomerID(id), id)
	}
	for _, id := range []string{"", " ", "   ", "\u00a0", "\u2003 \u3000"} {
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(billing.ValidateCustomerID(id)), "%q", id)
	}
}
