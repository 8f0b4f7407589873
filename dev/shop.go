package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"drayman/guard"
	"drayman/shop/shoptest"
)

// shopStopLimit is how long orders under way may take to be answered when the
// shop stops.
const shopStopLimit = time.Second

// shopServer is the fake shop behind HTTP.
type shopServer struct {
	Address string // host:port

	shop   *shoptest.Shop
	http   *http.Server
	failed chan error
}

// startShop listens at address. An empty dir keeps the order book in memory,
// otherwise it is in the file orders.jsonl there. Beyond loopback its
// host names are unknown, so the shop takes any, unless the options name some.
func startShop(address flagAddress, dir string, options shoptest.Options) (*shopServer, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
		options.Journal = filepath.Join(dir, "orders.jsonl")
	}
	listener, err := net.Listen("tcp", address.address)
	if err != nil {
		return nil, address.explain(err)
	}
	if at, ok := listener.Addr().(*net.TCPAddr); ok && len(options.Guard.Hosts) == 0 {
		options.Guard.AnyHost = !at.IP.IsLoopback()
	}
	shop, err := shoptest.New(options)
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("start the fake shop: %w", err)
	}
	s := &shopServer{
		Address: listener.Addr().String(),
		shop:    shop,
		http:    &http.Server{Handler: shop, ReadHeaderTimeout: 10 * time.Second},
		failed:  make(chan error, 1),
	}
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return s, nil
}

// Failed yields the error with which the shop stopped by itself.
func (s *shopServer) Failed() <-chan error { return s.failed }

// Stop ends the shop within shopStopLimit.
func (s *shopServer) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), shopStopLimit)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
	_ = s.shop.Close()
}

// shopCommand is "drayman-dev shop".
type shopCommand struct {
	Addr          string `default:"127.0.0.1:8090" placeholder:"HOST:PORT" help:"Where the shop listens (${default})."`
	Data          string `type:"path" placeholder:"DIR" help:"Keep the order book in DIR/orders.jsonl, over restarts. Without it, it is in memory."`
	APIKey        string `name:"api-key" default:"dev-key" placeholder:"KEY" help:"The x-api-key it wants (${default})."`
	APISecret     string `name:"api-secret" default:"dev-secret" placeholder:"SECRET" help:"The x-api-secret it wants (${default})."`
	BookEveryCall bool   `help:"Make a new order of every call, even if the request id is a repeated one."`

	Hosts []string `placeholder:"NAME,..." help:"Names under which it is called, beside localhost and IP addresses. Without it, beyond loopback any name will do."`
}

// Run serves until ctx ends.
func (c *shopCommand) Run(ctx context.Context, p *program) error {
	hosts, err := guard.ParseHosts(c.Hosts)
	if err != nil {
		return fmt.Errorf("--hosts: %w", err)
	}
	server, err := startShop(flagAddress{"--addr", c.Addr}, c.Data, shoptest.Options{
		Guard:           guard.Policy{Hosts: hosts},
		APIKey:          c.APIKey,
		APISecret:       c.APISecret,
		NewOrderPerCall: c.BookEveryCall,
	})
	if err != nil {
		return err
	}
	defer server.Stop()
	_, _ = fmt.Fprintf(p.stdout, "Shop    http://%s\nOrders  http://%[1]s/orders\n", reachable(server.Address))
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Failed():
		return fmt.Errorf("the fake shop failed: %w", err)
	}
}
