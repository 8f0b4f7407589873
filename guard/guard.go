package guard

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Policy says which requests a server takes. The zero value fits a server on
// loopback: IP addresses and localhost as hosts, no page of another origin.
type Policy struct {
	// AnyHost takes every host name. It is for servers that browsers on this
	// machine cannot reach as loopback, or that ask for keys.
	AnyHost bool
	// Hosts are names that the server has, in the form of [ParseHosts].
	Hosts []string
	// Origins are those whose pages may change something, in the form of
	// [ParseOrigins].
	Origins []string
	// Probes are paths that are served under any host name: GETs of machines that
	// call a server by a name that it does not know. They must tell no secret.
	Probes []string
}

// Refusal is why a request is not served. It is an error.
type Refusal struct {
	// Status is the HTTP status to answer with.
	Status int
	reason string
}

// Error returns the reason in one sentence.
func (r *Refusal) Error() string { return r.reason }

// The refusals that there are.
var (
	ForeignOrigin = &Refusal{http.StatusForbidden, "a web page of another origin may change nothing here"}
	ForeignHost   = &Refusal{http.StatusMisdirectedRequest, "this server does not have the host name that the request is for"}
)

// Handler serves with next what the policy takes, and has refuse answer the rest; a
// nil refuse answers with the refusal as text. All answers tell browsers not to guess
// the content type, and not to show the answer in a frame of another origin, where a
// page could make its visitor click.
func (p Policy) Handler(next http.Handler, refuse func(http.ResponseWriter, *http.Request, *Refusal)) http.Handler {
	if refuse == nil {
		refuse = func(w http.ResponseWriter, _ *http.Request, why *Refusal) { http.Error(w, why.Error(), why.Status) }
	}
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Frame-Options", "SAMEORIGIN")
		switch {
		case !p.servesHost(r.Host) && !slices.Contains(p.Probes, r.URL.Path):
			refuse(w, r, ForeignHost)
		case !slices.Contains(p.Origins, r.Header.Get("Origin")) && protection.Check(r) != nil:
			refuse(w, r, ForeignOrigin)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// servesHost reports whether the policy takes the host, with or without a port.
// Browsers always send one; a client of HTTP/1.0 may leave it out.
func (p Policy) servesHost(host string) bool {
	if p.AnyHost || host == "" {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = canonicalHost(host)
	// A number such as 2130706433 is a name here: browsers write 127.0.0.1 for it.
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost" || slices.Contains(p.Hosts, host)
}

// canonicalHost is the one form of a host without a port: lower case, no brackets,
// no dot at the end.
func canonicalHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	return host
}
