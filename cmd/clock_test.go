package cmd_test

import (
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// The clock of record is the database's, clock_timestamp(). These tests put one
// of their own before it, by the search path of each process's connections; the
// program is as it is. Its own clock, Temporal's and the shop's stay the
// machine's, so that a shifted database is a program whose clock differs from it.
//
// A wall clock of a process that jumps is not simulated: it would take a build of
// everything with another package time. What the program does with its own clock
// on PostgreSQL is to measure how long something takes or to wait, by differences
// of two time.Now, which are monotonic; to read a Retry-After that is a date, if
// the shop sends no Date with it, within an hour; and, in the commands that people
// type, to find the month that they mean.

// clocks gives processes clocks by name, all right at first.
func (s *site) clocks(t *testing.T, names ...string) {
	t.Helper()
	s.db.Exec(t, "CREATE SCHEMA skew")
	s.db.Exec(t, "CREATE TABLE skew.shift (name text PRIMARY KEY, by interval NOT NULL)")
	for _, name := range names {
		s.db.Exec(t, "INSERT INTO skew.shift VALUES ($1, '0')", name)
		s.db.Exec(t, "CREATE SCHEMA clock_"+name)
		s.db.Exec(t, "CREATE FUNCTION clock_"+name+`.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
			$$ SELECT pg_catalog.clock_timestamp() + by FROM skew.shift WHERE name = '`+name+`' $$`)
	}
}

// by is the environment of a process with the clock of that name.
func (s *site) by(t *testing.T, clock string) string {
	t.Helper()
	return "DATABASE_URL=" + s.db.WithParameter(t, "search_path", "public,clock_"+clock+",pg_catalog").URL
}

// shift lets the clock go wrong by so much from now on.
func (s *site) shift(t *testing.T, clock string, by time.Duration) {
	t.Helper()
	s.db.Exec(t, "UPDATE skew.shift SET by = make_interval(secs => $2) WHERE name = $1", clock, by.Seconds())
}

// set lets the clock show the time, and go on from there.
func (s *site) set(t *testing.T, clock, at string) {
	t.Helper()
	s.db.Exec(t, "UPDATE skew.shift SET by = $2::timestamp AT TIME ZONE 'UTC' - pg_catalog.clock_timestamp() WHERE name = $1", clock, at)
}

// subscribe returns the id of a new subscription.
func (s *site) subscribe(t *testing.T, api, customer string) string {
	t.Helper()
	a := mustSend(t, http.MethodPost, api+"/club/1/subscribe", fmt.Sprintf(`{"customer_id":%q}`, customer))
	require.Equal(t, http.StatusCreated, a.Code, a.Body)
	id, _ := a.Body["id"].(string)
	return id
}

func eventuallyCode(t *testing.T, code int, url string) answer {
	t.Helper()
	var a answer
	require.Eventually(t, func() bool {
		var err error
		a, err = send(http.MethodPost, url, "")
		return err == nil && a.Code == code
	}, time.Minute, 100*time.Millisecond, "no %d: %v", code, &a)
	return a
}

func TestTheDatabasesClockDiffersFromTheProgramsBy(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{2 * time.Minute, -2 * time.Minute} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			const n, pace = 120, 40
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			s.clocks(t, "all")
			s.shift(t, "all", by)
			s.subscribers(t, n)
			_, api := s.api(t, "api", s.by(t, "all"))
			worker := s.worker(t, s.by(t, "all"))

			// What takes effect now holds at once.
			charged := s.subscribe(t, api, "charged")
			now := eventuallyCode(t, http.StatusOK, api+"/subscription/"+charged+"/charge/r-1")
			require.Nil(t, now.Body["already_charged"], "this request's own doing")
			require.Equal(t, true, mustSend(t, http.MethodPost, api+"/subscription/"+charged+"/charge/r-2", "").Body["already_charged"])
			for status, customer := range map[int]string{2: "cancelled", 3: "paused"} {
				id := s.subscribe(t, api, customer)
				require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, api+"/subscription/"+id+"/status", fmt.Sprintf(`{"status_id":%d}`, status)).Code)
				refused := mustSend(t, http.MethodPost, api+"/subscription/"+id+"/charge/"+customer, "")
				require.Equal(t, "not_eligible", refused.Body["code"], refused.Body)
			}

			// A run keeps its pace, and another worker takes a page up.
			before := len(s.shop.Calls())
			startRun(t, api, fmt.Sprintf(`{"orders_per_second":%d,"page_size":20}`, pace))
			require.Eventually(t, func() bool { return len(s.shop.Orders()) > n/3 }, time.Minute, 5*time.Millisecond)
			if by > 0 { // claims are held by one clock: once is enough
				worker.kill(syscall.SIGKILL)
				s.worker(t, s.by(t, "all"))
			}
			eventuallyRun(t, api, "finished")
			requireClosed(t, api)
			s.requireOneOrderEach(t, n+1)
			requirePace(t, s.shop.Calls()[before:], pace)
		})
	}
}

// requirePace holds that no second has more calls than twice the pace: a worker's
// death lets two batches come close.
func requirePace(t *testing.T, calls []shoptest.Call, pace int) {
	t.Helper()
	slices.SortFunc(calls, func(a, b shoptest.Call) int { return a.At.Compare(b.At) })
	first := 0
	for last := range calls {
		for calls[last].At.Sub(calls[first].At) > time.Second {
			first++
		}
		require.LessOrEqual(t, last-first+1, 2*pace)
	}
}

// No two processes read different clocks as long as they read the database's. If
// they did, four minutes apart, a cancel might not hold for as long; but there
// would still be one order each, and the run would end.
func TestProcessesWhoseClocksDiffer(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"the api is ahead": 2 * time.Minute, "the api is behind": -2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 400
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			s.clocks(t, "api", "first", "second")
			s.shift(t, "api", ahead)
			s.shift(t, "first", -ahead)
			s.shift(t, "second", ahead)
			s.subscribers(t, n)
			_, api := s.api(t, "api", s.by(t, "api"))
			first := s.worker(t, s.by(t, "first"))
			s.shop.SetFaults(shoptest.Fault{Delay: 20 * time.Millisecond})
			eventuallyCode(t, http.StatusOK, chargeURL(api, 1, "r-1"))
			startRun(t, api, `{"page_size":50,"concurrency":8}`)
			require.Eventually(t, func() bool { return len(s.shop.Orders()) > n/3 }, time.Minute, 5*time.Millisecond)
			s.worker(t, s.by(t, "second"))
			require.Eventually(t, func() bool { return len(s.shop.Orders()) > n/2 }, time.Minute, 5*time.Millisecond)
			first.kill(syscall.SIGKILL)
			eventuallyRun(t, api, "finished")
			eventuallySettled(t, s)
			s.requireOneOrderEach(t, n)
			require.Len(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"), n)
		})
	}
}

// What is accepted in a month is an order of that month, whatever the clock says
// when the worker comes to it.
func TestTheMonthEndsDuringACharge(t *testing.T) {
	t.Parallel()
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.clocks(t, "all")
	s.set(t, "all", "2026-10-31 12:00:00")
	s.subscribers(t, 3)
	_, api := s.api(t, "api", s.by(t, "all"))
	var waits answer // accepted in October, claimed in November
	require.Eventually(t, func() bool {
		s.set(t, "all", "2026-10-31 23:59:30")
		var err error
		waits, err = send(http.MethodPost, chargeURL(api, 1, "r-1"), "", "Prefer", "respond-async")
		return err == nil && waits.Code == http.StatusAccepted
	}, time.Minute, 200*time.Millisecond)
	require.Equal(t, "/subscription/s-000001/charges/2026-10", waits.Header.Get("Location"))
	s.set(t, "all", "2026-11-01 00:00:01")
	s.worker(t, s.by(t, "all"))
	require.Equal(t, "r-1", eventuallyCharged(t, api+waits.Header.Get("Location")).Body["request_id"])

	s.set(t, "all", "2026-10-31 23:59:30") // ordered in October, settled in November
	s.shop.SetFaults(shoptest.Fault{Delay: time.Second})
	ordered := mustSend(t, http.MethodPost, chargeURL(api, 2, "r-2"), "", "Prefer", "respond-async")
	require.Equal(t, http.StatusAccepted, ordered.Code)
	require.Eventually(t, func() bool { return len(s.shop.Orders()) == 2 }, time.Minute, 5*time.Millisecond)
	s.set(t, "all", "2026-11-01 00:00:01")
	require.Equal(t, "2026-10", eventuallyCharged(t, api+ordered.Header.Get("Location")).Body["period"])
	s.shop.SetFaults()
	s.requireOneOrderEach(t, 2)

	// November's are orders of their own.
	require.Equal(t, "request_id_reused", mustSend(t, http.MethodPost, chargeURL(api, 1, "r-1"), "").Body["code"])
	november := mustSend(t, http.MethodPost, chargeURL(api, 1, "r-3"), "")
	require.Equal(t, "2026-11", november.Body["period"], november.Body)
	require.Nil(t, november.Body["already_charged"])
	require.Equal(t, []string{"2026-10 r-1", "2026-10 r-2", "2026-11 r-3"},
		s.db.Lines(t, "SELECT period || ' ' || request_id FROM charge WHERE status = 'charged' ORDER BY 1"))
	require.Len(t, s.shop.Orders(), 3)
}

func TestTheMonthEndsDuringARun(t *testing.T) {
	t.Parallel()
	const n = 200
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.clocks(t, "all")
	s.set(t, "all", "2026-10-31 23:59:00")
	s.subscribers(t, n)
	_, api := s.api(t, "api", s.by(t, "all"))
	s.worker(t, s.by(t, "all"))
	october, november := api+"/billing-run/2026-10", api+"/billing-run/2026-11"
	s.shop.SetFaults(
		shoptest.Fault{CustomerIDs: customers(5, 150), Status: http.StatusServiceUnavailable, Times: 2},
		shoptest.Fault{Delay: 20 * time.Millisecond},
	)
	require.Equal(t, "period_in_future", mustSend(t, http.MethodPost, november, "").Body["code"])
	require.Equal(t, http.StatusAccepted, mustSend(t, http.MethodPost, october, `{"page_size":20,"concurrency":8}`).Code)
	require.Eventually(t, func() bool { return len(s.shop.Orders()) > n/4 }, time.Minute, 5*time.Millisecond)
	s.set(t, "all", "2026-11-01 00:00:01")
	eventuallyRunAt(t, october, "finished")
	s.requireOneOrderEach(t, n)
	require.Equal(t, []string{"2026-10"}, s.db.Lines(t, "SELECT DISTINCT period FROM charge"))

	s.shop.SetFaults()
	require.Equal(t, http.StatusAccepted, mustSend(t, http.MethodPost, november, "").Code)
	eventuallyRunAt(t, november, "finished")
	require.Len(t, s.shop.Orders(), 2*n)
	require.Equal(t, []string{"2026-10 200", "2026-11 200"},
		s.db.Lines(t, "SELECT period || ' ' || count(*) FROM charge WHERE status = 'charged' GROUP BY period ORDER BY period"))
}
