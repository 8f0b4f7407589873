package models

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"drayman/billing"
)

// classified puts each subscription that was eligible at the cut-off, @at, into
// the one class that says what became of it, as of @now.
var classified = `SELECT s.id, s.club_id, COALESCE(k.store_sku, 0) AS sku_id, CASE
		WHEN o.status = 'charged' AND o.run_id = @run THEN 'charged_in_run'
		WHEN o.status = 'charged' THEN 'charged_before'
		WHEN o.status IS NOT NULL THEN o.status
		WHEN EXISTS (SELECT 1 FROM charge d WHERE d.subscription_id = s.id AND d.period = @period AND d.status = 'declined') THEN 'declined'
		WHEN ` + isChargeable + ` AND ` + strings.ReplaceAll(isEligible, "@at", "@now") + ` THEN 'missing'
		ELSE 'skipped' END AS class
	FROM subscription s JOIN club k ON k.id = s.club_id
		LEFT JOIN charge o ON o.subscription_id = s.id AND o.period = @period AND o.` + stands + `
	WHERE ` + isEligible

func (s *Store) reportArguments(ctx context.Context, run billing.Run) ([]any, error) {
	now, err := s.Now(ctx)
	return []any{
		sql.Named("run", run.ID), sql.Named("period", run.Period.String()),
		sql.Named("at", timestamp{run.CutOff}), sql.Named("now", timestamp{now}),
	}, err
}

// Report accounts for everyone who was eligible at the run's cut-off.
func (s *Store) Report(ctx context.Context, run billing.Run) (billing.Report, error) {
	arguments, err := s.reportArguments(ctx, run)
	if err != nil {
		return billing.Report{}, err
	}
	var rows []struct {
		ClubID int
		SKUID  int `gorm:"column:sku_id"`
		Class  string
		N      int
	}
	err = s.read.WithContext(ctx).Raw(s.sql(`SELECT club_id, sku_id, class, count(*) AS n FROM (`+classified+`) AS r
		GROUP BY club_id, sku_id, class ORDER BY club_id, sku_id`), arguments...).Scan(&rows).Error
	if err != nil {
		return billing.Report{}, fmt.Errorf("reporting: %w", err)
	}
	lines := []billing.ReportLine{}
	for _, r := range rows {
		if n := len(lines); n == 0 || lines[n-1].ClubID != r.ClubID || lines[n-1].SKU != r.SKUID {
			lines = append(lines, billing.ReportLine{ClubID: r.ClubID, SKU: r.SKUID, Counts: map[billing.ReportClass]int{}})
		}
		lines[len(lines)-1].Counts[billing.ReportClass(r.Class)] = r.N
	}
	return billing.NewReport(run, lines), nil
}

// ReportIDs calls yield with the id of each subscription of the class, in the
// order of the ids; it stops at yield's first error and returns it.
func (s *Store) ReportIDs(ctx context.Context, run billing.Run, class billing.ReportClass, yield func(id string) error) error {
	arguments, err := s.reportArguments(ctx, run)
	if err != nil {
		return err
	}
	rows, err := s.read.WithContext(ctx).Raw(s.sql(`SELECT r.id FROM (`+classified+`) AS r WHERE r.class = @class ORDER BY r.id COLLATE "C"`),
		append(arguments, sql.Named("class", string(class)))...).Rows()
	if err != nil {
		return fmt.Errorf("listing a report: %w", err)
	}
	return eachID(rows, yield)
}

// PlanPages divides those who are due in the run and uncharged, after an id, into pages of
// the size. It returns the last id of each page, for at most limit pages, and whether there
// are more. Size and limit are at least 1.
func (s *Store) PlanPages(ctx context.Context, run billing.Run, after string, size, limit int) (ends []string, more bool, err error) {
	if size < 1 || limit < 1 {
		return nil, false, billing.Invalid("page_size", "must be at least 1, and so must be the number of pages")
	}
	now, err := s.Now(ctx)
	if err != nil {
		return nil, false, err
	}
	count, last := 0, ""
	err = s.Eligible(ctx, billing.EligibleQuery{At: now, CutOff: run.CutOff, Uncharged: run.Period, After: after, Limit: size * limit}, func(id string) error {
		last = id
		if count++; count%size == 0 {
			ends = append(ends, id)
		}
		return nil
	})
	if count%size != 0 {
		ends = append(ends, last)
	}
	return ends, count == size*limit, err
}
