// Package models keeps Drayman's rows: the six approved tables, which people
// and other programs change at any time, and the ledger beside them. It is the
// only importer of GORM. GORM carries rows and transactions; eligibility, claims
// and streams are SQL by hand, one text for PostgreSQL and SQLite.
//
// # Invariants
//
//   - Nothing of the approved tables is cached, and none of our tables refers to
//     them with a foreign key: they can be deleted from at any time.
//   - A claim and a status change of one subscription take the same row lock,
//     FOR UPDATE (decision 0004). It also meets the FOR KEY SHARE lock that a foreign key takes
//     for every history row inserted by hand, so that a cancel which has
//     committed before the claim is always seen by it. The transaction is READ
//     COMMITTED whatever the database's default: its statements after the lock
//     must see what was committed while it waited.
//   - A correction takes the same locks, of several subscriptions in the order of
//     their ids, and then those of its charges, so that no two transactions wait for
//     each other.
//   - What a person did to a charge is in the audit, by the same transaction (decision
//     0018).
//   - One clock: the database's (PostgreSQL), since all processes share it (decision
//     0003). A
//     status change and a claim can then not disagree about "now", however far
//     the clocks of two machines are apart. SQLite has the process's clock.
//   - Ids are ordered by bytes (COLLATE "C"), in SQL as in Go.
//   - We write times as text with six decimals, UTC, which PostgreSQL reads as a
//     timestamp and SQLite compares correctly as text. One function, readTime, reads
//     the times that others write, in Go and, as drayman_time, in SQLite's SQL: a
//     list, a claim and an explanation cannot disagree about a row.
//
// # SQLite
//
// The embedded default: WAL, immediate transactions, one writer connection and
// several readers. SQLite cannot write concurrently, and its busy handler is not fair;
// the queue in front of the one connection is. Its columns hold values of any type:
// [Store] reads a value of the wrong type as null, and does not fail for it.
//
// The package imports billing and nothing else of ours.
package models
