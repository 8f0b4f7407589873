package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// exchange is one request to drayman's API and what came of it: a line of the
// log. Status 0: no answer came, and Error says why.
type exchange struct {
	Sent   time.Time       `json:"sent"`
	Got    time.Time       `json:"got"`
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Body   string          `json:"body,omitempty"`
	Status int             `json:"status"`
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`
	// RetryAfter is the header, in seconds; 0 without one.
	RetryAfter int `json:"retry_after,omitempty"`
}

// client asks the APIs in turn and writes down every answer.
type client struct {
	apis []string
	turn atomic.Uint64
	http *http.Client

	mu   sync.Mutex
	file *os.File
	log  *json.Encoder
	err  error // of writing
}

// clientPatience bounds one request: more than a charge's answer takes.
const clientPatience = 8 * time.Second

func newClient(dir string, apis []string) (*client, error) {
	file, err := os.Create(answersFile(dir))
	if err != nil {
		return nil, err
	}
	return &client{
		apis: apis, file: file, log: json.NewEncoder(file),
		http: &http.Client{Timeout: clientPatience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}, nil
}

func answersFile(dir string) string { return filepath.Join(dir, "answers.jsonl") }

// close ends the log; no request may be under way.
func (c *client) close() error {
	c.http.CloseIdleConnections()
	if c.err != nil {
		return c.err
	}
	return c.file.Close()
}

// send makes one request to one of the APIs.
func (c *client) send(ctx context.Context, method, path, body string) exchange {
	e := exchange{Sent: time.Now(), Method: method, Path: path, Body: body}
	url := c.apis[c.turn.Add(1)%uint64(len(c.apis))] + path
	if err := c.roundTrip(ctx, url, &e); err != nil {
		e.Status, e.Answer, e.Error = 0, nil, err.Error()
	}
	e.Got = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.log.Encode(e); err != nil && c.err == nil {
		c.err = err
	}
	return e
}

func (c *client) roundTrip(ctx context.Context, url string, e *exchange) error {
	request, err := http.NewRequestWithContext(ctx, e.Method, url, strings.NewReader(e.Body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it is read
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	e.Status = response.StatusCode
	e.RetryAfter, _ = strconv.Atoi(response.Header.Get("Retry-After")) // 0 where there is none
	if json.Valid(data) {
		e.Answer = data
	} else {
		e.Error = fmt.Sprintf("no JSON: %.200q", data)
	}
	return nil
}

// readAnswers reads the log.
func readAnswers(dir string) ([]exchange, error) {
	file, err := os.Open(answersFile(dir))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	var all []exchange
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) == 0 {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var e exchange
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
}
