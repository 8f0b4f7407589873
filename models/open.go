package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/libtnb/sqlite"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Dialect names a kind of database.
type Dialect string

// The databases that Drayman runs on.
const (
	Postgres Dialect = "postgres"
	SQLite   Dialect = "sqlite"
)

// Pool sizes, in connections. A page of a billing run holds one for its claim
// and its settle only, never while it talks to the shop.
const (
	postgresConnections      = 32
	sqliteReadingConnections = 8
)

// Store reads and writes the database. It is safe for concurrent use and keeps
// no state of its own.
type Store struct {
	dialect Dialect
	read    *gorm.DB
	write   *gorm.DB // the same as read, except on SQLite: one connection
	clock   func() time.Time
	name    string // of the installation
}

// Options of a Store.
type Options struct {
	// Installation is the name under which this process charges (INSTALLATION).
	Installation string
	// Clock replaces the database's clock, for tests. UTC or not.
	Clock  func() time.Time
	Logger *slog.Logger
}

// Open connects to "postgres://…" or "sqlite:PATH". The error never shows the
// password. Open does not look at the schema: see package migrations.
func Open(ctx context.Context, databaseURL string, opts Options) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	store := &Store{clock: opts.Clock, name: opts.Installation}
	var err error
	switch scheme, rest, _ := strings.Cut(databaseURL, ":"); scheme {
	case "postgres", "postgresql":
		err = store.openPostgres(databaseURL, opts.Logger)
	case "sqlite":
		err = store.openSQLite(rest, opts.Logger)
	default:
		err = errors.New("it must begin with postgres:// or sqlite: and no other scheme")
	}
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	if err := store.reach(ctx); err != nil {
		store.Close()
		return nil, fmt.Errorf("DATABASE_URL: cannot reach the database: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	return store, nil
}

// openPatience bounds the tries to open a SQLite file. Turning it to WAL needs
// the file alone for a moment, and SQLite does not wait for that.
const openPatience = 5 * time.Second

// reach makes the first connection.
func (s *Store) reach(ctx context.Context) error {
	deadline := time.Now().Add(openPatience)
	for {
		err := s.Ping(ctx)
		if s.dialect != SQLite || !IsUnavailable(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Store) openPostgres(databaseURL string, log *slog.Logger) error {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		// pgx quotes the URL in its error, with the password masked in most but
		// not all of its forms.
		return errors.New("it is no valid PostgreSQL URL, such as postgres://user:password@host:5432/database")
	}
	for name, value := range map[string]string{
		"application_name": "drayman",
		// The planner expects a status subquery to cost much more than it does,
		// and would compile a page's query for longer than it runs (7 ms, 336 ms
		// with JIT).
		"jit": "off",
	} {
		if config.RuntimeParams[name] == "" {
			config.RuntimeParams[name] = value
		}
	}
	// Whatever the URL, PGCLIENTENCODING or the role says: Go's texts are UTF-8.
	config.RuntimeParams["client_encoding"] = "UTF8"
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(postgresConnections)
	pool.SetMaxIdleConns(postgresConnections)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), gormConfig(log))
	s.dialect, s.read, s.write = Postgres, db, db
	return err
}

func (s *Store) openSQLite(path string, log *slog.Logger) error {
	if path == "" || strings.Contains(path, ":memory:") {
		return errors.New("sqlite: needs the path of a file, such as sqlite:var/drayman.db")
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_txlock=immediate" +
		"&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"
	open := func(connections int) (*gorm.DB, error) {
		pool, err := sql.Open("sqlite", dsn)
		if err != nil {
			return nil, err
		}
		pool.SetMaxOpenConns(connections)
		pool.SetMaxIdleConns(connections)
		return gorm.Open(sqlite.New(sqlite.Config{Conn: pool}), gormConfig(log))
	}
	var err error
	s.dialect = SQLite
	if s.write, err = open(1); err != nil {
		return err
	}
	s.read, err = open(sqliteReadingConnections)
	return err
}

func gormConfig(log *slog.Logger) *gorm.Config {
	return &gorm.Config{
		// A statement is a transaction already, and pgx caches statements itself;
		// GORM's cache grows without bound.
		SkipDefaultTransaction: true,
		PrepareStmt:            false,
		// Columns by name, no "SELECT *": if a newer version's migration adds a column,
		// PostgreSQL refuses a prepared statement whose result would change.
		QueryFields:          true,
		TranslateError:       true,
		DisableAutomaticPing: true,
		Logger: logger.NewSlogLogger(log, logger.Config{
			LogLevel: logger.Silent, // an error is returned, and logged once, at the edge
		}),
	}
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	return s.read.WithContext(ctx).Exec("SELECT 1").Error
}

// Close gives the connections back.
func (s *Store) Close() {
	for _, db := range []*gorm.DB{s.read, s.write} {
		if db == nil {
			continue
		}
		if pool, err := db.DB(); err == nil {
			_ = pool.Close() // nothing is open in it; the error helps nobody
		}
	}
}

// Dialect returns what kind of database it is.
func (s *Store) Dialect() Dialect { return s.dialect }

// WritingPool returns the connections that write, for migrations.
func (s *Store) WritingPool() (*sql.DB, error) { return s.write.DB() }

// ReadingPool returns the connections that read, for checks of the schema.
func (s *Store) ReadingPool() (*sql.DB, error) { return s.read.DB() }

// Now returns the time by the clock that all processes share, UTC, in
// microseconds.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	return s.now(s.read.WithContext(ctx))
}

func (s *Store) now(tx *gorm.DB) (time.Time, error) {
	switch {
	case s.clock != nil:
		return s.clock().UTC().Truncate(time.Microsecond), nil
	case s.dialect == SQLite:
		return time.Now().UTC().Truncate(time.Microsecond), nil
	}
	var now timestamp
	// Not now(): that is the time when the transaction began, before it waited
	// for its lock.
	if err := tx.Raw("SELECT clock_timestamp() AT TIME ZONE 'UTC'").Row().Scan(&now); err != nil {
		return time.Time{}, fmt.Errorf("reading the database's clock: %w", err)
	}
	return now.Time, nil
}

// inTransaction runs fn in one transaction; on SQLite in an immediate one, alone.
// On PostgreSQL each statement must see what was committed while the one before
// it waited for a lock, also if the database's default is a stricter level.
func (s *Store) inTransaction(ctx context.Context, fn func(tx *gorm.DB) error) error {
	if s.dialect == SQLite {
		return s.write.WithContext(ctx).Transaction(fn)
	}
	return s.write.WithContext(ctx).Transaction(fn, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
}
