package cmd_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// link is a TCP proxy that can be frozen: then its connections stay open and
// nothing comes through any more, as behind a machine that has lost its power.
type link struct {
	address string
	frozen  chan struct{}
	freeze  func()

	mu     sync.Mutex
	closed bool
	ends   []net.Conn
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{address: listener.Addr().String(), frozen: make(chan struct{})}
	l.freeze = sync.OnceFunc(func() { close(l.frozen) })
	t.Cleanup(func() {
		_ = listener.Close() // the test is over
		l.close()
	})
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.join(near, to)
		}
	}()
	return l
}

func (l *link) join(near net.Conn, to string) {
	far, err := net.Dial("tcp", to) //nolint:noctx // ends with the other side
	if err != nil {
		_ = near.Close()
		return
	}
	if l.keep(near, far) {
		go l.copy(near, far)
		l.copy(far, near)
	}
}

// keep notes the connections to be closed with the test; it returns false, and
// closes them, where that is over.
func (l *link) keep(ends ...net.Conn) bool {
	l.mu.Lock()
	l.ends = append(l.ends, ends...)
	closed := l.closed
	l.mu.Unlock()
	if closed {
		l.close()
	}
	return !closed
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, end := range l.ends {
		_ = end.Close()
	}
}

// copy ends with either side; once frozen it swallows what comes.
func (l *link) copy(dst, src net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := src.Read(buffer)
		select {
		case <-l.frozen:
			_, _ = io.Copy(io.Discard, src) // until the other side gives up
			return
		default:
		}
		if n > 0 {
			if _, err := dst.Write(buffer[:n]); err != nil {
				_ = src.Close()
				return
			}
		}
		if err != nil {
			_ = dst.Close()
			return
		}
	}
}
