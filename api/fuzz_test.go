package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"drayman/billing"
	"drayman/models/modelstest"
	"drayman/workflows"
)

// hostileJSON are bodies that are bad for any endpoint, or ought to be.
func hostileJSON() []string {
	return append(badBodies(),
		"\ufeff{}", "{} {}", "{}\x00", `{"a":1,"a":2}`, strings.Repeat(`{"a":`, 9_999)+"1"+strings.Repeat("}", 9_999),
		`{"customer_id":"a","customer_id":"b"}`, `{"customer_id":"a\xff"}`, "{\"customer_id\":\"a\xff\"}", `{"customer_id":"\ud800"}`,
		`{"customer_id":"\ud83c\udf7a"}`, `{"Customer_ID":"a"}`, `{"customer_id":"a","Customer_ID":"b"}`, `{"customer_id":"anna"}`, ` {"customer_id":"dora"}`+"\n",
		`{"status_id":1e400}`, `{"status_id":1e0}`, `{"status_id":1.0}`, `{"status_id":3,"interval":9223372036854775808}`, `{"status_id":-0}`,
		`{"status_id":3,"interval":30}`, `{"status_id":2,"effect_date":"2026-12-01T00:00:00-03:00","details":"moved \u00e4"}`,
		`{"status_id":1,"status_id":2}`, `{"status_id":1,"Status_ID":2}`, `{"status_id":1,"interval":null,"details":null,"effect_date":null}`,
		"{\"status_id\":1,\"details\":\"\xed\xa0\x80\"}", `{"status_id":1,"details":"\ud800x"}`,
		`{"outcome":"charged","note":"order 4711"}`, `{"outcome":"declined","note":"x\ny","by":"Ana"}`, `{"outcome":"declined","note":"\ud800"}`,
		`{"request_ids":["r","r"],"outcome":"declined","note":"x"}`, `{"request_id":"r","outcome":"charged","note":"x"}`, `{"request_ids":["\u0000"],"outcome":"charged","note":"x"}`,
		`{"outcome":"charged","outcome":"declined","note":"x"}`, `{"outcome":"Charged","note":"x"}`, `{"outcome":"charged","note":"`+strings.Repeat("é", 1025)+`"}`,
		`{"orders_per_second":0.5,"page_size":10,"concurrency":3,"workflow_per_charge":true}`, `{"orders_per_second":1e-9}`, `{"orders_per_second":1e308}`, `{"orders_per_second":1e-400}`, `{"orders_per_second":-1e-400}`, `{"orders_per_second":0e-400}`,
		`{"page_size":0}`, `{"page_size":5001}`, `{"concurrency":1e3}`, `{"page_size":10,"page_size":20}`, `{"orders_per_second":-0.0}`, `{"reason":"lunch"}`,
	)
}

func addBodies(f *testing.F) {
	f.Helper()
	for _, body := range hostileJSON() {
		f.Add([]byte(body))
	}
}

// FuzzRequest sends anything anywhere; what holds is in requireSound.
func FuzzRequest(f *testing.F) {
	const isJSON = "Content-Type: application/json"
	for _, target := range []string{
		"/club/1/subscribe/", "/subscription/s/status", "/subscription/u/charges/2026-11/resolve",
		"/subscription/u/charges/2026-11/correct", "/charges/correct", "/billing-run/2026-11",
	} {
		f.Add("POST", target, isJSON, []byte(`{"customer_id":"x"}`), false) // the others have targets of their own
	}
	for _, target := range []string{
		"/", "//", "/docs", "/docs/", "/docs/nothing", "/docs/..%2f", "/docs/../clubs", "/livez", "/readyz", "/openapi.json", "/openapi.yaml", "/clubs?x=%ff",
		"/club/1", "/club/9", "/club/%31", "/club/99999999999", "/subscription/s", "/subscription/a%2Fb", "/subscription/%00", "/subscription/%ff/charges",
		"/subscription/s/explain?at=2026-11-01T00:00:00Z", "/subscription/s/explain?at=x", "/subscription/s/charges/2026-13", "/subscription/eligible?limit=1&after=a",
		"/subscription/eligible?uncharged=true&limit=10001", "/subscription/eligible?limit=1&limit=2", "/billing-runs", "/billing-run/2026-11/report?ids=missing",
		"/a%0Ab", "/%E2%80%AE", "http://drayman.example/clubs", "*", "x:y", "/subscription//charges", "/subscription/%2e%2e/charges", "/clubs/?;", "/clubs#x",
	} {
		f.Add("GET", target, "", []byte(nil), false)
	}
	for _, target := range []string{"/docs/swagger-ui.css", "/clubs", "/nothing"} {
		f.Add("HEAD", target, "Range: bytes=5-1\r\nIf-None-Match: *", []byte(nil), false)
		f.Add("DELETE", target, "Accept: text/html;q=x", []byte("x"), true)
	}
	for _, headers := range []string{
		"", "Prefer: wait=5", "Prefer: respond-async", "Prefer: wait=-1, wait=99999999999999999999", "Prefer: " + strings.Repeat("wait=1,", 3000),
		"Content-Type: text/plain", "Content-Type: application/json; charset=latin1", "Content-Type: ;", "Content-Type: a\tb", "Content-Encoding: gzip", "Expect: 100-continue", "Accept: */*;q=0",
		"X-HTTP-Method-Override: DELETE", "Connection: upgrade\r\nUpgrade: websocket", "Transfer-Encoding: chunked",
	} {
		f.Add("POST", "/subscription/s/charge/r", headers, []byte("{}"), false)
		f.Add("POST", "/club/1/subscribe", headers, []byte(`{"customer_id":"x"}`), true)
		f.Add("POST", "/billing-run/2026-11/pace", headers, []byte(`{"orders_per_second":1}`), false)
		f.Add("PROPFIND", "/billing-run/2026-11/cancel", headers, []byte(nil), false)
	}
	b := besiege(f)
	f.Fuzz(func(t *testing.T, method, target, headers string, body []byte, cut bool) {
		a := b.send(t, hostile{method, target, headers, body, cut})
		if a != nil && cut {
			require.False(t, a.Wrote, "a body that did not come whole was taken")
		}
	})
}

// FuzzSubscribe: a 201 is a subscription of exactly the customer that was asked
// for; everything else leaves no trace.
func FuzzSubscribe(f *testing.F) {
	addBodies(f)
	b := besiege(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		a := b.post(t, "/club/1/subscribe", body)
		if a.Code != http.StatusCreated {
			require.GreaterOrEqual(t, a.Code, 400)
			return
		}
		fields := requireFields(t, body, "customer_id")
		var made, shown struct {
			ID         string
			CustomerID string `json:"customer_id"`
			Status     struct{ Status string }
		}
		require.NoError(t, json.Unmarshal(a.Body, &made))
		b.get(t, a.Header.Get("Location"), &shown)
		require.Equal(t, made, shown)
		require.Equal(t, fields["customer_id"], shown.CustomerID)
		require.Equal(t, "ACTIVE", shown.Status.Status)
		require.NoError(t, billing.ValidateID("customer_id", shown.CustomerID))
		require.Equal(t, []string{shown.CustomerID}, b.db.Lines(t, `SELECT customer_store_id FROM subscription WHERE id NOT IN ('s', 'u', 'a/b')`))
	})
}

// FuzzStatus: a 200 is what the store shows afterwards, and the row of the
// history is what the body said, to the microsecond.
func FuzzStatus(f *testing.F) {
	addBodies(f)
	b := besiege(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		a := b.post(t, "/subscription/s/status", body)
		if a.Code != http.StatusOK {
			require.GreaterOrEqual(t, a.Code, 400)
			return
		}
		fields := requireFields(t, body, "status_id", "effect_date", "details", "interval")
		type view struct {
			ID                string
			Status, Scheduled any
		}
		var said, shown view
		require.NoError(t, json.Unmarshal(a.Body, &said))
		b.get(t, "/subscription/s", &shown)
		require.Equal(t, said, shown)
		effect := fuzzTime
		if text, ok := fields["effect_date"].(string); ok {
			var err error
			effect, err = billing.ParseTimestamp("effect_date", text)
			require.NoError(t, err)
		}
		details, _ := fields["details"].(string)
		rows := b.db.Lines(t, `SELECT status_id FROM subscription_status_history WHERE subscription_id = 's' AND coalesce(details, '') = $1
			AND effect_date = $2 AND create_date = $3`, details, modelstest.Time(effect), modelstest.Time(fuzzTime))
		require.Equal(t, []string{string(fields["status_id"].(json.Number))}, rows)
	})
}

// FuzzResolve: an unresolved charge becomes what the body says, with its note,
// or stays unresolved.
func FuzzResolve(f *testing.F) {
	addBodies(f)
	b := besiege(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		a := b.post(t, "/subscription/u/charges/2026-11/resolve", body)
		if a.Code != http.StatusOK {
			require.GreaterOrEqual(t, a.Code, 400)
			return
		}
		fields := requireFields(t, body, "outcome", "note", "by")
		by, _ := fields["by"].(string)
		require.Equal(t, []string{"1"}, b.db.Lines(t, `SELECT count(*) FROM charge WHERE request_id = 'r-u' AND status = $1
			AND resolved_note = $2 AND resolved_by = $3`, fields["outcome"], fields["note"], by))
		var said, shown any
		require.NoError(t, json.Unmarshal(a.Body, &said))
		b.get(t, "/subscription/u/charges/2026-11", &shown)
		require.Equal(t, said, shown)
	})
}

// FuzzRun: Temporal is asked for a run only with settings that are in their
// ranges and that the body has named; all else is refused before.
func FuzzRun(f *testing.F) {
	addBodies(f)
	f.Add([]byte(nil))
	b := besiege(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		a := b.post(t, "/billing-run/2026-11", body)
		if len(a.Asked) == 0 {
			require.Less(t, a.Code, 500)
			return
		}
		settings := startedWith(t, a)
		require.NoError(t, settings.Validate())
		want := billing.RunSettings{}
		if len(body) > 0 && strings.TrimSpace(string(body)) != "null" {
			fields := requireFields(t, body, "orders_per_second", "page_size", "concurrency", "workflow_per_charge", "confirm_past")
			if pace, ok := fields["orders_per_second"].(json.Number); ok && settings.OrdersPerSecond == 0 {
				mantissa, _, _ := strings.Cut(strings.ToLower(pace.String()), "e")
				require.Empty(t, strings.Trim(mantissa, "-0."), "%s was taken for no cap", pace)
			}
			require.NoError(t, json.Unmarshal(body, &want))
		}
		require.Equal(t, want.WithDefaults(), settings)
	})
}

// startedWith reads the settings that the run was to have.
func startedWith(t *testing.T, a *answered) billing.RunSettings {
	t.Helper()
	require.Len(t, a.Asked, 1)
	start, ok := a.Asked[0].(*workflowservice.StartWorkflowExecutionRequest)
	require.True(t, ok)
	var in workflows.RunInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(start.GetInput(), &in))
	require.Equal(t, "2026-11", in.Period.String())
	return in.Settings
}

// FuzzCharge: any id and request id in the path. Temporal is asked only for a
// subscription that there is, with a request id of the right form, as it was
// given.
func FuzzCharge(f *testing.F) {
	for _, id := range []string{"s", "u", "a/b", "", ".", "..", "a\x00", "\xff", "s ", strings.Repeat("x", 37), "' OR 1=1 --"} {
		for _, request := range []string{"r", "r-s", "r-u", "2026-11-a~", "", ".", "..", "a/b", "a\x00", "é", strings.Repeat("x", 129)} {
			f.Add(id, request)
		}
	}
	b := besiege(f)
	f.Fuzz(func(t *testing.T, id, requestID string) {
		a := b.send(t, hostile{method: http.MethodPost, target: "/subscription/" + url.PathEscape(id) + "/charge/" + url.PathEscape(requestID)})
		require.NotNil(t, a)
		require.GreaterOrEqual(t, a.Code, 400, "%s", a.Body)
		if len(a.Asked) == 0 {
			return
		}
		var in workflows.ChargeInput
		start := a.Asked[0].(*workflowservice.StartWorkflowExecutionRequest)
		require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(start.GetInput(), &in))
		require.Contains(t, []string{"s", "u", "a/b"}, id)
		require.Equal(t, id, in.SubscriptionID)
		require.Equal(t, requestID, string(in.RequestID))
		_, err := billing.ParseRequestID(requestID)
		require.NoError(t, err)
	})
}
