package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// restartPause is the wait before a node that has ended is started again, where
// its end was not planned: as a supervisor would.
const restartPause = 300 * time.Millisecond

// node is a process that is started again whenever it ends.
type node struct {
	name string
	path string
	args []string
	env  []string
	log  *os.File
	// victim returns the process to be killed; nil: the node's own.
	victim func() (pid int, ok bool)

	mu      sync.Mutex
	process *os.Process // nil while it is down
	down    time.Duration
	deed    func() // before the next start
	starts  int
	ended   chan struct{}
}

// keep starts the node and keeps it up until the context ends; then it ends it by
// SIGTERM. The process dies with us.
func keep(ctx context.Context, dir, name, path string, env []string, args ...string) (*node, error) {
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	n := &node{name: name, path: path, args: args, env: env, log: log, down: restartPause, ended: make(chan struct{})}
	go n.run(ctx)
	return n, nil
}

func (n *node) run(ctx context.Context) {
	// The kernel takes the end of the thread that started a process for the end of
	// its parent (PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(n.ended)
	defer func() { _ = n.log.Close() }()
	for ctx.Err() == nil {
		err := n.once(ctx)
		n.mu.Lock()
		pause := n.down
		n.down = restartPause
		n.mu.Unlock()
		fmt.Fprintf(n.log, "chaos: ended: %v; up again in %s\n", err, pause)
		wait(ctx, pause)
		n.act()
	}
}

// act carries out what is to happen while the process is down.
func (n *node) act() {
	n.mu.Lock()
	deed := n.deed
	n.deed = nil
	n.mu.Unlock()
	if deed != nil {
		deed()
	}
}

// replace kills the process and carries out the deed before it is started again.
func (n *node) replace(ctx context.Context, down time.Duration, deed func() error) error {
	done := make(chan error, 1)
	n.mu.Lock()
	n.deed = func() { done <- deed() }
	n.mu.Unlock()
	if !n.kill(ctx, down) {
		return fmt.Errorf("%s was not there to be replaced", n.name)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once runs the process to its end.
func (n *node) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, n.path, n.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = n.env, n.log, n.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	n.mu.Lock()
	n.process, n.starts = cmd.Process, n.starts+1
	n.mu.Unlock()
	err := cmd.Wait()
	n.mu.Lock()
	n.process = nil
	n.mu.Unlock()
	return err
}

// kill sends SIGKILL, and keeps the node down for the given time. It waits a moment for
// one that is down already, and reports whether it has killed anything.
func (n *node) kill(ctx context.Context, down time.Duration) bool {
	for range 30 {
		if n.tryKill(down) {
			return true
		}
		if !wait(ctx, 100*time.Millisecond) {
			return false
		}
	}
	return false
}

func (n *node) tryKill(down time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return false
	}
	pid := n.process.Pid
	if n.victim != nil {
		child, ok := n.victim()
		if !ok || parentOf(child) != pid { // the file of the one before
			return false
		}
		pid = child
	}
	n.down = max(down, time.Millisecond)
	return syscall.Kill(pid, syscall.SIGKILL) == nil
}

// parentOf reads a process's parent; 0 where there is none.
func parentOf(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nPPid:")
	line, _, _ := strings.Cut(rest, "\n")
	parent, _ := strconv.Atoi(strings.TrimSpace(line)) // 0 where it is no number
	return parent
}

// wait returns after d, or false when the context ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
