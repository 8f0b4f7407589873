package main

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// child is a process of ours.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
}

// startChild starts cmd such that it ends when we do, with the signal onDeath,
// even if we are killed (see endWithUs). Linux takes the end of the *thread* that
// started a process for the end of its parent. Hence the goroutine which starts
// it keeps its thread until the process has ended.
func startChild(cmd *exec.Cmd, onDeath syscall.Signal) (*child, error) {
	endWithUs(cmd, onDeath)
	c := &child{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(c.ended)
		}
	}()
	return c, <-started
}

// stop sends the signals one after the other, each if the process has not ended
// within patience after the one before, and at last kills it.
func (c *child) stop(patience time.Duration, signals ...os.Signal) {
	for _, s := range append(signals, os.Kill) {
		_ = c.cmd.Process.Signal(s)
		select {
		case <-c.ended:
			return
		case <-time.After(patience):
		}
	}
}

// exitCode is the code the process has ended with, or 128 plus the number of
// the signal that has killed it, as shells have it.
func (c *child) exitCode() int {
	state := c.cmd.ProcessState
	if state == nil {
		return -1
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
