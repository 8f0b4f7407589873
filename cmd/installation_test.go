package cmd_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/models"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
)

// with is the site with other variables.
func (s *site) with(variables ...string) *site {
	other := *s
	other.env = append(append([]string{}, s.env...), variables...)
	return &other
}

// requireCharges holds that processes of the site charge the subscription.
func (s *site) requireCharges(t *testing.T, subscription string) {
	t.Helper()
	serve, api := s.api(t, "serve")
	defer serve.kill(syscall.SIGTERM)
	require.Eventually(t, func() bool {
		a, err := send(http.MethodPost, api+"/subscription/"+subscription+"/charge/r-"+subscription, "")
		return err == nil && a.Code == http.StatusOK
	}, time.Minute, 100*time.Millisecond)
	require.Equal(t, true, mustSend(t, http.MethodGet, api+"/installation", "").Body["may_charge"])
}

// requireChargesNobody holds that processes of the site read, and say why they do not
// charge.
func (s *site) requireChargesNobody(t *testing.T, subscription, why string) {
	t.Helper()
	calls := len(s.shop.Calls())
	serve, api := s.api(t, "serve")
	defer serve.kill(syscall.SIGTERM)
	serve.find(t, `(the worker takes up no work)`)
	for _, path := range []string{"/subscription/" + subscription + "/charge/r-1", "/billing-run/" + time.Now().UTC().Format("2006-01")} {
		refused := mustSend(t, http.MethodPost, api+path, "")
		require.Equal(t, http.StatusServiceUnavailable, refused.Code, path)
		require.Equal(t, "installation_not_adopted", refused.Body["code"])
		require.Contains(t, refused.Body["detail"], why)
		require.Contains(t, refused.Body["detail"], "drayman adopt")
	}
	require.Equal(t, http.StatusOK, mustSend(t, http.MethodGet, api+"/subscription/"+subscription, "").Code, "reads are served")
	require.Equal(t, http.StatusOK, mustSend(t, http.MethodGet, api+"/readyz", "").Code)
	require.Equal(t, false, mustSend(t, http.MethodGet, api+"/installation", "").Body["may_charge"])
	require.NotContains(t, serve.text(), "worker polls", "it would take the charges of others")
	require.Len(t, s.shop.Calls(), calls)
}

// cluster is a PostgreSQL server of the test's own.
type cluster struct {
	*process
	url, dir string
}

// startCluster starts a server over the files in the directory, new ones if it is empty.
func startCluster(t *testing.T, dir string) cluster {
	t.Helper()
	return startClusterAt(t, dir, "0")
}

// startClusterAt starts it at the port.
func startClusterAt(t *testing.T, dir, port string) cluster {
	t.Helper()
	for _, way := range []string{filepath.Dir(dir), dir} { // PostgreSQL does not run as root
		require.NoError(t, os.Chmod(way, 0o711))
	}
	p := start(t, binary(t, "TEST_DRAYMAN_DEV"), []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}, "postgres", "--port", port, "--data", dir)
	return cluster{p, p.find(t, `(postgres://\S+)`), dir}
}

// postgresProgram runs one of PostgreSQL's own programs and returns what it prints.
func postgresProgram(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(found) > 0 {
		name = found[len(found)-1]
	}
	program := exec.CommandContext(t.Context(), name, args...)
	program.Stdin = strings.NewReader(input)
	var failure strings.Builder
	program.Stderr = &failure
	output, err := program.Output()
	require.NoError(t, err, failure.String())
	return string(output)
}

// physicalCopy makes a standby's files, byte by byte the cluster's.
func (c cluster) physicalCopy(t *testing.T, dir string) {
	t.Helper()
	data := filepath.Join(dir, "postgres", "data")
	require.NoError(t, os.MkdirAll(filepath.Dir(data), 0o700))
	postgresProgram(t, "", "pg_basebackup", "--dbname", c.url, "--pgdata", data, "--checkpoint", "fast")
	owner, err := os.Stat(filepath.Join(c.dir, "postgres", "data"))
	require.NoError(t, err)
	same, ok := owner.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	require.NoError(t, filepath.WalkDir(filepath.Dir(data), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(same.Uid), int(same.Gid))
	}))
}

// database is the one of this name on a server.
func database(t *testing.T, serverURL, name string) modelstest.Database {
	t.Helper()
	d := modelstest.Database{URL: strings.Replace(serverURL, "/postgres?", "/"+name+"?", 1), Dialect: models.Postgres}
	var err error
	d.Pool, err = sql.Open("pgx", d.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Pool.Close() })
	return d
}

// What stands where it was made charges; so does the standby that takes its place, and
// the database under another name. A dump that is restored elsewhere does not, nor does
// a copy of the files that is given another INSTALLATION: until a person says so.
func TestInstallation_ACopyChargesNobodyUntilItIsAdopted(t *testing.T) {
	t.Parallel()
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	home := startCluster(t, t.TempDir())
	server := database(t, home.url, "postgres")
	server.Exec(t, "CREATE DATABASE shop")
	at := func(d modelstest.Database) *site {
		other := s.with("DATABASE_URL=" + d.URL)
		other.db = d
		return other
	}
	s = at(database(t, home.url, "shop"))
	migrate := start(t, binary(t, "TEST_DRAYMAN"), s.env, "migrate", "up")
	<-migrate.exited
	require.Zero(t, migrate.cmd.ProcessState.ExitCode(), migrate.text())
	s.db.AddClub(t, 1, 1)
	for i := range 8 {
		s.db.AddSubscription(t, fmt.Sprint("s-", i), 1, fmt.Sprint("c-", i))
	}
	s.requireCharges(t, "s-0")

	standby := t.TempDir()
	home.physicalCopy(t, standby)
	dump := postgresProgram(t, "", "pg_dump", s.db.URL)

	require.NoError(t, s.db.Pool.Close())
	server.Exec(t, "ALTER DATABASE shop RENAME TO renamed")
	at(database(t, home.url, "renamed")).requireCharges(t, "s-1")
	home.kill(syscall.SIGTERM)

	promoted := at(database(t, startCluster(t, standby).url, "shop"))
	promoted.requireCharges(t, "s-2")
	promoted.with("INSTALLATION=staging").requireChargesNobody(t, "s-3", `INSTALLATION is "staging"`)

	restored := modelstest.PostgresIn(t, "UTF8")
	postgresProgram(t, dump, "psql", "--quiet", "--set", "ON_ERROR_STOP=1", restored.URL)
	at(restored).requireChargesNobody(t, "s-4", "restored, or was moved")
	require.Contains(t, at(restored).adopt(t), "charges here from now on")
	require.Contains(t, at(restored).adopt(t), "nothing to do")
	at(restored).requireCharges(t, "s-4")
	require.Equal(t, []string{"installation.adopt Ana restored by a test"},
		restored.Lines(t, "SELECT action || ' ' || actor || ' ' || reason FROM audit"))

	id := restored.Lines(t, "SELECT id FROM installation")
	at(restored).with("INSTALLATION=staging").adopt(t, "--copy")
	require.NotEqual(t, id, restored.Lines(t, "SELECT id FROM installation"), "a copy is another installation")
	at(restored).with("INSTALLATION=staging").requireCharges(t, "s-5")
	at(restored).requireChargesNobody(t, "s-6", `is the installation "staging"`)
}

// elsewhere is another installation in the same Temporal namespace, with a shop of its
// own; it is a copy: its subscriptions have the same ids.
func (s *site) elsewhere(t *testing.T, variables ...string) *site {
	t.Helper()
	other := newSiteIn(t, s.variable(t, "TEMPORAL_ADDRESS"), s.namespace(t), shoptest.Options{})
	other.db.Exec(t, "UPDATE installation SET id = 'another'")
	return other.with(variables...)
}

func (s *site) variable(t *testing.T, name string) string {
	t.Helper()
	for _, variable := range s.env {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value
		}
	}
	t.Fatalf("the site has no %s", name)
	return ""
}

// A worker of another installation that polls our queue charges nobody, there or here,
// and says so; no answer is a 200 that is not in our ledger.
func TestInstallation_AnothersWorkerRefusesOurCharges(t *testing.T) {
	t.Parallel()
	ours := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	theirs := ours.elsewhere(t)
	ours.subscribers(t, 40)
	theirs.subscribers(t, 40)
	_, api := ours.api(t, "api")
	wrong := theirs.worker(t)

	refused := mustSend(t, http.MethodPost, chargeURL(api, 1, "r-1"), "")
	require.Equal(t, http.StatusServiceUnavailable, refused.Code, refused.Body)
	require.Equal(t, "other_installation", refused.Body["code"])
	refused = mustSend(t, http.MethodPost, runURL(api), "")
	require.Equal(t, http.StatusServiceUnavailable, refused.Code, refused.Body)
	require.Equal(t, "other_installation", refused.Body["code"])
	wrong.find(t, `(share a Temporal namespace)`)
	require.Empty(t, ours.db.Lines(t, "SELECT id FROM billing_run"))

	ours.worker(t)
	var all sync.WaitGroup
	for i := 1; i <= 40; i++ {
		all.Go(func() {
			a, err := send(http.MethodPost, chargeURL(api, i, fmt.Sprint("both-", i)), "")
			if err == nil && a.Code == http.StatusOK && len(ours.shop.OrdersFor(fmt.Sprintf("c-%06d", i))) != 1 {
				t.Errorf("charge %d is answered 200 and has no order", i)
			}
		})
	}
	all.Wait()
	require.Empty(t, theirs.shop.Calls())
	require.Empty(t, theirs.db.Lines(t, "SELECT request_id FROM charge"))
	require.Len(t, ours.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"), len(ours.shop.Orders()))
}

// With names of their own, two installations share a namespace in peace: charges, runs,
// the recall that a run begins with, and reports.
func TestInstallation_TwoNamesShareANamespace(t *testing.T) {
	t.Parallel()
	first := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	sites := []*site{first, first.elsewhere(t, "INSTALLATION=staging")}
	const n = 60
	apis := make([]string, len(sites))
	for i, s := range sites {
		s.subscribers(t, n)
		if i > 0 {
			s.adopt(t, "--copy")
		}
		var serve *process
		serve, apis[i] = s.api(t, "serve")
		serve.find(t, `(worker polls)`)
	}
	var all sync.WaitGroup
	for number := 1; number <= n/2; number++ {
		for _, api := range apis {
			all.Go(func() {
				var a answer
				for deadline := time.Now().Add(time.Minute); a.Code != http.StatusOK && time.Now().Before(deadline); {
					a, _ = send(http.MethodPost, chargeURL(api, number, fmt.Sprint("r-", number)), "", "Prefer", "wait=20")
				}
				if a.Code != http.StatusOK {
					t.Errorf("charge %d at %s: %d %v", number, api, a.Code, a.Body)
				}
			})
		}
	}
	all.Wait()
	// Both have forgotten what Temporal remembers of both.
	for i, s := range sites {
		s.db.Exec(t, "DELETE FROM charge WHERE customer_id < 'c-000010'")
		s.db.Exec(t, "VACUUM FULL charge") // another file: it may be another ledger
		startRun(t, apis[i], "")
	}
	for i, s := range sites {
		eventuallyRun(t, apis[i], "finished")
		requireClosed(t, apis[i])
		s.requireOneOrderEach(t, n)
		require.Len(t, s.db.Lines(t, "SELECT request_id FROM charge WHERE status = 'charged'"), n)
	}
	for i, s := range sites {
		for _, order := range s.shop.Orders() {
			rows := s.db.Lines(t, "SELECT request_id FROM charge WHERE shop_order LIKE '%' || $1 || '%'", order.OrderID)
			require.Equal(t, []string{order.RequestID}, rows, "installation %d has a row for its own order", i)
		}
	}
}

// On the original, a slip of the hand must not leave runs and charges to nobody.
func TestInstallation_ACopyThatSeemsAtHomeIsConfirmed(t *testing.T) {
	t.Parallel()
	db := modelstest.SQLite(t)
	env := map[string]string{"DATABASE_URL": db.URL}
	code, _, errs := run(t, env, "adopt", "--copy")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "Nothing was changed")
	require.Equal(t, []string{modelstest.Installation}, db.Lines(t, "SELECT id FROM installation"))
	code, out, errs := run(t, env, "adopt", "--copy", "--yes")
	require.Zero(t, code, errs)
	require.Contains(t, out, "is a new installation")
	require.NotEqual(t, []string{modelstest.Installation}, db.Lines(t, "SELECT id FROM installation"))
	code, _, errs = run(t, env, "adopt")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--note: say why")
}
