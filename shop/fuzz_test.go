package shop

import (
	"io"
	"log"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hostileAnswers are bytes that a shop, or what stands in its place, may say.
func hostileAnswers() []string {
	return []string{
		"", "\r\n", "HTTP/1.1 200 OK\r\n\r\n", whole(`{"id":1}`), whole(testSecret), whole(`{"a":"` + testKey + `"}`),
		"HTTP/1.1 302 Found\r\nLocation: /" + testSecret + "\r\n\r\n",
		"HTTP/1.1 503 X\r\nRetry-After: 99999999999999999999\r\nContent-Length: 3\r\n\r\n\xff\xfe\x00",
		"HTTP/1.1 429 X\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 000 X\r\n\r\n", "HTTP/1.1 999 X\r\n\r\n",
		whole(`{"a":"\u0073\u0033cret \u003c\"\/\\\u0026+%\u003e 9"}`), whole(`"\ud800\u0000"`), whole("[[[[1e999999]]]]"),
		"HTTP/1.1 422 X\r\nContent-Length: 16\r\n\r\n{\"error\":\"card\"}", "HTTP/1.1 409 X\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 401 X\r\n\r\nno",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + whole("{}"), whole("{}") + whole(`{"second":1}`), whole("{}") + "HTTP/1.1 422 X\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\n{}", "HTTP/1.1 +20 X\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 2000\r\n\r\n", "{\"id\":1}", "HTTP/2.0 200 OK\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x15\x03\x01\x00\x02\x02\x28",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", "HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n{}",
	}
}

// FuzzAnswer feeds raw bytes as the shop's answer. Whatever they are, the answer
// is sound, has no credential, and the request left once.
func FuzzAnswer(f *testing.F) {
	log.SetOutput(io.Discard) // net/http reports bytes that nobody asked for
	for _, seed := range hostileAnswers() {
		f.Add([]byte(seed))
	}
	client := newClient(f, "http://shop.example", longTime)
	f.Fuzz(func(t *testing.T, text []byte) {
		answer, requests := client.overPipe(t, testOrder, string(text))
		requireSound(t, answer)
		require.NotContains(t, answer.Detail, "the time for the call was over", "the shop hung up, so nothing is waited for")
		require.Equal(t, 1, requests)
	})
}

// How a raw shop ends a connection.
const (
	endClosed = iota
	endReset
	endHalfClosed
	endOpen // until the client hangs up
	ends
)

// FuzzRawAnswer lets a shop on a real socket say raw bytes, before or after it
// has read the order, and end the connection in any way. No order is charged or
// declined without a status line that says so, whatever was read is in doubt
// unless a status line says that it was not processed, and the next order, which
// the shop takes and says nothing to, is in doubt too.
func FuzzRawAnswer(f *testing.F) {
	log.SetOutput(io.Discard) // net/http reports bytes that nobody asked for
	for i, seed := range hostileAnswers() {
		for end := range ends {
			f.Add([]byte(seed), uint8(end), i%3 == 0)
		}
	}
	client := newClient(f, "http://shop.example", longTime)
	f.Fuzz(func(t *testing.T, text []byte, end uint8, early bool) {
		client.timeout = longTime
		if end %= ends; end == endOpen {
			client.timeout = 50 * time.Millisecond
		}
		var received atomic.Bool // the whole first order
		shop := startRaw(t, func(c *rawConn) {
			if c.number == 1 && c.hostile(string(text), early) {
				received.Store(c.path == "/order/"+testOrder.RequestID)
				c.end(end)
			}
			c.request() // of the next order
		})
		client.orders = shop.url + "/order/"
		begin := time.Now()
		first := client.PlaceOrder(t.Context(), testOrder)
		second := client.PlaceOrder(t.Context(), Order{RequestID: "second", CustomerID: "c", SKU: 1})
		took := time.Since(begin)
		client.Close()
		shop.stop()
		requireSound(t, first)
		requireSound(t, second)
		require.Less(t, took, 2*client.timeout+10*time.Second)
		requireSaid(t, first, finalStatus(string(text)), received.Load())
		if first.Doubt || first.HTTPStatus != 0 { // else the second order may have taken the connection that came too late
			require.Equal(t, NotNow, second.Outcome, "nothing was said to it")
		}
	})
}

// hostile says the text before or after it reads the order; it reports whether
// the order came whole.
func (c *rawConn) hostile(text string, early bool) bool {
	if early {
		c.say("%s", text)
	}
	came := c.request()
	if !early {
		c.say("%s", text)
	}
	return came
}

func (c *rawConn) end(how uint8) {
	conn := c.Conn.(*net.TCPConn)
	switch how {
	case endClosed:
		_ = conn.Close()
	case endReset:
		_ = conn.SetLinger(0)
		_ = conn.Close()
	case endHalfClosed:
		_ = conn.CloseWrite()
	}
}

// requireSaid holds an answer against the status line that was sent, 0 for none.
func requireSaid(t *testing.T, answer Answer, status int, received bool) {
	t.Helper()
	if answer.HTTPStatus != 0 {
		require.Equal(t, status, answer.HTTPStatus)
	}
	processed := true // as far as the status line tells
	switch status {
	case 301, 307, 308, 401, 403, 408, 425, 429:
		processed = false
	}
	switch answer.Outcome {
	case Charged:
		require.Equal(t, 2, answer.HTTPStatus/100)
	case Declined:
		require.Equal(t, 4, answer.HTTPStatus/100)
		require.True(t, processed && status != 409)
	case NotNow, Refused:
		require.True(t, answer.Doubt || !received || !processed && answer.HTTPStatus != 0, "%d %s", status, answer.Detail)
	}
}

var statusLine = regexp.MustCompile(`^HTTP/[0-9]\.[0-9] +([0-9+-][0-9]{2})(?: .*)?$`)

// finalStatus reads the first status that is no interim one (RFC 9110 §15.2) in
// a reader's own, lenient way: no status is overlooked.
func finalStatus(text string) int {
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		found := statusLine.FindStringSubmatch(strings.TrimRight(line, "\r"))
		if found == nil {
			return 0
		}
		status, err := strconv.Atoi(found[1])
		if err != nil || status < 100 || status > 199 || status == 101 {
			return status
		}
		for header := "x"; header != "" && text != ""; header = strings.TrimRight(line, "\r") {
			line, text, _ = strings.Cut(text, "\n")
		}
	}
	return 0
}
