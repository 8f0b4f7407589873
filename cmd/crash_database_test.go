package cmd_test

import (
	"bufio"
	"bytes"
	endian "encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// onDatabase puts a proxy before a PostgreSQL server and returns the URL that
// leads through it. It reads the protocol, version 3, in the plain: its points
// are locks, writes, and the commits of those. Nothing lasts but what is
// committed, so after a lock or a write is no point of its own: it is before the
// next step.
func (c *crash) onDatabase(t *testing.T, databaseURL string) string {
	t.Helper()
	address, err := url.Parse(databaseURL)
	require.NoError(t, err)
	server := address.Host
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			worker, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = c.session(worker, server) }() // its end is the connection's
		}
	}()
	address.Host = listener.Addr().String()
	query := address.Query()
	query.Set("sslmode", "disable")
	address.RawQuery = query.Encode()
	return address.String()
}

// pgSession is one connection to the database.
type pgSession struct {
	*crash
	statements map[string]string // SQL by the name that it was prepared under
	bound      string            // SQL that the next Execute runs
	wrote      []string          // what the transaction has locked and written

	mu   sync.Mutex
	open string // the step that the server is about, "": none to count
}

func (c *crash) session(worker net.Conn, server string) error {
	defer func() { _ = worker.Close() }()
	database, err := new(net.Dialer).Dial("tcp", server)
	if err != nil {
		return err
	}
	defer func() { _ = database.Close() }()
	fromWorker := bufio.NewReader(worker)
	if err := passStartup(fromWorker, database); err != nil {
		return err
	}
	s := &pgSession{crash: c, statements: map[string]string{}}
	ended := make(chan error, 2)
	go func() { ended <- s.forward(fromWorker, database) }()
	go func() { ended <- s.back(bufio.NewReader(database), worker) }()
	return <-ended // closes both
}

var errDead = errors.New("the worker is dead")

// passStartup hands on the first message, which has no type.
func passStartup(worker io.Reader, database io.Writer) error {
	message, err := readBody(worker, nil)
	if err != nil {
		return err
	}
	_, err = database.Write(message)
	return err
}

// readMessage reads one message: a byte for its type, four for its length.
func readMessage(r io.Reader) ([]byte, error) {
	kind := make([]byte, 1)
	if _, err := io.ReadFull(r, kind); err != nil {
		return nil, err
	}
	return readBody(r, kind)
}

// readBody reads a length, which counts itself, and as much; it returns all
// after the head.
func readBody(r io.Reader, head []byte) ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(r, length); err != nil {
		return nil, err
	}
	body := make([]byte, endian.BigEndian.Uint32(length)-4)
	_, err := io.ReadFull(r, body)
	return bytes.Join([][]byte{head, length, body}, nil), err
}

// forward hands on what the worker says.
func (s *pgSession) forward(worker io.Reader, database io.Writer) error {
	for {
		message, err := readMessage(worker)
		if err != nil {
			return err
		}
		if step := s.step(message); step != "" {
			s.mu.Lock()
			s.open = step
			s.mu.Unlock()
			if !s.at(before, step) {
				return errDead
			}
		}
		if _, err := database.Write(message); err != nil {
			return err
		}
	}
}

// back hands on what the server answers. The answer to a step is kept until the
// server is ready for the next, when it is through with it.
func (s *pgSession) back(database io.Reader, worker io.Writer) error {
	var answer []byte
	for {
		message, err := readMessage(database)
		if err != nil {
			return err
		}
		answer = append(answer, message...)
		s.mu.Lock()
		step := s.open
		if message[0] == 'Z' {
			s.open = ""
		}
		s.mu.Unlock()
		if step != "" && message[0] != 'Z' {
			continue
		}
		if strings.HasPrefix(step, "commit") && !s.at(after, step) {
			return errDead
		}
		if _, err := worker.Write(answer); err != nil {
			return err
		}
		answer = nil
	}
}

// step says what a message has the server do, if it is to be counted.
func (s *pgSession) step(message []byte) string {
	fields := strings.Split(string(message[5:]), "\x00")
	switch message[0] {
	case 'P': // Parse: name, SQL
		s.statements[fields[0]] = fields[1]
	case 'B': // Bind: portal, name of the statement
		s.bound = s.statements[fields[1]]
	case 'E': // Execute
		return s.stepOf(s.bound)
	case 'Q': // Query: SQL
		return s.stepOf(fields[0])
	}
	return ""
}

var (
	lockPattern  = regexp.MustCompile(`(?is)^select .* from "?(\w+)"? .*for update`)
	writePattern = regexp.MustCompile(`(?is)^(insert into|update|delete from) "?(\w+)"?`)
)

func (s *pgSession) stepOf(statement string) string {
	if strings.HasPrefix(statement, "begin") {
		s.wrote = nil
	}
	if strings.HasPrefix(statement, "commit") && len(s.wrote) > 0 {
		return "commit of " + s.wrote[len(s.wrote)-1]
	}
	step := ""
	if lock := lockPattern.FindStringSubmatch(statement); lock != nil {
		return "lock " + lock[1]
	} else if write := writePattern.FindStringSubmatch(statement); write != nil {
		verb, _, _ := strings.Cut(strings.ToLower(write[1]), " ")
		if strings.Contains(statement, "DO UPDATE") {
			verb = "upsert"
		}
		step = verb + " " + write[2]
		s.wrote = append(s.wrote, step)
	}
	return step
}
