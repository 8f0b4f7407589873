package main

import (
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// query runs one statement and returns the single text it yields.
func query(t *testing.T, url, statement string) string {
	t.Helper()
	connection, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = connection.Close(t.Context()) }()
	var answer string
	require.NoError(t, connection.QueryRow(t.Context(), statement).Scan(&answer))
	return answer
}

// change runs one statement that yields nothing.
func change(t *testing.T, url, statement string) {
	t.Helper()
	connection, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = connection.Close(t.Context()) }()
	_, err = connection.Exec(t.Context(), statement)
	require.NoError(t, err)
}

func TestPostgresForTests(t *testing.T) {
	t.Parallel()
	dir, err := makeTempDir()
	require.NoError(t, err)
	s := surroundings{dir: dir}
	t.Cleanup(func() { s.stop() })

	s.postgres, err = startPostgres(t.Context(), postgresOptions{Dir: dir})

	require.NoError(t, err)
	url := s.postgres.URL
	require.Regexp(t, `^postgres://postgres@127\.0\.0\.1:\d+/postgres\?`, url)
	require.Equal(t, "200", query(t, url, "SHOW max_connections"))
	require.Equal(t, "off", query(t, url, "SHOW fsync"))
	require.Equal(t, "UTF8", query(t, url, "SHOW server_encoding"))
	require.Equal(t, "on", query(t, url, "SHOW is_superuser"))
	require.Equal(t, "127.0.0.1", query(t, url, "SHOW listen_addresses"))
	s.stop()
	require.NoDirExists(t, dir)
	_, err = pgx.Connect(t.Context(), url)
	require.Error(t, err, "it has stopped")
}

func TestPostgresKeepsStateOverKillAndInterrupt(t *testing.T) {
	t.Parallel()
	dir, err := makeTempDir()
	require.NoError(t, err)
	t.Cleanup((&surroundings{dir: dir}).stop)
	port, err := freePort(loopbackIP)
	require.NoError(t, err)
	start := func() (*devProgram, string) {
		p := startProgram(t, "postgres", "--port", strconv.Itoa(port), "--data", dir)
		p.awaitOutput(t, "PostgreSQL  postgres://")
		return p, regexp.MustCompile(`postgres://\S+`).FindString(p.out.String())
	}
	server, url := start()
	change(t, url, "CREATE TABLE kept AS SELECT 'yes' AS answer")

	server.end(t, syscall.SIGKILL)
	server, url = start()

	require.Equal(t, "yes", query(t, url, "SELECT answer FROM kept"))
	require.Equal(t, "on", query(t, url, "SHOW fsync"))
	require.Zero(t, server.end(t, syscall.SIGINT), server.out.String())
	server, url = start()
	require.Equal(t, "yes", query(t, url, "SELECT answer FROM kept"))
	require.Zero(t, server.end(t, syscall.SIGTERM), server.out.String())
}

func TestNewestPostgresFirst(t *testing.T) {
	t.Parallel()

	sorted := newestFirst([]string{
		"/usr/lib/postgresql/9.6/bin", "/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/10/bin", "/usr/lib/postgresql/9.4/bin",
	})

	require.Equal(t, []string{
		"/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/10/bin", "/usr/lib/postgresql/9.6/bin", "/usr/lib/postgresql/9.4/bin",
	}, sorted)
}
