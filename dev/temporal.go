package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"go.temporal.io/server/temporal"
)

const (
	// temporalStartLimit bounds the start of a Temporal server. It takes about
	// one second, and many if several start at once on a busy machine.
	temporalStartLimit = time.Minute
	// temporalStopLimit bounds its stop, which takes about half a second. A
	// server that is cut off loses nothing: see the invariants in doc.go.
	temporalStopLimit = 4 * time.Second
)

// temporalOptions say where a Temporal server listens and what it keeps.
type temporalOptions struct {
	Addr   flagAddress  // host:port on loopback; port 0 picks a free one
	UIAddr flagAddress  // likewise; an empty address means no UI
	Dir    string       // directory of temporal.db; "" keeps everything in memory
	Log    *slog.Logger // what the server has to say
	// SuggestContinueAsNew is after how many events the server suggests it to a
	// workflow; 0 is the server's default, 4096.
	SuggestContinueAsNew int
}

// temporalServer is a whole Temporal cluster in this process: frontend, history,
// matching and worker service, on SQLite.
type temporalServer struct {
	Address   string // host:port of the frontend, for clients
	UIAddress string // host:port of the UI; "" without one

	server temporal.Server
	ui     *http.Server
	lock   *os.File
	log    *temporalLog
	once   sync.Once // for Stop
}

// startTemporal starts a Temporal server and returns when its namespace
// "default" answers. Stop it with Stop; ctx bounds only the start.
func startTemporal(ctx context.Context, options temporalOptions) (_ *temporalServer, err error) {
	ctx, cancel := context.WithTimeout(ctx, temporalStartLimit)
	defer cancel()
	s := &temporalServer{log: newTemporalLog(options.Log)}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()

	config, err := newTemporalConfig(options.Addr)
	if err != nil {
		return nil, err
	}
	s.Address = config.PublicClient.HostPort
	if options.Dir != "" {
		if s.lock, err = lockDirectory(options.Dir); err != nil {
			return nil, err
		}
	}
	store, err := openTemporalStore(ctx, options.Dir)
	if err != nil {
		return nil, err
	}
	useStore(config, store)
	if s.server, err = s.boot(ctx, serverOptions(config, options.SuggestContinueAsNew, s.log)...); err != nil {
		return nil, fmt.Errorf("start the Temporal server: %w", err)
	}
	if err := prepareNamespace(ctx, s.Address); err != nil {
		return nil, fmt.Errorf("prepare the Temporal namespace: %w", err)
	}
	if options.UIAddr.address == "" {
		return s, nil
	}
	if err := s.startUI(ctx, options.UIAddr); err != nil {
		return nil, err
	}
	return s, nil
}

// boot starts the services. It does so in a goroutine of its own, because a part
// that cannot go on reports to the log and never returns.
func (s *temporalServer) boot(ctx context.Context, options ...temporal.ServerOption) (temporal.Server, error) {
	type result struct {
		server temporal.Server
		err    error
	}
	started := make(chan result, 1)
	go func() {
		server, err := temporal.NewServer(options...)
		if err == nil {
			err = server.Start()
		}
		started <- result{server, err}
	}()
	select {
	case r := <-started:
		if r.err != nil {
			return nil, r.err // half started, it cannot be stopped
		}
		return r.server, nil
	case err := <-s.log.fatal:
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Failed yields the error of a part of the server that could not go on. After
// that the server is unusable.
func (s *temporalServer) Failed() <-chan error { return s.log.fatal }

// Stop ends the UI and then the server, within temporalStopLimit. While it
// stops, every service logs that the others are gone, so the log is closed first. It may be called again.
func (s *temporalServer) Stop() { s.once.Do(s.stop) }

func (s *temporalServer) stop() {
	s.log.mute()
	if s.ui != nil {
		_ = s.ui.Close()
	}
	if s.server != nil {
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			_ = s.server.Stop()
		}()
		select {
		case <-stopped:
		case <-time.After(temporalStopLimit):
		}
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// temporalCommand is "drayman-dev temporal".
type temporalCommand struct {
	Addr     string     `default:"127.0.0.1:7233" placeholder:"HOST:PORT" help:"Where the Temporal server listens, on loopback (${default})."`
	UIAddr   string     `name:"ui-addr" default:"127.0.0.1:8233" placeholder:"HOST:PORT" help:"Where the Temporal UI listens, on loopback; \"\" runs none (${default})."`
	Data     string     `type:"path" placeholder:"DIR" help:"Keep state in DIR/temporal.db, over restarts. Without it, state is in memory and ends with the program."`
	LogLevel slog.Level `default:"WARN" placeholder:"LEVEL" help:"Log the Temporal server from this level up: DEBUG, INFO, WARN or ERROR (${default})."`
}

// Run serves until ctx ends.
func (c *temporalCommand) Run(ctx context.Context, p *program) error {
	options := temporalOptions{
		Addr:   flagAddress{"--addr", c.Addr},
		UIAddr: flagAddress{"--ui-addr", c.UIAddr},
		Dir:    c.Data,
		Log:    p.logger(c.LogLevel),
	}
	if err := requireFree(options.Addr, options.UIAddr); err != nil {
		return err
	}
	server, err := startTemporal(ctx, options)
	if err != nil {
		return orStopped(ctx, err)
	}
	defer server.Stop()
	_, _ = fmt.Fprintf(p.stdout, "Temporal     %s\n", server.Address)
	if server.UIAddress != "" {
		_, _ = fmt.Fprintf(p.stdout, "Temporal UI  http://%s\n", server.UIAddress)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Failed():
		return fmt.Errorf("the Temporal server failed: %w", err)
	}
}

// orStopped returns nil in place of an error that comes from the user's having
// stopped the program while it was starting.
func orStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// hostPort joins an IP address and a port number.
func hostPort(ip string, port int) string {
	return net.JoinHostPort(ip, strconv.Itoa(port))
}
