package models

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// IsUnavailable reports whether the error means that the database cannot serve
// the request now, while the request itself may be well: it is out of reach,
// shutting down, out of room, or the wait for another transaction's lock was
// given up. Trying again later helps.
func IsUnavailable(err error) bool {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error
	var lite *sqlite.Error
	switch {
	case errors.As(err, &pg):
		// Classes of Appendix A of the PostgreSQL manual: connection exceptions,
		// transaction rollbacks, resources, locks, an operator's intervention.
		class := pg.Code[:min(2, len(pg.Code))]
		return strings.Contains("08 40 53 55 57", class)
	case errors.As(err, &lite):
		code := lite.Code() & 0xff
		return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
	case errors.As(err, &connect), errors.As(err, &network), pgconn.Timeout(err):
		return true
	}
	for _, target := range []error{context.DeadlineExceeded, ErrClaimRaced, driver.ErrBadConn, io.ErrUnexpectedEOF} {
		if errors.Is(err, target) {
			return true
		}
	}
	return pgconn.SafeToRetry(err)
}
