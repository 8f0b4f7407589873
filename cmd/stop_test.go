package cmd_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

// A worker that is told to stop before it has found its Temporal server, or the
// namespace there, stops in peace: an error would make supervisors complain.
func TestAWorkerStopsWhileItWaitsForTemporal(t *testing.T) {
	for name, set := range map[string]string{"server": "TEMPORAL_ADDRESS=127.0.0.1:1", "namespace": "TEMPORAL_NAMESPACE=missing"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			worker := s.start(t, "worker", set)
			worker.find(t, `(waiting for the Temporal server)`)
			require.Zero(t, worker.kill(syscall.SIGTERM))
		})
	}
}
