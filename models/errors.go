package models

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"drayman/billing"
)

// IsUnavailable reports whether the error means that the database cannot serve
// the request now, though nothing may be wrong with the request: the database is out
// of reach, shutting down or out of room, or the wait for another transaction's lock
// has ended. Trying again later helps.
func IsUnavailable(err error) bool {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error
	var lite *sqlite.Error
	switch {
	case errors.As(err, &pg):
		// Classes of Appendix A of the PostgreSQL manual: connection exceptions,
		// transaction rollbacks, resources, locks, an operator's intervention.
		// 3D000: the database is not there while one takes its place.
		class := pg.Code[:min(2, len(pg.Code))]
		return strings.Contains("08 40 53 55 57", class) || pg.Code == "3D000"
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

// finally gives the code database_refused to an error that trying again does not fix:
// PostgreSQL's classes 22, data exceptions, and 23, integrity constraints, and their
// like on SQLite. It returns any other error as it is.
func finally(err error) error {
	var pg *pgconn.PgError
	var lite *sqlite.Error
	refused := errors.Is(err, gorm.ErrDuplicatedKey) || errors.Is(err, gorm.ErrCheckConstraintViolated) || errors.Is(err, gorm.ErrForeignKeyViolated)
	switch {
	case errors.As(err, &pg):
		refused = strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23")
	case errors.As(err, &lite):
		code := lite.Code() & 0xff
		refused = code == sqlite3.SQLITE_CONSTRAINT || code == sqlite3.SQLITE_MISMATCH || code == sqlite3.SQLITE_TOOBIG
	}
	if !refused {
		return err
	}
	return billing.Errorf(billing.CodeDatabaseRefused, "the database does not take the charge, and trying again is of no use: %v", err)
}
