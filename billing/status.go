package billing

import (
	"cmp"
	"time"
)

// Status is a status of a subscription; the numbers are the ids of the approved
// table "status". Zero means that there is none.
type Status int

// The statuses of a subscription (table "status": ATIVO, CANCELADO, PAUSADO).
const (
	Active    Status = 1
	Cancelled Status = 2
	Paused    Status = 3
)

// String returns the name that the API shows.
func (s Status) String() string {
	switch s {
	case Active:
		return "ACTIVE"
	case Cancelled:
		return "CANCELLED"
	case Paused:
		return "PAUSED"
	default:
		return "NONE"
	}
}

// ClubStatus is a status of a club; the numbers are the ids of the approved
// table "club_status". Zero means that there is none.
type ClubStatus int

// The statuses of a club (table "club_status": ATIVO, FECHADO, INATIVO).
const (
	ClubActive   ClubStatus = 1
	ClubClosed   ClubStatus = 2
	ClubInactive ClubStatus = 3
)

// String returns the name that the API shows.
func (s ClubStatus) String() string {
	switch s {
	case ClubActive:
		return "ACTIVE"
	case ClubClosed:
		return "CLOSED"
	case ClubInactive:
		return "INACTIVE"
	default:
		return "NONE"
	}
}

// Change is one row of a status history, of a subscription or of a club. Dates
// are UTC; nil is a null in the table, and StatusID 0 is one too.
type Change struct {
	ID         string     `json:"id"`
	StatusID   int        `json:"status_id"`
	EffectDate *time.Time `json:"effect_date"`
	CreateDate *time.Time `json:"create_date"`
	Details    string     `json:"details,omitempty"`
}

// StatusAt returns the row of the history that decides at the time at: the one
// with the greatest effect date not after it; ties go to the later create date
// (a null one is the earliest), then to the greater id, by bytes. Rows with a
// null effect date do not count. It returns false if no row decides.
func StatusAt(history []Change, at time.Time) (Change, bool) {
	var decides Change
	found := false
	for _, c := range history {
		if c.EffectDate == nil || c.EffectDate.After(at) {
			continue
		}
		if !found || compareChanges(c, decides) > 0 {
			decides, found = c, true
		}
	}
	return decides, found
}

// compareChanges orders rows with an effect date by precedence.
func compareChanges(a, b Change) int {
	return cmp.Or(
		a.EffectDate.Compare(*b.EffectDate),
		compareDates(a.CreateDate, b.CreateDate),
		cmp.Compare(a.ID, b.ID),
	)
}

func compareDates(a, b *time.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	default:
		return a.Compare(*b)
	}
}

// Reason says why a subscription cannot be charged.
type Reason string

// Reasons, in the order in which they are looked for.
const (
	ReasonSubscriptionWithoutStatus Reason = "subscription_without_status"
	ReasonSubscriptionCancelled     Reason = "subscription_cancelled"
	ReasonSubscriptionPaused        Reason = "subscription_paused"
	ReasonSubscriptionWithoutClub   Reason = "subscription_without_club"
	ReasonClubWithoutStatus         Reason = "club_without_status"
	ReasonClubInactive              Reason = "club_inactive"
	// ReasonNotDueInRun: eligible now, and not at the cut-off of the run that asks.
	ReasonNotDueInRun Reason = "not_due_in_run"
	// The next two concern what the shop must be told, not eligibility.
	ReasonWithoutCustomer Reason = "subscription_without_customer"
	ReasonWithoutSKU      Reason = "club_without_sku"
)

// Standing is what decides about a subscription at one moment.
type Standing struct {
	Subscription Status
	Club         ClubStatus
	HasClub      bool
}

// WhyNotEligible returns the reason why a subscription that stands so is not
// eligible; "" means that it is. The rule is the brief's: ACTIVE, in a club that
// is ACTIVE or CLOSED.
func WhyNotEligible(s Standing) Reason {
	switch {
	case s.Subscription == Cancelled:
		return ReasonSubscriptionCancelled
	case s.Subscription == Paused:
		return ReasonSubscriptionPaused
	case s.Subscription != Active:
		return ReasonSubscriptionWithoutStatus
	case !s.HasClub:
		return ReasonSubscriptionWithoutClub
	case s.Club == ClubActive || s.Club == ClubClosed:
		return ""
	case s.Club == ClubInactive:
		return ReasonClubInactive
	default:
		return ReasonClubWithoutStatus
	}
}

// Eligible reports whether a subscription that stands so is eligible.
func Eligible(s Standing) bool { return WhyNotEligible(s) == "" }
