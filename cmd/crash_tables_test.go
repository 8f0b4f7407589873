package cmd_test

import (
	"slices"
	"strings"

	"drayman/billing"
)

// chargePoints are those of a charge: claim, order and settle in one workflow
// task.
var chargePoints = crashTable{
	name: "charge", idempotent: true,
	points: bothSides(
		"after workflow task taken",
		"before lock subscription", "before insert charge", "commit of insert charge",
		"order",
		"before upsert charge", "commit of upsert charge",
		"workflow task completed",
	),
}

// chargePointsWithDoubt are those of a charge that needs permission to send (update
// charge), and sends in an activity.
var chargePointsWithDoubt = crashTable{
	name: "charge at a shop that books every call",
	points: bothSides(
		"after workflow task taken",
		"before lock subscription", "before insert charge", "commit of insert charge",
		"workflow task completed",
		"after activity task taken",
		"before lock charge", "before update charge", "commit of update charge",
		"order",
		"activity task completed",
		"after workflow task taken 2",
		"before upsert charge", "commit of upsert charge",
		"workflow task completed 2",
	),
}

// A page of five subscriptions comes in batches of three and two: at seven
// orders a second, half a second's worth is let out at once.
const pageOfFive = 5

var pageSettings = billing.RunSettings{OrdersPerSecond: 7, PageSize: pageOfFive, Concurrency: 12}

// pageSteps are slots, claim, orders and settle, twice. They are the same for
// both shops: the claim itself permits sending.
var pageSteps = []string{
	"after activity task taken",
	"before lock billing_run", "before update billing_run", "commit of update billing_run",
	"before lock subscription", "before insert charge", "commit of insert charge",
	"order", "order 2", "order 3",
	"before update charge", "commit of update charge",
	"before lock billing_run 2", "before update billing_run 2", "commit of update billing_run 2",
	"before lock subscription 2", "before insert charge 2", "commit of insert charge 2",
	"order 4", "order 5",
	"before update charge 2", "commit of update charge 2",
	"activity task completed",
}

var pagePoints = crashTable{
	name: "page", page: true, idempotent: true,
	points: bothSides(pageSteps...),
}

var pagePointsWithDoubt = crashTable{
	name: "page at a shop that books every call", page: true,
	points: bothSides(pageSteps...),
}

// heartbeatPoints come where the fourth order keeps a page waiting until it
// reports how far it has come. They are no steps of the others: they come by the
// clock.
var heartbeatPoints = crashTable{
	name: "page that waits", page: true, idempotent: true, waits: true,
	points: bothSides(heartbeat),
}

// bothSides returns the points of steps: before and after each, but for those
// that have one.
func bothSides(steps ...string) []string {
	var points []string
	for _, step := range steps {
		if side, _, _ := strings.Cut(step, " "); side == before || side == after {
			points = append(points, step)
			continue
		}
		points = append(points, before+" "+step, after+" "+step)
	}
	return points
}

// inDoubt returns the range of the subscriptions of which nobody can know
// whether the shop has the order, when the worker dies at the point: leave to
// send was given, and the outcome was not recorded yet; or the claim that may send was
// made, and Temporal has not heard of it.
func (table crashTable) inDoubt(point int) (first, last int) {
	between := func(first, last string) bool {
		return slices.Index(table.points, first) <= point && point <= slices.Index(table.points, last)
	}
	switch {
	case table.idempotent:
	case !table.page && between("after commit of insert charge", "before workflow task completed"):
		return 0, 1 // the claim is made anew, and cannot tell its own first time from another's
	case !table.page && between("after commit of update charge", "before activity task completed"):
		return 0, 1
	case !table.page:
	case between("after commit of insert charge", "before commit of update charge"):
		return 0, 3
	case between("after commit of insert charge 2", "before commit of update charge 2"):
		return 3, 5
	}
	return 0, 0
}
