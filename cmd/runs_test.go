package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/cmd"
)

// fakeAPI speaks the API's part of the contract: each call takes the next
// answer, the last one stays.
type fakeAPI struct {
	url     string
	mu      sync.Mutex
	answers []apiAnswer
	calls   []string // "METHOD /path body"
}

type apiAnswer struct {
	status int
	body   any // a string is sent as it is
	cut    bool
}

func startAPI(t *testing.T, answers ...apiAnswer) *fakeAPI {
	t.Helper()
	a := &fakeAPI{answers: answers}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what is missing fails the test
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	next := a.answers[0]
	if len(a.answers) > 1 {
		a.answers = a.answers[1:]
	}
	if next.status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(next.status)
	text, isText := next.body.(string)
	if !isText {
		raw, _ := json.Marshal(next.body) // what is missing fails the test
		text = string(raw)
	}
	_, _ = io.WriteString(w, text) // as above
	if next.cut {
		_ = http.NewResponseController(w).Flush() // what is missing fails the test
		panic(http.ErrAbortHandler)
	}
}

func (a *fakeAPI) called() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.calls...)
}

func ok(body any) apiAnswer { return apiAnswer{status: http.StatusOK, body: body} }

func problem(status int, code, detail string) apiAnswer {
	return apiAnswer{status: status, body: map[string]any{"status": status, "code": code, "detail": detail}}
}

var cutOff = time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC)

// progress is the run 2026-11/1, due 10.
func progress(state billing.RunState, counts billing.RunCounts) billing.Progress {
	period, _ := billing.ParsePeriod("2026-11")
	run := billing.Run{ID: "2026-11/1", Period: period, Number: 1, State: state, Due: 10, CutOff: cutOff}
	if state != billing.RunRunning && state != billing.RunPaused {
		ended := cutOff.Add(90 * time.Second)
		run.EndedAt = &ended
	}
	counts.First = cutOff
	return billing.NewProgress(run, counts, cutOff.Add(10*time.Second))
}

func charged(n int) billing.RunCounts { return billing.RunCounts{Charged: n} }

func TestRunStart(t *testing.T) {
	missing := problem(404, "run_not_found", "2026-11 has no run")
	api := startAPI(t, missing, apiAnswer{status: 202, body: progress(billing.RunRunning, charged(0))})
	code, out, errs := run(t, map[string]string{"API_URL": api.url}, "run", "start", "2026-11",
		"--orders-per-second", "0.5", "--page-size", "100", "--workflow-per-charge")
	require.Zero(t, code, errs)
	require.Equal(t, "2026-11/1 has started: due 10\n", out)
	require.Equal(t, `POST /billing-run/2026-11 {"orders_per_second":0.5,"page_size":100,"workflow_per_charge":true}`, api.called()[1])

	api = startAPI(t, missing, ok(progress(billing.RunRunning, charged(3))))
	code, out, _ = run(t, nil, "run", "start", "2026-11", "--api-url", api.url+"/")
	require.Zero(t, code)
	require.Equal(t, "is running already, its settings stay as they are: "+
		"2026-11/1 running: due 10, charged 3, declined 0, unresolved 0, pending 0, left 7, 0.3 orders/s\n", out)
	require.Equal(t, "POST /billing-run/2026-11 {}", api.called()[1])
}

var unconfirmed = apiAnswer{status: 409, body: map[string]any{
	"status": 409, "code": "past_period_unconfirmed", "detail": "2025-11 is over", "due": 12, "cut_off": "2025-11-30T23:59:59.999999Z",
}}

func TestRunStart_PastMonthIsConfirmed(t *testing.T) {
	missing := problem(404, "run_not_found", "2025-11 has no run")
	started := apiAnswer{status: 202, body: progress(billing.RunRunning, charged(0))}
	api := startAPI(t, missing, unconfirmed, started)
	code, out, errs := run(t, map[string]string{"API_URL": api.url, "YES": "true"}, "run", "start", "2025-11", "--page-size", "9")
	require.Equal(t, 1, code, "nobody is there to ask")
	require.Empty(t, out)
	require.Equal(t, "drayman: 2025-11 is over. A run of it would charge 12: who was eligible at the cut-off, 2025-11-30T23:59:59.999999Z, "+
		"still is, and is not charged for it. Nothing was started: there is no terminal to ask on; give --yes\n", errs)
	require.Len(t, api.called(), 2)

	api = startAPI(t, missing, unconfirmed, started)
	code, out, errs = run(t, map[string]string{"API_URL": api.url}, "run", "start", "2025-11", "--yes", "--page-size", "9")
	require.Zero(t, code, errs)
	require.Contains(t, errs, "would charge 12")
	require.Contains(t, out, "has started")
	require.Equal(t, []string{
		"GET /billing-run/2025-11", `POST /billing-run/2025-11 {"page_size":9}`, `POST /billing-run/2025-11 {"page_size":9,"confirm_past":true}`,
	}, api.called())

	api = startAPI(t, missing, started) // the current month
	code, _, errs = run(t, map[string]string{"API_URL": api.url}, "run", "start", "2026-11", "--yes")
	require.Zero(t, code)
	require.Empty(t, errs)
	require.Equal(t, "POST /billing-run/2026-11 {}", api.called()[1], "what is not asked is not confirmed")
}

// The run before this one must not be taken for it, nor its absence for an error.
func TestRunStartAndWatchBeforeAWorkerComes(t *testing.T) {
	nameless := progress(billing.RunRunning, charged(0))
	nameless.ID = ""
	earlier := progress(billing.RunFinished, charged(10))
	earlier.ID = "2026-11/0"
	api := startAPI(t, ok(earlier), apiAnswer{status: 202, body: nameless}, ok(earlier), problem(404, "run_not_found", "none"),
		ok(progress(billing.RunRunning, charged(5))), ok(progress(billing.RunFinished, charged(10))))
	code, out, errs := run(t, nil, "run", "start", "2026-11", "--api-url", api.url, "--watch", "--interval", "10ms")
	require.Zero(t, code, errs)
	require.Contains(t, out, "no worker has taken it up yet\n")
	require.Contains(t, out, "2026-11/1 running: due 10, charged 5")
	require.NotContains(t, out, "2026-11/0")
	require.True(t, strings.HasSuffix(out, "2026-11/1 finished: due 10, charged 10, declined 0, unresolved 0, pending 0, left 0; took 1m30s\n"), out)
}

func TestRunMonthByDefault(t *testing.T) {
	api := startAPI(t, ok(progress(billing.RunFinished, charged(10))))
	code, _, errs := run(t, map[string]string{"BILLING_TIMEZONE": "Pacific/Kiritimati"}, "run", "watch", "--api-url", api.url)
	require.Zero(t, code, errs)
	zone, err := time.LoadLocation("Pacific/Kiritimati")
	require.NoError(t, err)
	require.Contains(t, api.called()[0], "GET /billing-run/"+time.Now().In(zone).Format("2006-01"))
}

func TestRunControls(t *testing.T) {
	for _, c := range []struct {
		args []string
		call string
	}{
		{[]string{"pause", "2026-11"}, "POST /billing-run/2026-11/pause {}"},
		{[]string{"pause", "2026-11", "--reason", "stock-take"}, `POST /billing-run/2026-11/pause {"reason":"stock-take"}`},
		{[]string{"resume", "2026-11"}, "POST /billing-run/2026-11/resume"},
		{[]string{"cancel", "2026-11"}, "POST /billing-run/2026-11/cancel"},
		{[]string{"pace", "12.5", "2026-11"}, `POST /billing-run/2026-11/pace {"orders_per_second":12.5}`},
		{[]string{"pace", "0", "2026-11"}, `POST /billing-run/2026-11/pace {"orders_per_second":0}`},
	} {
		api := startAPI(t, ok(progress(billing.RunRunning, charged(1))))
		// REASON and the like belong to somebody else.
		code, out, errs := run(t, map[string]string{"API_URL": api.url, "REASON": "not ours"}, append([]string{"run"}, c.args...)...)
		require.Zero(t, code, errs)
		require.Equal(t, []string{c.call}, api.called())
		require.Contains(t, out, "2026-11/1 running: due 10, charged 1")
	}
}

func TestRunErrorsAreOneLine(t *testing.T) {
	for name, c := range map[string]struct {
		answer apiAnswer
		says   string
	}{
		"problem":      {problem(409, "run_not_active", "the run is\nfinished\x1b[2J"), "drayman: the run is finished [2J (run_not_active)\n"},
		"no problem":   {apiAnswer{status: 502, body: "<html>\n"}, "answers 502 Bad Gateway (no_problem_details)\n"},
		"not Drayman":  {ok("<html>"), "the answer is not Drayman's"},
		"other JSON":   {ok("{}"), "the answer is not Drayman's"},
		"redirect":     {apiAnswer{status: 301, body: ""}, "answers 301 Moved Permanently"},
		"cut answer":   {apiAnswer{status: 200, body: `{"id":`, cut: true}, "unexpected EOF"},
		"no API there": {apiAnswer{}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			api := startAPI(t, c.answer)
			if c.answer.status == 0 {
				api.url = "http://127.0.0.1:1"
			}
			code, out, errs := run(t, nil, "run", "pause", "2026-11", "--api-url", api.url)
			require.Equal(t, 1, code)
			require.Empty(t, out)
			require.Contains(t, errs, c.says)
			require.Equal(t, 1, strings.Count(errs, "\n"), errs)
		})
	}
}

func TestRunUsage(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"start 2026-13", "2026-11"},
		{"start --page-size 0", "--page-size"},
		{"start --concurrency 5000", "--concurrency"},
		{"start --orders-per-second NaN", "--orders-per-second"},
		{"pace 2026-11 50", "float"},
		{"pace 0.001", "orders-per-second"},
		{"pace 1e-400", `no room for "1e-400"`}, // which would be no cap
		{"start --orders-per-second=-1e-400", "no room"},
		{"start --page-size 4294967796", "--page-size"},
		{"start --concurrency 18446744073709551680", "--concurrency"},
		{"pace", "orders-per-second"},
		{"watch --interval 0s", "--interval"},
		{"watch --give-up-after=-1s", "--give-up-after"},
		{"watch --api-url localhost:8080", "--api-url"},
		{"watch --billing-timezone Mars/Olympus", "BILLING_TIMEZONE"},
		{"report --ids everyone", "charged_in_run"},
	} {
		code, _, errs := run(t, nil, append([]string{"run"}, strings.Fields(c.args)...)...)
		require.Equal(t, 2, code, c.args)
		require.Contains(t, errs, c.says)
		require.Equal(t, 1, strings.Count(errs, "\n"), errs)
	}
}

func TestRunWatchExitCodes(t *testing.T) {
	for _, c := range []struct {
		state  billing.RunState
		counts billing.RunCounts
		code   int
	}{
		{billing.RunFinished, billing.RunCounts{Charged: 8, Declined: 2}, 0},
		{billing.RunFinished, billing.RunCounts{Charged: 9, Unresolved: 1}, 4},
		{billing.RunFinished, billing.RunCounts{Charged: 9, Pending: 1}, 4},
		{billing.RunCancelled, billing.RunCounts{Charged: 1}, 3},
		{billing.RunAbandoned, billing.RunCounts{Charged: 1, Unresolved: 1}, 3},
	} {
		api := startAPI(t, ok(progress(c.state, c.counts)))
		code, out, errs := run(t, nil, "run", "watch", "2026-11", "--api-url", api.url)
		require.Equal(t, c.code, code, c)
		require.Empty(t, errs)
		require.Contains(t, out, "2026-11/1 "+string(c.state))
		require.Equal(t, c.code == 4, strings.Contains(out, "drayman run report 2026-11"), out)
	}
	api := startAPI(t, problem(404, "run_not_found", "2026-11 has no run"))
	code, _, errs := run(t, nil, "run", "watch", "2026-11", "--api-url", api.url)
	require.Equal(t, 1, code)
	require.Equal(t, "drayman: 2026-11 has no run (run_not_found)\n", errs)
}

// Lines come when the state changes, else every tenth poll, else not at all.
func TestRunWatchPlain(t *testing.T) {
	paused := progress(billing.RunPaused, charged(4))
	paused.Reason = "the shop refuses our credentials"
	var answers []apiAnswer
	for range 35 {
		answers = append(answers, ok(progress(billing.RunRunning, charged(2)))) // nothing changes
	}
	for n := range 3 {
		answers = append(answers, ok(progress(billing.RunRunning, charged(2+n))))
	}
	api := startAPI(t, append(answers, ok(paused), ok(paused), ok(progress(billing.RunFinished, charged(10))))...)
	code, out, _ := run(t, nil, "run", "watch", "2026-11", "--api-url", api.url, "--interval", "10ms")
	require.Zero(t, code)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 4, out)
	require.Regexp(t, `^2026-11/1 running: due 10, charged 2, .* left 8, 0.2 orders/s, expected end 20\d\d-.*Z$`, lines[0])
	require.Regexp(t, `^2026-11/1 running: due 10, charged 3,`, lines[1])
	require.Equal(t, "2026-11/1 paused: due 10, charged 4, declined 0, unresolved 0, pending 0, left 6; the shop refuses our credentials", lines[2])
	require.Regexp(t, `^2026-11/1 finished:`, lines[3])
	require.NotContains(t, out, "\r")
	require.NotContains(t, out, "\x1b")
}

func TestRunWatchSurvivesARestartOfTheAPI(t *testing.T) {
	running := ok(progress(billing.RunRunning, charged(1)))
	api := startAPI(t, running, apiAnswer{status: 200, cut: true, body: ""}, problem(503, "database_unavailable", "try again"),
		problem(503, "database_unavailable", "try again"), running, ok(progress(billing.RunFinished, charged(10))))
	code, out, errs := run(t, nil, "run", "watch", "2026-11", "--api-url", api.url, "--interval", "10ms")
	require.Zero(t, code, errs)
	require.Equal(t, 1, strings.Count(out, "trying on: "), out)
	require.Equal(t, 1, strings.Count(out, "the API answers again\n"), out)
}

func TestRunWatchGivesUp(t *testing.T) {
	code, out, errs := run(t, nil, "run", "watch", "2026-11", "--api-url", "http://127.0.0.1:1", "--interval", "10ms", "--give-up-after", "100ms")
	require.Equal(t, 1, code)
	require.Contains(t, out, "trying on: no answer from the API at http://127.0.0.1:1")
	require.Contains(t, errs, "gave up after 100ms; the run may well go on: no answer")
}

func TestRunWatchInterrupted(t *testing.T) {
	api := startAPI(t, ok(progress(billing.RunRunning, charged(1))))
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	code := make(chan int)
	go func() {
		code <- cmd.Run(ctx, []string{"run", "watch", "2026-11", "--api-url", api.url, "--interval", "10ms"}, func(string) string { return "" }, &out, &errs)
	}()
	require.Eventually(t, func() bool { return len(api.called()) > 2 }, 20*time.Second, time.Millisecond)
	interrupt()
	require.Equal(t, 130, <-code)
	require.True(t, strings.HasSuffix(out.String(), "stopped watching; the run goes on (drayman run watch 2026-11)\n"), out.String())
	require.Empty(t, errs.String())
}

func report(t *testing.T, counts map[billing.ReportClass]int) billing.Report {
	t.Helper()
	return billing.NewReport(progress(billing.RunFinished, charged(10)).Run, []billing.ReportLine{
		{ClubID: 1, SKU: 77, Counts: counts}, {ClubID: 2, SKU: 78, Counts: map[billing.ReportClass]int{billing.ClassDeclined: 1}},
	})
}

func TestRunReport(t *testing.T) {
	api := startAPI(t, ok(report(t, map[billing.ReportClass]int{billing.ClassChargedInRun: 10, billing.ClassSkipped: 2})))
	code, out, errs := run(t, nil, "run", "report", "2026-11", "--api-url", api.url)
	require.Zero(t, code, errs)
	require.Equal(t, []string{"GET /billing-run/2026-11/report"}, api.called())
	require.Contains(t, out, "November 2026, run 1: finished\n13 were eligible at the cut-off, 2026-11-01T06:00:00Z\n")
	require.Regexp(t, `(?m)^charged in run +10$`, out)
	require.Regexp(t, `(?m)^ +1 +77 +10 +0 +0 +0 +0 +2 +0$`, out)
	require.Contains(t, out, "\nThe month is closed.\n")

	open := report(t, map[billing.ReportClass]int{billing.ClassMissing: 2, billing.ClassUnresolved: 1})
	api = startAPI(t, ok(open))
	code, out, errs = run(t, nil, "run", "report", "2026-11", "--api-url", api.url)
	require.Equal(t, 4, code)
	require.Empty(t, errs)
	require.Contains(t, out, "The month is not closed: 2 missing, 1 unresolved. drayman run start 2026-11 charges who is missing.\n")

	code, out, _ = run(t, nil, "run", "report", "2026-11", "--api-url", api.url, "--json")
	require.Equal(t, 4, code)
	var same billing.Report
	require.NoError(t, json.Unmarshal([]byte(out), &same))
	require.Equal(t, open, same)
}

func TestRunReportIDs(t *testing.T) {
	api := startAPI(t, ok(`["a","00000000-0000-000-00000-000000000000"]`))
	code, out, errs := run(t, nil, "run", "report", "2026-11", "--api-url", api.url, "--ids", "missing")
	require.Zero(t, code, errs)
	require.Equal(t, []string{"GET /billing-run/2026-11/report?ids=missing"}, api.called())
	require.Equal(t, "a\n00000000-0000-000-00000-000000000000\n", out)
	code, out, _ = run(t, nil, "run", "report", "2026-11", "--api-url", api.url, "--ids", "missing", "--json")
	require.Zero(t, code)
	require.JSONEq(t, `["a","00000000-0000-000-00000-000000000000"]`, out)

	for _, arg := range []string{"--ids=missing", "--json"} {
		api = startAPI(t, apiAnswer{status: 200, body: `["a","b"`, cut: true})
		code, _, errs = run(t, nil, "run", "report", "2026-11", "--api-url", api.url, "--ids=missing", arg)
		require.Equal(t, 1, code)
		require.Contains(t, errs, "the list is cut off")
	}
	for _, class := range billing.ReportClasses() {
		code, out, _ = run(t, nil, "run", "report", "--help")
		require.Zero(t, code)
		require.Contains(t, out, string(class))
	}
}

func TestRunList(t *testing.T) {
	api := startAPI(t, ok([]billing.Run{progress(billing.RunRunning, charged(0)).Run}))
	code, out, errs := run(t, nil, "run", "list", "--api-url", api.url)
	require.Zero(t, code, errs)
	require.Regexp(t, `(?m)^2026-11/1 +running +10 +2026-11-01T06:00:00Z`, out)
	api = startAPI(t, ok("[]"))
	code, out, _ = run(t, nil, "run", "list", "--api-url", api.url)
	require.Zero(t, code)
	require.Equal(t, "there has been no run yet\n", out)
	code, out, _ = run(t, nil, "run", "list", "--json", "--api-url", api.url)
	require.Zero(t, code)
	require.Equal(t, "[]", fmt.Sprint(strings.TrimSpace(out)))
}
