package workflows

import (
	"context"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
)

// RecallName is the workflow's type.
const RecallName = "Recall"

// Recall looks through a database that was restarted, restored or replaced: it puts back
// what Temporal remembers of charges and runs and the ledger does not (decision 0019). Until
// it is done, nobody is charged. Each activity and request that meets database_replaced starts
// it. The input is an [activities.RecallInput].
func Recall(ctx workflow.Context, raw converter.RawValue) (*activities.RecallOutput, error) {
	var in activities.RecallInput
	if err := decode(raw, &in, recallForm, "installation"); err != nil {
		return nil, refusal(err)
	}
	if err := checkID(ctx, namesOf(ctx).RecallID()); err != nil {
		return nil, refusal(err)
	}
	ctx = pageOptions(ctx, "put back what the ledger has forgotten")
	ctx = workflow.WithRetryPolicy(ctx, temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 1}) // nobody is charged meanwhile
	var out activities.RecallOutput
	err := workflow.ExecuteActivity(ctx, acts.Recall, in).Get(ctx, &out)
	return &out, err
}

// RecallID names the one recall that may be under way.
func (n Names) RecallID() string { return n.with("recall") }

// StartRecall starts the installation's Recall, or joins the one that runs.
func (n Names) StartRecall(ctx context.Context, c client.Client, installation string) (client.WorkflowRun, error) {
	return c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       n.RecallID(),
		TaskQueue:                n.TaskQueue(),
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            "Looks through a database that was restarted, restored or replaced",
		StaticDetails: "Puts back the charges and runs that Temporal remembers and the ledger does not. " +
			"Until it is done nobody is charged: callers get `503 database_replaced`, workflows wait.",
	}, RecallName, activities.RecallInput{Installation: installation})
}
