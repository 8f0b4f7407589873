package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/models/modelstest"
)

func TestSubscribe(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		db.Exec(t, "INSERT INTO club (id, name, store_sku) VALUES (2, 'closed', 2), (3, 'inactive', 3), (4, 'none', 4)")
		db.Exec(t, `INSERT INTO club_status_history (id, club_id, club_status_id, effect_date) VALUES ('c', 2, 2, '2020-01-01'), ('i', 3, 3, '2020-01-01')`)

		made := s.do(t, http.MethodPost, "/club/1/subscribe/", `{"customer_id":"`+oddID+`"}`)
		require.Equal(t, http.StatusCreated, made.Code, made.Raw)
		require.Contains(t, made.Raw, `"status":"ACTIVE"`)
		location := made.Header.Get("Location")
		require.Contains(t, s.do(t, http.MethodGet, location+"/", "").Raw, oddID)

		again := s.do(t, http.MethodPost, "/club/1/subscribe", `{"customer_id":"`+oddID+`"}`)
		require.Equal(t, http.StatusConflict, again.Code)
		require.Equal(t, "already_subscribed", again.Problem.Code)
		require.Equal(t, location, "/subscription/"+again.Problem.SubscriptionID)
		for _, club := range []string{"2", "3", "4"} {
			require.Equal(t, "club_not_active", s.do(t, http.MethodPost, "/club/"+club+"/subscribe", `{"customer_id":"x"}`).Problem.Code)
		}
		require.Equal(t, "club_not_found", s.do(t, http.MethodPost, "/club/5/subscribe", `{"customer_id":"x"}`).Problem.Code)
		require.Equal(t, "["+strings.TrimPrefix(location, "/subscription/")+"]\n",
			strings.ReplaceAll(s.do(t, http.MethodGet, "/subscription/eligible", "").Raw, `"`, ""))
	})
}

// The Python version charged a customer who cancelled during a pause.
func TestACancelledSubscriptionNeverComesBack(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		clock := newClock("2026-11-01T12:00:00Z")
		s := setup(t, db, options{clock: clock.now})
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")
		day := 24 * time.Hour

		paused := s.do(t, http.MethodPost, "/subscription/s/status/", `{"status_id":3,"interval":30,"details":"holiday"}`)
		require.Equal(t, http.StatusOK, paused.Code, paused.Raw)
		require.Contains(t, paused.Raw, `"details":"Automatic return schedule"`)
		clock.add(5 * day)
		require.Contains(t, s.do(t, http.MethodPost, "/subscription/s/status/", `{"status_id":2}`).Raw, `"scheduled":[]`)
		clock.add(26 * day)
		require.Equal(t, "[]\n", s.do(t, http.MethodGet, "/subscription/eligible", "").Raw)
		require.Equal(t, "not_eligible", s.charge(t, "s", "r-1").Problem.Code)
		s.requireNothingStarted(t)
	})
}

func TestEligible(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		require.Equal(t, "[]\n", s.do(t, http.MethodGet, "/subscription/eligible/", "").Raw)
		var all []string
		for i := range 25 {
			all = append(all, fmt.Sprintf("s-%02d", i))
			db.AddSubscription(t, all[i], 1, "anna")
		}
		var whole []string
		require.NoError(t, json.Unmarshal([]byte(s.do(t, http.MethodGet, "/subscription/eligible", "").Raw), &whole))
		require.Equal(t, all, whole)

		// Page by page, as the Link header leads.
		var paged []string
		pages := 0
		for path := "/subscription/eligible/?limit=10"; path != ""; pages++ {
			r := s.do(t, http.MethodGet, path, "")
			var ids []string
			require.NoError(t, json.Unmarshal([]byte(r.Raw), &ids))
			paged = append(paged, ids...)
			path, _, _ = strings.Cut(strings.TrimPrefix(r.Header.Get("Link"), "<"), ">")
		}
		require.Equal(t, all, paged)
		require.Equal(t, 3, pages)

		s.do(t, http.MethodPost, "/subscription/s-00/status", `{"status_id":3,"interval":10}`)
		now := time.Now().UTC()
		require.NotContains(t, s.do(t, http.MethodGet, "/subscription/eligible", "").Raw, "s-00")
		later := now.Add(11 * 24 * time.Hour).Format(time.RFC3339)
		require.Contains(t, s.do(t, http.MethodGet, "/subscription/eligible?at="+later, "").Raw, "s-00")
		require.Equal(t, "[]\n", s.do(t, http.MethodGet, "/subscription/eligible?at=1999-01-01T00:00:00Z", "").Raw)

		require.Equal(t, http.StatusOK, s.charge(t, "s-01", "r").Code)
		uncharged := s.do(t, http.MethodGet, "/subscription/eligible?uncharged=true&limit=1", "").Raw
		require.Equal(t, "[\"s-02\"]\n", uncharged)
	})
}

func TestReads(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 7)
	db.Exec(t, "INSERT INTO club (id) VALUES (2)") // all null: people may do that
	require.Contains(t, s.do(t, http.MethodGet, "/clubs/", "").Raw, `{"id":2,"name":"","store_sku":null,"status":null}`)
	require.Contains(t, s.do(t, http.MethodGet, "/club/1", "").Raw, `"store_sku":7,"status":{"status_id":1,"status":"ACTIVE"`)
	require.Equal(t, "club_not_found", s.do(t, http.MethodGet, "/club/3", "").Problem.Code)
	require.Equal(t, "subscription_not_found", s.do(t, http.MethodGet, "/subscription/x/charges", "").Problem.Code)
	require.Equal(t, "charge_not_found", s.do(t, http.MethodGet, "/subscription/x/charges/2026-11", "").Problem.Code)
	require.Equal(t, http.StatusOK, s.do(t, http.MethodGet, "/livez", "").Code)
	require.JSONEq(t, `{"status":"ready","database":"ok","temporal":"ok"}`, s.do(t, http.MethodGet, "/readyz/", "").Raw)
	require.Contains(t, s.do(t, http.MethodGet, "/openapi.yaml", "").Raw, "/subscription/{id}/charge/{request_id}")
	page := s.do(t, http.MethodGet, "/docs/", "").Raw
	require.Contains(t, page, "/openapi.yaml")
	require.NotRegexp(t, `(src|href)="https?://`, page, "the page must work without the network")
	require.Equal(t, http.StatusOK, s.do(t, http.MethodGet, "/docs/swagger-ui-bundle.js", "").Code)
}

// A list that breaks half-way must not look whole.
func TestACutListLooksCut(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.Exec(t, `INSERT INTO subscription (id, club_id, customer_store_id) SELECT lpad(i::text, 30, '0'), 1, 'x' FROM generate_series(1, 200000) i`)
	db.Exec(t, `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date) SELECT id, id, 1, '2020-01-01' FROM subscription`)
	db.Exec(t, `ANALYZE`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/subscription/eligible", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	part := make([]byte, 1000)
	_, err = res.Body.Read(part)
	require.NoError(t, err)

	db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT s.id%' AND pid <> pg_backend_pid()`)

	buf := make([]byte, 1<<20)
	for err == nil {
		_, err = res.Body.Read(buf)
	}
	require.ErrorContains(t, err, "unexpected EOF")
}

// A cancel with a time that SQLite keeps and nobody can read does not count, and is
// shown; one in another form counts.
func TestExplain_TimesByHand(t *testing.T) {
	s := setup(t, modelstest.SQLite(t), options{clock: newClock("2026-11-27T12:00:00Z").now})
	s.db.AddClub(t, 1, 1)
	s.db.AddSubscription(t, "s", 1, "anna")
	s.db.Exec(t, "INSERT INTO subscription_status_history VALUES ('odd', 's', 2, '27.11.2026 00:00', 'today', 'by phone')")
	s.db.Exec(t, "INSERT INTO club_status_history VALUES ('c', 1, 3, 20261127, NULL, NULL)")

	const subscription = `{"table":"subscription_status_history","id":"odd","column":"effect_date","text":"27.11.2026 00:00"},` +
		`{"table":"subscription_status_history","id":"odd","column":"create_date","text":"today"}`
	const club = `{"table":"club_status_history","id":"c","column":"effect_date","text":"20261127"}`
	for path, shown := range map[string]string{
		"/subscription/s": subscription, "/subscription/s/explain": subscription + "," + club, "/club/1": club, "/clubs": club,
	} {
		read := s.do(t, http.MethodGet, path, "")
		require.Equal(t, http.StatusOK, read.Code, read.Raw)
		require.Contains(t, read.Raw, `"unreadable":[`+shown+`]`)
	}
	require.Equal(t, "[\"s\"]\n", s.do(t, http.MethodGet, "/subscription/eligible", "").Raw)

	s.db.Exec(t, "INSERT INTO subscription_status_history VALUES ('T', 's', 2, '2026-11-27T13:59:59+02:00', 1795752000, NULL)")
	require.Equal(t, "[]\n", s.do(t, http.MethodGet, "/subscription/eligible", "").Raw)
	require.Contains(t, s.do(t, http.MethodGet, "/subscription/s/explain", "").Raw, `"reason":"subscription_cancelled"`)
	require.Equal(t, "not_eligible", s.charge(t, "s", "r-1").Problem.Code)
	s.requireNothingStarted(t)
}
