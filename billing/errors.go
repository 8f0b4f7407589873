package billing

import (
	"errors"
	"fmt"
	"time"
)

// Code is the stable name of an error, the same in the API's problem responses
// and in the failures that the Temporal UI shows.
type Code string

// The codes of the domain. The API has a few more of its own, for HTTP.
const (
	CodeInvalid              Code = "validation_failed"
	CodeClubNotFound         Code = "club_not_found"
	CodeClubNotActive        Code = "club_not_active"
	CodeAlreadySubscribed    Code = "already_subscribed"
	CodeSubscriptionNotFound Code = "subscription_not_found"
	CodeChargeNotFound       Code = "charge_not_found"
	CodeNotEligible          Code = "not_eligible"
	CodeRequestIDReused      Code = "request_id_reused"
	CodeChargeDeclined       Code = "charge_declined"
	CodeChargeUnresolved     Code = "charge_unresolved"
	CodeChargeNotUnresolved  Code = "charge_not_unresolved"
	CodeChargeNotSettled     Code = "charge_not_settled"
	CodeChargeStands         Code = "charge_stands"
	CodeLedgerConflict       Code = "ledger_conflict"
	CodeRunNotFound          Code = "run_not_found"
	CodeRunNotActive         Code = "run_not_active"
	CodePeriodInFuture       Code = "period_in_future"
	CodeNotAdopted           Code = "installation_not_adopted"
	CodeOtherInstallation    Code = "other_installation"
	CodeDatabaseRefused      Code = "database_refused" // trying again is of no use
	CodePastUnconfirmed      Code = "past_period_unconfirmed"
	CodeDatabaseReplaced     Code = "database_replaced" // until the recall has looked through it
)

// Error is an outcome that a caller can act upon. Detail is a sentence for
// people. The other fields are set if the code has something to show.
type Error struct {
	Code           Code    `json:"code"`
	Detail         string  `json:"detail"`
	Field          string  `json:"field,omitempty"`           // with CodeInvalid
	Reason         Reason  `json:"reason,omitempty"`          // with CodeNotEligible
	SubscriptionID string  `json:"subscription_id,omitempty"` // with CodeAlreadySubscribed
	Charge         *Charge `json:"charge,omitempty"`          // with the codes about a charge
	// With CodePastUnconfirmed: the cut-off that the run would have, and how many
	// would be due in it, if they were counted.
	CutOff *time.Time `json:"cut_off,omitempty"`
	Due    *int       `json:"due,omitempty"`
}

// Error returns the code and the sentence.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Detail }

// Errorf makes an error of the code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Invalid makes an error that says what is wrong with an input field.
func Invalid(field, what string) *Error {
	return &Error{Code: CodeInvalid, Detail: field + " " + what, Field: field}
}

// CodeOf returns the code of the first [Error] in the chain, "" if there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
