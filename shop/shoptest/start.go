package shoptest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"
)

// Server is a Shop that listens on a port of its own.
type Server struct {
	*Shop
	// URL is the base for clients, such as "http://127.0.0.1:41234".
	URL string

	http *http.Server
	done chan struct{} // closed when the listener is
}

// Start runs a shop on a free loopback port until the test ends. It is not built
// on httptest, which would bring its flags into the program that imports this
// package.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	shop, err := New(options)
	if err != nil {
		t.Fatalf("start the fake shop: %v", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start the fake shop: %v", err)
	}
	s := &Server{
		Shop: shop,
		URL:  "http://" + listener.Addr().String(),
		http: &http.Server{
			Handler: shop, ReadHeaderTimeout: time.Minute,
			ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
				return context.WithValue(ctx, connKey{}, conn)
			},
		},
		done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(listener) // ends with ErrServerClosed
	}()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the fake shop: %v", err)
		}
	})
	return s
}

// Close stops listening, cuts the connections and closes the shop, as if its
// machine died. It may be called again.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return errors.Join(err, s.Shop.Close())
}
