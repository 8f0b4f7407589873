package shop

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// dialFunc is http.Transport.DialContext.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func TestNoConnectionNoDoubt(t *testing.T) {
	t.Parallel()
	deaf := startRaw(t, func(*rawConn) {}) // accepts and closes: no TLS handshake
	mute := startRaw(t, (*rawConn).untilClosed)
	// The near end of a connection has a port at which nobody listens, and which
	// nobody else gets meanwhile.
	taken, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(mute.url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	unknown := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "shop.example", IsNotFound: true}
	}
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	cases := map[string]struct {
		url     string
		dial    dialFunc
		timeout time.Duration
		detail  string
	}{
		"refused":             {"http://" + taken.LocalAddr().String(), nil, longTime, "refused"},
		"unknown host":        {"http://shop.example", unknown, longTime, "no such host"},
		"no way through":      {"http://shop.example", hang, 20 * time.Millisecond, "time for the call was over"},
		"no TLS":              {strings.Replace(deaf.url, "http", "https", 1), nil, longTime, "No order was sent"},
		"handshake unending":  {strings.Replace(mute.url, "http", "https", 1), nil, 20 * time.Millisecond, "No order was sent"},
		"certificate unknown": {untrusted.URL, nil, longTime, "certificate"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, c.url, c.timeout)
			if c.dial != nil {
				client.transport.DialContext = c.dial
			}
			answer := client.PlaceOrder(t.Context(), testOrder)
			requireSound(t, answer)
			require.Equal(t, NotNow, answer.Outcome)
			require.Zero(t, answer.HTTPStatus)
			require.False(t, answer.Doubt, answer.Detail)
			require.Contains(t, answer.Detail, c.detail)
		})
	}
}

func TestNoAnswerMeansDoubt(t *testing.T) {
	t.Parallel()
	cases := map[string]func(c *rawConn){
		"closed":             func(c *rawConn) { c.request() },
		"reset":              func(c *rawConn) { c.request(); _ = c.Conn.(*net.TCPConn).SetLinger(0) },
		"half closed":        func(c *rawConn) { c.request(); _ = c.Conn.(*net.TCPConn).CloseWrite(); c.untilClosed() },
		"cut in status line": func(c *rawConn) { c.request(); c.say("HTTP/1.1 20") },
		"cut in headers":     func(c *rawConn) { c.request(); c.say("HTTP/1.1 200 OK\r\nContent-Le") },
		"no HTTP":            func(c *rawConn) { c.request(); c.say("220 mail.example ESMTP\r\n\r\n") },
		"no number":          func(c *rawConn) { c.request(); c.say("HTTP/1.1 OK 200\r\n\r\n") },
		"negative status":    func(c *rawConn) { c.request(); c.say("HTTP/1.1 -20 OK\r\n\r\n") },
		"four digits":        func(c *rawConn) { c.request(); c.say("HTTP/1.1 2000 OK\r\n\r\n") },
		"broken header":      func(c *rawConn) { c.request(); c.say("HTTP/1.1 200 OK\r\n: x\r\n\r\n") },
		"two lengths": func(c *rawConn) {
			c.request()
			c.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
		},
		"only 1xx, then none": func(c *rawConn) { c.request(); c.say("HTTP/1.1 103 X\r\n\r\n") },
		"1xx without end":     flood("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ""),
		"headers without end": flood("x: "+strings.Repeat("y", 1000)+"\r\n", "HTTP/1.1 200 OK\r\n"),
		"one endless header":  flood(strings.Repeat("y", 1000), "HTTP/1.1 200 OK\r\nx: "),
		"endless status line": flood(strings.Repeat("y", 1000), "HTTP/1.1 200 "),
	}
	for name, handle := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := startRaw(t, handle)
			answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
			requireSound(t, answer)
			require.Equal(t, NotNow, answer.Outcome)
			require.Zero(t, answer.HTTPStatus)
			require.True(t, answer.Doubt, answer.Detail)
			require.Contains(t, answer.Detail, "may have reached the shop")
			require.NotContains(t, answer.Detail, "the time for the call was over")
			require.Equal(t, int64(1), shop.requests.Load())
		})
	}
}

// flood reads a request, says something, and repeats something until the client
// hangs up.
func flood(repeat, first string) func(c *rawConn) {
	return func(c *rawConn) {
		c.request()
		_, err := io.WriteString(c, first)
		for err == nil {
			_, err = io.WriteString(c, repeat)
		}
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	shop := shoptest.Start(t, shoptest.Options{})
	shop.SetFaults(
		shoptest.Fault{RequestID: "late", Delay: time.Hour},
		shoptest.Fault{RequestID: "never", Delay: time.Hour, Cut: shoptest.CutBefore},
	)
	client := newClient(t, shop.URL, 500*time.Millisecond)
	for _, id := range []string{"late", "never"} {
		answer := client.PlaceOrder(t.Context(), Order{RequestID: id, CustomerID: id, SKU: 1})
		requireSound(t, answer)
		require.Equal(t, NotNow, answer.Outcome)
		require.True(t, answer.Doubt)
		require.Contains(t, answer.Detail, "at most 500ms")
	}
	require.Len(t, shop.OrdersFor("late"), 1, "booked, and we do not know")
	require.Empty(t, shop.OrdersFor("never"))
}

func TestCuts(t *testing.T) {
	t.Parallel()
	shop := shoptest.Start(t, shoptest.Options{})
	shop.SetFaults(
		shoptest.Fault{CustomerIDs: []string{"before"}, Cut: shoptest.CutBefore, Times: 1},
		shoptest.Fault{CustomerIDs: []string{"after"}, Cut: shoptest.CutAfter, Times: 1},
	)
	client := newClient(t, shop.URL, longTime)
	for customer, booked := range map[string]int{"before": 0, "after": 1} {
		order := Order{RequestID: "r-" + customer, CustomerID: customer, SKU: 1}
		answer := client.PlaceOrder(t.Context(), order)
		require.Equal(t, NotNow, answer.Outcome)
		require.True(t, answer.Doubt)
		require.Contains(t, answer.Detail, "closed the connection")
		require.Len(t, shop.OrdersFor(customer), booked)

		require.Equal(t, Charged, client.PlaceOrder(t.Context(), order).Outcome, "the same again")
		require.Len(t, shop.OrdersFor(customer), 1)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	shop := startRaw(t, func(c *rawConn) {
		if c.request() {
			cancel()
		}
		c.untilClosed()
	})
	client := newClient(t, shop.url, longTime)

	under := client.PlaceOrder(ctx, testOrder)
	before := client.PlaceOrder(ctx, testOrder)

	require.Equal(t, NotNow, under.Outcome)
	require.True(t, under.Doubt)
	require.Equal(t, "The order may have reached the shop, but no answer came: the call was cancelled.", under.Detail)
	require.Equal(t, NotNow, before.Outcome)
	require.False(t, before.Doubt)
	require.Equal(t, "No order was sent: the call was cancelled.", before.Detail)
	require.Equal(t, int64(1), shop.requests.Load())
}

// Given a connection that was used, the shop takes the next request and closes
// without an answer: the moment at which a client that thinks it safe would
// send it again.
func TestARequestThatLeftIsNotRepeated(t *testing.T) {
	t.Parallel()
	ends := map[string]func(c *rawConn){
		"closed": func(*rawConn) {},
		"reset":  func(c *rawConn) { _ = c.Conn.(*net.TCPConn).SetLinger(0) },
		"cut":    func(c *rawConn) { c.say("HTTP/1.1 2") },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := startRaw(t, func(c *rawConn) {
				c.request()
				c.answer(201, "{}")
				c.request()
				end(c)
			})
			client := newClient(t, shop.url, longTime)
			client.transport.MaxConnsPerHost = 1 // the second call waits for the first one's connection
			require.Equal(t, Charged, client.PlaceOrder(t.Context(), testOrder).Outcome)
			answer := client.PlaceOrder(t.Context(), testOrder)
			require.Equal(t, NotNow, answer.Outcome)
			require.True(t, answer.Doubt)
			require.Equal(t, int64(2), shop.requests.Load())
			require.Equal(t, int64(1), shop.conns.Load())
		})
	}
}

func TestAnIdleConnectionThatTheShopClosed(t *testing.T) {
	t.Parallel()
	shop := startRaw(t, func(c *rawConn) {
		c.request()
		c.answer(201, "{}")
	})
	client := newClient(t, shop.url, longTime)
	closed := make(chan struct{}, 2)
	client.transport.DialContext = dialing(func(conn net.Conn) net.Conn { return &watched{Conn: conn, closed: closed} })

	require.Equal(t, Charged, client.PlaceOrder(t.Context(), testOrder).Outcome)
	<-closed // net/http has seen the end
	require.Equal(t, Charged, client.PlaceOrder(t.Context(), testOrder).Outcome)

	require.Equal(t, int64(2), shop.conns.Load())
	require.Equal(t, int64(2), shop.requests.Load())
}

// Given a reused connection on which writing fails: with no byte written the
// order goes over another connection; with one, it does not.
func TestWritesThatFail(t *testing.T) {
	t.Parallel()
	for name, written := range map[string]int{"nothing written": 0, "one byte": 1, "almost all": 200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := startRaw(t, func(c *rawConn) {
				for c.request() {
					c.answer(201, "{}")
				}
			})
			client := newClient(t, shop.url, longTime)
			fail := &atomic.Bool{}
			var once sync.Once
			client.transport.DialContext = dialing(func(conn net.Conn) net.Conn {
				once.Do(func() { conn = &failing{Conn: conn, fail: fail, written: written} })
				return conn
			})
			client.transport.MaxConnsPerHost = 1 // the second call waits for the first one's connection
			require.Equal(t, Charged, client.PlaceOrder(t.Context(), testOrder).Outcome)
			fail.Store(true)

			answer := client.PlaceOrder(t.Context(), testOrder)

			requireSound(t, answer)
			if written == 0 {
				require.Equal(t, Charged, answer.Outcome, answer.Detail)
				require.Equal(t, int64(2), shop.requests.Load())
				return
			}
			require.Equal(t, NotNow, answer.Outcome)
			require.True(t, answer.Doubt, answer.Detail)
			require.Equal(t, int64(1), shop.requests.Load())
		})
	}
}

// Given an answer that stands on the connection before the order was written:
// whosever it is, it is not believed.
func TestAnAnswerBeforeTheOrder(t *testing.T) {
	t.Parallel()
	client, err := New(Config{
		URL: "http://shop.example", APIKey: "key", Timeout: longTime,
		APISecret: Secret(strings.Repeat("s", 4096)), // more than one write: the first holds headers only
	})
	require.NoError(t, err)
	for status, want := range map[string]Outcome{"201": NotNow, "422": NotNow, "503": NotNow, "401": Refused} {
		ours, theirs := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { // reads one byte only, so that the first write hangs
			_, _ = theirs.Read(make([]byte, 1))
			_, _ = io.WriteString(theirs, "HTTP/1.1 "+status+" X\r\nContent-Length: 2\r\n\r\n{}")
		})
		client.transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
		answer := client.PlaceOrder(t.Context(), testOrder)
		wg.Wait()
		require.NoError(t, theirs.Close())

		requireSound(t, answer)
		require.Equal(t, want, answer.Outcome)
		require.True(t, answer.Doubt)
		require.Contains(t, answer.Detail, "before the order was sent")
	}
}

// dialing dials as usual and wraps the connection.
func dialing(wrap func(net.Conn) net.Conn) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
}

// watched tells when the client closes its end.
type watched struct {
	net.Conn
	closed chan<- struct{}
}

func (w *watched) Close() error {
	err := w.Conn.Close()
	w.closed <- struct{}{}
	return err
}

// failing fails to write, once told to, after some bytes.
type failing struct {
	net.Conn
	fail    *atomic.Bool
	written int
}

func (f *failing) Write(data []byte) (int, error) {
	if !f.fail.Load() {
		return f.Conn.Write(data)
	}
	n, _ := f.Conn.Write(data[:f.written])
	return n, errors.New("broken pipe")
}
