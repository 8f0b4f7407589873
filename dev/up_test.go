package main

import (
	"context"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// freeAddress is on loopback, at a port where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := freePort(loopbackIP)
	require.NoError(t, err)
	return hostPort(loopbackIP, port)
}

func TestUpRunsEverythingAndStopsInOrder(t *testing.T) {
	t.Parallel()
	api := freeAddress(t)
	args := []string{
		"--api-addr", api, "--temporal-addr", freeAddress(t), "--ui-addr", freeAddress(t),
		"--shop-addr", freeAddress(t), "--data", t.TempDir(),
	}

	for range 2 { // the second time with the state of the first
		p := startProgram(t, args...)
		p.awaitOutput(t, "curl -X POST http://"+api+"/club/1/subscribe/")
		get(t, "http://"+api+"/readyz", "")
		for _, address := range []string{api, args[5], args[7]} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, http.NoBody)
			require.NoError(t, err)
			request.Host = "rebind.evil.example"
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, http.StatusMisdirectedRequest, response.StatusCode, address)
		}

		begin := time.Now()
		code := p.end(t, syscall.SIGINT)

		require.Zero(t, code, p.out.String())
		require.NotContains(t, p.out.String(), "goroutine")
		require.Less(t, time.Since(begin), 15*time.Second)
	}
}

func TestUpTakesAwayWhatLeadsElsewhere(t *testing.T) {
	t.Parallel()
	c := upCommand{Data: "/data"}
	theirs := func(name string) string { return "their " + name }

	getenv := c.environment(theirs, "127.0.0.1:7233", "127.0.0.1:8090")

	require.Equal(t, "sqlite:/data/drayman.db", getenv("DATABASE_URL"))
	require.Equal(t, "127.0.0.1:7233", getenv("TEMPORAL_ADDRESS"))
	require.Equal(t, "default", getenv("TEMPORAL_NAMESPACE"))
	require.Equal(t, "http://127.0.0.1:8090", getenv("SHOP_URL"))
	require.Equal(t, "dev-key", getenv("SHOP_API_KEY"))
	require.Equal(t, "dev-secret", getenv("SHOP_API_SECRET"))
	require.Empty(t, getenv("SHOP_API_KEY_FILE"))
	require.Empty(t, getenv("TEMPORAL_API_KEY"))
	require.Equal(t, "their BILLING_DAY", getenv("BILLING_DAY"))
}

func TestShopServesUntilStopped(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	address := freeAddress(t)
	var out, complaints output
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"shop", "--addr", address, "--data", t.TempDir()},
			func(string) string { return "" }, &out, &complaints)
	}()

	require.Eventually(t, func() bool { return answers(ctx, "http://"+address+"/orders") == nil },
		patience, 10*time.Millisecond)
	stop()

	require.Zero(t, <-ended, complaints.String())
	require.Contains(t, out.String(), "http://"+address+"/orders")
	response, err := http.Get("http://" + address) //nolint:noctx // nobody is there
	if err == nil {
		_ = response.Body.Close()
	}
	require.Error(t, err, "it has stopped")
}
