package activities

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"drayman/billing"
	"drayman/models/modelstest"
)

// starts is a Temporal that notes whose ChargeSubscription is started.
type starts struct {
	Temporal
	ids     []string
	recalls int
	onStart func() // nil: nothing
}

func (s *starts) StartCharge(_ context.Context, req billing.ChargeRequest) error {
	s.ids = append(s.ids, req.SubscriptionID)
	if s.onStart != nil {
		s.onStart()
	}
	return nil
}

func (s *starts) StartRecall(context.Context, string) error {
	s.recalls++
	return nil
}

// watched is a run in a real database, and what is started for it.
type watched struct {
	modelstest.Database
	acts    *Activities
	run     RunRef
	started *starts
}

var (
	november = billing.PeriodAt(time.Date(2026, 11, 15, 0, 0, 0, 0, time.UTC), time.UTC)
	noon     = time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC)
)

func watchedRun(t *testing.T, db modelstest.Database, idempotent bool) *watched {
	t.Helper()
	w := &watched{Database: db, started: &starts{}}
	store := db.Open(t, func() time.Time { return noon })
	found, err := store.Installation(t.Context())
	require.NoError(t, err)
	db.Exec(t, `INSERT INTO billing_run (id, period, number, execution_id, state, cut_off, due, orders_per_second, page_size, concurrency, workflow_per_charge)
		VALUES ('2026-11/1', '2026-11', 1, 'execution', 'running', $1, 1, 0, 500, 64, false)`, modelstest.Long.AddDate(0, 1, 0))
	db.AddClub(t, 1, 7)
	w.run = RunRef{Installation: modelstest.Installation, RunID: "2026-11/1", Period: november, Recalled: found.Recalled, Execution: "e"}
	w.acts = New(Config{Store: store, Policy: Policy{Idempotent: idempotent}, Zone: time.UTC, Temporal: w.started, Log: slog.New(slog.DiscardHandler)})
	return w
}

// addCharges writes n charges of the run, "a-1" and so on, held until the time.
func (w *watched) addCharges(t *testing.T, name string, n int, status billing.ChargeStatus, owner string, until *time.Time) {
	t.Helper()
	w.Exec(t, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
		INSERT INTO charge (request_id, subscription_id, period, status, owner, claimed_until, run_id, customer_id, sku_id, created_at)
		SELECT $2 || '-' || i, $2 || '-' || i, '2026-11', $3, $4, $5, '2026-11/1', 'customer', 7, $6 FROM n`,
		n, name, string(status), owner, until, noon)
}

// atWork is the owner of claims of a page of the run.
func (w *watched) atWork() string { return w.run.pageOwners() + "1" }

// addAllKinds writes a charge of each kind that a sweep may meet.
func (w *watched) addAllKinds(t *testing.T) {
	t.Helper()
	over, holds := noon.Add(-time.Second), noon.Add(time.Second)
	w.addCharges(t, "charged", 1, billing.Charged, w.atWork(), nil)
	w.addCharges(t, "declined", 1, billing.Declined, w.atWork(), nil)
	w.addCharges(t, "earlier page", 1, billing.Pending, "billing-run/2026-11/1 earlier page 1", nil)
	w.addCharges(t, "free", 1, billing.Pending, billing.Nobody, nil)
	w.addCharges(t, "held", 1, billing.Pending, w.atWork(), &holds)
	w.addCharges(t, "hold over", 1, billing.Pending, w.atWork(), &over)
	w.addCharges(t, "page stopped", 1, billing.Pending, w.atWork(), nil)
	w.addCharges(t, "unresolved", 1, billing.Unresolved, billing.ChargeOwner, nil)
	w.addCharges(t, "workflow", 1, billing.Pending, billing.ChargeOwner, nil)
}

func (w *watched) sweep(first bool) *sweep {
	return &sweep{Activities: w.acts, in: WatchRunInput{RunRef: w.run, State: billing.RunRunning, First: first}, started: map[string]time.Time{}}
}

func TestSweep_StartsWhatIsOpen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		idempotent, first bool
		want              []string // of the first look; the later ones start what is free
	}{
		"the run's first watch":                         {true, true, []string{"earlier page-1", "free-1", "hold over-1", "unresolved-1", "workflow-1"}},
		"the run's first watch, shop is not idempotent": {false, true, []string{"earlier page-1", "free-1", "hold over-1", "workflow-1"}},
		"a later watch":                                 {true, false, []string{"earlier page-1", "free-1", "hold over-1", "workflow-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				w := watchedRun(t, db, c.idempotent)
				w.addAllKinds(t)
				s := w.sweep(c.first)
				look := func() []string {
					w.started.ids = nil
					require.NoError(t, s.run(t.Context()))
					return w.started.ids
				}
				require.Equal(t, c.want, look())

				w.addCharges(t, "new", 1, billing.Pending, billing.Nobody, nil)
				require.Equal(t, []string{"new-1"}, look(), "the others were started a moment ago")
				require.Empty(t, look())

				s.started["free-1"] = time.Now().Add(-startedFor)
				require.Equal(t, []string{"free-1"}, look(), "no workflow has claimed it")

				db.Exec(t, "UPDATE charge SET owner = 'charge' WHERE subscription_id = 'new-1'")
				s.started, s.nextAll = map[string]time.Time{}, time.Now()
				require.Equal(t, []string{"earlier page-1", "free-1", "hold over-1", "new-1", "workflow-1"}, look(), "all again, but for the unresolved ones")
			})
		})
	}
}

// A sweep goes through more than it looks up at a time.
func TestSweep_ManyBatches(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		w := watchedRun(t, db, true)
		w.addCharges(t, "free", 2*sweepBatch+1, billing.Pending, billing.Nobody, nil)
		require.NoError(t, w.sweep(false).run(t.Context()))
		require.Len(t, w.started.ids, 2*sweepBatch+1)
	})
}

func TestSweep_RunIsNotRunning(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		for _, state := range []billing.RunState{billing.RunPaused, billing.RunCancelled, billing.RunFinished, billing.RunAbandoned} {
			w := watchedRun(t, db, true)
			w.addCharges(t, "free", 1, billing.Pending, billing.Nobody, nil)
			db.Exec(t, "UPDATE billing_run SET state = $1", string(state))
			require.NoError(t, w.sweep(true).run(t.Context()))
			require.Empty(t, w.started.ids, state)
			for _, table := range []string{"charge", "billing_run", "club_status_history", "club"} {
				db.Exec(t, "DELETE FROM "+table)
			}
		}
	})
}

// Not too many workflows are open at once, but for those that are there already.
func TestSweep_OpenCharges(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		w := watchedRun(t, db, true)
		w.addCharges(t, "open", maxOpenCharges, billing.Pending, billing.ChargeOwner, nil)
		s := w.sweep(false)
		slots := func(all bool) int {
			slots, err := s.nextSlot(t.Context(), all)
			require.NoError(t, err)
			require.Equal(t, billing.RunRunning, slots.State)
			return slots.Count
		}
		require.Zero(t, slots(false))
		require.Equal(t, 1, slots(true), "the whole sweep starts those that are open")
		db.Exec(t, "UPDATE charge SET status = 'charged' WHERE subscription_id = 'open-1'")
		require.Equal(t, 1, slots(false))
		w.addCharges(t, "free", 1, billing.Pending, billing.Nobody, nil)
		require.Equal(t, 1, slots(false), "it is not open yet")
	})
}

// A look at the run ends the watch if its row is in another state, or gone, or in another
// database than the one with which it began.
func TestWatchRun_Looks(t *testing.T) {
	t.Parallel()
	const paused, elsewhere = "UPDATE billing_run SET state = 'paused'", "UPDATE installation SET recalled = 'another'"
	for name, c := range map[string]struct {
		changes  []string
		state    billing.RunState // with which the watch ends; "": it goes on
		replaced bool
	}{
		"nothing has changed":    {nil, "", false},
		"another reason":         {[]string{"UPDATE billing_run SET reason = 'said anew'"}, "", false},
		"another pace":           {[]string{"UPDATE billing_run SET orders_per_second = 3"}, "", false},
		"paused":                 {[]string{paused}, billing.RunPaused, false},
		"cancelled":              {[]string{"UPDATE billing_run SET state = 'cancelled'"}, billing.RunCancelled, false},
		"its row is gone":        {[]string{"DELETE FROM billing_run"}, "", true},
		"replaced":               {[]string{elsewhere}, "", true},
		"replaced, with a pause": {[]string{elsewhere, paused}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				w := watchedRun(t, db, true)
				for _, change := range c.changes {
					db.Exec(t, change)
				}
				out, err := w.acts.lookAtRun(t.Context(), WatchRunInput{RunRef: w.run, State: billing.RunRunning})
				require.NoError(t, err)
				if c.state == "" && !c.replaced {
					require.Nil(t, out)
					return
				}
				require.Equal(t, c.replaced, out.Replaced)
				require.Equal(t, c.state, out.Run.State)
				require.Equal(t, slices.Contains(c.changes, elsewhere), w.started.recalls == 1)
			})
		})
	}
}

// watch runs the activity as a worker does.
func (w *watched) watch(t *testing.T, in WatchRunInput) (out WatchRunOutput) {
	t.Helper()
	suite := testsuite.WorkflowTestSuite{}
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(time.Minute)
	env.RegisterActivity(w.acts)
	value, err := env.ExecuteActivity(w.acts.WatchRun, in)
	require.NoError(t, err)
	require.NoError(t, value.Get(&out))
	return out
}

// A pause ends the sweep before the next start, and the watch with it.
func TestWatchRun_PausedInASweep(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		w := watchedRun(t, db, true)
		w.addCharges(t, "free", 3, billing.Pending, billing.Nobody, nil)
		w.started.onStart = func() { db.Exec(t, "UPDATE billing_run SET state = 'paused'") }
		out := w.watch(t, WatchRunInput{RunRef: w.run, State: billing.RunRunning})
		require.Equal(t, billing.RunPaused, out.Run.State)
		require.Equal(t, []string{"free-1"}, w.started.ids)

		db.Exec(t, "UPDATE billing_run SET state = 'running'")
		out = w.watch(t, WatchRunInput{RunRef: w.run, State: billing.RunPaused})
		require.Equal(t, billing.RunRunning, out.Run.State)
		require.Len(t, w.started.ids, 1, "while it is paused nothing is swept")
	})
}

// Where each charge has a workflow, a page claims no more than these keep up with, and
// nothing while the run is paused.
func TestPage_ClaimForWorkflows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state   billing.RunState
		waiting int
		claims  bool
		stop    string
	}{
		"nothing waits":      {billing.RunRunning, 1, true, ""},
		"almost too many":    {billing.RunRunning, maxWaiting - 1, true, ""},
		"too many":           {billing.RunRunning, maxWaiting, false, ""},
		"paused":             {billing.RunPaused, 1, false, StopRun},
		"paused, too many":   {billing.RunPaused, maxWaiting, false, StopRun},
		"cancelled":          {billing.RunCancelled, 1, false, StopRun},
		"a successor has it": {billing.RunAbandoned, 1, false, StopRun},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				w := watchedRun(t, db, true)
				db.AddSubscription(t, "s", 1, "anna")
				w.addCharges(t, "free", c.waiting, billing.Pending, billing.Nobody, nil)
				w.addCharges(t, "workflow", maxWaiting, billing.Pending, billing.ChargeOwner, nil)
				db.Exec(t, "UPDATE billing_run SET workflow_per_charge = true, state = $1", string(c.state))
				p := &page{Activities: w.acts, in: ChargePageInput{RunRef: w.run, UpTo: "z"}, owner: w.atWork(), perCharge: true}
				require.NoError(t, p.nextBatch(t.Context()))
				require.Equal(t, c.stop, p.out.Stop)
				require.Equal(t, c.claims, p.out.Done)
				want := []string{}
				if c.claims {
					want = []string{"pending " + billing.Nobody}
				}
				require.Equal(t, want, db.Lines(t, `SELECT status || ' ' || owner FROM charge
					WHERE subscription_id = 's' AND sent_at IS NULL AND claimed_until IS NULL`))
			})
		})
	}
}
