package shop

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// witness knows whether the order of one call may have left this process.
//
// net/http writes a request through a buffer, headers first. It reports
// WroteHeaders when the last header is in the buffer, before it puts the body
// there. So as long as that was not reported, the body, and with it customer and
// SKU, is known to nobody: no order can have been made. Once it was, any byte
// may be on its way; a write that failed with nothing written counts as left
// too, since net/http does not tell.
//
// RoundTrip returns an error only after the connection's writer has ended
// (persistConn.mapRoundTripError in Go 1.26), so nothing leaves after the
// witness was asked.
type witness struct{ left atomic.Bool }

// watch makes net/http report to the witness. GetConn comes at the beginning of
// each attempt; there is a second one only where nothing was written in the
// first, on a reused connection that turned out to be closed.
func (w *witness) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { w.left.Store(false) },
		WroteHeaders: func() { w.left.Store(true) },
	})
}

// sent reports whether the order may have left.
func (w *witness) sent() bool { return w.left.Load() }
