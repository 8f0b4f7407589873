package shoptest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The values of Fault.Cut.
const (
	// CutBefore closes the connection without booking the order.
	CutBefore = "before"
	// CutAfter books the order and closes the connection.
	CutAfter = "after"
)

// Fault makes calls go wrong. Its fields say which calls (all that are set must
// fit), how many of them, and what happens. In JSON, Delay is a text such as
// "1.5s".
type Fault struct {
	// CustomerIDs matches calls for any of these customers; empty: for all.
	CustomerIDs []string `json:"customer_ids,omitempty"`
	// CustomerPrefix matches customers whose id begins so.
	CustomerPrefix string `json:"customer_prefix,omitempty"`
	// RequestID matches calls with this request id.
	RequestID string `json:"request_id,omitempty"`
	// SKU matches calls for this product; 0: for all.
	SKU int `json:"sku_id,omitempty"`
	// Percent matches this share, above 0 to 100, of the customers: the same ones each
	// time, chosen by Seed. 0: all.
	Percent float64 `json:"percent,omitempty"`
	// PercentOfCalls makes Percent a share of the calls, drawn by lot from Seed.
	PercentOfCalls bool   `json:"percent_of_calls,omitempty"`
	Seed           uint64 `json:"seed,omitempty"`

	// Times is how often the fault acts on each request id; 0: always.
	Times int `json:"times,omitempty"`
	// TimesInAll makes Times a number over all request ids together.
	TimesInAll bool `json:"times_in_all,omitempty"`

	// Delay answers (or cuts) this much later. With no other effect the order
	// is booked first: a late answer.
	Delay time.Duration `json:"-"`
	// Status answers so, 200 to 999, without booking.
	Status int `json:"status,omitempty"`
	// Redirect answers with this Location, without booking; Status is 307
	// unless set.
	Redirect string `json:"redirect,omitempty"`
	// BookFirst books the order before Status or Redirect is answered.
	BookFirst bool `json:"book_first,omitempty"`
	// RetryAfter is sent as the header, as it stands.
	RetryAfter string `json:"retry_after,omitempty"`
	// Body replaces the answer's body, as it stands.
	Body string `json:"body,omitempty"`
	// Cut is CutBefore or CutAfter: no answer at all.
	Cut string `json:"cut,omitempty"`
	// Extra is the body of a second answer, a 200, that nobody asked for: it comes on
	// the same connection two milliseconds after the first. Only a server of [Start]
	// sends it.
	Extra string `json:"extra,omitempty"`
}

// Validate reports a fault that could do nothing or that contradicts itself.
func (f Fault) Validate() error { //nolint:cyclop // a list of rules, one a line
	switch {
	case f.Percent < 0 || f.Percent > 100:
		return errors.New("percent must lie between 0 and 100")
	case f.PercentOfCalls && f.Percent == 0:
		return errors.New("percent_of_calls needs percent")
	case f.Times < 0 || f.TimesInAll && f.Times == 0:
		return errors.New("times must be at least 1 where it is set")
	case f.Delay < 0:
		return errors.New("delay must not be negative")
	case f.Status != 0 && (f.Status < 200 || f.Status > 999):
		return errors.New("status must lie between 200 and 999")
	case f.Cut != "" && f.Cut != CutBefore && f.Cut != CutAfter:
		return fmt.Errorf("cut must be %q or %q", CutBefore, CutAfter)
	case f.Cut != "" && (f.Status != 0 || f.Redirect != "" || f.Body != "" || f.RetryAfter != "" || f.BookFirst || f.Extra != ""):
		return errors.New("cut means no answer: it goes with delay only")
	case f.BookFirst && f.Status == 0 && f.Redirect == "":
		return errors.New("book_first needs status or redirect; the other effects book first anyway")
	case f.Delay == 0 && f.Status == 0 && f.Redirect == "" && f.Body == "" && f.RetryAfter == "" && f.Cut == "" && f.Extra == "":
		return errors.New("no effect: set delay, status, redirect, body, retry_after, cut or extra")
	}
	return nil
}

// books reports whether a call that meets the fault books its order.
func (f Fault) books() bool {
	answered := f.Status == 0 && f.Redirect == ""
	return f.BookFirst || answered && f.Cut != CutBefore
}

// fits reports whether a call is of the kind that the fault is for; share and
// count come after.
func (f Fault) fits(requestID string, order orderBody) bool {
	if len(f.CustomerIDs) > 0 && !slices.Contains(f.CustomerIDs, order.customerID) {
		return false
	}
	return strings.HasPrefix(order.customerID, f.CustomerPrefix) &&
		(f.RequestID == "" || f.RequestID == requestID) &&
		(f.SKU == 0 || f.SKU == order.sku)
}

// plainFault is a Fault without its methods, for encoding/json.
type plainFault Fault

// MarshalJSON writes Delay as text.
func (f Fault) MarshalJSON() ([]byte, error) {
	out := struct {
		plainFault
		Delay string `json:"delay,omitempty"`
	}{plainFault: plainFault(f)}
	if f.Delay != 0 {
		out.Delay = f.Delay.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads Delay as text, and refuses unknown fields: with a misspelt
// matcher, a fault would act on every call.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var in struct {
		plainFault
		Delay string `json:"delay"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		return err
	}
	*f = Fault(in.plainFault)
	if in.Delay == "" {
		return nil
	}
	delay, err := time.ParseDuration(in.Delay)
	if err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	f.Delay = delay
	return nil
}
