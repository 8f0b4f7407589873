package api_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/guard"
	"drayman/models/modelstest"
)

// page is what a browser says of where a request comes from, and the host that it
// believes to speak to; "" is the server's own.
type page struct{ origin, site, host string }

var (
	evil    = page{"http://evil.example", "cross-site", ""}
	nearby  = page{"http://127.0.0.1:22500", "same-site", ""}
	sandbox = page{"null", "cross-site", ""}
	old     = page{"http://evil.example", "", ""}
	rebound = page{"http://rebind.evil.example", "same-origin", "rebind.evil.example"}
	front   = page{"https://front.example", "cross-site", ""}
)

// from sends a request as the page's browser would; header pairs follow the body.
func (s *system) from(t *testing.T, p page, method, path, body string, header ...string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(t, err)
	for i, name := range []string{"Origin", "Sec-Fetch-Site"} {
		if value := []string{p.origin, p.site}[i]; value != "" {
			req.Header.Set(name, value)
		}
	}
	req.Host = p.host
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	r := response{Code: res.StatusCode, Header: res.Header, Raw: string(raw)}
	_ = json.Unmarshal(raw, &r.Problem) // a list is no problem
	return r
}

// changing are the requests that change something, all that the API documents.
func (s *system) changing(t *testing.T) []string {
	t.Helper()
	var document openAPI
	require.NoError(t, json.Unmarshal([]byte(s.do(t, http.MethodGet, "/openapi.json", "").Raw), &document))
	var paths []string
	for path, operations := range document.Paths {
		for method := range operations {
			if method != "get" {
				require.Equal(t, "post", method)
				id := "s"
				if strings.HasPrefix(path, "/club/") {
					id = "1"
				}
				paths = append(paths, strings.NewReplacer("{id}", id, "{request_id}", "csrf-1", "{period}", "2026-11").Replace(path))
			}
		}
	}
	require.GreaterOrEqual(t, len(paths), 9)
	return paths
}

func TestPage_ForeignOneChangesNothing(t *testing.T) {
	t.Parallel()
	db := modelstest.SQLite(t)
	s := setup(t, db, options{clock: newClock("2026-11-15T12:00:00Z").now})
	db.AddClub(t, 1, 1)
	db.AddSubscription(t, "s", 1, "anna")
	before := s.rowCounts(t)
	bodies := []struct{ body, kind string }{
		{"", "application/x-www-form-urlencoded"}, {"", ""}, {`{"customer_id":"x","status_id":2}`, ""}, // a Blob without a type
		{`{"orders_per_second":0}`, "text/plain"}, {`{"status_id":2}`, "application/json"},
	}
	for _, path := range s.changing(t) {
		for _, slash := range []string{"", "/"} {
			for _, b := range bodies {
				for _, p := range []page{evil, nearby, sandbox, old} {
					r := s.from(t, p, http.MethodPost, path+slash, b.body, "Content-Type", b.kind)
					require.Equal(t, http.StatusForbidden, r.Code, "%s by %s: %s", path, p, r.Raw)
					require.Equal(t, "cross_origin", r.Problem.Code)
					require.Contains(t, r.Problem.Detail, "CORS_ORIGINS")
					require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"))
					require.Empty(t, r.Header.Get("Access-Control-Allow-Origin"))
				}
				r := s.from(t, rebound, http.MethodPost, path+slash, b.body, "Content-Type", b.kind)
				require.Equal(t, http.StatusMisdirectedRequest, r.Code, "%s: %s", path, r.Raw)
				require.Equal(t, "host_not_served", r.Problem.Code)
				require.Contains(t, r.Problem.Detail, `"rebind.evil.example"`)
				require.Contains(t, r.Problem.Detail, "HTTP_HOSTS")
			}
		}
	}
	// GET is for reading, whatever else the request says of its method.
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		r := s.from(t, evil, http.MethodGet, "/subscription/s/charge/csrf-1?_method=POST", "", name, "POST")
		require.Equal(t, http.StatusMethodNotAllowed, r.Code)
	}
	require.Equal(t, before, s.rowCounts(t), "something was written")
	require.Empty(t, s.shop.Calls())
	s.requireNothingStarted(t)
}

func TestPage_ForeignOneReadsNothing(t *testing.T) {
	t.Parallel()
	s := setup(t, modelstest.SQLite(t), options{})
	for _, path := range []string{"/clubs", "/subscription/eligible", "/subscription/s", "/docs", "/openapi.json", "/billing-runs", "/nothing"} {
		require.Equal(t, http.StatusMisdirectedRequest, s.from(t, rebound, http.MethodGet, path, "").Code, path)
		for _, p := range []page{evil, nearby, sandbox} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
				r := s.from(t, p, method, path, "", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
				require.NotEqual(t, http.StatusForbidden, r.Code)
				for name := range r.Header {
					require.NotContains(t, name, "Access-Control", "%s %s", method, path)
				}
				require.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"), "%s is no script", path)
				require.Equal(t, "SAMEORIGIN", r.Header.Get("X-Frame-Options"), "%s may not be clicked in a frame", path)
			}
		}
	}
	for _, probe := range []string{"/livez", "/livez/", "/readyz", "/readyz/"} {
		require.Equal(t, http.StatusOK, s.from(t, page{host: "pod-7.cluster.example"}, http.MethodGet, probe, "").Code)
	}
}

func TestPage_TrustedOneWorks(t *testing.T) {
	t.Parallel()
	db := modelstest.SQLite(t)
	s := setup(t, db, options{guard: guard.Policy{Origins: []string{"http://127.0.0.1:3000", front.origin}}})
	db.AddClub(t, 1, 1)

	asked := s.from(t, front, http.MethodOptions, "/club/1/subscribe", "",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,prefer")
	made := s.from(t, front, http.MethodPost, "/club/1/subscribe", `{"customer_id":"anna"}`, "Content-Type", "application/json")
	charged := s.from(t, front, http.MethodPost, made.Header.Get("Location")+"/charge/r-1", "", "Prefer", "wait=30")
	page1 := s.from(t, front, http.MethodGet, "/subscription/eligible?limit=1", "")

	require.Equal(t, http.StatusNoContent, asked.Code)
	require.Contains(t, asked.Header.Get("Access-Control-Allow-Methods"), "POST")
	for _, name := range []string{"Content-Type", "Prefer", "Authorization", "X-API-Key"} {
		require.Contains(t, asked.Header.Get("Access-Control-Allow-Headers"), name)
	}
	require.NotEmpty(t, asked.Header.Get("Access-Control-Max-Age"))
	require.Equal(t, http.StatusCreated, made.Code, made.Raw)
	require.Equal(t, http.StatusOK, charged.Code, charged.Raw)
	require.Equal(t, "wait=30", charged.Header.Get("Preference-Applied"))
	notFound := s.from(t, front, http.MethodGet, "/subscription/nobody", "")
	require.Equal(t, http.StatusNotFound, notFound.Code)
	invalid := s.from(t, front, http.MethodPost, "/club/1/subscribe", `{}`)
	require.Equal(t, http.StatusUnprocessableEntity, invalid.Code)
	noMethod := s.from(t, front, http.MethodOptions, "/clubs", "")
	require.Equal(t, http.StatusMethodNotAllowed, noMethod.Code, "an OPTIONS that asks nothing")
	tooLarge := s.from(t, front, http.MethodGet, "/clubs", "", "X-Long", strings.Repeat("x", 20_000))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, tooLarge.Code)
	misdirected := s.from(t, page{front.origin, front.site, "evil.example"}, http.MethodGet, "/clubs", "")
	require.Equal(t, http.StatusMisdirectedRequest, misdirected.Code)
	docs := s.from(t, front, http.MethodGet, "/docs/swagger-ui.css", "")
	require.Equal(t, http.StatusOK, docs.Code)
	for _, r := range []response{made, charged, page1, notFound, invalid, noMethod, tooLarge, misdirected, docs} {
		require.Equal(t, []string{front.origin}, r.Header["Access-Control-Allow-Origin"], r.Raw)
		require.Contains(t, r.Header.Values("Vary"), "Origin")
		for _, name := range []string{"Location", "Link", "Retry-After", "Preference-Applied"} {
			require.Contains(t, r.Header.Get("Access-Control-Expose-Headers"), name)
		}
		require.Empty(t, r.Header.Get("Access-Control-Allow-Credentials"), "there are no cookies")
	}
	for _, p := range []page{evil, nearby, sandbox, {origin: "https://front.example.evil.example"}, {}} {
		r := s.from(t, p, http.MethodGet, "/clubs", "")
		require.Equal(t, http.StatusOK, r.Code)
		require.Empty(t, r.Header.Get("Access-Control-Allow-Origin"))
		require.Contains(t, r.Header.Values("Vary"), "Origin", "a cache may not hand it to another origin")
	}
	require.Equal(t, http.StatusForbidden, s.from(t, evil, http.MethodPost, "/club/1/subscribe", `{"customer_id":"ben"}`).Code)
}

// Programs that are no browsers say nothing of where they come from.
func TestPage_ProgramsAreServed(t *testing.T) {
	t.Parallel()
	db := modelstest.SQLite(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	// Whatever address it is called by, the request arrives at ours.
	dialer := &net.Dialer{}
	everywhere := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, strings.TrimPrefix(s.url, "http://"))
	}}}
	t.Cleanup(everywhere.CloseIdleConnections)
	for i, host := range []string{"127.0.0.1:8080", "10.11.12.13", "[::1]:8080", "[2001:db8::1]", "localhost:8080", "LOCALHOST", "localhost."} {
		customer := string(rune('a' + i))
		for j, step := range []struct {
			path, body string
			status     int
		}{
			{"/club/1/subscribe/", `{"customer_id":"` + customer + `"}`, http.StatusCreated},
			{"/club/1/subscribe", `{"customer_id":"` + customer + `"}`, http.StatusConflict},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+step.path, strings.NewReader(step.body))
			require.NoError(t, err)
			res, err := everywhere.Do(req)
			require.NoError(t, err)
			_ = res.Body.Close()
			require.Equal(t, step.status, res.StatusCode, "%s, step %d", host, j)
		}
	}
	for _, id := range db.Lines(t, "SELECT id FROM subscription") {
		require.Equal(t, http.StatusOK, s.charge(t, id, "r-"+id).Code)
	}
}
