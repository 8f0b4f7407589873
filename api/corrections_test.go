package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
)

const correction = `"note":"it was a maintenance page","by":"Ana"`

// maintenance is what is charged for by the table of the shop's answers, and no order.
var maintenance = shoptest.Fault{Status: http.StatusOK, Body: "<html>We are back soon</html>", RequestID: "r-1"}

// outcome asks for a charge until it has ended: a busy Temporal server may be slow.
func (s *system) outcome(t *testing.T, subscription, requestID string) (r response) {
	t.Helper()
	require.Eventually(t, func() bool {
		r = s.charge(t, subscription, requestID)
		return r.Code != http.StatusAccepted && r.Code != http.StatusServiceUnavailable
	}, 2*time.Minute, 50*time.Millisecond)
	return r
}

// Temporal remembers that the charge was charged; the ledger decides.
func TestCorrect_ANewRequestIDIsANewAttempt(t *testing.T) {
	for name, notIdempotent := range map[string]bool{"idempotent": false, "not idempotent": true} {
		t.Run(name, func(t *testing.T) {
			modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
				s := setup(t, db, options{notIdempotent: notIdempotent})
				db.AddClub(t, 1, 1)
				db.AddSubscription(t, "s", 1, "anna")
				s.shop.SetFaults(maintenance)
				require.Equal(t, http.StatusOK, s.outcome(t, "s", "r-1").Code)
				location := "/subscription/s/charges/" + thisPeriod(t, s).String()

				for range 2 { // an answer that was lost is asked for again
					corrected := s.do(t, http.MethodPost, location+"/correct/", `{"outcome":"declined",`+correction+`}`)
					require.Equal(t, http.StatusOK, corrected.Code, corrected.Raw)
					require.Equal(t, "declined", corrected.Charge.Status)
					require.Contains(t, corrected.Raw, `"resolved_by":"Ana","resolved_note":"it was a maintenance page"`)
				}
				require.Len(t, db.Lines(t, "SELECT subject FROM audit"), 1)
				declined := s.outcome(t, "s", "r-1")
				require.Equal(t, http.StatusPaymentRequired, declined.Code)
				require.Contains(t, declined.Problem.Detail, "a person has settled the charge as declined: it was a maintenance page")

				charged := s.outcome(t, "s", "r-2")
				require.Equal(t, http.StatusOK, charged.Code, charged.Raw)
				require.Equal(t, "r-2", charged.Charge.RequestID)
				require.Len(t, s.shop.Calls(), 2)
				require.Len(t, s.shop.Orders(), 1)

				stands := s.do(t, http.MethodPost, location+"/correct", `{"outcome":"charged","request_id":"r-1",`+correction+`}`)
				require.Equal(t, http.StatusConflict, stands.Code)
				require.Equal(t, "charge_stands", stands.Problem.Code)
				require.Contains(t, stands.Raw, `"charge":{"request_id":"r-2"`)

				// Once more: of two that Temporal remembers, neither is repeated.
				which := s.do(t, http.MethodPost, location+"/correct", `{"outcome":"declined",`+correction+`}`)
				require.Equal(t, http.StatusUnprocessableEntity, which.Code)
				require.Contains(t, which.Problem.Detail, "request_id must be given")
				require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, location+"/correct", `{"outcome":"declined","request_id":"r-2",`+correction+`}`).Code)
				require.Equal(t, "r-3", s.outcome(t, "s", "r-3").Charge.RequestID)
				require.Equal(t, []string{"r-1 declined", "r-2 declined", "r-3 charged"}, db.Lines(t, "SELECT request_id || ' ' || status FROM charge ORDER BY 1"))
			})
		})
	}
}

// The database was restored to before the second attempt. Its order is repeated.
func TestCorrect_AndThenTheDatabaseIsRestored(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	s.shop.SetFaults(maintenance)
	require.Equal(t, http.StatusOK, s.outcome(t, "s", "r-1").Code)
	_, err := s.store.Correct(t.Context(), billing.Correction{RequestIDs: []billing.RequestID{"r-1"}, Outcome: billing.Declined, Note: "n"})
	require.NoError(t, err)
	require.Equal(t, "r-2", s.outcome(t, "s", "r-2").Charge.RequestID)

	db.Exec(t, "DELETE FROM charge WHERE request_id = 'r-2'")

	require.Equal(t, "r-2", s.outcome(t, "s", "r-3").Charge.RequestID)
	require.Len(t, s.shop.Orders(), 1)
}

// Temporal remembers a decline; the ledger has it as charged.
func TestCorrect_ADeclineThatWasNone(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")
		s.shop.SetFaults(shoptest.Fault{Status: http.StatusPaymentRequired})
		require.Equal(t, http.StatusPaymentRequired, s.outcome(t, "s", "r-1").Code)

		corrected := s.do(t, http.MethodPost, "/charges/correct", `{"request_ids":["r-1"],"outcome":"charged","note":"the order is there"}`)
		require.Equal(t, http.StatusOK, corrected.Code, corrected.Raw)

		for _, id := range []string{"r-1", "r-2"} {
			answer := s.charge(t, "s", id)
			require.Equal(t, http.StatusOK, answer.Code, answer.Raw)
			require.True(t, answer.Charge.AlreadyCharged)
			require.Equal(t, "r-1", answer.Charge.RequestID)
		}
		require.Len(t, s.shop.Calls(), 1)
	})
}

func TestCorrect_AListByRequestIDs(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		ids := make([]string, billing.MaxCorrections)
		for i := range ids {
			ids[i] = strings.Repeat("x", billing.MaxRequestID-4) + string([]byte{'0' + byte(i/1000), '0' + byte(i/100%10), '0' + byte(i/10%10), '0' + byte(i%10)})
			db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, settled_at)
				VALUES ($1, $2, '2026-11', 'charged', 'x', 'c', 1, $3, $3)`, ids[i], ids[i][100:], time.Now())
		}
		list, err := json.Marshal(ids)
		require.NoError(t, err)
		body := `{"request_ids":` + string(list) + `,"outcome":"declined",` + correction + `}`
		corrected := s.do(t, http.MethodPost, "/charges/correct", body)
		require.Equal(t, http.StatusOK, corrected.Code, corrected.Raw)
		var charges []billing.Charge
		require.NoError(t, json.Unmarshal([]byte(corrected.Raw), &charges))
		require.Len(t, charges, len(ids))
		require.Equal(t, ids[7], string(charges[7].RequestID))
		require.Len(t, db.Lines(t, "SELECT subject FROM audit"), len(ids))

		missing := s.do(t, http.MethodPost, "/charges/correct", strings.Replace(strings.Replace(body, ids[7], "gone", 1), "declined", "charged", 1))
		require.Equal(t, "charge_not_found", missing.Problem.Code)
		require.Contains(t, missing.Problem.Detail, "gone")
		require.Len(t, db.Lines(t, "SELECT subject FROM audit"), len(ids), "all or none")
	})
}

func TestCorrect_BadInputChangesNothing(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.Exec(t, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at, settled_at)
			VALUES ('r', 's', '2026-11', 'charged', 'x', 'c', 1, $1, $1)`, time.Now())
		const rest = `,"outcome":"declined","note":"n"}`
		for _, body := range append(badBodies(),
			`{"outcome":"declined","note":" "}`, `{"outcome":"withdrawn","note":"n"}`, `{"outcome":null,"note":"n"}`, `{"outcome":"declined","note":null}`,
			`{"outcome":"declined","note":"n","by":"a\u0000"}`, `{"outcome":"declined","note":"n","by":"`+strings.Repeat("x", 129)+`"}`,
			`{"outcome":"declined","note":"`+strings.Repeat("x", 1025)+`"}`, `{"outcome":"declined","note":"n","unknown":1}`,
			`{"request_ids":[]`+rest, `{"request_ids":null`+rest, `{"request_ids":"r"`+rest, `{"request_ids":["r",null]`+rest, `{"request_ids":["r",""]`+rest,
			`{"request_ids":["r","a/b"]`+rest, `{"request_ids":["r"],"request_id":"r"`+rest, `{"request_id":""`+rest,
			`{"request_id":".."`+rest, `{"request_ids":["r"`+strings.Repeat(`,"x"`, 1000)+`]`+rest,
		) {
			s.requireRefused(t, http.MethodPost, "/charges/correct", body)
			s.requireRefused(t, http.MethodPost, "/subscription/s/charges/2026-11/correct", body)
		}
		good := `{"outcome":"declined","note":"n"}`
		for _, path := range []string{"/subscription/s/charges/2026-12/correct", "/subscription/t/charges/2026-11/correct", "/subscription/s/charges/2026-13/correct"} {
			s.requireRefused(t, http.MethodPost, path, good)
		}
		s.requireRefused(t, http.MethodPost, "/charges/correct", good)
		require.Equal(t, []string{"charged"}, db.Lines(t, "SELECT status FROM charge"))
		require.Empty(t, db.Lines(t, "SELECT subject FROM audit"))
		require.Equal(t, http.StatusOK, s.do(t, http.MethodPost, "/subscription/s/charges/2026-11/correct", good).Code)
	})
}
