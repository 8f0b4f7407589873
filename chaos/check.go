package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"drayman/shop/shoptest"
)

// figures are the sizes of what was checked.
type figures struct {
	Orders        int         `json:"orders"`
	Charged       int         `json:"charged"`
	Declined      int         `json:"declined"`
	ResolvedByMan int         `json:"resolved_by_hand"`
	CopiedByMan   int         `json:"copied_by_hand"`
	Answers       map[int]int `json:"answers"` // by HTTP status; 0: none came
	Subscriptions int         `json:"subscriptions"`
}

func (b *books) figures() figures {
	f := figures{Orders: len(b.orders), Subscriptions: len(b.subs), Answers: map[int]int{}}
	for _, r := range b.ledger {
		switch r.Status {
		case "charged":
			f.Charged++
		case "declined":
			f.Declined++
		}
		if r.Owner == byHand {
			f.CopiedByMan++
		}
		if r.ResolvedBy != nil {
			f.ResolvedByMan++
		}
	}
	for _, a := range b.answers {
		f.Answers[a.Status]++
	}
	return f
}

// findings collects what is wrong.
type findings []string

func (f *findings) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// check holds the books against each other and returns every broken promise.
func (b *books) check() []string {
	var f findings
	b.checkTwice(&f) // first of all findings
	b.checkOrders(&f)
	b.checkLedger(&f)
	b.checkDue(&f)
	b.checkAnswers(&f)
	b.checkChanges(&f)
	b.checkJoins(&f)
	b.checkEveryone(&f)
	b.checkReports(&f)
	if n := b.figures(); 3*n.ResolvedByMan > n.Charged {
		f.add("%d of %d charges had to be settled by hand", n.ResolvedByMan, n.Charged)
	}
	for _, name := range b.leaks {
		f.add("the shop's secret stands in %s", name)
	}
	return f
}

// keyed are the rows by request id.
func (b *books) keyed() map[string]row {
	rows := make(map[string]row, len(b.ledger))
	for _, r := range b.ledger {
		rows[r.RequestID] = r
	}
	return rows
}

var derivedID = regexp.MustCompile(`^(\d{4}-\d{2})-`)

// monthOf tells an order's month from its request id alone: those of runs begin
// with it, those of our customers are for the current one.
func (b *books) monthOf(o shoptest.Order) string {
	if m := derivedID.FindStringSubmatch(o.RequestID); m != nil {
		return m[1]
	}
	return b.months[0]
}

// checkTwice: no subscription has two orders for a month, whatever the database was
// made to forget.
func (b *books) checkTwice(f *findings) {
	seen := map[string]shoptest.Order{}
	for _, o := range b.orders {
		key := b.payer(o) + " " + b.monthOf(o)
		if first, twice := seen[key]; twice {
			f.add("two orders for %s: %s at %s and %s at %s", key, first.RequestID, clock(first.CreatedAt), o.RequestID, clock(o.CreatedAt))
		}
		seen[key] = o
	}
}

// checkOrders: each order has its charged row.
func (b *books) checkOrders(f *findings) {
	rows := b.keyed()
	for _, o := range b.orders {
		switch r, ok := rows[o.RequestID]; {
		case !ok && b.orderMayBeForgotten(o):
		case !ok:
			f.add("the ledger has no row for order %s of %s", o.RequestID, o.CustomerID)
		case r.Status != "charged":
			f.add("order %s is there, but its row is %s", o.RequestID, r.Status)
		case r.Customer != o.CustomerID || r.Period != b.monthOf(o):
			f.add("order %s is %s's for %s, its row %s's for %s", o.RequestID, o.CustomerID, b.monthOf(o), r.Customer, r.Period)
		case r.Order != nil && orderID([]byte(*r.Order)) != "" && orderID([]byte(*r.Order)) != o.OrderID:
			f.add("the row of %s has another order's number", o.RequestID)
		case o.CreatedAt.Before(r.CreatedAt) && !b.claimForgotten(o, r):
			f.add("order %s of %s is older than its claim of %s", o.RequestID, clock(o.CreatedAt), clock(r.CreatedAt))
		case r.SettledAt != nil && r.SettledAt.Before(o.CreatedAt.Truncate(time.Microsecond)):
			f.add("row %s was settled at %s, before its order of %s", o.RequestID, clock(*r.SettledAt), clock(o.CreatedAt))
		}
	}
}

func orderID(order []byte) string {
	var o struct {
		OrderID string `json:"order_id"`
	}
	_ = json.Unmarshal(order, &o) // some orders are no JSON objects: no number
	return o.OrderID
}

// checkLedger: each charged row has its order, each settled one says by whom, and
// nothing is open any more.
func (b *books) checkLedger(f *findings) {
	booked := bookedIDs(b.orders)
	mayDecline := set(b.plan.declined(false))
	standing := map[string]string{}
	for _, r := range b.ledger {
		if s := b.subs[r.Subscription]; !s.eligibleAt(r.CreatedAt) && !b.eligibilityForgotten(r) {
			f.add("row %s was claimed at %s, when its subscription was not eligible", r.RequestID, clock(r.CreatedAt))
		}
		key := r.Subscription + " " + r.Period
		if r.stands() {
			if other, twice := standing[key]; twice {
				f.add("two charges stand for %s: %s and %s", key, other, r.RequestID)
			}
			standing[key] = r.RequestID
		}
		checkOutcome(f, r, booked[r.RequestID], mayDecline[r.Customer])
	}
}

// checkDue: nobody is charged by a run who was not eligible at its cut-off, which is
// the month's end where the month is over: nobody for a month before they came.
func (b *books) checkDue(f *findings) {
	for id, cutOff := range b.cutOffs {
		month, _, _ := strings.Cut(id, "/")
		first, err := time.Parse("2006-01", month)
		if err == nil && month != b.months[0] && !cutOff.Equal(first.AddDate(0, 1, 0).Add(-time.Microsecond)) {
			f.add("the cut-off of run %s is %s, and not the month's end", id, cutOff)
		}
	}
	for _, r := range b.ledger {
		switch {
		case r.Run == nil && r.Period != b.months[0] && r.Owner != byHand:
			f.add("row %s is for %s, and of no run", r.RequestID, r.Period)
		case r.Run != nil && !b.subs[r.Subscription].eligibleAt(b.cutOffs[*r.Run]) && !b.cutOffForgotten(r):
			f.add("row %s is of run %s, in which its subscription was not due", r.RequestID, *r.Run)
		}
	}
}

// checkOutcome: the row is settled as the shop has it, and says how.
func checkOutcome(f *findings, r row, booked, mayDecline bool) {
	switch {
	case r.Status == "charged" && !booked:
		f.add("row %s is charged, but the shop has no such order", r.RequestID)
	case r.Status != "charged" && r.stands():
		f.add("row %s is still %s", r.RequestID, r.Status)
	case r.Status == "declined" && r.ResolvedBy == nil && !mayDecline:
		f.add("row %s is declined, though the shop never declined %s: %s", r.RequestID, r.Customer, value(r.Failure))
	case r.SettledAt == nil:
		f.add("row %s does not say when it was settled", r.RequestID)
	case r.ResolvedBy != nil && (*r.ResolvedBy != resolver || r.ResolvedNote == nil || !strings.Contains(*r.ResolvedNote, r.RequestID)):
		f.add("row %s does not say why it was resolved", r.RequestID)
	}
}

var chargePath = regexp.MustCompile(`^/subscription/([^/]+)/charge/([^/]+)$`)

// checkAnswers: what was answered is kept, and every answer is one of the
// brief's.
func (b *books) checkAnswers(f *findings) {
	rows := b.keyed()
	for _, a := range b.answers {
		if m := chargePath.FindStringSubmatch(a.Path); m != nil && a.Method == http.MethodPost {
			b.checkChargeAnswer(f, rows, m[1], a)
			continue
		}
		// Of runs: 404 and 409 for what operators do too late; of subscribing: 409.
		allowed := []int{0, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}
		if statusPath.MatchString(a.Path) {
			allowed = []int{0, http.StatusOK, http.StatusServiceUnavailable}
		}
		if code(a) == "database_replaced" && a.RetryAfter == 0 {
			f.add("%s %s was refused with database_replaced, and without Retry-After", a.Method, a.Path)
		}
		if !slices.Contains(allowed, a.Status) {
			f.add("%s %s was answered %d: %s%s", a.Method, a.Path, a.Status, a.Answer, a.Error)
		}
	}
}

// code is that of a problem; "" of any other answer.
func code(a exchange) string {
	var problem struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(a.Answer, &problem) // an answer without a code is no problem
	return problem.Code
}

// checkChargeAnswer holds the answer to a charge against the ledger.
func (b *books) checkChargeAnswer(f *findings, rows map[string]row, subscription string, a exchange) {
	var problem struct {
		Code   string `json:"code"`
		Charge struct {
			RequestID string `json:"request_id"`
		} `json:"charge"`
	}
	_ = json.Unmarshal(a.Answer, &problem) // an answer without a code is none of these problems
	switch {
	case a.Status == http.StatusOK:
		b.checkCharged(f, rows, subscription, a)
	case a.Status == http.StatusPaymentRequired:
		b.checkDeclined(f, rows, subscription, problem.Charge.RequestID, a)
	case a.Status == http.StatusConflict && problem.Code == "not_eligible":
		b.checkNotEligible(f, subscription, a)
	case a.Status == http.StatusConflict && problem.Code == "charge_unresolved":
	case a.Status == http.StatusServiceUnavailable && problem.Code == "database_replaced" && a.RetryAfter == 0:
		f.add("%s was refused with database_replaced, and without Retry-After", a.Path)
	case a.Status == http.StatusNotFound && b.subscriptionForgotten(subscription):
	case a.Status != 0 && a.Status != http.StatusAccepted && a.Status != http.StatusServiceUnavailable:
		f.add("%s was answered %d: %s%s", a.Path, a.Status, a.Answer, a.Error)
	}
}

// checkDeclined: the charge that an answer 402 names is the subscription's, and the
// ledger has it as declined.
func (b *books) checkDeclined(f *findings, rows map[string]row, subscription, requestID string, a exchange) {
	if r := rows[requestID]; (r.Status != "declined" || r.Subscription != subscription) && !b.declineForgotten(a, r, subscription) {
		f.add("%s was answered 402 for %q, whose row is %q", a.Path, requestID, r.Status)
	}
}

// checkNotEligible: a subscription that was refused as not eligible was not eligible at
// some moment from clientPatience before the request to its answer.
func (b *books) checkNotEligible(f *findings, subscription string, a exchange) {
	begin := a.Sent.Add(-clientPatience)
	if !b.subs[subscription].everNotEligible(begin, a.Got) && !b.changeForgotten(subscription, begin, a.Got) {
		f.add("%s was refused as not eligible, and was eligible all the time: %s", subscription, a.Answer)
	}
}

// checkCharged: an answer 200 stands in the ledger as it was given.
func (b *books) checkCharged(f *findings, rows map[string]row, subscription string, a exchange) {
	var charge struct {
		RequestID string          `json:"request_id"`
		Status    string          `json:"status"`
		Period    string          `json:"period"`
		Order     json.RawMessage `json:"order"`
	}
	if err := json.Unmarshal(a.Answer, &charge); err != nil || charge.Status != "charged" {
		f.add("%s was answered 200 with %s", a.Path, a.Answer)
		return
	}
	r, ok := rows[charge.RequestID]
	switch {
	case !ok && b.answerMayBeForgotten(a, subscription, charge.RequestID):
	case !ok || !r.chargedFor(subscription, charge.Period):
		f.add("%s was answered 200 with %s, which the ledger denies", a.Path, charge.RequestID)
	case r.SettledAt == nil || r.SettledAt.After(a.Got) && !b.forgettable(a):
		f.add("%s was answered 200 before the ledger had it", a.Path)
	case r.Order == nil && !b.plan.Sizes.Idempotent && b.forgettable(a): // a person copies that there is one
	case orderID(charge.Order) != "" && !r.hasOrder(orderID(charge.Order)):
		f.add("%s was answered with an order that the ledger does not have", a.Path)
	}
}

// chargedFor says that the row has the subscription as charged for the month.
func (r row) chargedFor(subscription, period string) bool {
	return r.Status == "charged" && r.Subscription == subscription && r.Period == period
}

// hasOrder says that the row keeps the order of that number.
func (r row) hasOrder(number string) bool {
	return r.Order != nil && orderID([]byte(*r.Order)) == number
}

var statusPath = regexp.MustCompile(`^/subscription/([^/]+)/status/$`)

// checkChanges: after a cancel or pause was answered, and before the next change
// was sent, no order is placed but one that was claimed before; and if the answer
// named none, none at all.
func (b *books) checkChanges(f *findings) {
	rows := b.keyed()
	byCustomer := map[string][]shoptest.Order{}
	for _, o := range b.orders {
		byCustomer[o.CustomerID] = append(byCustomer[o.CustomerID], o)
	}
	back := b.returns()
	for _, a := range b.answers {
		m := statusPath.FindStringSubmatch(a.Path)
		if m != nil && a.Status == http.StatusOK && !b.subs[m[1]].hasChange(a) {
			if b.forgettable(a) { // and so it holds no longer
				continue
			}
			f.add("%s of %s was answered 200 and is not in the history", a.Body, m[1])
		}
		if m == nil || a.Status != http.StatusOK || strings.Contains(a.Body, `"status_id":1`) {
			continue
		}
		for _, o := range byCustomer[b.subs[m[1]].Customer] {
			returned, ok := back[m[1]]
			if o.CreatedAt.After(a.Got) && !(ok && o.CreatedAt.After(returned)) {
				b.checkLate(f, m[1], a, o, rows)
			}
		}
	}
}

// checkLate is for an order that was placed after a cancel or pause was answered.
func (b *books) checkLate(f *findings, subscription string, a exchange, o shoptest.Order, rows map[string]row) {
	inProgress := strings.Contains(string(a.Answer), `"charge_in_progress"`)
	r, ok := rows[o.RequestID]
	claimed := ok && (!r.CreatedAt.After(a.Got) || b.claimForgotten(o, r)) || !ok && b.orderMayBeForgotten(o)
	if !(inProgress && claimed) && !b.sentForgotten(a, o) && !b.changeForgotten(subscription, o.CreatedAt, o.CreatedAt) {
		f.add("order %s was placed at %s, after %s was answered at %s with %s", o.RequestID, clock(o.CreatedAt), a.Body, clock(a.Got), a.Answer)
	}
}

// returns are the times at which customers first asked to come back.
func (b *books) returns() map[string]time.Time {
	back := map[string]time.Time{}
	for _, a := range b.answers {
		m := statusPath.FindStringSubmatch(a.Path)
		if m == nil || !strings.Contains(a.Body, `"status_id":1`) {
			continue
		}
		if first, ok := back[m[1]]; !ok || a.Sent.Before(first) {
			back[m[1]] = a.Sent
		}
	}
	return back
}

// hasChange says whether the history has a row for a change that was answered. The
// database's clock is that of this machine.
func (s subscription) hasChange(a exchange) bool {
	return slices.ContainsFunc(s.History, func(h statusRow) bool {
		return strings.Contains(a.Body, fmt.Sprintf(`"status_id":%d`, h.Status)) &&
			!h.Created.Before(a.Sent.Add(-time.Millisecond)) && !h.Created.After(a.Got)
	})
}

// checkJoins: a subscription that was answered 201 is there, once.
func (b *books) checkJoins(f *findings) {
	count := map[string]int{}
	for _, s := range b.subs {
		count[s.Customer]++
	}
	for customer, n := range count {
		if n != 1 {
			f.add("customer %s has %d subscriptions", customer, n)
		}
	}
	for _, a := range b.answers {
		if a.Status != http.StatusCreated {
			continue
		}
		var made struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(a.Answer, &made); err != nil || b.subs[made.ID].ID == "" {
			if !b.forgettable(a) {
				f.add("a subscription that was answered 201 is gone: %s", a.Answer)
			}
		}
	}
}

// checkEveryone: nobody was charged who was never eligible, and everyone who is due
// at the end has an outcome for each month.
func (b *books) checkEveryone(f *findings) {
	ordered := map[string]bool{}
	for _, o := range b.orders {
		ordered[o.CustomerID] = true
	}
	for _, s := range b.plan.Subscribers {
		never := s.Kind != kindEligible && s.Kind != kindClosedClub
		if never && ordered[s.Customer] {
			f.add("%s is %s and was charged", s.ID, s.Kind)
		}
	}
	mayDecline, charged := set(b.plan.declined(true)), b.charged()
	for month, r := range b.reports {
		for _, s := range b.subs {
			if s.eligibleAt(r.Run.CutOff) && s.eligibleAt(b.read) && !charged[s.ID+" "+month] && !mayDecline[s.Customer] {
				f.add("%s is due, the shop takes its orders, and it is not charged for %s", s.ID, month)
			}
		}
	}
}

// charged are the subscriptions and months that the ledger has as charged.
func (b *books) charged() map[string]bool {
	charged := map[string]bool{}
	for _, r := range b.ledger {
		if r.Status == "charged" {
			charged[r.Subscription+" "+r.Period] = true
		}
	}
	return charged
}

func set(values []string) map[string]bool {
	all := map[string]bool{}
	for _, v := range values {
		all[v] = true
	}
	return all
}

func value(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// checkReports: each month's report accounts for exactly those whom our own count
// finds eligible at its cut-off, and is closed.
func (b *books) checkReports(f *findings) {
	for month, r := range b.reports {
		eligible, paid, gone := b.account(month, r.Run.CutOff)
		sum := 0
		for _, n := range r.Totals {
			sum += n
		}
		switch {
		case !r.Closed || r.Run.State != "finished":
			f.add("the month %s is not closed: %s %v", month, r.Run.State, r.Totals)
		case r.Eligible != eligible || sum != eligible:
			f.add("the report of %s accounts for %d of %d who were eligible", month, r.Eligible, eligible)
		case r.Totals["charged_in_run"]+r.Totals["charged_before"] != paid:
			f.add("the report of %s counts %d and %d as charged, we %d", month, r.Totals["charged_in_run"], r.Totals["charged_before"], paid)
		case r.Totals["declined"] != eligible-paid-gone:
			f.add("the report of %s has %d declined, and %d are not charged", month, r.Totals["declined"], eligible-paid-gone)
		case r.Totals["skipped"] != gone:
			f.add("the report of %s has %d skipped, and %d have left", month, r.Totals["skipped"], gone)
		}
	}
}

// account counts those who were eligible at the cut-off; of them those who have paid
// for the month, and those who had left before their turn came.
func (b *books) account(month string, cutOff time.Time) (eligible, paid, gone int) {
	charged, tried := b.charged(), map[string]bool{}
	for _, r := range b.ledger {
		if r.Status != "withdrawn" { // the shop was not asked
			tried[r.Subscription+" "+r.Period] = true
		}
	}
	for _, s := range b.subs {
		if !s.eligibleAt(cutOff) {
			continue
		}
		eligible++
		switch key := s.ID + " " + month; {
		case charged[key]:
			paid++
		case !tried[key] && !s.eligibleAt(b.read):
			gone++
		}
	}
	return eligible, paid, gone
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
