package shop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The secret has characters that JSON, URLs, HTML and Go each escape.
const (
	testKey    = "https://git.example/drayman"
	testSecret = `s3cret <"/\&+%> 9`
)

const longTime = 20 * time.Second // never waited for

var testOrder = Order{RequestID: "2026-11-sub-1", CustomerID: "customer-1", SKU: 7}

func newClient(t testing.TB, url string, timeout time.Duration) *Client {
	t.Helper()
	client, err := New(Config{URL: url, APIKey: testKey, APISecret: testSecret, Timeout: timeout})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// rawShop is a TCP server whose every byte the test decides.
type rawShop struct {
	url      string
	conns    atomic.Int64
	requests atomic.Int64
	stop     func() // ends it before the test does
}

// startRaw runs handle for each connection, and ends when all have returned;
// the connection is closed afterwards.
func startRaw(t testing.TB, handle func(c *rawConn)) *rawShop {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	shop := &rawShop{url: "http://" + listener.Addr().String()}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			shop.conns.Add(1)
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				defer func() { _ = conn.Close() }()
				handle(&rawConn{Conn: conn, in: bufio.NewReader(conn), shop: shop, number: int(shop.conns.Load())})
			})
		}
	})
	shop.stop = sync.OnceFunc(func() {
		_ = listener.Close()
		cancel()
		wg.Wait()
	})
	t.Cleanup(shop.stop)
	return shop
}

type rawConn struct {
	net.Conn
	in     *bufio.Reader
	shop   *rawShop
	number int    // 1 for the first connection
	path   string // of the last request
}

// request reads one whole request; false at the end of the connection.
func (c *rawConn) request() bool {
	request, err := http.ReadRequest(c.in)
	if err != nil {
		return false
	}
	c.path = request.URL.Path
	_, err = io.Copy(io.Discard, request.Body)
	c.shop.requests.Add(1)
	return err == nil
}

func (c *rawConn) say(format string, args ...any) { _, _ = fmt.Fprintf(c, format, args...) }

// answer writes a whole answer with a body of known length.
func (c *rawConn) answer(status int, body string) {
	c.say("HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// untilClosed waits until the client has closed its end.
func (c *rawConn) untilClosed() { _, _ = io.Copy(io.Discard, c.in) }

// answering is a raw shop that reads a request and answers the given bytes, once a
// connection.
func answering(t testing.TB, text string) *rawShop {
	return startRaw(t, func(c *rawConn) {
		if c.request() {
			c.say("%s", text)
		}
	})
}

// overPipe places an order with a shop that reads a request and answers the
// given bytes, in memory; it also tells how many requests were read. The client
// is not to be used by others meanwhile.
func (c *Client) overPipe(t testing.TB, order Order, text string) (answer Answer, requests int) {
	var wg sync.WaitGroup
	var shop rawShop
	c.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		wg.Go(func() {
			defer func() { _ = theirs.Close() }()
			conn := &rawConn{Conn: theirs, in: bufio.NewReader(theirs), shop: &shop}
			if conn.request() {
				conn.say("%s", text)
			}
		})
		return ours, nil
	}
	answer = c.PlaceOrder(t.Context(), order)
	c.Close()
	wg.Wait()
	return answer, int(shop.requests.Load())
}

// requireSound checks what holds for every answer.
func requireSound(t testing.TB, answer Answer) {
	t.Helper()
	require.Contains(t, []Outcome{Charged, Declined, NotNow, Refused}, answer.Outcome)
	require.NotEmpty(t, answer.Detail)
	require.LessOrEqual(t, len(answer.Detail), 500)
	require.True(t, utf8.ValidString(answer.Detail), answer.Detail)
	require.False(t, strings.ContainsFunc(answer.Detail, unicode.IsControl), answer.Detail)
	require.GreaterOrEqual(t, answer.RetryAfter, time.Duration(0))
	require.LessOrEqual(t, answer.RetryAfter, time.Hour)
	final := answer.Outcome == Charged || answer.Outcome == Declined
	if final {
		require.False(t, answer.Doubt)
		require.Zero(t, answer.RetryAfter)
	} else {
		require.Nil(t, answer.Order)
	}
	if answer.Order != nil {
		require.True(t, json.Valid(answer.Order))
		require.True(t, utf8.Valid(answer.Order))
		require.LessOrEqual(t, len(answer.Order), 64<<10)
	}
	requireNoCredential(t, answer)
}

// requireNoCredential looks into all that can be read from an answer: its
// fields as they stand, printed, as JSON, and the texts inside the order.
func requireNoCredential(t testing.TB, answer Answer) {
	t.Helper()
	encoded, err := json.Marshal(answer)
	require.NoError(t, err)
	texts := []string{answer.Detail, string(answer.Order), string(encoded), fmt.Sprintf("%v %+v %#v", answer, answer, answer)}
	if answer.Order != nil {
		value, err := decode(answer.Order)
		require.NoError(t, err)
		texts = append(texts, fmt.Sprint(value))
	}
	for _, text := range texts {
		for _, credential := range []string{testKey, testSecret} {
			require.NotContains(t, text, credential)
			inJSON, err := json.Marshal(credential)
			require.NoError(t, err)
			require.NotContains(t, text, strings.Trim(string(inJSON), `"`))
		}
	}
}
