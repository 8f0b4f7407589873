package cmd_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drayman/billing"
	"drayman/cmd"
)

// terminal is a terminal of a number of columns: what is written to user comes out
// of screen.
func terminal(t *testing.T, columns uint16) (user, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() }) // it may have been closed
	fd := int(screen.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	user, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = user.Close() }) // as above
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}))
	return user, screen
}

// watchOn runs drayman run watch on a terminal and returns what it wrote there.
func watchOn(t *testing.T, columns uint16, env map[string]string, api *fakeAPI) (code int, drawn string) {
	t.Helper()
	user, screen := terminal(t, columns)
	code = cmd.Run(t.Context(), []string{"run", "watch", "2026-11", "--api-url", api.url, "--interval", "10ms"},
		func(name string) string { return env[name] }, user, user)
	require.NoError(t, screen.SetReadDeadline(time.Now().Add(20*time.Second)))
	var text strings.Builder
	for buffer := make([]byte, 4096); !strings.Contains(text.String(), "finished:"); {
		n, err := screen.Read(buffer)
		require.NoError(t, err)
		text.Write(buffer[:n])
	}
	return code, text.String()
}

func TestRunWatchOnATerminal(t *testing.T) {
	for _, columns := range []uint16{40, 80, 160} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			paused := progress(billing.RunPaused, billing.RunCounts{Charged: 5, Declined: 1})
			paused.Reason = "stock-take"
			api := startAPI(t, ok(progress(billing.RunRunning, charged(5))), ok(paused), problem(503, "temporal_unavailable", "try again"),
				ok(progress(billing.RunRunning, billing.RunCounts{Charged: 6, Pending: 4})), ok(progress(billing.RunFinished, charged(10))))
			code, drawn := watchOn(t, columns, nil, api)
			require.Zero(t, code)
			frames := strings.Split(drawn, "\r")
			for _, frame := range frames[1:5] {
				frame, cleared := strings.CutSuffix(frame, "\x1b[K")
				require.True(t, cleared, "%q", frame)
				require.Less(t, len(frame), int(columns), "a line that is too long would wrap")
				require.NotContains(t, frame, "\n")
			}
			require.Regexp(t, `^2026-11 \[=+> +\] .*charged 5`, frames[1])
			require.Contains(t, frames[2], "paused: stock-take")
			require.Contains(t, frames[3], "trying on for 0s: try again")
			require.Contains(t, frames[4], "> ", "the bar is full only when all are settled")
			require.Equal(t, columns > 40, strings.Contains(frames[4], "pending 4"), frames[4])
			require.Equal(t, 1, strings.Count(drawn, "\n"), "%q", drawn)
			if columns == 160 {
				require.Regexp(t, `^2026-11 \[={20}> {19}\] due 10 charged 5 declined 0 unresolved 0 left 5 \d\.\d/s( end \d\d:\d\d:\d\d)?$`, frames[1][:len(frames[1])-len("\x1b[K")])
			}
		})
	}
}

func TestRunWatchOnADumbTerminal(t *testing.T) {
	api := startAPI(t, ok(progress(billing.RunRunning, charged(5))), ok(progress(billing.RunFinished, charged(10))))
	code, drawn := watchOn(t, 80, map[string]string{"TERM": "dumb"}, api)
	require.Zero(t, code)
	require.NotContains(t, drawn, "\x1b")
	require.Contains(t, drawn, "2026-11/1 running: due 10, charged 5")
}
