package billing_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"drayman/billing"
)

// requireInvalid checks an error of a validator: its code, and that it names the
// field and stays on one line, so that it can be shown as it is.
func requireInvalid(t *testing.T, err error, field string) {
	t.Helper()
	var invalid *billing.Error
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, billing.CodeInvalid, invalid.Code)
	require.Equal(t, field, invalid.Field)
	require.True(t, strings.HasPrefix(invalid.Detail, field+" must"), invalid.Detail)
	require.NotContains(t, invalid.Detail, "\n")
}

func addTexts(f *testing.F, more ...string) {
	f.Helper()
	for _, text := range append(more, "", "x", ".", "..", "a b", "a\x00", "a\n", "\x7f", "a\u0085b", "a\xff", "\xed\xa0\x80",
		"ä", "a\u0308", "🍺", "\u202e", "\ufeff", "'; DROP TABLE club; --", "%2e%2e", "../..",
		"00000000-0000-000-00000-000000000000", strings.Repeat("🍺", 36), strings.Repeat("a", 37), strings.Repeat("a", 129)) {
		f.Add(text)
	}
}

// FuzzID: what is an id is 1 to 36 characters without a control character, and
// survives JSON as it is. What is none is refused by name.
func FuzzID(f *testing.F) {
	addTexts(f)
	f.Fuzz(func(t *testing.T, id string) {
		control := strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
		n := len([]rune(id))
		fits := utf8.ValidString(id) && !control && n >= 1 && n <= billing.MaxID
		err := billing.ValidateID("customer_id", id)
		require.Equal(t, fits, err == nil, "%q: %v", id, err)
		if !fits {
			requireInvalid(t, err, "customer_id")
			return
		}
		data, err := json.Marshal(id)
		require.NoError(t, err)
		var back string
		require.NoError(t, json.Unmarshal(data, &back))
		require.Equal(t, id, back)
	})
}

// FuzzText: the bounds are of characters, both inclusive.
func FuzzText(f *testing.F) {
	f.Add("", 0, 0)
	f.Add("ä", 1, 1)
	f.Add("ab", 0, 1)
	f.Add("a\x00", 0, 9)
	f.Add("\xff", -1, 1)
	f.Fuzz(func(t *testing.T, text string, shortest, longest int) {
		n := len([]rune(text))
		control := strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
		err := billing.ValidateText("note", text, shortest, longest)
		require.Equal(t, utf8.ValidString(text) && !control && n >= shortest && n <= longest, err == nil, "%q: %v", text, err)
		if err != nil {
			requireInvalid(t, err, "note")
		}
	})
}

// FuzzParseRequestID: 1 to 128 bytes of the charset, but not a step in a path;
// unchanged by parsing.
func FuzzParseRequestID(f *testing.F) {
	addTexts(f, requestIDCharset, strings.Repeat("~", 128), "2026-11-a", "a+b", "a/b", "а")
	f.Fuzz(func(t *testing.T, text string) {
		fits := len(text) >= 1 && len(text) <= billing.MaxRequestID && text != "." && text != ".."
		for i := range len(text) {
			fits = fits && strings.IndexByte(requestIDCharset, text[i]) >= 0
		}
		id, err := billing.ParseRequestID(text)
		require.Equal(t, fits, err == nil, "%q: %v", text, err)
		if !fits {
			requireInvalid(t, err, "request_id")
			require.Empty(t, id)
			return
		}
		require.Equal(t, text, string(id))
	})
}

// FuzzDerivedRequestID: two (period, subscription, attempt) have one request id
// only if they are the same; it is stable, and one that a caller could send.
func FuzzDerivedRequestID(f *testing.F) {
	f.Add("x", 0, 2, "x-2", 0, 1)
	f.Add("x-2", 0, 1, "~e6f1a76bd1a2df6b5f3d746e5279150327f5c4436bf501dff60a1a45d31addb3", 0, 1)
	f.Add("", 0, 1, "~e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0, 1)
	f.Add("a", 1, 1, "a", 2, 1)
	f.Add("a/b", 1, 9999, "a\x00b", 1, 1)
	f.Add("-", 1, 3, "--3", 1, 1)
	f.Add("x-9999", 12, 9999, "x", 12, 9999)
	f.Add("x-10000", 1, 1, "x", 1, 10000)
	f.Fuzz(func(t *testing.T, subscription1 string, month1, attempt1 int, subscription2 string, month2, attempt2 int) {
		one, two := derivedFrom(subscription1, month1, attempt1), derivedFrom(subscription2, month2, attempt2)
		first := billing.DerivedRequestID(one.period, one.id, one.attempt)
		second := billing.DerivedRequestID(two.period, two.id, two.attempt)
		require.Equal(t, one == two, first == second, "%+v and %+v become %s and %s", one, two, first, second)
		for id, from := range map[billing.RequestID]derived{first: one, second: two} {
			parsed, err := billing.ParseRequestID(string(id))
			require.NoError(t, err)
			require.Equal(t, id, parsed)
			require.Equal(t, id, billing.DerivedRequestID(from.period, from.id, from.attempt))
			require.True(t, strings.HasPrefix(string(id), from.period.String()+"-"))
		}
	})
}

// derivedFrom brings any numbers into their ranges: all months of the years 1 to
// 9999, and all attempts.
func derivedFrom(subscription string, month, attempt int) derived {
	within := func(n, m int) int { return (n%m + m) % m }
	month = within(month, 12*9999)
	return derived{
		id:      subscription,
		period:  billing.PeriodAt(time.Date(1+month/12, time.Month(1+month%12), 1, 0, 0, 0, 0, time.UTC), time.UTC),
		attempt: 1 + within(attempt-1, billing.MaxAttempt),
	}
}

var periodForm = regexp.MustCompile(`^(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-(?:0[1-9]|1[0-2])$`)

// FuzzParsePeriod: what is taken is exactly what is written, in both ways in.
func FuzzParsePeriod(f *testing.F) {
	addTexts(f, "2026-11", "0001-01", "9999-12", "0000-01", "2026-13", "2026-00", "2026-1", "02026-01", "+026-01", "2026-01\n", "٢٠٢٦-٠١", "latest")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := billing.ParsePeriod(text)
		require.Equal(t, periodForm.MatchString(text), err == nil, "%q: %v", text, err)
		var unmarshalled billing.Period
		unmarshalErr := unmarshalled.UnmarshalText([]byte(text))
		if err != nil {
			requireInvalid(t, err, "period")
			require.True(t, p.IsZero())
			require.Equal(t, text == "", unmarshalErr == nil)
			return
		}
		require.Equal(t, text, p.String())
		require.NoError(t, unmarshalErr)
		require.Equal(t, p, unmarshalled)
	})
}

// timestampForm is RFC 3339's date-time (§5.6), its zone being optional; the
// calendar is left to others.
var timestampForm = regexp.MustCompile(
	`^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$`)

// FuzzParseTimestamp: what is taken has the form of RFC 3339, lies in the years
// that both databases hold, and is the same moment when it is written and read
// again, or with the Z that it may lack.
func FuzzParseTimestamp(f *testing.F) {
	addTexts(f, "2019-02-18T12:25:56.563000", "2019-02-18T12:25:56Z", "2019-02-18T12:25:56.123456789-03:00", "2024-02-29T00:00:00",
		"2023-02-29T00:00:00", "0000-01-01T00:00:00Z", "1899-12-31T23:59:59-01:00", "9999-12-31T23:59:59.9999999", "9999-12-31T23:59:59-01:00",
		"2019-02-18T12:25:60Z", "2019-02-18T24:00:00Z", "2019-02-18T12:25:56+24:00", "2019-02-18T1:25:56Z", "2019-02-18T12:25:56,5Z",
		"2019-02-18T12:25:56+00:60", "2019-02-18t12:25:56z", "2019-02-18 12:25:56", "2019-02-18", "now", "1550492756")
	f.Fuzz(func(t *testing.T, text string) {
		at, err := billing.ParseTimestamp("effect_date", text)
		if err != nil {
			requireInvalid(t, err, "effect_date")
			require.True(t, at.IsZero())
			return
		}
		require.Regexp(t, timestampForm, text)
		require.Equal(t, time.UTC, at.Location())
		require.Equal(t, at, at.Truncate(time.Microsecond))
		require.True(t, at.Year() >= 1900 && at.Year() <= 9999, "%s", at)
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999"} {
			again, err := billing.ParseTimestamp("effect_date", at.Format(layout))
			require.NoError(t, err)
			require.Equal(t, at, again)
		}
		if timestampForm.FindStringSubmatch(text)[3] == "" {
			again, err := billing.ParseTimestamp("effect_date", text+"Z")
			require.NoError(t, err)
			require.Equal(t, at, again, "without a zone it means UTC")
		}
	})
}
