package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"drayman/shop/shoptest"
)

// What is excused after a setback, and nothing else: the database has forgotten what
// it wrote from a lapse's beginning to its end; the shop, Temporal and the callers have
// not. So two orders for a subscription and month are never excused, nor is one who is
// left out. An order and a 200 must be in the ledger again, by Temporal's memory, by the
// run that goes through all again, or by a person's copy, but for what orderMayBeForgotten
// and answerMayBeForgotten name.

// holds says whether what was written at that time may be forgotten.
func (l lapse) holds(at time.Time) bool { return !at.Before(l.From) && !at.After(l.To) }

// touches says the same of what was written at some time between the two.
func (l lapse) touches(from, to time.Time) bool { return !to.Before(l.From) && !from.After(l.To) }

// forgettable says that an answer tells of what may be forgotten: it came after a
// backup had begun, and was asked for before the old database was gone.
func (b *books) forgettable(a exchange) bool {
	return slices.ContainsFunc(b.lapses, func(l lapse) bool { return l.touches(a.Sent, a.Got) })
}

// sentInLapse are the lapses in which the claim of an order may have been forgotten.
// The order may land a while after its claim.
func (b *books) sentInLapse(o shoptest.Order) func(yield func(lapse) bool) {
	return func(yield func(lapse) bool) {
		for _, l := range b.lapses {
			if l.touches(o.CreatedAt.Add(-landing), o.CreatedAt) && !o.CreatedAt.Before(l.From) && !yield(l) {
				return
			}
		}
	}
}

// inLapse says that the order's row, or how it stands, may be forgotten.
func (b *books) inLapse(o shoptest.Order) bool {
	for range b.sentInLapse(o) {
		return true
	}
	return false
}

// orderMayBeForgotten says that nobody is left who could write the order's row: its
// subscription is forgotten as well; or a page made it, of which Temporal has no
// history, and the subscription was not eligible at all times since, so that no run
// asks for it again. Where the shop books every call, a person copies the second kind.
func (b *books) orderMayBeForgotten(o shoptest.Order) bool {
	id := b.subscriptionOf(o)
	if b.subscriptionForgotten(id) {
		return true
	}
	s, there := b.subs[id]
	if there && b.plan.Sizes.Idempotent && b.derived(o.RequestID) {
		for l := range b.sentInLapse(o) {
			if s.everNotEligible(l.To, b.read) {
				return true
			}
		}
	}
	return false
}

// answerMayBeForgotten is the same for a 200: only with its order.
func (b *books) answerMayBeForgotten(a exchange, subscription, requestID string) bool {
	return b.forgettable(a) && slices.ContainsFunc(b.orders, func(o shoptest.Order) bool {
		return o.RequestID == requestID && b.subscriptionOf(o) == subscription && b.orderMayBeForgotten(o)
	})
}

// claimForgotten says that the row stands for a second claim of the order, which the
// idempotent shop answered with the first one's: made after the database had forgotten
// the first.
func (b *books) claimForgotten(o shoptest.Order, r row) bool {
	for l := range b.sentInLapse(o) {
		if b.plan.Sizes.Idempotent && !r.CreatedAt.Before(l.From) {
			return true
		}
	}
	return false
}

// declineForgotten says that a 402 tells of a decline that may be forgotten. Its
// request id may have been tried again since, for nobody else.
func (b *books) declineForgotten(a exchange, r row, subscription string) bool {
	return b.forgettable(a) && (r.RequestID == "" || r.Status == "charged" && r.Subscription == subscription)
}

// subscriptionForgotten says that a subscription which was answered 201, or named by a 409
// after an answer that was cut, is gone, and may be.
func (b *books) subscriptionForgotten(id string) bool {
	_, there := b.subs[id]
	return !there && slices.ContainsFunc(b.answers, func(a exchange) bool {
		return madeID(a) == id && b.forgettable(a)
	})
}

// changeForgotten says that what the database knew of the subscription's status at some
// moment between the two times is not what its history says now: a change which may
// have been carried out is forgotten, by a lapse that holds the moment; or one was
// forgotten by then, and a later setback, to a backup from before, has brought it back.
func (b *books) changeForgotten(id string, from, to time.Time) bool {
	return slices.ContainsFunc(b.answers, func(a exchange) bool {
		m := statusPath.FindStringSubmatch(a.Path)
		return m != nil && m[1] == id && slices.ContainsFunc(b.lapses, func(l lapse) bool {
			if !l.touches(a.Sent, a.Got) {
				return false
			}
			return l.touches(from, to) && !b.subs[id].hasChange(a) || b.inALaterLapse(l, from, to)
		})
	})
}

// inALaterLapse says that a moment between the two times is after the lapse and in one
// that ended later: in a database that is gone.
func (b *books) inALaterLapse(l lapse, from, to time.Time) bool {
	return to.After(l.To) && slices.ContainsFunc(b.lapses, func(later lapse) bool {
		return later.To.After(l.To) && later.touches(from, to)
	})
}

// eligibilityForgotten says that the row was claimed when its subscription was
// eligible, for all we know: what made it so is forgotten, and the row came back; or a
// person copied it, who knows the order's time only.
func (b *books) eligibilityForgotten(r row) bool {
	if r.Owner == byHand {
		return b.subs[r.Subscription].everEligible(r.CreatedAt.Add(-retryFor-landing), r.CreatedAt) ||
			b.changeForgotten(r.Subscription, r.CreatedAt.Add(-retryFor-landing), r.CreatedAt)
	}
	return b.subscriptionForgotten(r.Subscription) || b.changeForgotten(r.Subscription, r.CreatedAt, r.CreatedAt)
}

// cutOffForgotten says that the row, which came back, is of a run that did not:
// another one has its number, with a cut-off after the row's claim, or none has. What
// made its subscription eligible may be forgotten, too.
func (b *books) cutOffForgotten(r row) bool {
	held := slices.ContainsFunc(b.lapses, func(l lapse) bool { return l.holds(r.CreatedAt) })
	cutOff, known := b.cutOffs[*r.Run]
	switch {
	case !held:
		return false
	case !known || r.Period == b.months[0] && cutOff.After(r.CreatedAt):
		return true
	}
	return b.subscriptionForgotten(r.Subscription) || b.changeForgotten(r.Subscription, cutOff, r.CreatedAt)
}

// sentForgotten says that an order was on its way when the database forgot its claim,
// so that a cancel after that could not know of it.
func (b *books) sentForgotten(a exchange, o shoptest.Order) bool {
	return slices.ContainsFunc(b.lapses, func(l lapse) bool {
		return !a.Got.Before(l.To) && !o.CreatedAt.After(l.To.Add(landing))
	})
}

// everEligible says whether there was a moment at which the subscription was.
func (s subscription) everEligible(from, to time.Time) bool {
	return s.eligibleAt(from) || slices.ContainsFunc(s.History, func(h statusRow) bool {
		return h.Effect.After(from) && !h.Effect.After(to) && s.eligibleAt(h.Effect)
	})
}

// madeID is the id of the subscription that the answer says was made; "" if it says none.
func madeID(a exchange) string {
	var made struct {
		ID    string `json:"id"`
		Named string `json:"subscription_id"`
	}
	_ = json.Unmarshal(a.Answer, &made) // an answer without one has made none
	switch {
	case a.Status == http.StatusCreated:
		return made.ID
	case a.Status == http.StatusConflict && code(a) == "already_subscribed":
		return made.Named
	}
	return ""
}

// derived says whether a run makes such a request id.
func (b *books) derived(requestID string) bool { return derivedID.MatchString(requestID) }

var attempt = regexp.MustCompile(`-[1-9][0-9]{0,3}$`)

// subscriptionOf tells whose order it is: from a derived request id; else from the
// paths that callers asked at; else from the table of subscriptions.
func (b *books) subscriptionOf(o shoptest.Order) string {
	if b.derived(o.RequestID) {
		name := derivedID.ReplaceAllString(o.RequestID, "")
		if first := attempt.ReplaceAllString(name, ""); b.known(first) {
			return first
		}
		return name
	}
	for _, a := range b.answers {
		if m := chargePath.FindStringSubmatch(a.Path); m != nil && m[2] == o.RequestID {
			return m[1]
		}
	}
	for _, s := range b.subs {
		if s.Customer == o.CustomerID {
			return s.ID
		}
	}
	return ""
}

// known says whether there is or was such a subscription.
func (b *books) known(id string) bool {
	_, there := b.subs[id]
	return there || slices.ContainsFunc(b.answers, func(a exchange) bool { return madeID(a) == id })
}

// payer is who must not pay twice: the customer, who has one subscription; but who
// joined and was forgotten may have joined again, and then each subscription.
func (b *books) payer(o shoptest.Order) string {
	if strings.HasPrefix(o.CustomerID, joining) {
		return o.CustomerID + " " + b.subscriptionOf(o)
	}
	return o.CustomerID
}
