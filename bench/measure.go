package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
)

// result is one round.
type result struct {
	Charges   int           `json:"charges"`
	Run       runFigures    `json:"run"`
	Temporal  temporalCosts `json:"temporal"`
	Calls     float64       `json:"baseline_calls_per_second"`
	RowByRow  float64       `json:"baseline_row_by_row_per_second"`
	Durable   bool          `json:"postgres_is_durable"` // fsync and synchronous_commit are on
	PerCharge float64       `json:"actions_per_charge"`
	OfCalls   float64       `json:"run_to_calls"`
	OfRows    float64       `json:"run_to_row_by_row"`
}

// runFigures are of the billing run itself; times in seconds.
type runFigures struct {
	Wall      float64 `json:"wall"`       // from the request to the end of the run
	PerSecond float64 `json:"per_second"` // charges, over Wall
	Orders    float64 `json:"orders"`     // from the first order to the last
	OrderRate float64 `json:"order_rate"` // orders a second, over Orders
	Repeated  int     `json:"repeated"`   // calls for an order that stood already

	WorkerMemory int64   `json:"worker_peak_bytes"`
	WorkerTime   float64 `json:"worker_processor"`
	APITime      float64 `json:"api_processor"`
	ShopTime     float64 `json:"shop_processor"`
	DatabaseTime float64 `json:"postgres_processor"` // of the worker's connections
	MachineTime  float64 `json:"machine_processor"`  // of everything on the machine
}

// measure is one round: the baselines, then the run.
func measure(ctx context.Context, o options) (*result, error) {
	s, err := newSite(ctx, o)
	defer s.close()
	if err != nil {
		return nil, err
	}
	r := &result{Charges: o.Charges}
	if r.Calls, r.RowByRow, err = s.baselines(ctx, o); err != nil {
		return nil, err
	}
	var fsync, commit string
	err = s.db.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&fsync, &commit)
	if err != nil {
		return nil, err
	}
	r.Durable = fsync == "on" && commit != "off"
	if err := s.startDrayman(ctx, o); err != nil {
		return nil, err
	}
	if err := s.run(ctx, o, r); err != nil {
		return nil, fmt.Errorf("%w\nthe worker said:\n%s", err, s.worker.lastWords())
	}
	costs, err := s.costs(ctx)
	if err != nil {
		return nil, err
	}
	r.Temporal = *costs
	r.PerCharge = float64(costs.Actions.total()) / float64(o.Charges)
	if o.Baseline > 0 {
		r.OfCalls, r.OfRows = r.Run.PerSecond/r.Calls, r.Run.PerSecond/r.RowByRow
	}
	return r, nil
}

func (s *site) run(ctx context.Context, o options, r *result) error {
	var begun time.Time
	if err := s.db.QueryRow(ctx, `SELECT clock_timestamp() AT TIME ZONE 'UTC'`).Scan(&begun); err != nil {
		return err
	}
	period := begun.Format("2006-01")
	before, machine := s.processors(), machineTime()
	body := map[string]int{"concurrency": o.Concurrency, "page_size": o.PageSize}
	if err := send(ctx, http.MethodPost, s.apiURL+"/billing-run/"+period, body, &struct{}{}); err != nil {
		return err
	}
	ended, err := s.awaitRun(ctx, period)
	if err != nil {
		return err
	}
	f := &r.Run
	f.MachineTime = machineTime() - machine
	after := s.processors()
	f.WorkerTime, f.APITime, f.ShopTime = after[0]-before[0], after[1]-before[1], after[2]-before[2]
	if f.DatabaseTime, err = s.databaseTime(ctx); err != nil {
		return err
	}
	f.WorkerMemory = peakMemory(s.worker.cmd.Process.Pid)
	f.Wall = ended.Sub(begun).Seconds()
	f.PerSecond = float64(o.Charges) / f.Wall
	return s.check(ctx, o, period, f)
}

func (s *site) processors() [3]float64 {
	return [3]float64{
		processorTime(s.worker.cmd.Process.Pid), processorTime(s.api.cmd.Process.Pid), processorTime(s.shop.cmd.Process.Pid),
	}
}

// databaseTime is what the connections of API and worker have cost, of which
// none closes before a few minutes have passed.
func (s *site) databaseTime(ctx context.Context) (float64, error) {
	rows, err := s.db.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'drayman'`)
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	return processorTime(pids...), err
}

// awaitRun waits for the end and returns it, by the database's clock. It looks
// at one row, ten times a second, past the API, which would count charges.
func (s *site) awaitRun(ctx context.Context, period string) (ended time.Time, err error) {
	for {
		var state, reason string
		var at *time.Time
		err := s.db.QueryRow(ctx, `SELECT state, COALESCE(reason, ''), ended_at FROM billing_run WHERE period = $1`, period).Scan(&state, &reason, &at)
		switch {
		case err != nil:
			return time.Time{}, err
		case state == "finished" && at != nil:
			return *at, nil
		case state != "running":
			return time.Time{}, fmt.Errorf("the run is %s: %s", state, reason)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-s.worker.exited:
			return time.Time{}, errors.New("the worker has ended")
		}
	}
}
