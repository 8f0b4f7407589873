package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asProgram, set to anything, makes the test binary behave as drayman-dev. So
// tests can start, interrupt and kill the real program without building it.
const asProgram = "DRAYMAN_DEV_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what should happen soon.
const patience = 30 * time.Second

// devProgram is a drayman-dev in a process of its own.
type devProgram struct {
	cmd    *exec.Cmd
	out    *output
	exited chan struct{}
}

// startProgram starts drayman-dev with the arguments, and kills it at the end of
// the test.
func startProgram(t *testing.T, args ...string) *devProgram {
	t.Helper()
	return startProgramWith(t, nil, args...)
}

// startProgramWith adds variables to its environment.
func startProgramWith(t *testing.T, variables []string, args ...string) *devProgram {
	t.Helper()
	p := &devProgram{
		cmd:    exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...),
		out:    new(output),
		exited: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), asProgram+"=1", "TEST_DATABASE_URL=", "TEST_TEMPORAL_ADDRESS=")
	p.cmd.Env = append(p.cmd.Env, variables...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = time.Second // a grandchild may hold on to the output
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})
	return p
}

// awaitOutput waits until the program has written text.
func (p *devProgram) awaitOutput(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return bytes.Contains([]byte(p.out.String()), []byte(text)) },
		patience, 10*time.Millisecond, "no %q in the output", text)
}

// end sends the signal and returns the exit code.
func (p *devProgram) end(t *testing.T, s syscall.Signal) int {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(s))
	return p.awaitExit(t)
}

// awaitExit returns the exit code, -1 for a killed program.
func (p *devProgram) awaitExit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		require.FailNow(t, "the program did not end", p.out.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// output is a buffer that can be read while it is written.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

// runDev runs drayman-dev in this process, with an empty environment.
func runDev(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, complaints output
	code = run(t.Context(), args, func(string) string { return "" }, &out, &complaints)
	return code, out.String(), complaints.String()
}

func TestHelp(t *testing.T) {
	t.Parallel()

	code, stdout, stderr := runDev(t, "--help")

	require.Zero(t, code)
	require.Empty(t, stderr)
	for _, command := range []string{"up", "temporal", "shop", "postgres", "env"} {
		require.Contains(t, stdout, "\n  "+command)
	}
}

func TestWrongFlag(t *testing.T) {
	t.Parallel()

	code, stdout, stderr := runDev(t, "temporal", "--prot", "1")

	require.Equal(t, 2, code)
	require.Empty(t, stdout)
	require.Regexp(t, `^drayman-dev: unknown flag --prot.*--help.*\n$`, stderr)
}
