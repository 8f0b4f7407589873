package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startLimit = time.Minute      // until a process says what it has to say
	stopLimit  = 20 * time.Second // from SIGTERM to SIGKILL
)

// process is a program that runs until the context ends or it is stopped.
type process struct {
	name string
	cmd  *exec.Cmd
	end  context.CancelFunc

	mu     sync.Mutex
	output bytes.Buffer
	exited chan struct{}
}

func start(ctx context.Context, path string, env []string, args ...string) (*process, error) {
	ctx, end := context.WithCancel(ctx)
	p := &process{name: args[0], cmd: exec.CommandContext(ctx, path, args...), end: end, exited: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopLimit
	read, write := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = write, write
	if err := p.cmd.Start(); err != nil {
		end()
		return nil, err
	}
	go p.keep(read)
	go func() {
		_ = p.cmd.Wait() // ended by us, or its output tells why
		_ = write.Close()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) keep(output io.Reader) {
	for lines := bufio.NewScanner(output); lines.Scan(); {
		p.mu.Lock()
		p.output.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, output) // a line too long ends the scan, not the process
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// find waits until the output has a match and returns its group.
func (p *process) find(ctx context.Context, pattern string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	re := regexp.MustCompile(pattern)
	for {
		if found := re.FindStringSubmatch(p.text()); found != nil {
			return found[1], nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("%s: no %q: %w\n%s", p.name, pattern, ctx.Err(), p.lastWords())
		case <-p.exited:
			return "", fmt.Errorf("%s has ended\n%s", p.name, p.lastWords())
		}
	}
}

func (p *process) lastWords() string {
	lines := strings.Split(strings.TrimSpace(p.text()), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

func (p *process) stop() {
	p.end()
	<-p.exited
}
