//go:build unix

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEnvGivesTheCommandItsServers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()

	p := startProgram(t, "env", "--", "sh", "-c",
		`echo "database $TEST_DATABASE_URL"; echo "temporal $TEST_TEMPORAL_ADDRESS"; echo "dev $TEST_DRAYMAN_DEV"; echo "arg $1" --flag; touch "$0"`,
		filepath.Join(dir, "ran"), "--help")
	code := p.awaitExit(t)

	require.Zero(t, code, p.out.String())
	require.Regexp(t, `(?m)^database postgres://postgres@127\.0\.0\.1:\d+/postgres\?`, p.out.String())
	require.Regexp(t, `(?m)^temporal 127\.0\.0\.1:\d+$`, p.out.String())
	require.Regexp(t, `(?m)^dev /.+`, p.out.String())
	require.Contains(t, p.out.String(), "arg --help --flag\n")
	require.FileExists(t, filepath.Join(dir, "ran"))
}

func TestEnvPassesOnExitCodesAndServers(t *testing.T) {
	t.Parallel()
	environment := func(name string) string {
		return map[string]string{"TEST_DATABASE_URL": "theirs", "TEST_TEMPORAL_ADDRESS": "theirs"}[name]
	}

	for script, expected := range map[string]int{
		"exit 0":         0,
		"exit 7":         7,
		"kill -KILL $$":  128 + int(syscall.SIGKILL),
		"exit 3 --flag ": 3,
	} {
		var out, complaints output
		code := run(t.Context(), []string{"env", "--", "sh", "-c", script}, environment, &out, &complaints)

		require.Equal(t, expected, code, script)
		require.Empty(t, complaints.String(), script)
	}
	var out, complaints output
	require.Equal(t, 1, run(t.Context(), []string{"env", "--", "no-such-command"}, environment, &out, &complaints))
	require.Contains(t, complaints.String(), "no-such-command")
}

// startEnv starts env with a shell script that says "ready" at some point, and
// waits for that. It also returns the directory in which env has its temporary
// one, which the script knows as $0.
func startEnv(t *testing.T, script string) (p *devProgram, temp string) {
	t.Helper()
	temp, err := makeTempDir()
	require.NoError(t, err)
	t.Cleanup(func() {
		// A killed env leaves a PostgreSQL that is about to end and writes on.
		require.Eventually(t, func() bool { return os.RemoveAll(temp) == nil }, patience, 50*time.Millisecond)
	})
	p = startProgramWith(t, []string{"TMPDIR=" + temp}, "env", "--", "sh", "-c", script, temp)
	p.awaitOutput(t, "ready")
	return p, temp
}

// withChildren is a script that starts another program. It prints the process
// ids of the two and of PostgreSQL.
const withChildren = `
	sleep 600 &
	echo "$$ $! $(head -n 1 "$0"/drayman-env-*/postgres/data/postmaster.pid) ready"
	wait`

// processes reads what withChildren has printed.
func processes(t *testing.T, p *devProgram) (pids []int) {
	t.Helper()
	for _, field := range strings.Fields(p.out.String())[:3] {
		pid, err := strconv.Atoi(field)
		require.NoError(t, err)
		require.True(t, alive(pid))
		pids = append(pids, pid)
	}
	return pids
}

func TestEnvInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	p, temp := startEnv(t, withChildren)
	pids := processes(t, p)

	code := p.end(t, syscall.SIGINT)

	require.NotZero(t, code)
	require.NotContains(t, p.out.String(), "goroutine")
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
	for _, pid := range pids {
		requireGone(t, pid)
	}
}

func TestSecondInterruptEndsAtOnce(t *testing.T) {
	t.Parallel()
	p, _ := startEnv(t, `trap "echo not yet" INT; echo ready; while :; do sleep 1; done`)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	p.awaitOutput(t, "not yet")

	begin := time.Now()
	code := p.end(t, syscall.SIGINT)

	require.Equal(t, interrupted, code)
	require.Less(t, time.Since(begin), commandPatience)
}

func TestEnvKilledLeavesNoServers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends the children of a killed process")
	}
	t.Parallel()
	p, _ := startEnv(t, withChildren)
	pids := processes(t, p)
	t.Cleanup(func() { _ = syscall.Kill(pids[1], syscall.SIGKILL) })

	p.end(t, syscall.SIGKILL)

	requireGone(t, pids[0])
	requireGone(t, pids[2])
}

// requireGone waits until the process has ended.
func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		// A process whose parent has died stays as a zombie where nobody collects it.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return !alive(pid) || err == nil && strings.Contains(string(stat), ") Z ")
	}, patience, 10*time.Millisecond)
}
