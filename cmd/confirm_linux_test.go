package cmd_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
)

// A person at a terminal is asked, and only a yes is one.
func TestRunStart_AsksOnATerminal(t *testing.T) {
	drayman := binary(t, "TEST_DRAYMAN")
	for name, c := range map[string]struct {
		typed string
		says  string // at last
		calls int
	}{
		"y":            {"y\n", "2026-11/1 has started", 3},
		"Yes":          {" Yes \n", "2026-11/1 has started", 3},
		"n":            {"n\n", "drayman: nothing was started", 2},
		"nothing":      {"\n", "drayman: nothing was started", 2},
		"end of input": {"\x04", "drayman: nothing was started", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := startAPI(t, problem(404, "run_not_found", "none"), unconfirmed, apiAnswer{status: 202, body: progress(billing.RunRunning, charged(0))})
			user, screen := terminal(t, 200)
			process := exec.CommandContext(t.Context(), drayman, "run", "start", "2025-11", "--api-url", api.url)
			process.Stdin, process.Stdout, process.Stderr = user, user, user
			require.NoError(t, process.Start())
			var text strings.Builder
			await := func(what string) {
				require.NoError(t, screen.SetReadDeadline(time.Now().Add(20*time.Second)))
				for buffer := make([]byte, 4096); !strings.Contains(text.String(), what); {
					n, err := screen.Read(buffer)
					require.NoError(t, err, text.String())
					text.Write(buffer[:n])
				}
			}
			await("Charge them? [y/N] ")
			require.Contains(t, text.String(), "would charge 12: who was eligible at the cut-off, 2025-11-30T23:59:59.999999Z")
			require.Len(t, api.called(), 2)
			_, err := screen.WriteString(c.typed)
			require.NoError(t, err)
			await(c.says)
			if err := process.Wait(); c.calls == 2 {
				require.ErrorContains(t, err, "exit status 1")
			} else {
				require.NoError(t, err)
			}
			require.Len(t, api.called(), c.calls)
		})
	}
}
