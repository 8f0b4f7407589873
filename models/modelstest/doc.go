// Package modelstest gives tests real databases: each test, or each of its
// subtests, gets a fresh and migrated one of its own, PostgreSQL and SQLite.
//
// It is imported by tests only, those of models included.
package modelstest
