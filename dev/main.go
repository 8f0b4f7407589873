package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	os.Exit(run(signalContext(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// program is what a command gets from the outside.
type program struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

// logger writes what is at level or above it to stderr.
func (p *program) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: level}))
}

// commands is the command line, in the order in which --help shows it.
type commands struct {
	Up       upCommand       `cmd:"" default:"withargs" help:"Run everything in one process: Temporal and its UI, a fake shop, a SQLite database, the API and the worker. This is the default."`
	Temporal temporalCommand `cmd:"" help:"Run only a Temporal server and its UI."`
	Shop     shopCommand     `cmd:"" help:"Run only the fake shop."`
	Postgres postgresCommand `cmd:"" help:"Run only a PostgreSQL server."`
	Env      envCommand      `cmd:"" help:"Run a command with a PostgreSQL and a Temporal server of its own."`
}

const description = `Drayman and all that it needs, for development and tests.

Start with no arguments and open the addresses that it prints. Ctrl-C stops it; started again, it goes on where it was.`

// interrupted is the exit code of what a Ctrl-C has cut off: 128 + SIGINT, as
// shells count it.
const interrupted = 130

// exitError ends the program with a code of its own and without a message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run is the whole program: it parses args, runs the command until it ends or
// ctx does, and returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	var (
		line     commands
		helped   bool
		parser   *kong.Kong
		err      error
		external = &program{getenv: getenv, stdout: stdout, stderr: stderr}
	)
	parser, err = kong.New(
		&line,
		kong.Name("drayman-dev"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(external),
	)
	if err != nil {
		return complain(stderr, err)
	}
	command, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		_ = complain(stderr, fmt.Errorf("%w (drayman-dev --help shows how it is used)", err))
		return 2
	}
	return complain(stderr, command.Run())
}

// complain writes err as one line and returns the exit code that goes with it.
func complain(stderr io.Writer, err error) int {
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	_, _ = fmt.Fprintln(stderr, "drayman-dev:", err)
	return 1
}

// signalError is the cause of a context that a signal has ended.
type signalError struct{ signal os.Signal }

func (e signalError) Error() string { return e.signal.String() }

// signalContext ends with the first SIGINT or SIGTERM; the second one ends the
// process at once. It does not rely on the default action of the second signal,
// since some part may listen for signals too and thereby disable it.
func signalContext() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		cancel(signalError{<-signals})
		<-signals
		os.Exit(interrupted)
	}()
	return ctx
}
