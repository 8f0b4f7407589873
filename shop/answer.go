package shop

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Outcome is what an answer of the shop means for the charge.
type Outcome string

// The outcomes. Their values cross process borders and are stored: they do not
// change.
const (
	// Charged: the shop made the order (2xx).
	Charged Outcome = "charged"
	// Declined: the shop will not make this order; final for its request id.
	Declined Outcome = "declined"
	// NotNow: no final answer; try again later.
	NotNow Outcome = "not_now"
	// Refused: our own set-up is wrong (URL, key, secret, or a request id that
	// cannot be sent).
	Refused Outcome = "refused"
)

// Answer is the result of one call. It holds neither key nor secret.
type Answer struct {
	Outcome Outcome `json:"outcome"`
	// HTTPStatus is the status that the shop answered, 0 to 999; 0 if no
	// answer came.
	HTTPStatus int `json:"http_status"`
	// Order is the shop's JSON, with Charged and Declined: valid UTF-8, at most
	// 64 KiB, nested at most 100 deep, without the character U+0000. Nil if
	// there was no such JSON; Detail then says why.
	Order json.RawMessage `json:"order,omitempty"`
	// Detail is one sentence for operators: valid UTF-8 without control
	// characters, at most 500 bytes. It may quote the shop.
	Detail string `json:"detail"`
	// RetryAfter is how long the shop asked us to wait, 0 to 1 h; 0 if it did
	// not. In JSON it is a number of nanoseconds. Only with NotNow and Refused.
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`
	// Doubt says that the order may exist at the shop although no final answer
	// came. Never with Charged and Declined, which are final.
	Doubt bool `json:"doubt,omitempty"`
}

// judge gives the meaning of a status and whether the order may exist all the
// same.
//
// No order was made if the shop says that it did not process the request:
// 401, 403, 408, 425, 429, and the redirects that point elsewhere for the same
// method (RFC 9110 §15.4: 301, 307, 308). 302 and 303 are different: many
// servers answer so to a POST that they did process. 409 may mean that the
// same request is under way at this moment, and a 5xx may come after the order
// was made.
func judge(status int) (outcome Outcome, doubt bool) {
	switch {
	case status >= 200 && status < 300:
		return Charged, false
	case status == 301, status == 307, status == 308, status == 401, status == 403:
		return Refused, false
	case status >= 300 && status < 400:
		return Refused, true
	case status == 408, status == 425, status == 429:
		return NotNow, false
	case status == 409:
		return NotNow, true
	case status >= 400 && status < 500:
		return Declined, false
	default: // 5xx, and statuses that HTTP does not define
		return NotNow, true
	}
}

// statusName is the status with its registered name. The shop's own reason
// phrase is left out: it means nothing (RFC 9112 §4) and anybody may write it.
func statusName(status int) string {
	if name := http.StatusText(status); name != "" {
		return strconv.Itoa(status) + " " + name
	}
	return strconv.Itoa(status)
}
