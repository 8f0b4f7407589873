package shop

import (
	"fmt"
	"io"
	"log/slog"
)

// mask replaces a credential. It has no letters, so that it contains no usual
// credential.
const mask = "***"

// Secret is a string that is not printed: fmt, log/slog and encoding/json show
// "***" for it, and nothing for an empty one. Convert it with string(s) to use
// it. There are two ways round it: fmt calls no method on a value in an
// unexported field, nor under %p (which go vet refuses).
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
