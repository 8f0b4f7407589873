package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"drayman/billing"
)

// watchFlags say how a run is followed.
type watchFlags struct {
	Interval    time.Duration `once:"" help:"With watching: how often to ask, 10ms to 1h." default:"1s"`
	GiveUpAfter time.Duration `once:"" help:"With watching: how long the API may be silent." default:"60s"`
}

func (f *watchFlags) validate() error {
	if f.Interval < 10*time.Millisecond || f.Interval > time.Hour {
		return fmt.Errorf("--interval: must be 10ms to 1h, not %s", f.Interval)
	}
	if f.GiveUpAfter < 0 {
		return errors.New("--give-up-after: must not be negative")
	}
	return nil
}

// watcher follows a run to its end.
type watcher struct {
	api    *runAPI
	target *runTarget
	flags  watchFlags
	view   *watchView
	meter  rateMeter

	awaited bool   // the run may not be on record yet
	before  string // the run that was there before it
}

func newWatcher(env *environment, api *runAPI, target *runTarget, flags watchFlags) *watcher {
	return &watcher{api: api, target: target, flags: flags, view: newWatchView(env)}
}

// errInterrupted says that a person has ended the watching.
var errInterrupted = errors.New("interrupted")

// watch shows the run until it has ended. If the watching went well, and the run did not,
// the error is the exit code.
func (w *watcher) watch(ctx context.Context) error {
	p, err := w.follow(ctx)
	switch {
	case errors.Is(err, errInterrupted):
		w.view.line(fmt.Sprintf("stopped watching; the run goes on (drayman run watch %s)", w.target.Period))
		return exitCode(exitInterrupted)
	case err != nil:
		w.view.end()
		return err
	}
	w.view.line(summary(p))
	switch open := p.Counts.Pending + p.Counts.Unresolved; {
	case p.State != billing.RunFinished:
		return exitCode(exitEnded)
	case open > 0:
		w.view.line(fmt.Sprintf("%d are pending or unresolved: drayman run report %s", open, p.Period))
		return exitCode(exitOpen)
	}
	return nil
}

// follow polls and draws until the run has ended.
func (w *watcher) follow(ctx context.Context) (billing.Progress, error) {
	ticker := time.NewTicker(w.flags.Interval)
	defer ticker.Stop()
	answered := time.Now()
	for {
		p, err := w.poll(ctx)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return p, errInterrupted
		case err == nil && isFinal(p.State):
			return p, nil
		case err == nil:
			answered = now
			w.view.show(p, w.meter.rate(p, now), now)
		case !isTransient(err) && !errors.Is(err, errNoRunYet):
			return p, err
		case now.Sub(answered) >= w.flags.GiveUpAfter:
			return p, fmt.Errorf("gave up after %s; the run may well go on: %w", w.flags.GiveUpAfter, err)
		default:
			w.view.trouble(err, now.Sub(answered))
		}
		select {
		case <-ctx.Done():
			return p, errInterrupted
		case <-ticker.C:
		}
	}
}

func isFinal(s billing.RunState) bool {
	return s == billing.RunFinished || s == billing.RunCancelled || s == billing.RunAbandoned
}

// errNoRunYet: the run has been started, and no worker has taken it up.
var errNoRunYet = errors.New("no worker has taken the run up yet")

// pollTimeout bounds one look at the run.
const pollTimeout = 10 * time.Second

// poll asks once. A run that was started a moment ago may not be on record yet; then the
// answer is none, or its predecessor.
func (w *watcher) poll(ctx context.Context) (billing.Progress, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	p, err := w.api.progress(ctx, http.MethodGet, w.target.path(), nil)
	if w.awaited && (isNoRun(err) || err == nil && p.ID == w.before) {
		return p.Progress, errNoRunYet
	}
	w.awaited = w.awaited && err != nil
	return p.Progress, err
}

// rateMeter works out the recent pace from successive polls: an average since
// the start would hide a run that has come to a halt.
type rateMeter struct {
	run     string
	samples []rateSample
}

type rateSample struct {
	at   time.Time
	done int
}

// rateSamples is how many polls the pace is taken over.
const rateSamples = 11

// rate returns the orders a second of late; the average of the whole run until
// there are two polls to compare, 0 while the run is paused.
func (m *rateMeter) rate(p billing.Progress, now time.Time) float64 {
	if p.State != billing.RunRunning || p.ID != m.run {
		m.run, m.samples = p.ID, nil
	}
	if p.State != billing.RunRunning {
		return 0
	}
	m.samples = append(m.samples, rateSample{now, p.Counts.Tried() - p.Counts.Pending})
	m.samples = m.samples[max(0, len(m.samples)-rateSamples):]
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	spent := last.at.Sub(first.at).Seconds()
	if spent <= 0 {
		return p.OrdersPerSecond
	}
	return max(0, float64(last.done-first.done)/spent)
}

// remaining is how long the run needs at the rate; false if it cannot be told.
func remaining(p billing.Progress, rate float64) (time.Duration, bool) {
	seconds := float64(p.Left) / rate
	if rate <= 0 || p.Left == 0 || seconds > 366*24*3600 {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second), true
}

// plainLine is the progress without a terminal; programs may read it.
func plainLine(p billing.Progress, rate float64) string {
	line := fmt.Sprintf("%s %s: due %d, charged %d, declined %d, unresolved %d, pending %d, left %d",
		p.ID, p.State, p.Due, p.Counts.Charged, p.Counts.Declined, p.Counts.Unresolved, p.Counts.Pending, p.Left)
	if p.State == billing.RunRunning {
		line += fmt.Sprintf(", %.1f orders/s", rate)
	}
	if p.Reason != "" && p.State != billing.RunRunning { // else it is that of a past pause
		line += "; " + oneLine(p.Reason)
	}
	return line
}

// summary is the last line about a run.
func summary(p billing.Progress) string {
	line := plainLine(p, 0)
	if p.EndedAt != nil && p.BegunAt != nil {
		line += fmt.Sprintf("; took %s", p.EndedAt.Sub(*p.BegunAt).Round(time.Second))
	}
	return line
}

// plainEvery is how many polls lie between two lines without a terminal, as long as the
// state does not change.
const plainEvery = 10

// watchView draws the progress: one line, redrawn, on a terminal; a line now and
// then elsewhere.
type watchView struct {
	out   io.Writer
	width func() int // of the terminal; 0: there is none

	drawn    bool // the line on the terminal is not ended
	polls    int  // since the last plain line
	last     string
	state    string
	troubled bool
}

func newWatchView(env *environment) *watchView {
	v := &watchView{out: env.stdout, width: func() int { return 0 }}
	file, ok := env.stdout.(*os.File)
	if ok && term.IsTerminal(int(file.Fd())) && env.getenv("TERM") != "dumb" {
		v.width = func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil || width <= 0 {
				return 80
			}
			return width
		}
	}
	return v
}

// show draws the progress.
func (v *watchView) show(p billing.Progress, rate float64, now time.Time) {
	if width := v.width(); width > 0 {
		v.redraw(barLine(p, rate, now, width-1))
		return
	}
	if v.troubled {
		v.troubled = false
		v.line("the API answers again")
	}
	left, known := remaining(p, rate)
	line, state := plainLine(p, rate), p.ID+string(p.State)+p.Reason
	v.polls++
	if v.state == state && (v.polls < plainEvery || v.last == counts(p)) {
		return
	}
	if known {
		line += fmt.Sprintf(", expected end %s", now.Add(left).UTC().Format(time.RFC3339))
	}
	v.polls, v.state, v.last = 0, state, counts(p)
	v.line(line)
}

func counts(p billing.Progress) string { return fmt.Sprint(p.Due, p.Left, p.Counts) }

// trouble notes that there is no answer: once, or on the line of the terminal.
func (v *watchView) trouble(err error, since time.Duration) {
	if width := v.width(); width > 0 {
		v.redraw(cut(fmt.Sprintf("trying on for %s: %s", since.Round(time.Second), oneLine(err.Error())), width-1))
	} else if !v.troubled {
		v.troubled = true
		v.line("trying on: " + oneLine(err.Error()))
	}
}

func (v *watchView) redraw(line string) {
	fmt.Fprintf(v.out, "\r%s\x1b[K", line)
	v.drawn = true
}

// line prints a line that stays.
func (v *watchView) line(text string) {
	if v.drawn {
		fmt.Fprint(v.out, "\r\x1b[K")
		v.drawn = false
	}
	fmt.Fprintln(v.out, text)
}

// end leaves the last drawn line where it is.
func (v *watchView) end() {
	if v.drawn {
		fmt.Fprintln(v.out)
		v.drawn = false
	}
}

// piece is a part of the bar's line. If the terminal is too narrow, those of the highest
// rank are left out first.
type piece struct {
	text string
	rank int
}

// maxRank is the highest rank of a piece; minBar and maxBar are widths of the bar.
const (
	maxRank = 7

	minBar = 10
	maxBar = 40
)

// barLine is the progress on one line of at most width columns.
func barLine(p billing.Progress, rate float64, now time.Time, width int) string {
	pieces := barPieces(p, rate, now)
	for rank := maxRank; rank > 0 && length(pieces)+minBar+3 > width; rank-- {
		pieces = without(pieces, rank)
	}
	bar := drawBar(p.Counts.Tried()-p.Counts.Pending, p.Due, min(maxBar, max(minBar, width-length(pieces)-3)))
	texts := []string{p.Period.String(), bar}
	for _, piece := range pieces[1:] {
		texts = append(texts, piece.text)
	}
	return cut(strings.Join(texts, " "), width)
}

func barPieces(p billing.Progress, rate float64, now time.Time) []piece {
	pieces := []piece{{p.Period.String(), 0}}
	if p.State == billing.RunPaused {
		pieces = append(pieces, piece{strings.TrimRight("paused: "+oneLine(p.Reason), ": "), 0})
	}
	pieces = append(pieces,
		piece{"due " + grouped(p.Due), 7},
		piece{"charged " + grouped(p.Counts.Charged), 1},
		piece{"declined " + grouped(p.Counts.Declined), 5},
		piece{"unresolved " + grouped(p.Counts.Unresolved), 3},
		piece{"left " + grouped(p.Left), 6})
	if p.Counts.Pending > 0 {
		pieces = append(pieces, piece{"pending " + grouped(p.Counts.Pending), 3})
	}
	if p.State != billing.RunRunning {
		return pieces
	}
	pace := fmt.Sprintf("%.1f/s", rate)
	if rate >= 10 {
		pace = grouped(int(rate)) + "/s"
	}
	pieces = append(pieces, piece{pace, 2})
	if left, known := remaining(p, rate); known {
		form := "15:04:05"
		if left > 12*time.Hour {
			form = "Jan 2 15:04"
		}
		pieces = append(pieces, piece{"end " + now.Add(left).Format(form), 4})
	}
	return pieces
}

func without(pieces []piece, rank int) []piece {
	var rest []piece
	for _, p := range pieces {
		if p.rank != rank {
			rest = append(rest, p)
		}
	}
	return rest
}

func length(pieces []piece) int {
	n := len(pieces) // a space before each, and one for the bar
	for _, p := range pieces {
		n += len([]rune(p.text))
	}
	return n
}

// drawBar is [=====>    ], full only when all are done.
func drawBar(done, due, width int) string {
	full := width
	if done < due {
		full = done * width / due
	}
	bar := strings.Repeat("=", full)
	if full < width {
		bar += ">" + strings.Repeat(" ", width-full-1)
	}
	return "[" + bar + "]"
}

func cut(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:max(0, width)])
	}
	return text
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
