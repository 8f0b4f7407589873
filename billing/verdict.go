package billing

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a person's verdict on charges.
const (
	MaxNote        = 1024 // characters of a note
	MaxBy          = 128  // characters of a name
	MaxCorrections = 1000 // charges that one call corrects
)

// FailureCorrected is the failure code of a charge that a person has corrected from
// charged to declined.
const FailureCorrected = "corrected"

// FailureInDoubt is the failure code of a charge of which nobody knows whether the shop has
// the order.
const FailureInDoubt = "in_doubt"

// Resolution is a person's verdict on an unresolved charge.
type Resolution struct {
	SubscriptionID string
	Period         Period
	Outcome        ChargeStatus // Charged or Declined
	By             string       // who says so, "" if not given
	Note           string       // why
}

// Validate returns an error with [CodeInvalid] that names the first bad field.
func (r Resolution) Validate() error { return validateVerdict(r.Outcome, r.Note, r.By) }

// Correction is a person's verdict on settled charges: the outcome that each should
// have had. It names the charges by request id; or one charge by subscription and
// period, if no other charge of that period is settled.
type Correction struct {
	RequestIDs     []RequestID // up to [MaxCorrections]
	SubscriptionID string      // if set, the request ids must be of this subscription and Period
	Period         Period
	Outcome        ChargeStatus // Charged or Declined
	By             string       // who says so, "" if not given
	Note           string       // why
}

// Validate returns an error with [CodeInvalid] that names the first bad field.
func (c Correction) Validate() error {
	switch n := len(c.RequestIDs); {
	case n > MaxCorrections, n == 0 && c.SubscriptionID == "":
		return Invalid("request_ids", fmt.Sprintf("must have 1 to %d request ids", MaxCorrections))
	}
	for _, id := range c.RequestIDs {
		if _, err := ParseRequestID(string(id)); err != nil {
			return err
		}
	}
	return validateVerdict(c.Outcome, c.Note, c.By)
}

// validateVerdict checks what a person says. The name is optional: it cannot be checked
// until callers have keys, and a required one would be invented.
func validateVerdict(outcome ChargeStatus, note, by string) error {
	switch {
	case outcome != Charged && outcome != Declined:
		return Invalid("outcome", "must be charged or declined")
	case !utf8.ValidString(note):
		return Invalid("note", "must be valid UTF-8")
	case strings.TrimSpace(note) == "" || utf8.RuneCountInString(note) > MaxNote:
		return Invalid("note", fmt.Sprintf("must say why, in 1 to %d characters", MaxNote))
	case strings.ContainsRune(note, 0):
		return Invalid("note", "must not contain the character NUL")
	}
	return ValidateText("by", by, 0, MaxBy)
}

// ChargeDeclined is the answer to a request whose charge is declined: by the shop, or
// by a person, whose note then says why.
func ChargeDeclined(c *Charge) *Error {
	detail := "the shop declined the order: " + c.FailureDetail
	if c.ResolvedNote != "" {
		detail = "a person has settled the charge as declined: " + inOneLine(c.ResolvedNote)
	}
	return &Error{Code: CodeChargeDeclined, Charge: c, Detail: detail}
}

func inOneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// ChargeWithdrawn is the answer to a request under a request id that was withdrawn.
func ChargeWithdrawn(c *Charge) *Error {
	return &Error{
		Code: CodeRequestIDReused, Charge: c,
		Detail: fmt.Sprintf("request id %q was withdrawn before anything was ordered under it; use a new one", c.RequestID),
	}
}
