package shop

import (
	"fmt"
	"io"
	"log/slog"
)

// mask stands where a credential was. It has no letters, so that the usual
// credential is no part of it.
const mask = "***"

// Secret is a string that is not printed: fmt, log/slog and encoding/json show
// "***" for it, and nothing for an empty one. Convert it with string(s) to use
// it. Two ways round it are fmt's own: it calls no method on a value that it
// reaches through an unexported field, or under %p (which go vet refuses).
type Secret string

// String returns the mask.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// GoString returns the mask, for %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format writes the mask under every verb, %x and %d included.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if f.Flag('#') || verb == 'q' {
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text) // fmt.State keeps its own errors
}

// LogValue returns the mask for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the mask for encoding/json and its kin.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
