package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/models/modelstest"
)

func TestBadInputChangesNothing(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")
		before := s.rowCounts(t)
		long := strings.Repeat("x", 37)
		tricks := []string{long, "%00", "a%0Ab", "%ff", "a%7Fb"}

		for _, body := range badBodies() {
			s.requireRefused(t, http.MethodPost, "/club/1/subscribe/", body)
			s.requireRefused(t, http.MethodPost, "/subscription/s/status/", body)
			s.requireRefused(t, http.MethodPost, "/subscription/s/charges/2026-11/resolve", body)
		}
		for _, id := range append(tricks, "..", ".", "x' OR '1'='1", "%2e%2e", "..%2F..%2Fs", "s%20", "1;DROP TABLE charge") {
			id = strings.ReplaceAll(id, " ", "%20")
			s.requireRefused(t, http.MethodPost, "/subscription/"+id+"/charge/r", "")
			s.requireRefused(t, http.MethodGet, "/subscription/"+id, "")
			s.requireRefused(t, http.MethodGet, "/subscription/"+id+"/explain", "")
			s.requireRefused(t, http.MethodGet, "/subscription/"+id+"/charges", "")
			s.requireRefused(t, http.MethodPost, "/subscription/"+id+"/status", `{"status_id":2}`)
		}
		for _, id := range append(tricks[1:], strings.Repeat("x", 129), "%2e%2e", ".", "a%2Fb", "a%20b", "a%25b", "é", "%C3%A9", "a?b"[:1]+"%3Fb") {
			s.requireRefused(t, http.MethodPost, "/subscription/s/charge/"+id, "")
		}
		for _, id := range []string{"0", "-1", "abc", "1e3", "99999999999", "2147483648", "%31%20", "1'"} {
			s.requireRefused(t, http.MethodGet, "/club/"+id, "")
			s.requireRefused(t, http.MethodPost, "/club/"+id+"/subscribe", `{"customer_id":"anna2"}`)
		}
		for _, period := range []string{"2026-13", "2026-1", "202611", "2026-11-01", "latest", "%00", "-026-11"} {
			s.requireRefused(t, http.MethodGet, "/subscription/s/charges/"+period, "")
		}
		for _, query := range []string{"at=yesterday", "at=2026-11-01", "limit=0", "limit=-1", "limit=x", "limit=10001", "uncharged=maybe", "after=" + long, "after=%00"} {
			s.requireRefused(t, http.MethodGet, "/subscription/eligible?"+query, "")
		}
		require.Equal(t, before, s.rowCounts(t), "something was written")
		s.requireNothingStarted(t)
	})
}

func badBodies() []string {
	return []string{
		"", " ", "null", "[]", "42", `"x"`, "{", `{"customer_id"`, "{}", "not json", "\x00", "\xff\xfe",
		`{"customer_id":null}`, `{"customer_id":1}`, `{"customer_id":""}`, `{"customer_id":["a"]}`,
		`{"customer_id":"` + strings.Repeat("x", 37) + `"}`, `{"customer_id":"a\u0000b"}`, `{"customer_id":"a\nb"}`,
		`{"customer_id":"a","unknown":true}`, `{"customer_id":"` + strings.Repeat("x", 1<<20) + `"}`,
		`{"status_id":null}`, `{"status_id":"1"}`, `{"status_id":0}`, `{"status_id":4}`, `{"status_id":1.5}`, `{"status_id":1e99}`,
		`{"status_id":1,"interval":3}`, `{"status_id":3,"interval":0}`, `{"status_id":3,"interval":-1}`,
		`{"status_id":3,"interval":1.5}`, `{"status_id":3,"interval":"1"}`, `{"status_id":3,"interval":99999999999}`,
		`{"status_id":1,"effect_date":"soon"}`, `{"status_id":1,"effect_date":""}`, `{"status_id":1,"effect_date":1}`,
		`{"status_id":1,"effect_date":"0001-01-01T00:00:00"}`, `{"status_id":3,"interval":36500,"effect_date":"9999-01-01T00:00:00Z"}`,
		`{"status_id":1,"details":"` + strings.Repeat("x", 257) + `"}`, `{"status_id":1,"details":"a\u0000"}`, `{"status_id":1,"details":7}`,
		`{"status_id":1,"details":"Automatic return schedule"}`, `{"status_id":1,"unknown":1}`,
		`{"outcome":"pending","note":"x"}`, `{"outcome":"charged"}`, `{"outcome":"charged","note":""}`, `{"outcome":"charged","note":"x\u0000"}`,
		strings.Repeat("[", 100_000),
		"{\"customer_id\":\"a\",\"\x7f\":1}", "{\"customer_id\":\"a\xff\"}", `{"customer_id":"\ud83c"}`, `{"customer_id":"a","customer_id":"b"}`, `{"Customer_ID":"a"}`,
		`{"status_id":1,"status_id":2}`, `{"status_id":1,"Status_ID":2}`, `{"outcome":"charged","note":"x","outcome":"declined"}`,
	}
}

func (s *system) requireRefused(t *testing.T, method, path, body string) {
	t.Helper()
	r := s.do(t, method, path, body, "Content-Type", "application/json")
	require.GreaterOrEqual(t, r.Code, 400, "%s %s %.100s: %s", method, path, body, r.Raw)
	require.Less(t, r.Code, 500, "%s %s %.100s: %s", method, path, body, r.Raw)
}

func (s *system) rowCounts(t *testing.T) string {
	t.Helper()
	pool, err := s.store.ReadingPool()
	require.NoError(t, err)
	var counts string
	for _, table := range []string{"club", "club_status_history", "subscription", "subscription_status_history", "charge"} {
		var n int
		require.NoError(t, pool.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
		counts += fmt.Sprintf("%s=%d ", table, n)
	}
	return counts
}

func TestHTTPLimits(t *testing.T) {
	db := modelstest.Postgres(t)
	s := setup(t, db, options{})
	for _, c := range []struct {
		code                 string
		status               int
		method, path, header string
	}{
		{"not_found", 404, http.MethodGet, "/", ""},
		{"not_found", 404, http.MethodGet, "/subscription", ""},
		{"not_found", 404, http.MethodGet, "/docs/nothing", ""},
		{"not_found", 404, http.MethodGet, "/a%0Ab", ""},
		{"not_found", 404, http.MethodPost, "/subscription/s/charge/", ""},
		{"method_not_allowed", 405, http.MethodDelete, "/clubs", ""},
		{"method_not_allowed", 405, http.MethodGet, "/club/1/subscribe/", ""},
		{"headers_too_large", 431, http.MethodGet, "/clubs", strings.Repeat("x", 20_000)},
	} {
		r := s.do(t, c.method, c.path, "", "X-Long", c.header)
		require.Equal(t, c.status, r.Code, c.path)
		require.Equal(t, c.code, r.Problem.Code, c.path)
		require.Equal(t, "urn:drayman:problem:"+c.code, r.Problem.Type)
	}
	require.Equal(t, "GET", s.do(t, http.MethodDelete, "/clubs/", "").Header.Get("Allow"))
	form := s.do(t, http.MethodPost, "/club/1/subscribe", "customer_id=anna", "Content-Type", "application/x-www-form-urlencoded")
	require.Equal(t, "unsupported_media_type", form.Problem.Code)
}

// A body that is no proper chunks is the caller's fault, not a failure of ours.
func TestABodyThatDoesNotComeWhole(t *testing.T) {
	db := modelstest.SQLite(t)
	s := setup(t, db, options{})
	db.AddClub(t, 1, 1)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "POST /club/1/subscribe HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+
		"Transfer-Encoding: chunked\r\n\r\n14\r\n{\"customer_id\":\"an\"}\r\nzz\r\n")
	require.NoError(t, err)

	response, err := http.ReadResponse(bufio.NewReader(conn), nil)

	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Contains(t, string(body), "the body did not come whole")
	require.Empty(t, db.Lines(t, "SELECT id FROM subscription"))
}

// An id may contain anything but control characters.
func TestOddIDs(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		for i, id := range []string{oddID, "a/b", "..", "%", "x y", "Ünï-çødé", `"quoted"`, "a'b", "-", "x-2", strings.Repeat("🍺", 36)} {
			db.AddSubscription(t, id, 1, fmt.Sprintf("customer/%d", i))
			path := "/subscription/" + url.PathEscape(id)
			if id == ".." {
				path = "/subscription/%2e%2e"
			}
			charged := s.do(t, http.MethodPost, fmt.Sprintf("%s/charge/r-%d", path, i), "")
			require.Equal(t, http.StatusOK, charged.Code, "%q: %s", id, charged.Raw)
			require.Equal(t, id, charged.Charge.SubscriptionID)
			require.Equal(t, http.StatusOK, s.do(t, http.MethodGet, path+"/explain/", "").Code)
		}
		require.Equal(t, "[]\n", s.do(t, http.MethodGet, "/subscription/eligible?uncharged=true", "").Raw)
	})
}
