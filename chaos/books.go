package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"drayman/shop/shoptest"
)

// books are what is left of a campaign, read past drayman: the shop's journal,
// the tables, the log of answers, and the logs of the processes. Only the reports
// are drayman's own words.
type books struct {
	plan    *plan
	months  []string
	orders  []shoptest.Order
	ledger  []row
	answers []exchange
	subs    map[string]subscription // by id
	reports map[string]report
	cutOffs map[string]time.Time // of runs, by id
	read    time.Time            // when the tables were; all changes are made by then
	leaks   []string             // files in which the shop's secret stands
	lapses  []lapse              // what the database has been made to forget
}

// row is a charge of the ledger.
type row struct {
	RequestID, Subscription, Period, Status, Customer string
	Order                                             *string
	CreatedAt                                         time.Time
	ResolvedBy, ResolvedNote                          *string
	SettledAt                                         *time.Time
	Failure                                           *string
	Run                                               *string
	Owner                                             string
}

// stands says that the row is an order or may be one.
func (r row) stands() bool { return r.Status != "declined" && r.Status != "withdrawn" }

// subscription is a row with its history, the latest last.
type subscription struct {
	ID, Customer string
	Club         int
	History      []statusRow
}

type statusRow struct {
	Subscription    string
	Status          int
	Effect, Created time.Time
	ID              string
}

// report is what drayman says of a month.
type report struct {
	Run struct {
		State  string    `json:"state"`
		CutOff time.Time `json:"cut_off"`
	} `json:"run"`
	Eligible int            `json:"eligible"`
	Totals   map[string]int `json:"totals"`
	Closed   bool           `json:"closed"`
}

func (c *campaign) readBooks(ctx context.Context) (*books, error) {
	b := &books{plan: c.plan, months: c.months, subs: map[string]subscription{}, reports: map[string]report{}, cutOffs: map[string]time.Time{}, lapses: c.lapses, read: time.Now()}
	var err error
	if b.orders, err = readBook(c.bookFile()); err != nil {
		return nil, fmt.Errorf("the shop's book: %w", err)
	}
	if b.answers, err = readAnswers(c.dir); err != nil {
		return nil, fmt.Errorf("the log of answers: %w", err)
	}
	if err := c.readTables(ctx, b); err != nil {
		return nil, fmt.Errorf("the tables: %w", err)
	}
	for _, month := range c.months {
		var r report
		err := until(ctx, 30*time.Second, func(ctx context.Context) error {
			return getJSON(ctx, c.apis[0]+"/billing-run/"+month+"/report", &r)
		})
		if err != nil {
			return nil, fmt.Errorf("the report of %s: %w", month, err)
		}
		b.reports[month] = r
	}
	b.leaks, err = filesWith(c.dir, shopSecret)
	return b, err
}

func (c *campaign) readTables(ctx context.Context, b *books) error {
	rows, err := c.db.Query(ctx, `SELECT request_id, subscription_id, period, status, customer_id, shop_order, created_at,
		resolved_by, resolved_note, settled_at, failure_detail, run_id, owner FROM charge ORDER BY created_at, request_id`)
	if err != nil {
		return err
	}
	if b.ledger, err = pgx.CollectRows(rows, pgx.RowToStructByPos[row]); err != nil {
		return err
	}
	if rows, err = c.db.Query(ctx, `SELECT id, customer_store_id, club_id FROM subscription`); err != nil {
		return err
	}
	var id, customer string
	var club int
	var cutOff time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &customer, &club}, func() error {
		b.subs[id] = subscription{ID: id, Customer: customer, Club: club}
		return nil
	}); err != nil {
		return err
	}
	if rows, err = c.db.Query(ctx, `SELECT id, cut_off FROM billing_run`); err != nil {
		return err
	}
	if _, err := pgx.ForEachRow(rows, []any{&id, &cutOff}, func() error {
		b.cutOffs[id] = cutOff
		return nil
	}); err != nil {
		return err
	}
	rows, err = c.db.Query(ctx, `SELECT subscription_id, status_id, effect_date, create_date, id FROM subscription_status_history`)
	if err != nil {
		return err
	}
	history, err := pgx.CollectRows(rows, pgx.RowToStructByPos[statusRow])
	if err != nil {
		return err
	}
	slices.SortFunc(history, laterOf)
	for _, h := range history {
		sub := b.subs[h.Subscription]
		sub.History = append(sub.History, h)
		b.subs[h.Subscription] = sub
	}
	return nil
}

// laterOf orders a history as the brief has it: by the effect, then the row's
// making, then its id.
func laterOf(a, b statusRow) int {
	if c := a.Effect.Compare(b.Effect); c != 0 {
		return c
	}
	if c := a.Created.Compare(b.Created); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// eligibleAt is the brief's rule; clubs 1 and 2 are ACTIVE and CLOSED for good.
func (s subscription) eligibleAt(at time.Time) bool {
	status := 0
	for _, h := range s.History {
		if !h.Effect.After(at) {
			status = h.Status
		}
	}
	return status == statusActive && (s.Club == 1 || s.Club == 2)
}

// everNotEligible says whether there was a moment from the one time to the other
// at which the subscription was not eligible.
func (s subscription) everNotEligible(from, to time.Time) bool {
	return !s.eligibleAt(from) || slices.ContainsFunc(s.History, func(h statusRow) bool {
		return h.Effect.After(from) && !h.Effect.After(to) && h.Status != statusActive
	})
}

func getJSON(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it is read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// filesWith names the files of a campaign that hold the text: logs, answers,
// Temporal's histories, the tables. PostgreSQL's come and go meanwhile.
func filesWith(dir, text string) (found []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // gone since it was listed
		}
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(text)) {
			found = append(found, filepath.Base(path))
		}
		return nil
	})
	return found, err
}
