package guard

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?$`)

// ParseHosts reads names for [Policy.Hosts], such as drayman.example. A port is
// refused: a host is served on any. An IP address may be named, and passes anyway.
// The error quotes the first text that is no host.
func ParseHosts(texts []string) ([]string, error) {
	hosts := make([]string, 0, len(texts))
	for _, text := range texts {
		host := canonicalHost(strings.TrimSpace(text))
		if _, err := netip.ParseAddr(host); err != nil && !hostName.MatchString(host) {
			return nil, fmt.Errorf("%q is no host name such as drayman.example, without scheme, port and *", text)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// defaultPorts are left out of an origin.
var defaultPorts = map[string]string{"http": "80", "https": "443"}

// ParseOrigins reads origins for [Policy.Origins], in the form in which browsers
// send them: scheme, host, and the port unless it is the scheme's own. A text that
// no browser would send is refused, since it would match nothing. So is "*", since
// everybody who may read may also charge. The error quotes the first such text.
func ParseOrigins(texts []string) ([]string, error) {
	origins := make([]string, 0, len(texts))
	for _, text := range texts {
		origin := strings.TrimSpace(text)
		if sent, ok := sentOrigin(origin); !ok || sent != origin {
			hint := "such as https://shop.example"
			if ok {
				hint = "as browsers send it, which is " + sent
			}
			return nil, fmt.Errorf("%q is no origin %s", text, hint)
		}
		origins = append(origins, origin)
	}
	return origins, nil
}

// sentOrigin is what a browser sends for pages at the address.
func sentOrigin(address string) (string, bool) {
	u, err := url.Parse(strings.ToLower(address))
	if err != nil || u.Scheme == "" || u.Scheme == "file" || u.Opaque != "" || u.User != nil {
		return "", false
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		host = "[" + host + "]"
	} else if !hostName.MatchString(host) {
		return "", false
	}
	if port := u.Port(); port != "" && port != defaultPorts[u.Scheme] {
		host += ":" + port
	}
	return u.Scheme + "://" + host, true
}
