package cmd

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"drayman/billing"
)

// Exit codes of the commands on billing runs, beside those of all commands.
const (
	exitEnded       = 3   // the run was cancelled or abandoned
	exitOpen        = 4   // something is left open: the month is not closed
	exitInterrupted = 130 // watching was interrupted; the run goes on
)

// exitCode ends a command that has said already what there is to say.
type exitCode int

// Error implements error.
func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// runCommands are a client of the HTTP API, and of nothing else (decision 0012): curl can do
// the same.
type runCommands struct {
	Start  runStartCommand  `cmd:"" help:"Start the billing run of a month, or say that one is running."`
	Watch  runWatchCommand  `cmd:"" help:"Follow a run to its end."`
	Pause  runPauseCommand  `cmd:"" help:"Pause a run: no more orders go out."`
	Resume runResumeCommand `cmd:"" help:"Resume a paused run."`
	Cancel runCancelCommand `cmd:"" help:"Cancel a run: open orders finish, no more go out."`
	Pace   runPaceCommand   `cmd:"" help:"Change the pace of a run."`
	Report runReportCommand `cmd:"" help:"Account for a month: what became of everyone who was eligible."`
	List   runListCommand   `cmd:"" help:"List the runs, the newest month first."`
}

// Help is shown by drayman run COMMAND --help.
const (
	watchHelp = "Exit codes: 0 the run has finished, everyone in it is charged or declined; 3 it ended cancelled or abandoned; " +
		"4 it has finished and left some pending or unresolved; 130 watching was interrupted, the run goes on; 1 an error; 2 usage."
	reportHelp = "Exit codes: 0 the month is closed, or --ids has listed what there is; 4 somebody is missing, pending or unresolved; " +
		"1 an error; 2 usage."
	startHelp = "For a month that is over it shows how many would be charged, and asks. Exit codes: 0 it has started or was running already; 1 an error; 2 usage; with --watch, those of drayman run watch."
)

// apiFlags say where the API is.
type apiFlags struct {
	APIURL string `name:"api-url" help:"Address of the HTTP API." default:"http://127.0.0.1:8080"`
}

func (f *apiFlags) validate() error {
	u, err := url.Parse(f.APIURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("--api-url ($API_URL): must be an address such as http://127.0.0.1:8080")
	}
	return nil
}

// monthFlags name a month. They come last among the arguments.
type monthFlags struct {
	Period billing.Period `arg:"" optional:"" help:"A month, such as 2026-11; by default the current one in the billing time zone."`
	zoneFlags
}

func (f *monthFlags) validate() error {
	zone, err := f.zone()
	if f.Period.IsZero() && err == nil {
		f.Period = billing.PeriodAt(time.Now(), zone)
	}
	return err
}

// path returns the address of the month's run, or of what belongs to it.
func (f *monthFlags) path(parts ...string) string {
	return "/billing-run/" + strings.Join(append([]string{f.Period.String()}, parts...), "/")
}

// runTarget is what most of the commands need: the API and a month.
type runTarget struct {
	apiFlags
	monthFlags
}

func (t *runTarget) validate() error { return cmp.Or(t.apiFlags.validate(), t.monthFlags.validate()) }

// settingsFlags are the settings of a run; nil is not given. Its JSON is the body
// of a start.
type settingsFlags struct {
	OrdersPerSecond   *float64 `json:"orders_per_second,omitempty" help:"Cap on the orders of the whole run; 0, the default, is none." placeholder:"N"`
	PageSize          *int     `json:"page_size,omitempty" help:"Subscriptions a page, 1 to 5000; the default is 500." placeholder:"N"`
	Concurrency       *int     `json:"concurrency,omitempty" help:"Orders in flight at once, 1 to 1000; the default is 64." placeholder:"N"`
	WorkflowPerCharge bool     `json:"workflow_per_charge,omitempty" help:"Give each charge a workflow of its own: slower, and each is to be seen in the Temporal UI."`
}

func (f *settingsFlags) validate() error {
	s := billing.RunSettings{}.WithDefaults()
	return flagError(f.over(s).Validate())
}

// over returns the settings with what was given in place.
func (f *settingsFlags) over(s billing.RunSettings) billing.RunSettings {
	if f.OrdersPerSecond != nil {
		s.OrdersPerSecond = *f.OrdersPerSecond
	}
	if f.PageSize != nil {
		s.PageSize = *f.PageSize
	}
	if f.Concurrency != nil {
		s.Concurrency = *f.Concurrency
	}
	s.WorkflowPerCharge = f.WorkflowPerCharge
	return s
}

// flagError names the flag of a field that is wrong.
func flagError(err error) error {
	var known *billing.Error
	if !errors.As(err, &known) || known.Field == "" {
		return err
	}
	flag := strings.ReplaceAll(known.Field, "_", "-")
	return fmt.Errorf("--%s ($%s): %s", flag, variable(flag), strings.TrimPrefix(known.Detail, known.Field+" "))
}

type runStartCommand struct {
	runTarget
	settingsFlags
	Watch bool `once:"" help:"Follow the run to its end."`
	Yes   bool `once:"" help:"Start the run of a month that is over without asking."`
	watchFlags
}

// Help implements kong's HelpProvider, as do the other commands'.
func (*runStartCommand) Help() string { return startHelp }

// Validate implements kong's validation, as do the other commands'.
func (c *runStartCommand) Validate() error {
	return cmp.Or(c.runTarget.validate(), c.settingsFlags.validate(), c.watchFlags.validate())
}

// Run starts the run and says whether it has started or ran already.
func (c *runStartCommand) Run(ctx context.Context, env *environment) error {
	api := newRunAPI(c.APIURL)
	before, err := api.progress(ctx, http.MethodGet, c.path(), nil)
	if err != nil && !isNoRun(err) {
		return err
	}
	p, err := c.start(ctx, env, api)
	switch {
	case err != nil:
		return err
	case p.status == http.StatusOK:
		fmt.Fprintf(env.stdout, "is running already, its settings stay as they are: %s\n", plainLine(p.Progress, p.OrdersPerSecond))
	case p.ID == "":
		fmt.Fprintf(env.stdout, "%s has started, but no worker has taken it up yet\n", p.Period)
	default:
		fmt.Fprintf(env.stdout, "%s has started: due %d\n", p.ID, p.Due)
	}
	if !c.Watch {
		return nil
	}
	w := newWatcher(env, api, &c.runTarget, c.watchFlags)
	if p.ID == "" {
		w.awaited, w.before = true, before.ID
	}
	return w.watch(ctx)
}

// start asks for the run. For a month that is over it asks again, when a person has
// confirmed who would be charged.
func (c *runStartCommand) start(ctx context.Context, env *environment, api *runAPI) (runProgress, error) {
	body := struct {
		settingsFlags
		ConfirmPast bool `json:"confirm_past,omitempty"`
	}{settingsFlags: c.settingsFlags}
	p, err := api.progress(ctx, http.MethodPost, c.path(), body)
	var answer *apiError
	if !errors.As(err, &answer) || answer.Code != billing.CodePastUnconfirmed || answer.CutOff == nil || answer.Due == nil {
		return p, err
	}
	what := fmt.Sprintf("%s is over. A run of it would charge %d: who was eligible at the cut-off, %s, still is, and is not charged for it.",
		c.Period, *answer.Due, answer.CutOff.UTC().Format(time.RFC3339Nano))
	if err := env.confirm(ctx, c.Yes, what, "Charge them?", "started"); err != nil {
		return p, err
	}
	body.ConfirmPast = true
	return api.progress(ctx, http.MethodPost, c.path(), body)
}

type runWatchCommand struct {
	runTarget
	watchFlags
}

// Help shows the exit codes.
func (*runWatchCommand) Help() string { return watchHelp }

// Validate implements kong's validation.
func (c *runWatchCommand) Validate() error {
	return cmp.Or(c.runTarget.validate(), c.watchFlags.validate())
}

// Run follows the run.
func (c *runWatchCommand) Run(ctx context.Context, env *environment) error {
	return newWatcher(env, newRunAPI(c.APIURL), &c.runTarget, c.watchFlags).watch(ctx)
}

type runPauseCommand struct {
	runTarget
	Reason string `once:"" help:"Shown with the progress." placeholder:"TEXT"`
}

type runResumeCommand struct{ runTarget }

type runCancelCommand struct{ runTarget }

type runPaceCommand struct {
	OrdersPerSecond float64 `arg:"" name:"orders-per-second" help:"The new cap on the orders of the whole run; 0 is none."`
	runTarget
}

// Validate implements kong's validation.
func (c *runPauseCommand) Validate() error { return c.runTarget.validate() }

// Validate implements kong's validation.
func (c *runResumeCommand) Validate() error { return c.runTarget.validate() }

// Validate implements kong's validation.
func (c *runCancelCommand) Validate() error { return c.runTarget.validate() }

// Validate implements kong's validation.
func (c *runPaceCommand) Validate() error {
	if err := billing.ValidatePace(c.OrdersPerSecond); err != nil {
		return fmt.Errorf("<orders-per-second>: must be 0 (no cap) or %v to %v", billing.MinOrdersPerSecond, billing.MaxOrdersPerSecond)
	}
	return c.runTarget.validate()
}

// control makes a request to change the run, and shows how the run stands after it.
func (t *runTarget) control(ctx context.Context, env *environment, request string, body any) error {
	p, err := newRunAPI(t.APIURL).progress(ctx, http.MethodPost, t.path(request), body)
	if err == nil {
		fmt.Fprintln(env.stdout, plainLine(p.Progress, p.OrdersPerSecond))
	}
	return err
}

// Run pauses the run.
func (c *runPauseCommand) Run(ctx context.Context, env *environment) error {
	return c.control(ctx, env, "pause", struct {
		Reason string `json:"reason,omitempty"`
	}{c.Reason})
}

// Run resumes the run.
func (c *runResumeCommand) Run(ctx context.Context, env *environment) error {
	return c.control(ctx, env, "resume", nil)
}

// Run cancels the run.
func (c *runCancelCommand) Run(ctx context.Context, env *environment) error {
	return c.control(ctx, env, "cancel", nil)
}

// Run changes the pace.
func (c *runPaceCommand) Run(ctx context.Context, env *environment) error {
	return c.control(ctx, env, "pace", struct {
		OrdersPerSecond float64 `json:"orders_per_second"`
	}{c.OrdersPerSecond})
}

type runReportCommand struct {
	runTarget
	IDs  string `name:"ids" once:"" help:"List the subscriptions of one class instead, one id a line: charged_in_run, charged_before, declined, unresolved, pending, skipped or missing." placeholder:"CLASS"`
	JSON bool   `name:"json" once:"" help:"Show what the API answers."`
}

// Help shows the exit codes.
func (*runReportCommand) Help() string { return reportHelp }

// Validate implements kong's validation.
func (c *runReportCommand) Validate() error {
	if c.IDs != "" && !slices.Contains(billing.ReportClasses(), billing.ReportClass(c.IDs)) {
		return fmt.Errorf("--ids: must be one of %s", reportClasses())
	}
	return c.runTarget.validate()
}

func reportClasses() string {
	var names []string
	for _, class := range billing.ReportClasses() {
		names = append(names, string(class))
	}
	return strings.Join(names, ", ")
}

// Run shows the report, or the ids of one class.
func (c *runReportCommand) Run(ctx context.Context, env *environment) error {
	path := c.path("report")
	if c.IDs != "" {
		path += "?ids=" + c.IDs
	}
	body, err := newRunAPI(c.APIURL).open(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // it has been read
	if c.IDs == "" {
		return showReport(env.stdout, body, c.JSON)
	}
	if c.JSON {
		_, err = io.Copy(env.stdout, body)
	} else {
		err = listIDs(env.stdout, body)
	}
	if err != nil {
		return fmt.Errorf("the list is cut off: %w", err)
	}
	return nil
}

// listIDs prints an array of strings as it comes in; it may be long.
func listIDs(w io.Writer, body io.Reader) error {
	out := bufio.NewWriter(w)
	array := json.NewDecoder(body)
	if _, err := array.Token(); err != nil {
		return err
	}
	for array.More() {
		var id string
		if err := array.Decode(&id); err != nil {
			return errors.Join(err, out.Flush())
		}
		fmt.Fprintln(out, id)
	}
	_, err := array.Token() // the closing bracket
	return errors.Join(err, out.Flush())
}

func showReport(w io.Writer, body io.Reader, asJSON bool) error {
	raw, err := io.ReadAll(body)
	if err != nil {
		return fmt.Errorf("the report is cut off: %w", err)
	}
	var r billing.Report
	if err := json.Unmarshal(raw, &r); err != nil || r.Totals == nil {
		return errNotDrayman
	}
	if asJSON {
		_, err = fmt.Fprintln(w, strings.TrimSpace(string(raw)))
	} else {
		err = printReport(w, r)
	}
	if err == nil && !r.Closed {
		return exitCode(exitOpen)
	}
	return err
}

func printReport(w io.Writer, r billing.Report) error {
	state := string(r.Run.State)
	if r.Run.Reason != "" {
		state += ": " + oneLine(r.Run.Reason)
	}
	fmt.Fprintf(w, "%s, run %d: %s\n", r.Run.Period.Title(), r.Run.Number, state)
	fmt.Fprintf(w, "%d were eligible at the cut-off, %s\n\n", r.Eligible, r.Run.CutOff.UTC().Format(time.RFC3339))
	for _, class := range billing.ReportClasses() {
		fmt.Fprintf(w, "%-15s %10d\n", words(class), r.Totals[class])
	}
	if len(r.Lines) > 0 {
		fmt.Fprintln(w)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, line := range r.Lines {
		if i == 0 {
			fmt.Fprintln(table, "club\tSKU\t"+strings.Join(eachClass(words), "\t")+"\t")
		}
		fmt.Fprintf(table, "%d\t%d\t%s\t\n", line.ClubID, line.SKU, strings.Join(eachClass(func(c billing.ReportClass) string {
			return fmt.Sprint(line.Counts[c])
		}), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", verdict(r))
	return err
}

func words(class billing.ReportClass) string { return strings.ReplaceAll(string(class), "_", " ") }

func eachClass(text func(billing.ReportClass) string) []string {
	var all []string
	for _, class := range billing.ReportClasses() {
		all = append(all, text(class))
	}
	return all
}

// verdict says whether the month is closed, and what to do if it is not.
func verdict(r billing.Report) string {
	if r.Closed {
		return "The month is closed."
	}
	var open []string
	for _, class := range []billing.ReportClass{billing.ClassMissing, billing.ClassPending, billing.ClassUnresolved} {
		if n := r.Totals[class]; n > 0 {
			open = append(open, fmt.Sprintf("%d %s", n, class))
		}
	}
	text := "The month is not closed: " + strings.Join(open, ", ") + "."
	if r.Totals[billing.ClassMissing] > 0 && r.Run.EndedAt != nil {
		text += fmt.Sprintf(" drayman run start %s charges who is missing.", r.Run.Period)
	}
	return text
}

type runListCommand struct {
	apiFlags
	JSON bool `name:"json" once:"" help:"Show what the API answers."`
}

// Validate implements kong's validation.
func (c *runListCommand) Validate() error { return c.apiFlags.validate() }

// Run lists the runs.
func (c *runListCommand) Run(ctx context.Context, env *environment) error {
	body, err := newRunAPI(c.APIURL).open(ctx, "/billing-runs")
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // it has been read
	if c.JSON {
		_, err = io.Copy(env.stdout, body)
		return err
	}
	var runs []billing.Run
	if err := json.NewDecoder(body).Decode(&runs); err != nil {
		return errNotDrayman
	}
	if len(runs) == 0 {
		fmt.Fprintln(env.stdout, "there has been no run yet")
		return nil
	}
	table := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "run\tstate\tdue\tcut-off\tended\treason")
	for _, r := range runs {
		ended := ""
		if r.EndedAt != nil {
			ended = r.EndedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", r.ID, r.State, r.Due, r.CutOff.UTC().Format(time.RFC3339), ended, oneLine(r.Reason))
	}
	return table.Flush()
}
