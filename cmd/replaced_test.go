package cmd_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// replaced is one way in which a database is replaced.
type replaced struct {
	backup      string // is of a moment "before" the run, "within" or "after" it
	run         string // at the restore: "under way", "finished", "" if there never was one
	everyCallIs bool   // a new order: the shop is not idempotent
}

func (c replaced) name() string {
	shop := "idempotent shop"
	if c.everyCallIs {
		shop = "every call is an order"
	}
	if c.run == "" {
		return "no run, " + shop
	}
	return fmt.Sprintf("backup %s the run, which is %s, %s", c.backup, c.run, shop)
}

// The subscribers of these tests. Their names say what became of them between the backup
// and the restore; the others were pages' orders, if there was a run.
const (
	firstRun       = 8 // of a run before the backup, if the backup is of after a run
	ofCaller       = 24
	declined       = 25 // a caller's
	secondAttempt  = 26 // a caller's, and the first as well
	declinedOfPage = 27
	charged2nd     = 28 // declined by a page, charged by a caller
	runAgain       = 29 // declined by a page, charged by that of a second run
	joined         = 30 // a page's claim, for which a caller waited
	replacedSubs   = 44 // the last are not reached, if the run is under way
	newcomer       = 45 // subscribes after the restore
)

// sitesAtOnce is how many databases are replaced at a time; most of that is waiting.
const sitesAtOnce = 4

// A database is replaced by a backup, and callers ask at once, many together, under request
// ids of their own. Nobody is charged until Temporal's memory is back in the ledger, and
// nobody twice.
func TestRestore_NobodyIsChargedBeforeTheRecall(t *testing.T) {
	var cases []replaced
	for _, everyCallIs := range []bool{false, true} {
		for _, backup := range []string{"before", "within", "after"} {
			for _, run := range []string{"under way", "finished"} {
				cases = append(cases, replaced{backup, run, everyCallIs})
			}
		}
		cases = append(cases, replaced{"before", "", everyCallIs})
	}
	places := make(chan struct{}, sitesAtOnce)
	var all sync.WaitGroup
	for _, c := range cases {
		all.Go(func() { // not t.Parallel, which allows as many as there are cores
			places <- struct{}{}
			defer func() { <-places }()
			t.Run(c.name(), func(t *testing.T) {
				s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{NewOrderPerCall: c.everyCallIs})
				c.happens(t, s, func(serve *process, _ string) (restore func(), api string) {
					require.Zero(t, serve.kill(syscall.SIGTERM), "a backup is taken with nobody there")
					putBack := s.db.Snapshot(t)
					_, api = s.api(t, "serve")
					return func() {
						putBack()
						s.adopting(t)
					}, api
				})
			})
		})
	}
	all.Wait()
}

// happens is the story of the test. backup takes one.
func (c replaced) happens(t *testing.T, s *site, backup func(serve *process, api string) (restore func(), apiThen string)) {
	t.Helper()
	s.env = append(s.env, fmt.Sprint("SHOP_IDEMPOTENT=", !c.everyCallIs), "CHARGE_RETRY_FOR=1h")
	s.shop.SetFaults(c.faults()...)
	s.subscribers(t, firstRun)
	serve, api := s.api(t, "serve")
	s.eventually(t, http.StatusOK, chargeURL(api, 1, "caller-before"))
	if c.backup == "after" {
		startRun(t, api, "")
		eventuallyRun(t, api, "finished")
	}
	s.moreSubscribers(t, firstRun+1, replacedSubs)
	if c.backup == "within" {
		c.startRun(t, api, 1)
		s.eventuallyAsked(t, firstRun+1)
		setPace(t, api, 0.1) // until the callers have come
	}
	restore, api := backup(serve, api)

	c.callersCome(t, s, api)
	c.runGoesOn(t, s, api)
	restore()
	s.askAtOnce(t, api)

	require.Equal(t, []string{"charged"}, s.db.Lines(t, "SELECT status FROM charge WHERE request_id = 'caller-second'"))
	require.Equal(t, []string{"charged"}, s.db.Lines(t, "SELECT status FROM charge WHERE request_id = 'caller-once'"))
	s.shop.SetFaults(c.lastingFaults()...)
	s.moreSubscribers(t, newcomer, newcomer)
	if c.run == "under way" {
		setPace(t, api, 0)
		s.seeThrough(t, api)
	}
	for range 3 { // a run does not try again who was declined for it
		if len(s.ordered(1)) < newcomer {
			startRun(t, api, "")
			s.seeThrough(t, api)
		}
	}
	requireClosed(t, api)
	s.requireOneOrderEach(t, newcomer)
	require.Len(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"), newcomer)
	if !c.everyCallIs { // else a person has settled some, under whichever request id
		var ids []string
		for _, o := range s.shop.Orders() {
			ids = append(ids, o.RequestID)
		}
		require.ElementsMatch(t, ids, s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"))
	}
}

// derived is the request id of a run's attempt.
func derived(number, attempt int) string {
	id := fmt.Sprintf("%s-s-%06d", time.Now().UTC().Format("2006-01"), number)
	if attempt > 1 {
		id = fmt.Sprint(id, "-", attempt)
	}
	return id
}

// lastingFaults are declines that the shop does not think better of.
func (c replaced) lastingFaults() (faults []shoptest.Fault) {
	for _, id := range []string{"caller-declined", "caller-first", derived(charged2nd, 1), derived(runAgain, 1)} {
		faults = append(faults, shoptest.Fault{RequestID: id, Status: http.StatusPaymentRequired})
	}
	return faults
}

func (c replaced) faults() []shoptest.Fault {
	return append(c.lastingFaults(),
		shoptest.Fault{RequestID: derived(declinedOfPage, 1), Status: http.StatusPaymentRequired},
		shoptest.Fault{RequestID: derived(declinedOfPage, 2), Status: http.StatusPaymentRequired},
		shoptest.Fault{RequestID: derived(joined, 1), Delay: 2 * time.Second},
	)
}

func (c replaced) startRun(t *testing.T, api string, pace float64) {
	t.Helper()
	startRun(t, api, fmt.Sprintf(`{"page_size":3,"concurrency":4,"orders_per_second":%g}`, pace))
}

// callersCome are the charges of callers after the backup, under request ids that no run
// derives.
func (c replaced) callersCome(t *testing.T, s *site, api string) {
	t.Helper()
	s.eventually(t, http.StatusOK, chargeURL(api, ofCaller, "caller-once"))
	s.eventually(t, http.StatusPaymentRequired, chargeURL(api, declined, "caller-declined"))
	s.eventually(t, http.StatusPaymentRequired, chargeURL(api, secondAttempt, "caller-first"))
	s.eventually(t, http.StatusOK, chargeURL(api, secondAttempt, "caller-second"))
}

// runGoesOn is what the run does after the backup.
func (c replaced) runGoesOn(t *testing.T, s *site, api string) {
	t.Helper()
	if c.run == "" {
		return
	}
	if c.backup != "within" {
		c.startRun(t, api, 6)
	}
	setPace(t, api, 8)
	s.eventuallyAsked(t, joined)
	joins := mustSend(t, http.MethodPost, chargeURL(api, joined, "caller-joins"), "", "Prefer", "respond-async")
	require.Contains(t, []int{http.StatusAccepted, http.StatusOK}, joins.Code, joins.Body) // 200: the page was quicker
	s.eventuallyAsked(t, charged2nd)
	if c.run == "under way" {
		setPace(t, api, 1)
	}
	eventuallyCharged(t, fmt.Sprintf("%s/subscription/s-%06d/charges/%s", api, joined, time.Now().UTC().Format("2006-01")))
	s.eventually(t, http.StatusOK, chargeURL(api, charged2nd, "caller-after-page"))
	if c.run == "under way" {
		require.Equal(t, "running", mustSend(t, http.MethodGet, runURL(api), "").Body["state"])
	}
	if c.run == "finished" {
		eventuallyRun(t, api, "finished")
		startRun(t, api, "")
		eventuallyRun(t, api, "finished")
		require.Contains(t, fmt.Sprint(s.ordered(1)), derived(runAgain, 2))
	}
}

func setPace(t *testing.T, api string, pace float64) {
	t.Helper()
	a := mustSend(t, http.MethodPost, runURL(api)+"/pace", fmt.Sprintf(`{"orders_per_second":%g}`, pace))
	require.Equal(t, http.StatusOK, a.Code, a.Body)
}

// moreSubscribers adds those with the numbers from first to last.
func (s *site) moreSubscribers(t *testing.T, first, last int) {
	t.Helper()
	for _, customer := range customers(numbers(first, last)...) {
		s.db.AddSubscription(t, strings.Replace(customer, "c-", "s-", 1), 1, customer)
	}
}

func numbers(first, last int) (all []int) {
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}

// eventually repeats the request until it is answered so.
func (s *site) eventually(t *testing.T, code int, url string) {
	t.Helper()
	var a answer
	require.Eventually(t, func() bool {
		var err error
		a, err = send(http.MethodPost, url, "")
		return err == nil && a.Code == code
	}, time.Minute, 50*time.Millisecond, "%s: %v", url, &a)
}

// eventuallyAsked waits until a run has asked the shop for the subscriber's order.
func (s *site) eventuallyAsked(t *testing.T, number int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(s.shop.Calls(), func(c shoptest.Call) bool { return c.RequestID == derived(number, 1) })
	}, time.Minute, 5*time.Millisecond)
}

// askAtOnce has two callers ask for each order that somebody may have forgotten, until
// they have a final answer; it holds that each answer is one that they can act upon.
func (s *site) askAtOnce(t *testing.T, api string) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	var bad []string
	for _, number := range numbers(firstRun-1, replacedSubs-3) {
		for _, caller := range []string{"one", "another"} {
			all.Go(func() {
				for begun := time.Now(); time.Since(begun) < time.Minute; <-time.After(50 * time.Millisecond) {
					a, err := send(http.MethodPost, chargeURL(api, number, fmt.Sprint("late-", number, "-", caller)), "")
					what := fmt.Sprint(a.Code, " ", a.Body["code"])
					final := false
					ok := err == nil
					switch what {
					case "200 <nil>", "402 charge_declined", "409 charge_unresolved":
						final = true
					case "202 <nil>":
					case "503 database_replaced", "503 installation_not_adopted", "503 database_unavailable": // the last: the connection was cut
						ok = ok && a.Header.Get("Retry-After") != ""
					default:
						ok = false
					}
					mu.Lock()
					answers[what]++
					if !ok {
						bad = append(bad, fmt.Sprint(number, " ", caller, ": ", a, err))
					}
					mu.Unlock()
					if final {
						return
					}
				}
				mu.Lock()
				defer mu.Unlock()
				bad = append(bad, fmt.Sprint(number, " ", caller, ": no final answer"))
			})
		}
	}
	all.Wait()
	t.Log(answers)
	require.Empty(t, bad)
	require.Empty(t, s.ordered(2), "ordered more than once")
}

// seeThrough waits until the run has finished. If it pauses, a person settles what is in
// doubt by the shop's book, and resumes it.
func (s *site) seeThrough(t *testing.T, api string) {
	t.Helper()
	var a answer
	require.Eventually(t, func() bool {
		s.settleByTheShopsBook(t, api)
		var err error
		a, err = send(http.MethodGet, runURL(api), "")
		if err == nil && a.Body["state"] == "paused" {
			_, _ = send(http.MethodPost, runURL(api)+"/resume", "") // or at the next look
		}
		return err == nil && a.Body["state"] == "finished"
	}, time.Minute, 200*time.Millisecond, "the run does not end: %v", &a)
	s.settleByTheShopsBook(t, api)
}

// settleByTheShopsBook has the ledger know each order of the shop's, under whichever
// request id, and that there is none where there is none.
func (s *site) settleByTheShopsBook(t *testing.T, api string) {
	t.Helper()
	if s.variable(t, "SHOP_IDEMPOTENT") != "false" {
		return
	}
	orders := map[string]shoptest.Order{}
	for _, o := range s.shop.Orders() {
		orders[strings.Replace(o.CustomerID, "c-", "s-", 1)] = o
	}
	month := time.Now().UTC().Format("2006-01")
	for _, id := range s.db.Lines(t, "SELECT subscription_id FROM charge WHERE status = 'unresolved'") {
		outcome := "declined"
		if _, ok := orders[id]; ok {
			outcome = "charged"
		}
		a := mustSend(t, http.MethodPost, api+"/subscription/"+id+"/charges/"+month+"/resolve", `{"outcome":"`+outcome+`","note":"by the book","by":"Ana"}`)
		require.Contains(t, []int{http.StatusOK, http.StatusConflict}, a.Code, a.Body)
	}
	if mustSend(t, http.MethodGet, runURL(api), "").Body["state"] != "paused" {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(orders)) {
		o := orders[id]
		s.db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, settled_at)
			VALUES ($1, $2, $3, 'charged', 'by hand', $4, $5, $6, $6) ON CONFLICT DO NOTHING`,
			o.RequestID, id, month, o.CustomerID, o.SKU, o.CreatedAt)
	}
}
