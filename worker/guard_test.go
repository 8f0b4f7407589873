package worker

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/workflows"
)

// Each activity is one that a workflow of ours asks for, and no other may.
func TestGuard_EveryActivityHasItsWorkflow(t *testing.T) {
	t.Parallel()
	all := reflect.TypeFor[*activities.Activities]()
	require.Len(t, asked, all.NumMethod())
	for i := range all.NumMethod() {
		name := all.Method(i).Name
		require.Contains(t, asked, name)
		for _, by := range []string{"", "Greet", workflows.ScheduledRunName, workflows.ChargeSubscriptionName, workflows.BillingRunName} {
			info := activity.Info{WorkflowType: &workflow.Type{Name: by}, WorkflowExecution: workflow.Execution{ID: "by-hand"}}
			requireAsked(t, by == asked[name], mayAsk(name, info))
			info.WorkflowExecution.ID = ""
			requireAsked(t, false, mayAsk(name, info))
		}
		requireAsked(t, false, mayAsk(name, activity.Info{WorkflowExecution: workflow.Execution{ID: "by-hand"}}))
	}
	requireAsked(t, false, mayAsk("", activity.Info{}))
}

func requireAsked(t *testing.T, asked bool, err error) {
	t.Helper()
	if asked {
		require.NoError(t, err)
		return
	}
	var failure *temporal.ApplicationError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, failureNotAsked, failure.Type())
	require.True(t, failure.NonRetryable())
}
