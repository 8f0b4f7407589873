package shop

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// witness knows whether the order of one call may have left this process.
//
// net/http writes a request through a buffer, headers first. It reports
// WroteHeaders when the last header is in the buffer, before it puts the body
// there. Before that report, the body, and with it customer and SKU, has not left this
// process: no order can have been made. After it, any byte may be on its way; a write
// that failed with nothing written counts as left too, since net/http does not tell.
//
// RoundTrip returns an error only after the connection's writer has ended
// (persistConn.mapRoundTripError in Go 1.26), so nothing leaves after the
// witness was asked.
//
// It also notices an answer that was there before the order. net/http closes an idle
// connection on which something comes, but not at once: the next request can take the
// connection before that, and be given what was left over.
type witness struct {
	left  atomic.Bool
	stale atomic.Bool
	line  atomic.Pointer[line]
}

// watch makes net/http report to the witness. GetConn comes at the beginning of
// each attempt; there is a second one only if nothing was written in the
// first, on a reused connection that turned out to be closed.
func (w *witness) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:              func(string) { w.left.Store(false) },
		GotConn:              w.took,
		WroteHeaders:         func() { w.left.Store(true) },
		GotFirstResponseByte: w.heard,
	})
}

func (w *witness) took(info httptrace.GotConnInfo) {
	conn := info.Conn
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if line, ok := conn.(*line); ok {
		line.state.Store(lineTaken)
		w.line.Store(line)
	}
}

// heard comes from the connection's reader, before it reads on. A connection with
// a stale answer is closed at once: the right answer may still come on it, and would be
// taken for the answer to the next order.
func (w *witness) heard() {
	if line := w.line.Load(); line != nil && line.state.Load() != lineAnswered {
		w.stale.Store(true)
		w.hangUp()
	}
}

// hangUp closes the connection, because an answer on it is not believed. An order
// that has taken it meanwhile goes over another one if nothing of it was written,
// and is in doubt otherwise.
func (w *witness) hangUp() {
	if line := w.line.Load(); line != nil {
		_ = line.Close() // what is left on it is not wanted
	}
}

// believes reports whether an answer can be one to the order.
func (w *witness) believes() bool { return w.sent() && !w.stale.Load() }

// sent reports whether the order may have left.
func (w *witness) sent() bool { return w.left.Load() }

// line is a connection that knows whether anything came on it since the order
// that took it began to leave. Only bytes that come later can be its answer.
type line struct {
	net.Conn
	state atomic.Int32
}

// The states of a line, one after the other for each order.
const (
	lineTaken int32 = iota
	lineAsked
	lineAnswered
)

func (l *line) Write(data []byte) (int, error) {
	l.state.CompareAndSwap(lineTaken, lineAsked)
	return l.Conn.Write(data)
}

func (l *line) Read(data []byte) (int, error) {
	n, err := l.Conn.Read(data)
	if n > 0 {
		l.state.CompareAndSwap(lineAsked, lineAnswered)
	}
	return n, err
}

// dialer opens lines.
type dialer struct{ net.Dialer }

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &line{Conn: conn}, nil
}
