package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the settings of a measurement.
type options struct {
	Charges     int
	Baseline    int
	Concurrency int
	PageSize    int
	Months      int
	Rounds      int
	JSON        bool
	Timeout     time.Duration

	Drayman, DraymanDev string // programs
	DatabaseURL         string
	TemporalAddress     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	var results []result
	for i := range o.Rounds {
		r, err := measure(ctx, o)
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		results = append(results, *r)
		fmt.Fprintf(stderr, "round %d of %d: %.0f charges/s\n", i+1, o.Rounds, r.Run.PerSecond)
	}
	if o.JSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(results)
	}
	writeTable(stdout, results)
	return nil
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{
		Drayman: getenv("TEST_DRAYMAN", "../bin/drayman"), DraymanDev: getenv("TEST_DRAYMAN_DEV", "../bin/drayman-dev"),
		DatabaseURL: os.Getenv("TEST_DATABASE_URL"), TemporalAddress: os.Getenv("TEST_TEMPORAL_ADDRESS"),
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.Charges, "charges", 100_000, "subscriptions of the run")
	flags.IntVar(&o.Baseline, "baseline", 20_000, "orders of each baseline; 0: none")
	flags.IntVar(&o.Concurrency, "concurrency", 64, "orders in flight at once, in the run and in the baselines")
	flags.IntVar(&o.PageSize, "page-size", 500, "subscriptions a page")
	flags.IntVar(&o.Months, "months", 0, "earlier months, 0 to 11, that everyone is charged for already, in the ledger and in its statistics")
	flags.IntVar(&o.Rounds, "rounds", 1, "how often all is measured; the table has medians")
	flags.BoolVar(&o.JSON, "json", false, "print all rounds as JSON instead of a table")
	flags.DurationVar(&o.Timeout, "timeout", 30*time.Minute, "give up after so long")
	flags.StringVar(&o.Drayman, "drayman", o.Drayman, "the program to measure")
	flags.StringVar(&o.DraymanDev, "drayman-dev", o.DraymanDev, "the program with the fake shop")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case o.Charges < 1 || o.Rounds < 1 || o.Concurrency < 1 || o.PageSize < 1 || o.Baseline < 0 || o.Months < 0 || o.Months > 11:
		return o, errors.New("a number is out of range")
	case o.DatabaseURL == "" || o.TemporalAddress == "":
		return o, errors.New("TEST_DATABASE_URL or TEST_TEMPORAL_ADDRESS is not set: run `make bench`, or `bin/drayman-dev env -- go -C bench run .`")
	}
	return o, nil
}

func getenv(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
