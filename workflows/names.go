package workflows

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/billing"
)

// Names are the names by which Temporal knows an installation's workflows, schedule
// and task queues (decision 0017). Its value is the installation's name (INSTALLATION). If
// that is set, each name contains it, so that installations can share a namespace.
type Names string

func (n Names) with(name string) string {
	if n == "" {
		return name
	}
	return string(n) + "/" + name
}

// namesOf are the names by which the workflow was started: its task queue tells.
func namesOf(ctx workflow.Context) Names {
	name, carried := strings.CutSuffix(workflow.GetInfo(ctx).TaskQueueName, "/"+Names("").TaskQueue())
	if !carried {
		return ""
	}
	return Names(name)
}

// orders is the end of the name of a task queue that carries the retries of orders.
const orders = "-orders"

// TaskQueue carries the workflows and their quick activities.
func (n Names) TaskQueue() string { return n.with("drayman") }

// OrderTaskQueue carries the retries of orders, so that a shop that hangs fills
// workers of its own only.
func (n Names) OrderTaskQueue() string { return n.TaskQueue() + orders }

// orderTaskQueue is the one that belongs to the workflow's own.
func orderTaskQueue(ctx workflow.Context) string {
	return workflow.GetInfo(ctx).TaskQueueName + orders
}

// ChargeSubscriptionName is the workflow's type.
const ChargeSubscriptionName = "ChargeSubscription"

// The search attributes by which operators find charges in the Temporal UI;
// Keywords all.
var (
	SubscriptionIDKey = temporal.NewSearchAttributeKeyKeyword("SubscriptionId")
	BillingPeriodKey  = temporal.NewSearchAttributeKeyKeyword("BillingPeriod")
	ClubIDKey         = temporal.NewSearchAttributeKeyKeyword("ClubId")
	RequestIDKey      = temporal.NewSearchAttributeKeyKeyword("RequestId") // the ledger row's
)

// SearchAttributes returns the types of the search attributes, by name, for the
// start-up that makes them.
func SearchAttributes() map[string]enumspb.IndexedValueType {
	types := map[string]enumspb.IndexedValueType{}
	for _, key := range []temporal.SearchAttributeKey{SubscriptionIDKey, BillingPeriodKey, ClubIDKey, RequestIDKey} {
		types[key.GetName()] = key.GetValueType()
	}
	return types
}

// ChargeWorkflowID names the one workflow that may charge the subscription for
// the period at a time.
func (n Names) ChargeWorkflowID(subscriptionID string, period billing.Period) string {
	return n.with(fmt.Sprintf("charge/%s/%s", url.PathEscape(subscriptionID), period))
}

// RunWorkflowID names the one run that may charge a period at a time.
func (n Names) RunWorkflowID(period billing.Period) string {
	return n.with("billing-run/" + period.String())
}

// ScheduleID names the monthly schedule.
func (n Names) ScheduleID() string { return n.with("billing-run") }

// ScheduledRunID names what the schedule starts. Temporal appends the nominal time, so
// that each month has one of its own.
func (n Names) ScheduledRunID() string { return n.with("scheduled-run") }

// chargeTaskTimeout is how long a worker that died in a workflow task keeps it from
// others. The first order call runs inside of a task and may take longer: the worker
// then reports in time that it lives.
const chargeTaskTimeout = 10 * time.Second

// ChargeOptions start ChargeSubscription. A second start joins the first. A completed
// workflow is not started again. A failed one is: its charge was declined or is unresolved,
// or an operator ended the workflow; the ledger tells.
func (n Names) ChargeOptions(in ChargeInput) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID:                       n.ChargeWorkflowID(in.SubscriptionID, in.Period),
		TaskQueue:                n.TaskQueue(),
		WorkflowTaskTimeout:      chargeTaskTimeout,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		// Without it the SDK hides that the workflow has completed before.
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		EnableEagerStart:                         true,
		StaticSummary:                            fmt.Sprintf("Order of %s for subscription %s", in.Period.Title(), in.SubscriptionID),
		StaticDetails: fmt.Sprintf("Asks the shop for one order, under the request id `%s` unless the ledger has another.\n\n"+
			"Completed: charged. Failed: declined, refused or unresolved; the failure says which.", in.RequestID),
		TypedSearchAttributes: temporal.NewSearchAttributes(
			SubscriptionIDKey.ValueSet(in.SubscriptionID),
			BillingPeriodKey.ValueSet(in.Period.String()),
			ClubIDKey.ValueSet(fmt.Sprint(in.ClubID)),
			RequestIDKey.ValueSet(string(in.RequestID)),
		),
	}
}

// StartCharge starts ChargeSubscription, or joins the one that runs.
func (n Names) StartCharge(ctx context.Context, c client.Client, in ChargeInput) (client.WorkflowRun, error) {
	options := n.ChargeOptions(in)
	run, err := c.ExecuteWorkflow(ctx, options, ChargeSubscriptionName, in)
	var completed *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &completed) {
		return run, err
	}
	// It has charged, but the ledger did not show it when we looked. It was just settling:
	// then a new execution only reads the ledger. Or a person has corrected the charge to
	// declined: then our request id is a new attempt (decision 0018). Or the database is
	// older than the order, a restored backup: then the request id of the order, which the
	// history has kept, must be repeated (decision 0007). The claim asks the ledger which
	// it is. Or another installation has charged, which does not concern us.
	if in.Remembered, err = remembered(ctx, c, options.ID, completed.RunId, in.Installation); err != nil {
		return nil, err
	}
	options = n.ChargeOptions(in)
	options.WorkflowIDReusePolicy = enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
	return c.ExecuteWorkflow(ctx, options, ChargeSubscriptionName, in)
}

// remembered returns the request id with which the installation's newest execution of the
// workflow has charged, "" if there is none. It first looks at the newest of all, which is
// known to have completed.
func remembered(ctx context.Context, c client.Client, workflowID, newest, installation string) (billing.RequestID, error) {
	executions := []string{newest}
	for i := 0; i < len(executions); i++ {
		asked, err := inputOf(ctx, c, workflowID, executions[i])
		if err != nil {
			return "", err
		}
		if asked.Installation == installation {
			var charged billing.Charge
			err := c.GetWorkflow(ctx, workflowID, executions[i]).Get(ctx, &charged)
			return charged.RequestID, err
		}
		if i > 0 {
			continue
		}
		listed, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: fmt.Sprintf("WorkflowId = '%s' AND ExecutionStatus = 'Completed'", strings.ReplaceAll(workflowID, "'", "''")),
		})
		if err != nil {
			return "", err
		}
		for _, info := range listed.GetExecutions() {
			executions = append(executions, info.GetExecution().GetRunId())
		}
	}
	return "", nil
}

// inputOf reads the input of a workflow that has an installation from its history. It is the
// zero value if a person has started the workflow with something else.
func inputOf(ctx context.Context, c client.Client, workflowID, runID string) (in ChargeInput, err error) {
	events := c.GetWorkflowHistory(ctx, workflowID, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	if !events.HasNext() {
		return in, nil
	}
	started, err := events.Next()
	if err != nil {
		return in, err
	}
	input := started.GetWorkflowExecutionStartedEventAttributes().GetInput()
	if converter.GetDefaultDataConverter().FromPayloads(input, &in) != nil {
		return ChargeInput{}, nil
	}
	return in, nil
}
