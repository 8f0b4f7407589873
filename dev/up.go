package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"drayman/cmd"
	"drayman/shop/shoptest"
)

const (
	// devKey and devSecret are what the fake shop wants and Drayman shows it.
	devKey    = "dev-key"
	devSecret = "dev-secret"

	// drainLimit is how long the API and the worker may take to finish what is
	// under way. With the limits of the shop (1 s) and of Temporal (4 s), a
	// Ctrl-C is over within 15 seconds.
	drainLimit = 10 * time.Second
)

// upCommand is "drayman-dev up".
type upCommand struct {
	APIAddr       string     `name:"api-addr" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where the API listens (${default})."`
	TemporalAddr  string     `name:"temporal-addr" default:"127.0.0.1:7233" placeholder:"HOST:PORT" help:"Where the Temporal server listens, on loopback (${default})."`
	UIAddr        string     `name:"ui-addr" default:"127.0.0.1:8233" placeholder:"HOST:PORT" help:"Where the Temporal UI listens, on loopback; \"\" runs none (${default})."`
	ShopAddr      string     `name:"shop-addr" default:"127.0.0.1:8090" placeholder:"HOST:PORT" help:"Where the fake shop listens (${default})."`
	Data          string     `type:"path" default:"./var" placeholder:"DIR" help:"Keep all state in DIR, over restarts (./var)."`
	Subscriptions int        `default:"0" placeholder:"N" help:"Add sample subscriptions until there are N (${default})."`
	LogLevel      slog.Level `default:"ERROR" placeholder:"LEVEL" help:"Log the Temporal server from this level up: DEBUG, INFO, WARN or ERROR (${default}). The API and the worker have LOG_LEVEL."`
}

// Run starts every part, waits for Ctrl-C or the failure of one, and stops them
// in reverse.
func (c *upCommand) Run(ctx context.Context, p *program) error {
	if err := c.requireFree(); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(p.stdout, "Starting Temporal, the fake shop, the API and the worker. State is kept in %s\n", c.Data)
	temporal, err := startTemporal(ctx, temporalOptions{
		Addr:   flagAddress{"--temporal-addr", c.TemporalAddr},
		UIAddr: flagAddress{"--ui-addr", c.UIAddr},
		Dir:    c.Data,
		Log:    p.logger(c.LogLevel),
	})
	if err != nil {
		return orStopped(ctx, err)
	}
	defer temporal.Stop()
	shop, err := startShop(flagAddress{"--shop-addr", c.ShopAddr}, c.Data,
		shoptest.Options{APIKey: devKey, APISecret: devSecret})
	if err != nil {
		return err
	}
	defer shop.Stop()
	getenv := c.environment(p.getenv, temporal.Address, shop.Address)
	if err := c.prepareDatabase(ctx, p, getenv); err != nil {
		return orStopped(ctx, err)
	}
	api := startDrayman(ctx, p, getenv, "serve", "--http-addr", c.APIAddr)
	defer api.stop()
	announcing, cancel := context.WithCancel(ctx)
	defer cancel()
	go c.announce(announcing, p.stdout, temporal, shop)
	select {
	case <-ctx.Done():
		return nil
	case <-api.ended:
		return orStopped(ctx, api.err())
	case err := <-shop.Failed():
		return fmt.Errorf("the fake shop failed: %w", err)
	case err := <-temporal.Failed():
		return fmt.Errorf("the Temporal server failed: %w", err)
	}
}

// requireFree checks all addresses before anything starts.
func (c *upCommand) requireFree() error {
	temporal := flagAddress{"--temporal-addr", c.TemporalAddr}
	ui := flagAddress{"--ui-addr", c.UIAddr}
	for _, address := range []flagAddress{temporal, ui} {
		if address.address == "" {
			continue
		}
		if _, _, err := loopbackAddress(address); err != nil {
			return err
		}
	}
	return requireFree(flagAddress{"--api-addr", c.APIAddr}, temporal, ui, flagAddress{"--shop-addr", c.ShopAddr})
}

func (c *upCommand) database() string { return filepath.Join(c.Data, "drayman.db") }

// environment is the user's, overridden by the parts that run here. What could lead
// elsewhere is removed: the twins of these variables that name
// files, and every other setting of Temporal's client, which may hold the
// address, the certificate and the key of a cluster in use.
func (c *upCommand) environment(getenv func(string) string, temporal, shop string) func(string) string {
	values := map[string]string{
		"DATABASE_URL":         "sqlite:" + c.database(),
		"DATABASE_URL_FILE":    "",
		"TEMPORAL_ADDRESS":     temporal,
		"TEMPORAL_NAMESPACE":   temporalNamespace,
		"TEMPORAL_CONFIG_FILE": os.DevNull,
		"SHOP_URL":             "http://" + shop,
		"SHOP_API_KEY":         devKey,
		"SHOP_API_KEY_FILE":    "",
		"SHOP_API_SECRET":      devSecret,
		"SHOP_API_SECRET_FILE": "",
	}
	return func(name string) string {
		if value, ok := values[name]; ok {
			return value
		}
		if strings.HasPrefix(name, "TEMPORAL_") {
			return ""
		}
		return getenv(name)
	}
}

// prepareDatabase brings the tables up to date and puts samples into them.
func (c *upCommand) prepareDatabase(ctx context.Context, p *program, getenv func(string) string) error {
	migration := startDrayman(ctx, p, getenv, "migrate", "up")
	<-migration.ended
	if err := migration.err(); err != nil {
		return err
	}
	if err := seed(ctx, c.database(), c.Subscriptions); err != nil {
		return fmt.Errorf("put samples into the database: %w", err)
	}
	return nil
}

// announce says where everything is, as soon as the API is ready.
func (c *upCommand) announce(ctx context.Context, stdout io.Writer, temporal *temporalServer, shop *shopServer) {
	api := "http://" + reachable(c.APIAddr)
	if err := retry(ctx, func() error { return answers(ctx, api+"/readyz") }); err != nil {
		return
	}
	var b strings.Builder
	b.WriteString("\nDrayman is ready. Ctrl-C stops it.\n\n")
	fmt.Fprintf(&b, "  API          %s\n", api)
	fmt.Fprintf(&b, "  API docs     %s/docs\n", api)
	if temporal.UIAddress != "" {
		fmt.Fprintf(&b, "  Temporal UI  http://%s\n", temporal.UIAddress)
	}
	fmt.Fprintf(&b, "  Shop orders  http://%s/orders\n\n", reachable(shop.Address))
	fmt.Fprintf(&b, "Subscribe somebody to a club:\n\n")
	fmt.Fprintf(&b, "  curl -X POST %s/club/1/subscribe/ -H 'Content-Type: application/json' -d '{\"customer_id\":\"alice\"}'\n\n", api)
	_, _ = io.WriteString(stdout, b.String())
}

// draymanRun is a command of Drayman itself that runs in this process.
type draymanRun struct {
	name  string
	end   context.CancelFunc
	ended chan struct{} // closed when it has returned
	code  int           // valid from then on
}

// startDrayman runs Drayman with the arguments. When ctx ends, it drains.
func startDrayman(ctx context.Context, p *program, getenv func(string) string, args ...string) *draymanRun {
	ctx, end := context.WithCancel(ctx)
	r := &draymanRun{name: "drayman " + args[0], end: end, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.code = cmd.Run(ctx, args, getenv, p.stdout, p.stderr)
	}()
	return r
}

// err says how it ended. What went wrong, it has written itself.
func (r *draymanRun) err() error {
	r.end()
	if r.code == 0 {
		return nil
	}
	return fmt.Errorf("%s failed with exit code %d", r.name, r.code)
}

// stop has it drain, for drainLimit at most.
func (r *draymanRun) stop() {
	r.end()
	select {
	case <-r.ended:
	case <-time.After(drainLimit):
	}
}
