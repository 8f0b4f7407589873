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
	Doubt             *string
	NextSlot          *timestamp
	EndedAt           *timestamp
}

func (runRow) TableName() string { return "billing_run" }

func (r runRow) run() (*billing.Run, error) {
	period, _ := billing.ParsePeriod(r.Period) // zero if a person has written something else
	return &billing.Run{
		ID: r.ID, Period: period, Number: r.Number, State: billing.RunState(r.State), Reason: valueOf(r.Reason),
		CutOff: r.CutOff.Time, Due: r.Due, EndedAt: timeOf(r.EndedAt), ExecutionID: r.ExecutionID,
		Doubt: billing.RunDoubt(valueOf(r.Doubt)),
		Settings: billing.RunSettings{
			OrdersPerSecond: r.OrdersPerSecond, PageSize: r.PageSize, Concurrency: r.Concurrency, WorkflowPerCharge: r.WorkflowPerCharge,
		},
	}, nil
}

// StartRun records a new run, with its cut-off and how many are due, or returns the one
// that the execution has recorded before. It also returns the incarnation of the database
// with which the run begins. A run of the period that has not ended was lost by Temporal:
// it becomes abandoned.
//
// If orders of the month may be missing at a shop that is not idempotent, the run is
// recorded as paused, see [billing.DoubtConfirm].
//
// It returns the refusals of [billing.RunStart.CutOff], at the database's time, and of
// [billing.Installation].
func (s *Store) StartRun(ctx context.Context, start billing.RunStart) (started *billing.Run, recalled string, err error) {
	err = s.inTransaction(ctx, func(tx *gorm.DB) error {
		if err := s.lockRunsOf(tx, start.Period); err != nil {
			return err
		}
		found, err := s.installation(tx)
		if err == nil {
			err = found.Permits(start.Installation, "")
		}
		if err != nil {
			return err
		}
		recalled = found.Recalled
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		started, err = s.beginRun(tx, start, now)
		return err
	})
	return started, recalled, err
}

func (s *Store) beginRun(tx *gorm.DB, start billing.RunStart, now time.Time) (*billing.Run, error) {
	row, err := runWhere(tx, "execution_id = ?", start.ExecutionID)
	if err != nil {
		return nil, err
	}
	switch known := start.Known; {
	case row == nil && known != nil:
		row = rowOfRun(*known)
		err = tx.Create(row).Error
	case row == nil:
		row, err = s.recordRun(tx, start, now)
	case known != nil && row.EndedAt == nil && strictness(known.State) > strictness(billing.RunState(row.State)):
		row.State, row.Reason, row.EndedAt = string(known.State), orNull(known.Reason), newTimestamp(known.EndedAt)
		err = tx.Select("state", "reason", "ended_at").Updates(row).Error
	}
	if err != nil {
		return nil, err
	}
	return row.run()
}

// strictness orders the states: the greater one starts fewer orders.
func strictness(state billing.RunState) int {
	switch state {
	case billing.RunRunning:
		return 0
	case billing.RunPaused:
		return 1
	case billing.RunFinished, billing.RunCancelled, billing.RunAbandoned:
	}
	return 2
}

// recordRun writes the row of a run that begins.
func (s *Store) recordRun(tx *gorm.DB, start billing.RunStart, now time.Time) (*runRow, error) {
	cutOff, err := start.CutOff(now)
	if err != nil {
		return nil, err
	}
	err = tx.Model(&runRow{}).Where("period = ? AND ended_at IS NULL", start.Period.String()).
		Updates(map[string]any{"state": string(billing.RunAbandoned), "ended_at": timestamp{now}}).Error
	if err != nil {
		return nil, err
	}
	row := newRunRow(start, cutOff)
	if err := tx.Raw("SELECT COALESCE(max(number), 0) + 1 FROM billing_run WHERE period = ?", row.Period).Scan(&row.Number).Error; err != nil {
		return nil, err
	}
	doubt, err := doubtOf(tx, start.Period)
	if err != nil {
		return nil, err
	}
	if doubt == billing.DoubtConfirm {
		row.State, row.Reason = string(billing.RunPaused), orNull(billing.ReasonReplaced)
	}
	if row.Due, err = s.countDue(tx, start.Period, cutOff, now); err != nil {
		return nil, err
	}
	row.ID = fmt.Sprintf("%s/%d", start.Period, row.Number)
	return &row, tx.Create(&row).Error
}

// doubtOf returns whether orders of the month may be missing; of several runs the
// graver doubt.
func doubtOf(tx *gorm.DB, period billing.Period) (billing.RunDoubt, error) {
	var doubt string
	err := tx.Raw("SELECT COALESCE(min(doubt), '') FROM billing_run WHERE period = ?", period.String()).Row().Scan(&doubt)
	return billing.RunDoubt(doubt), err // "confirm" comes before "repeat"
}

// lockRunsOf lets one run of the period begin at a time, so that each finds the one before
// it. On SQLite the immediate transaction does that.
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

// rowOfRun is the row of a run that is known from elsewhere.
func rowOfRun(r billing.Run) *runRow {
	row := newRunRow(billing.RunStart{Period: r.Period, ExecutionID: r.ExecutionID, Settings: r.Settings}, r.CutOff)
	row.ID, row.Number, row.Due, row.Doubt = r.ID, r.Number, r.Due, orNull(string(r.Doubt))
	row.State, row.Reason, row.EndedAt = string(r.State), orNull(storable(r.Reason, maxReason)), newTimestamp(r.EndedAt)
	return &row
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
	row, err := runWhere(scope, "true")
	switch {
	case err != nil:
		return nil, err
	case row == nil:
		return nil, billing.Errorf(billing.CodeRunNotFound, "there is no such billing run")
	}
	return row.run()
}

// runWhere returns nil if there is no such run.
func runWhere(scope *gorm.DB, condition string, arguments ...any) (*runRow, error) {
	var row runRow
	err := scope.Where(condition, arguments...).Take(&row).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, nil
	}
	return &row, err
}

// maxReason is the length of a run's reason, in characters.
const maxReason = 1024

// ChangeRun changes a run that has not ended, and returns it as it stands. A resume by a
// person also ends [billing.DoubtConfirm] for the month. The claims of a cancelled run that
// were let go before anything was sent are withdrawn.
//
// It returns the refusals of [billing.RunChange.Validate]; run_not_found; run_not_active
// if the run has ended; database_replaced if the change is for another incarnation.
func (s *Store) ChangeRun(ctx context.Context, runID string, change billing.RunChange) (*billing.Run, error) {
	if err := change.Validate(); err != nil {
		return nil, err
	}
	var changed *billing.Run
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		row, err := runWhere(s.forUpdate(tx), "id = ?", runID)
		switch {
		case err != nil:
			return err
		case row == nil:
			return billing.Errorf(billing.CodeRunNotFound, "there is no billing run %q", runID)
		}
		if change.Recalled != "" {
			if err := s.mayCharge(tx, "", change.Recalled); err != nil {
				return err
			}
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		first, err := isFirst(tx, runID, change.UpdateID, now)
		if err == nil && first {
			err = s.changeRun(tx, row, change, now)
		}
		if err != nil {
			return err
		}
		changed, err = readRun(tx.Where("id = ?", runID))
		return err
	})
	return changed, err
}

// isFirst records the update, and says whether it was not recorded before.
func isFirst(tx *gorm.DB, runID, updateID string, now time.Time) (bool, error) {
	if updateID == "" {
		return true, nil
	}
	noted := tx.Exec("INSERT INTO billing_run_update (update_id, run_id, made_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
		updateID, runID, timestamp{now})
	return noted.RowsAffected == 1, noted.Error
}

func (s *Store) changeRun(tx *gorm.DB, row *runRow, change billing.RunChange, now time.Time) error {
	if row.EndedAt != nil {
		return billing.Errorf(billing.CodeRunNotActive, "the run %s is not active: it is %s", row.ID, row.State)
	}
	changes := map[string]any{}
	if pace := change.OrdersPerSecond; pace != nil {
		// Slots that were reserved at a slow pace must not hold up a fast one. New ones
		// must come after them: they reach as far as this.
		changes["orders_per_second"], changes["next_slot"] = *pace, timestamp{now.Add(2 * slotHorizon)}
	} else {
		changes["state"], changes["reason"] = string(change.State), orNull(storable(change.Reason, maxReason))
		if change.State == billing.RunFinished || change.State == billing.RunCancelled {
			changes["ended_at"] = timestamp{now}
		}
	}
	if err := tx.Model(&runRow{}).Where("id = ?", row.ID).Updates(changes).Error; err != nil {
		return err
	}
	switch change.State {
	case billing.RunRunning:
		return tx.Model(&runRow{}).Where("period = ? AND doubt = ?", row.Period, string(billing.DoubtConfirm)).Update("doubt", nil).Error
	case billing.RunCancelled:
		return withdrawUnsent(tx, row.ID, now)
	case billing.RunPaused, billing.RunFinished, billing.RunAbandoned:
	}
	return nil
}

// WithdrawCancelled withdraws, if the run is cancelled, what its pages have let go since and
// not sent, see [Store.ChangeRun].
func (s *Store) WithdrawCancelled(ctx context.Context, runID string) error {
	return s.inTransaction(ctx, func(tx *gorm.DB) error {
		row, err := runWhere(s.forUpdate(tx), "id = ? AND state = 'cancelled'", runID)
		if err != nil || row == nil {
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		return withdrawUnsent(tx, runID, now)
	})
}

// withdrawUnsent withdraws the claims of a run that are unsent, held by no page and owned by
// no workflow: nobody will order them.
func withdrawUnsent(tx *gorm.DB, runID string, now time.Time) error {
	return tx.Model(&chargeRow{}).
		Where("run_id = ? AND status = 'pending' AND claimed_until IS NULL AND sent_at IS NULL AND owner <> ?", runID, billing.ChargeOwner).
		Updates(map[string]any{"status": string(billing.Withdrawn), "settled_at": timestamp{now}}).Error
}

// slotHorizon is how far ahead slots are reserved. Pages claim no earlier, and a pause takes
// effect within that time.
const slotHorizon = 500 * time.Millisecond

// ReserveSlots permits up to count orders of the run. The slots of a run lie evenly, however
// many pages ask: in any window there is at most one more than its pace times the window. A
// run without a pace gives all at once.
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
		// Rounded up, as the interval is. Rounding down would add up to more orders
		// than the pace permits.
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

// RunCounts counts what has become of the charges that the run has claimed. It returns
// run_not_found if the run's row is gone, with a restored database.
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

// OpenCharges counts the pending charges of the run that the owner has: workflows of their
// own ([billing.ChargeOwner]), or [billing.Nobody].
func (s *Store) OpenCharges(ctx context.Context, runID, owner string) (int, error) {
	var n int
	err := s.read.WithContext(ctx).Raw("SELECT count(*) FROM charge WHERE run_id = ? AND status = 'pending' AND owner = ?",
		runID, owner).Scan(&n).Error
	return n, err
}

// LeftOver returns, by id, the subscriptions of the open charges that the query asks for.
// It leaves out those who came after the run's cut-off, if the charge is not the run's own. A
// charge of the run was claimed when it was due, or put back. It returns run_not_found if
// the run's row is gone.
func (s *Store) LeftOver(ctx context.Context, q billing.LeftOverQuery) ([]string, error) {
	tx := s.read.WithContext(ctx)
	run, err := readRun(tx.Where("id = ?", q.RunID))
	if err != nil {
		return nil, err
	}
	statuses, which := []string{string(billing.Pending)}, "l.owner = @nobody"
	if q.All {
		which = "substr(l.owner, 1, length(@pages)) <> @pages"
		if q.Unresolved {
			statuses = append(statuses, string(billing.Unresolved))
		}
	}
	if s.dialect == SQLite {
		which += " AND drayman_text(l.subscription_id) IS NOT NULL" // the next call goes on after the last id
	}
	var ids []string
	err = tx.Raw(s.sql(`SELECT l.subscription_id FROM charge l LEFT JOIN subscription s ON s.id = l.subscription_id
		WHERE l.open_in = @period AND l.status IN @statuses AND `+which+`
			AND (l.run_id = @run OR NOT `+cameLater+`)
			AND l.subscription_id > @after ORDER BY l.subscription_id COLLATE "C" LIMIT @limit`),
		sql.Named("period", q.Period.String()), sql.Named("statuses", statuses), sql.Named("nobody", billing.Nobody), sql.Named("pages", q.Pages),
		sql.Named("run", q.RunID), sql.Named("cutoff", timestamp{run.CutOff}), sql.Named("after", q.After), sql.Named("limit", q.Limit)).Scan(&ids).Error
	return ids, err
}

// LiftHolds makes claims of the period nobody's: those whose hold is over; with all, also
// those that are held. A run that begins at an idempotent shop lifts all: two who order
// under one request id do no harm there.
func (s *Store) LiftHolds(ctx context.Context, period billing.Period, all bool) error {
	now, err := s.Now(ctx)
	if err != nil {
		return err
	}
	held := func(tx *gorm.DB) *gorm.DB {
		rows := tx.Model(&chargeRow{}).Where(`run_id IN (SELECT id FROM billing_run WHERE period = ?)
			AND status = 'pending' AND claimed_until IS NOT NULL`, period.String())
		if all {
			return rows
		}
		return rows.Where(s.time("claimed_until")+" < ?", timestamp{now})
	}
	var n int64
	if err := held(s.read.WithContext(ctx)).Count(&n).Error; err != nil || n == 0 {
		return err // most calls find nothing to write
	}
	return s.inTransaction(ctx, func(tx *gorm.DB) error {
		return held(tx).Updates(map[string]any{"claimed_until": nil, "owner": billing.Nobody}).Error
	})
}
