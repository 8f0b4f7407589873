package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"drayman/api"
	"drayman/billing"
	"drayman/guard"
	"drayman/models/modelstest"
)

// fuzzTime is when all fuzzed requests come: the clock stands still, so that
// what an answer says can be held against what the store says after it.
var fuzzTime = time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC)

// besieged is the API over a real SQLite file. Its Temporal lets nobody in, at
// once, and remembers what it was asked to start.
type besieged struct {
	db       modelstest.Database
	handler  http.Handler
	temporal *refusing
	version  string // of the database's content
	dirty    bool   // something was written since the rows were as at first
}

func besiege(f testing.TB) *besieged {
	f.Helper()
	b := &besieged{db: modelstest.SQLite(f), temporal: &refusing{}}
	b.db.AddClub(f, 1, 7)
	b.db.AddClub(f, 2, 0)
	b.db.AddSubscription(f, "s", 1, "anna")
	b.db.AddSubscription(f, "a/b", 1, "ben")
	b.db.AddSubscription(f, "u", 1, "cleo")
	b.db.Exec(f, `INSERT INTO charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
		VALUES ('r-u', 'u', '2026-11', 'unresolved', 'x', 'cleo', 7, $1), ('r-s', 's', '2026-10', 'charged', 'x', 'anna', 7, $1)`, modelstest.Long)
	for _, table := range []string{"subscription", "subscription_status_history", "charge"} {
		b.db.Exec(f, "CREATE TABLE kept_"+table+" AS SELECT * FROM "+table)
	}
	temporal, err := client.NewLazyClient(client.Options{
		HostPort:          "127.0.0.1:1",
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(b.temporal.refuse)}},
	})
	require.NoError(f, err)
	f.Cleanup(temporal.Close)
	store := b.db.Open(f, func() time.Time { return fuzzTime })
	found, err := store.Installation(f.Context())
	require.NoError(f, err)
	require.NoError(f, store.Recalled(f.Context(), found.Incarnation, nil, billing.DoubtRepeat)) // SQLite counts changes of the schema
	b.handler = api.New(api.Config{
		Store: store, Temporal: temporal, Zone: time.UTC, ChargeWait: time.Millisecond, RequireEligible: true,
		Guard: guard.Policy{Hosts: []string{"drayman.example"}},
		Ready: store.Ping, Version: "test",
	})
	b.version = b.contentVersion(f)
	return b
}

// contentVersion changes with each transaction that anybody else has written.
func (b *besieged) contentVersion(t testing.TB) string {
	t.Helper()
	return b.db.Lines(t, "PRAGMA data_version")[0]
}

// restore brings the rows back that there were at first.
func (b *besieged) restore(t testing.TB) {
	t.Helper()
	b.dirty = false
	const columns = "request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at" // the database works out others
	b.db.Exec(t, `BEGIN IMMEDIATE;
		DELETE FROM charge; DELETE FROM subscription_status_history; DELETE FROM subscription;
		INSERT INTO subscription SELECT * FROM kept_subscription;
		INSERT INTO subscription_status_history SELECT * FROM kept_subscription_status_history;
		INSERT INTO charge (`+columns+`) SELECT `+columns+` FROM kept_charge; COMMIT`)
}

// refusing answers each call to Temporal with a failure that is not tried again.
type refusing struct {
	mu    sync.Mutex
	asked []any // the requests, but for those that only look
}

func (r *refusing) refuse(_ context.Context, _ string, request, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
	switch request.(type) {
	case *workflowservice.GetSystemInfoRequest:
		return nil // an old server, which says nothing of itself
	case *workflowservice.StartWorkflowExecutionRequest, *workflowservice.UpdateWorkflowExecutionRequest:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked = append(r.asked, request)
	}
	return status.Error(codes.PermissionDenied, "nobody is let in")
}

// taken returns what was asked since the last time.
func (r *refusing) taken() []any {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

// hostile is a request as bytes: headers are whole lines.
type hostile struct {
	method, target, headers string
	body                    []byte
	cut                     bool // the connection breaks before the body's end
}

// answered is an answer and what the request left behind.
type answered struct {
	Code    int
	Header  http.Header
	Body    []byte
	Problem fuzzProblem
	Wrote   bool  // into the database
	Asked   []any // of Temporal
}

type fuzzProblem struct {
	Type, Title, Detail, Code string
	Status                    int
	Errors                    []struct{ Location, Message string }
}

// send lets net/http read the request as a server would, and checks what holds
// for each answer. It returns nil for what net/http refuses itself.
func (b *besieged) send(t *testing.T, h hostile) *answered {
	t.Helper()
	if b.dirty && h.method != http.MethodGet { // who reads looks at what was just written
		b.restore(t)
	}
	text := h.method + " " + h.target + " HTTP/1.1\r\nHost: drayman.example\r\n" + h.headers + "\r\n\r\n"
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil || request.RequestURI == "*" { // net/http answers OPTIONS * itself
		return nil
	}
	var body io.Reader = bytes.NewReader(h.body)
	request.ContentLength = int64(len(h.body))
	if h.cut {
		body = io.MultiReader(body, failing{})
		request.ContentLength++
	}
	request.Body = io.NopCloser(body)
	recorder := httptest.NewRecorder()
	b.handler.ServeHTTP(recorder, request.WithContext(t.Context()))
	a := &answered{Code: recorder.Code, Header: recorder.Header(), Body: recorder.Body.Bytes(), Asked: b.temporal.taken()}
	version := b.contentVersion(t)
	a.Wrote, b.version = version != b.version, version
	b.dirty = b.dirty || a.Wrote
	a.requireSound(t, request)
	return a
}

// failing is a connection that broke.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

var codeForm = regexp.MustCompile(`^[a-z]+(_[a-z]+)+$`)

// requireSound: no input makes a 500, a half-done change, or an answer that a
// program or a person cannot make sense of.
func (a *answered) requireSound(t *testing.T, request *http.Request) {
	t.Helper()
	kind := a.Header.Get("Content-Type")
	require.True(t, utf8.Valid(a.Body))
	if strings.Contains(kind, "json") {
		require.True(t, json.Valid(a.Body), "%s", a.Body)
	}
	if request.Method == http.MethodGet || request.Method == http.MethodHead {
		require.False(t, a.Wrote)
		require.Empty(t, a.Asked)
	}
	if a.Code < 400 {
		require.True(t, a.Code < 300 || a.Code == http.StatusNotModified, "%d: nothing is elsewhere", a.Code)
		require.Empty(t, a.Asked, "Temporal has let nobody in")
		return
	}
	require.False(t, a.Wrote, "%d, and yet something was written", a.Code)
	require.Equal(t, "application/problem+json", kind, "%d %s", a.Code, a.Body)
	require.NoError(t, json.Unmarshal(a.Body, &a.Problem))
	p := a.Problem
	require.Equal(t, a.Code, p.Status)
	require.Equal(t, http.StatusText(a.Code), p.Title)
	require.Regexp(t, codeForm, p.Code)
	require.Equal(t, "urn:drayman:problem:"+p.Code, p.Type)
	require.NotEmpty(t, p.Detail)
	for _, text := range []string{p.Detail, string(a.Body[:len(a.Body)-1])} {
		require.False(t, strings.ContainsFunc(text, unicode.IsControl), "%q is more than a line", text)
	}
	if a.Code >= 500 || len(a.Asked) > 0 {
		require.Equal(t, "temporal_unavailable", p.Code, p.Detail)
		require.NotEmpty(t, a.Header.Get("Retry-After"))
	}
	if a.Code == http.StatusUnprocessableEntity {
		require.NotEmpty(t, p.Errors)
		require.NotEmpty(t, p.Errors[0].Location, "the field is not named: %s", a.Body)
	}
}

// post sends a body as JSON and requires an answer.
func (b *besieged) post(t *testing.T, target string, body []byte) *answered {
	t.Helper()
	a := b.send(t, hostile{method: http.MethodPost, target: target, headers: "Content-Type: application/json", body: body})
	require.NotNil(t, a)
	return a
}

// get reads what the store shows.
func (b *besieged) get(t *testing.T, target string, into any) {
	t.Helper()
	a := b.send(t, hostile{method: http.MethodGet, target: target})
	require.NotNil(t, a)
	require.Equal(t, http.StatusOK, a.Code, "%s", a.Body)
	require.NoError(t, json.Unmarshal(a.Body, into))
}

var (
	escapedBackslash = regexp.MustCompile(`\\\\`)
	surrogatePair    = regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}`)
	surrogate        = regexp.MustCompile(`(?i)\\ud[89a-f][0-9a-f]{2}`)
)

// requireFields reads a body that was taken: it must have been an object that
// all readers of JSON read alike, with no other names than those given.
func requireFields(t *testing.T, body []byte, names ...string) map[string]any {
	t.Helper()
	require.True(t, utf8.Valid(body), "invalid UTF-8 was taken: %q", body)
	left := surrogatePair.ReplaceAll(escapedBackslash.ReplaceAll(body, nil), nil)
	require.False(t, surrogate.Match(left), "half a surrogate pair was taken: %s", body)
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	token, err := decoder.Token()
	require.NoError(t, err)
	require.Equal(t, json.Delim('{'), token)
	fields := map[string]any{}
	for decoder.More() {
		name, err := decoder.Token()
		require.NoError(t, err)
		require.Contains(t, names, name)
		require.NotContains(t, fields, name, "a name that stands twice was taken")
		var value any
		require.NoError(t, decoder.Decode(&value))
		fields[name.(string)] = value
	}
	return fields
}
