package cmd_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// nextSteps are migrations of each kind that a later version may have: those that
// docs/operations.md calls safe while the version before it serves. Their numbers are
// past those of this version for long.
var nextSteps = map[string]string{
	"00900_new_table.sql": "-- +goose Up\nCREATE TABLE charge_note (request_id varchar(128) PRIMARY KEY, note text NOT NULL);\n",
	"00901_column.sql":    "-- +goose Up\nALTER TABLE charge ADD COLUMN channel varchar(16);\n",
	"00902_default.sql":   "-- +goose Up\nALTER TABLE billing_run ADD COLUMN priority integer NOT NULL DEFAULT 1;\n",
	"00903_index.sql": "-- +goose NO TRANSACTION\n-- +goose Up\nDROP INDEX CONCURRENTLY IF EXISTS charge_by_customer;\n" +
		"CREATE INDEX CONCURRENTLY charge_by_customer ON charge (customer_id);\n",
	"00904_approved_index.sql": "-- +goose NO TRANSACTION\n-- +goose Up\nDROP INDEX CONCURRENTLY IF EXISTS drayman_subscription_created;\n" +
		"CREATE INDEX CONCURRENTLY drayman_subscription_created ON subscription (create_date);\n",
	"00905_check.sql":    "-- +goose Up\nALTER TABLE charge ADD CONSTRAINT charge_attempts CHECK (attempts >= 0) NOT VALID;\n",
	"00906_validate.sql": "-- +goose Up\nALTER TABLE charge VALIDATE CONSTRAINT charge_attempts;\n",
}

// nextVersion builds the program with more migrations, as the version after this
// one would have them.
func nextVersion(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range nextSteps {
		file := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		for _, dialect := range []string{"postgres", "sqlite"} { // the same numbers in both
			overlay.Replace[filepath.Join(root, "migrations", dialect, name)] = file
		}
	}
	list, err := json.Marshal(overlay)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "overlay.json"), list, 0o600))
	program := filepath.Join(folder, "drayman")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-overlay", filepath.Join(folder, "overlay.json"), "-o", program, "./cmd/drayman")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	return program
}

// stream charges subscriptions one after the other, some at a time, and keeps
// what was answered and how long the slowest took.
type stream struct {
	mu      sync.Mutex
	codes   map[int]int
	slowest time.Duration
	all     sync.WaitGroup
}

func startStream(api string, from, to int) *stream {
	s := &stream{codes: map[int]int{}}
	ids := make(chan int)
	for range 8 {
		s.all.Go(func() {
			for id := range ids {
				begun := time.Now()
				a, _ := send(http.MethodPost, fmt.Sprintf("%s/subscription/s-%06d/charge/r-%d", api, id, id), "", "Prefer", "wait=30") // 0: cut
				s.mu.Lock()
				s.codes[a.Code]++
				s.slowest = max(s.slowest, time.Since(begun))
				s.mu.Unlock()
			}
		})
	}
	go func() {
		defer close(ids)
		for id := from; id <= to; id++ {
			ids <- id
		}
	}()
	return s
}

func (s *stream) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, count := range s.codes {
		n += count
	}
	return n
}

// The next version's migrations run while this one bills and is asked to charge;
// then both versions serve, and then the next one alone. A reader of the ledger,
// such as a backup, holds the migration up, and nobody else.
func TestTheNextVersionMigratesWhileThisOneServes(t *testing.T) {
	const billed, streamed = 1200, 400
	next := nextVersion(t)
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, billed+streamed)
	api, address := s.api(t, "api")
	worker := s.worker(t)
	s.shop.SetFaults(shoptest.Fault{Delay: 100 * time.Millisecond})
	mustSend(t, http.MethodPost, runURL(address), `{"orders_per_second":100,"page_size":100}`)
	requests := startStream(address, billed+1, billed+streamed)
	require.Eventually(t, func() bool { return requests.answered() > streamed/10 }, time.Minute, 5*time.Millisecond)

	backup, err := s.db.Pool.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = backup.ExecContext(t.Context(), "LOCK TABLE charge IN ACCESS SHARE MODE")
	require.NoError(t, err)
	migrate := start(t, next, s.env, "migrate", "up")
	held := s.eventuallyGivesWay(t)
	require.Less(t, requests.answered(), streamed, "requests come while it migrates")
	require.NoError(t, backup.Rollback())
	<-migrate.exited
	require.Zero(t, migrate.cmd.ProcessState.ExitCode(), migrate.text())
	require.Contains(t, migrate.text(), "at version 906")

	start(t, next, s.env, "worker").find(t, `(worker polls)`)
	newer := start(t, next, s.env, "api").find(t, `api serves" url=(\S+)`)
	requests.all.Wait()
	t.Logf("answers %v, the slowest after %s; the migration held up statements for %.1f s at most", requests.codes, requests.slowest.Round(time.Millisecond), held)
	require.Equal(t, map[int]int{http.StatusOK: streamed}, requests.codes)
	require.Less(t, held, 2.5, "it waits one second at a time")
	require.Equal(t, http.StatusOK, mustSend(t, http.MethodGet, address+"/readyz", "").Code, "this version serves on")
	require.Zero(t, worker.kill(syscall.SIGTERM), worker.text())
	require.Zero(t, api.kill(syscall.SIGTERM), api.text())

	ended := eventuallyRun(t, newer, "finished")
	require.Subset(t, ended.Body["counts"], map[string]any{"declined": 0.0, "pending": 0.0, "unresolved": 0.0})
	require.Len(t, s.shop.Orders(), billed+streamed)
	require.Empty(t, s.askedTwice(), "no order was asked for twice")
	require.Len(t, s.shop.Calls(), billed+streamed, "nor for nothing")
	require.Equal(t, []string{fmt.Sprint(billed + streamed)}, s.db.Lines(t, "SELECT count(*)::text FROM charge WHERE status = 'charged'"))
}

// askedTwice are the request ids that came to the shop more than once.
func (s *site) askedTwice() (twice []string) {
	calls := map[string]int{}
	for _, c := range s.shop.Calls() {
		if calls[c.RequestID]++; calls[c.RequestID] == 2 {
			twice = append(twice, c.RequestID)
		}
	}
	return twice
}

// eventuallyGivesWay waits until the migration has waited for the ledger's lock,
// has let others pass, and waits again. It returns how long it held up statements
// of others meanwhile, the longest, in seconds.
func (s *site) eventuallyGivesWay(t *testing.T) (held float64) {
	t.Helper()
	const migrating = "query LIKE '%ALTER TABLE charge%'"
	waits, before := 0, false
	require.Eventually(t, func() bool {
		var waiting bool
		var seconds float64
		err := s.db.Pool.QueryRowContext(t.Context(), `SELECT coalesce(bool_or(`+migrating+`), false),
				coalesce(extract(epoch FROM max(clock_timestamp() - query_start) FILTER (WHERE NOT `+migrating+`)), 0)::float8
			FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'relation' AND pid <> pg_backend_pid()`).Scan(&waiting, &seconds)
		if waiting && !before {
			waits++
		}
		before, held = waiting, max(held, seconds)
		return err == nil && waits == 3
	}, time.Minute, 10*time.Millisecond)
	require.NotZero(t, held, "requests met the migration")
	return held
}
