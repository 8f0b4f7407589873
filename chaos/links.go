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

// links are the proxies, by name.
type links map[string]*toxiproxy.Proxy

// newLinks opens a port for each upstream address.
func newLinks(upstreams map[string]string) (links, error) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics have a logger of their own
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := links{}
	for name, upstream := range upstreams {
		proxy := toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)
		if err := proxy.Start(); err != nil {
			return l, fmt.Errorf("opening the link %s: %w", name, err)
		}
		l[name] = proxy
	}
	return l, nil
}

func (l links) close() {
	for _, proxy := range l {
		proxy.Stop()
	}
}

// apply poisons a link for a while.
func (l links) apply(ctx context.Context, number int, t toxic) error {
	proxy := l[t.Link]
	if t.Type == "down" {
		proxy.Stop()
		wait(ctx, t.For)
		return proxy.Start()
	}
	name := fmt.Sprintf("toxic-%d", number)
	data, err := json.Marshal(map[string]any{"name": name, "type": t.Type, "stream": t.Stream, "attributes": t.Attributes})
	if err != nil {
		return err
	}
	if _, err := proxy.Toxics.AddToxicJson(bytes.NewReader(data)); err != nil {
		return fmt.Errorf("toxic %+v: %w", t, err)
	}
	wait(ctx, t.For)
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		_ = proxy.Toxics.RemoveToxic(context.WithoutCancel(ctx), name) // it was added
	}()
	select {
	case <-removed:
	case <-time.After(5 * time.Second): // a reader that does not read holds it up; cut it off
		proxy.Stop()
		<-removed
		return proxy.Start()
	}
	return nil
}
