package billing

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxID is the length of an id of the approved tables, in characters.
const MaxID = 36

// MaxRequestID is the length of a request id, in bytes.
const MaxRequestID = 128

// ValidateID checks an opaque id: 1 to 36 characters, none a control character.
// Nothing else: ids that are no UUIDs are in use. The error names the field.
func ValidateID(field, id string) error { return ValidateText(field, id, 1, MaxID) }

// ValidateCustomerID checks a customer's id as [ValidateID] does, and that it is not
// blank.
func ValidateCustomerID(id string) error {
	if err := ValidateID("customer_id", id); err != nil {
		return err
	}
	if IsBlank(id) {
		return Invalid("customer_id", "must not be blank")
	}
	return nil
}

// IsBlank reports that a text is empty or holds white space only.
func IsBlank(s string) bool { return strings.TrimSpace(s) == "" }

// ValidateText checks that a text is valid UTF-8 without control characters and has
// shortest to longest characters. The error names the field.
func ValidateText(field, s string, shortest, longest int) error {
	n := utf8.RuneCountInString(s)
	switch {
	case !utf8.ValidString(s):
		return Invalid(field, "must be valid UTF-8")
	case n < shortest || n > longest:
		return Invalid(field, fmt.Sprintf("must have %d to %d characters", shortest, longest))
	case strings.ContainsFunc(s, unicode.IsControl):
		return Invalid(field, "must not contain control characters")
	}
	return nil
}

// RequestID is the idempotency key of one attempt to get an order for a
// subscription and period; it becomes a path segment at the shop.
type RequestID string

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._~:-]{1,128}$`)

// ParseRequestID checks a caller's request id: 1 to 128 characters of
// A–Z a–z 0–9 . _ ~ : - and neither "." nor "..", which a URL would take for a
// step in the path (RFC 3986 §5.2.4).
func ParseRequestID(s string) (RequestID, error) {
	if !requestIDForm.MatchString(s) || s == "." || s == ".." {
		return "", Invalid("request_id", "must have 1 to 128 characters of A-Z a-z 0-9 . _ ~ : - and not be . or ..")
	}
	return RequestID(s), nil
}

// plainID are the subscription ids that stand in a derived request id as they
// are: none with an upper-case letter, because some shops compare request ids
// without case. endsLikeAttempt would make "{id}" and "{id}-2" ambiguous.
var (
	plainID         = regexp.MustCompile(`^[a-z0-9._:-]{1,36}$`)
	endsLikeAttempt = regexp.MustCompile(`-[1-9][0-9]{0,3}$`)
)

// MaxAttempt is the greatest attempt of a derived request id.
const MaxAttempt = 9999

// DerivedRequestID returns the request id under which a billing run asks for an
// order: "{period}-{subscription}", and "-2", "-3" … after declines. The attempt is 1
// to [MaxAttempt]. It depends on its arguments alone, so a run that is repeated, even
// with a restored database, asks the shop for the same order.
//
// No two arguments give the same id, not even for a shop that compares without case.
// If the subscription's id does not fit the form, has an upper-case letter or could be
// mistaken for an attempt, "~" and its SHA-256 stand for it. See decision 0002.
func DerivedRequestID(p Period, subscriptionID string, attempt int) RequestID {
	name := subscriptionID
	if !plainID.MatchString(name) || endsLikeAttempt.MatchString(name) {
		sum := sha256.Sum256([]byte(name))
		name = "~" + hex.EncodeToString(sum[:])
	}
	id := p.String() + "-" + name
	if attempt > 1 {
		id += fmt.Sprintf("-%d", attempt)
	}
	return RequestID(id)
}

// timestampForm is that of RFC 3339 §5.6, with an optional zone. time.Parse alone
// also accepts a comma for the point, "T1:00:00" and "+24:60".
var timestampForm = regexp.MustCompile(`T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$`)

// ParseTimestamp reads a moment as the API takes it: RFC 3339, or the Python
// version's form without a zone (2019-02-18T12:25:56.563000), which means UTC.
// The result is UTC, cut to microseconds, in the years 1900 to 9999.
func ParseTimestamp(field, s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
		t, err := time.Parse(layout, s)
		if err != nil || !timestampForm.MatchString(s) {
			continue
		}
		t = t.UTC().Truncate(time.Microsecond)
		if t.Year() < 1900 || t.Year() > 9999 {
			return time.Time{}, Invalid(field, "must lie in the years 1900 to 9999")
		}
		return t, nil
	}
	return time.Time{}, Invalid(field, "must be a time such as 2026-11-01T00:00:00Z (write + as %2B in a URL) or 2026-11-01T00:00:00, which means UTC")
}
