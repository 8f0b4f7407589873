package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

type commands struct {
	API      apiCommand       `cmd:"" name:"api" help:"Serve the HTTP API."`
	Worker   workerCommand    `cmd:"" help:"Run the Temporal worker: it charges."`
	Serve    serveCommand     `cmd:"" help:"Run API and worker in one process."`
	Migrate  migrateCommand   `cmd:"" help:"Bring the database's schema up to date, or show where it stands."`
	Adopt    adoptCommand     `cmd:"" help:"Say that a database which was restored, moved or copied may charge."`
	Run      runCommands      `cmd:"" name:"run" help:"Start, watch and steer billing runs, through the HTTP API."`
	Charge   chargeCommands   `cmd:"" help:"Settle and correct charges by hand, through the HTTP API."`
	Schedule scheduleCommands `cmd:"" help:"Have Temporal start the billing run each month."`
	Version  versionCommand   `cmd:"" help:"Show the version."`

	Healthcheck healthcheckCommand `cmd:"" help:"Ask the API of this machine whether it is ready; for containers."`
}

// environment is what a command gets from its surroundings.
type environment struct {
	getenv         func(string) string
	stdin          *os.File
	stdout, stderr io.Writer
}

// Run executes one command and returns its exit code: 0, 1 for an error, which
// stands on stderr in one line, 2 for a wrong command line or setting, or one of
// its own (runs.go). A command that asks a person reads the process's own input.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	env := &environment{getenv: getenv, stdin: os.Stdin, stdout: stdout, stderr: stderr}
	exit := -1
	parser, err := newParser(env, func(code int) { exit = code })
	if err != nil {
		fmt.Fprintln(stderr, "drayman:", err)
		return exitUsage
	}
	parsed, err := parser.Parse(args)
	switch {
	case exit >= 0: // --help has been shown
		return exit
	case err != nil:
		fmt.Fprintf(stderr, "drayman: %s (see drayman --help)\n", err)
		return exitUsage
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(env)
	var code exitCode
	switch {
	case errors.As(err, &code):
		return int(code)
	case err != nil:
		fmt.Fprintln(stderr, "drayman:", err)
		return exitError
	}
	return exitOK
}

func newParser(env *environment, exit func(int)) (*kong.Kong, error) {
	return kong.New(&commands{},
		kong.Name("drayman"),
		kong.Description("Subscription billing for beer clubs. Each flag can be given as an environment variable instead, "+
			"its name in capitals: --http-addr is HTTP_ADDR. Temporal is configured by TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, "+
			"TEMPORAL_API_KEY and the other TEMPORAL_* variables, or by a temporal.toml profile."),
		kong.Writers(env.stdout, env.stderr),
		kong.Exit(exit),
		kong.Resolvers(kong.ResolverFunc(env.resolve)),
		kong.KindMapper(reflect.Float64, kong.MapperFunc(readFloat)),
		kong.ValueFormatter(func(v *kong.Value) string {
			if v.Flag == nil || v.Name == "help" || v.Tag.Has("once") {
				return kong.DefaultHelpValueFormatter(v)
			}
			return fmt.Sprintf("%s ($%s)", kong.DefaultHelpValueFormatter(v), variable(v.Name))
		}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
}

// readFloat is kong's, but refuses a number that is too near to 0 for a float: kong reads it
// as 0, which is no cap on a run.
func readFloat(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("float", &text); err != nil {
		return err
	}
	n, err := strconv.ParseFloat(text, 64)
	mantissa, _, _ := strings.Cut(strings.ToLower(text), "e")
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("expected a float but got %q", text)
	case err != nil, n == 0 && strings.ContainsAny(mantissa, "123456789"):
		return fmt.Errorf("a float has no room for %q", text)
	}
	target.SetFloat(n)
	return nil
}

// variable is the environment twin of a flag.
func variable(flag string) string {
	return strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// resolve gives a flag that is not on the command line the value of its
// environment twin. One tagged once, such as --json, has none: it belongs to one
// call, and its name may mean something else in somebody's environment. An empty
// variable is a value if the flag is tagged empty; else it counts as absent.
func (e *environment) resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Tag.Has("once") {
		return nil, nil
	}
	name := variable(flag.Name)
	value := e.getenv(name)
	if flag.Tag.Has("secret") {
		var err error
		if value, err = e.secret(name, value); err != nil {
			return nil, err
		}
	}
	if value == "" && !(flag.Tag.Has("empty") && isSet(name)) {
		return nil, nil
	}
	return value, nil
}

// isSet tells an empty variable from an absent one, which getenv does not.
func isSet(name string) bool {
	_, set := os.LookupEnv(name)
	return set
}

// secret reads the file that NAME_FILE names, if NAME is not set itself.
func (e *environment) secret(name, value string) (string, error) {
	file := e.getenv(name + "_FILE")
	switch {
	case file == "":
		return value, nil
	case value != "":
		return "", fmt.Errorf("%s and %s_FILE are both set; unset one", name, name)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s_FILE: %w", name, errors.Unwrap(err))
	}
	return strings.TrimSpace(string(content)), nil
}
