package cmd_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// serveAPI runs drayman api on a migrated database, without Temporal, and returns
// its address on loopback.
func serveAPI(t *testing.T, settings ...string) (address string) {
	t.Helper()
	env := complete(t)
	code, _, errs := run(t, env, "migrate", "up")
	require.Zero(t, code, errs)
	all := []string{"HOME=" + t.TempDir()}
	for name, value := range env {
		all = append(all, name+"="+value)
	}
	p := start(t, binary(t, "TEST_DRAYMAN"), append(all, settings...), "api")
	served, err := url.Parse(p.find(t, `"?api serves"?.*url=(\S+)`))
	require.NoError(t, err)
	return "http://127.0.0.1:" + served.Port()
}

func TestAPI_HostsByListener(t *testing.T) {
	t.Parallel()
	const (
		everywhere = "HTTP_ADDR=0.0.0.0:0"
		allowed    = "ALLOW_UNAUTHENTICATED_NETWORK_ACCESS=true"
	)
	for name, c := range map[string]struct {
		settings []string
		names    []string // by which it is called
		refused  bool     // under others
	}{
		"loopback":             {nil, []string{"", "localhost:1"}, true},
		"loopback, by name":    {[]string{"HTTP_ADDR=localhost:0"}, []string{"", "localhost:1"}, true},
		"loopback, allowed":    {[]string{allowed}, []string{"", "localhost:1"}, true},
		"loopback, with names": {[]string{"HTTP_HOSTS=Drayman.Example, api"}, []string{"", "api:1", "drayman.example", "localhost"}, true},
		"network":              {[]string{everywhere, allowed}, []string{"", "api", "rebind.evil.example"}, false},
		"network, with names":  {[]string{everywhere, allowed, "HTTP_HOSTS=api"}, []string{"", "api", "10.0.0.1:80", "localhost"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serveAPI(t, c.settings...)
			if c.refused {
				requireHosts(t, address+"/clubs", c.names)
			}
			for _, host := range append(c.names, "pod-7.cluster.example") {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"/livez", http.NoBody)
				require.NoError(t, err)
				req.Host = host
				res, err := http.DefaultClient.Do(req)
				require.NoError(t, err)
				require.NoError(t, res.Body.Close())
				require.Equal(t, http.StatusOK, res.StatusCode, host)
			}
		})
	}
}

func TestAPI_OriginsFromSettings(t *testing.T) {
	t.Parallel()
	address := serveAPI(t, "CORS_ORIGINS=https://front.example, http://127.0.0.1:3000")
	for origin, trusted := range map[string]bool{
		"https://front.example": true, "http://127.0.0.1:3000": true,
		"http://evil.example": false, "http://127.0.0.1:3001": false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/club/7/subscribe", http.NoBody)
		require.NoError(t, err)
		req.Header.Set("Origin", origin)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, trusted, res.StatusCode != http.StatusForbidden, "%s: %d", origin, res.StatusCode)
		require.Equal(t, trusted, res.Header.Get("Access-Control-Allow-Origin") == origin, origin)
	}
}
