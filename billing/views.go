package billing

import "time"

// Subscription is a subscription as it stands at a time, with what is scheduled.
type Subscription struct {
	ID         string
	ClubID     int // 0: none
	CustomerID string
	CreateDate *time.Time
	At         time.Time
	// Current is the row that decides at At; its ID is "" if there is none.
	Current   Change
	Scheduled []Change // the rows after At, in the order of effect
	// InProgress is the charge that was pending or unresolved at a status
	// change: the change comes too late for it.
	InProgress *Charge
	Unreadable []Unreadable // of its history, and its own create date
}

// Unreadable is a time that cannot be read: SQLite keeps what people type.
// A row of a history whose effect date cannot be read does not count; a create date
// that cannot be read counts as null.
type Unreadable struct {
	Table  string `json:"table" example:"subscription_status_history"`
	ID     string `json:"id" doc:"of the row"`
	Column string `json:"column" enum:"effect_date,create_date"`
	Text   string `json:"text" doc:"what stands there; of a long text the beginning" example:"27.11.2026 00:00"`
}

// Explanation is why a subscription is eligible at a time, or is not.
type Explanation struct {
	At           time.Time
	Reason       Reason // "": eligible
	Subscription Change // the row that decides; its ID is "" if none does
	ClubID       int    // 0: none
	Club         Change
	Unreadable   []Unreadable // of both histories
}

// Club is a club as it stands at a time.
type Club struct {
	ID      int
	Name    string
	SKU     *int   // the product that it sends
	Current Change // the row that decides; its ID is "" if there is none
	// Unreadable are those of its history.
	Unreadable []Unreadable
}

// EligibleQuery selects the subscriptions that are eligible at a time.
type EligibleQuery struct {
	At time.Time // UTC
	// CutOff selects those who were eligible then as well, for a run; zero: all.
	CutOff time.Time
	// Uncharged leaves out those whose charge in the period stands; the
	// zero period keeps them.
	Uncharged Period
	After     string // only ids greater than this one, by bytes; "" for all
	Limit     int    // the greatest number of ids; 0 for all
}

// Claim is what a claim found or made.
type Claim struct {
	// Step is StepPlace if the caller now owns the charge and asks the shop under
	// its request id; StepAnswer if the charge is settled; StepJoin if somebody else
	// holds it until ClaimedUntil; StepResume if it is unresolved and must not be sent
	// again.
	Step   Step
	Charge *Charge
	// Unsent says, with StepPlace, that the shop has certainly heard nothing before this
	// claim, or made no order of it: Charge.SentAt is the time that this claim has set.
	Unsent bool
}
