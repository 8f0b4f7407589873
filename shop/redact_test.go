package shop

import (
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// echoes are ways in which a shop may send the secret back.
func echoes(text string) map[string]string {
	inJSON, _ := json.Marshal(text)
	twice, _ := json.Marshal(string(inJSON))
	var unicodes, hex, percent, points strings.Builder
	for i, r := range text {
		fmt.Fprintf(&unicodes, [2]string{`\u%04x`, `\u%04X`}[i%2], r)
		fmt.Fprintf(&hex, `\x%02x`, r)
		fmt.Fprintf(&percent, `%%%02X`, r)
		fmt.Fprintf(&points, [2]string{`&#%d;`, `&#x%X;`}[i%2], r)
	}
	return map[string]string{
		"plain": text, "JSON": strings.Trim(string(inJSON), `"`), "JSON twice": strings.Trim(string(twice), `"\`),
		"JSON slash": strings.ReplaceAll(strings.Trim(string(inJSON), `"`), "/", `\/`),
		"Go":         strings.Trim(fmt.Sprintf("%q", text), `"`), "all \\u": unicodes.String(), "all \\x": hex.String(),
		"query": url.QueryEscape(text), "path": url.PathEscape(text), "all %": percent.String(),
		"query twice": url.QueryEscape(url.QueryEscape(text)), "HTML": html.EscapeString(text), "all &#": points.String(),
	}
}

func TestTheShopEchoesTheSecret(t *testing.T) {
	t.Parallel()
	client := newClient(t, "http://shop.example", longTime)
	for _, credential := range []string{testSecret, testKey} {
		for name, echo := range echoes(credential) {
			for _, text := range answersWith(t, echo) {
				answer, _ := client.overPipe(t, testOrder, text)
				requireSound(t, answer)
				require.NotContains(t, answer.Detail, echo, name)
				require.NotContains(t, string(answer.Order), echo, name)
			}
		}
	}
}

// answersWith are answers that have a text in all places of theirs.
func answersWith(t *testing.T, echo string) []string {
	t.Helper()
	inJSON, err := json.Marshal(map[string]any{"got": echo, echo: []any{1, "x" + echo + "y"}})
	require.NoError(t, err)
	bodies := []string{echo, strings.Repeat("x", 230) + echo, strings.Repeat(echo, 20), string(inJSON)}
	if raw := `{"got":"` + echo + `","got":"","` + echo + `":1}`; json.Valid([]byte(raw)) {
		bodies = append(bodies, raw)
	}
	answers := []string{"HTTP/9.9 " + echo + "\r\n\r\n"} // net/http's error quotes it
	for _, body := range bodies {
		for _, status := range []int{200, 302, 422, 503} {
			answers = append(answers, fmt.Sprintf(
				"HTTP/1.1 %d %s\r\nLocation: /x?a=%s\r\nRetry-After: %s\r\nContent-Length: %d\r\n\r\n%s",
				status, echo, echo, echo, len(body), body))
		}
	}
	return answers
}

func TestOrderKeepsAllButTheSecret(t *testing.T) {
	t.Parallel()
	r := newRedactor("key-1", "12345")
	cases := map[string]struct {
		body, order string
		err         error
	}{
		"untouched":           {`{"b":1,"a":1.0}`, `{"b":1,"a":1.0}`, nil},
		"value":               {`{"b":"<key-1>","a":2.50}`, `{"a":2.50,"b":"<***>"}`, nil},
		"name":                {`{"key-1":1}`, `{"***":1}`, nil},
		"number":              {`[1,9123459]`, `[1,"***"]`, nil},
		"number in exponent":  {`[1e12345]`, `["***"]`, nil},
		"hidden by duplicate": {`{"a":"key-1","a":2}`, `{"a":2}`, nil},
	}
	for name, c := range cases {
		order, err := r.keepOrder([]byte(c.body))
		require.Equal(t, c.err, err, name)
		require.Equal(t, c.order, string(order), name)
	}
	_, err := newRedactor("key-1", `":"`).keepOrder([]byte(`{"a":"b"}`))
	require.ErrorIs(t, err, errLeak, "across the marks")
}

func TestLongestCredentialGoesFirst(t *testing.T) {
	t.Parallel()
	r := newRedactor("dev", "dev-secret")
	require.Equal(t, "*** and ***", r.redact("dev-secret and dev"))
	require.Equal(t, "***", newRedactor("*", "x").redact("a*b"), "the mask would be a credential")
}

// Given any secret, escaped anyhow, within any text: no quote and no order of it
// has the secret.
func TestNothingGetsThrough(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[!-~]([ -~]{2,20})[!-~]`).Draw(t, "secret")
		key := rapid.StringMatching(`[!-~]{4,8}`).Draw(t, "key")
		r := newRedactor(key, secret)
		forms := echoes(rapid.SampledFrom([]string{secret, key}).Draw(t, "which"))
		names := rapid.SampledFrom([]string{"plain", "JSON", "Go", "all \\u", "all %", "path", "all &#", "HTML"})
		text := rapid.String().Draw(t, "before")
		for range rapid.IntRange(1, 3).Draw(t, "times") {
			text += forms[names.Draw(t, "form")] + rapid.String().Draw(t, "after")
		}

		quote := r.quote(text, rapid.IntRange(0, 300).Draw(t, "limit"))
		require.False(t, r.in(quote), quote)
		require.NotContains(t, quote, secret)
		require.False(t, r.in(r.redact(text)) && r.redact(text) != mask)

		body, err := json.Marshal(map[string]any{text: []any{text, "kept"}})
		require.NoError(t, err)
		order, err := r.keepOrder(body)
		if err != nil {
			require.ErrorIs(t, err, errLeak)
			return
		}
		require.True(t, json.Valid(order))
		require.False(t, r.in(string(order)))
		require.NotContains(t, string(order), secret)
	})
}

func TestQuoteIsOneShortLine(t *testing.T) {
	t.Parallel()
	r := newRedactor("key-1", "secret-1")
	require.Equal(t, "a b c", r.quote(" a\r\n\tb\x00\x1b\u202ec ", 240))
	require.Equal(t, "\ufffdx", r.quote("\xff\xfex", 240))
	require.Equal(t, "é…", r.quote("ééé", 3))
	require.Empty(t, r.quote(" \r\n ", 240))
	require.Equal(t, "ab***…", r.quote("absecret-1cd", 4), "a secret across the limit goes whole")
}
