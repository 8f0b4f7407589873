package billing

import (
	"encoding/json"
	"fmt"
	"time"
)

// ChargeStatus is where a charge stands.
type ChargeStatus string

// A charge is claimed as pending, before the shop hears of it, and settled as
// one of the others. Unresolved means that nobody knows yet whether the shop
// has the order, or that the shop could not be reached for too long. Withdrawn
// means that nothing was ordered under the request id, and that nothing will be.
const (
	Pending    ChargeStatus = "pending"
	Charged    ChargeStatus = "charged"
	Declined   ChargeStatus = "declined"
	Unresolved ChargeStatus = "unresolved"
	Withdrawn  ChargeStatus = "withdrawn"
)

// Stands reports whether the charge is an order or may become one. At most one
// charge of a subscription and period stands; the others are history.
func (s ChargeStatus) Stands() bool { return s != Declined && s != Withdrawn }

// Charge is one row of the ledger. Times are UTC.
type Charge struct {
	RequestID      RequestID       `json:"request_id"`
	SubscriptionID string          `json:"subscription_id"`
	Period         Period          `json:"period"`
	Status         ChargeStatus    `json:"status"`
	Attempts       int             `json:"attempts"` // calls to the shop, as far as they were counted
	ClubID         int             `json:"club_id,omitempty"`
	CustomerID     string          `json:"customer_id"`
	SKU            int             `json:"sku_id"`
	Order          json.RawMessage `json:"order,omitempty"`          // the shop's JSON answer, up to 64 KiB
	FailureCode    string          `json:"failure_code,omitempty"`   // of declined and unresolved ones
	FailureDetail  string          `json:"failure_detail,omitempty"` // a sentence
	ResolvedBy     string          `json:"resolved_by,omitempty"`    // the person who settled it by hand
	ResolvedNote   string          `json:"resolved_note,omitempty"`
	CreatedAt      time.Time       `json:"created_at"`
	SettledAt      *time.Time      `json:"settled_at,omitempty"`

	// Owner is who works on a pending charge, and ClaimedUntil until when it holds the
	// claim (zero: it does not). The API does not show them.
	Owner        string    `json:"owner,omitempty"`
	ClaimedUntil time.Time `json:"claimed_until,omitzero"`
	RunID        string    `json:"run_id,omitempty"` // the billing run that claimed it, "" for a request
	// SentAt is zero if the shop has certainly made no order under the request id and
	// no request is under way. docs/product.md says who sets and clears it, and what a
	// claim may send.
	SentAt time.Time `json:"sent_at,omitzero"`

	// Installation is the id of the installation that claimed the charge.
	Installation string `json:"installation,omitempty"`
	// StatusRow and ClubStatusRow are the ids of the rows of
	// subscription_status_history and club_status_history that decided at the claim
	// that the subscription was eligible. They stay, whatever is written later.
	StatusRow     string `json:"decided_by_status,omitempty"`
	ClubStatusRow string `json:"decided_by_club_status,omitempty"`
}

// ChargeOwner owns the claims of ChargeSubscription workflows. All of them have
// one name: the workflow's id lets only one at a time at each charge.
const ChargeOwner = "charge"

// ChargeRequest asks for this period's order of a subscription.
type ChargeRequest struct {
	SubscriptionID string    `json:"subscription_id"`
	Period         Period    `json:"period"`
	RequestID      RequestID `json:"request_id"` // "": derived, see [DerivedRequestID]
	// RequireEligible refuses a subscription that is not eligible at the claim.
	RequireEligible bool   `json:"require_eligible"`
	RunID           string `json:"run_id,omitempty"` // the billing run that asks, in which it must be due; "" for a request
	Installation    string `json:"installation"`     // the id of the installation that asks; another one's worker refuses
	// Remembered is the request id under which Temporal remembers the period as
	// charged, "" for none. It replaces RequestID if the ledger has no row for it: the
	// database is then older than that order.
	Remembered RequestID `json:"remembered_request_id,omitempty"`
}

// Validate returns an error with [CodeInvalid] that names the first bad field. A
// billing run charges under whatever ids the table has, and need not name a
// request id; it has only to be one of the period.
func (r ChargeRequest) Validate() error {
	if err := r.Period.Validate(); err != nil {
		return err
	}
	switch {
	case r.RunID == "":
		if err := ValidateID("subscription_id", r.SubscriptionID); err != nil {
			return err
		}
	case r.SubscriptionID == "":
		return Invalid("subscription_id", "must be given")
	case !IsRunOf(r.RunID, r.Period):
		return Invalid("run_id", "must be that of a run of "+r.Period.String())
	}
	if r.RequestID != "" || r.RunID == "" {
		if _, err := ParseRequestID(string(r.RequestID)); err != nil {
			return err
		}
	}
	if r.Remembered != "" {
		_, err := ParseRequestID(string(r.Remembered))
		return err
	}
	return nil
}

// ChargeFacts is what a charge request meets.
type ChargeFacts struct {
	// Exists says that the subscription's row is there; the next four describe it.
	Exists     bool
	ClubID     int
	CustomerID string
	SKU        *int
	Standing   Standing
	// StatusRow and ClubStatusRow are the ids of the rows that decide about Standing,
	// "" for none.
	StatusRow, ClubStatusRow string
	// SameRequest is the ledger's row under this request id, if any. If a run asks without
	// one, and no row stands, it is the run's own declined or withdrawn row: a run tries
	// each subscription once.
	SameRequest *Charge
	// AtCutOff is the standing at the cut-off of the run that asks; nil for a
	// request, and if a row is open.
	AtCutOff *Standing
	// Open is the subscription's row for the period that stands, if any.
	Open *Charge
}

// Step is what a charge request comes to.
type Step string

// The steps. An Answer step stands in the ledger already and asks nothing of
// the shop.
const (
	StepAnswer Step = "answer" // charged, or this request id was declined: that is the answer
	StepJoin   Step = "join"   // pending: wait for it, or take it over
	StepResume Step = "resume" // unresolved: take it up again under its own request id
	StepPlace  Step = "place"  // claim it and ask the shop
)

// Decide says what a charge request comes to, in the order of the table in
// docs/product.md, from the request id on. It returns the ledger's row with every
// step but StepPlace, and an [Error] if the request is refused: request_id_reused (also if
// the request id was withdrawn), subscription_not_found or not_eligible.
//
// A row that is open comes before the subscription's own state: once claimed, a
// charge is seen through, whether or not the subscription was cancelled or
// deleted since.
func Decide(req ChargeRequest, facts ChargeFacts) (Step, *Charge, error) {
	same, open := facts.SameRequest, facts.Open
	if same != nil && (same.SubscriptionID != req.SubscriptionID || same.Period != req.Period) {
		return "", nil, Errorf(CodeRequestIDReused,
			"request id %q was used before, for another subscription or period; use a new one", req.RequestID)
	}
	switch {
	case open != nil && open.Status == Charged:
		return StepAnswer, open, nil
	case same != nil && same.Status == Declined:
		return StepAnswer, same, nil
	case open != nil && open.Status == Unresolved:
		return StepResume, open, nil
	case open != nil:
		return StepJoin, open, nil
	case same != nil && same.Status == Withdrawn: // the ledger has one row for a request id
		return "", nil, ChargeWithdrawn(same)
	}
	return StepPlace, nil, chargeable(req, facts)
}

// chargeable returns why no new charge can be claimed, nil if one can.
func chargeable(req ChargeRequest, facts ChargeFacts) error {
	if !facts.Exists {
		return SubscriptionNotFound(req.SubscriptionID)
	}
	var reason Reason
	if req.RequireEligible || req.RunID != "" { // a run charges nobody who is not
		reason = WhyNotEligible(facts.Standing)
	}
	switch {
	case reason != "":
	case facts.AtCutOff != nil && !Eligible(*facts.AtCutOff):
		reason = ReasonNotDueInRun
	case !facts.Standing.HasClub:
		reason = ReasonSubscriptionWithoutClub
	case IsBlank(facts.CustomerID):
		reason = ReasonWithoutCustomer
	case facts.SKU == nil:
		reason = ReasonWithoutSKU
	default:
		return nil
	}
	return &Error{Code: CodeNotEligible, Reason: reason, Detail: fmt.Sprintf("the subscription cannot be charged: %s", reason.Sentence())}
}

// claimTolerance is how far from its month a request may come. A month begins up to
// 14 hours before that of UTC, and ends up to 12 hours after it, depending on the
// zone; the rest is for a request that waited for the database over midnight.
const claimTolerance = 26 * time.Hour

// CheckClaimable refuses a new charge that no run asks for, if its month is not the current
// one in any time zone: [CodePeriodInFuture], or [CodeInvalid] if it is over. A charge that
// was claimed in time is seen through at any time.
func CheckClaimable(p Period, now time.Time) error {
	begin := time.Date(p.year, p.month, 1, 0, 0, 0, 0, time.UTC)
	switch {
	case now.Before(begin.Add(-claimTolerance)):
		return Errorf(CodePeriodInFuture, "%s has not begun; only a charge of the current month is new", p)
	case now.After(begin.AddDate(0, 1, 0).Add(claimTolerance)):
		return Invalid("period", fmt.Sprintf("must be the current month, for a new charge; %s is over, and only a billing run charges it", p))
	}
	return nil
}

// SubscriptionNotFound is the error about a subscription that has no row.
func SubscriptionNotFound(id string) *Error {
	return Errorf(CodeSubscriptionNotFound, "there is no subscription %q", id)
}

// Sentence returns the reason in words.
func (r Reason) Sentence() string {
	switch r {
	case ReasonSubscriptionWithoutStatus:
		return "it has no status now"
	case ReasonSubscriptionCancelled:
		return "it is CANCELLED now"
	case ReasonSubscriptionPaused:
		return "it is PAUSED now"
	case ReasonSubscriptionWithoutClub:
		return "it belongs to no club"
	case ReasonClubWithoutStatus:
		return "its club has no status now"
	case ReasonClubInactive:
		return "its club is INACTIVE now"
	case ReasonNotDueInRun:
		return "it was not eligible at the run's cut-off, so it belongs to a later run"
	case ReasonWithoutCustomer:
		return "it has no usable customer id"
	case ReasonWithoutSKU:
		return "its club has no SKU"
	default:
		return string(r)
	}
}
