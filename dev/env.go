package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
)

// commandPatience is how long the command may take to end after it has been
// told to.
const commandPatience = 10 * time.Second

// envCommand is "drayman-dev env".
type envCommand struct {
	Command []string `arg:"" passthrough:"" help:"The command and its arguments, best after a --."`
}

// Help is shown by "drayman-dev env --help".
func (c *envCommand) Help() string {
	return `The command finds in its environment

  TEST_DATABASE_URL      a PostgreSQL superuser on a fresh cluster
  TEST_TEMPORAL_ADDRESS  a Temporal server that keeps everything in memory
  TEST_DRAYMAN_DEV       this program

If one of the first two is set already, it is passed on, and nothing is started for it. The exit code is the command's.`
}

// Run starts what is missing, runs the command, and leaves nothing behind.
func (c *envCommand) Run(ctx context.Context, p *program) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	command := c.Command
	if len(command) > 1 && command[0] == "--" {
		command = command[1:]
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return fmt.Errorf("find the command: %w", err)
	}
	var surroundings surroundings
	defer surroundings.stop()
	if err := surroundings.start(ctx, p); err != nil {
		if ctx.Err() != nil {
			return exitError(interrupted)
		}
		return err
	}
	variables := append(surroundings.variables(), "TEST_DRAYMAN_DEV="+self)
	return runCommand(ctx, p, command, variables)
}

// surroundings are the servers that a test needs. A field is empty if the user
// has such a server already.
type surroundings struct {
	dir      string
	postgres *postgres
	temporal *temporalServer
}

// start starts the servers side by side. Whatever it returns, call stop.
func (s *surroundings) start(ctx context.Context, p *program) error {
	group, ctx := errgroup.WithContext(ctx)
	if p.getenv("TEST_DATABASE_URL") == "" {
		group.Go(func() (err error) {
			if s.dir, err = makeTempDir(); err != nil {
				return err
			}
			s.postgres, err = startPostgres(ctx, postgresOptions{Dir: s.dir})
			return err
		})
	}
	if p.getenv("TEST_TEMPORAL_ADDRESS") == "" {
		group.Go(func() (err error) {
			s.temporal, err = startTemporal(ctx, temporalOptions{
				Addr: flagAddress{"TEST_TEMPORAL_ADDRESS", hostPort(loopbackIP, 0)},
				Log:  p.logger(slog.LevelError),
				// So that tests see workflows continue as new without thousands of events.
				SuggestContinueAsNew: 300,
			})
			return err
		})
	}
	return group.Wait()
}

// variables tell the command where the servers are.
func (s *surroundings) variables() []string {
	var variables []string
	if s.postgres != nil {
		variables = append(variables, "TEST_DATABASE_URL="+s.postgres.URL)
	}
	if s.temporal != nil {
		variables = append(variables, "TEST_TEMPORAL_ADDRESS="+s.temporal.Address)
	}
	return variables
}

func (s *surroundings) stop() {
	if s.temporal != nil {
		s.temporal.Stop()
	}
	if s.postgres != nil {
		s.postgres.Stop()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// makeTempDir makes a directory which every user can enter, though not list.
func makeTempDir() (string, error) {
	parent := os.TempDir()
	if os.Geteuid() == 0 && closedParent(filepath.Join(parent, "x")) != "" {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "drayman-env-")
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	return dir, os.Chmod(dir, 0o711)
}

// runCommand runs the command to its end and returns its exit code as an error.
// When ctx ends, it is told to end too.
//
// With a terminal, the command stays in our process group, so that it can read
// from there. Otherwise it leads a group of its own, all of which is told to end,
// and none of which survives: "go test" would leave its test programs running.
func runCommand(ctx context.Context, p *program, command, variables []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(cmd.Environ(), variables...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, p.stdout, p.stderr
	cmd.WaitDelay = commandPatience
	group := !term.IsTerminal(int(os.Stdin.Fd()))
	if group {
		useOwnGroup(cmd)
	}
	cmd.Cancel = func() error { return tellToEnd(ctx, cmd.Process, group) }
	process, err := startChild(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("run the command: %w", err)
	}
	<-process.ended
	if group {
		_ = signalGroup(cmd.Process, syscall.SIGKILL)
	}
	if code := process.exitCode(); code != 0 {
		return exitError(code)
	}
	return nil
}

// tellToEnd passes on the signal that has ended ctx. The terminal's Ctrl-C has
// reached our whole group already: a second one could be taken for impatience.
func tellToEnd(ctx context.Context, process *os.Process, group bool) error {
	number := syscall.SIGTERM
	var received signalError
	if errors.As(context.Cause(ctx), &received) && received.signal == os.Interrupt {
		number = syscall.SIGINT
	}
	switch {
	case group:
		return signalGroup(process, number)
	case number == syscall.SIGINT:
		return nil
	}
	return process.Signal(number)
}
