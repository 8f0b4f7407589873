package cmd

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// healthcheckCommand asks the API of this machine whether it is ready, for
// containers, which have no shell and no curl.
type healthcheckCommand struct {
	HTTPAddr string `name:"http-addr" help:"Address that the API serves on." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
}

// healthcheckTimeout lies above the time that /readyz takes at most.
const healthcheckTimeout = 4 * time.Second

// Run returns an error unless /readyz answers 200.
func (c *healthcheckCommand) Run(ctx context.Context, env *environment) error {
	host, port, err := net.SplitHostPort(c.HTTPAddr)
	if err != nil {
		return fmt.Errorf("--http-addr ($HTTP_ADDR): %q is no HOST:PORT", c.HTTPAddr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // an API that listens everywhere is asked nearby
	}
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("--http-addr ($HTTP_ADDR): %w", err)
	}
	// Not the default transport: a proxy named in the environment has no part in this.
	res, err := (&http.Transport{}).RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // nothing is lost by a failure here
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(body)))
	}
	_, err = env.stdout.Write(body)
	return err
}
