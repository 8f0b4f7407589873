//go:build !unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// On systems other than Unix, "up", "temporal" and "shop" work. A Ctrl-C reaches
// children by itself there, and no other user is needed for PostgreSQL.

func useOwnGroup(*exec.Cmd) {}

func useAccount(*exec.Cmd, *account) {}

func signalGroup(leader *os.Process, _ syscall.Signal) error { return leader.Kill() }

func alive(int) bool { return false }

// lockDirectory makes dir if need be. It locks nothing here.
func lockDirectory(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, errors.Join(errors.New("lock the data directory"), err)
	}
	return file, nil
}
