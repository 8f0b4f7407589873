package models_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

// world is all that decides who is eligible.
type world struct {
	clubs   map[int][]billing.Change
	subs    map[string]subscription
	charges map[string]billing.ChargeStatus // of November, by subscription
	// forms are the dates as SQLite has them, by the id of their row: the effect date
	// and the create date. PostgreSQL has one form only.
	forms map[string][2]any
}

type subscription struct {
	club    int // 0: null
	history []billing.Change
}

// nastyIDs are told apart and ordered by bytes, and by nothing else.
var nastyIDs = []string{
	"a", "A", "B", "b", "_", "-", "Ä", "ä", "a\u0308", "z", "aa", "a-", "a_", "0", "00000000-0000-000-00000-000000000000",
	"%", "a%", "'", `"`, `\`, "?", "@at", "$1", " ", "a ", "🍺", "é", "ß", "ss", "~",
}

func genWorld() *rapid.Generator[world] {
	return rapid.Custom(func(t *rapid.T) world {
		w := world{clubs: map[int][]billing.Change{}, subs: map[string]subscription{}, charges: map[string]billing.ChargeStatus{}, forms: map[string][2]any{}}
		mixed := rapid.Bool().Draw(t, "mixed forms")
		rows := 0
		history := rapid.Custom(func(t *rapid.T) []billing.Change {
			date := rapid.Ptr(rapid.Map(rapid.IntRange(0, 2), day), true)
			changes := make([]billing.Change, rapid.IntRange(0, 4).Draw(t, "rows"))
			for i := range changes {
				rows++
				changes[i] = billing.Change{
					ID:       fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"a", "B", "_", "-", "Ä"}).Draw(t, "id"), rows),
					StatusID: rapid.SampledFrom([]int{1, 1, 1, 2, 3, 9, 0}).Draw(t, "status"), EffectDate: date.Draw(t, "effect"), CreateDate: date.Draw(t, "created"),
				}
				if mixed {
					w.forms[changes[i].ID] = [2]any{genForm(changes[i].EffectDate).Draw(t, "form"), genForm(changes[i].CreateDate).Draw(t, "form")}
				}
			}
			return changes
		})
		for id := range rapid.IntRange(0, 3).Draw(t, "clubs") {
			w.clubs[id+1] = history.Draw(t, "club history")
		}
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(nastyIDs), 0, 10, rapid.ID[string]).Draw(t, "subscriptions") {
			w.subs[id] = subscription{rapid.IntRange(0, len(w.clubs)).Draw(t, "club"), history.Draw(t, "history")}
			if rapid.Bool().Draw(t, "charge") {
				w.charges[id] = rapid.SampledFrom([]billing.ChargeStatus{billing.Pending, billing.Charged, billing.Declined, billing.Unresolved}).Draw(t, "charge status")
			}
		}
		return w
	})
}

// genForm draws a form of the time, or, for a null, something that is no time.
func genForm(at *time.Time) *rapid.Generator[any] {
	if at == nil {
		return rapid.SampledFrom([]any{nil, nil, "", "soon", "27.11.2026", "2026-02-30 12:00:00.000000", 20261127, -1.5, []byte("2026-11-01"), "2026-11-01\x00"})
	}
	east, west := at.In(time.FixedZone("", 9*3600)), at.In(time.FixedZone("", -12600))
	return rapid.SampledFrom([]any{
		modelstest.Time(*at), modelstest.Time(*at), at.Format(time.DateTime), at.Format("2006-01-02T15:04:05"), at.Format("2006-01-02t15:04:05.000z"),
		at.Format(time.RFC3339), east.Format(time.RFC3339), west.Format("2006-01-02 15:04:05-0700"), east.Format("2006-01-02T15:04:05.000000-07"),
		at.Format("2006-01-02 15:04"), " " + at.Format("2006-01-02T15:04,Z")[:16] + "Z ", at.Unix(), float64(at.Unix()), at.String(),
	})
}

// put makes the world that of the database.
func (w world) put(t require.TestingT, db modelstest.Database) {
	ctx := context.Background()
	tx, err := db.Pool.BeginTx(ctx, nil)
	require.NoError(t, err)
	exec := func(query string, args ...any) {
		_, err := tx.ExecContext(ctx, query, args...)
		require.NoError(t, err, query)
	}
	for _, table := range []string{"charge", "subscription_status_history", "club_status_history", "subscription", "club"} {
		exec("DELETE FROM " + table)
	}
	add := func(table, of string, id any, changes []billing.Change) {
		for _, c := range changes {
			form := [2]any{nullTime(c.EffectDate), nullTime(c.CreateDate)}
			if written, ok := w.forms[c.ID]; ok && db.Dialect == models.SQLite {
				form = written
			}
			exec("INSERT INTO "+table+"_status_history (id, "+table+"_id, "+of+", effect_date, create_date) VALUES ($1, $2, $3, $4, $5)",
				c.ID, id, null(c.StatusID), form[0], form[1])
		}
	}
	for id, history := range w.clubs {
		exec("INSERT INTO club (id) VALUES ($1)", id)
		add("club", "club_status_id", id, history)
	}
	for id, s := range w.subs {
		exec("INSERT INTO subscription (id, club_id) VALUES ($1, $2)", id, null(s.club))
		add("subscription", "status_id", id, s.history)
	}
	for id, status := range w.charges {
		for period, status := range map[string]billing.ChargeStatus{"2026-11": status, "2026-10": billing.Charged} {
			exec(`INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
				VALUES ($1, $2, $3, $4, '', '', 1, '2026-11-01 00:00:00.000000')`, period+id, id, period, string(status))
		}
	}
	require.NoError(t, tx.Commit())
}

func null(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

func nullTime(t *time.Time) any {
	if t == nil {
		return nil
	}
	return modelstest.Time(*t)
}

// explain is the rule, from package billing.
func (w world) explain(id string, at time.Time) billing.Explanation {
	s := w.subs[id]
	e := billing.Explanation{At: at, ClubID: s.club}
	e.Subscription, _ = billing.StatusAt(s.history, at)
	e.Club, _ = billing.StatusAt(w.clubs[s.club], at)
	e.Reason = billing.WhyNotEligible(billing.Standing{
		Subscription: billing.Status(e.Subscription.StatusID), Club: billing.ClubStatus(e.Club.StatusID), HasClub: s.club != 0,
	})
	return e
}

func (w world) eligible(at time.Time, uncharged bool) []string {
	ids := []string{}
	for id := range w.subs {
		status, has := w.charges[id]
		if w.explain(id, at).Reason == "" && (!uncharged || !has || status == billing.Declined) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// onWorlds checks a property of many worlds, on both databases.
func onWorlds(t *testing.T, property func(t *rapid.T, s *models.Store, w world)) {
	t.Helper()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		for _, table := range []string{"status", "club_status"} {
			db.Exec(t, "INSERT INTO "+table+" (id, name) VALUES (9, 'by hand')")
		}
		store := db.Open(t, func() time.Time { return day(1) })
		rapid.Check(t, func(t *rapid.T) {
			w := genWorld().Draw(t, "world")
			w.put(t, db)
			property(t, store, w)
		})
	})
}

func TestEligibleIsTheRule(t *testing.T) {
	t.Parallel()
	onWorlds(t, func(t *rapid.T, s *models.Store, w world) {
		at := day(rapid.IntRange(-1, 3).Draw(t, "day")).Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "µs")) * time.Microsecond)

		require.Equal(t, w.eligible(at, false), eligible(t, s, billing.EligibleQuery{At: at}))
		require.Equal(t, w.eligible(at, true), eligible(t, s, billing.EligibleQuery{At: at, Uncharged: november}))
	})
}

// People order 'a' before 'B', bytes do not.
func TestTheLastTieGoesToTheGreaterIDByBytes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		row := func(id string, status int) billing.Change {
			return billing.Change{ID: id, StatusID: status, EffectDate: new(day(-1)), CreateDate: new(day(-1))}
		}
		b.AddClub(t, 2, 1, row("a", int(billing.ClubActive)), row("B", int(billing.ClubInactive)))
		b.AddSubscription(t, "t", 2, "x", row("a", int(billing.Active)), row("B", int(billing.Cancelled)))
		b.AddSubscription(t, "u", 1, "x", row("ab", int(billing.Cancelled)), row("Aa", int(billing.Active)))
		require.Equal(t, []string{"s", "t"}, eligible(t, b.Store, billing.EligibleQuery{At: day(0)}))
	})
}

func TestPagesAreTheWhole(t *testing.T) {
	t.Parallel()
	onWorlds(t, func(t *rapid.T, s *models.Store, w world) {
		q := billing.EligibleQuery{At: day(2), Limit: rapid.IntRange(1, 4).Draw(t, "limit")}
		paged := []string{}
		for {
			page := eligible(t, s, q)
			require.LessOrEqual(t, len(page), q.Limit)
			paged = append(paged, page...)
			if len(page) < q.Limit {
				break
			}
			q.After = page[len(page)-1]
		}
		require.Equal(t, w.eligible(q.At, false), paged)
	})
}

// Four ways lead to a status, beside the list: the explanation, the
// subscription, the club and the claim.
func TestAllReadersAgree(t *testing.T) {
	t.Parallel()
	onWorlds(t, func(t *rapid.T, s *models.Store, w world) {
		ctx, at := t.Context(), day(rapid.IntRange(-1, 3).Draw(t, "day"))
		ids := slices.Sorted(maps.Keys(w.subs))
		for _, id := range ids[:min(2, len(ids))] { // two a world are enough, in a hundred worlds
			then, err := s.Explain(ctx, id, at)
			require.NoError(t, err)
			require.Equal(t, w.explain(id, at), readable(then))

			now, err := s.Explain(ctx, id, time.Time{})
			require.NoError(t, err)
			require.Equal(t, w.explain(id, day(1)), readable(now))
			sub, err := s.Subscription(ctx, id)
			require.NoError(t, err)
			require.Equal(t, now.Subscription, sub.Current)
			facts, err := s.ChargeFacts(ctx, billing.ChargeRequest{SubscriptionID: id, Period: november, RequestID: "r"})
			require.NoError(t, err)
			require.Equal(t, now.Reason, billing.WhyNotEligible(facts.Standing))
		}
		clubs, err := s.Clubs(ctx)
		require.NoError(t, err)
		require.Len(t, clubs, len(w.clubs))
		for _, club := range clubs {
			want, _ := billing.StatusAt(w.clubs[club.ID], day(1))
			require.Equal(t, want, club.Current)
		}
	})
}

// readable is the explanation without what could not be read.
func readable(e *billing.Explanation) billing.Explanation {
	e.Unreadable = nil
	return *e
}

func TestEligibleStopsAtYieldsError(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "bert")
		enough := errors.New("enough")
		for range 40 { // more than there are connections: a leak of one would be felt
			calls := 0
			err := b.Eligible(t.Context(), billing.EligibleQuery{At: day(0)}, func(string) error {
				calls++
				return enough
			})
			require.ErrorIs(t, err, enough)
			require.Equal(t, 1, calls)
		}
		requireIdle(t, b)
		require.Equal(t, []string{"s", "t"}, eligible(t, b.Store, billing.EligibleQuery{At: day(0)}))
	})
}

// requireIdle says that no connection of the Store is in use.
func requireIdle(t *testing.T, b bundle) {
	t.Helper()
	for _, pool := range []func() (*sql.DB, error){b.WritingPool, b.ReadingPool} {
		db, err := pool()
		require.NoError(t, err)
		require.Eventually(t, func() bool { return db.Stats().InUse == 0 }, 10*time.Second, time.Millisecond, "a connection is not given back")
	}
}

// A list cut short must not be taken for the whole.
func TestAnErrorInTheMiddleOfTheListIsReturned(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "bert")
		b.Exec(t, "ALTER TABLE subscription RENAME TO subscriptions")
		b.Exec(t, `CREATE VIEW subscription AS SELECT id, customer_store_id, create_date,
			CASE id WHEN 't' THEN abs(-9223372036854775807 - length(id)) ELSE club_id END AS club_id FROM subscriptions`)

		err := b.Eligible(t.Context(), billing.EligibleQuery{At: day(0)}, func(string) error { return nil })

		require.Error(t, err)
		requireIdle(t, b)
	})
}

func TestACallerThatHangsUpEndsTheList(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		for n := range 100 {
			b.AddSubscription(t, fmt.Sprintf("s-%03d", n), 1, "x")
		}
		ctx, hangUp := context.WithCancel(t.Context())
		err := b.Eligible(ctx, billing.EligibleQuery{At: day(0)}, func(string) error {
			hangUp()
			return ctx.Err() // as a write to the closed connection would
		})
		require.ErrorIs(t, err, context.Canceled)
		requireIdle(t, b)
	})
}

// The list is one snapshot, and whoever reads it slowly holds nobody up.
func TestTheListIsASnapshot(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		b.AddSubscription(t, "t", 1, "bert")
		var seen []string
		err := b.Eligible(t.Context(), billing.EligibleQuery{At: day(9)}, func(id string) error {
			seen = append(seen, id)
			_, err := b.ChangeStatus(t.Context(), "t", billing.StatusChange{Status: billing.Cancelled})
			require.NoError(t, err)
			_, err = b.Subscribe(t.Context(), 1, "carl "+id)
			require.NoError(t, err)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []string{"s", "t"}, seen)
		require.Len(t, eligible(t, b.Store, billing.EligibleQuery{At: day(9)}), 3, "anna and two of the name of Carl")
	})
}

func TestAutomaticReturnsCountInTheFuture(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		_, err := b.ChangeStatus(t.Context(), "s", billing.StatusChange{Status: billing.Paused, IntervalDays: 3})
		require.NoError(t, err)
		for at, want := range map[time.Time][]string{
			day(0).Add(-time.Microsecond): {"s"}, day(0): {}, day(3).Add(-time.Microsecond): {}, day(3): {"s"},
		} {
			require.Equal(t, want, eligible(t, b.Store, billing.EligibleQuery{At: at}), at)
		}
	})
}
