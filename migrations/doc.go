// Package migrations owns the database schema: numbered SQL steps, one folder a
// dialect, the same numbers in both, applied by goose; and the take-over of a
// database that the Python version made through Alembic.
//
// # Terms
//
//   - Step: one file, such as postgres/00002_charge.sql. Its number is a version.
//   - Baseline: step 1, the six approved tables. No later step changes them, but
//     for indexes that are not unique, named drayman_….
//   - Version table: drayman_migration, goose's own, under a name of ours so that
//     another program that uses goose in the same schema is not mistaken for us.
//   - Take-over: step 1 is recorded as applied, and not run, if the tables are
//     there already, exactly as the baseline has them, and alembic_version holds
//     the one known head. Anything else is a [Refusal], before anything is written.
//
// # Invariants
//
//   - Steps are append-only: a published step is never edited. There are no down
//     steps. Going back would drop the ledger, the only proof of who has been
//     charged; an older program runs on a newer schema ([Check] allows it), so
//     that a rollback of the program needs no rollback of the schema.
//   - So a later step must not break the program before it: add, fill, and only
//     a release later take away.
//   - [Up] runs alone. On PostgreSQL under an advisory lock of the database
//     session that does all of the work, so that lock and work end together; it
//     makes goose's own session locker needless. On SQLite in one immediate
//     transaction around all steps. A second Up waits, then finds nothing to do.
//   - Up waits by polling. A session blocked in pg_advisory_lock would hold a
//     snapshot, for which CREATE INDEX CONCURRENTLY waits: a deadlock.
//   - [Up] disturbs nobody: indexes on approved tables are built CONCURRENTLY, one
//     a step, each after dropping what an interrupted build has left behind. Such
//     a build waits for the open transactions of others, for at most lock_timeout:
//     the connection's own (&lock_timeout=10min in the URL), or else one minute.
//   - A step in a transaction, which may need a table for itself, waits for it one
//     second at a time, and lets others pass in between: see givingWay.
//   - All happens in the connection's current_schema(), whatever its name.
//   - [Status] and [Check] write nothing.
//   - The database's encoding is UTF-8: [Up], [Status] and [Check] refuse any other.
//
// PostgreSQL must be reached directly or through a pooler in session mode: an
// advisory lock means nothing if each statement may go to another session.
//
// # Adding a step
//
// Add the next number, under the same name, to both folders. An index on a table
// in use gets a step of its own with "-- +goose NO TRANSACTION", DROP INDEX
// CONCURRENTLY IF EXISTS, CREATE INDEX CONCURRENTLY on PostgreSQL, and none of
// that on SQLite: there the steps must stay in their transaction.
//
// The package opens no database and reads no environment. It imports goose and
// the standard library, no driver, and nothing of ours.
package migrations
