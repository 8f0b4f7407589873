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
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer context.AfterFunc(ctx, stop)() // a second signal ends us at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// options are what the command is told.
type options struct {
	sizes
	programs
	Seeds     int
	BothModes bool
	Dir       string
	PlanOnly  bool
}

// run carries out the campaigns and prints a line for each, with its findings. It
// returns an error if one has any.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.PlanOnly {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", " ")
		return encoder.Encode(newPlan(o.sizes))
	}
	bad := 0
	for i := range o.Seeds {
		for _, idempotent := range o.modes() {
			s := o.sizes
			s.Seed, s.Idempotent = s.Seed+uint64(i), idempotent
			r, err := o.campaign(ctx, s, stderr)
			if err != nil && ctx.Err() == nil {
				r = &result{Sizes: s, Findings: []string{"the campaign could not be carried out: " + err.Error()}}
			} else if err != nil {
				return err
			}
			printResult(stdout, r)
			if len(r.Findings) > 0 {
				bad++
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d campaigns have findings", bad)
	}
	return nil
}

func (o options) modes() []bool {
	if o.BothModes {
		return []bool{true, false}
	}
	return []bool{o.Idempotent}
}

// campaign runs one in a directory of its own, which stays where it failed.
func (o options) campaign(ctx context.Context, s sizes, stderr io.Writer) (*result, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, fmt.Sprintf("campaign-%d-", s.Seed))
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	// PostgreSQL runs as a user of its own, who must get into it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	r, err := runCampaign(ctx, dir, o.programs, s, stderr)
	if err != nil || len(r.Findings) > 0 {
		fmt.Fprintln(stderr, "its logs and books are in", dir)
		return r, err
	}
	if err := os.RemoveAll(dir); err != nil { // a server may still be ending
		fmt.Fprintln(stderr, "left behind:", err)
	}
	return r, nil
}

func printResult(out io.Writer, r *result) {
	f := r.Figures
	fmt.Fprintf(out, "seed %d, shop idempotent %t: %d orders, %d charged, %d declined, %d resolved by hand; %d kills, %d toxics, %d setbacks, %d orders copied by hand, answers %v; %s: ",
		r.Sizes.Seed, r.Sizes.Idempotent, f.Orders, f.Charged, f.Declined, f.ResolvedByMan, r.Kills, r.Toxics, len(r.Setbacks), f.CopiedByMan, f.Answers, r.Took.Round(time.Second))
	if len(r.Findings) == 0 {
		fmt.Fprintln(out, "passed")
		return
	}
	fmt.Fprintf(out, "%d findings\n", len(r.Findings))
	for i, finding := range r.Findings {
		if i == 50 {
			fmt.Fprintln(out, "  … the rest is in result.json")
			break
		}
		fmt.Fprintln(out, "  -", finding)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.Seed, "seed", 1, "of the plan")
	flags.IntVar(&o.Seeds, "seeds", 1, "campaigns with this many seeds, from --seed on")
	flags.BoolVar(&o.Idempotent, "shop-idempotent", true, "false: a shop that books a new order for every call")
	flags.BoolVar(&o.BothModes, "both-modes", false, "each seed with both kinds of shop")
	flags.IntVar(&o.Subscriptions, "subscriptions", 4600, "at the beginning")
	flags.IntVar(&o.Months, "months", 5, "number of months with a billing run: the current one and those before it")
	flags.IntVar(&o.Kills, "kills", 105, "SIGKILLs")
	flags.IntVar(&o.Restores, "restores", 2, "times that an older backup is put in the database's place; unless 0, once more after all faults have ended")
	flags.IntVar(&o.Failovers, "failovers", 2, "times that a copy of the cluster that lacks the last second or two takes over")
	flags.BoolVar(&o.SetbacksOnly, "setbacks-only", false, "restores and failovers, and no other faults")
	flags.BoolVar(&o.PermanentDeclines, "permanent-declines", false, "the shop declines until the end whom it declines at first, so that nobody is charged by a second attempt")
	flags.DurationVar(&o.Duration, "duration", time.Minute, "of the disturbance")
	flags.StringVar(&o.Dir, "dir", filepath.Join(os.TempDir(), "drayman-chaos"), "keeps what a failed campaign leaves")
	flags.BoolVar(&o.PlanOnly, "plan", false, "print the plan as JSON and do nothing")
	flags.StringVar(&o.Drayman, "drayman", "../bin/drayman", "the program to put to the test")
	flags.StringVar(&o.DraymanDev, "drayman-dev", "../bin/drayman-dev", "the program with its servers")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.Seeds < 1 || o.Subscriptions < 1 || o.Months < 1 || min(o.Kills, o.Restores, o.Failovers) < 0 || o.Duration < time.Second {
		return o, errors.New("a number is out of range")
	}
	var err error
	if o.Drayman, err = filepath.Abs(o.Drayman); err == nil {
		o.DraymanDev, err = filepath.Abs(o.DraymanDev)
	}
	return o, err
}
