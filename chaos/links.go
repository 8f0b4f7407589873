package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// The links that drayman's processes use: what stands between two programs.
const (
	linkShop           = "shop"
	linkAPIDatabase    = "api-database"
	linkWorkerDatabase = "worker-database"
	linkTemporal       = "temporal"
)

// links are what stands between: one proxy each, by name.
type links map[string]*link

// link is a port of ours that leads to an upstream address.
type link struct {
	server *toxiproxy.ApiServer
	*toxiproxy.Proxy
}

// newLinks opens a port for each upstream address.
func newLinks(upstreams map[string]string) (links, error) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics have a logger of their own
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	all := links{}
	for name, upstream := range upstreams {
		l := &link{server, toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)}
		if err := l.Start(); err != nil {
			return all, fmt.Errorf("opening the link %s: %w", name, err)
		}
		all[name] = l
	}
	return all, nil
}

// close does not wait, see renew.
func (l links) close() {
	for _, link := range l {
		go link.Proxy.Stop()
	}
}

// renew opens the port again, without toxics. It does not wait for the old proxy,
// which waits for readers that may be gone.
func (l *link) renew(ctx context.Context) error {
	old := l.Proxy
	go old.Stop()
	l.Proxy = toxiproxy.NewProxy(l.server, old.Name, old.Listen, old.Upstream)
	return l.open(ctx)
}

// open listens, also when the campaign is over. Whoever takes the port for a
// connection of its own gives it back in a moment.
func (l *link) open(ctx context.Context) error {
	return until(context.WithoutCancel(ctx), 10*time.Second, func(context.Context) error { return l.Start() })
}

// removeLimit is how long a toxic may take to go. It waits for readers that may
// never read.
const removeLimit = 2 * time.Second

// apply poisons the link for a while. One at a time.
func (l *link) apply(ctx context.Context, number int, t toxic) error {
	if t.Type == "down" {
		l.Stop()
		wait(ctx, t.For)
		return l.open(ctx)
	}
	name := fmt.Sprintf("toxic-%d", number)
	data, err := json.Marshal(map[string]any{"name": name, "type": t.Type, "stream": t.Stream, "attributes": t.Attributes})
	if err != nil {
		return err
	}
	if _, err := l.Toxics.AddToxicJson(bytes.NewReader(data)); err != nil {
		return fmt.Errorf("toxic %+v: %w", t, err)
	}
	wait(ctx, t.For)
	removed, toxics := make(chan struct{}), l.Toxics
	go func() {
		defer close(removed)
		_ = toxics.RemoveToxic(context.WithoutCancel(ctx), name) // it was added
	}()
	select {
	case <-removed:
		return nil
	case <-time.After(removeLimit):
		return l.renew(ctx)
	}
}
