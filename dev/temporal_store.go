package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	temporalNamespace = "default"

	// namespaceRetention is how long closed workflows are kept: the longest two
	// months there are. Temporal's own default for development is one day.
	namespaceRetention = 62 * 24 * time.Hour

	// schemaVersion names the schema that this Temporal server expects.
	schemaVersion = sqliteschema.Version + "/" + sqliteschema.VisibilityVersion
)

// openTemporalStore makes the database ready, with its schema and the namespace,
// and says how the server reaches it. An empty dir means in memory.
func openTemporalStore(ctx context.Context, dir string) (*config.SQL, error) {
	store := memoryStore()
	if dir != "" {
		file := filepath.Join(dir, "temporal.db")
		if err := makeSchema(ctx, file); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", file, err)
		}
		store = fileStore(file)
	}
	namespace, err := sqliteschema.NewNamespaceConfig(clusterName, temporalNamespace, false, nil)
	if err != nil {
		return nil, fmt.Errorf("describe the Temporal namespace: %w", err)
	}
	namespace.Detail.Config.Retention = durationpb.New(namespaceRetention)
	if err := sqliteschema.CreateNamespaces(store, namespace); err != nil {
		return nil, fmt.Errorf("create the Temporal namespace: %w", err)
	}
	return store, nil
}

var memoryStores atomic.Int64

// memoryStore is a database of its own within this process. Temporal's plugin
// makes the schema of one in memory by itself.
func memoryStore() *config.SQL {
	return &config.SQL{
		PluginName:        sqliteplugin.PluginName,
		DatabaseName:      fmt.Sprintf("temporal-%d", memoryStores.Add(1)),
		ConnectAttributes: map[string]string{"mode": "memory", "cache": "shared"},
	}
}

// fileStore has a write-ahead log with synchronous=normal: no fsync for each
// commit, which makes it several times faster. A killed process loses nothing, a
// machine that loses power may lose the last commits, never the whole.
func fileStore(file string) *config.SQL {
	return &config.SQL{
		PluginName:   sqliteplugin.PluginName,
		DatabaseName: (&url.URL{Path: file}).EscapedPath(),
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"journal_mode": "wal",
			"synchronous":  "normal",
			"busy_timeout": "10000", // milliseconds
		},
	}
}

// makeSchema creates the tables, all in one transaction, and notes their version.
// Temporal has no migrations for SQLite, so a file with another version is
// refused.
func makeSchema(ctx context.Context, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?_txlock=immediate")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	found, err := foundSchema(ctx, tx)
	switch {
	case err != nil:
		return err
	case found == schemaVersion:
		return nil
	case found != "":
		return fmt.Errorf("it has schema %s, and this Temporal server needs %s; delete it to start afresh", found, schemaVersion)
	}
	if err := sqliteschema.SetupSchemaOnDB(schemaWriter{ctx: ctx, tx: tx}); err != nil {
		return err
	}
	for _, statement := range []string{
		`CREATE TABLE drayman_dev_schema (version TEXT NOT NULL)`,
		`INSERT INTO drayman_dev_schema (version) VALUES ('` + schemaVersion + `')`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// foundSchema returns the noted version, "" for an empty database, and
// "unknown" for tables that were made by something else.
func foundSchema(ctx context.Context, tx *sql.Tx) (version string, err error) {
	var tables, noted int
	err = tx.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE name = 'drayman_dev_schema')
		FROM sqlite_master WHERE type = 'table'`).Scan(&tables, &noted)
	switch {
	case err != nil:
		return "", err
	case tables == 0:
		return "", nil
	case noted == 0:
		return "unknown", nil
	}
	err = tx.QueryRowContext(ctx, `SELECT version FROM drayman_dev_schema`).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return "unknown", nil
	}
	return version, err
}

// schemaWriter lets Temporal's schema run in a transaction of ours. Of the
// interface, only Exec is called.
type schemaWriter struct {
	sqlplugin.AdminDB
	ctx context.Context
	tx  *sql.Tx
}

// Exec runs one statement of the schema.
func (w schemaWriter) Exec(statement string, args ...any) error {
	_, err := w.tx.ExecContext(w.ctx, statement, args...)
	return err
}
