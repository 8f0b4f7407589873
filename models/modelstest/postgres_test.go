package modelstest

import (
	"os"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// The tests of another package drop a template whose lock is free, and a
// connection that the garbage collector closes frees its locks.
func TestTheTemplateOutlivesACollection(t *testing.T) {
	t.Parallel()
	Postgres(t)
	template, err := template()
	require.NoError(t, err)
	// Advisory locks are local to a database: ask where the maker asked.
	other, err := pgx.Connect(t.Context(), os.Getenv("TEST_DATABASE_URL"))
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close(t.Context())) }()

	for range 10 {
		runtime.GC() // the first finds what is unreachable; its finalizers run beside the rest
		var free bool
		require.NoError(t, other.QueryRow(t.Context(), "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", template.name).Scan(&free))
		require.False(t, free)
	}
}
