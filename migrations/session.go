package migrations

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
)

// rawConn is what the connections of both drivers can do.
type rawConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ExecerContext
	driver.QueryerContext
}

// onSession lends conn to fn as a *sql.DB that has no other connection, since
// goose wants a *sql.DB. So the lock, the settings and the work belong to one
// database session, and a pool of one connection is enough. fn must not
// return while it still uses the session.
func onSession(conn *sql.Conn, wrap func(rawConn) driver.Conn, fn func(session *sql.DB) error) error {
	return conn.Raw(func(dc any) error {
		raw, ok := dc.(rawConn)
		if !ok {
			return fmt.Errorf("migrations: the driver's %T cannot run statements with a context", dc)
		}
		session := sql.OpenDB(lender{wrap(raw)})
		session.SetMaxOpenConns(1)
		defer func() { _ = session.Close() }() // closes nothing: see lent.Close
		return fn(session)
	})
}

// lender is a driver.Connector that hands out one connection over and over.
type lender struct{ conn driver.Conn }

func (l lender) Connect(context.Context) (driver.Conn, error) { return l.conn, nil }
func (l lender) Driver() driver.Driver                        { return nil }

// lent is a connection that its borrower cannot close.
type lent struct{ rawConn }

func lend(raw rawConn) driver.Conn { return lent{raw} }

func (lent) Close() error { return nil }

// CheckNamedValue leaves arguments to the driver, as database/sql would.
func (c lent) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.rawConn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// enclosed is a lent connection on which a transaction is open already, by a
// BEGIN of ours. The borrower's transactions are parts of that one: if one of
// them is rolled back, its caller fails, and then all is rolled back.
type enclosed struct{ lent }

func lendEnclosed(raw rawConn) driver.Conn { return enclosed{lent{raw}} }

func (enclosed) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) { return part{}, nil }

type part struct{}

func (part) Commit() error   { return nil }
func (part) Rollback() error { return nil }
