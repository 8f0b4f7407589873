package shop

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// whole is a 200 with the given body.
func whole(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.String()
}

// Given a 2xx, whatever its body is like: the order was made.
func TestBodiesOfA2xx(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("x", 64<<10-2) + `"`
	cases := map[string]struct{ answer, order, detail string }{
		"object":               {whole(`{"id": 1}`), `{"id": 1}`, ""},
		"white space around":   {whole(" \r\n{\"id\":1}\n"), `{"id":1}`, ""},
		"byte order mark":      {whole("\ufeff{}"), `{}`, ""},
		"text":                 {whole(`"ok"`), `"ok"`, ""},
		"large number":         {whole(`{"n":12345678901234567890.10}`), `{"n":12345678901234567890.10}`, ""},
		"empty":                {whole(""), "", ""},
		"null":                 {whole("null"), "", ""},
		"chunked":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", `{}`, ""},
		"until the end":        {"HTTP/1.0 200 OK\r\n\r\n{}", `{}`, ""},
		"without a reason":     {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", `{}`, ""},
		"after 1xx":            {"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + whole("{}"), `{}`, ""},
		"64 KiB":               {whole(long), long, ""},
		"over 64 KiB":          {whole(long + " "), "", "larger than 64 KiB"},
		"no JSON":              {whole("<html>"), "", "it is no JSON"},
		"JSON and more":        {whole("{} {}"), "", "it is no JSON"},
		"cut JSON":             {whole(`{"id":`), "", "it is no JSON"},
		"invalid UTF-8":        {whole("{\"id\":\"\xff\"}"), "", "it is no JSON"},
		"gzip":                 {whole(gzipped(t, "{}")), "", "it is no JSON"},
		"deep":                 {whole(strings.Repeat("[", 200) + strings.Repeat("]", 200)), "", "nested"},
		"deeper than Go":       {whole(strings.Repeat("[", 20000) + strings.Repeat("]", 20000)), "", "no JSON"},
		"deep objects":         {whole(strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)), "", "nested"},
		"NUL":                  {whole(`{"a\u0000":"\u0000","b":2.50}`), `{"a�":"�","b":2.50}`, ""},
		"half a surrogate":     {whole(`["\ud800","\ud83c\udf7a"]`), `["�","🍺"]`, ""},
		"shorter than it said": {"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "", "connection was cut"},
		"chunks cut":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}", "", "connection was cut"},
		"chunks broken":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", "", "could not be read whole"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := answering(t, c.answer)
			answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
			requireSound(t, answer)
			require.Equal(t, Charged, answer.Outcome, answer.Detail)
			require.Equal(t, c.order, string(answer.Order))
			require.Equal(t, c.order == "", answer.Order == nil)
			if c.detail == "" {
				require.Equal(t, "The shop answered 200 OK.", answer.Detail)
			} else {
				require.Contains(t, answer.Detail, "its text is not kept")
				require.Contains(t, answer.Detail, c.detail)
			}
		})
	}
}

// Given a body without an end: it is left after 64 KiB, long before the timeout.
func TestEndlessBody(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]Outcome{200: Charged, 422: Declined, 503: NotNow, 401: Refused} {
		shop := startRaw(t, flood(strings.Repeat("{", 1000), fmt.Sprintf("HTTP/1.1 %d X\r\n\r\n", status)))
		answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
		requireSound(t, answer)
		require.Equal(t, want, answer.Outcome)
		require.Nil(t, answer.Order)
		if want == Charged || want == Declined {
			require.Contains(t, answer.Detail, "larger than 64 KiB")
		}
	}
}

// Given a body that stops coming: the status line counts, at the timeout.
func TestBodyThatHangs(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]Outcome{201: Charged, 422: Declined, 500: NotNow} {
		shop := startRaw(t, func(c *rawConn) {
			c.request()
			c.say("HTTP/1.1 %d X\r\nContent-Length: 100\r\n\r\n{\"secret\":\"%s", status, testSecret[:8])
			c.untilClosed()
		})
		answer := newClient(t, shop.url, 500*time.Millisecond).PlaceOrder(t.Context(), testOrder)
		requireSound(t, answer)
		require.Equal(t, want, answer.Outcome)
		require.Nil(t, answer.Order)
		require.NotContains(t, answer.Detail, testSecret[:4], "half a secret is none that could be found")
		if want != NotNow {
			require.Contains(t, answer.Detail, "the time for the call was over")
		}
	}
}

func TestDeclinedKeepsTheOrderJSON(t *testing.T) {
	t.Parallel()
	shop := startRaw(t, func(c *rawConn) {
		c.request()
		c.answer(http.StatusPaymentRequired, `{"error":"card expired"}`)
		c.request()
		c.answer(http.StatusNotFound, strings.Repeat("é", 400))
	})
	client := newClient(t, shop.url, longTime)
	client.transport.MaxConnsPerHost = 1
	answer := client.PlaceOrder(t.Context(), testOrder)
	require.Equal(t, Declined, answer.Outcome)
	require.JSONEq(t, `{"error":"card expired"}`, string(answer.Order))
	require.Equal(t, `The shop declined the order with 402 Payment Required: {"error":"card expired"}`, answer.Detail)

	answer = client.PlaceOrder(t.Context(), testOrder)
	requireSound(t, answer)
	require.Equal(t, Declined, answer.Outcome)
	require.Nil(t, answer.Order)
	require.Contains(t, answer.Detail, "404 Not Found; its text is not kept: it is no JSON: ééé")
}
