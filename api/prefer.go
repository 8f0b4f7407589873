package api

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxWait bounds a caller's wait; the server's write timeout lies above it.
const maxWait = 60 * time.Second

// preferredWait reads the Prefer header (RFC 7240): "wait=N" in seconds,
// "respond-async" alone for no wait at all; both together wait N seconds and
// then answer 202, which is what a charge does anyway. Preferences that cannot
// be met are ignored, as the RFC says. It returns the wait, and what to answer
// in Preference-Applied.
func preferredWait(header string, byDefault time.Duration) (wait time.Duration, applied string) {
	async := false
	for _, preference := range strings.Split(header, ",") {
		preference, _, _ = strings.Cut(preference, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "wait":
			seconds, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
			if (err == nil || errors.Is(err, strconv.ErrRange)) && seconds >= 0 { // of too large a number it is the largest
				seconds = min(seconds, int(maxWait/time.Second))
				return time.Duration(seconds) * time.Second, fmt.Sprintf("wait=%d", seconds)
			}
		case "respond-async":
			async = true
		}
	}
	if async {
		return 0, "respond-async"
	}
	return byDefault, ""
}
