package billing

import (
	"slices"
	"time"
)

// AutomaticReturnDetails marks the ACTIVE row that ends a pause of a given
// length. The text is the Python version's: it is the only mark there is.
const AutomaticReturnDetails = "Automatic return schedule"

// MaxPauseDays bounds the interval of a pause: a hundred years.
const MaxPauseDays = 36500

// MaxDetails is the length of a history row's details, in characters.
const MaxDetails = 256

// StatusChange asks for a new status from EffectDate (UTC) on. IntervalDays, 1
// to [MaxPauseDays] and with Paused only, is the length of the pause in days of
// 24 hours; 0 pauses until further notice.
type StatusChange struct {
	Status       Status
	EffectDate   time.Time
	Details      string
	IntervalDays int
}

// Validate returns an error with [CodeInvalid] that names the first bad field.
func (c StatusChange) Validate() error {
	switch {
	case c.Status != Active && c.Status != Cancelled && c.Status != Paused:
		return Invalid("status_id", "must be 1 (ACTIVE), 2 (CANCELLED) or 3 (PAUSED)")
	case c.IntervalDays < 0 || c.IntervalDays > MaxPauseDays:
		return Invalid("interval", "must be a whole number of days from 1 to 36500")
	case c.IntervalDays > 0 && c.Status != Paused:
		return Invalid("interval", "goes with status_id 3 (PAUSED) only")
	case c.Details == AutomaticReturnDetails:
		return Invalid("details", "is the mark of automatic returns; give another text, or pause with an interval")
	}
	if year := c.returnDate().Year(); c.EffectDate.Year() < 1900 || year > 9999 {
		return Invalid("effect_date", "must lie in the years 1900 to 9999, its automatic return too")
	}
	return ValidateText("details", c.Details, 0, MaxDetails)
}

func (c StatusChange) returnDate() time.Time {
	return c.EffectDate.Add(time.Duration(c.IntervalDays) * 24 * time.Hour)
}

// ChangePlan is what a status change does to a history.
type ChangePlan struct {
	Add    []Change
	Remove []Change
}

// PlanStatusChange returns the rows that a change adds to a history and those
// it removes. It removes the automatic returns that the change supersedes, and no
// other row. A pause with an interval adds its return as well, unless something
// scheduled explicitly ends the pause before that, or the pause begins in a
// cancelled subscription.
//
// So a cancelled subscription never comes back by itself: neither when the
// cancel comes after the pause, nor when it was scheduled or done before it.
func PlanStatusChange(history []Change, c StatusChange, now time.Time, newID func() string) ChangePlan {
	created := createDateAfter(history, now)
	row := Change{ID: newID(), StatusID: int(c.Status), EffectDate: &c.EffectDate, CreateDate: &created, Details: c.Details}
	plan := ChangePlan{Add: []Change{row}}
	kept := []Change{row}
	ended := []string{row.ID} // the pauses that end when this one does
	for _, old := range history {
		pause := pauseOf(old, history)
		if !supersedes(c, old, pause) {
			kept = append(kept, old)
			continue
		}
		plan.Remove = append(plan.Remove, old)
		ended = append(ended, pause.ID)
	}
	if c.IntervalDays == 0 {
		return plan
	}
	returns := c.returnDate()
	decides, _ := StatusAt(kept, returns)
	if slices.Contains(ended, decides.ID) && lastWord(kept, returns) != Cancelled {
		plan.Add = append(plan.Add, Change{
			ID: newID(), StatusID: int(Active), EffectDate: &returns, CreateDate: &created, Details: AutomaticReturnDetails,
		})
	}
	return plan
}

// lastWord returns the status at a time if pauses did not count.
func lastWord(history []Change, at time.Time) Status {
	others := slices.DeleteFunc(slices.Clone(history), func(c Change) bool { return c.StatusID == int(Paused) })
	last, _ := StatusAt(others, at)
	return Status(last.StatusID)
}

// endOfTime is the last moment whose year has four digits.
var endOfTime = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)

// createDateAfter returns a create date later than all others, so that the new row
// decides among those of the same effect date. A clock can give the same microsecond
// twice.
func createDateAfter(history []Change, now time.Time) time.Time {
	created := now
	for _, c := range history {
		if c.CreateDate != nil && !c.CreateDate.Before(created) {
			created = c.CreateDate.Add(time.Microsecond)
		}
	}
	if created.After(endOfTime) { // a person wrote the last date that there is
		return now
	}
	return created
}

// supersedes reports whether a change removes a scheduled row: an automatic return
// after it. The return of a pause that begins only after the change stays, or the
// pause would never end. But a cancel removes that one too, and so does a pause that
// lasts as long or longer.
func supersedes(c StatusChange, row, pause Change) bool {
	if !IsAutomaticReturn(row) || row.EffectDate == nil || !row.EffectDate.After(c.EffectDate) {
		return false
	}
	switch {
	case pause.EffectDate == nil || !pause.EffectDate.After(c.EffectDate), c.Status == Cancelled:
		return true
	case c.Status == Paused:
		return c.IntervalDays == 0 || !row.EffectDate.After(c.returnDate())
	default:
		return false
	}
}

// IsAutomaticReturn reports whether the row ends a pause by itself.
func IsAutomaticReturn(row Change) bool {
	return row.StatusID == int(Active) && row.Details == AutomaticReturnDetails
}

// pauseOf returns the pause that the automatic return ends: both rows were
// written at once, so their create dates agree. It returns the zero Change if the
// pause is gone.
func pauseOf(ret Change, history []Change) Change {
	var pause Change
	if !IsAutomaticReturn(ret) || ret.EffectDate == nil || ret.CreateDate == nil {
		return pause
	}
	for _, c := range history {
		if c.StatusID == int(Paused) && c.EffectDate != nil && c.EffectDate.Before(*ret.EffectDate) &&
			compareDates(c.CreateDate, ret.CreateDate) == 0 &&
			(pause.EffectDate == nil || compareChanges(c, pause) > 0) { // people give several rows one date
			pause = c
		}
	}
	return pause
}
