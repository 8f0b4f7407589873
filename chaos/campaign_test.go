package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASeedRepeatsItsPlan(t *testing.T) {
	t.Parallel()
	s := sizes{Seed: 7, Idempotent: true, Subscriptions: 500, Months: 4, Kills: 40, Duration: time.Minute}
	first, again := newPlan(s), newPlan(s)
	require.Equal(t, first, again)
	require.Len(t, first.Kills, 40)
	other := s
	other.Seed = 8
	require.NotEqual(t, newPlan(s).Kills, newPlan(other).Kills)
}

// A short campaign with each kind of shop; CONTRIBUTING.md tells how to run a
// long one.
func TestCampaign(t *testing.T) {
	for name, mode := range map[string]string{"idempotent": "true", "every call is an order": "false"} {
		t.Run(name, func(t *testing.T) {
			var out, complaints bytes.Buffer
			err := run(t.Context(), []string{
				"--shop-idempotent=" + mode, "--duration=45s", "--subscriptions=700", "--months=3", "--kills=26", "--restores=1", "--failovers=1",
				"--drayman=" + program("TEST_DRAYMAN", "../bin/drayman"), "--drayman-dev=" + program("TEST_DRAYMAN_DEV", "../bin/drayman-dev"),
			}, &out, &complaints)
			t.Log(out.String())
			require.NoError(t, err, complaints.String())
		})
	}
}

func program(variable, otherwise string) string {
	if path := os.Getenv(variable); path != "" {
		return path
	}
	return otherwise
}
