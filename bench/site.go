package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	shopKey    = "bench-key"
	shopSecret = "bench-secret"
	// connections of the baselines' pool: as many as a worker has.
	connections = 32
	// retention is the shortest that a namespace may have.
	retention = 24 * time.Hour
)

// site is the database, namespace and processes of one round.
type site struct {
	db         *pgxpool.Pool
	temporal   client.Client
	namespace  string
	shop, api  *process
	worker     *process
	shopURL    string
	apiURL     string
	cleanups   []func()
	draymanEnv []string
}

// newSite makes a database with the subscriptions, a namespace, and starts the
// shop. What was made is undone by close, also after an error.
func newSite(ctx context.Context, o options) (*site, error) {
	s := &site{namespace: "bench-" + strings.ToLower(rand.Text())}
	databaseURL, err := s.newDatabase(ctx, o)
	if err != nil {
		return s, fmt.Errorf("making a database: %w", err)
	}
	if err := s.newNamespace(ctx, o); err != nil {
		return s, fmt.Errorf("making a namespace: %w", err)
	}
	if s.shop, err = start(ctx, o.DraymanDev, os.Environ(), "shop", "--addr", "127.0.0.1:0", "--api-key", shopKey, "--api-secret", shopSecret); err != nil {
		return s, err
	}
	s.cleanups = append(s.cleanups, s.shop.stop)
	s.shopURL, err = s.shop.find(ctx, `Shop\s+(http://\S+)`)
	s.draymanEnv = []string{
		"DATABASE_URL=" + databaseURL, "TEMPORAL_ADDRESS=" + o.TemporalAddress, "TEMPORAL_NAMESPACE=" + s.namespace,
		"SHOP_URL=" + s.shopURL, "SHOP_API_KEY=" + shopKey, "SHOP_API_SECRET=" + shopSecret, "HTTP_ADDR=127.0.0.1:0",
	}
	return s, err
}

func (s *site) close() {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
}

func (s *site) newDatabase(ctx context.Context, o options) (string, error) {
	server, err := pgx.Connect(ctx, o.DatabaseURL)
	if err != nil {
		return "", err
	}
	name := "drayman_bench_" + strings.ToLower(rand.Text())
	if _, err := server.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	s.cleanups = append(s.cleanups, func() {
		ctx := context.WithoutCancel(ctx)
		_, _ = server.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)") // the server is one for tests
		_ = server.Close(ctx)
	})
	address, err := url.Parse(o.DatabaseURL)
	if err != nil {
		return "", err
	}
	address.Path = "/" + name
	migrate := exec.CommandContext(ctx, o.Drayman, "migrate", "up")
	migrate.Env = []string{"DATABASE_URL=" + address.String()}
	if output, err := migrate.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, output)
	}
	config, err := pgxpool.ParseConfig(address.String())
	if err != nil {
		return "", err
	}
	config.MaxConns = connections
	if s.db, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return "", err
	}
	s.cleanups = append(s.cleanups, s.db.Close)
	return address.String(), s.fill(ctx, o.Charges, o.Months)
}

// fill makes ten clubs and n subscriptions, all of them active for years, with
// ids as long as UUIDs. The statistics are up to date, as they are in a database
// that has been in use; those of the ledger only if it has earlier months.
func (s *site) fill(ctx context.Context, n, months int) error {
	for _, statement := range []string{
		`INSERT INTO club (id, name, store_sku) SELECT i, 'Club ' || i, i FROM generate_series(1, 10) i`,
		`INSERT INTO club_status_history (id, club_id, club_status_id, effect_date, create_date)
			SELECT 'club-' || i, i, 1, '2020-01-01', '2020-01-01' FROM generate_series(1, 10) i`,
		fmt.Sprintf(`INSERT INTO subscription (id, club_id, customer_store_id, create_date)
			SELECT md5(i::text)::uuid::text, 1 + i %% 10, 'customer-' || i, '2020-01-01' FROM generate_series(1, %d) i`, n),
		`INSERT INTO subscription_status_history (id, subscription_id, status_id, effect_date, create_date)
			SELECT id, id, 1, '2020-01-01', '2020-01-01' FROM subscription`,
		`VACUUM ANALYZE club, club_status_history, subscription, subscription_status_history`,
	} {
		if _, err := s.db.Exec(ctx, statement); err != nil {
			return err
		}
	}
	for month := range months {
		period := fmt.Sprintf("2020-%02d", month+1)
		if _, err := s.db.Exec(ctx, `INSERT INTO charge (request_id, subscription_id, period, status, owner, attempts, run_id,
				club_id, customer_id, sku_id, shop_order, created_at, settled_at)
			SELECT $1 || '-' || s.id, s.id, $1, 'charged', 'bench', 1, $1 || '/1', s.club_id, s.customer_store_id, s.club_id,
				repeat('x', 150), '2020-01-01', '2020-01-01' FROM subscription s`, period); err != nil {
			return err
		}
	}
	if months == 0 {
		return nil
	}
	_, err := s.db.Exec(ctx, `VACUUM ANALYZE charge`)
	return err
}

func (s *site) newNamespace(ctx context.Context, o options) error {
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: o.TemporalAddress})
	if err != nil {
		return err
	}
	defer namespaces.Close()
	err = namespaces.Register(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: s.namespace, WorkflowExecutionRetentionPeriod: durationpb.New(retention),
	})
	if err != nil {
		return err
	}
	s.temporal, err = client.NewLazyClient(client.Options{HostPort: o.TemporalAddress, Namespace: s.namespace, Logger: silent{}})
	if err == nil {
		s.cleanups = append(s.cleanups, s.temporal.Close)
	}
	return err
}

// silent discards the log.
type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

// startDrayman starts the API and a worker, and waits until both are ready.
func (s *site) startDrayman(ctx context.Context, o options) error {
	var err error
	if s.worker, err = start(ctx, o.Drayman, s.draymanEnv, "worker"); err != nil {
		return err
	}
	s.cleanups = append(s.cleanups, s.worker.stop)
	if s.api, err = start(ctx, o.Drayman, s.draymanEnv, "api"); err != nil {
		return err
	}
	s.cleanups = append(s.cleanups, s.api.stop)
	if s.apiURL, err = s.api.find(ctx, `api serves" url=(\S+)`); err != nil {
		return err
	}
	_, err = s.worker.find(ctx, `(worker polls)`)
	return err
}

// send makes a request and decodes the answer, which must be a 2xx.
func send(ctx context.Context, method, url string, body, into any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it is read
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", method, url, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}
