package worker

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"drayman/activities"
)

type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(line)
}

func (o *output) count(part string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Count(o.text.String(), part)
}

// The SDK gives up when the namespace has been away for two minutes, which is too
// long for a test: this one reports the failure as the SDK does.
func TestWorkersBeginAnewWhenTheSDKGivesUp(t *testing.T) {
	t.Parallel()
	address := os.Getenv("TEST_TEMPORAL_ADDRESS")
	require.NotEmpty(t, address, "TEST_TEMPORAL_ADDRESS is not set: run make test")
	namespace := "test-" + uuid.NewString()
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: address})
	require.NoError(t, err)
	defer namespaces.Close()
	require.NoError(t, namespaces.Register(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}))
	logged := &output{}
	log := slog.New(slog.NewTextHandler(logged, nil))
	c, err := client.NewLazyClient(client.Options{HostPort: address, Namespace: namespace})
	require.NoError(t, err)
	defer c.Close()
	workers := New(c, "", activities.New(activities.Config{Log: log}), time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- workers.Run(ctx, c, namespace, log) }()

	for polls := range 3 {
		require.Eventually(t, func() bool { return logged.count("worker polls") == polls+1 }, time.Minute, 20*time.Millisecond)
		workers.fail(serviceerror.NewNamespaceNotFound(namespace))
		workers.fail(serviceerror.NewNamespaceNotFound(namespace)) // each poll has its own
	}
	require.Eventually(t, func() bool { return logged.count("worker polls") == 4 }, time.Minute, 20*time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
}
