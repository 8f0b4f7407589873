package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A setback puts the database back to an earlier moment, under running processes and
// with callers and operators who know nothing of it.

// lapse is what a setback has made the database forget: everything that it wrote
// between the two times, and nothing else. From is before the backup began, To after
// the last process of the old database had ended.
type lapse struct {
	Kind string    `json:"kind"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// setBack carries out the setbacks of the plan, and makes the backup for its aftermath.
// They do not end with the context: half of a setback would leave no database.
func (c *campaign) setBack(ctx context.Context, begin time.Time, all *sync.WaitGroup) {
	ctx = context.WithoutCancel(ctx)
	for i, s := range c.plan.Setbacks {
		all.Go(func() {
			if err := c.setback(ctx, begin, i+1, s); err != nil {
				c.fail(err)
			}
		})
	}
	if a := c.plan.Aftermath; a != nil {
		all.Go(func() {
			wait(ctx, time.Until(begin.Add(a.Backup)))
			var err error
			if c.spare, err = c.backUp(ctx, 0, a.Kind); err != nil {
				c.fail(fmt.Errorf("the backup for the final setback: %w", err))
				c.spare = nil
			}
		})
	}
}

func (c *campaign) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed.add("%v", err)
}

// setback takes the backup at its time, and puts it in the database's place later.
func (c *campaign) setback(ctx context.Context, begin time.Time, number int, s setback) error {
	wait(ctx, time.Until(begin.Add(s.Backup)))
	b, err := c.backUp(ctx, number, s.Kind)
	if err != nil {
		return fmt.Errorf("the backup of setback %d: %w", number, err)
	}
	wait(ctx, time.Until(begin.Add(s.At)))
	if err := c.putBack(ctx, b, s); err != nil {
		return fmt.Errorf("setback %d: %w", number, err)
	}
	return nil
}

// backup is a copy of the database or of its cluster.
type backup struct {
	number int
	kind   string
	path   string
	begun  time.Time
}

func (c *campaign) backUp(ctx context.Context, number int, kind string) (*backup, error) {
	c.cluster.Lock()
	defer c.cluster.Unlock()
	if err := c.awaitDatabase(ctx); err != nil {
		return nil, err
	}
	b := &backup{number: number, kind: kind, path: filepath.Join(c.clusterHome(), fmt.Sprint("backup-", number)), begun: time.Now()}
	if kind == setbackDump {
		return b, c.postgresProgram(ctx, "pg_dump", "--format=custom", "--compress=0", "--file="+b.path, "--dbname="+c.url("drayman"))
	}
	return b, c.postgresProgram(ctx, "pg_basebackup", "--pgdata="+b.path, "--checkpoint=fast", "--wal-method=stream", "--no-sync", "--dbname="+c.url(""))
}

// putBack carries the setback out. Nobody resumes a run between looking into the
// shop's book and the database's end (see resume).
func (c *campaign) putBack(ctx context.Context, b *backup, s setback) error {
	c.cluster.Lock()
	defer c.cluster.Unlock()
	if err := c.awaitDatabase(ctx); err != nil {
		return err
	}
	c.desk.Lock()
	forgotten, err := c.exchange(ctx, b, s)
	c.lapses = append(c.lapses, lapse{Kind: b.kind, From: b.begun, To: forgotten})
	c.desk.Unlock()
	if err != nil {
		return err
	}
	if err := c.awaitDatabase(ctx); err != nil {
		return err
	}
	if b.kind != setbackDump { // the seat is the same: no person has to say anything
		return nil
	}
	wait(ctx, s.Adopt)
	return c.adopt(ctx, fmt.Sprintf("restored from backup %d", b.number))
}

// exchange returns the time from which the old database could certainly write no longer.
func (c *campaign) exchange(ctx context.Context, b *backup, s setback) (time.Time, error) {
	if b.kind == setbackDump {
		return c.restoreDump(ctx, b)
	}
	return c.failOver(ctx, b, s.Down)
}

// restoreDump restores into another database, which then gets the name, as
// operations.md says.
func (c *campaign) restoreDump(ctx context.Context, b *backup) (time.Time, error) {
	server, err := pgxpool.New(ctx, c.url("postgres"))
	if err != nil {
		return time.Now(), err
	}
	defer server.Close()
	if _, err := server.Exec(ctx, "CREATE DATABASE restored"); err != nil {
		return time.Now(), err
	}
	if err := c.postgresProgram(ctx, "pg_restore", "--dbname="+c.url("restored"), b.path); err != nil {
		return time.Now(), err
	}
	if _, err := server.Exec(ctx, "DROP DATABASE drayman WITH (FORCE)"); err != nil {
		return time.Now(), err
	}
	forgotten := time.Now()
	_, err = server.Exec(ctx, "ALTER DATABASE restored RENAME TO drayman")
	return forgotten, errors.Join(err, os.Remove(b.path))
}

// failOver ends the server at once and starts another one on the copy of its
// cluster, on the same port: a standby that lacks what came after the copy. Its
// system identifier and the database's oid are the same.
func (c *campaign) failOver(ctx context.Context, b *backup, down time.Duration) (forgotten time.Time, err error) {
	data, err := filepath.EvalSymlinks(filepath.Join(c.clusterHome(), "data")) // as processes' directories are told
	if err != nil {
		return time.Now(), err
	}
	err = c.nodes["postgres"].replace(ctx, down, func() error {
		if err := endProcessesIn(ctx, data); err != nil { // orphaned backends may still commit
			return err
		}
		forgotten = time.Now()
		gone := data + ".gone"
		if err := errors.Join(os.Rename(data, gone), os.Rename(b.path, data)); err != nil {
			return err
		}
		return os.RemoveAll(gone)
	})
	if forgotten.IsZero() {
		forgotten = time.Now()
	}
	return forgotten, err
}

// adopt is a person who says that the restored database charges from now on.
func (c *campaign) adopt(ctx context.Context, note string) error {
	return until(ctx, ready, func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, c.programs.Drayman, "adopt", "--note", note, "--by", resolver)
		cmd.Env = []string{"DATABASE_URL=" + c.url("drayman")}
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("drayman adopt: %w\n%s", err, output)
		}
		return nil
	})
}

// awaitDatabase makes new connections: over an old one, a backend may still answer
// whose server was just killed.
func (c *campaign) awaitDatabase(ctx context.Context) error {
	c.db.Reset()
	return until(ctx, ready, func(ctx context.Context) error {
		if err := c.db.Ping(ctx); err != nil {
			c.db.Reset()
			return err
		}
		return nil
	})
}

func (s *site) clusterHome() string { return filepath.Join(s.dir, "data", "postgres") }

// url leads to a database, past the links.
func (s *site) url(database string) string { return databaseURL(s.database, database) }

// postgresProgram runs a program that lies beside the server's, as the server's
// user: what it writes is the server's.
func (c *campaign) postgresProgram(ctx context.Context, name string, args ...string) error {
	pid, ok := postmaster(c.pidFile())
	if !ok {
		return errors.New("PostgreSQL does not run")
	}
	server, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return err
	}
	home, err := os.Stat(c.clusterHome())
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(server), name), args...)
	cmd.Dir = c.clusterHome()
	if owner, ok := home.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, output)
	}
	return nil
}

// endProcessesIn kills the processes that work in the directory, and returns when
// they have ended.
func endProcessesIn(ctx context.Context, dir string) error {
	return until(ctx, 10*time.Second, func(context.Context) error {
		found, err := processesIn(dir)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, pid := range found {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
		}
		return fmt.Errorf("processes %v still run in %s", found, dir)
	})
}

func processesIn(dir string) (found []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		at, err := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd"))
		if err == nil && strings.TrimSuffix(at, " (deleted)") == dir {
			found = append(found, pid)
		}
	}
	return found, nil
}
