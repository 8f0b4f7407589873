package main

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"go.temporal.io/server/common/log/tag"
	"google.golang.org/protobuf/types/known/durationpb"
)

// anyPort is on loopback, any free port.
func anyPort(flag string) flagAddress { return flagAddress{flag, hostPort(loopbackIP, 0)} }

// startTestTemporal starts a server with its UI, and stops it after the test.
func startTestTemporal(t *testing.T, dir string) *temporalServer {
	t.Helper()
	s, err := startTemporal(t.Context(), temporalOptions{
		Addr: anyPort("--addr"), UIAddr: anyPort("--ui-addr"), Dir: dir, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

func dial(t *testing.T, address string) client.Client {
	t.Helper()
	c, err := dialTemporal(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

const taskQueue = "test"

// greet is the least that a workflow can do.
func greet(_ workflow.Context, name string) (string, error) { return "Hello " + name, nil }

// execute runs greet on a worker of its own and returns its result.
func execute(t *testing.T, c client.Client, options client.StartWorkflowOptions) string {
	t.Helper()
	w := worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflow(greet)
	require.NoError(t, w.Start())
	defer w.Stop()
	options.TaskQueue = taskQueue
	run, err := c.ExecuteWorkflow(t.Context(), options, greet, "Ada")
	require.NoError(t, err)
	var greeting string
	require.NoError(t, run.Get(t.Context(), &greeting))
	return greeting
}

// result asks for the result of a workflow that has closed.
func result(t *testing.T, c client.Client, id string) string {
	t.Helper()
	var greeting string
	require.NoError(t, c.GetWorkflow(t.Context(), id, "").Get(t.Context(), &greeting))
	return greeting
}

func retention(t *testing.T, c client.Client) time.Duration {
	t.Helper()
	described, err := c.WorkflowService().DescribeNamespace(t.Context(),
		&workflowservice.DescribeNamespaceRequest{Namespace: temporalNamespace})
	require.NoError(t, err)
	return described.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
}

func addKeyword(t *testing.T, c client.Client, name string) {
	t.Helper()
	_, err := c.OperatorService().AddSearchAttributes(t.Context(), &operatorservice.AddSearchAttributesRequest{
		Namespace:        temporalNamespace,
		SearchAttributes: map[string]enums.IndexedValueType{name: enums.INDEXED_VALUE_TYPE_KEYWORD},
	})
	require.NoError(t, err)
}

func TestTemporalRunsWorkflowsAndFindsThemBySearchAttributes(t *testing.T) {
	t.Parallel()
	c := dial(t, startTestTemporal(t, "").Address)
	addKeyword(t, c, "ClubId")
	club := temporal.NewSearchAttributeKeyKeyword("ClubId")

	// The services learn of a new search attribute a moment later.
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: "probe", TaskQueue: "nobody", TypedSearchAttributes: temporal.NewSearchAttributes(club.ValueSet("probe")),
		}, greet, "")
		require.NoError(collect, err)
	}, patience, 50*time.Millisecond)
	greeting := execute(t, c, client.StartWorkflowOptions{
		ID: "greeting", TypedSearchAttributes: temporal.NewSearchAttributes(club.ValueSet("club-7")),
	})

	require.Equal(t, "Hello Ada", greeting)
	require.Equal(t, 62*24*time.Hour, retention(t, c))
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		found, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{
			Query: `ClubId = "club-7" AND ExecutionStatus = "Completed"`,
		})
		require.NoError(collect, err)
		require.Len(collect, found.GetExecutions(), 1)
	}, patience, 50*time.Millisecond)
}

func TestTemporalKeepsStateOverStopAndStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "with space & 100%")
	first := startTestTemporal(t, dir)
	c := dial(t, first.Address)
	execute(t, c, client.StartWorkflowOptions{ID: "kept"})
	_, err := c.WorkflowService().UpdateNamespace(t.Context(), &workflowservice.UpdateNamespaceRequest{
		Namespace: temporalNamespace,
		Config:    &namespace.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(24 * time.Hour)},
	})
	require.NoError(t, err)
	first.Stop()

	c = dial(t, startTestTemporal(t, dir).Address)

	require.Equal(t, "Hello Ada", result(t, c, "kept"))
	require.Equal(t, 62*24*time.Hour, retention(t, c), "a shorter retention is lengthened")
}

func TestTemporalKeepsStateOverKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	port, err := freePort(loopbackIP)
	require.NoError(t, err)
	address := hostPort(loopbackIP, port)
	args := []string{"temporal", "--addr", address, "--ui-addr", "", "--data", dir}
	killed := startProgram(t, args...)
	killed.awaitOutput(t, address)
	c := dial(t, address)
	addKeyword(t, c, "ClubId")
	execute(t, c, client.StartWorkflowOptions{ID: "closed"})
	_, err = c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "open", TaskQueue: taskQueue}, greet, "Bob")
	require.NoError(t, err)

	killed.end(t, syscall.SIGKILL)
	successor := startProgram(t, args...)
	successor.awaitOutput(t, address)

	c = dial(t, address)
	require.Equal(t, "Hello Ada", result(t, c, "closed"))
	w := worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflow(greet)
	require.NoError(t, w.Start())
	defer w.Stop()
	require.Equal(t, "Hello Bob", result(t, c, "open"), "an open workflow goes on")
	listed, err := c.OperatorService().ListSearchAttributes(t.Context(),
		&operatorservice.ListSearchAttributesRequest{Namespace: temporalNamespace})
	require.NoError(t, err)
	require.Contains(t, listed.GetCustomAttributes(), "ClubId")
	require.Zero(t, successor.end(t, syscall.SIGTERM), successor.out.String())
	require.NotContains(t, successor.out.String(), "goroutine")
}

func TestTemporalDirectoryIsUsedByOneServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startTestTemporal(t, dir)

	code, _, stderr := runDev(t, "temporal", "--addr", "127.0.0.1:0", "--ui-addr", "", "--data", dir)

	require.Equal(t, 1, code)
	require.Contains(t, stderr, dir+" is in use by another drayman-dev")
}

func TestTemporalRefusesAnotherSchema(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "temporal.db")
	require.NoError(t, makeSchema(t.Context(), file))
	require.NoError(t, makeSchema(t.Context(), file), "the same schema is fine")
	db, err := sql.Open("sqlite", file)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), `UPDATE drayman_dev_schema SET version = '0.1/0.1'`)
	require.NoError(t, err)

	err = makeSchema(t.Context(), file)

	require.ErrorContains(t, err, "it has schema 0.1/0.1")
}

func TestTemporalUI(t *testing.T) {
	t.Parallel()
	s := startTestTemporal(t, "")

	page, _ := get(t, "http://"+s.UIAddress+"/namespaces/default/workflows", "")
	settings, header := get(t, "http://"+s.UIAddress+"/api/v1/settings", "http://elsewhere.example")
	namespaces, _ := get(t, "http://"+s.UIAddress+"/api/v1/namespaces", "")

	require.Contains(t, page, "<!doctype html>")
	require.NotContains(t, page, "https://", "the page loads nothing from the internet")
	require.Contains(t, settings, `"DisableNewsFetch":true`)
	require.Empty(t, header.Get("Access-Control-Allow-Origin"), "no other site may read")
	require.Contains(t, namespaces, `"default"`)
}

func TestTemporalUI_ForeignPageIsRefused(t *testing.T) {
	t.Parallel()
	s := startTestTemporal(t, "")
	start := "/api/v1/namespaces/default/workflows/csrf-1"
	ask := func(method, path, host, origin, site string) int {
		body := `{"workflowType":{"name":"BillingRun"},"taskQueue":{"name":"drayman"},"requestId":"1"}`
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.UIAddress+path, strings.NewReader(body))
		require.NoError(t, err)
		request.Host = host
		request.Header.Set("Origin", origin)
		request.Header.Set("Sec-Fetch-Site", site)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		require.Empty(t, response.Header.Get("Access-Control-Allow-Origin"))
		return response.StatusCode
	}

	require.Equal(t, http.StatusForbidden, ask(http.MethodPost, start, "", "http://evil.example", "cross-site"))
	require.Equal(t, http.StatusForbidden, ask(http.MethodPost, start, "", "http://localhost:8080", "same-site"))
	for _, path := range []string{"/", "/healthz", "/api/v1/namespaces", "/api/v1/settings"} {
		require.Equal(t, http.StatusMisdirectedRequest, ask(http.MethodGet, path, "rebind.evil.example", "", "same-origin"), path)
	}
	require.Equal(t, http.StatusMisdirectedRequest, ask(http.MethodPost, start, "rebind.evil.example", "http://rebind.evil.example", "same-origin"))
	require.Equal(t, http.StatusOK, ask(http.MethodPost, start, "", "http://"+s.UIAddress, "same-origin"), "its own page starts a workflow")
}

// get returns the body and the header of a successful answer.
func get(t *testing.T, address, origin string) (string, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	require.NoError(t, err)
	if origin != "" {
		request.Header.Set("Origin", origin)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, string(body))
	return string(body), response.Header
}

func TestTemporalThatCannotListenFailsToStart(t *testing.T) {
	t.Parallel()

	_, err := startTemporal(t.Context(), temporalOptions{
		Addr: flagAddress{"--addr", taken(t)}, Log: slog.New(slog.DiscardHandler),
	})

	require.ErrorContains(t, err, "start the Temporal server")
	require.ErrorContains(t, err, "address already in use")
}

func TestTemporalFailureIsReported(t *testing.T) {
	t.Parallel()
	log := newTemporalLog(slog.New(slog.DiscardHandler))

	go func() {
		log.With(tag.NewStringTag("service", "matching")).Fatal("cannot listen", tag.Error(errors.New("port taken")))
		panic("not reached")
	}()

	require.EqualError(t, <-log.fatal, "cannot listen: port taken")
}

func TestTemporalLogLeavesOutWhatIsOnPurpose(t *testing.T) {
	t.Parallel()
	var written output
	log := newTemporalLog(slog.New(slog.NewTextHandler(&written, &slog.HandlerOptions{Level: slog.LevelWarn})))

	log.Info("quiet")
	log.Error("a worker stops", tag.Error(context.Canceled))
	log.Warn(noHTTP + " And so on.")
	require.Empty(t, written.String())
	log.With(tag.NewStringTag("service", "history")).Warn("loud", tag.Error(errors.New("disk full")))
	require.Contains(t, written.String(), `level=WARN msg=loud part=temporal service=history error="disk full"`)
	before := written.String()
	log.mute()
	log.Error("stopping")

	require.Equal(t, before, written.String())
}
