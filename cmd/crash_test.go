package cmd_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
	"drayman/workflows"
)

// crashTable is all points of one kind of work, in order.
type crashTable struct {
	name       string
	page       bool // a page of a billing run, or else a charge
	idempotent bool // the shop
	waits      bool // for the shop, longer than a heartbeat takes to come
	points     []string
}

// crashesAtOnce is how many workers are dying at a time. A recovery is ten
// seconds of waiting, for Temporal to miss the dead, and little work.
const crashesAtOnce = 16

// The worker is killed at each of its points, and another one takes over: one
// order each. With a shop that books every call: at most one order each, and
// what is in doubt is unresolved until a person settles it.
func TestTheWorkerDiesAtEachPoint(t *testing.T) {
	// A place is a Temporal namespace, "" for one that is still to be made. They
	// cost the server more than all that happens in them, so they are used again.
	places := make(chan string, crashesAtOnce)
	for range crashesAtOnce {
		places <- ""
	}
	var all sync.WaitGroup
	for _, table := range []crashTable{chargePoints, chargePointsWithDoubt, pagePoints, pagePointsWithDoubt, heartbeatPoints} {
		// Not t.Parallel, which allows as many as there are cores.
		all.Go(func() {
			t.Run(table.name, func(t *testing.T) { table.run(t, places) })
		})
	}
	all.Wait()
}

func (table crashTable) run(t *testing.T, places chan string) {
	var all sync.WaitGroup
	subtest := func(name string, test func(t *testing.T, s *crashSite)) {
		namespace := <-places
		all.Go(func() {
			passed := t.Run(name, func(t *testing.T) {
				if namespace == "" {
					namespace = newNamespace(t, binary(t, "TEST_TEMPORAL_ADDRESS"))
				}
				test(t, table.site(t, namespace))
			})
			if !passed {
				namespace = "" // who knows what still goes on in it
			}
			places <- namespace
		})
	}
	if !table.waits {
		// A step that is new in the code is new here: add it, and think of its deaths.
		subtest("the points", table.happy)
	}
	for i, point := range table.points {
		subtest(point, func(t *testing.T, s *crashSite) { table.die(t, s, i) })
	}
	all.Wait()
}

// happy lets the worker live and compares the points that it passes.
func (table crashTable) happy(t *testing.T, s *crashSite) {
	c := newCrash("", table.page)
	c.watch(s.worker(t, append(c.between(t, s.site), s.extra...)...))
	require.NoError(t, s.begin(t).Get(t.Context(), nil))
	passed := func() []string {
		// Heartbeats come by the clock, or not at all.
		return slices.DeleteFunc(c.passed(), func(point string) bool { return strings.Contains(point, heartbeat) })
	}
	require.Eventually(t, func() bool { return len(passed()) >= len(table.points) }, 10*time.Second, 10*time.Millisecond,
		"%s", strings.Join(passed(), "\n"))
	require.Equal(t, table.points, passed())
	s.requireOrders(t, nil)
}

// die kills the worker at a point, lets another one take over and looks at what
// has become of the orders.
func (table crashTable) die(t *testing.T, s *crashSite, point int) {
	handle := s.crashAt(t, table.points[point])
	_, api := s.api(t, "serve", s.extra...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := handle.Get(ctx, nil)
	require.NoError(t, ctx.Err())

	first, last := table.inDoubt(point)
	inDoubt := s.ids[first:last]
	if table.page || len(inDoubt) == 0 {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, "charge_unresolved")
	}
	s.requireOrders(t, inDoubt)
	s.resolve(t, api, inDoubt)
	if table.page {
		require.Equal(t, "finished", mustSend(t, http.MethodGet, runURL(api), "").Body["state"])
		require.Equal(t, true, mustSend(t, http.MethodGet, runURL(api)+"/report", "").Body["closed"])
	}
}

// crashSite is a site with the subscriptions of one test.
type crashSite struct {
	*site
	crashTable
	ids      []string // of the subscriptions, and of their customers
	extra    []string // settings
	temporal client.Client
}

func (table crashTable) site(t *testing.T, namespace string) *crashSite {
	t.Helper()
	address := binary(t, "TEST_TEMPORAL_ADDRESS")
	s := &crashSite{site: newSiteIn(t, address, namespace, shoptest.Options{NewOrderPerCall: !table.idempotent}), crashTable: table}
	s.extra = []string{fmt.Sprintf("SHOP_IDEMPOTENT=%t", table.idempotent)}
	n := 1
	if table.page {
		n = pageOfFive
	}
	unused := uuid.NewString()[:8] // in the namespace
	for i := range n {
		s.ids = append(s.ids, fmt.Sprintf("%s-%d", unused, i+1))
		s.db.AddSubscription(t, s.ids[i], 1, s.ids[i])
	}
	if table.waits {
		s.shop.SetFaults(shoptest.Fault{CustomerIDs: s.ids[3:4], Delay: 3 * time.Second, Times: 1}) // books, and then keeps it waiting
	}
	var err error
	s.temporal, err = client.Dial(client.Options{HostPort: address, Namespace: namespace})
	require.NoError(t, err)
	t.Cleanup(s.temporal.Close)
	return s
}

// crashAt starts a worker and the work, and returns when it has died at the
// point.
func (s *crashSite) crashAt(t *testing.T, point string) client.WorkflowRun {
	t.Helper()
	c := newCrash(point, s.page)
	c.watch(s.worker(t, append(c.between(t, s.site), s.extra...)...))
	handle := s.begin(t)
	select {
	case <-c.hit:
	case <-time.After(time.Minute):
		require.Fail(t, "the point is not passed", "%s\n\n%s", point, strings.Join(c.passed(), "\n"))
	}
	return handle
}

// begin starts the charge, or the run of one page.
func (s *crashSite) begin(t *testing.T) client.WorkflowRun {
	t.Helper()
	period := billing.PeriodAt(time.Now(), time.UTC)
	var handle client.WorkflowRun
	var err error
	if s.page {
		in := workflows.RunInput{Period: period, Settings: pageSettings, Installation: modelstest.Installation}
		handle, err = s.temporal.ExecuteWorkflow(t.Context(), workflows.Names("").RunOptions(in), workflows.BillingRunName, in)
	} else {
		handle, err = workflows.Names("").StartCharge(t.Context(), s.temporal, workflows.ChargeInput{ChargeRequest: billing.ChargeRequest{
			SubscriptionID: s.ids[0], Period: period, RequestID: "r-1", RequireEligible: true,
			Installation: modelstest.Installation,
		}, ClubID: 1})
	}
	require.NoError(t, err)
	return handle
}

// requireOrders says that each subscription has one row in the ledger and one
// order under its request id, but for those in doubt: they are unresolved, and
// may have none.
func (s *crashSite) requireOrders(t *testing.T, inDoubt []string) {
	t.Helper()
	for _, id := range s.ids {
		rows := s.db.Lines(t, "SELECT request_id || ' ' || status FROM charge WHERE subscription_id = $1", id)
		require.Len(t, rows, 1, id)
		requestID, status, _ := strings.Cut(rows[0], " ")
		if !s.page {
			require.Equal(t, "r-1", requestID)
		}
		orders := s.shop.OrdersFor(id)
		if slices.Contains(inDoubt, id) {
			require.Equal(t, "unresolved", status, id)
			require.LessOrEqual(t, len(orders), 1, id)
		} else {
			require.Equal(t, "charged", status, id)
			require.Len(t, orders, 1, id)
		}
		for _, order := range orders {
			require.Equal(t, requestID, order.RequestID, id)
		}
	}
}

// resolve settles by hand what is in doubt, as a person would who has looked it
// up in the shop.
func (s *crashSite) resolve(t *testing.T, api string, inDoubt []string) {
	t.Helper()
	for _, id := range inDoubt {
		outcome := "declined"
		if len(s.shop.OrdersFor(id)) == 1 {
			outcome = "charged"
		}
		url := api + "/subscription/" + id + "/charges/" + time.Now().UTC().Format("2006-01")
		resolved := mustSend(t, http.MethodPost, url+"/resolve", `{"outcome":"`+outcome+`","by":"Ana","note":"looked it up"}`)
		require.Equal(t, http.StatusOK, resolved.Code, resolved.Body)
		kept := mustSend(t, http.MethodGet, url, "").Body
		require.Equal(t, []any{outcome, "Ana", "looked it up"}, []any{kept["status"], kept["resolved_by"], kept["resolved_note"]})
		require.NotEmpty(t, kept["settled_at"])
	}
}
