package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// loopbackIP is the default host of everything that listens.
const loopbackIP = "127.0.0.1"

// flagAddress is an address and the flag by which it can be changed.
type flagAddress struct {
	flag, address string
}

// requireFree fails if one of the addresses cannot be listened on, and names it
// and its flag. It holds all of them until the last is checked, so that it also
// finds two that are the same. Empty addresses are left out.
func requireFree(addresses ...flagAddress) error {
	for _, a := range addresses {
		if a.address == "" {
			continue
		}
		listener, err := net.Listen("tcp", a.address)
		if err != nil {
			return a.explain(err)
		}
		defer func() { _ = listener.Close() }()
	}
	return nil
}

// explain turns an error of net.Listen into a sentence for the user.
func (a flagAddress) explain(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use already; choose another address with %s", a.address, a.flag)
	}
	var cause *net.OpError
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return fmt.Errorf("cannot listen on %q (%w); choose another address with %s", a.address, err, a.flag)
}

// loopbackAddress splits a "host:port" whose host must be this machine's
// loopback, by number or as "localhost". Port 0 is replaced by a free one.
func loopbackAddress(a flagAddress) (ip string, port int, err error) {
	host, service, err := net.SplitHostPort(a.address)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q is not of the form host:port", a.flag, a.address)
	}
	if host == "localhost" {
		host = loopbackIP
	}
	if parsed := net.ParseIP(host); parsed == nil || !parsed.IsLoopback() {
		return "", 0, fmt.Errorf("%s %q is not on loopback; since there is no password, only 127.0.0.1, ::1 and localhost are allowed", a.flag, a.address)
	}
	port, err = strconv.Atoi(service)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%s %q has no valid port", a.flag, a.address)
	}
	if port == 0 {
		port, err = freePort(host)
	}
	return host, port, err
}

// freePort returns a TCP port on which nothing listens. If a server wants a number
// instead of a listener, another process could take the port before it. To make that
// unlikely, the port is first used for one connection, closed from the listening side:
// it is then in TIME_WAIT (60 seconds on Linux), and the system does not give it to a
// process that asks for any free port.
func freePort(ip string) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = listener.Close() }()
	if err := useOnce(listener); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	address, _ := listener.Addr().(*net.TCPAddr) // which is what a TCP listener has
	return address.Port, nil
}

// useOnce makes one connection to listener and closes it from this side first.
func useOnce(listener net.Listener) error {
	caller, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	defer func() { _ = caller.Close() }()
	answerer, err := listener.Accept()
	if err != nil {
		return err
	}
	return answerer.Close()
}

// reachable is the address a person on this machine can open: a server that
// listens everywhere is reached on loopback.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = loopbackIP
	}
	return net.JoinHostPort(host, port)
}
