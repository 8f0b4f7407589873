package cmd_test

import (
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// The database server dies, and a standby that lacks the last seconds takes its address:
// the same cluster and the same database, but another start of it. Nobody has to say
// anything, and no process of ours is started again.
func TestFailover_TheStandbyLacksTheLastSeconds(t *testing.T) {
	var all sync.WaitGroup
	for _, c := range []replaced{
		{backup: "before", run: ""},
		{backup: "within", run: "under way"},
		{backup: "within", run: "under way", everyCallIs: true},
		{backup: "before", run: "finished", everyCallIs: true},
	} {
		all.Go(func() {
			t.Run(c.name(), func(t *testing.T) {
				s, primary := newClusterSite(t, shoptest.Options{NewOrderPerCall: c.everyCallIs})
				c.happens(t, s, func(_ *process, api string) (func(), string) {
					return primary.standby(t), api
				})
			})
		})
	}
	all.Wait()
}

// newClusterSite is a site with a PostgreSQL server of its own.
func newClusterSite(t *testing.T, o shoptest.Options) (*site, cluster) {
	t.Helper()
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), o)
	primary := startCluster(t, t.TempDir())
	database(t, primary.url, "postgres").Exec(t, "CREATE DATABASE shop")
	db := database(t, primary.url, "shop")
	s = s.with("DATABASE_URL=" + db.URL)
	s.db = db
	migrate := start(t, binary(t, "TEST_DRAYMAN"), s.env, "migrate", "up")
	<-migrate.exited
	require.Zero(t, migrate.cmd.ProcessState.ExitCode(), migrate.text())
	s.db.AddClub(t, 1, 1)
	return s, primary
}

// standby makes one. It knows what the primary knows now, and nothing that comes later,
// when it takes the primary's place.
func (c cluster) standby(t *testing.T) (takesOver func()) {
	t.Helper()
	dir := t.TempDir()
	c.physicalCopy(t, dir)
	address, err := url.Parse(c.url)
	require.NoError(t, err)
	return func() {
		c.kill(syscall.SIGKILL)
		require.Eventually(t, func() bool { // the server itself ends a moment later
			connection, err := net.Dial("tcp", address.Host) //nolint:noctx // on loopback
			if err == nil {
				_ = connection.Close()
			}
			return err != nil
		}, time.Minute, 20*time.Millisecond)
		startClusterAt(t, dir, address.Port())
	}
}
