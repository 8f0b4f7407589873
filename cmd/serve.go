package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"drayman/activities"
	"drayman/api"
	"drayman/billing"
	"drayman/models"
	"drayman/shop"
	"drayman/worker"
	"drayman/workflows"
)

type apiCommand struct {
	databaseFlags
	zoneFlags
	httpFlags
	logFlags
}

type workerCommand struct {
	databaseFlags
	zoneFlags
	shopFlags
	logFlags
}

type serveCommand struct {
	databaseFlags
	zoneFlags
	httpFlags
	shopFlags
	logFlags
}

// Validate implements kong's validation, as do the other commands'.
func (c *apiCommand) Validate() error { return cmp.Or(c.zoneFlags.validate(), c.httpFlags.validate()) }

// Validate implements kong's validation.
func (c *workerCommand) Validate() error {
	return cmp.Or(c.zoneFlags.validate(), c.shopFlags.validate())
}

// Validate implements kong's validation.
func (c *serveCommand) Validate() error {
	return cmp.Or(c.zoneFlags.validate(), c.httpFlags.validate(), c.shopFlags.validate())
}

// Run serves the API until the context ends.
func (c *apiCommand) Run(ctx context.Context, env *environment) error {
	return withProcess(ctx, env, c.databaseFlags, c.logFlags, func(p *process) error {
		return p.serveAPI(ctx, c.zoneFlags, c.httpFlags)
	})
}

// Run polls for work until the context ends.
func (c *workerCommand) Run(ctx context.Context, env *environment) error {
	return withProcess(ctx, env, c.databaseFlags, c.logFlags, func(p *process) error {
		return p.runWorker(ctx, c.zoneFlags, c.shopFlags)
	})
}

// Run does both. They share one connection to Temporal, so that a charge's
// first workflow task goes from the API straight to the worker (eager start).
func (c *serveCommand) Run(ctx context.Context, env *environment) error {
	return withProcess(ctx, env, c.databaseFlags, c.logFlags, func(p *process) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return p.serveAPI(ctx, c.zoneFlags, c.httpFlags) })
		group.Go(func() error { return p.runWorker(ctx, c.zoneFlags, c.shopFlags) })
		return group.Wait()
	})
}

// process is what every long-running command needs.
type process struct {
	store     *models.Store
	temporal  client.Client
	namespace string
	names     workflows.Names
	log       *slog.Logger
}

func withProcess(ctx context.Context, env *environment, d databaseFlags, l logFlags, run func(*process) error) error {
	log := l.logger(env.stderr)
	options, err := temporalOptions(env, log)
	if err != nil {
		return err
	}
	store, err := d.open(ctx, log)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := checkSchema(ctx, store); err != nil {
		return err
	}
	// Lazy: the API serves what it can while Temporal is away.
	temporal, err := client.NewLazyClient(options)
	if err != nil {
		return fmt.Errorf("the Temporal settings (TEMPORAL_*): %w", err)
	}
	defer temporal.Close()
	defer context.AfterFunc(ctx, func() { log.InfoContext(ctx, "stopping: what is under way may finish") })()
	return run(&process{store: store, temporal: temporal, namespace: options.Namespace, names: d.names(), log: log})
}

// drainTime bounds a stop: what is under way may finish within it. Kubernetes
// and Docker kill after 30 s and 10 s by default; docs/operations.md says more.
// A worker with a longer SHOP_TIMEOUT takes as long as one call, and drainSettle.
const (
	drainTime   = 20 * time.Second
	drainSettle = 10 * time.Second
)

// Time limits of the HTTP server. A charge's answer may wait for up to a minute;
// a stream sets limits of its own.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 75 * time.Second
	idleTimeout       = 2 * time.Minute
)

func (p *process) serveAPI(ctx context.Context, z zoneFlags, f httpFlags) error {
	zone, err := z.zone()
	if err != nil {
		return err
	}
	policy, err := f.guard()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: api.New(api.Config{
			Guard: policy,
			Store: p.store, Temporal: p.temporal, Names: p.names, Zone: zone, ChargeWait: f.ChargeWait, RequireEligible: f.ChargeRequireEligible,
			Ready:    func(ctx context.Context) error { return checkSchema(ctx, p.store) },
			Stopping: ctx.Done(), Logger: p.log, Version: Version,
		}),
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: api.MaxHeaderBytes, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", f.HTTPAddr)
	if err != nil {
		return addressError("http-addr", f.HTTPAddr, err)
	}
	p.log.InfoContext(ctx, "api serves", "url", "http://"+listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serveUntil(ctx, server, listener) })
	// A charge cannot be started before its search attributes are there, and the
	// API may come up before the first worker.
	group.Go(func() error { return worker.Keep(ctx, p.temporal, p.namespace, p.log) })
	return group.Wait()
}

// serveUntil serves until the context ends and then lets open requests finish.
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("requests were cut after %s: %w", drainTime, err), server.Close())
	}
	return nil
}

// redacting is an output for the standard logger.
type redacting struct {
	client *shop.Client
	log    *slog.Logger
}

// Write implements io.Writer.
func (r redacting) Write(line []byte) (int, error) {
	r.log.Warn("the standard logger says", "line", r.client.Redact(strings.TrimSpace(string(line))))
	return len(line), nil
}

func (p *process) runWorker(ctx context.Context, z zoneFlags, f shopFlags) error {
	zone, err := z.zone()
	if err != nil {
		return err
	}
	if err := p.awaitAdoption(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if err := p.store.Mark(ctx); err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	// net/http logs what a server sends unasked on an idle connection, and that
	// may echo our secret.
	log.SetOutput(redacting{client, p.log})
	temporal := workflows.Temporal{Client: p.temporal, Namespace: p.namespace, Names: p.names}
	acts := activities.New(activities.Config{
		Store: p.store, Shop: client, Zone: zone, Temporal: temporal, Log: p.log,
		Policy: activities.Policy{Idempotent: f.ShopIdempotent, RetryFor: f.ChargeRetryFor, ShopTimeout: f.ShopTimeout},
	})
	drain := max(drainTime, f.ShopTimeout+drainSettle)
	return worker.New(p.temporal, p.names, acts, drain).Run(ctx, p.temporal, p.namespace, p.log)
}

// adoptionPause is the wait between two looks whether the database may charge by now;
// adoptionReminder is how many looks lie between two lines in the log.
const (
	adoptionPause    = time.Second
	adoptionReminder = 60
)

// awaitAdoption returns when the database may charge, or the context has ended. A worker
// on a copy must not even poll: it would take charges from the workers that may.
func (p *process) awaitAdoption(ctx context.Context) error {
	for look := 0; ; look++ {
		found, err := p.store.Installation(ctx)
		if err == nil {
			err = found.Adopted()
		}
		switch {
		case err == nil, ctx.Err() != nil:
			return nil
		case billing.CodeOf(err) != billing.CodeNotAdopted && !models.IsUnavailable(err):
			return fmt.Errorf("DATABASE_URL: %w", err)
		case look%adoptionReminder == 0:
			p.log.ErrorContext(ctx, "the worker takes up no work", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(adoptionPause):
		}
	}
}
