package shop

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter caps what the shop may ask for. A longer wait would let one
// wrong header hold a month's charge for days.
const maxRetryAfter = time.Hour

// retryAfter reads Retry-After (RFC 9110 §10.2.3), whole seconds or a date, as
// a wait between 0 and maxRetryAfter. A date is compared with the answer's own
// Date header if there is one, so that our clock need not agree with the shop's. A
// value in neither form, or in the past, counts as absent.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if value == "" {
		return 0
	}
	if !strings.ContainsFunc(value, func(r rune) bool { return r < '0' || r > '9' }) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter // digits only: an error means too many of them
		}
		return time.Duration(seconds) * time.Second
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return min(max(until.Sub(now), 0), maxRetryAfter)
}
