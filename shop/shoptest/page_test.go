package shoptest

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The shop trusts whoever reaches it; a browser on the machine reaches it for the
// pages of others.
func TestPage_ForeignOneIsRefused(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{APIKey: "key", APISecret: "secret"})
	s.SetFaults(Fault{Status: http.StatusServiceUnavailable})
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	ask := func(method, path, host, origin, site string) int {
		request, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body1))
		require.NoError(t, err)
		request.Host = host
		request.Header.Set("Origin", origin)
		request.Header.Set("Sec-Fetch-Site", site)
		request.Header.Set("X-Api-Key", "key")
		request.Header.Set("X-Api-Secret", "secret")
		response, err := client(t).Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Empty(t, response.Header.Get("Access-Control-Allow-Origin"))
		return response.StatusCode
	}
	for _, c := range [][2]string{
		{http.MethodPut, "/faults"},
		{http.MethodDelete, "/faults"},
		{http.MethodPost, "/order/r-1"},
		{http.MethodGet, "/faults"},
		{http.MethodGet, "/orders"},
		{http.MethodGet, "/calls"},
		{http.MethodGet, "/healthz"},
	} {
		if c[0] != http.MethodGet {
			require.Equal(t, http.StatusForbidden, ask(c[0], c[1], "", "http://evil.example", "cross-site"), c)
			require.Equal(t, http.StatusForbidden, ask(c[0], c[1], "", "http://127.0.0.1:22500", "same-site"), c)
			require.Equal(t, http.StatusForbidden, ask(c[0], c[1], "", "null", ""), c)
		}
		rebound := "rebind.evil.example:" + port
		require.Equal(t, http.StatusMisdirectedRequest, ask(c[0], c[1], rebound, "http://"+rebound, "same-origin"), c)
	}
	require.Len(t, s.Faults(), 1)
	require.Empty(t, s.Orders())
	require.Empty(t, s.Calls())
}
