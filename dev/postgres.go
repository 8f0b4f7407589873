package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// postgresStartLimit bounds making a cluster (1 to 3 seconds) and starting
	// it (well below one, more after a crash).
	postgresStartLimit = time.Minute
	// postgresPatience is how long a server may take to stop before it is told
	// more firmly.
	postgresPatience = 5 * time.Second
	// longestSocketPath is what fits in a socket address on every Unix, in
	// bytes, less PostgreSQL's file name.
	longestSocketPath = 103 - len("/.s.PGSQL.65535.lock")
)

// postgresOptions say where a PostgreSQL server keeps its cluster.
type postgresOptions struct {
	Dir     string // the cluster is made in Dir/postgres, or found there
	Port    int    // on loopback; 0 picks a free one
	Durable bool   // false: no fsync, and no care when stopping, for tests
}

// postgres is a PostgreSQL server which ends with us.
type postgres struct {
	URL string // postgres://…, a superuser, database "postgres"

	server  *child
	durable bool
}

// startPostgres starts a server and returns when it takes connections. Stop it
// with Stop; ctx bounds only the start.
func startPostgres(ctx context.Context, options postgresOptions) (*postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, postgresStartLimit)
	defer cancel()
	bin, err := findPostgres(ctx)
	if err != nil {
		return nil, err
	}
	if options.Port == 0 {
		if options.Port, err = freePort(loopbackIP); err != nil {
			return nil, err
		}
	}
	cluster, err := openCluster(ctx, bin, options.Dir)
	if err != nil {
		return nil, err
	}
	p := &postgres{
		URL:     fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", hostPort(loopbackIP, options.Port)),
		durable: options.Durable,
	}
	if p.server, err = cluster.serve(ctx, options.Port, options.Durable); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := p.await(ctx); err != nil {
		p.Stop()
		return nil, fmt.Errorf("start PostgreSQL: %w: %s", err, cluster.lastWords())
	}
	return p, nil
}

// await returns when the server takes connections, or has ended.
func (p *postgres) await(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		<-p.server.ended
		cancel(errors.New("it ended at once"))
	}()
	return retry(ctx, func() error {
		connection, err := pgx.Connect(ctx, p.URL)
		if err != nil {
			return err
		}
		return connection.Close(ctx)
	})
}

// Stop ends the server. A durable one gets the time for an orderly end.
func (p *postgres) Stop() {
	signals := []os.Signal{syscall.SIGQUIT}
	if p.durable {
		signals = []os.Signal{syscall.SIGINT, syscall.SIGQUIT}
	}
	p.server.stop(postgresPatience, signals...)
}

// postgresCluster is a directory that initdb has made.
type postgresCluster struct {
	bin  string   // directory of the programs
	home string   // holds the cluster in data/, the socket and the log
	user *account // who runs it; nil: we
}

// openCluster makes a cluster below dir unless there is one.
func openCluster(ctx context.Context, bin, dir string) (*postgresCluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory for PostgreSQL: %w", err)
	}
	c := &postgresCluster{bin: bin, home: filepath.Join(dir, "postgres")}
	if err := os.MkdirAll(c.home, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for PostgreSQL: %w", err)
	}
	if c.user, err = postgresAccount(c.home); err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.data()); err == nil {
		c.awaitPredecessor(ctx)
		return c, nil
	}
	if err := c.init(ctx); err != nil {
		return nil, fmt.Errorf("make a PostgreSQL cluster: %w", err)
	}
	return c, nil
}

func (c *postgresCluster) data() string { return filepath.Join(c.home, "data") }

// init makes the cluster under another name first, so that a kill half-way
// leaves none behind that looks complete. Not every system has every locale.
func (c *postgresCluster) init(ctx context.Context) error {
	unfinished := filepath.Join(c.home, "data.new")
	var failures []error
	for _, locale := range []string{"C.UTF-8", "en_US.UTF-8", "C"} {
		if err := os.RemoveAll(unfinished); err != nil {
			return err
		}
		cmd := c.command(ctx, "initdb", "-D", unfinished, "-U", "postgres", "--auth=trust",
			"--encoding=UTF8", "--locale="+locale, "--no-instructions")
		output, err := cmd.CombinedOutput()
		if err == nil {
			return os.Rename(unfinished, c.data())
		}
		failures = append(failures, fmt.Errorf("initdb with locale %s: %w: %s", locale, err, lastLine(output)))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failures...)
}

// command runs one of PostgreSQL's programs as its user, out of the reach of the
// terminal's Ctrl-C: what uses the server must end before it.
func (c *postgresCluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = c.home
	useOwnGroup(cmd)
	if c.user != nil {
		useAccount(cmd, c.user)
	}
	return cmd
}

// serve starts the server, which writes to the log in c.home.
func (c *postgresCluster) serve(ctx context.Context, port int, durable bool) (*child, error) {
	log, err := os.Create(c.log())
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	sockets := c.home
	if len(sockets) > longestSocketPath {
		sockets = ""
	}
	args := []string{
		"-D", c.data(), "-p", strconv.Itoa(port), "-k", sockets,
		"-c", "listen_addresses=" + loopbackIP, "-c", "max_connections=200",
	}
	if !durable {
		args = append(args, "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
	}
	cmd := c.command(context.WithoutCancel(ctx), "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	return startChild(cmd, syscall.SIGQUIT)
}

func (c *postgresCluster) log() string { return filepath.Join(c.home, "postgres.log") }

// lastWords is what the server wrote last.
func (c *postgresCluster) lastWords() string {
	written, err := os.ReadFile(c.log())
	if err != nil {
		return err.Error()
	}
	return lastLine(written)
}

// awaitPredecessor waits up to 10 seconds for a server on the same cluster that
// is about to end: when we are killed, ours ends a moment after us.
func (c *postgresCluster) awaitPredecessor(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_ = retry(ctx, func() error {
		content, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
		if err != nil {
			return nil //nolint:nilerr // no file: no server
		}
		first, _, _ := strings.Cut(string(content), "\n")
		if pid, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && alive(pid) {
			return fmt.Errorf("PostgreSQL with process id %d still runs", pid)
		}
		return nil
	})
}

func lastLine(text []byte) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(lines[len(lines)-1])
}

// postgresCommand is "drayman-dev postgres".
type postgresCommand struct {
	Port int    `default:"5433" help:"Port on 127.0.0.1; 0 picks a free one (${default})."`
	Data string `type:"path" default:"./var" placeholder:"DIR" help:"Keep the cluster in DIR/postgres (./var)."`
}

// Run serves until ctx ends or the server does.
func (c *postgresCommand) Run(ctx context.Context, p *program) error {
	if err := requireFree(flagAddress{"--port", hostPort(loopbackIP, c.Port)}); err != nil {
		return err
	}
	server, err := startPostgres(ctx, postgresOptions{Dir: c.Data, Port: c.Port, Durable: true})
	if err != nil {
		return orStopped(ctx, err)
	}
	defer server.Stop()
	_, _ = fmt.Fprintf(p.stdout, "PostgreSQL  %s\n", server.URL)
	select {
	case <-ctx.Done():
		return nil
	case <-server.server.ended:
		return fmt.Errorf("PostgreSQL ended with exit code %d; its log is in %s",
			server.server.exitCode(), filepath.Join(c.Data, "postgres", "postgres.log"))
	}
}
