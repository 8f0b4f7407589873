package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/protobuf/types/known/durationpb"

	"drayman/activities"
	"drayman/api"
	"drayman/guard"
	"drayman/models"
	"drayman/models/modelstest"
	"drayman/shop"
	"drayman/shop/shoptest"
	"drayman/worker"
	"drayman/workflows"
)

const secret = "a-secret-nobody-may-see"

// system is everything but the processes: a database, a Temporal namespace of
// its own on a real server, a fake shop, a worker and the API.
type system struct {
	db        modelstest.Database
	store     *models.Store
	shop      *shoptest.Server
	temporal  client.Client
	namespace string
	url       string
	logs      *logs
	stop      func() // stops the worker
	start     func() // starts one
}

// options of a system. The zero value is the default of each setting, but for
// shorter times.
type options struct {
	clock         func() time.Time
	zone          *time.Location
	workerZone    *time.Location // nil: the same
	shop          shoptest.Options
	notIdempotent bool
	anybody       bool // CHARGE_REQUIRE_ELIGIBLE=false
	chargeWait    time.Duration
	shopTimeout   time.Duration
	retryFor      time.Duration
	guard         guard.Policy
}

func (o options) withDefaults() options {
	if o.zone == nil {
		o.zone = time.UTC
	}
	if o.workerZone == nil {
		o.workerZone = o.zone
	}
	for _, d := range []struct {
		value     *time.Duration
		byDefault time.Duration
	}{{&o.chargeWait, 20 * time.Second}, {&o.shopTimeout, 5 * time.Second}, {&o.retryFor, time.Hour}} {
		if *d.value == 0 {
			*d.value = d.byDefault
		}
	}
	o.shop.APIKey, o.shop.APISecret = "key", secret
	return o
}

func setup(t *testing.T, db modelstest.Database, o options) *system {
	t.Helper()
	o = o.withDefaults()
	s := &system{db: db, store: db.Open(t, o.clock), shop: shoptest.Start(t, o.shop), logs: &logs{}}
	log := slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.namespace = newNamespace(t)
	s.temporal = dial(t, s.namespace, log)
	shopClient, err := shop.New(shop.Config{URL: s.shop.URL, APIKey: "key", APISecret: secret, Timeout: o.shopTimeout})
	require.NoError(t, err)
	t.Cleanup(shopClient.Close)
	acts := activities.New(activities.Config{
		Store: s.store, Shop: shopClient, Zone: o.workerZone, Log: log,
		Policy:   activities.Policy{Idempotent: !o.notIdempotent, RetryFor: o.retryFor, ShopTimeout: o.shopTimeout},
		Temporal: workflows.Temporal{Client: s.temporal, Namespace: s.namespace},
	})
	require.NoError(t, worker.Prepare(t.Context(), s.temporal, s.namespace, log))
	s.start = func() { s.stop = startWorker(t, s.temporal, s.namespace, acts, log) }
	s.start()
	server := httptest.NewServer(api.New(api.Config{
		Store: s.store, Temporal: s.temporal, Zone: o.zone, ChargeWait: o.chargeWait, RequireEligible: !o.anybody,
		Guard: o.guard, Ready: s.store.Ping, Logger: log, Version: "test",
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.logs.String())
		}
	})
	t.Cleanup(func() { require.NotContains(t, s.logs.String(), secret, "the secret is in the log") })
	return s
}

func startWorker(t *testing.T, c client.Client, namespace string, acts *activities.Activities, log *slog.Logger) func() {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- worker.New(c, "", acts, 20*time.Second).Run(ctx, c, namespace, log) }()
	stop := sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(stop)
	return stop
}

func temporalAddress(t *testing.T) string {
	t.Helper()
	address := os.Getenv("TEST_TEMPORAL_ADDRESS")
	require.NotEmpty(t, address, "TEST_TEMPORAL_ADDRESS is not set: run make test")
	return address
}

// newNamespace keeps a test's workflows apart from those of others.
func newNamespace(t *testing.T) string {
	t.Helper()
	c, err := client.NewNamespaceClient(client.Options{HostPort: temporalAddress(t), Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	defer c.Close()
	name := "test-" + uuid.NewString()
	require.NoError(t, c.Register(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}))
	return name
}

func dial(t *testing.T, namespace string, log *slog.Logger) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: temporalAddress(t), Namespace: namespace, Logger: sdklog.NewStructuredLogger(log)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.Eventually(t, func() bool {
		_, err := c.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace})
		return err == nil
	}, 30*time.Second, 50*time.Millisecond, "the namespace does not come up")
	return c
}

// response is an answer of the API, its body as far as the tests look into it.
type response struct {
	Code    int
	Header  http.Header
	Raw     string
	Problem struct {
		Type, Title, Detail, Code, Reason string
		Status                            int
		SubscriptionID                    string `json:"subscription_id"`
	}
	Charge struct {
		RequestID      string `json:"request_id"`
		SubscriptionID string `json:"subscription_id"`
		Period, Status string
		Attempts       int
		AlreadyCharged bool   `json:"already_charged"`
		FailureCode    string `json:"failure_code"`
		FailureDetail  string `json:"failure_detail"`
		Order          struct {
			OrderID string `json:"order_id"`
		}
	}
}

// do sends a request; body is sent as JSON as it stands, header pairs follow it.
func (s *system) do(t *testing.T, method, path, body string, header ...string) response {
	t.Helper()
	r, err := s.try(method, path, body, header...)
	require.NoError(t, err)
	if r.Code >= 400 {
		require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"), r.Raw)
		require.Equal(t, r.Code, r.Problem.Status)
		require.NotEmpty(t, r.Problem.Code)
		require.NotEmpty(t, r.Problem.Detail)
	}
	return r
}

// try is do for goroutines that may not end the test.
func (s *system) try(method, path, body string, header ...string) (response, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	r := response{Code: res.StatusCode, Header: res.Header, Raw: string(raw)}
	_ = json.Unmarshal(raw, &r.Problem) // an array is read by the caller from Raw
	_ = json.Unmarshal(raw, &r.Charge)
	return r, err
}

func (s *system) charge(t *testing.T, subscription, requestID string, header ...string) response {
	t.Helper()
	return s.do(t, http.MethodPost, "/subscription/"+subscription+"/charge/"+requestID, "", header...)
}

// eventually polls the charge of the current period until it has the status.
func (s *system) eventually(t *testing.T, location, status string) response {
	t.Helper()
	var r response
	require.Eventually(t, func() bool {
		var err error
		r, err = s.try(http.MethodGet, location, "")
		return err == nil && r.Charge.Status == status
	}, 60*time.Second, 50*time.Millisecond, "%s does not become %s", location, status)
	return r
}

// logs is a log that tests can read while it is written.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
