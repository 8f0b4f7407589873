package billing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
)

// story is a history as changes make it, one after the other.
type story struct {
	history []billing.Change
	rows    int
}

// begin is the story of a subscription that is ACTIVE from day 0 on.
func begin() *story {
	s := &story{}
	s.apply(day(0), billing.StatusChange{Status: billing.Active, EffectDate: day(0)})
	return s
}

func (s *story) apply(now time.Time, c billing.StatusChange) billing.ChangePlan {
	plan := billing.PlanStatusChange(s.history, c, now, func() string {
		s.rows++
		return fmt.Sprintf("row %d", 999-s.rows) // a later row does not win by its id
	})
	removed := func(row billing.Change) bool {
		return slices.ContainsFunc(plan.Remove, func(r billing.Change) bool { return r.ID == row.ID })
	}
	s.history = append(slices.DeleteFunc(slices.Clone(s.history), removed), plan.Add...)
	return plan
}

func (s *story) at(t time.Time) billing.Status {
	c, _ := billing.StatusAt(s.history, t)
	return billing.Status(c.StatusID)
}

// days tells the status of each day from from on, by first letters.
func (s *story) days(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		b.WriteByte(s.at(day(n)).String()[0])
	}
	return b.String()
}

func pause(from, days int) billing.StatusChange {
	return billing.StatusChange{Status: billing.Paused, EffectDate: day(from), IntervalDays: days}
}

func to(status billing.Status, from int) billing.StatusChange {
	return billing.StatusChange{Status: status, EffectDate: day(from)}
}

func TestPauseThenCancelNeverComesBack(t *testing.T) {
	t.Parallel()
	s := begin()
	s.apply(day(1), pause(1, 30))
	require.Equal(t, billing.Active, s.at(day(31)), "it would come back")

	s.apply(day(5), to(billing.Cancelled, 5))

	require.Equal(t, billing.Cancelled, s.at(day(31)))
	require.Equal(t, billing.Cancelled, s.at(day(4000)))
}

func TestStories(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		changes []billing.StatusChange // applied on days 1, 2, 3 …
		want    string                 // the statuses from day 0 on
	}{
		"a pause returns by itself":                    {[]billing.StatusChange{pause(1, 5)}, "APPPPPAAAA"},
		"a pause until further notice does not":        {[]billing.StatusChange{pause(1, 0)}, "APPPPPPPPP"},
		"a pause extended":                             {[]billing.StatusChange{pause(1, 5), pause(2, 6)}, "APPPPPPPAA"},
		"a pause shortened":                            {[]billing.StatusChange{pause(1, 7), pause(2, 2)}, "APPPAAAAAA"},
		"a pause made endless":                         {[]billing.StatusChange{pause(1, 5), pause(2, 0)}, "APPPPPPPPP"},
		"activated during a pause":                     {[]billing.StatusChange{pause(1, 5), to(billing.Active, 2), pause(3, 0)}, "APAPPPPPPP"},
		"a pause in the future":                        {[]billing.StatusChange{pause(4, 3)}, "AAAAPPPAAA"},
		"activated before a pause in the future":       {[]billing.StatusChange{pause(4, 3), to(billing.Active, 2)}, "AAAAPPPAAA"},
		"cancelled before a pause in the future":       {[]billing.StatusChange{pause(4, 3), to(billing.Cancelled, 2)}, "AACCPPPPPP"},
		"cancelled in a pause in the future":           {[]billing.StatusChange{pause(4, 4), to(billing.Cancelled, 6)}, "AAAAPPCCCC"},
		"a cancel scheduled before the return":         {[]billing.StatusChange{to(billing.Cancelled, 4), pause(2, 5)}, "AAPPCCCCCC"},
		"a cancel scheduled for the return":            {[]billing.StatusChange{to(billing.Cancelled, 7), pause(2, 5)}, "AAPPPPPCCC"},
		"a cancel scheduled after the return":          {[]billing.StatusChange{to(billing.Cancelled, 8), pause(2, 5)}, "AAPPPPPACC"},
		"a cancel at the return":                       {[]billing.StatusChange{pause(2, 5), to(billing.Cancelled, 7)}, "AAPPPPPCCC"},
		"an activation scheduled before the return":    {[]billing.StatusChange{to(billing.Active, 4), pause(2, 5)}, "AAPPAAAAAA"},
		"two pauses, apart":                            {[]billing.StatusChange{pause(6, 2), pause(2, 2)}, "AAPPAAPPAA"},
		"a pause that runs into the next":              {[]billing.StatusChange{pause(4, 4), pause(2, 4)}, "AAPPPPPPAA"},
		"a pause that outlasts one in the future":      {[]billing.StatusChange{pause(3, 2), pause(2, 6)}, "AAPPPPPPAA"},
		"endless, with one in the future":              {[]billing.StatusChange{pause(4, 2), pause(2, 0)}, "AAPPPPPPPP"},
		"a pause that runs into an endless one":        {[]billing.StatusChange{pause(4, 0), pause(2, 4)}, "AAPPPPPPPP"},
		"a cancelled subscription paused":              {[]billing.StatusChange{to(billing.Cancelled, 1), pause(2, 3)}, "ACPPPPPPPP"},
		"cancelled, paused, paused again":              {[]billing.StatusChange{to(billing.Cancelled, 1), pause(2, 0), pause(3, 3)}, "ACPPPPPPPP"},
		"cancelled, activated, paused":                 {[]billing.StatusChange{to(billing.Cancelled, 1), to(billing.Active, 2), pause(3, 3)}, "ACAPPPAAAA"},
		"cancelled with an activation already planned": {[]billing.StatusChange{to(billing.Active, 5), to(billing.Cancelled, 2)}, "AACCCAAAAA"},
		"cancelled before the pause it was in":         {[]billing.StatusChange{pause(1, 5), to(billing.Cancelled, 0)}, "CPPPPPPPPP"},
		"each of a microsecond's words":                {[]billing.StatusChange{to(billing.Paused, 1), to(billing.Cancelled, 1), to(billing.Active, 1)}, "AAAAAAAAAA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := begin()
			for i, change := range c.changes {
				s.apply(day(1+i), change)
			}
			require.Equal(t, c.want, s.days(0, 9))
		})
	}
}

// The clock can give the same microsecond twice, or go back a little.
func TestTheLastWordWins(t *testing.T) {
	t.Parallel()
	for _, now := range []time.Time{day(3), day(3).Add(-time.Second), day(3).Add(time.Microsecond)} {
		s := begin()
		s.apply(day(3), to(billing.Cancelled, 3))
		s.apply(now, to(billing.Active, 3))
		require.Equal(t, billing.Active, s.at(day(3)))
		s.apply(now, to(billing.Cancelled, 3))
		require.Equal(t, billing.Cancelled, s.at(day(3)))
	}
}

// A row by hand from the end of time must not push ours out of the calendar.
func TestCreateDatesStayInTheCalendar(t *testing.T) {
	t.Parallel()
	end := time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	row := billing.Change{ID: "by hand", StatusID: int(billing.Active), EffectDate: &end, CreateDate: &end}

	plan := billing.PlanStatusChange([]billing.Change{row}, to(billing.Paused, 1), day(1), func() string { return "x" })

	require.LessOrEqual(t, plan.Add[0].CreateDate.Year(), 9999)
}

func genChange() *rapid.Generator[billing.StatusChange] {
	return rapid.Custom(func(t *rapid.T) billing.StatusChange {
		c := to(rapid.SampledFrom([]billing.Status{billing.Active, billing.Cancelled, billing.Paused}).Draw(t, "status"),
			rapid.IntRange(0, 9).Draw(t, "day"))
		if c.Status == billing.Paused {
			c.IntervalDays = rapid.SampledFrom([]int{0, 1, 2, 3, 5}).Draw(t, "interval")
		}
		return c
	})
}

const horizon = 16 // days; no change of genChange has an effect after it

func TestChangesKeepTheirPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, now := begin(), 1
		for _, c := range rapid.SliceOfN(genChange(), 1, 8).Draw(t, "changes") {
			now += rapid.IntRange(0, 2).Draw(t, "later")

			plan := s.apply(day(now), c)

			for _, row := range plan.Remove {
				require.True(t, billing.IsAutomaticReturn(row), "an explicit row was removed")
				require.True(t, row.EffectDate.After(c.EffectDate), "the past was changed")
			}
			decides, _ := billing.StatusAt(s.history, c.EffectDate)
			require.Equal(t, plan.Add[0].ID, decides.ID, "the change is in force at its effect date")
			requireNoReturnFromCancelled(t, s)
			requirePausedAsAsked(t, s, c)
		}
	})
}

// requireNoReturnFromCancelled: where the last that anybody has said, pauses
// aside, is CANCELLED, the status is not ACTIVE.
func requireNoReturnFromCancelled(t *rapid.T, s *story) {
	var said []billing.Change
	for _, row := range s.history {
		if !billing.IsAutomaticReturn(row) && row.StatusID != int(billing.Paused) {
			said = append(said, row)
		}
	}
	for n := range horizon {
		if last, _ := billing.StatusAt(said, day(n)); last.StatusID == int(billing.Cancelled) {
			require.NotEqual(t, billing.Active, s.at(day(n)), "it came back by itself on day %d", n)
		}
	}
}

// requirePausedAsAsked: a pause just asked for lasts as long as asked, and ends
// then, unless a row that somebody has scheduled says otherwise.
func requirePausedAsAsked(t *rapid.T, s *story, c billing.StatusChange) {
	if c.Status != billing.Paused {
		return
	}
	end := c.EffectDate.Add(time.Duration(c.IntervalDays) * 24 * time.Hour)
	for n := range horizon {
		decides, _ := billing.StatusAt(s.history, day(n))
		during := !day(n).Before(c.EffectDate) && (c.IntervalDays == 0 || day(n).Before(end))
		require.False(t, during && billing.IsAutomaticReturn(decides), "it came back early, on day %d", n)
	}
	scheduled := slices.ContainsFunc(s.history, func(row billing.Change) bool {
		return !billing.IsAutomaticReturn(row) && row.EffectDate.After(c.EffectDate)
	})
	cancelled := s.lastWord(c.EffectDate) == billing.Cancelled
	if c.IntervalDays > 0 && !scheduled && !cancelled {
		require.Equal(t, billing.Active, s.at(end), "it did not come back")
	}
}

// lastWord is the status at t, pauses aside.
func (s *story) lastWord(t time.Time) billing.Status {
	others := slices.DeleteFunc(slices.Clone(s.history), func(c billing.Change) bool { return c.StatusID == int(billing.Paused) })
	last, _ := billing.StatusAt(others, t)
	return billing.Status(last.StatusID)
}

// The database gives rows in any order; people give several the same dates.
func TestAPlanDoesNotDependOnTheOrderOfRows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory().Draw(t, "history")
		for i := range history {
			if history[i].StatusID == int(billing.Active) && rapid.Bool().Draw(t, "automatic") {
				history[i].Details = billing.AutomaticReturnDetails
			}
		}
		c := genChange().Draw(t, "change")
		id := func() string { return "new" }

		got := billing.PlanStatusChange(rapid.Permutation(history).Draw(t, "shuffled"), c, day(3), id)

		want := billing.PlanStatusChange(history, c, day(3), id)
		require.Equal(t, want.Add, got.Add)
		require.ElementsMatch(t, want.Remove, got.Remove)
	})
}

func TestStatusChangeValidate(t *testing.T) {
	t.Parallel()
	year := func(y int) time.Time { return time.Date(y, 6, 1, 0, 0, 0, 0, time.UTC) }
	for _, good := range []billing.StatusChange{
		to(billing.Active, 0), to(billing.Cancelled, 0), pause(0, 0), pause(0, 1), pause(0, billing.MaxPauseDays),
		{Status: billing.Active, EffectDate: year(1900)},
		{Status: billing.Active, EffectDate: year(9999)},
		{Status: billing.Active, EffectDate: day(0), Details: strings.Repeat("ä", 256)},
		{Status: billing.Active, EffectDate: day(0), Details: "'; DROP TABLE club; -- 🍺"},
	} {
		require.NoError(t, good.Validate(), "%+v", good)
	}
	for field, bad := range map[string][]billing.StatusChange{
		"status_id":   {to(0, 0), to(4, 0), to(-1, 0)},
		"interval":    {pause(0, -1), pause(0, billing.MaxPauseDays+1), {Status: billing.Active, EffectDate: day(0), IntervalDays: 1}},
		"effect_date": {{Status: billing.Active, EffectDate: year(1899)}, {Status: billing.Active, EffectDate: year(10000)}, {Status: billing.Active}, {Status: billing.Paused, EffectDate: year(9999), IntervalDays: 365}},
		"details": {
			{Status: billing.Active, EffectDate: day(0), Details: strings.Repeat("a", 257)},
			{Status: billing.Active, EffectDate: day(0), Details: "a\x00"},
			{Status: billing.Active, EffectDate: day(0), Details: "a\xff"},
			{Status: billing.Active, EffectDate: day(0), Details: billing.AutomaticReturnDetails},
		},
	} {
		for _, c := range bad {
			var problem *billing.Error
			require.ErrorAs(t, c.Validate(), &problem, "%+v", c)
			require.Equal(t, billing.CodeInvalid, problem.Code)
			require.Equal(t, field, problem.Field, "%+v", c)
		}
	}
}
