package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// grace is what the documentation asks supervisors for before they kill, and
// drain how long a process takes for itself at most (drainTime).
const (
	grace = 30 * time.Second
	drain = 20 * time.Second
)

// stop sends SIGTERM and returns the exit code and how long the end took.
func (p *process) stop(t *testing.T) (code int, took time.Duration) {
	t.Helper()
	begun := time.Now()
	code = p.kill(syscall.SIGTERM)
	return code, time.Since(begun)
}

func thisMonth() string { return time.Now().UTC().Format("2006-01") }

// sendAll sends a charge for each of n customers at once and returns a channel
// of what was answered; a cut answer has the code 0.
func sendAll(api string, n int, header ...string) chan answer {
	answers := make(chan answer, n)
	for i := 1; i <= n; i++ {
		go func() {
			a, _ := send(http.MethodPost, fmt.Sprintf("%s/subscription/s-%06d/charge/r-%d", api, i, i), "", header...)
			answers <- a
		}()
	}
	return answers
}

// Fifty charges under way at a shop that takes its time, one that retries for a
// patient caller, and an API that is told to stop.
func TestTheAPIStopsWithChargesUnderWay(t *testing.T) {
	const n = 50
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, n)
	api, address := s.api(t, "api")
	s.worker(t)
	s.shop.SetFaults(
		shoptest.Fault{CustomerIDs: []string{"c-000001"}, Status: http.StatusServiceUnavailable},
		shoptest.Fault{CustomerIDs: []string{"c-000002", "c-000003"}, Status: http.StatusPaymentRequired, Delay: time.Second},
		shoptest.Fault{CustomerPrefix: "c-00001", Delay: time.Second},
		shoptest.Fault{CustomerPrefix: "c-00002", Delay: 2 * time.Second},
		shoptest.Fault{Delay: 4 * time.Second},
	)
	answers := sendAll(address, n, "Prefer", "wait=60")
	require.Eventually(t, func() bool { return len(s.shop.Calls()) >= n && len(answers) > 5 }, time.Minute, 5*time.Millisecond)

	code, took := api.stop(t)

	require.Zero(t, code, api.text())
	require.Less(t, took, 5*time.Second, "nobody's wait holds up the stop")
	codes := map[int]int{}
	for range n {
		codes[(<-answers).Code]++
	}
	t.Logf("api: stopped after %s, answers %v", took.Round(time.Millisecond), codes)
	require.Equal(t, n, codes[http.StatusOK]+codes[http.StatusAccepted]+codes[http.StatusPaymentRequired], "%v", codes)
	require.NotZero(t, codes[http.StatusOK])
	require.NotZero(t, codes[http.StatusAccepted])
	_, err := send(http.MethodGet, address+"/livez", "")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)

	s.shop.SetFaults()
	_, address = s.api(t, "api")
	for i := 4; i <= n; i++ {
		eventuallyCharged(t, fmt.Sprintf("%s/subscription/s-%06d/charges/%s", address, i, thisMonth()))
	}
}

// API and worker in one process: callers are told to look later, and the orders
// under way are finished and recorded before the end.
func TestServeStopsWithChargesUnderWay(t *testing.T) {
	const n = 50
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, n)
	serve, address := s.api(t, "serve")
	serve.find(t, `(worker polls)`)
	s.shop.SetFaults(shoptest.Fault{Delay: 3 * time.Second})
	answers := sendAll(address, n)
	require.Eventually(t, func() bool { return len(s.shop.Calls()) == n }, time.Minute, 5*time.Millisecond)

	code, took := serve.stop(t)

	t.Logf("serve: stopped after %s", took.Round(time.Millisecond))
	require.Zero(t, code, serve.text())
	require.Less(t, took, 10*time.Second)
	for range n {
		require.Contains(t, []int{http.StatusOK, http.StatusAccepted}, (<-answers).Code)
	}
	require.Len(t, s.shop.Calls(), n)
	require.Equal(t, []string{"50"}, s.db.Lines(t, "SELECT count(*)::text FROM charge WHERE status = 'charged'"))
}

// A list that is being read slowly is finished, while nobody new gets in.
func TestTheAPIStopsWhileItStreams(t *testing.T) {
	const n = 100_000 // 3.9 MB: more than sockets hold back
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.db.Exec(t, `INSERT INTO subscription (id, club_id, customer_store_id, create_date)
		SELECT lpad(i::text, 36, '0'), 1, i::text, '2020-01-01' FROM generate_series(1, $1) i`, n)
	s.db.Exec(t, `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date)
		SELECT id, id, 1, '2020-01-01', '2020-01-01' FROM subscription`)
	api, address := s.api(t, "api")
	res, err := http.Get(address + "/subscription/eligible") //nolint:noctx // read to its end below
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	first := make([]byte, 1000)
	_, err = io.ReadFull(res.Body, first)
	require.NoError(t, err)

	require.NoError(t, api.cmd.Process.Signal(syscall.SIGTERM))
	begun := time.Now()
	host := strings.TrimPrefix(address, "http://")
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", host) //nolint:noctx // on this machine
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, 10*time.Second, 10*time.Millisecond)
	select {
	case <-api.exited:
		t.Fatal("the process did not wait for its reader")
	default:
	}

	rest, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	var ids []string
	require.NoError(t, json.Unmarshal(append(first, rest...), &ids))
	require.Len(t, ids, n)
	<-api.exited
	t.Logf("api: stopped after %s, with %d ids streamed", time.Since(begun).Round(time.Millisecond), n)
	require.Zero(t, api.cmd.ProcessState.ExitCode(), api.text())
}

// A worker is stopped while it asks for the order of one charge: in the workflow
// task's own call, and in one of the calls that are tried again.
func TestAWorkerStopsInTheMiddleOfACharge(t *testing.T) {
	late := shoptest.Fault{Delay: 4 * time.Second, Times: 1}
	for name, faults := range map[string][]shoptest.Fault{
		"first call": {late},
		"retried":    {{Status: http.StatusServiceUnavailable, Times: 1}, late},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			s.subscribers(t, 1)
			_, api := s.api(t, "api")
			s.shop.SetFaults(faults...)
			first := s.worker(t)
			answers := sendAll(api, 1, "Prefer", "wait=30")
			require.Eventually(t, func() bool { return len(s.shop.Calls()) == len(faults) }, time.Minute, 5*time.Millisecond)
			begun := time.Now()
			s.worker(t)
			code, took := first.stop(t)

			a := <-answers
			t.Logf("worker: stopped after %s, the caller was answered after %s", took.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
			require.Zero(t, code, first.text())
			require.Equal(t, http.StatusOK, a.Code, a.Body)
			require.Less(t, time.Since(begun), 9*time.Second, "nobody waited for a timeout")
			require.Len(t, s.shop.Calls(), len(faults))
		})
	}
}

// A second signal ends at once.
func TestASecondSignal(t *testing.T) {
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, 1)
	serve, api := s.api(t, "serve")
	s.shop.SetFaults(shoptest.Fault{Delay: 5 * time.Second})
	serve.find(t, `(worker polls)`)
	mustSend(t, http.MethodPost, api+"/subscription/s-000001/charge/r", "", "Prefer", "respond-async")
	require.Eventually(t, func() bool { return len(s.shop.Calls()) == 1 }, time.Minute, 5*time.Millisecond)
	begun := time.Now()
	require.NoError(t, serve.cmd.Process.Signal(syscall.SIGTERM))
	serve.find(t, `(stopping)`)
	require.Eventually(t, func() bool {
		_ = serve.cmd.Process.Signal(syscall.SIGINT) // the first may come before the second signal's meaning is set
		select {
		case <-serve.exited:
			return true
		default:
			return false
		}
	}, 3*time.Second, 50*time.Millisecond)
	t.Logf("serve: ended %s after the first signal", time.Since(begun).Round(time.Millisecond))
}

// The servers that a process needs hang while it has work under way, and it is
// told to stop: it ends within the grace period all the same, and says so.
func TestAStopWithoutServers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"temporal", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			s.subscribers(t, 40)
			hung := s.hang(t, name)
			serve, api := s.api(t, "serve")
			serve.find(t, `(worker polls)`)
			s.shop.SetFaults(shoptest.Fault{Delay: 3 * time.Second})
			mustSend(t, http.MethodPost, runURL(api), `{"page_size":10}`)
			answers := sendAll(api, 10)
			require.Eventually(t, func() bool { return len(s.shop.Calls()) >= 10 }, time.Minute, 5*time.Millisecond)
			hung.freeze()

			code, took := serve.stop(t)

			t.Logf("serve, %s away: exit code %d after %s", name, code, took.Round(time.Millisecond))
			require.Less(t, took, drain+5*time.Second, "well below %s", grace)
			for range 10 {
				<-answers
			}
			if name == "postgres" { // what came of the orders could not be recorded
				require.Equal(t, 1, code, serve.text())
				return
			}
			recorded := s.db.Lines(t, "SELECT count(*)::text FROM charge WHERE status = 'charged'")
			require.Equal(t, []string{fmt.Sprint(len(s.shop.Orders()))}, recorded, "what was ordered stands in the ledger")
		})
	}
}

// hang puts a link between the site's processes and a server.
func (s *site) hang(t *testing.T, server string) *link {
	t.Helper()
	if server == "temporal" {
		l := newLink(t, binary(t, "TEST_TEMPORAL_ADDRESS"))
		s.env = append(s.env, "TEMPORAL_ADDRESS="+l.address)
		return l
	}
	u, err := url.Parse(s.db.URL)
	require.NoError(t, err)
	l := newLink(t, u.Host)
	u.Host = l.address
	s.env = append(s.env, "DATABASE_URL="+u.String())
	return l
}
