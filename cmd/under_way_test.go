package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"drayman/shop/shoptest"
)

// gate is before a shop. It holds the orders of some customers until it opens.
type gate struct {
	url     string
	answers bool // are held: the orders are made
	open    chan struct{}

	release func()

	mu    sync.Mutex
	holds []string // request ids
}

func newGate(t *testing.T, shop http.Handler, answers bool, held ...string) *gate {
	t.Helper()
	g := &gate{answers: answers, open: make(chan struct{})}
	g.release = sync.OnceFunc(func() { close(g.open) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // the shop refuses a part of it
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		var order struct {
			CustomerID string `json:"customer_id"`
		}
		_ = json.Unmarshal(body, &order) // as above
		hold := func() {
			if slices.Contains(held, order.CustomerID) {
				g.mu.Lock()
				g.holds = append(g.holds, path.Base(r.URL.Path))
				g.mu.Unlock()
				<-g.open
			}
		}
		if !g.answers {
			hold()
		}
		answer := httptest.NewRecorder()
		shop.ServeHTTP(answer, r)
		if g.answers {
			hold()
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the worker may be gone
	}))
	g.url = server.URL
	t.Cleanup(func() {
		g.release()
		server.Close()
	})
	return g
}

func (g *gate) has(ids ...string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		if !slices.Contains(g.holds, id) {
			return false
		}
	}
	return true
}

// The database is replaced while a worker has claimed and not yet ordered, or has ordered
// and has no answer yet: a caller's order and a page's. Both end in the ledger, also if
// others ask for them meanwhile.
func TestRestore_OrdersAreUnderWay(t *testing.T) {
	for _, c := range []struct {
		name                 string
		everyCallIs, answers bool
	}{
		{"idempotent shop, before the order", false, false},
		{"idempotent shop, before the answer", false, true},
		{"every call is an order, before the order", true, false},
		{"every call is an order, before the answer", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const n, callers, pages = 6, 2, 4
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{NewOrderPerCall: c.everyCallIs})
			g := newGate(t, s.shop, c.answers, customers(callers, pages)...)
			s.env = append(s.env, "SHOP_URL="+g.url, "SHOP_TIMEOUT=60s",
				fmt.Sprint("SHOP_IDEMPOTENT=", !c.everyCallIs), "CHARGE_RETRY_FOR=1h")
			s.subscribers(t, n)
			serve, api := s.api(t, "serve")
			s.eventually(t, http.StatusOK, chargeURL(api, 1, "caller-before"))
			serve.kill(syscall.SIGTERM)
			restore := s.db.Snapshot(t)
			_, api = s.api(t, "serve")
			require.Equal(t, http.StatusAccepted, mustSend(t, http.MethodPost, chargeURL(api, callers, "own"), "", "Prefer", "respond-async").Code)
			startRun(t, api, "")
			require.Eventually(t, func() bool { return g.has("own", derived(pages, 1)) }, time.Minute, 5*time.Millisecond)

			restore()
			s.adopt(t)
			late := func(number int) (answer, error) {
				return send(http.MethodPost, chargeURL(api, number, fmt.Sprint("late-", number)), "", "Prefer", "respond-async")
			}
			for _, number := range []int{callers, pages, n} {
				require.Eventually(t, func() bool {
					a, err := late(number)
					return err == nil && a.Code != http.StatusServiceUnavailable
				}, time.Minute, 50*time.Millisecond)
			}
			require.Equal(t, true, mustSend(t, http.MethodGet, api+"/installation", "").Body["may_charge"])
			g.release()
			// A person looks into the shop's book when no call is under way any longer.
			require.Eventually(t, func() bool {
				all := fmt.Sprint(s.ordered(1))
				return strings.Contains(all, "own") && strings.Contains(all, derived(pages, 1))
			}, time.Minute, 5*time.Millisecond)
			s.seeThrough(t, api)
			for range 2 {
				if len(s.ordered(1)) < n || c.everyCallIs {
					startRun(t, api, "")
					s.seeThrough(t, api)
				}
			}

			requireClosed(t, api)
			s.requireOneOrderEach(t, n)
			require.Len(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"), n)
			require.Equal(t, []string{"charged"}, s.db.Lines(t, "SELECT status FROM charge WHERE request_id = 'own'"))
			if !c.everyCallIs { // else a person has settled it, under the request id of the late caller
				require.Equal(t, []string{"charged"}, s.db.Lines(t, "SELECT status FROM charge WHERE request_id = $1", derived(pages, 1)))
			}
		})
	}
}

// withoutList is the address of a Temporal server whose list of workflows fails while down
// is set: its visibility store is away, and all else works.
func withoutList(t *testing.T, address string, down *atomic.Bool) string {
	t.Helper()
	server, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	proxy := grpc.NewServer(grpc.ForceServerCodec(asItIs{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var request, response raw
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		name, _ := grpc.MethodFromServerStream(stream)
		if down.Load() && path.Base(name) == "ListWorkflowExecutions" {
			return status.Error(codes.Unavailable, "no visibility store")
		}
		headers, _ := metadata.FromIncomingContext(stream.Context())
		err := server.Invoke(metadata.NewOutgoingContext(stream.Context(), headers), name, &request, &response, grpc.ForceCodec(asItIs{}))
		if err != nil {
			return err
		}
		return stream.SendMsg(&response)
	}))
	go func() { _ = proxy.Serve(listener) }() // ends with Stop
	t.Cleanup(func() {
		proxy.Stop()
		_ = server.Close()
	})
	return listener.Addr().String()
}

// callsAreThrough waits until the shop has heard nothing for a second, and returns how many
// calls there were.
func (s *site) callsAreThrough(t *testing.T) int {
	t.Helper()
	calls, since := -1, time.Now()
	require.Eventually(t, func() bool {
		if n := len(s.shop.Calls()); n != calls {
			calls, since = n, time.Now()
		}
		return time.Since(since) > time.Second
	}, time.Minute, 10*time.Millisecond)
	return calls
}

// Temporal's list is away when the database is replaced: nobody knows what was ordered, so
// nobody is charged, and callers are told to come again. All else works: also an operator
// may end the run. When the list is back all goes on.
func TestRestore_WithoutTemporalsList(t *testing.T) {
	for _, ends := range []string{"resume", "cancel"} {
		t.Run(ends, func(t *testing.T) {
			t.Parallel()
			const n = 12
			var down atomic.Bool
			s := newSite(t, withoutList(t, binary(t, "TEST_TEMPORAL_ADDRESS"), &down), shoptest.Options{})
			s.env = append(s.env, "SHOP_IDEMPOTENT=true", "CHARGE_RETRY_FOR=1h")
			s.subscribers(t, n)
			serve, api := s.api(t, "serve")
			s.eventually(t, http.StatusOK, chargeURL(api, 1, "caller-before"))
			startRun(t, api, `{"page_size":3,"concurrency":4,"orders_per_second":0.1}`)
			serve.kill(syscall.SIGTERM)
			restore := s.db.Snapshot(t)
			_, api = s.api(t, "serve")
			s.eventually(t, http.StatusOK, chargeURL(api, n, "caller-after"))
			setPace(t, api, 5)
			s.eventuallyAsked(t, 7)
			eventuallyCharged(t, api+"/subscription/s-000002/charges/"+time.Now().UTC().Format("2006-01"))

			down.Store(true)
			restore()
			s.adopt(t)
			calls := s.callsAreThrough(t)
			for _, number := range []int{2, n} {
				a := mustSend(t, http.MethodPost, chargeURL(api, number, fmt.Sprint("late-", number)), "")
				require.Equal(t, http.StatusServiceUnavailable, a.Code, a.Body)
				require.Equal(t, "database_replaced", a.Body["code"])
				require.NotEmpty(t, a.Header.Get("Retry-After"))
			}
			a := mustSend(t, http.MethodPost, runURL(api), "")
			require.Equal(t, http.StatusServiceUnavailable, a.Code, a.Body)
			require.Equal(t, "database_replaced", a.Body["code"])
			require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, chargeURL(api, 1, "again"), "").Code, "it is in the ledger")
			require.Equal(t, http.StatusOK, mustSend(t, http.MethodGet, api+"/subscription/s-000002", "").Code)
			require.Equal(t, http.StatusOK, mustSend(t, http.MethodGet, runURL(api)+"/report", "").Code)
			require.Equal(t, "paused", mustSend(t, http.MethodPost, runURL(api)+"/pause", "").Body["state"])
			changed := mustSend(t, http.MethodPost, runURL(api)+"/"+ends, "")
			require.Equal(t, http.StatusOK, changed.Code, changed.Body)
			require.Len(t, s.shop.Calls(), calls, "nobody is charged")

			down.Store(false)
			for _, number := range []int{2, n} {
				s.eventually(t, http.StatusOK, chargeURL(api, number, fmt.Sprint("late-", number)))
			}
			for number := 3; number < 8; number++ { // a page may have ordered it
				s.eventually(t, http.StatusOK, chargeURL(api, number, fmt.Sprint("late-", number)))
			}
			if ends == "cancel" {
				startRun(t, api, "")
			} else {
				setPace(t, api, 0)
			}
			eventuallyRun(t, api, "finished")
			requireClosed(t, api)
			s.requireOneOrderEach(t, n)
			require.Equal(t, []string{"charged"}, s.db.Lines(t, "SELECT status FROM charge WHERE request_id = 'caller-after'"))
		})
	}
}
