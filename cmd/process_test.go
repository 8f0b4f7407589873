package cmd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"drayman/models/modelstest"
	"drayman/shop/shoptest"
)

// These tests run the real program in processes of its own and kill them.

func binary(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	require.NotEmpty(t, path, "%s is not set: run make test", variable)
	return path
}

// process is a program that runs.
type process struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer
	exited chan struct{}
}

// start runs a program; it is killed when the test ends.
func start(t *testing.T, path string, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(path, args...), exited: make(chan struct{})} //nolint:noctx // it must outlive no context but end by signals
	p.cmd.Env = env
	read, write := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = write, write
	require.NoError(t, p.cmd.Start())
	go func() {
		for lines := bufio.NewScanner(read); lines.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.output, lines.Text())
			p.mu.Unlock()
		}
	}()
	go func() {
		_ = p.cmd.Wait() // the exit code is read from ProcessState
		_ = write.Close()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s %s:\n%s", path, strings.Join(args, " "), p.text())
		}
	})
	return p
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// kill sends the signal and waits for the end; it returns the exit code.
func (p *process) kill(sig syscall.Signal) int {
	_ = p.cmd.Process.Signal(sig) // it may have ended by itself
	<-p.exited
	return p.cmd.ProcessState.ExitCode()
}

// find waits until the output has a line that matches and returns its group.
func (p *process) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	require.Eventually(t, func() bool {
		found = re.FindStringSubmatch(p.text())
		return found != nil
	}, 60*time.Second, 20*time.Millisecond, "no %q in the output", pattern)
	return found[1]
}

// site is where the processes of one test meet: a database, a Temporal
// namespace, a fake shop.
type site struct {
	db   modelstest.Database
	shop *shoptest.Server
	env  []string
}

func newSite(t *testing.T, temporalAddress string, o shoptest.Options) *site {
	t.Helper()
	return newSiteIn(t, temporalAddress, newNamespace(t, temporalAddress), o)
}

func newSiteIn(t *testing.T, temporalAddress, namespace string, o shoptest.Options) *site {
	t.Helper()
	o.APIKey, o.APISecret = "key", "secret"
	s := &site{db: modelstest.Postgres(t), shop: shoptest.Start(t, o)}
	s.env = []string{
		"DATABASE_URL=" + s.db.URL, "TEMPORAL_ADDRESS=" + temporalAddress, "TEMPORAL_NAMESPACE=" + namespace,
		"SHOP_URL=" + s.shop.URL, "SHOP_API_KEY=key", "SHOP_API_SECRET=secret", "HTTP_ADDR=127.0.0.1:0", "HOME=" + t.TempDir(),
	}
	s.db.AddClub(t, 1, 1)
	return s
}

func newNamespace(t *testing.T, address string) string {
	t.Helper()
	name := "test-" + uuid.NewString()
	registerNamespace(t, address, name)
	return name
}

func registerNamespace(t *testing.T, address, name string) {
	t.Helper()
	c, err := client.NewNamespaceClient(client.Options{HostPort: address})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool {
		err = c.Register(t.Context(), &workflowservice.RegisterNamespaceRequest{
			Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
		})
		var exists *serviceerror.NamespaceAlreadyExists // a try that timed out has made it
		return err == nil || errors.As(err, &exists)
	}, time.Minute, 100*time.Millisecond)
}

// namespace is the site's own.
func (s *site) namespace(t *testing.T) string {
	t.Helper()
	for _, variable := range s.env {
		if name, ok := strings.CutPrefix(variable, "TEMPORAL_NAMESPACE="); ok {
			return name
		}
	}
	t.Fatal("the site has no namespace")
	return ""
}

func (s *site) start(t *testing.T, command string, extra ...string) *process {
	t.Helper()
	return start(t, binary(t, "TEST_DRAYMAN"), append(s.env, extra...), command)
}

// api starts an API process and returns its address.
func (s *site) api(t *testing.T, command string, extra ...string) (*process, string) {
	t.Helper()
	p := s.start(t, command, extra...)
	return p, p.find(t, `api serves" url=(\S+)`)
}

// worker starts a worker and waits until it polls.
func (s *site) worker(t *testing.T, extra ...string) *process {
	t.Helper()
	p := s.start(t, "worker", extra...)
	p.find(t, `(worker polls)`)
	return p
}

// adopt says that the database which stands there now may charge.
func (s *site) adopt(t *testing.T, args ...string) string {
	t.Helper()
	p := s.adopting(t, args...)
	<-p.exited
	require.Zero(t, p.cmd.ProcessState.ExitCode(), p.text())
	return p.text()
}

// adopting does not wait for that.
func (s *site) adopting(t *testing.T, args ...string) *process {
	t.Helper()
	return start(t, binary(t, "TEST_DRAYMAN"), s.env, append([]string{"adopt", "--note", "restored by a test", "--by", "Ana"}, args...)...)
}

type answer struct {
	Code   int
	Header http.Header
	Body   map[string]any
}

func send(method, url, body string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	a := answer{Code: res.StatusCode, Header: res.Header}
	return a, json.NewDecoder(res.Body).Decode(&a.Body)
}

func mustSend(t *testing.T, method, url, body string, header ...string) answer {
	t.Helper()
	a, err := send(method, url, body, header...)
	require.NoError(t, err)
	return a
}

func eventuallyCharged(t *testing.T, url string) answer {
	t.Helper()
	var a answer
	require.Eventually(t, func() bool {
		var err error
		a, err = send(http.MethodGet, url, "")
		return err == nil && a.Body["status"] == "charged"
	}, 60*time.Second, 50*time.Millisecond)
	return a
}

func TestAHundredSubscribesOverTwoProcesses(t *testing.T) {
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	_, first := s.api(t, "api")
	_, second := s.api(t, "api")
	codes := make(chan int, 100)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			a, err := send(http.MethodPost, []string{first, second}[i%2]+"/club/1/subscribe/", `{"customer_id":"anna"}`)
			if err != nil {
				a.Code = -1
			}
			codes <- a.Code
		})
	}
	all.Wait()
	close(codes)
	count := map[int]int{}
	for code := range codes {
		count[code]++
	}
	require.Equal(t, map[int]int{201: 1, 409: 99}, count)
}

// The worker dies between the order and the record.
func TestAWorkerDiesWhileItCharges(t *testing.T) {
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.db.AddSubscription(t, "s", 1, "anna")
	_, api := s.api(t, "api")
	worker := s.worker(t)
	s.shop.SetFaults(shoptest.Fault{Delay: 3 * time.Second, Times: 1}) // books, then keeps the worker waiting

	accepted := mustSend(t, http.MethodPost, api+"/subscription/s/charge/r-1", "", "Prefer", "respond-async")
	require.Equal(t, http.StatusAccepted, accepted.Code)
	require.Eventually(t, func() bool { return len(s.shop.Orders()) == 1 }, 30*time.Second, 5*time.Millisecond)
	worker.kill(syscall.SIGKILL)
	s.worker(t)

	charged := eventuallyCharged(t, api+accepted.Header.Get("Location"))
	require.Equal(t, "r-1", charged.Body["request_id"])
	require.Len(t, s.shop.Orders(), 1)
	require.GreaterOrEqual(t, len(s.shop.Calls()), 2, "the shop was asked again, for the same order")
}

// startTemporal starts a Temporal server of the test's own and returns its address.
func startTemporal(t *testing.T, addr, data string) (*process, string) {
	t.Helper()
	p := start(t, binary(t, "TEST_DRAYMAN_DEV"), []string{"HOME=" + data}, "temporal", "--addr", addr, "--ui-addr", "", "--data", data)
	return p, p.find(t, `(127\.0\.0\.1:\d+)`)
}

func TestTemporalIsDown(t *testing.T) {
	temporalData := t.TempDir()
	temporal, address := startTemporal(t, "127.0.0.1:0", temporalData)
	s := newSite(t, address, shoptest.Options{})
	s.db.AddSubscription(t, "charged", 1, "anna")
	s.db.AddSubscription(t, "new", 1, "bert")
	_, api := s.api(t, "serve") // api and worker in one
	require.Eventually(t, func() bool {
		a, err := send(http.MethodPost, api+"/subscription/charged/charge/r-1", "")
		return err == nil && a.Code == http.StatusOK
	}, 60*time.Second, 200*time.Millisecond)

	temporal.kill(syscall.SIGKILL)

	again := mustSend(t, http.MethodPost, api+"/subscription/charged/charge/r-2", "")
	require.Equal(t, http.StatusOK, again.Code)
	require.Equal(t, true, again.Body["already_charged"])
	refused := mustSend(t, http.MethodPost, api+"/subscription/new/charge/r-3", "")
	require.Equal(t, http.StatusServiceUnavailable, refused.Code)
	require.Equal(t, "temporal_unavailable", refused.Body["code"])
	require.NotEmpty(t, refused.Header.Get("Retry-After"))
	require.Equal(t, "unavailable", mustSend(t, http.MethodGet, api+"/readyz", "").Body["temporal"])
	require.Equal(t, http.StatusCreated, mustSend(t, http.MethodPost, api+"/club/1/subscribe", `{"customer_id":"carl"}`).Code)
	require.Equal(t, []string{"r-1"}, s.db.Lines(t, "SELECT request_id FROM charge"))

	startTemporal(t, address, temporalData)
	require.Eventually(t, func() bool {
		a, err := send(http.MethodPost, api+"/subscription/new/charge/r-3", "")
		return err == nil && a.Code == http.StatusOK
	}, 60*time.Second, 200*time.Millisecond)
	require.Len(t, s.shop.Orders(), 2)
}

// SIGTERM lets what is under way finish: the charge is answered, not cut.
func TestShutdownDrains(t *testing.T) {
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.db.AddSubscription(t, "s", 1, "anna")
	serve, api := s.api(t, "serve")
	serve.find(t, `(worker polls)`)
	s.shop.SetFaults(shoptest.Fault{Delay: 500 * time.Millisecond})
	got := make(chan answer, 1)
	go func() {
		a, _ := send(http.MethodPost, api+"/subscription/s/charge/r-1", "") // a cut answer has the code 0
		got <- a
	}()
	require.Eventually(t, func() bool { return len(s.shop.Calls()) == 1 }, 30*time.Second, 5*time.Millisecond)

	require.Zero(t, serve.kill(syscall.SIGTERM), serve.text())

	require.Contains(t, []int{http.StatusOK, http.StatusAccepted}, (<-got).Code)
	s.worker(t)
	_, api = s.api(t, "api")
	eventuallyCharged(t, api+"/subscription/s/charges/"+time.Now().UTC().Format("2006-01"))
	require.Len(t, s.shop.Orders(), 1)
}
