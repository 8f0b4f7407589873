package main

import (
	"context"
	"fmt"
	"net/http"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
)

// startUI serves the Temporal UI and waits until it answers. Its files are
// embedded, so it needs no network. The UI server ends the whole program if it
// cannot listen, hence the check before.
func (s *temporalServer) startUI(ctx context.Context, address flagAddress) error {
	ip, port, err := loopbackAddress(address)
	if err != nil {
		return err
	}
	if err := requireFree(flagAddress{address.flag, hostPort(ip, port)}); err != nil {
		return err
	}
	s.ui = uiserver.NewServer(server_options.WithConfigProvider(uiConfig(ip, port, s.Address)))
	go func() { _ = s.ui.Start() }() // returns when it is stopped
	s.UIAddress = hostPort(ip, port)
	err = retry(ctx, func() error { return answers(ctx, "http://"+s.UIAddress+"/healthz") })
	if err != nil {
		return fmt.Errorf("start the Temporal UI: %w", err)
	}
	return nil
}

// uiConfig leaves the UI's protection against other web sites as it is: no
// foreign origin may read (CORS), and writing needs a token (CSRF). The cookie of
// that token must be allowed without TLS.
func uiConfig(ip string, port int, temporalAddress string) *uiconfig.Config {
	if ip == "::1" {
		ip = "[::1]" // the UI server joins host and port with a mere colon
	}
	return &uiconfig.Config{
		Host:                ip,
		Port:                port,
		TemporalGRPCAddress: temporalAddress,
		EnableUI:            true,
		DefaultNamespace:    temporalNamespace,
		CORS:                uiconfig.CORS{CookieInsecure: true},
		DisableNewsFetch:    true,
		HideLogs:            true,
	}
}

// answers fails unless a GET of address is answered with 200.
func answers(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", address, response.Status)
	}
	return nil
}
