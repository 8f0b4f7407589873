package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	shopKey    = "chaos-key-4711"
	shopSecret = "chaos-secret-0815"
	// shopTimeout and retryFor are short, so that a campaign sees many of their ends.
	shopTimeout = time.Second
	retryFor    = 20 * time.Second
	// ready is how long a site may take until all of it answers.
	ready = 2 * time.Minute
)

// programs are what is put to the test.
type programs struct{ Drayman, DraymanDev string }

// site is where a campaign happens.
type site struct {
	dir      string
	nodes    map[string]*node
	links    links
	faults   *faultBoard
	db       *pgxpool.Pool // past the links, and past drayman
	apis     []string      // URLs
	temporal string        // address, past the links
	database string        // the same
	programs programs

	stop context.CancelFunc
}

// newSite starts everything and fills the database. Close it, also after an error.
func newSite(ctx context.Context, dir string, programs programs, p *plan) (*site, error) {
	nodesCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &site{dir: dir, nodes: map[string]*node{}, programs: programs, stop: stop}
	ports, err := freePorts(ctx, 5)
	if err != nil {
		return s, err
	}
	address := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[i]) }
	s.database, s.temporal = address(0), address(1)
	s.apis = []string{"http://" + address(3), "http://" + address(4)}
	if err := s.startServers(nodesCtx, programs, ports, p.Sizes.Idempotent); err != nil {
		return s, err
	}
	s.faults = &faultBoard{url: "http://" + address(2), seed: p.Sizes.Seed, declined: p.declined(false), calm: p.Sizes.SetbacksOnly}
	if err := s.prepareDatabase(ctx, programs, address(0), p); err != nil {
		return s, err
	}
	s.links, err = newLinks(map[string]string{
		linkAPIDatabase: address(0), linkWorkerDatabase: address(0), linkTemporal: address(1), linkShop: address(2),
	})
	if err != nil {
		return s, err
	}
	s.faults.post(ctx)
	if err := s.startDrayman(nodesCtx, programs, p.Sizes.Idempotent); err != nil {
		return s, err
	}
	return s, s.awaitReady(ctx)
}

func (s *site) startServers(ctx context.Context, programs programs, ports []int, idempotent bool) error {
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	shop := []string{"shop", "--addr", fmt.Sprintf("127.0.0.1:%d", ports[2]), "--data", filepath.Join(data, "shop"), "--api-key", shopKey, "--api-secret", shopSecret}
	if !idempotent {
		shop = append(shop, "--book-every-call")
	}
	for name, args := range map[string][]string{
		"postgres": {"postgres", "--port", strconv.Itoa(ports[0]), "--data", data},
		"temporal": {"temporal", "--addr", s.temporal, "--ui-addr", "", "--data", filepath.Join(data, "temporal")},
		"shop":     shop,
	} {
		if err := s.keep(ctx, name, programs.DraymanDev, os.Environ(), args...); err != nil {
			return err
		}
	}
	s.nodes["postgres"].victim = func() (int, bool) { return postmaster(s.pidFile()) }
	return nil
}

func (s *site) pidFile() string { return filepath.Join(s.clusterHome(), "data", "postmaster.pid") }

// postmaster reads the process id of the server that drayman-dev has started.
func postmaster(pidFile string) (int, bool) {
	content, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	return pid, err == nil
}

func (s *site) startDrayman(ctx context.Context, programs programs, idempotent bool) error {
	env := func(link string) []string {
		return []string{
			"DATABASE_URL=" + databaseURL(s.links[link].Listen, "drayman"),
			"TEMPORAL_ADDRESS=" + s.links[linkTemporal].Listen,
			"SHOP_URL=http://" + s.links[linkShop].Listen, "SHOP_API_KEY=" + shopKey, "SHOP_API_SECRET=" + shopSecret,
			"SHOP_TIMEOUT=" + shopTimeout.String(), "CHARGE_RETRY_FOR=" + retryFor.String(),
			"SHOP_IDEMPOTENT=" + strconv.FormatBool(idempotent), "CHARGE_WAIT=3s", "HOME=" + s.dir,
		}
	}
	for i, url := range s.apis {
		err := s.keep(ctx, fmt.Sprintf("api-%d", i+1), programs.Drayman, append(env(linkAPIDatabase), "HTTP_ADDR="+strings.TrimPrefix(url, "http://")), "api")
		if err != nil {
			return err
		}
	}
	for i := range 3 {
		if err := s.keep(ctx, fmt.Sprintf("worker-%d", i+1), programs.Drayman, env(linkWorkerDatabase), "worker"); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) keep(ctx context.Context, name, path string, env []string, args ...string) error {
	n, err := keep(ctx, s.dir, name, path, env, args...)
	if err == nil {
		s.nodes[name] = n
	}
	return err
}

func databaseURL(address, database string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", address, database)
}

// prepareDatabase makes a database with the plan's subscribers.
func (s *site) prepareDatabase(ctx context.Context, programs programs, address string, p *plan) error {
	if err := until(ctx, ready, func(ctx context.Context) error {
		pool, err := pgxpool.New(ctx, databaseURL(address, "postgres"))
		if err != nil {
			return err
		}
		defer pool.Close()
		_, err = pool.Exec(ctx, "CREATE DATABASE drayman")
		return err
	}); err != nil {
		return fmt.Errorf("making the database: %w", err)
	}
	direct := databaseURL(address, "drayman")
	migrate := exec.CommandContext(ctx, programs.Drayman, "migrate", "up")
	migrate.Env = []string{"DATABASE_URL=" + direct}
	if output, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	var err error
	if s.db, err = pgxpool.New(ctx, direct); err != nil {
		return err
	}
	return populate(ctx, s.db, p)
}

// The approved tables' ids of statuses.
const (
	statusActive    = 1
	statusCancelled = 2
	statusPaused    = 3
)

// Clubs by kind of subscriber; each has one club, and a club one SKU.
var clubOf = map[string]int{kindEligible: 1, kindPaused: 1, kindNoStatus: 1, kindClosedClub: 2, kindInactive: 3}

func populate(ctx context.Context, db *pgxpool.Pool, p *plan) error {
	var ids, customers []string
	var clubs, statuses []int
	for _, sub := range p.Subscribers {
		ids, customers = append(ids, sub.ID), append(customers, sub.Customer)
		clubs = append(clubs, clubOf[sub.Kind])
		status := statusActive
		switch sub.Kind {
		case kindPaused:
			status = statusPaused
		case kindNoStatus:
			status = 0
		}
		statuses = append(statuses, status)
	}
	for _, statement := range []string{
		`INSERT INTO club (id, name, store_sku) SELECT i, 'Club ' || i, 100 + i FROM generate_series(1, 3) i`,
		`INSERT INTO club_status_history (id, club_id, club_status_id, effect_date, create_date)
			SELECT 'club-' || i, i, i, '2020-01-01', '2020-01-01' FROM generate_series(1, 3) i`, // 1 ACTIVE, 2 CLOSED, 3 INACTIVE
	} {
		if _, err := db.Exec(ctx, statement); err != nil {
			return err
		}
	}
	_, err := db.Exec(ctx, `INSERT INTO subscription (id, club_id, customer_store_id, create_date)
		SELECT id, club, customer, '2020-01-01' FROM unnest($1::text[], $2::int[], $3::text[]) AS n(id, club, customer)`, ids, clubs, customers)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date)
		SELECT id, id, status, '2020-01-01', '2020-01-01' FROM unnest($1::text[], $2::int[]) AS n(id, status) WHERE status > 0`, ids, statuses)
	return err
}

// awaitReady returns when each API answers that it, the database and Temporal are
// well.
func (s *site) awaitReady(ctx context.Context) error {
	for _, url := range s.apis {
		err := until(ctx, ready, func(ctx context.Context) error {
			var state struct{ Temporal string }
			if err := getJSON(ctx, url+"/readyz", &state); err != nil || state.Temporal != "ok" {
				return fmt.Errorf("temporal is %q: %w", state.Temporal, err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", url, err)
		}
	}
	return nil
}

func (s *site) close() {
	s.stop()
	for _, n := range s.nodes {
		<-n.ended
	}
	s.links.close()
	if s.db != nil {
		s.db.Close()
	}
}

// until tries something until it succeeds.
func until(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := try(attempt)
		done()
		if err == nil {
			return nil
		}
		if !wait(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// freePorts finds ports that nobody listens on just now.
func freePorts(ctx context.Context, n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = listener.Close() }() // held until all are found
		address, ok := listener.Addr().(*net.TCPAddr)
		if !ok {
			return nil, errors.New("no TCP address")
		}
		ports[i] = address.Port
	}
	return ports, nil
}
