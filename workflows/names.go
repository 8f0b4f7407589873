package workflows

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"drayman/billing"
)

// TaskQueue carries the workflows and their quick activities; OrderTaskQueue
// the retries of orders, so that a shop that hangs fills workers of its own
// only.
const (
	TaskQueue      = "drayman"
	OrderTaskQueue = "drayman-orders"
)

// ChargeSubscriptionName is the workflow's type.
const ChargeSubscriptionName = "ChargeSubscription"

// The search attributes by which operators find charges in the Temporal UI;
// Keywords all.
var (
	SubscriptionIDKey = temporal.NewSearchAttributeKeyKeyword("SubscriptionId")
	BillingPeriodKey  = temporal.NewSearchAttributeKeyKeyword("BillingPeriod")
	ClubIDKey         = temporal.NewSearchAttributeKeyKeyword("ClubId")
)

// SearchAttributes returns the types of the search attributes, by name, for the
// start-up that makes them.
func SearchAttributes() map[string]enumspb.IndexedValueType {
	types := map[string]enumspb.IndexedValueType{}
	for _, key := range []temporal.SearchAttributeKey{SubscriptionIDKey, BillingPeriodKey, ClubIDKey} {
		types[key.GetName()] = key.GetValueType()
	}
	return types
}

// ChargeWorkflowID names the one workflow that may charge the subscription for
// the period at a time.
func ChargeWorkflowID(subscriptionID string, period billing.Period) string {
	return fmt.Sprintf("charge/%s/%s", url.PathEscape(subscriptionID), period)
}

// chargeTaskTimeout bounds one workflow task. The first order call runs inside
// of it, see firstOrderTimeout.
const chargeTaskTimeout = 10 * time.Second

// ChargeOptions start ChargeSubscription. A second start joins the first; a
// completed one is not started again, a failed one is: it was declined, stands
// unresolved, or was ended by an operator, and the ledger knows.
func ChargeOptions(in ChargeInput) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID:                       ChargeWorkflowID(in.SubscriptionID, in.Period),
		TaskQueue:                TaskQueue,
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
		),
	}
}

// StartCharge starts ChargeSubscription, or joins the one that runs.
func StartCharge(ctx context.Context, c client.Client, in ChargeInput) (client.WorkflowRun, error) {
	options := ChargeOptions(in)
	run, err := c.ExecuteWorkflow(ctx, options, ChargeSubscriptionName, in)
	var completed *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &completed) {
		return run, err
	}
	// It has charged, yet the ledger did not show it when we looked. Either it
	// was just settling, and running again only reads the ledger; or a person has
	// corrected the charge to declined, and our request id is a new attempt; or the
	// database is older than the order (a restored backup), and then the order's own
	// request id, which the history has kept, must be repeated, not ours. The claim
	// asks the ledger which it is (decision 17).
	var charged billing.Charge
	if err := c.GetWorkflow(ctx, options.ID, completed.RunId).Get(ctx, &charged); err != nil {
		return nil, err
	}
	in.Remembered = charged.RequestID
	options = ChargeOptions(in)
	options.WorkflowIDReusePolicy = enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
	return c.ExecuteWorkflow(ctx, options, ChargeSubscriptionName, in)
}
