package shop

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMeaningOfEachStatus(t *testing.T) {
	t.Parallel()
	type meaning struct {
		outcome Outcome
		doubt   bool
	}
	wants := map[meaning][]int{
		{Charged, false}:  {200, 201, 202, 203, 204, 205, 206, 226, 299},
		{Refused, false}:  {301, 307, 308, 401, 403},
		{Refused, true}:   {300, 302, 303, 304, 305, 306, 399},
		{NotNow, false}:   {408, 425, 429},
		{NotNow, true}:    {0, 99, 101, 409, 500, 501, 502, 503, 504, 505, 511, 520, 599, 600, 700, 999},
		{Declined, false}: {400, 402, 404, 405, 406, 407, 410, 411, 412, 413, 415, 418, 421, 422, 423, 424, 426, 428, 431, 451, 499},
	}
	for want, statuses := range wants {
		for _, status := range statuses {
			t.Run(strconv.Itoa(status), func(t *testing.T) {
				t.Parallel()
				body := `{"why":"because"}`
				if status == 204 || status == 304 {
					body = ""
				}
				shop := answering(t, fmt.Sprintf("HTTP/1.1 %03d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))
				answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
				requireSound(t, answer)
				require.Equal(t, want, meaning{answer.Outcome, answer.Doubt}, answer.Detail)
				require.Equal(t, status, answer.HTTPStatus)
				require.Contains(t, answer.Detail, strconv.Itoa(status))
				if final := want.outcome == Charged || want.outcome == Declined; final && body != "" {
					require.JSONEq(t, body, string(answer.Order))
				}
				require.Equal(t, int64(1), shop.requests.Load())
			})
		}
	}
}

func TestRefusalsQuoteTheShop(t *testing.T) {
	t.Parallel()
	shop := answering(t, "HTTP/1.1 503 X\r\nContent-Length: 21\r\n\r\n<h1>\r\n at\tlunch\x00</h1>")
	answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
	require.Equal(t, "The shop answered 503 Service Unavailable: <h1> at lunch </h1>", answer.Detail)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var visits atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	t.Cleanup(other.Close)
	locations := []string{other.URL + "/order/x", "//" + strings.TrimPrefix(other.URL, "http://"), "/elsewhere", "http://[::1", "::no URL %zz", ""}
	for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		for _, location := range locations {
			shop := startRaw(t, func(c *rawConn) {
				for c.request() {
					c.say("HTTP/1.1 %d X\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", status, location)
				}
			})
			answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
			requireSound(t, answer)
			require.Equal(t, Refused, answer.Outcome)
			require.Contains(t, answer.Detail, "redirects are not followed")
			require.Contains(t, answer.Detail, location)
			require.Equal(t, int64(1), shop.requests.Load())
		}
	}
	require.Zero(t, visits.Load())
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	cases := map[string]struct {
		value, date string
		want        time.Duration
	}{
		"none":                 {"", "", 0},
		"seconds":              {"7", "", 7 * time.Second},
		"zero":                 {"0", "", 0},
		"spaces around":        {" 7\t", "", 7 * time.Second},
		"one hour":             {"3600", "", time.Hour},
		"over the cap":         {"3601", "", time.Hour},
		"over 64 bits":         {"99999999999999999999999999", "", time.Hour},
		"most of 64 bits":      {"9223372036854775807", "", time.Hour},
		"negative":             {"-5", "", 0},
		"signed":               {"+5", "", 0},
		"fraction":             {"1.5", "", 0},
		"not a number":         {"soon", "", 0},
		"other digits":         {"٣", "", 0},
		"date":                 {"Sun, 01 Nov 2026 12:00:30 GMT", "", 30 * time.Second},
		"date, RFC 850":        {"Sunday, 01-Nov-26 12:00:30 GMT", "", 30 * time.Second},
		"date, asctime":        {"Sun Nov  1 12:00:30 2026", "", 30 * time.Second},
		"date in the past":     {"Sun, 01 Nov 2026 11:59:59 GMT", "", 0},
		"date far away":        {"Fri, 31 Dec 9999 23:59:59 GMT", "", time.Hour},
		"date long ago":        {"Mon, 01 Jan 0001 00:00:00 GMT", "", 0},
		"date, broken":         {"Sun, 01 Nov 2026", "", 0},
		"the shop's clock":     {"Sun, 01 Nov 2026 15:00:30 GMT", "Sun, 01 Nov 2026 15:00:00 GMT", 30 * time.Second},
		"the shop's clock bad": {"Sun, 01 Nov 2026 12:00:30 GMT", "whenever", 30 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{"Retry-After": {c.value}, "Date": {c.date}}
			require.Equal(t, c.want, retryAfter(header, now))
		})
	}
}

func TestRetryAfterComesWithRefusals(t *testing.T) {
	t.Parallel()
	wants := map[int]time.Duration{
		200: 0, 422: 0, 307: 9 * time.Second, 401: 9 * time.Second, 429: 9 * time.Second, 503: 9 * time.Second,
	}
	for status, want := range wants {
		shop := answering(t, fmt.Sprintf("HTTP/1.1 %d X\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n", status))
		answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
		require.Equal(t, want, answer.RetryAfter, status)
	}
}
