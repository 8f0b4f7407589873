package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"gorm.io/gorm"

	"drayman/billing"
)

type runRow struct {
	ID                string `gorm:"primaryKey"`
	Period            string
	Number            int
	ExecutionID       string
	State             string
	Reason            *string
	CutOff            timestamp
	Due               int
	OrdersPerSecond   float64
	PageSize          int
	Concurrency       int
	WorkflowPerCharge bool
	NextSlot          *timestamp
	EndedAt           *timestamp
}

func (runRow) TableName() string { return "billing_run" }

func (r runRow) run() (*billing.Run, error) {
	period, _ := billing.ParsePeriod(r.Period) // none, where a person has written what is no month
	return &billing.Run{
		ID: r.ID, Period: period, Number: r.Number, State: billing.RunState(r.State), Reason: valueOf(r.Reason),
		CutOff: r.CutOff.Time, Due: r.Due, EndedAt: timeOf(r.EndedAt), ExecutionID: r.ExecutionID,
		Settings: billing.RunSettings{
			OrdersPerSecond: r.OrdersPerSecond, PageSize: r.PageSize, Concurrency: r.Concurrency, WorkflowPerCharge: r.WorkflowPerCharge,
		},
	}, nil
}

// StartRun records a new run, with its cut-off and how many are due, or returns
// the one that the execution has recorded before. A run of the period that has
// not ended was lost by Temporal: it becomes abandoned.
//
// It returns the refusals of [billing.RunStart.CutOff], at the database's time, and of
// [billing.Installation].
func (s *Store) StartRun(ctx context.Context, start billing.RunStart) (*billing.Run, error) {
	var started *billing.Run
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		if err := s.mayCharge(tx, ""); err != nil {
			return err
		}
		if err := s.lockRunsOf(tx, start.Period); err != nil {
			return err
		}
		known, err := readRun(tx.Where("execution_id = ?", start.ExecutionID))
		if billing.CodeOf(err) != billing.CodeRunNotFound {
			started = known
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		cutOff, err := start.CutOff(now)
		if err != nil {
			return err
		}
		err = tx.Model(&runRow{}).Where("period = ? AND ended_at IS NULL", start.Period.String()).
			Updates(map[string]any{"state": string(billing.RunAbandoned), "ended_at": timestamp{now}}).Error
		if err != nil {
			return err
		}
		row := newRunRow(start, cutOff)
		if err := tx.Raw("SELECT COALESCE(max(number), 0) + 1 FROM billing_run WHERE period = ?", row.Period).Scan(&row.Number).Error; err != nil {
			return err
		}
		if row.Due, err = s.countDue(tx, start.Period, cutOff, now); err != nil {
			return err
		}
		row.ID = fmt.Sprintf("%s/%d", start.Period, row.Number)
		if err := tx.Create(&row).Error; err != nil {
			return err
		}
		started, err = row.run()
		return err
	})
	return started, err
}

// lockRunsOf lets one run of the period begin at a time: each must find the one
// before it. On SQLite the immediate transaction does it.
func (s *Store) lockRunsOf(tx *gorm.DB, period billing.Period) error {
	if s.dialect == SQLite {
		return nil
	}
	return tx.Exec("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", "drayman run "+period.String()).Error
}

func newRunRow(start billing.RunStart, cutOff time.Time) runRow {
	return runRow{
		Period: start.Period.String(), ExecutionID: start.ExecutionID, State: string(billing.RunRunning), CutOff: timestamp{cutOff},
		OrdersPerSecond: start.Settings.OrdersPerSecond, PageSize: start.Settings.PageSize,
		Concurrency: start.Settings.Concurrency, WorkflowPerCharge: start.Settings.WorkflowPerCharge,
	}
}

// CountDue counts who would be due now in a run of the period with the cut-off,
// and is not charged for it.
func (s *Store) CountDue(ctx context.Context, period billing.Period, cutOff time.Time) (int, error) {
	tx := s.read.WithContext(ctx)
	now, err := s.now(tx)
	if err != nil {
		return 0, err
	}
	return s.countDue(tx, period, cutOff, now)
}

func (s *Store) countDue(tx *gorm.DB, period billing.Period, cutOff, now time.Time) (int, error) {
	var due int
	err := tx.Raw(s.sql(`SELECT count(*) FROM subscription s WHERE `+isDue+` AND `+notOpenYet),
		sql.Named("at", timestamp{now}), sql.Named("cutoff", timestamp{cutOff}), sql.Named("period", period.String())).Scan(&due).Error
	return due, err
}

// Run reads the period's newest run, or returns run_not_found.
func (s *Store) Run(ctx context.Context, period billing.Period) (*billing.Run, error) {
	run, err := readRun(s.read.WithContext(ctx).Where("period = ?", period.String()).Order("number DESC"))
	if billing.CodeOf(err) == billing.CodeRunNotFound {
		return nil, billing.Errorf(billing.CodeRunNotFound, "there is no billing run of %s", period)
	}
	return run, err
}

// RunByID reads one run, or returns run_not_found.
func (s *Store) RunByID(ctx context.Context, id string) (*billing.Run, error) {
	return readRun(s.read.WithContext(ctx).Where("id = ?", id))
}

// Runs reads all runs, the newest period first.
func (s *Store) Runs(ctx context.Context) ([]billing.Run, error) {
	var rows []runRow
	if err := s.read.WithContext(ctx).Order("period DESC, number DESC").Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("reading the runs: %w", err)
	}
	runs := make([]billing.Run, 0, len(rows))
	for _, r := range rows {
		run, err := r.run()
		if err != nil {
			return nil, err
		}
		runs = append(runs, *run)
	}
	return runs, nil
}

func readRun(scope *gorm.DB) (*billing.Run, error) {
	var row runRow
	err := scope.Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, billing.Errorf(billing.CodeRunNotFound, "there is no such billing run")
	}
	if err != nil {
		return nil, err
	}
	return row.run()
}

// maxReason is the length of a run's reason, in characters.
const maxReason = 1024

// SetRunState moves a run that has not ended to the state, for the reason, and
// returns it as it stands. A run that has ended stays as it is.
func (s *Store) SetRunState(ctx context.Context, runID string, state billing.RunState, reason string) (*billing.Run, error) {
	return s.changeRun(ctx, runID, func(now time.Time) map[string]any {
		changes := map[string]any{"state": string(state), "reason": orNull(storable(reason, maxReason)), "ended_at": nil}
		if state != billing.RunRunning && state != billing.RunPaused {
			changes["ended_at"] = timestamp{now}
		}
		return changes
	})
}

// SetRunPace changes the pace of a run that has not ended, in orders a second; 0
// is no cap. It holds from the next batch of each page on.
func (s *Store) SetRunPace(ctx context.Context, runID string, ordersPerSecond float64) (*billing.Run, error) {
	return s.changeRun(ctx, runID, func(now time.Time) map[string]any {
		// Slots given at a slow pace must not hold up a fast one, nor may new ones
		// lie on top of those already given, which reach this far.
		return map[string]any{"orders_per_second": ordersPerSecond, "next_slot": timestamp{now.Add(2 * slotHorizon)}}
	})
}

func (s *Store) changeRun(ctx context.Context, runID string, changes func(now time.Time) map[string]any) (*billing.Run, error) {
	var changed *billing.Run
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		err = tx.Model(&runRow{}).Where("id = ? AND ended_at IS NULL", runID).Updates(changes(now)).Error
		if err != nil {
			return err
		}
		changed, err = readRun(tx.Where("id = ?", runID))
		return err
	})
	return changed, err
}

// slotHorizon is how far ahead orders are let out: pages wait with their claims
// until it is nearly time, and a pause holds within it.
const slotHorizon = 500 * time.Millisecond

// ReserveSlots gives leave for up to count orders of the run. The slots of a run
// lie evenly, whoever asks: over any window there are no more than its pace
// times the window, and one. A run without a pace gives all at once.
func (s *Store) ReserveSlots(ctx context.Context, runID string, count int) (billing.Slots, error) {
	run, err := readRun(s.read.WithContext(ctx).Where("id = ?", runID))
	if err != nil {
		return billing.Slots{}, err
	}
	if run.State != billing.RunRunning {
		return billing.Slots{State: run.State}, nil
	}
	if run.Settings.OrdersPerSecond == 0 {
		return billing.Slots{State: run.State, Count: count}, nil
	}
	var slots billing.Slots
	err = s.inTransaction(ctx, func(tx *gorm.DB) error {
		var row runRow
		if err := s.forUpdate(tx).Take(&row, "id = ?", runID).Error; err != nil {
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		slots = nextSlots(row, now, count)
		if slots.Count == 0 {
			return nil
		}
		// Rounded up, as the interval is: what is cut off would add up to orders
		// beyond the pace.
		next := timestamp{now.Add(slots.Wait + time.Duration(slots.Count)*slots.Interval + time.Microsecond - 1)}
		return tx.Model(&runRow{}).Where("id = ?", runID).Update("next_slot", next).Error
	})
	return slots, err
}

func nextSlots(row runRow, now time.Time, count int) billing.Slots {
	slots := billing.Slots{State: billing.RunState(row.State)}
	switch {
	case slots.State != billing.RunRunning:
		return slots
	case row.OrdersPerSecond == 0:
		slots.Count = count
		return slots
	}
	slots.Interval = time.Duration(math.Ceil(float64(time.Second) / row.OrdersPerSecond))
	if row.NextSlot != nil && row.NextSlot.After(now) {
		slots.Wait = row.NextSlot.Sub(now)
	}
	if slots.Wait <= slotHorizon {
		slots.Count = min(count, max(1, int(slotHorizon/slots.Interval)))
	}
	return slots
}

// RunCounts counts what has become of the charges that the run has claimed. It
// returns run_not_found where the run's record is gone, with a restored database.
func (s *Store) RunCounts(ctx context.Context, runID string) (billing.RunCounts, error) {
	if _, err := readRun(s.read.WithContext(ctx).Where("id = ?", runID)); err != nil {
		return billing.RunCounts{}, err
	}
	var rows []struct {
		Status string
		N      int
		First  timestamp
	}
	err := s.read.WithContext(ctx).Raw("SELECT status, count(*) AS n, min(created_at) AS first FROM charge WHERE run_id = ? GROUP BY status", runID).Scan(&rows).Error
	var counts billing.RunCounts
	for _, r := range rows {
		if counts.First.IsZero() || r.First.Before(counts.First) {
			counts.First = r.First.Time
		}
		switch billing.ChargeStatus(r.Status) {
		case billing.Charged:
			counts.Charged = r.N
		case billing.Declined:
			counts.Declined = r.N
		case billing.Pending:
			counts.Pending = r.N
		case billing.Unresolved:
			counts.Unresolved = r.N
		case billing.Withdrawn: // as if it had not been claimed
		}
	}
	return counts, err
}

// OpenCharges counts the charges of the run that workflows of their own are at
// work on.
func (s *Store) OpenCharges(ctx context.Context, runID string) (int, error) {
	var n int
	err := s.read.WithContext(ctx).Raw("SELECT count(*) FROM charge WHERE run_id = ? AND status = 'pending' AND owner = ?",
		runID, billing.ChargeOwner).Scan(&n).Error
	return n, err
}

// LeftOver returns, by id, the subscriptions whose charges the query asks for. It
// leaves out those who came after the run's cut-off, unless the charge is the
// run's own: such a charge was claimed when it was due, or put back. It returns
// run_not_found where the run's row is gone.
func (s *Store) LeftOver(ctx context.Context, q billing.LeftOverQuery) ([]string, error) {
	tx := s.read.WithContext(ctx)
	now, err := s.now(tx)
	if err != nil {
		return nil, err
	}
	run, err := readRun(tx.Where("id = ?", q.RunID))
	if err != nil {
		return nil, err
	}
	which := s.time("l.created_at") + " <= @by"
	if q.By.IsZero() {
		which = "(l.claimed_until IS NULL OR " + s.time("l.claimed_until") + " < @now OR l.status <> 'pending')"
	}
	if s.dialect == SQLite {
		which += " AND drayman_text(l.subscription_id) IS NOT NULL" // the next call goes on after the last id
	}
	statuses := []string{string(billing.Pending)}
	if q.Unresolved {
		statuses = append(statuses, string(billing.Unresolved))
	}
	var ids []string
	err = tx.Raw(s.sql(`SELECT l.subscription_id FROM charge l LEFT JOIN subscription s ON s.id = l.subscription_id
		WHERE l.period = @period AND l.status IN @statuses AND `+which+`
			AND (l.run_id = @run OR NOT `+cameLater+`)
			AND l.subscription_id > @after ORDER BY l.subscription_id COLLATE "C" LIMIT @limit`),
		sql.Named("period", q.Period.String()), sql.Named("statuses", statuses), sql.Named("now", timestamp{now}), sql.Named("by", timestamp{q.By}),
		sql.Named("run", q.RunID), sql.Named("cutoff", timestamp{run.CutOff}), sql.Named("after", q.After), sql.Named("limit", q.Limit)).Scan(&ids).Error
	return ids, err
}
