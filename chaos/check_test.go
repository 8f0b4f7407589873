package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// at is a time in the campaign of these tests.
func at(second int) time.Time { return time.Date(2026, 11, 5, 12, 0, second, 0, time.UTC) }

func text(s string) *string { return &s }

// sound are books without a fault: two subscribers, a run that charged the one, a
// customer who charged the other and was answered, and a cancel after that.
func sound() *books {
	when := at(20)
	ledgerRow := func(id, sub, customer, order string) row {
		return row{
			RequestID: id, Subscription: sub, Period: "2026-11", Status: "charged", Customer: customer,
			Order: text(fmt.Sprintf(`{"order_id":%q}`, order)), CreatedAt: at(5), SettledAt: &when,
		}
	}
	ofRun := ledgerRow("2026-11-s-1", "s-1", "c-1", "A")
	ofRun.Run = text("2026-11/1")
	history := []statusRow{{Status: statusActive, Effect: at(0).AddDate(-1, 0, 0)}}
	november := report{Eligible: 2, Totals: map[string]int{"charged_in_run": 1, "charged_before": 1}, Closed: true}
	november.Run.State, november.Run.CutOff = "finished", at(30)
	return &books{
		plan: &plan{Subscribers: []subscriber{
			{ID: "s-1", Customer: "c-1", Kind: kindEligible},
			{ID: "s-2", Customer: "c-2", Kind: kindEligible},
			{ID: "s-4", Customer: "c-4", Kind: kindEligible, Declined: declinedAtFirst},
			{ID: "s-3", Customer: "c-3", Kind: kindPaused},
		}},
		months: []string{"2026-11"},
		orders: []shoptest.Order{
			{OrderID: "A", RequestID: "2026-11-s-1", CustomerID: "c-1", CreatedAt: at(6)},
			{OrderID: "B", RequestID: "front-s-2-1", CustomerID: "c-2", CreatedAt: at(6)},
		},
		ledger: []row{ofRun, ledgerRow("front-s-2-1", "s-2", "c-2", "B")},
		answers: []exchange{
			{
				Sent: at(4), Got: at(21), Method: "POST", Path: "/subscription/s-2/charge/front-s-2-1", Status: 200,
				Answer: json.RawMessage(`{"request_id":"front-s-2-1","status":"charged","period":"2026-11","order":{"order_id":"B"}}`),
			},
			{
				Sent: at(40), Got: at(41), Method: "POST", Path: "/subscription/s-1/status/", Body: `{"status_id":2}`, Status: 200,
				Answer: json.RawMessage(`{"id":"s-1"}`),
			},
		},
		subs: map[string]subscription{
			"s-1": {ID: "s-1", Customer: "c-1", Club: 1, History: append(history[:1:1], statusRow{Status: statusCancelled, Effect: at(41), Created: at(41)})},
			"s-2": {ID: "s-2", Customer: "c-2", Club: 2, History: history},
			"s-3": {ID: "s-3", Customer: "c-3", Club: 1, History: []statusRow{{Status: statusPaused, Effect: at(0).AddDate(-1, 0, 0)}}},
		},
		reports: map[string]report{"2026-11": november},
		cutOffs: map[string]time.Time{"2026-11/1": at(3), "2026-10/1": time.Date(2026, 10, 31, 23, 59, 59, 999_999_000, time.UTC)},
		read:    at(60),
	}
}

func TestSoundBooksHaveNoFindings(t *testing.T) {
	require.Empty(t, sound().check())
}

// falsification is a way in which books can be wrong, and what is said of it.
type falsification struct {
	falsify func(*books)
	found   string
}

// falsified are the faults that books without a setback can have.
var falsified = map[string]falsification{
	"an order twice under two request ids": {func(b *books) {
		b.orders = append(b.orders, shoptest.Order{OrderID: "C", RequestID: "front-s-1-9", CustomerID: "c-1", CreatedAt: at(8)})
	}, "two orders for c-1 2026-11"},
	"an order twice under one request id": {func(b *books) {
		b.orders = append(b.orders, shoptest.Order{OrderID: "C", RequestID: "2026-11-s-1", CustomerID: "c-1", CreatedAt: at(8)})
	}, "two orders for c-1 2026-11"},
	"an order without a row":      {func(b *books) { b.ledger = b.ledger[1:] }, "no row for order 2026-11-s-1"},
	"an order that was declined":  {func(b *books) { b.ledger[0].Status = "declined" }, "is there, but its row is declined"},
	"an order that was withdrawn": {func(b *books) { b.ledger[0].Status = "withdrawn" }, "is there, but its row is withdrawn"},
	"a charge that was withdrawn and not made anew": {func(b *books) {
		b.ledger[0].Status, b.orders, b.subs["s-1"] = "withdrawn", b.orders[1:], subscription{ID: "s-1", Customer: "c-1", Club: 1, History: b.subs["s-2"].History}
	}, "s-1 is due, the shop takes its orders"},
	"an order for another month":   {func(b *books) { b.ledger[0].Period = "2026-10" }, "its row c-1's for 2026-10"},
	"another order's number":       {func(b *books) { b.ledger[0].Order = text(`{"order_id":"Z"}`) }, "another order's number"},
	"a charge without an order":    {func(b *books) { b.orders = b.orders[1:] }, "the shop has no such order"},
	"a pending row":                {func(b *books) { b.ledger[0].Status = "pending" }, "still pending"},
	"two charges that stand":       {func(b *books) { b.ledger = append(b.ledger, b.ledger[0]) }, "two charges stand for s-1"},
	"a resolution without a why":   {func(b *books) { b.ledger[0].ResolvedBy = text(resolver) }, "does not say why"},
	"a settled row without a when": {func(b *books) { b.ledger[0].SettledAt = nil }, "does not say when"},
	"a 200 that the ledger denies": {func(b *books) { b.ledger[1].Status, b.orders = "declined", b.orders[:1] }, "which the ledger denies"},
	"a 200 with another order":     {func(b *books) { b.ledger[1].Order = text(`{"order_id":"Z"}`) }, "an order that the ledger does not have"},
	"a 402 for what is charged": {func(b *books) {
		b.answers[0].Status, b.answers[0].Answer = 402, json.RawMessage(`{"charge":{"request_id":"front-s-2-1"}}`)
	}, `answered 402 for "front-s-2-1", whose row is "charged"`},
	"a charge refused for nothing": {func(b *books) {
		b.answers[0].Status, b.answers[0].Answer = 409, json.RawMessage(`{"code":"not_eligible"}`)
	}, "eligible all the time"},
	"a conflict of the ledger": {func(b *books) {
		b.answers[0].Status, b.answers[0].Answer = 409, json.RawMessage(`{"code":"ledger_conflict"}`)
	}, "answered 409"},
	"a 200 before it is settled":     {func(b *books) { b.answers[0].Got = at(19) }, "before the ledger had it"},
	"a cancel that is forgotten":     {func(b *books) { b.answers[1].Sent, b.answers[1].Got = at(30), at(31) }, "is not in the history"},
	"a claim of one not eligible":    {func(b *books) { b.ledger[0].CreatedAt = at(41) }, "when its subscription was not eligible"},
	"an order before its claim":      {func(b *books) { b.orders[0].CreatedAt = at(3) }, "older than its claim"},
	"a row settled before its order": {func(b *books) { b.orders[0].CreatedAt = at(25) }, "before its order"},
	"a decline of ours": {func(b *books) {
		b.ledger[0].Status, b.orders = "declined", b.orders[1:]
	}, "though the shop never declined c-1"},
	"a customer not charged in the end": {func(b *books) {
		b.ledger[0].Status, b.orders, b.subs["s-1"] = "declined", b.orders[1:], subscription{ID: "s-1", Customer: "c-1", Club: 1, History: b.subs["s-2"].History}
	}, "the shop takes its orders"},
	"too much for people": {func(b *books) {
		b.ledger[0].ResolvedBy = text(resolver)
	}, "settled by hand"},
	"a 500":                   {func(b *books) { b.answers[1].Status = 500 }, "answered 500"},
	"an order after a cancel": {func(b *books) { b.orders[0].CreatedAt = at(50) }, "after {\"status_id\":2} was answered"},
	"a claim after a cancel that named another": {func(b *books) {
		b.orders[0].CreatedAt, b.ledger[0].CreatedAt = at(50), at(49)
		b.answers[1].Answer = json.RawMessage(`{"charge_in_progress":{"period":"2026-10"}}`)
	}, "after {\"status_id\":2} was answered"},
	"a customer subscribed twice": {func(b *books) {
		b.subs["s-4"] = subscription{ID: "s-4", Customer: "c-1"}
	}, "customer c-1 has 2 subscriptions"},
	"a lost subscription": {func(b *books) {
		b.answers = append(b.answers, exchange{Method: "POST", Path: "/club/1/subscribe/", Status: 201, Answer: json.RawMessage(`{"id":"s-9"}`)})
	}, "answered 201 is gone"},
	"a charge of one who is paused": {func(b *books) {
		b.orders = append(b.orders, shoptest.Order{OrderID: "C", RequestID: "2026-11-s-3", CustomerID: "c-3"})
	}, "s-3 is paused and was charged"},
	"one who was left out": {func(b *books) {
		b.subs["s-5"] = subscription{ID: "s-5", Customer: "c-5", Club: 1, History: b.subs["s-2"].History}
	}, "s-5 is due, the shop takes its orders"},
	"a report that misses one": {func(b *books) {
		b.subs["s-5"] = subscription{ID: "s-5", Customer: "c-5", Club: 1, History: b.subs["s-2"].History}
	}, "accounts for 2 of 3"},
	"a report that counts wrong": {func(b *books) {
		b.reports["2026-11"].Totals["charged_before"], b.reports["2026-11"].Totals["skipped"] = 0, 1
	}, "counts 1 and 0 as charged, we 2"},
	"a month that is open": {func(b *books) {
		r := b.reports["2026-11"]
		r.Closed = false
		b.reports["2026-11"] = r
	}, "is not closed"},
	"a report that skips one": {func(b *books) {
		b.subs["s-4"] = subscription{ID: "s-4", Customer: "c-4", Club: 1, History: b.subs["s-2"].History}
		r := b.reports["2026-11"]
		r.Eligible, r.Totals["skipped"] = 3, 1
		b.reports["2026-11"] = r
	}, "has 0 declined, and 1 are not charged"},
	"a charge for a month before they came": {func(b *books) {
		b.ledger[0].Run, b.ledger[0].Period = text("2026-10/1"), "2026-10"
		b.subs["s-1"] = subscription{ID: "s-1", Customer: "c-1", Club: 1, History: []statusRow{{Status: statusActive, Effect: at(0)}}}
	}, "of run 2026-10/1, in which its subscription was not due"},
	"a charge of a past month by no run": {func(b *books) { b.ledger[1].Period = "2026-10" }, "is for 2026-10, and of no run"},
	"a past month that ends today": {func(b *books) {
		b.cutOffs["2026-10/1"] = at(1)
	}, "the cut-off of run 2026-10/1 is 2026-11-05 12:00:01 +0000 UTC, and not the month's end"},
	"a report that loses one who left": {func(b *books) {
		b.subs["s-5"] = subscription{ID: "s-5", Customer: "c-5", Club: 1, History: append(b.subs["s-2"].History[:1:1], statusRow{Status: statusCancelled, Effect: at(45)})}
		r := b.reports["2026-11"]
		r.Eligible, r.Totals["charged_in_run"], r.Totals["x"] = 3, 1, 1
		b.reports["2026-11"] = r
	}, "has 0 skipped, and 1 have left"},
	"a secret in a log": {func(b *books) { b.leaks = []string{"worker-1.log"} }, "secret stands in worker-1.log"},
}

// Each way in which the books can be wrong is found, and said.
func TestEachFaultInTheBooksIsFound(t *testing.T) {
	for name, c := range falsified {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := sound()
			c.falsify(b)
			require.Contains(t, strings.Join(b.check(), "\n"), c.found)
		})
	}
}

// What looks like a fault and is none.
func TestWhatIsAllowed(t *testing.T) {
	t.Parallel()
	t.Run("an order that was claimed before the cancel, which said so", func(t *testing.T) {
		b := sound()
		b.orders[0].CreatedAt = at(50)
		later := at(51)
		b.ledger[0].SettledAt = &later
		b.answers[1].Answer = json.RawMessage(`{"charge_in_progress":{"period":"2026-11"}}`)
		require.Empty(t, b.check())
	})
	t.Run("an order after the customer came back", func(t *testing.T) {
		b := sound()
		b.orders[0].CreatedAt = at(50)
		later := at(51)
		b.ledger[0].CreatedAt, b.ledger[0].SettledAt = at(49), &later
		s := b.subs["s-1"]
		s.History = append(s.History, statusRow{Status: statusActive, Effect: at(46), Created: at(46)})
		b.subs["s-1"] = s
		b.answers = append(b.answers, exchange{Sent: at(45), Got: at(46), Method: "POST", Path: "/subscription/s-1/status/", Body: `{"status_id":1}`, Status: 200})
		require.Empty(t, b.check())
	})
	t.Run("a claim that was withdrawn, and another that was charged", func(t *testing.T) {
		b := sound()
		withdrawn := b.ledger[0]
		withdrawn.RequestID, withdrawn.Status, withdrawn.Order = "2026-11-s-1-2", "withdrawn", nil
		b.ledger = append(b.ledger, withdrawn)
		require.Empty(t, b.check())
	})
	t.Run("one who left before their turn", func(t *testing.T) {
		b := sound()
		b.subs["s-5"] = subscription{ID: "s-5", Customer: "c-5", Club: 1, History: append(b.subs["s-2"].History[:1:1], statusRow{Status: statusCancelled, Effect: at(45)})}
		r := b.reports["2026-11"]
		r.Eligible, r.Totals["skipped"] = 3, 1
		b.reports["2026-11"] = r
		require.Empty(t, b.check())
	})
	t.Run("an order whose answer was no JSON", func(t *testing.T) {
		b := sound()
		b.ledger[0].Order = nil
		require.Empty(t, b.check())
	})
}

// setBackBooks are sound books of a shop that is idempotent: its database was put back at 40
// to a backup of 4, so that it forgot both orders, and the claim, the answer and the
// cancel with them. The run asked again, and Temporal remembered the caller's.
func setBackBooks() *books {
	b := sound()
	b.plan.Sizes.Idempotent = true
	b.lapses = []lapse{{Kind: setbackDump, From: at(4), To: at(42)}}
	again := at(46)
	b.ledger[0].CreatedAt, b.ledger[0].SettledAt = at(45), &again
	b.ledger[1].SettledAt = &again
	b.subs["s-1"] = subscription{ID: "s-1", Customer: "c-1", Club: 1, History: b.subs["s-2"].History}
	november := b.reports["2026-11"]
	november.Run.CutOff = at(44)
	b.reports["2026-11"] = november
	return b
}

func TestWhatWasForgottenIsExcused(t *testing.T) {
	t.Parallel()
	require.Empty(t, setBackBooks().check())
	withoutLapse := setBackBooks()
	withoutLapse.lapses = nil
	found := strings.Join(withoutLapse.check(), "\n")
	for _, finding := range []string{"older than its claim", "before the ledger had it", "is not in the history"} {
		require.Contains(t, found, finding)
	}
	for name, allowed := range map[string]func(*books){
		"a page's order for one who has left since": func(b *books) {
			b.ledger = b.ledger[1:]
			s := b.subs["s-1"]
			s.History = append(s.History[:1:1], statusRow{Status: statusCancelled, Effect: at(43), Created: at(43)})
			b.subs["s-1"] = s
			r := b.reports["2026-11"]
			r.Eligible, r.Totals["charged_in_run"] = 1, 0
			b.reports["2026-11"] = r
		},
		"a subscription, with its order": func(b *books) {
			b.orders = append(b.orders, shoptest.Order{OrderID: "N", RequestID: "front-new-1", CustomerID: "new-1", CreatedAt: at(12)})
			b.answers = append(b.answers, joined(10), charged(11, "s-9", "front-new-1", "N"), refused(50, "s-9", 404, "subscription_not_found"))
		},
		"a subscription that a 409 has named, its 201 was cut": func(b *books) {
			named := joined(10)
			named.Status, named.Answer = 409, json.RawMessage(`{"code":"already_subscribed","subscription_id":"s-9"}`)
			b.answers = append(b.answers, named, refused(50, "s-9", 404, "subscription_not_found"))
		},
		"a decline, and the request id is charged since": func(b *books) {
			b.answers = append(b.answers, exchange{
				Sent: at(10), Got: at(11), Method: "POST", Path: "/subscription/s-1/charge/front-s-1-1", Status: 402,
				Answer: json.RawMessage(`{"charge":{"request_id":"2026-11-s-1"}}`),
			})
		},
		"a pause that was away for a while": func(b *books) {
			b.lapses = []lapse{{From: at(4), To: at(42)}, {From: at(41), To: at(50)}}
			s := b.subs["s-1"]
			s.History = append(s.History[:1:1], statusRow{Status: statusCancelled, Effect: at(41), Created: at(41)})
			b.subs["s-1"] = s
			b.orders[0].CreatedAt = at(45)
			r := b.reports["2026-11"]
			r.Eligible, r.Totals["charged_in_run"] = 1, 0
			b.reports["2026-11"] = r
		},
		"a moment at which nobody charges": func(b *books) {
			a := refused(43, "s-1", 503, "database_replaced")
			a.RetryAfter = 1
			b.answers = append(b.answers, a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := setBackBooks()
			allowed(b)
			require.Empty(t, b.check())
		})
	}
}

func joined(second int) exchange {
	return exchange{Sent: at(second), Got: at(second + 1), Method: "POST", Path: "/club/1/subscribe/", Status: 201, Answer: json.RawMessage(`{"id":"s-9"}`)}
}

func charged(second int, subscription, requestID, order string) exchange {
	return exchange{
		Sent: at(second), Got: at(second + 2), Method: "POST", Path: "/subscription/" + subscription + "/charge/" + requestID, Status: 200,
		Answer: json.RawMessage(fmt.Sprintf(`{"request_id":%q,"status":"charged","period":"2026-11","order":{"order_id":%q}}`, requestID, order)),
	}
}

func refused(second int, subscription string, status int, code string) exchange {
	return exchange{
		Sent: at(second), Got: at(second), Method: "POST", Path: "/subscription/" + subscription + "/charge/front-1", Status: status,
		Answer: json.RawMessage(fmt.Sprintf(`{"code":%q}`, code)),
	}
}

// falsifiedAfterASetback are the faults that a setback does not excuse.
var falsifiedAfterASetback = map[string]falsification{
	"a caller's second order for what a page had ordered": {func(b *books) {
		b.orders = append(b.orders, shoptest.Order{OrderID: "C", RequestID: "late-s-1", CustomerID: "c-1", CreatedAt: at(43)})
		b.ledger[0].RequestID, b.ledger[0].Run, b.ledger[0].Order = "late-s-1", nil, text(`{"order_id":"C"}`)
		b.ledger[0].CreatedAt = at(42)
	}, "two orders for c-1 2026-11: 2026-11-s-1 at 12:00:06.000 and late-s-1 at 12:00:43.000"},
	"a page's second order for what a caller had ordered": {func(b *books) {
		b.orders = append(b.orders, shoptest.Order{OrderID: "C", RequestID: "2026-11-s-2", CustomerID: "c-2", CreatedAt: at(45)})
	}, "two orders for c-2 2026-11: front-s-2-1"},
	"a page's second attempt, and its first again": {func(b *books) {
		b.orders = append(b.orders, shoptest.Order{OrderID: "C", RequestID: "2026-11-s-1-2", CustomerID: "c-1", CreatedAt: at(45)})
	}, "two orders for c-1 2026-11"},
	"two orders of one who joined": {func(b *books) {
		b.orders = append(b.orders,
			shoptest.Order{OrderID: "N", RequestID: "front-new-1", CustomerID: "new-1", CreatedAt: at(12)},
			shoptest.Order{OrderID: "M", RequestID: "2026-11-s-9", CustomerID: "new-1", CreatedAt: at(45)})
		b.answers = append(b.answers, joined(10), charged(11, "s-9", "front-new-1", "N"))
	}, "two orders for new-1 s-9 2026-11"},
	"two orders under one request id": {func(b *books) { b.orders = append(b.orders, b.orders[0]) }, "two orders for c-1"},
	"a caller's order that nobody remembers": {func(b *books) {
		b.ledger = b.ledger[:1]
	}, "no row for order front-s-2-1"},
	"a caller's order that nobody remembers, though they have left": {func(b *books) {
		b.ledger = b.ledger[:1]
		s := b.subs["s-2"]
		s.History = append(s.History[:1:1], statusRow{Status: statusCancelled, Effect: at(43), Created: at(43)})
		b.subs["s-2"] = s
	}, "no row for order front-s-2-1"},
	"a 200 that nobody remembers": {func(b *books) { b.ledger = b.ledger[:1] }, "which the ledger denies"},
	"a page's order that no run asks for again": {func(b *books) {
		b.ledger = b.ledger[1:]
	}, "no row for order 2026-11-s-1"},
	"an order that the person did not copy": {func(b *books) {
		b.plan.Sizes.Idempotent = false
		b.ledger = b.ledger[1:]
		s := b.subs["s-1"]
		s.History = append(s.History[:1:1], statusRow{Status: statusCancelled, Effect: at(43), Created: at(43)})
		b.subs["s-1"] = s
	}, "no row for order 2026-11-s-1"},
	"one who was left out": {func(b *books) {
		b.ledger, b.orders = b.ledger[1:], b.orders[1:]
	}, "s-1 is due, the shop takes its orders"},
	"a second claim where the shop books every call": {func(b *books) {
		b.plan.Sizes.Idempotent = false
	}, "is older than its claim"},
	"an order of after the setback before its claim": {func(b *books) {
		b.orders[0].CreatedAt = at(50)
		b.ledger[0].CreatedAt = at(51)
	}, "is older than its claim"},
	"an answer of before the backup": {func(b *books) {
		b.answers[0].Sent, b.answers[0].Got = at(1), at(3)
	}, "before the ledger had it"},
	"an answer of after the setback": {func(b *books) {
		b.answers[0].Sent, b.answers[0].Got = at(43), at(44)
	}, "before the ledger had it"},
	"a cancel of before the backup": {func(b *books) {
		b.answers[1].Sent, b.answers[1].Got = at(2), at(3)
	}, "is not in the history"},
	"a cancel of after the setback": {func(b *books) {
		b.answers[1].Sent, b.answers[1].Got = at(43), at(44)
	}, "is not in the history"},
	"an order long after a cancel that holds": {func(b *books) {
		b.answers[1].Sent, b.answers[1].Got = at(43), at(43)
		b.subs["s-1"] = subscription{ID: "s-1", Customer: "c-1", Club: 1, History: append(b.subs["s-2"].History[:1:1], statusRow{Status: statusCancelled, Effect: at(43), Created: at(43)})}
		b.orders[0].CreatedAt = at(42).Add(landing + time.Second)
	}, "was answered at 12:00:43"},
	"a claim of one who had left, and whose cancel is kept": {func(b *books) {
		b.answers[1].Sent, b.answers[1].Got = at(43), at(43)
		b.subs["s-1"] = subscription{ID: "s-1", Customer: "c-1", Club: 1, History: append(b.subs["s-2"].History[:1:1], statusRow{Status: statusCancelled, Effect: at(43), Created: at(43)})}
	}, "when its subscription was not eligible"},
	"a decline of after the setback": {func(b *books) {
		a := refused(50, "s-1", 402, "")
		a.Answer = json.RawMessage(`{"charge":{"request_id":"2026-11-s-1"}}`)
		b.answers = append(b.answers, a)
	}, `answered 402 for "2026-11-s-1"`},
	"a subscription of before the backup": {func(b *books) { b.answers = append(b.answers, joined(1)) }, "answered 201 is gone"},
	"a subscription of after the setback": {func(b *books) { b.answers = append(b.answers, joined(43)) }, "answered 201 is gone"},
	"a subscription that is not found, of old": {func(b *books) {
		b.answers = append(b.answers, refused(43, "s-1", 404, "subscription_not_found"))
	}, "was answered 404"},
	"a refusal that does not say when to ask again": {func(b *books) {
		b.answers = append(b.answers, refused(43, "s-1", 503, "database_replaced"))
	}, "without Retry-After"},
	"a 500": {func(b *books) { b.answers = append(b.answers, refused(42, "s-1", 500, "internal_error")) }, "answered 500"},
}

func TestEachFaultAfterASetbackIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range falsifiedAfterASetback {
		t.Run(name, func(t *testing.T) {
			b := setBackBooks()
			c.falsify(b)
			require.Contains(t, strings.Join(b.check(), "\n"), c.found)
		})
	}
}
