package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"drayman/billing"
	"drayman/guard"
	"drayman/models"
)

// Problem is an error response after RFC 9457. Code is the stable name by which
// programs tell errors apart; Type is the same as a URI.
type Problem struct {
	Type           string              `json:"type" example:"urn:drayman:problem:not_eligible"`
	Title          string              `json:"title" example:"Conflict"`
	Status         int                 `json:"status" example:"409"`
	Detail         string              `json:"detail" example:"the subscription cannot be charged: it is PAUSED now"`
	Code           billing.Code        `json:"code" example:"not_eligible"`
	Reason         billing.Reason      `json:"reason,omitempty" doc:"with not_eligible: what stands against it"`
	SubscriptionID string              `json:"subscription_id,omitempty" doc:"with already_subscribed: the subscription there is"`
	Charge         *billing.Charge     `json:"charge,omitempty" doc:"with the codes about a charge: its record"`
	CutOff         *time.Time          `json:"cut_off,omitempty" doc:"with past_period_unconfirmed: who was eligible then, and still is, would be due"`
	Due            *int                `json:"due,omitempty" doc:"with past_period_unconfirmed: how many would be due, and are not charged yet"`
	Errors         []*huma.ErrorDetail `json:"errors,omitempty" doc:"with validation_failed: each error and its place"`

	retryAfter int // seconds; 0: no Retry-After
}

// Codes of HTTP itself and of the system's state; the domain's are in billing.
const (
	codeBadRequest          billing.Code = "bad_request"
	codeNotFound            billing.Code = "not_found"
	codeMethodNotAllowed    billing.Code = "method_not_allowed"
	codeBodyTooLarge        billing.Code = "body_too_large"
	codeHeadersTooLarge     billing.Code = "headers_too_large"
	codeUnsupportedMedia    billing.Code = "unsupported_media_type"
	codeInternal            billing.Code = "internal_error"
	codeDatabaseUnavailable billing.Code = "database_unavailable"
	codeTemporalUnavailable billing.Code = "temporal_unavailable"
	codeChargeInterrupted   billing.Code = "charge_interrupted"
	codeNotReady            billing.Code = "not_ready"
	codeCrossOrigin         billing.Code = "cross_origin"
	codeHostNotServed       billing.Code = "host_not_served"
)

// statusOf is the one table from codes to HTTP.
var statusOf = map[billing.Code]int{
	billing.CodeInvalid:              http.StatusUnprocessableEntity,
	billing.CodeClubNotFound:         http.StatusNotFound,
	billing.CodeClubNotActive:        http.StatusConflict,
	billing.CodeAlreadySubscribed:    http.StatusConflict,
	billing.CodeSubscriptionNotFound: http.StatusNotFound,
	billing.CodeChargeNotFound:       http.StatusNotFound,
	billing.CodeNotEligible:          http.StatusConflict,
	billing.CodeRequestIDReused:      http.StatusConflict,
	billing.CodeChargeDeclined:       http.StatusPaymentRequired,
	billing.CodeChargeUnresolved:     http.StatusConflict,
	billing.CodeChargeNotUnresolved:  http.StatusConflict,
	billing.CodeChargeNotSettled:     http.StatusConflict,
	billing.CodeChargeStands:         http.StatusConflict,
	billing.CodeLedgerConflict:       http.StatusConflict,
	billing.CodeRunNotFound:          http.StatusNotFound,
	billing.CodeRunNotActive:         http.StatusConflict,
	billing.CodePeriodInFuture:       http.StatusConflict,
	billing.CodeNotAdopted:           http.StatusServiceUnavailable,
	billing.CodeOtherInstallation:    http.StatusServiceUnavailable,
	billing.CodeDatabaseRefused:      http.StatusInternalServerError,
	billing.CodePastUnconfirmed:      http.StatusConflict,
	billing.CodeDatabaseReplaced:     http.StatusServiceUnavailable,
	codeBadRequest:                   http.StatusBadRequest,
	codeNotFound:                     http.StatusNotFound,
	codeMethodNotAllowed:             http.StatusMethodNotAllowed,
	codeBodyTooLarge:                 http.StatusRequestEntityTooLarge,
	codeHeadersTooLarge:              http.StatusRequestHeaderFieldsTooLarge,
	codeUnsupportedMedia:             http.StatusUnsupportedMediaType,
	codeInternal:                     http.StatusInternalServerError,
	codeDatabaseUnavailable:          http.StatusServiceUnavailable,
	codeTemporalUnavailable:          http.StatusServiceUnavailable,
	codeChargeInterrupted:            http.StatusServiceUnavailable,
	codeNotReady:                     http.StatusServiceUnavailable,
	codeCrossOrigin:                  guard.ForeignOrigin.Status,
	codeHostNotServed:                guard.ForeignHost.Status,
}

// retryAfterSeconds is what a 503 asks for.
const retryAfterSeconds = 5

func newProblem(code billing.Code, detail string) *Problem {
	status := statusOf[code]
	p := &Problem{
		Type: "urn:drayman:problem:" + string(code), Title: http.StatusText(status),
		Status: status, Detail: detail, Code: code,
	}
	if status == http.StatusServiceUnavailable {
		p.retryAfter = retryAfterSeconds
	}
	return p
}

// Error, GetStatus and GetHeaders make a Problem what huma takes for an error.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	if p.retryAfter == 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(p.retryAfter)}}
}

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// write sends the problem from outside of huma.
func (p *Problem) write(w http.ResponseWriter) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a caller that is gone cannot be told
}

// huma keeps the maker of its own errors, about malformed and invalid input, in
// a package variable; there is no other way to give them codes. The same goes
// for names of fields, which it would take in any case, of two even both.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return problemOf(status, message, errs)
	}
}

// bodyCut is huma's message if a body broke off or its chunks were malformed. That is the
// caller's fault, but huma answers 500.
const bodyCut = "cannot read request body"

// problemOf gives huma's own errors their codes. A resolver's problem goes before
// them.
func problemOf(status int, message string, errs []error) *Problem {
	var made *Problem
	switch {
	case errors.As(errors.Join(errs...), &made):
		return made
	case message == bodyCut:
		return newProblem(codeBadRequest, "the body did not come whole; send the request again")
	case status == http.StatusUnsupportedMediaType:
		return newProblem(codeUnsupportedMedia, "the body must be JSON, with the header Content-Type: application/json")
	}
	code := codeBadRequest
	for _, c := range []billing.Code{billing.CodeInvalid, codeBodyTooLarge, codeInternal} {
		if statusOf[c] == status {
			code = c
		}
	}
	p := newProblem(code, message)
	for _, err := range errs {
		var detail huma.ErrorDetailer
		if errors.As(err, &detail) {
			// The value is left out: it may be the whole body, or a secret.
			d := detail.ErrorDetail()
			p.Errors = append(p.Errors, &huma.ErrorDetail{Message: printable(d.Message), Location: printable(d.Location)})
		} else if err != nil {
			p.Errors = append(p.Errors, &huma.ErrorDetail{Message: printable(err.Error())})
		}
	}
	if len(p.Errors) > 0 {
		p.Detail = sentence(p.Errors[0])
	}
	return p
}

// maxQuote bounds what is quoted of the input, in characters.
const maxQuote = 200

// printable makes a text that may quote names from the input fit for a line.
func printable(text string) string {
	quoted := []rune(strings.ToValidUTF8(text, "\ufffd"))
	if len(quoted) > maxQuote {
		quoted = append(quoted[:maxQuote], '…')
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, string(quoted))
}

// sentence names the field and the fix in one line.
func sentence(d *huma.ErrorDetail) string {
	if d.Location == "" {
		return d.Message
	}
	return d.Location + ": " + d.Message
}

// problem translates an error of the domain, the database or Temporal for the
// caller, once, at this edge.
func (a *api) problem(ctx context.Context, err error) *Problem {
	var known *billing.Error
	var made *Problem
	switch {
	case errors.As(err, &made):
		return made
	case errors.As(err, &known):
		return knownProblem(known)
	case models.IsUnavailable(err):
		a.log.WarnContext(ctx, "the database is unavailable", "error", err)
		return newProblem(codeDatabaseUnavailable, "the database cannot serve this now; try again")
	case errors.Is(ctx.Err(), context.Canceled):
		return newProblem(codeBadRequest, "the request was cancelled")
	}
	a.log.ErrorContext(ctx, "request failed", slog.Any("error", err))
	return newProblem(codeInternal, "something went wrong on our side; it has been logged")
}

func knownProblem(e *billing.Error) *Problem {
	p := newProblem(e.Code, e.Detail)
	p.Reason, p.SubscriptionID = e.Reason, e.SubscriptionID
	if e.Charge != nil {
		p.Charge = new(record(*e.Charge).Charge)
	}
	p.CutOff, p.Due = e.CutOff, e.Due
	if e.Field != "" {
		p.Errors = []*huma.ErrorDetail{{Message: e.Detail, Location: e.Field}}
	}
	return p
}
