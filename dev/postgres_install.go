package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

var errNoPostgres = errors.New("no PostgreSQL found; install PostgreSQL (Debian: apt-get install postgresql) or set TEST_DATABASE_URL")

// findPostgres returns the directory of PostgreSQL's programs. Debian keeps them
// out of the PATH, one directory a version; and its pg_config belongs to another
// package than they do, so it may be absent, or name a directory without them.
func findPostgres(ctx context.Context) (string, error) {
	var candidates []string
	if output, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		candidates = append(candidates, strings.TrimSpace(string(output)))
	}
	if program, err := exec.LookPath("postgres"); err == nil {
		candidates = append(candidates, filepath.Dir(program))
	}
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL: %w", err)
	}
	candidates = append(candidates, newestFirst(installed)...)
	if i := slices.IndexFunc(candidates, hasServer); i >= 0 {
		return candidates[i], nil
	}
	return "", errNoPostgres
}

// hasServer says whether the directory has the programs that we need.
func hasServer(bin string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(bin, program)); err != nil {
			return false
		}
	}
	return true
}

// newestFirst sorts directories like /usr/lib/postgresql/15/bin by the version.
func newestFirst(bins []string) []string {
	version := func(bin string) float64 {
		v, _ := strconv.ParseFloat(filepath.Base(filepath.Dir(bin)), 64) // 9.6, 15
		return v
	}
	return slices.SortedFunc(slices.Values(bins), func(a, b string) int {
		return int(100 * (version(b) - version(a)))
	})
}

// account is a user of this machine.
type account struct{ uid, gid int }

// postgresAccount returns the account that must run PostgreSQL in the directory home,
// and makes it the owner. PostgreSQL refuses root; then it is the user "postgres", which
// the package has made. In all other cases it is our own, and the result is nil.
func postgresAccount(home string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	found, err := user.Lookup("postgres")
	if err != nil {
		return nil, errors.New("PostgreSQL refuses to be run by root, and there is no user postgres to run it; use another user than root, or set TEST_DATABASE_URL")
	}
	uid, err := strconv.Atoi(found.Uid)
	if err != nil {
		return nil, fmt.Errorf("read the id of user postgres: %w", err)
	}
	gid, err := strconv.Atoi(found.Gid)
	if err != nil {
		return nil, fmt.Errorf("read the group of user postgres: %w", err)
	}
	if closed := closedParent(home); closed != "" {
		return nil, fmt.Errorf("user postgres, who runs PostgreSQL for root, cannot enter %s; choose a directory elsewhere, or set TEST_DATABASE_URL", closed)
	}
	return &account{uid, gid}, os.Chown(home, uid, gid)
}

// closedParent returns the topmost directory above dir that other users cannot
// enter, or "".
func closedParent(dir string) string {
	parent := filepath.Dir(dir)
	if parent == dir {
		return ""
	}
	if closed := closedParent(parent); closed != "" {
		return closed
	}
	info, err := os.Stat(parent)
	if err == nil && info.Mode().Perm()&0o001 == 0 {
		return parent
	}
	return ""
}
