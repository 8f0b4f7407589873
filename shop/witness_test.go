package shop

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Given bytes on a connection: they can be the answer to an order only if they
// came after it began to leave. Otherwise nothing that comes later is read either.
func TestOnlyWhatComesLaterIsAnAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ asked, secured bool }{
		"before": {}, "before, TLS": {secured: true}, "after": {asked: true}, "after, TLS": {asked: true, secured: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			defer func() { _ = theirs.Close() }()
			conn := &line{Conn: ours}
			info := httptrace.GotConnInfo{Conn: conn}
			if c.secured {
				info.Conn = tls.Client(conn, &tls.Config{ServerName: "shop.example"}) // no byte goes over it
			}
			var w witness
			w.left.Store(true)
			w.took(info)
			var wg sync.WaitGroup
			wg.Go(func() {
				if c.asked {
					_, _ = theirs.Read(make([]byte, 1))
				}
				_, _ = theirs.Write([]byte("H"))
			})
			if c.asked {
				_, err := conn.Write([]byte("P"))
				require.NoError(t, err)
			}
			_, err := conn.Read(make([]byte, 1))
			require.NoError(t, err)
			wg.Wait()

			w.heard()

			require.Equal(t, c.asked, w.believes())
			if !c.asked {
				_, err = conn.Write([]byte("P"))
				require.Error(t, err, "the connection is still open")
			}
			require.NoError(t, conn.Close())
		})
	}
}
