package api_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
)

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock(at string) *clock {
	c := &clock{}
	c.set(at)
	return c
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Microsecond) // time passes
	return c.at
}

func (c *clock) set(at string) {
	parsed, err := time.Parse(time.RFC3339, at)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = parsed.Add(-time.Microsecond)
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func deleteRequest(s *system, workflowID string) *workflowservice.DeleteWorkflowExecutionRequest {
	return &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace: s.namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: workflowID},
	}
}

func (s *system) requireNoSecretInHistory(t *testing.T, workflowID string) {
	t.Helper()
	events := s.temporal.GetWorkflowHistory(t.Context(), workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	count := 0
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(t, err)
		require.NotContains(t, event.String(), secret)
		count++
	}
	require.NotZero(t, count)
}
