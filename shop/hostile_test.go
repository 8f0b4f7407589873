package shop

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Given an answer that is large but ends, in its headers: it is refused before
// it is read whole, and the order is in doubt.
func TestHeaderBombs(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"100,000 headers":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("x-bomb: 1\r\n", 100_000) + "Content-Length: 2\r\n\r\n{}",
		"a header of 10 MB":  "HTTP/1.1 200 OK\r\nx-bomb: " + strings.Repeat("y", 10<<20) + "\r\nContent-Length: 2\r\n\r\n{}",
		"a name of 10 MB":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("y", 10<<20) + ": 1\r\nContent-Length: 2\r\n\r\n{}",
		"10,000 interim":     strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 10_000) + whole("{}"),
		"a folded header":    "HTTP/1.1 200 OK\r\nx: 1" + strings.Repeat("\r\n y", 1<<20) + "\r\n\r\n",
		"a status of 10 MB":  "HTTP/1.1 200 " + strings.Repeat("y", 10<<20) + "\r\n\r\n",
		"100 continue storm": strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10_000) + whole("{}"),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := answering(t, text)
			answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
			requireSound(t, answer)
			require.Equal(t, NotNow, answer.Outcome, answer.Detail)
			require.True(t, answer.Doubt)
			require.NotContains(t, answer.Detail, "the time for the call was over")
			require.Equal(t, int64(1), shop.requests.Load())
		})
	}
}

// Given bytes that are no answer of HTTP/1: nothing of them is taken for one.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a TLS alert":     "\x15\x03\x01\x00\x02\x02\x28",
		"HTTP/2":          "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff",
		"HTTP/2, preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/0.9":        `{"order_id":"1"}`,
		"a request":       "POST /order/x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
		"an empty line":   "\r\n" + whole("{}"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := answering(t, text)
			answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
			requireSound(t, answer)
			require.Equal(t, NotNow, answer.Outcome)
			require.Zero(t, answer.HTTPStatus)
			require.True(t, answer.Doubt)
		})
	}
}

// Given an answer that comes byte by byte: the whole call has one end, however
// alive the connection looks.
func TestDripping(t *testing.T) {
	t.Parallel()
	const timeout = 400 * time.Millisecond
	for name, c := range map[string]struct {
		at   string // once, then byte by byte
		want Outcome
	}{
		"the status line": {"", NotNow},
		"the headers":     {"HTTP/1.1 200 OK\r\nx: ", NotNow},
		"the body":        {"HTTP/1.1 201 Created\r\nContent-Length: 1000000\r\n\r\n", Charged},
		"a decline":       {"HTTP/1.1 422 X\r\nContent-Length: 1000000\r\n\r\n", Declined},
		"the chunks":      {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", Charged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shop := startRaw(t, func(c2 *rawConn) {
				c2.request()
				c2.say("%s", c.at)
				c2.drip()
			})
			begin := time.Now()
			answer := newClient(t, shop.url, timeout).PlaceOrder(t.Context(), testOrder)
			require.GreaterOrEqual(t, time.Since(begin), timeout)
			require.Less(t, time.Since(begin), longTime)
			requireSound(t, answer)
			require.Equal(t, c.want, answer.Outcome, answer.Detail)
			require.Equal(t, c.want == NotNow, answer.Doubt)
			require.Nil(t, answer.Order)
		})
	}
}

// drip writes a byte now and then until the client hangs up.
func (c *rawConn) drip() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for err == nil {
		<-tick.C
		_, err = io.WriteString(c, "1")
	}
}

// Given a body that says it unpacks to much: it is not unpacked.
func TestCompressionIsNotUndone(t *testing.T) {
	t.Parallel()
	bomb := gzipped(t, strings.Repeat(" ", 10<<20)+"{}")
	shop := answering(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(bomb), bomb))
	answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
	requireSound(t, answer)
	require.Equal(t, Charged, answer.Outcome)
	require.Nil(t, answer.Order)
	require.Contains(t, answer.Detail, "it is no JSON")
}

// Given more bytes than the answer had: the rest is not the next order's answer,
// which is in doubt since nothing was said to it.
func TestASecondAnswerIsNobodys(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"two answers":          whole("{}") + whole(`{"second":1}`),
		"another decline":      whole("{}") + "HTTP/1.1 422 X\r\nContent-Length: 0\r\n\r\n",
		"after a 204":          "HTTP/1.1 204 X\r\n\r\n" + whole("{}"),
		"longer than it said":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"after the last chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + whole("{}"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 100 {
				shop := startRaw(t, func(c *rawConn) {
					if c.request() && c.number == 1 {
						c.say("%s", text)
						c.request()
					}
				})
				client := newClient(t, shop.url, longTime)
				require.Equal(t, Charged, client.PlaceOrder(t.Context(), testOrder).Outcome)
				second := client.PlaceOrder(t.Context(), Order{RequestID: "another", CustomerID: "c", SKU: 1})
				requireSound(t, second)
				require.Equal(t, NotNow, second.Outcome, second.Detail)
				require.True(t, second.Doubt)
				client.Close()
				shop.stop()
			}
		})
	}
}

// Given a shop that hangs up at some point of the request: once all of it may
// have been read, the order is in doubt, whether it ends in order or by reset.
func TestHangingUp(t *testing.T) {
	t.Parallel()
	points := map[string]func(c *rawConn){
		"at once":                func(*rawConn) {},
		"after a byte":           func(c *rawConn) { _, _ = c.in.ReadByte() },
		"after the request line": func(c *rawConn) { _, _ = c.in.ReadString('\n') },
		"after the headers":      func(c *rawConn) { c.headers() },
		"after the body":         func(c *rawConn) { c.request() },
	}
	for name, read := range points {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reset %t", name, reset), func(t *testing.T) {
				t.Parallel()
				shop := startRaw(t, func(c *rawConn) {
					read(c)
					if reset {
						_ = c.Conn.(*net.TCPConn).SetLinger(0)
					}
				})
				answer := newClient(t, shop.url, longTime).PlaceOrder(t.Context(), testOrder)
				requireSound(t, answer)
				require.Equal(t, NotNow, answer.Outcome)
				require.Zero(t, answer.HTTPStatus)
				require.Equal(t, int64(1), shop.conns.Load(), "it was not sent again")
				if name != "at once" { // where the kernel may have taken it, or the end was seen before
					require.True(t, answer.Doubt, answer.Detail)
				}
			})
		}
	}
}

// headers reads up to the empty line.
func (c *rawConn) headers() {
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = c.in.ReadString('\n'); err != nil {
			return
		}
	}
}

// Given a server that closes an idle connection just when the next order takes
// it: the order arrives once, or it is in doubt, but never twice.
func TestClosedJustWhenItIsReused(t *testing.T) {
	t.Parallel()
	for range 50 {
		shop := startRaw(t, func(c *rawConn) {
			if c.request() {
				c.answer(201, "{}") // and closes
			}
		})
		client := newClient(t, shop.url, longTime)
		for n := int64(1); n <= 3; n++ {
			before := shop.requests.Load()
			answer := client.PlaceOrder(t.Context(), testOrder)
			requireSound(t, answer)
			require.LessOrEqual(t, shop.requests.Load(), before+1)
			if answer.Outcome != Charged {
				require.True(t, answer.Outcome == NotNow && answer.Doubt, answer.Detail)
			} else {
				require.Equal(t, before+1, shop.requests.Load())
			}
		}
		client.Close()
		shop.stop()
	}
}
