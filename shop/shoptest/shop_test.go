package shoptest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestOrderIsBookedOnce(t *testing.T) {
	t.Parallel()
	now := noon
	s := Start(t, Options{APIKey: "key", APISecret: "secret", Now: func() time.Time { return now }})

	status, first := call(t, s, "r-1", body1)
	require.Equal(t, http.StatusCreated, status)
	require.Equal(t, map[string]any{
		"order_id": first["order_id"], "request_id": "r-1", "customer_id": "c-1", "sku_id": 1.0, "created_at": "2026-11-01T12:00:00Z",
	}, first)

	now = noon.Add(time.Hour)
	status, again := call(t, s, "r-1", body1)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, first, again)

	status, _ = call(t, s, "r-1", `{"customer_id":"c-2","sku_id":1}`)
	require.Equal(t, http.StatusUnprocessableEntity, status)
	status, _ = call(t, s, "r-1", `{"customer_id":"c-1","sku_id":2}`)
	require.Equal(t, http.StatusUnprocessableEntity, status)

	require.Equal(t, []Order{{
		OrderID: first["order_id"].(string), RequestID: "r-1", CustomerID: "c-1", SKU: 1, CreatedAt: noon, Calls: 2,
	}}, s.Orders())
	require.Equal(t, []Call{
		{noon, "r-1", 201}, {now, "r-1", 200}, {now, "r-1", 422}, {now, "r-1", 422},
	}, s.Calls())
}

func TestFoldCase_OneOrderForTwoCustomers(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{FoldCase: true})
	for _, id := range []string{"Club-X", "club-x"} {
		_, answer := call(t, s, id, `{"customer_id":"c-`+id+`","sku_id":1}`)
		require.Equal(t, "Club-X", answer["request_id"])
	}
	require.Len(t, s.Orders(), 1)
}

func TestNewOrderPerCall(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{NewOrderPerCall: true})
	for range 3 {
		status, _ := call(t, s, "r-1", body1)
		require.Equal(t, http.StatusCreated, status)
	}
	orders := s.OrdersFor("c-1")
	require.Len(t, orders, 3)
	require.NotEqual(t, orders[0].OrderID, orders[1].OrderID)
	require.Empty(t, s.OrdersFor("c-2"))
}

func TestBadCalls(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{APIKey: "key", APISecret: "secret"})
	s.SetFaults(Fault{Status: 500, BookFirst: true}) // meets none of these
	for _, body := range []string{
		"", "null", "{", "[]", `{"sku_id":1}`, `{"customer_id":"c"}`, `{"customer_id":"","sku_id":1}`, `{"customer_id":1,"sku_id":1}`,
		`{"customer_id":"c","sku_id":"1"}`, `{"customer_id":"c","sku_id":1.5}`, `{"customer_id":"c","sku_id":null}`,
		`{"customer_id":"` + strings.Repeat("é", 37) + `","sku_id":1}`, body1 + "x", body1 + strings.Repeat(" ", 64<<10),
	} {
		status, answer := call(t, s, "r-1", body)
		require.Equal(t, http.StatusUnprocessableEntity, status, body)
		require.NotEmpty(t, answer["error"])
	}
	for _, headers := range []map[string]string{
		{}, {"X-Api-Key": "key"}, {"X-Api-Secret": "secret"}, {"X-Api-Key": "key", "X-Api-Secret": "Secret"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/order/r-1", strings.NewReader(body1))
		require.NoError(t, err)
		for name, value := range headers {
			request.Header.Set(name, value)
		}
		response, err := client(t).Do(request)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, response.StatusCode)
		require.NotEmpty(t, decoded(t, response)["error"])
	}
	require.Equal(t, http.StatusMethodNotAllowed, control(t, s, http.MethodGet, "/order/r-1", "", nil))
	require.Empty(t, s.Orders())

	s.SetFaults()
	status, _ := call(t, s, "r-1", `{"customer_id":"`+strings.Repeat("é", 36)+`","sku_id":-1,"more":true}`)
	require.Equal(t, http.StatusCreated, status)
}

func TestEmptyOptionsStillWantHeaders(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	require.Equal(t, http.StatusUnauthorized, control(t, s, http.MethodPost, "/order/r-1", body1, nil))
	status, _ := call(t, s, "r-1", body1)
	require.Equal(t, http.StatusCreated, status)
}

func TestBookAndCallsOverHTTP(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	for i := range 5 {
		call(t, s, fmt.Sprintf("r-%d", i), fmt.Sprintf(`{"customer_id":"c-%d","sku_id":1}`, i%2))
	}
	type list struct {
		Total  int
		Orders []Order
		Calls  []Call
	}
	var all, one, some, none, calls list
	require.Equal(t, http.StatusOK, control(t, s, http.MethodGet, "/orders", "", &all))
	require.Equal(t, 5, all.Total)
	require.Equal(t, "r-4", all.Orders[0].RequestID, "newest first")
	control(t, s, http.MethodGet, "/orders?request_id=r-2", "", &one)
	require.Equal(t, 1, one.Total)
	control(t, s, http.MethodGet, "/orders?customer_id=c-0&limit=2", "", &some)
	require.Equal(t, 3, some.Total)
	require.Len(t, some.Orders, 2)
	control(t, s, http.MethodGet, "/orders?customer_id=c-9", "", &none)
	require.NotNil(t, none.Orders)
	control(t, s, http.MethodGet, "/calls?limit=1", "", &calls)
	require.Equal(t, 5, calls.Total)
	require.Equal(t, "r-4", calls.Calls[0].RequestID)
	require.Equal(t, 201, calls.Calls[0].Status)
	for _, path := range []string{"/orders?limit=x", "/calls?limit=-1"} {
		require.Equal(t, http.StatusBadRequest, control(t, s, http.MethodGet, path, "", nil))
	}
	require.Equal(t, http.StatusOK, control(t, s, http.MethodGet, "/healthz", "", nil))

	require.NoError(t, s.Reset())
	require.Empty(t, s.Orders())
	require.Empty(t, s.Calls())
}

// Given any mix of calls at the same time: each request id has one order, booked
// by one 201; with another customer or product it is 422; the book's counts
// add up, and the journal brings the same book back.
func TestBookUnderLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	rapid.Check(t, func(r *rapid.T) {
		shop, err := New(Options{Journal: path})
		require.NoError(r, err)
		require.NoError(r, shop.Reset())
		type request struct{ id, sku int }
		requests := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) request {
			return request{rapid.IntRange(0, 5).Draw(r, "id"), rapid.IntRange(0, 1).Draw(r, "sku")}
		}), 1, 60).Draw(r, "requests")

		results := make([]booking, len(requests))
		var wg sync.WaitGroup
		for i, request := range requests {
			wg.Go(func() {
				id := fmt.Sprint("r-", request.id)
				_, what, err := shop.book.place(id, "c", request.sku, noon)
				assert.NoError(t, err)
				results[i] = what
			})
		}
		wg.Wait()

		counts := map[string]int{}
		placed := map[int]int{}
		for i, request := range requests {
			if results[i] != conflict {
				counts[fmt.Sprint("r-", request.id)]++
			}
			if results[i] == booked {
				placed[request.id]++
			}
		}
		orders := shop.Orders()
		require.Len(r, orders, len(placed))
		for _, order := range orders {
			require.Equal(r, counts[order.RequestID], order.Calls)
		}
		for _, n := range placed {
			require.Equal(r, 1, n)
		}

		require.NoError(r, shop.Close())
		again, err := New(Options{Journal: path})
		require.NoError(r, err)
		for i := range orders {
			orders[i].Calls = 1 // repeats are not in the journal
		}
		require.Equal(r, orders, again.Orders())
		require.NoError(r, again.Close())
	})
}

func TestIdenticalCallsAtOnceOverHTTP(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	var mu sync.Mutex
	statuses := map[int]int{}
	ids := map[any]bool{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			status, answer := call(t, s, "r-1", body1)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
			ids[answer["order_id"]] = true
		})
	}
	wg.Wait()
	require.Equal(t, map[int]int{201: 1, 200: 49}, statuses)
	require.Len(t, ids, 1)
	require.Equal(t, 50, s.Orders()[0].Calls)
}

func TestJournal(t *testing.T) {
	t.Parallel()
	const line = `{"order_id":"o-1","request_id":"r-1","customer_id":"c-1","sku_id":1,"created_at":"2026-11-01T12:00:00Z","calls":1}` + "\n"
	cases := map[string]struct {
		text   string
		orders int
		fails  bool
	}{
		"empty":          {"", 0, false},
		"whole":          {line, 1, false},
		"torn":           {line + `{"order_id":"o-2","req`, 1, false},
		"torn at end":    {line + strings.TrimSuffix(line, "\n"), 1, false},
		"garbage at end": {line + "\x00\x00\x00\n", 1, false},
		"garbage inside": {"{\n" + line, 0, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "journal")
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
			shop, err := New(Options{Journal: path})
			if c.fails {
				require.ErrorContains(t, err, "line 1")
				return
			}
			require.NoError(t, err)
			require.Len(t, shop.Orders(), c.orders)
			_, what, err := shop.book.place("r-9", "c-9", 9, noon)
			require.NoError(t, err)
			require.Equal(t, booked, what)
			require.NoError(t, shop.Close())
			_, _, err = shop.book.place("r-10", "c-9", 9, noon)
			require.ErrorIs(t, err, errClosed)

			again, err := New(Options{Journal: path})
			require.NoError(t, err)
			require.Len(t, again.Orders(), c.orders+1)
			require.NoError(t, again.Reset())
			require.NoError(t, again.Close())
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Empty(t, data)
		})
	}
	_, err := New(Options{Journal: filepath.Join(t.TempDir(), "no", "such", "folder")})
	require.Error(t, err)
}

// Given a journal that can no longer be written: 500, and nothing booked.
func TestJournalThatFails(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{Journal: filepath.Join(t.TempDir(), "journal")})
	file := s.book.journal.file
	readOnly, err := os.Open(file.Name())
	require.NoError(t, err)
	s.book.journal.file = readOnly
	status, _ := call(t, s, "r-1", body1)
	require.Equal(t, http.StatusInternalServerError, status)
	require.Empty(t, s.Orders())
	require.NoError(t, file.Close())
}

func TestCallsAreBounded(t *testing.T) {
	t.Parallel()
	log := newCallLog(3)
	first := log.begin("r-0", noon)
	for i := range 5 {
		log.end(log.begin(fmt.Sprint("r-", i+1), noon.Add(time.Duration(i))), 200+i)
	}
	log.end(first, 599) // dropped meanwhile
	require.Equal(t, []Call{
		{noon.Add(2), "r-3", 202}, {noon.Add(3), "r-4", 203}, {noon.Add(4), "r-5", 204},
	}, log.all())
	old := log.begin("r-6", noon)
	log.reset()
	log.begin("r-7", noon)
	log.end(old, 500) // belongs to the old log
	require.Equal(t, []Call{{noon, "r-7", 0}}, log.all())
}
