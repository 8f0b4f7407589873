package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	uiapi "github.com/temporalio/ui-server/v2/server/api"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/headers"
	"github.com/temporalio/ui-server/v2/server/route"
	"github.com/temporalio/ui-server/v2/ui"

	"drayman/guard"
)

// startUI serves the Temporal UI. Its files are embedded, so it needs no network.
func (s *temporalServer) startUI(ctx context.Context, address flagAddress) error {
	ip, port, err := loopbackAddress(address)
	if err != nil {
		return err
	}
	handler, err := uiHandler(s.Address)
	if err != nil {
		return fmt.Errorf("start the Temporal UI: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", hostPort(ip, port))
	if err != nil {
		return address.explain(err)
	}
	s.ui = &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.ui.Serve(listener) }() // returns when it is closed
	s.UIAddress = listener.Addr().String()
	return nil
}

// uiHandler is the UI as its own server makes it, except that the guard replaces its
// protection against other web sites: that one does not notice a host name that was
// rebound to this machine, and trusts every page of localhost.
func uiHandler(temporalAddress string) (http.Handler, error) {
	config, err := uiconfig.NewConfigProviderWithRefresh(&uiconfig.Config{
		TemporalGRPCAddress: temporalAddress,
		EnableUI:            true,
		DefaultNamespace:    temporalNamespace,
		DisableNewsFetch:    true,
	})
	if err != nil {
		return nil, err
	}
	all, err := ui.Assets()
	if err != nil {
		return nil, err
	}
	assets, err := fs.Sub(all, "local")
	if err != nil {
		return nil, err
	}
	e := echo.New()
	e.Use(middleware.Recover(), middleware.Gzip())
	// By this header the UI says that a person calls, not a program.
	forward := []uiapi.Middleware{headers.WithForwardHeaders([]string{"Caller-Type"})}
	if err := route.SetAPIRoutes(e, config, forward); err != nil {
		return nil, err
	}
	if err := route.SetUIRoutes(e, "", assets); err != nil {
		return nil, err
	}
	route.SetRenderRoute(e, "")
	return guard.Policy{}.Handler(e, nil), nil
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
