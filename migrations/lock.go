package migrations

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

const (
	// pollEvery is the pause between two tries to get the lock.
	pollEvery = 100 * time.Millisecond
	// sqliteWait bounds the wait for another writer on SQLite, which cannot be
	// told from one that will never end. On PostgreSQL another Up is waited for
	// as long as it lives: its lock ends with its session.
	sqliteWait = time.Minute
	// unlockWithin bounds the unlock on a session that does not answer any more.
	unlockWithin = 5 * time.Second
)

// exclusivelyOnPostgres runs fn on a session of its own that holds the advisory
// lock of this schema. The session is not given back to the pool afterwards:
// its settings, and the lock if the unlock fails, end with it.
func exclusivelyOnPostgres(ctx context.Context, db *sql.DB, fn func(session *sql.DB) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // dropped already, unless Raw failed
	var failure error
	err = onSession(conn, lend, func(session *sql.DB) error {
		failure = lockedOnPostgres(ctx, session, fn)
		return driver.ErrBadConn // makes the pool drop the connection
	})
	if errors.Is(err, driver.ErrBadConn) {
		return failure
	}
	return err
}

func lockedOnPostgres(ctx context.Context, session *sql.DB, fn func(session *sql.DB) error) error {
	if err := prepareSession(ctx, session); err != nil {
		return err
	}
	err := poll(ctx, func() (locked bool, err error) {
		err = session.QueryRowContext(ctx, `SELECT pg_try_advisory_lock(
			hashtextextended('drayman migrate ' || current_schema(), 0))`).Scan(&locked)
		return locked, err
	})
	if err != nil {
		return fmt.Errorf("waiting for another migration to end: %w", err)
	}
	defer func() {
		// Also waits for a rollback that database/sql does in the background
		// after ctx is done: there is one connection only.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockWithin)
		defer cancel()
		_, _ = session.ExecContext(ctx, "SELECT pg_advisory_unlock_all()") // if not now, with the session's end
	}()
	return fn(session)
}

// prepareSession limits names to the current schema, makes goose's timestamps UTC, and
// bounds the wait for locks, unless the connection has a bound. A statement has no time
// limit, since an index may take long.
func prepareSession(ctx context.Context, session *sql.DB) error {
	var schema sql.NullString
	if err := session.QueryRowContext(ctx, "SELECT current_schema()").Scan(&schema); err != nil {
		return err
	}
	if !schema.Valid {
		return errors.New("the connection's search_path names no schema that exists")
	}
	_, err := session.ExecContext(ctx, `SELECT set_config('search_path', quote_ident(current_schema()), false);
		SELECT set_config(name, '0', false) FROM pg_settings
			WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_session_timeout');
		SELECT set_config('lock_timeout', '1min', false) WHERE current_setting('lock_timeout') = '0';
		SET TIME ZONE 'UTC'`)
	return err
}

// A step in a transaction waits this long at a time for a table's lock, and then lets
// those pass that have queued up behind it.
const (
	lockWait  = time.Second
	lockPause = time.Second
)

// givingWay runs a step in a transaction. An ALTER TABLE that waits for a long
// transaction holds up everyone who uses the table after it, requests and orders too.
// So it gives up early, and tries again for as long as lock_timeout says. A concurrent
// build of an index holds up nobody.
func givingWay(ctx context.Context, session *sql.DB, step func() error) error {
	var patience int64 // milliseconds, as all of pg_settings for this parameter
	err := session.QueryRowContext(ctx, "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'").Scan(&patience)
	if err != nil {
		return err
	}
	setTimeout := func(ctx context.Context, ms int64) error {
		_, err := session.ExecContext(ctx, "SELECT set_config('lock_timeout', $1, false)", fmt.Sprint(ms))
		return err
	}
	deadline := time.Now().Add(time.Duration(patience) * time.Millisecond)
	if err := setTimeout(ctx, min(patience, lockWait.Milliseconds())); err != nil {
		return err
	}
	for {
		err := step()
		if !isLockTimeout(err) || time.Now().After(deadline) {
			// If this fails the session is gone, and the next step says so.
			_ = setTimeout(context.WithoutCancel(ctx), patience)
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockPause):
		}
	}
}

// isLockTimeout reports whether a wait for a lock was given up.
func isLockTimeout(err error) bool {
	const lockNotAvailable = "55P03"
	var state interface{ SQLState() string }
	return errors.As(err, &state) && state.SQLState() == lockNotAvailable
}

// explainLockTimeout adds to an error of lock_timeout who was in the way.
func explainLockTimeout(ctx context.Context, session *sql.DB, err error) error {
	if !isLockTimeout(err) {
		return err
	}
	oldest, _ := queryLines(ctx, session, `SELECT format(' (the oldest: pid %s, %s, open since %s UTC)',
			pid, application_name, date_trunc('second', xact_start))
		FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
		ORDER BY xact_start LIMIT 1`) // an error here only leaves the hint out
	return fmt.Errorf("another session's open transaction is in the way%s; "+
		"end it, then run `drayman migrate up` again, which goes on where it stopped: %w", append(oldest, "")[0], err)
}

// exclusivelyOnSQLite runs fn in one immediate transaction, which is SQLite's
// lock on the whole database.
func exclusivelyOnSQLite(ctx context.Context, db *sql.DB, fn func(session *sql.DB) error) error {
	var conn *sql.Conn
	// To open the file is to set its journal mode, for which SQLite does not wait
	// by itself while another process does the same to a new file.
	if err := waitBusy(ctx, func(ctx context.Context) (err error) {
		conn, err = db.Conn(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer func() { _ = conn.Close() }() // it only goes back to the pool
	return onSession(conn, lendEnclosed, func(session *sql.DB) error {
		return inImmediateTransaction(ctx, session, fn)
	})
}

func inImmediateTransaction(ctx context.Context, session *sql.DB, fn func(session *sql.DB) error) error {
	if err := waitBusy(ctx, execute(session, "BEGIN IMMEDIATE")); err != nil {
		return fmt.Errorf("waiting for the write lock: %w", err)
	}
	err := fn(session)
	if err == nil {
		err = waitBusy(ctx, execute(session, "COMMIT")) // waits for readers, without WAL
	}
	if err != nil {
		_, _ = session.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // none is open after some failures
	}
	return err
}

func execute(session *sql.DB, statement string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := session.ExecContext(ctx, statement)
		return err
	}
}

// waitBusy tries again while another connection holds the lock. It does not rely on the
// connection's busy_timeout, which may be 0.
func waitBusy(ctx context.Context, try func(ctx context.Context) error) error {
	const busy = 5 // SQLITE_BUSY
	ctx, cancel := context.WithTimeoutCause(ctx, sqliteWait,
		fmt.Errorf("another program has kept the database locked for %s", sqliteWait))
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		err := try(ctx)
		var code interface{ Code() int }
		if errors.As(err, &code) && code.Code()&0xff == busy {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// poll calls try until it says true, fails, or ctx is done.
func poll(ctx context.Context, try func() (bool, error)) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if done, err := try(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
