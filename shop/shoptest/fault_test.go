package shoptest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEffects(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		fault  Fault
		status int // 0: no answer
		booked int
	}{
		"status":                {Fault{Status: 503}, 503, 0},
		"status, booked":        {Fault{Status: 500, BookFirst: true}, 500, 1},
		"status 2xx, a lie":     {Fault{Status: 200}, 200, 0},
		"cut before":            {Fault{Cut: CutBefore}, 0, 0},
		"cut after":             {Fault{Cut: CutAfter}, 0, 1},
		"cut before, late":      {Fault{Cut: CutBefore, Delay: time.Millisecond}, 0, 0},
		"late":                  {Fault{Delay: time.Millisecond}, 201, 1},
		"late refusal":          {Fault{Delay: time.Millisecond, Status: 429}, 429, 0},
		"redirect":              {Fault{Redirect: "/there"}, 307, 0},
		"redirect, own status":  {Fault{Redirect: "/there", Status: 302}, 302, 0},
		"redirect, booked":      {Fault{Redirect: "/there", BookFirst: true}, 307, 1},
		"body":                  {Fault{Body: "<html>"}, 201, 1},
		"retry after with body": {Fault{Status: 429, RetryAfter: "soon", Body: "x"}, 429, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, Options{})
			s.SetFaults(c.fault)
			response, err := send(t, s, "r-1", body1)
			require.Len(t, s.Orders(), c.booked)
			require.Equal(t, c.status, s.Calls()[0].Status)
			if c.status == 0 {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.status, response.StatusCode)
			require.Equal(t, c.fault.Redirect, response.Header.Get("Location"))
			require.Equal(t, c.fault.RetryAfter, response.Header.Get("Retry-After"))
			require.Equal(t, c.fault.Body == "", decoded(t, response) != nil)
		})
	}
}

func TestMatching(t *testing.T) {
	t.Parallel()
	order := orderBody{customerID: "club-7", sku: 3}
	cases := map[string]struct {
		fault Fault
		want  bool
	}{
		"anything":             {Fault{}, true},
		"the customer":         {Fault{CustomerIDs: []string{"x", "club-7"}}, true},
		"another customer":     {Fault{CustomerIDs: []string{"x"}}, false},
		"the prefix":           {Fault{CustomerPrefix: "club-"}, true},
		"another prefix":       {Fault{CustomerPrefix: "7"}, false},
		"the request":          {Fault{RequestID: "r-1"}, true},
		"another request":      {Fault{RequestID: "r-2"}, false},
		"the product":          {Fault{SKU: 3}, true},
		"another product":      {Fault{SKU: 4}, false},
		"all, but the product": {Fault{CustomerPrefix: "club", RequestID: "r-1", SKU: 4}, false},
		"everybody":            {Fault{Percent: 100}, true},
		"each call":            {Fault{Percent: 100, PercentOfCalls: true}, true},
	}
	for name, c := range cases {
		var faults faultSet
		c.fault.Status = 500
		require.NoError(t, faults.replace([]Fault{c.fault}))
		_, got := faults.take("r-1", order)
		require.Equal(t, c.want, got, name)
	}
}

func TestFirstMatchWinsWhileItLasts(t *testing.T) {
	t.Parallel()
	var faults faultSet
	require.NoError(t, faults.replace([]Fault{
		{Status: 500, Times: 2},
		{Status: 501, Times: 3, TimesInAll: true},
		{Status: 502, RequestID: "r-1"},
	}))
	seen := func(id string) (statuses []int) {
		for range 4 {
			fault, _ := faults.take(id, orderBody{})
			statuses = append(statuses, fault.Status)
		}
		return statuses
	}
	require.Equal(t, []int{500, 500, 501, 501}, seen("r-1"))
	require.Equal(t, []int{500, 500, 501, 0}, seen("r-2"), "2 for each id, 3 in all, then nothing")
	require.Equal(t, []int{502, 502, 502, 502}, seen("r-1"))
}

func TestShares(t *testing.T) {
	t.Parallel()
	hit := func(fault Fault, repeat int) (customers map[string]int) {
		fault.Status = 500
		var faults faultSet
		require.NoError(t, faults.replace([]Fault{fault}))
		customers = map[string]int{}
		for range repeat {
			for i := range 2000 {
				id := fmt.Sprint("c-", i)
				if _, ok := faults.take("r", orderBody{customerID: id}); ok {
					customers[id]++
				}
			}
		}
		return customers
	}
	some := hit(Fault{Percent: 10, Seed: 1}, 3)
	require.InDelta(t, 200, len(some), 60)
	for _, times := range some {
		require.Equal(t, 3, times, "the same customers each time")
	}
	require.Equal(t, some, hit(Fault{Percent: 10, Seed: 1}, 3))
	require.NotEqual(t, some, hit(Fault{Percent: 10, Seed: 2}, 3))

	calls := hit(Fault{Percent: 10, PercentOfCalls: true, Seed: 1}, 1)
	require.InDelta(t, 200, len(calls), 60)
	require.Equal(t, calls, hit(Fault{Percent: 10, PercentOfCalls: true, Seed: 1}, 1))
}

func TestUselessFaultsAreRefused(t *testing.T) {
	t.Parallel()
	var faults faultSet
	for _, fault := range []Fault{
		{},
		{Percent: 10},
		{Status: 500, Percent: -1},
		{Status: 500, Percent: 101},
		{Status: 500, PercentOfCalls: true},
		{Status: 500, Times: -1},
		{Status: 500, TimesInAll: true},
		{Status: 99},
		{Status: 1000},
		{Delay: -1},
		{Cut: "maybe"},
		{Cut: CutAfter, Status: 500},
		{Cut: CutAfter, Body: "x"},
		{Cut: CutAfter, Extra: "x"},
		{BookFirst: true, Delay: 1},
	} {
		require.Error(t, faults.replace([]Fault{{Status: 500}, fault}), "%+v", fault)
		require.Panics(t, func() { new(Shop).SetFaults(fault) })
	}
	require.Empty(t, faults.list())
}

func TestFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	list := `[{"customer_ids":["c-1"],"percent":50,"seed":7,"times":2,"delay":"1.5s","status":503,"retry_after":"5"}]`
	var set []Fault
	require.Equal(t, http.StatusOK, control(t, s, http.MethodPut, "/faults", list, &set))
	want := []Fault{{
		CustomerIDs: []string{"c-1"}, Percent: 50, Seed: 7, Times: 2, Delay: 1500 * time.Millisecond, Status: 503, RetryAfter: "5",
	}}
	require.Equal(t, want, set)
	require.Equal(t, want, s.Faults())
	data, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, list, string(data))

	for _, bad := range []string{"", "{}", "[{}]", `[{"status":500,"custommer_ids":["c"]}]`, `[{"delay":1}]`, `[{"delay":"x"}]`} {
		require.Equal(t, http.StatusBadRequest, control(t, s, http.MethodPut, "/faults", bad, nil), bad)
	}
	require.Equal(t, want, s.Faults(), "all or nothing")
	require.Equal(t, http.StatusNoContent, control(t, s, http.MethodDelete, "/faults", "", nil))
	control(t, s, http.MethodGet, "/faults", "", &set)
	require.Empty(t, set)
}

// Given a call that is delayed for an hour: Close ends it, without an answer.
func TestCloseEndsDelays(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	s.SetFaults(Fault{Delay: time.Hour})
	ended := make(chan error)
	go func() {
		_, err := send(t, s, "r-1", body1) //nolint:bodyclose,testifylint // there is no answer, and send asserts nothing before it
		ended <- err
	}()
	require.Eventually(t, func() bool { return len(s.Orders()) == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, s.Shop.Close())
	require.Error(t, <-ended)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "again")
}
