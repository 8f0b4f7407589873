package shop

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// maxCredential bounds the key and the secret, in bytes. Servers take about
// 8 KiB for all headers together, and the pattern that finds a credential in
// the shop's answers grows with its length.
const maxCredential = 4096

// MaxTimeout is the longest Config.Timeout. Callers of PlaceOrder must allow it that
// time.
const MaxTimeout = 5 * time.Minute

// Config is what a Client needs to know about the shop.
type Config struct {
	// URL is the shop's base, absolute, http or https; "/order/{request_id}" is
	// appended to it. It carries no query, user or fragment.
	URL string
	// APIKey is sent as x-api-key: 1 to 4096 characters of visible ASCII, with
	// spaces only inside (RFC 9110 §5.5).
	APIKey string
	// APISecret is sent as x-api-secret; the same characters as APIKey.
	APISecret Secret
	// Timeout bounds a whole call, from name resolution to the last byte of the
	// body: more than zero, at most [MaxTimeout].
	Timeout time.Duration
	// Echo names the top-level fields of the shop's JSON that repeat what was
	// asked for: [EchoRequestID], [EchoCustomerID], both, or none. An answer in
	// which one of them differs is no verdict.
	Echo []string
	// Version names this program in the User-Agent, "drayman/<version>".
	// Optional; characters of an RFC 9110 §5.6.2 token only.
	Version string
}

// validate reports the first wrong field by its name. It quotes no value, since
// a URL may carry a password and a misplaced secret may stand in any field.
func (c Config) validate() error {
	if err := validURL(c.URL); err != nil {
		return fmt.Errorf("shop: URL: %w", err)
	}
	if err := validCredential(c.APIKey); err != nil {
		return fmt.Errorf("shop: APIKey: %w", err)
	}
	if err := validCredential(string(c.APISecret)); err != nil {
		return fmt.Errorf("shop: APISecret: %w", err)
	}
	if c.Timeout <= 0 || c.Timeout > MaxTimeout {
		return fmt.Errorf("shop: Timeout: must be greater than zero, and at most %s", MaxTimeout)
	}
	if err := validEcho(c.Echo); err != nil {
		return fmt.Errorf("shop: Echo: %w", err)
	}
	if strings.ContainsFunc(c.Version, notToken) {
		return errors.New("shop: Version: may hold letters, digits and .+-_~ only")
	}
	return nil
}

func validURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return errors.New("must be an absolute http or https URL")
	}
	if u.User != nil {
		return errors.New("must not hold a user or a password")
	}
	if strings.ContainsAny(raw, "?#") {
		return errors.New("must not hold a query or a fragment")
	}
	return nil
}

// validCredential accepts less than RFC 9110 §5.5: bytes above 0x7F are legal there,
// but servers read them differently, and net/http would cut spaces at the ends.
func validCredential(value string) error {
	switch {
	case value == "":
		return errors.New("must not be empty")
	case len(value) > maxCredential:
		return fmt.Errorf("must not be longer than %d bytes", maxCredential)
	case strings.TrimSpace(value) != value:
		return errors.New("must not begin or end with white space")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("must consist of visible ASCII characters")
	}
	return nil
}

func notToken(r rune) bool {
	letter := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
	return !letter && (r < '0' || r > '9') && !strings.ContainsRune(".+-_~", r)
}
