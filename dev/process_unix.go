//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// systemAttributes returns cmd's attributes for changing.
func systemAttributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}

// useOwnGroup puts the process into a process group of its own, so that a Ctrl-C
// in the terminal reaches only us.
func useOwnGroup(cmd *exec.Cmd) { systemAttributes(cmd).Setpgid = true }

// useAccount runs the process as another user.
func useAccount(cmd *exec.Cmd, a *account) {
	systemAttributes(cmd).Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
}

// signalGroup sends the signal to all processes of the group that the process
// leads.
func signalGroup(leader *os.Process, s syscall.Signal) error {
	return syscall.Kill(-leader.Pid, s)
}

// alive says whether a process with this id exists.
func alive(pid int) bool {
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// lockDirectory makes dir if need be, and fails if another process has locked
// it. Closing the file unlocks it, and so does the end of the process.
func lockDirectory(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is in use by another drayman-dev; choose another directory with --data", dir)
	}
	return nil, fmt.Errorf("lock the data directory: %w", err)
}
