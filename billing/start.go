package billing

import (
	"fmt"
	"time"
)

// RunStart asks for a billing run.
type RunStart struct {
	Period      Period
	ExecutionID string // the first execution of the run's workflow
	Settings    RunSettings
	// Installation is the id of the installation that asks.
	Installation string
	// Known is the run as its workflow last read it, if it has begun before: its row is made
	// again if the database lacks it. Of its state and the row's, the stricter holds.
	Known *Run
	// ConfirmPast says that a month that is over is meant.
	ConfirmPast bool
	// Nominal is the time for which a schedule starts the run, however late; zero
	// where it is started by hand.
	Nominal time.Time
	// Zone is in which the period's month begins and ends.
	Zone *time.Location
}

// earlyStart is how long before its nominal time a run may start: Temporal's
// clock has named the time, and the database's may be behind it.
const earlyStart = time.Hour

// CutOff returns the run's cut-off: who was eligible then, and is at the claim,
// is due in it. That is the nominal time of a run that a schedule starts; of one
// that is started by hand now, and for a month that is over its last microsecond.
//
// It refuses with [CodeInvalid] a period that is none, or in which the nominal
// time does not lie; with [CodePeriodInFuture] what has not begun; and with
// [CodePastUnconfirmed], and the cut-off in the error, a month that is over,
// unless that is confirmed or a schedule's.
func (s RunStart) CutOff(now time.Time) (time.Time, error) {
	current := PeriodAt(now, s.Zone)
	switch {
	case s.Period.IsZero():
		return time.Time{}, Invalid("period", "must be a month such as 2026-11")
	case !s.Nominal.IsZero():
		return s.Nominal.UTC().Truncate(time.Microsecond), s.checkNominal(now)
	case s.Period.Compare(current) > 0:
		return time.Time{}, Errorf(CodePeriodInFuture, "%s has not begun; the current month is %s", s.Period, current)
	case s.Period == current:
		return now, nil
	}
	last := s.Period.LastMicrosecond(s.Zone)
	if !s.ConfirmPast {
		return time.Time{}, &Error{Code: CodePastUnconfirmed, CutOff: &last, Detail: fmt.Sprintf(
			"%s is over; a run of it charges who was eligible at its end, %s, still is, and is not charged for it: confirm that with confirm_past",
			s.Period, last.Format(time.RFC3339Nano))}
	}
	return last, nil
}

func (s RunStart) checkNominal(now time.Time) error {
	nominal := s.Nominal.In(s.Zone).Format(time.RFC3339Nano)
	switch {
	case PeriodAt(s.Nominal, s.Zone) != s.Period:
		return Invalid("nominal", fmt.Sprintf("must lie in %s, which %s does not in the zone %s", s.Period, nominal, s.Zone))
	case s.Nominal.After(now.Add(earlyStart)):
		return Errorf(CodePeriodInFuture, "the time of %s, %s, has not come", s.Period, nominal)
	}
	return nil
}
