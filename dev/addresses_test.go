package main

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// taken returns an address on which somebody listens.
func taken(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", hostPort(loopbackIP, 0))
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func TestTakenAddressIsNamedWithItsFlag(t *testing.T) {
	t.Parallel()
	address := taken(t)
	free := hostPort(loopbackIP, 0)

	for name, test := range map[string]struct {
		args []string
		flag string
	}{
		"temporal":    {[]string{"temporal", "--addr", address, "--ui-addr", ""}, "--addr"},
		"temporal ui": {[]string{"temporal", "--addr", free, "--ui-addr", address}, "--ui-addr"},
		"shop":        {[]string{"shop", "--addr", address}, "--addr"},
		"up api":      {[]string{"up", "--api-addr", address, "--temporal-addr", free, "--ui-addr", free, "--shop-addr", free}, "--api-addr"},
		"up shop":     {[]string{"--api-addr", free, "--temporal-addr", free, "--ui-addr", free, "--shop-addr", address}, "--shop-addr"},
		"up twice":    {[]string{"--api-addr", "127.0.0.1:18080", "--temporal-addr", free, "--ui-addr", "", "--shop-addr", "127.0.0.1:18080"}, "--shop-addr"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			code, stdout, stderr := runDev(t, append(test.args, "--data", t.TempDir())...)

			require.Equal(t, 1, code)
			require.Empty(t, stdout)
			require.Regexp(t, `^drayman-dev: 127\.0\.0\.1:\d+ is in use already; choose another address with `+test.flag+`\n$`, stderr)
		})
	}
}

func TestTemporalRefusesOtherThanLoopback(t *testing.T) {
	t.Parallel()

	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"} {
		_, _, err := loopbackAddress(flagAddress{"--addr", address})
		require.ErrorContains(t, err, "is not on loopback", address)
	}
	for _, address := range []string{"127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"} {
		_, _, err := loopbackAddress(flagAddress{"--addr", address})
		require.ErrorContains(t, err, "--addr", address)
	}
	for address, expected := range map[string]string{"localhost:7233": "127.0.0.1:7233", "[::1]:7233": "[::1]:7233"} {
		ip, port, err := loopbackAddress(flagAddress{"--addr", address})
		require.NoError(t, err)
		require.Equal(t, expected, hostPort(ip, port))
	}
}

func TestFreePortsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}

	for range 50 {
		port, err := freePort(loopbackIP)
		require.NoError(t, err)
		require.False(t, seen[port], "port %d was given twice", port)
		seen[port] = true
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()

	require.Equal(t, "127.0.0.1:8080", reachable("0.0.0.0:8080"))
	require.Equal(t, "127.0.0.1:8080", reachable(":8080"))
	require.Equal(t, "localhost:8080", reachable("localhost:8080"))
}
