package guard_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/guard"
)

// serve runs a server on loopback under the policy; it answers 200.
func serve(t *testing.T, p guard.Policy) (address string) {
	t.Helper()
	server := httptest.NewServer(p.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// send writes a request as it stands, and returns the status of the answer.
func send(t *testing.T, address string, lines ...string) int {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprint(conn, strings.Join(lines, "\r\n"), "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	if response.StatusCode != http.StatusBadRequest { // which net/http answers itself
		require.Equal(t, "nosniff", response.Header.Get("X-Content-Type-Options"))
		require.Equal(t, "SAMEORIGIN", response.Header.Get("X-Frame-Options"))
		require.Equal(t, response.StatusCode != http.StatusOK, len(body) > 0)
	}
	return response.StatusCode
}

func TestPolicy_Host(t *testing.T) {
	t.Parallel()
	loopback := serve(t, guard.Policy{Probes: []string{"/livez"}})
	named := serve(t, guard.Policy{Hosts: []string{"drayman.example"}})
	open := serve(t, guard.Policy{AnyHost: true})
	for _, c := range []struct {
		host            string
		loopback, named int
	}{
		{"127.0.0.1", 200, 200},
		{"127.0.0.1:8080", 200, 200},
		{"127.0.0.1.", 200, 200},
		{"10.1.2.3:1", 200, 200},
		{"0.0.0.0:8080", 200, 200},
		{"[::1]", 200, 200},
		{"[::1]:8080", 200, 200},
		{"[::ffff:127.0.0.1]:8080", 200, 200},
		{"[fe80::1%25eth0]:8080", 200, 200},
		{"localhost", 200, 200},
		{"LocalHost:8080", 200, 200},
		{"localhost.", 200, 200},
		{"localhost.:8080", 200, 200},
		{"drayman.example", 421, 200},
		{"DRAYMAN.Example:9999", 421, 200},
		{"drayman.example.", 421, 200},
		{"drayman.example..", 421, 421},
		{"api.drayman.example", 421, 421},
		{"evil.example", 421, 421},
		{"rebind.evil.example:8080", 421, 421},
		{"localhost.evil.example", 421, 421},
		{"evil.localhost", 421, 421},
		{"notlocalhost", 421, 421},
		{"localhost..", 421, 421},
		{"127.0.0.1.nip.io", 421, 421},
		{"127.0.0.1.evil.example:8080", 421, 421},
		{"2130706433", 421, 421},
		{"0x7f000001:8080", 421, 421},
		{"0x7f.1", 421, 421},
		{"127.1", 421, 421},
		{"0177.0.0.1", 421, 421},
		{"127.0.0.1:80:80", 421, 421},
		{"[127.0.0.1.evil.example]:80", 421, 421},
		{"localhost,evil.example", 421, 421},
		{"ip6-localhost", 421, 421},
		{":8080", 421, 421},
	} {
		require.Equal(t, c.loopback, send(t, loopback, "GET / HTTP/1.1", "Host: "+c.host), c.host)
		require.Equal(t, c.named, send(t, named, "POST / HTTP/1.1", "Host: "+c.host), c.host)
		require.Equal(t, 200, send(t, open, "POST / HTTP/1.1", "Host: "+c.host), c.host)
		require.Equal(t, 200, send(t, loopback, "GET /livez HTTP/1.1", "Host: "+c.host), c.host)
	}
}

func TestPolicy_HostIsTheRequestsOwn(t *testing.T) {
	t.Parallel()
	loopback := serve(t, guard.Policy{Probes: []string{"/livez"}})

	require.Equal(t, 421, send(t, loopback, "GET http://evil.example/ HTTP/1.1", "Host: 127.0.0.1"))
	// Only a proxy is sent such a line by a browser, and of the two this is the
	// name that counts (RFC 9112 §3.2.2).
	require.Equal(t, 200, send(t, loopback, "GET http://127.0.0.1/ HTTP/1.1", "Host: evil.example"))
	require.Equal(t, 421, send(t, loopback, "GET / HTTP/1.1", "Host: evil.example", "X-Forwarded-Host: 127.0.0.1", "Forwarded: host=localhost", "X-Host: localhost"))
	require.Equal(t, 200, send(t, loopback, "GET / HTTP/1.1", "Host: 127.0.0.1", "X-Forwarded-Host: evil.example"))
	require.Equal(t, 400, send(t, loopback, "GET / HTTP/1.1"))
	require.Equal(t, 400, send(t, loopback, "GET / HTTP/1.1", "Host: 127.0.0.1", "Host: evil.example"))
	require.Equal(t, 400, send(t, loopback, "GET / HTTP/1.1", "Host: localhost@evil.example"))
	require.Equal(t, 200, send(t, loopback, "GET / HTTP/1.0", "User-Agent: old"), "no name, no rebinding")
	for _, path := range []string{"/livez/..", "/livez/../order", "//livez", "/order/livez", "/LIVEZ"} {
		require.Equal(t, 421, send(t, loopback, "GET "+path+" HTTP/1.1", "Host: evil.example"), path)
	}
}

func TestPolicy_Origin(t *testing.T) {
	t.Parallel()
	address := serve(t, guard.Policy{Origins: []string{"https://front.example", "http://127.0.0.1:3000"}})
	own := "Origin: http://" + address
	for _, c := range []struct {
		name    string
		headers []string
		status  int // of what may change something
	}{
		{"curl", nil, 200},
		{"typed or a bookmark", []string{"Sec-Fetch-Site: none"}, 200},
		{"our own page", []string{own, "Sec-Fetch-Site: same-origin"}, 200},
		{"our own page, an old browser", []string{own}, 200},
		{"our own page, behind a proxy", []string{"Origin: https://drayman.example", "Sec-Fetch-Site: same-origin"}, 200},
		{"a trusted page", []string{"Origin: https://front.example", "Sec-Fetch-Site: cross-site"}, 200},
		{"a trusted page, an old browser", []string{"Origin: https://front.example"}, 200},
		{"a trusted page of this machine", []string{"Origin: http://127.0.0.1:3000", "Sec-Fetch-Site: same-site"}, 200},
		{"a form", []string{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Content-Type: application/x-www-form-urlencoded"}, 403},
		{"a fetch with no-cors", []string{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Content-Type: text/plain"}, 403},
		{"a page on another port", []string{"Origin: http://127.0.0.1:22500", "Sec-Fetch-Site: same-site"}, 403},
		{"an old browser", []string{"Origin: http://evil.example"}, 403},
		{"a page on another port, an old browser", []string{"Origin: http://127.0.0.1:22500"}, 403},
		{"a sandboxed frame", []string{"Origin: null", "Sec-Fetch-Site: cross-site"}, 403},
		{"a sandboxed frame, an old browser", []string{"Origin: null"}, 403},
		{"no Origin, but cross-site", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"trusted but for the scheme", []string{"Origin: http://front.example", "Sec-Fetch-Site: cross-site"}, 403},
		{"trusted but for the port", []string{"Origin: https://front.example:8443", "Sec-Fetch-Site: cross-site"}, 403},
		{"trusted at the start", []string{"Origin: https://front.example.evil.example"}, 403},
		{"trusted at the end", []string{"Origin: https://evilfront.example"}, 403},
		{"trusted by the Referer", []string{"Origin: http://evil.example", "Referer: https://front.example/"}, 403},
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "post", "ANYTHING"} {
			lines := append([]string{method + " / HTTP/1.1", "Host: " + address}, c.headers...)
			require.Equal(t, c.status, send(t, address, lines...), "%s by %s", method, c.name)
		}
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			lines := append([]string{method + " / HTTP/1.1", "Host: " + address}, c.headers...)
			require.Equal(t, 200, send(t, address, lines...), "%s by %s", method, c.name)
		}
	}
}

// A name that was rebound is of our origin, for the browser.
func TestPolicy_ReboundPageIsRefused(t *testing.T) {
	t.Parallel()
	address := serve(t, guard.Policy{})
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)

	require.Equal(t, 421, send(t, address, "POST / HTTP/1.1", "Host: evil.example:"+port, "Origin: http://evil.example:"+port, "Sec-Fetch-Site: same-origin"))
	require.Equal(t, 421, send(t, address, "GET / HTTP/1.1", "Host: evil.example:"+port, "Sec-Fetch-Site: same-origin"))
}

func TestParseHosts(t *testing.T) {
	t.Parallel()
	hosts, err := guard.ParseHosts([]string{"Drayman.Example", " api ", "drayman.example.", "127.0.0.1", "[::1]", "::1", "host_1", "xn--bier-0ra.example"})
	require.NoError(t, err)
	require.Equal(t, []string{"drayman.example", "api", "drayman.example", "127.0.0.1", "::1", "::1", "host_1", "xn--bier-0ra.example"}, hosts)

	for _, bad := range []string{"", " ", "*", "*.example", "drayman.example:8080", "http://drayman.example", "drayman.example/", "-a", ".a", "a b", "bär.example", strings.Repeat("a", 254)} {
		_, err := guard.ParseHosts([]string{"good", bad})
		require.ErrorContains(t, err, fmt.Sprintf("%q is no host name", bad))
	}
}

func TestParseOrigins(t *testing.T) {
	t.Parallel()
	good := []string{"https://front.example", "http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:3000", "capacitor://localhost", "https://xn--bier-0ra.example"}
	origins, err := guard.ParseOrigins(append([]string{" https://a.example "}, good...))
	require.NoError(t, err)
	require.Equal(t, append([]string{"https://a.example"}, good...), origins)

	for bad, hint := range map[string]string{
		"": "such as", "*": "such as", "null": "such as", "front.example": "such as", "//front.example": "such as", "https://": "such as",
		"https://*.example": "such as", "https://bär.example": "such as", "https://a@front.example": "such as", "mailto:a@b": "such as",
		"https://front.example:x": "such as", "file:///": "such as", "localhost:3000": "such as",
		"https://front.example/": "https://front.example", "https://Front.Example": "https://front.example", "HTTPS://front.example": "https://front.example",
		"https://front.example:443": "https://front.example", "http://front.example:80/": "http://front.example",
		"https://front.example:8443/app?x#y": "https://front.example:8443",
	} {
		_, err := guard.ParseOrigins([]string{"https://good.example", bad})
		require.ErrorContains(t, err, fmt.Sprintf("%q is no origin", bad))
		require.ErrorContains(t, err, hint, bad)
	}
}
