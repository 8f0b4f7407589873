package main

import (
	"os/exec"
	"syscall"
)

// endWithUs has the kernel send the signal to the process when we end.
func endWithUs(cmd *exec.Cmd, onDeath syscall.Signal) {
	systemAttributes(cmd).Pdeathsig = onDeath
}
