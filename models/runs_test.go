package models_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

// settings are those of a run at a pace, in orders a second.
func settings(pace float64) billing.RunSettings {
	return billing.RunSettings{OrdersPerSecond: pace}.WithDefaults()
}

// runOf starts a run of the period, also of one that is over.
func runOf(period billing.Period, execution string, s billing.RunSettings) billing.RunStart {
	return billing.RunStart{Period: period, ExecutionID: execution, Settings: s, ConfirmPast: true, Zone: time.UTC}
}

// begun starts the run as its installation does.
func begun(s *models.Store, start billing.RunStart) (*billing.Run, error) {
	start.Installation = modelstest.Installation
	run, _, err := s.StartRun(context.Background(), start)
	return run, err
}

func startRun(t require.TestingT, s *models.Store, execution string, pace float64) *billing.Run {
	run, err := begun(s, runOf(november, execution, settings(pace)))
	require.NoError(t, err)
	return run
}

func TestStartRun(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for i, status := range []billing.ChargeStatus{billing.Pending, billing.Charged, billing.Unresolved, billing.Declined} {
			id := fmt.Sprintf("t-%d", i)
			b.AddSubscription(t, id, 1, "x")
			for _, period := range []string{"2026-10", "2026-11"} {
				b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
					VALUES ($1, $2, $3, $4, '', '', 1, $5)`, period+id, id, period, string(status), day(0))
			}
		}
		b.AddSubscription(t, "without a customer", 1, "")
		b.AddSubscription(t, "cancelled", 1, "x", modelstest.Since(billing.Cancelled, modelstest.Long))
		b.AddSubscription(t, "from tomorrow on", 1, "x", modelstest.Since(billing.Active, day(1)))
		wanted := billing.RunSettings{OrdersPerSecond: 2.5, PageSize: 3, Concurrency: 4, WorkflowPerCharge: true}

		run, err := begun(b.Store, runOf(november, "execution", wanted))

		require.NoError(t, err)
		want := billing.Run{
			ID: "2026-11/1", Period: november, Number: 1, State: billing.RunRunning, Settings: wanted, CutOff: day(0),
			Due: 3, ExecutionID: "execution",
		}
		require.Equal(t, want, *run)
		b.clock.set(day(1))
		again, err := begun(b.Store, runOf(november, "execution", settings(0)))
		require.NoError(t, err)
		require.Equal(t, want, *again, "an activity that runs again")
		stands, err := b.Run(t.Context(), november)
		require.NoError(t, err)
		require.Equal(t, want, *stands)
	})
}

func TestStartRun_NumbersAndSucceeds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		_, err := b.Run(t.Context(), november)
		require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(err))
		first := startRun(t, b.Store, "a", 0)
		other, err := begun(b.Store, runOf(october, "b", settings(0)))
		require.NoError(t, err)
		require.Equal(t, "2026-10/1", other.ID)
		_, err = b.ChangeRun(t.Context(), first.ID, billing.RunChange{State: billing.RunPaused, Reason: "a person"})
		require.NoError(t, err)
		b.clock.set(day(1))
		second := startRun(t, b.Store, "c", 0)
		_, err = b.ChangeRun(t.Context(), second.ID, billing.RunChange{State: billing.RunFinished, Reason: ""})
		require.NoError(t, err)
		b.clock.set(day(2))
		for n := 3; n <= 11; n++ {
			require.Equal(t, fmt.Sprintf("2026-11/%d", n), startRun(t, b.Store, fmt.Sprint(n), 0).ID)
		}

		all, err := b.Runs(t.Context())
		require.NoError(t, err)
		said := []string{}
		for _, r := range all {
			ended := ""
			if r.EndedAt != nil {
				ended = " " + r.EndedAt.Format(time.DateOnly)
			}
			said = append(said, r.ID+" "+string(r.State)+ended)
		}
		require.Equal(t, []string{"2026-11/11 running", "2026-11/10 abandoned 2026-11-03"}, said[:2])
		require.Equal(t, []string{"2026-11/2 finished 2026-11-02", "2026-11/1 abandoned 2026-11-02", "2026-10/1 running"}, said[len(said)-3:])
		newest, err := b.Run(t.Context(), november)
		require.NoError(t, err)
		require.Equal(t, 11, newest.Number, "by number, not by text")
		known := startRun(t, b.Store, "a", 0)
		require.Equal(t, billing.RunAbandoned, known.State, "a late retry wakes nothing")
	})
}

// Two executions of one period at once: both are recorded, and one is open.
func TestStartRun_AtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for round := range 10 {
			failures := make([]error, 8)
			together(len(failures), func(i int) {
				_, failures[i] = begun(b.Store, runOf(november, fmt.Sprintf("%d-%d", round, i/2), settings(0)))
			})
			for _, err := range failures {
				require.NoError(t, err)
			}
			require.Len(t, b.Lines(t, "SELECT id FROM billing_run WHERE ended_at IS NULL"), 1)
			require.Len(t, b.Lines(t, "SELECT id FROM billing_run"), 4*(round+1), "one for each execution")
		}
	})
}

func TestChangeRun_StatesAndPace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		change := func(id string, c billing.RunChange) *billing.Run {
			t.Helper()
			run, err := b.ChangeRun(t.Context(), id, c)
			require.NoError(t, err)
			return run
		}
		for i, end := range []billing.RunState{billing.RunFinished, billing.RunCancelled} {
			b.clock.set(day(0))
			run := startRun(t, b.Store, fmt.Sprint(i), 3)
			run.State, run.Reason = billing.RunPaused, "it's ü"
			require.Equal(t, run, change(run.ID, billing.PauseRun("it's ü")))
			run.State, run.Reason = billing.RunRunning, ""
			require.Equal(t, run, change(run.ID, billing.RunChange{State: billing.RunRunning}))
			run.Settings.OrdersPerSecond = 0.25
			require.Equal(t, run, change(run.ID, billing.RunChange{OrdersPerSecond: new(0.25)}))
			run.State, run.Reason, run.EndedAt = end, "over", new(day(0))
			require.Equal(t, run, change(run.ID, billing.RunChange{State: end, Reason: "over"}))

			b.clock.set(day(1))
			for _, late := range []billing.RunChange{
				{State: billing.RunRunning}, {State: billing.RunPaused}, {State: billing.RunFinished}, {State: billing.RunCancelled}, {OrdersPerSecond: new(7.0)},
			} {
				_, err := b.ChangeRun(t.Context(), run.ID, late)
				require.Equal(t, billing.CodeRunNotActive, billing.CodeOf(err))
			}
			after, err := b.RunByID(t.Context(), run.ID)
			require.NoError(t, err)
			require.Equal(t, run, after)
		}
		for _, id := range []string{"2026-11/99", "", "' OR 1=1"} {
			for _, c := range []billing.RunChange{{State: billing.RunPaused}, {OrdersPerSecond: new(1.0)}} {
				_, err := b.ChangeRun(t.Context(), id, c)
				require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(err))
			}
			_, err := b.ReserveSlots(t.Context(), id, 1)
			require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(err))
		}
		run := startRun(t, b.Store, "bad", 3)
		for _, bad := range []billing.RunChange{{}, {State: billing.RunAbandoned}, {State: "rum"}, {OrdersPerSecond: new(-3.0)}} {
			_, err := b.ChangeRun(t.Context(), run.ID, bad)
			require.Equal(t, billing.CodeInvalid, billing.CodeOf(err))
		}
	})
}

// A worker that repeats an update of Temporal's does not undo what came after it.
func TestChangeRun_UpdateIsMadeOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		run := startRun(t, b.Store, "a", 0)
		pause := billing.RunChange{State: billing.RunPaused, UpdateID: "execution/1"}
		for _, c := range []billing.RunChange{pause, {State: billing.RunRunning, UpdateID: "execution/2"}, pause, pause} {
			_, err := b.ChangeRun(t.Context(), run.ID, c)
			require.NoError(t, err)
		}
		stands, err := b.RunByID(t.Context(), run.ID)
		require.NoError(t, err)
		require.Equal(t, billing.RunRunning, stands.State)

		_, err = b.ChangeRun(t.Context(), run.ID, billing.RunChange{State: billing.RunCancelled})
		require.NoError(t, err)
		_, err = b.ChangeRun(t.Context(), run.ID, pause)
		require.NoError(t, err, "it was made when the run was active")
	})
}

// What a cancelled run has claimed and certainly not sent, for a workflow that was not
// started yet, is no order and will be none. All else goes on.
func TestChangeRun_CancelWithdrawsWhatWasNotSent(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		for _, c := range []struct {
			name, owner string
			sent, until any
		}{
			{"let go", billing.Nobody, nil, nil},
			{"of a page that has stopped", "billing-run/2026-11/2 e page 1", nil, nil},
			{"in doubt", billing.Nobody, day(0), nil},
			{"a workflow's", billing.ChargeOwner, nil, nil},
			{"held", "page 1", day(0), day(1)},
		} {
			b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, run_id, sent_at, claimed_until)
				VALUES ($1, $1, '2026-11', 'pending', $2, '', 1, $3, $4, $5, $6)`, c.name, c.owner, day(0), thisRun.ID, c.sent, c.until)
		}
		_, err := b.ChangeRun(t.Context(), thisRun.ID, billing.RunChange{State: billing.RunCancelled})
		require.NoError(t, err)
		const withdrawn = "SELECT request_id FROM charge WHERE status = 'withdrawn' ORDER BY 1"
		require.Equal(t, []string{"let go", "of a page that has stopped"}, b.Lines(t, withdrawn))

		b.Exec(t, "UPDATE charge SET claimed_until = NULL, sent_at = NULL WHERE request_id = 'held'") // its page has let it go since
		require.NoError(t, b.WithdrawCancelled(t.Context(), thisRun.ID))
		require.Equal(t, []string{"held", "let go", "of a page that has stopped"}, b.Lines(t, withdrawn))
		b.Exec(t, "UPDATE charge SET status = 'pending'")
		b.Exec(t, "UPDATE billing_run SET state = 'running', ended_at = NULL")
		require.NoError(t, b.WithdrawCancelled(t.Context(), thisRun.ID))
		require.Empty(t, b.Lines(t, withdrawn), "it is not cancelled")
	})
}

// A run pauses with what the shop said, or a person wrote in the Temporal UI: no
// text may keep it from pausing.
func TestChangeRun_AnyReasonPauses(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		run := startRun(t, b.Store, "a", 0)
		for _, reason := range nastyTexts {
			paused, err := b.ChangeRun(t.Context(), run.ID, billing.RunChange{State: billing.RunPaused, Reason: reason})
			require.NoError(t, err)
			require.Equal(t, billing.RunPaused, paused.State)
			require.NotEmpty(t, paused.Reason)
			require.LessOrEqual(t, len([]rune(paused.Reason)), 1024)
		}
		long := strings.Repeat("ä", 1024)
		paused, err := b.ChangeRun(t.Context(), run.ID, billing.RunChange{State: billing.RunPaused, Reason: long})
		require.NoError(t, err)
		require.Equal(t, long, paused.Reason)
	})
}

// reserve asks for slots of a run and returns when each of them is.
func reserve(t require.TestingT, s *models.Store, runID string, count int, now time.Time) (billing.Slots, []time.Time) {
	slots, err := s.ReserveSlots(context.Background(), runID, count)
	require.NoError(t, err)
	require.LessOrEqual(t, slots.Count, count)
	require.GreaterOrEqual(t, slots.Count, 0)
	require.GreaterOrEqual(t, slots.Wait, time.Duration(0))
	now = now.Truncate(time.Microsecond) // as the Store takes it
	times := make([]time.Time, slots.Count)
	for i := range times {
		times[i] = now.Add(slots.Wait + time.Duration(i)*slots.Interval)
	}
	return slots, times
}

// requirePaced says that no window has more than pace times its length, and one.
// A window that does begins and ends at slots, so those are all there are to try.
func requirePaced(t require.TestingT, given []time.Time, pace float64) {
	slices.SortFunc(given, time.Time.Compare)
	step := max(1, len(given)/500)
	for i := 0; i < len(given); i += step {
		for _, j := range []int{i, min(i+1, len(given)-1), (i + len(given)) / 2, len(given) - 1} {
			window := given[j].Sub(given[i]).Seconds()
			require.LessOrEqual(t, float64(j-i+1), pace*window+1+1e-6, "%d slots in %v s at %v a second", j-i+1, window, pace)
		}
	}
}

func TestReserveSlots_KeepThePace(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		c, runs := &clock{}, 0
		b := bundle{db, db.Open(t, c.Now), c}
		rapid.Check(t, func(t *rapid.T) {
			now := day(0)
			c.set(now)
			b.do(t, "DELETE FROM billing_run")
			paces, ids, given := []float64{}, []string{}, [][]time.Time{}
			for i := range rapid.IntRange(1, 2).Draw(t, "runs") {
				runs++
				pace := rapid.OneOf(
					rapid.SampledFrom([]float64{0.01, 0.3, 1, 3, 7, 999, 70_000, 99_999, 100_000}), rapid.Float64Range(0.01, 100_000),
				).Draw(t, "pace")
				run, err := begun(b.Store, runOf([]billing.Period{november, october}[i], fmt.Sprint(runs), settings(pace)))
				require.NoError(t, err)
				paces, ids, given = append(paces, pace), append(ids, run.ID), append(given, nil)
			}
			for range rapid.IntRange(1, 15).Draw(t, "asks") {
				i := rapid.IntRange(0, len(ids)-1).Draw(t, "run")
				slots, times := reserve(t, b.Store, ids[i], rapid.SampledFrom([]int{1, 2, 10, 500, 5000}).Draw(t, "count"), now)
				require.Equal(t, billing.RunRunning, slots.State)
				given[i] = append(given[i], times...)
				if slots.Count == 0 {
					require.Greater(t, slots.Wait, 500*time.Millisecond)
				}
				switch rapid.IntRange(0, 3).Draw(t, "then") {
				case 0:
					now = now.Add(slots.Wait)
				case 1:
					now = now.Add(time.Duration(rapid.IntRange(0, 3_000_000).Draw(t, "µs")) * time.Microsecond)
				case 2:
					now = now.Add(slots.Wait + time.Duration(slots.Count)*slots.Interval)
				}
				c.set(now)
			}
			for i := range ids {
				requirePaced(t, given[i], paces[i])
			}
		})
	})
}

// do does by hand what a property asks.
func (b bundle) do(t require.TestingT, query string) {
	_, err := b.Pool.ExecContext(context.Background(), query)
	require.NoError(t, err)
}

// A pace holds over hours, not only over the next second: rounding adds up.
func TestReserveSlots_PaceDoesNotDrift(t *testing.T) {
	t.Parallel()
	b := setup(t, modelstest.SQLite(t))
	for _, pace := range []float64{3, 7, 70_000} {
		run := startRun(t, b.Store, fmt.Sprint(pace), pace)
		now, given := b.clock.Now(), 0
		begun := now
		for range 300 {
			slots, times := reserve(t, b.Store, run.ID, math.MaxInt32, now)
			if given += slots.Count; slots.Count > 0 {
				window := times[len(times)-1].Sub(begun).Seconds()
				require.LessOrEqual(t, float64(given), pace*window+1+1e-6)
				require.GreaterOrEqual(t, float64(given), pace*window*0.999)
			}
			now = now.Add(slots.Wait + time.Duration(slots.Count)*slots.Interval)
			b.clock.set(now.Truncate(time.Microsecond))
			now = b.clock.Now()
		}
	}
}

func TestReserveSlots_RunIsNotRunning(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for _, pace := range []float64{0, 5} {
			for _, state := range []billing.RunState{billing.RunPaused, billing.RunFinished, billing.RunCancelled, billing.RunAbandoned} {
				run := startRun(t, b.Store, fmt.Sprint(pace, state), pace)
				b.Exec(t, "UPDATE billing_run SET state = $1 WHERE id = $2", string(state), run.ID)
				slots, err := b.ReserveSlots(t.Context(), run.ID, 10)
				require.NoError(t, err)
				require.Equal(t, billing.Slots{State: state}, slots, "slots are given only while it runs")
			}
		}
		require.Equal(t, []string{}, b.Lines(t, "SELECT id FROM billing_run WHERE next_slot IS NOT NULL"))
	})
}

func TestReserveSlots_NoPaceAndChangedPace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		run := startRun(t, b.Store, "a", 0)
		all := billing.Slots{State: billing.RunRunning, Count: 1_000_000}
		for range 3 {
			slots, _ := reserve(t, b.Store, run.ID, all.Count, day(0))
			require.Equal(t, all, slots)
		}
		pace := func(p float64, at time.Time) {
			b.clock.set(at)
			_, err := b.ChangeRun(t.Context(), run.ID, billing.RunChange{OrdersPerSecond: new(float64(p))})
			require.NoError(t, err)
		}
		pace(0.01, day(0))
		slots, _ := reserve(t, b.Store, run.ID, 10, day(0))
		require.Equal(t, billing.Slots{State: billing.RunRunning, Wait: time.Second, Interval: 100 * time.Second}, slots,
			"those given before the change reach so far")
		later := day(0).Add(time.Second)
		b.clock.set(later)
		slots, _ = reserve(t, b.Store, run.ID, 10, later)
		require.Equal(t, billing.Slots{State: billing.RunRunning, Count: 1, Interval: 100 * time.Second}, slots)
		slots, _ = reserve(t, b.Store, run.ID, 10, later)
		require.Equal(t, billing.Slots{State: billing.RunRunning, Wait: 100 * time.Second, Interval: 100 * time.Second}, slots)
		pace(100, later)
		later = later.Add(time.Second)
		b.clock.set(later)
		slots, _ = reserve(t, b.Store, run.ID, 20, later)
		require.Equal(t, billing.Slots{State: billing.RunRunning, Count: 20, Interval: 10 * time.Millisecond}, slots, "the slow slot holds nothing up")
		slots, _ = reserve(t, b.Store, run.ID, 1000, later)
		require.Equal(t, billing.Slots{State: billing.RunRunning, Count: 50, Wait: 200 * time.Millisecond, Interval: 10 * time.Millisecond}, slots)
		pace(0, later)
		slots, _ = reserve(t, b.Store, run.ID, all.Count, later)
		require.Equal(t, all, slots)
	})
}

// Pages of several workers ask at once.
func TestReserveSlots_AtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		const pace = 50.0
		run := startRun(t, b.Store, "a", pace)
		var mu sync.Mutex
		var given []time.Time
		for step := range 4 {
			now := day(0).Add(time.Duration(step) * 400 * time.Millisecond)
			b.clock.set(now)
			together(8, func(i int) {
				for range 3 {
					_, times := reserve(t, b.Store, run.ID, 1+i, now)
					mu.Lock()
					given = append(given, times...)
					mu.Unlock()
				}
			})
		}
		require.Greater(t, len(given), 50)
		requirePaced(t, given, pace)
		slices.SortFunc(given, time.Time.Compare)
		require.Len(t, slices.Compact(given), len(given), "no slot is given twice")
	})
}

func TestRunCounts(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		want := billing.RunCounts{Charged: 1, Declined: 2, Pending: 3, Unresolved: 4}
		for status, n := range map[billing.ChargeStatus]int{billing.Charged: 1, billing.Declined: 2, billing.Pending: 3, billing.Unresolved: 4} {
			for _, run := range []any{thisRun.ID, "2026-11/20", nil} {
				for i := range n {
					id := fmt.Sprintf("%s %v %d", status, run, i)
					b.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, run_id, customer_id, sku_id, created_at)
						VALUES ($1, $2, '2026-11', $3, 'o', $4, '', 1, $5)`, id, id, string(status), run, day(0))
				}
			}
		}
		_, err := b.RunCounts(t.Context(), thisRun.ID)
		require.Equal(t, billing.CodeRunNotFound, billing.CodeOf(err), "its record is gone, with a restored database")
		for range 3 {
			startRun(t, b.Store, rand.Text(), 0)
		}
		counts, err := b.RunCounts(t.Context(), thisRun.ID)
		require.NoError(t, err)
		want.First = day(0)
		require.Equal(t, want, counts)
		require.Equal(t, 10, counts.Tried())
		counts, err = b.RunCounts(t.Context(), "2026-11/3")
		require.NoError(t, err)
		require.Zero(t, counts)
	})
}
