package workflows

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"drayman/activities"
	"drayman/billing"
)

// Memory reads charges from Temporal's visibility and histories.
type Memory struct {
	Client    client.Client
	Namespace string
	Names     Names
}

// executionsPage is the most that a Temporal server lists at once by default.
const executionsPage = 1000

// Executions implements [activities.Memory].
func (m Memory) Executions(ctx context.Context, period billing.Period, completed bool, token []byte) ([]activities.Execution, []byte, error) {
	which := "!="
	if completed {
		which = "="
	}
	listed, err := m.Client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Namespace: m.Namespace, PageSize: executionsPage, NextPageToken: token,
		Query: fmt.Sprintf("WorkflowType = '%s' AND %s = '%s' AND ExecutionStatus %s 'Completed'",
			ChargeSubscriptionName, BillingPeriodKey.GetName(), period, which),
	})
	if err != nil {
		return nil, nil, err
	}
	var page []activities.Execution
	for _, info := range listed.Executions {
		id := info.GetExecution().GetWorkflowId()
		subscription, ok := m.Names.chargedSubscription(id, period)
		if ok { // else it was not started by us
			page = append(page, activities.Execution{WorkflowID: id, RunID: info.GetExecution().GetRunId(), SubscriptionID: subscription})
		}
	}
	return page, listed.NextPageToken, nil
}

// chargedSubscription is the reverse of [Names.ChargeWorkflowID].
func (n Names) chargedSubscription(workflowID string, period billing.Period) (string, bool) {
	rest, ok := strings.CutPrefix(workflowID, n.with("charge/"))
	if !ok {
		return "", false
	}
	escaped, ok := strings.CutSuffix(rest, "/"+period.String())
	if !ok {
		return "", false
	}
	id, err := url.PathUnescape(escaped)
	return id, err == nil
}

// Charge implements [activities.Memory].
func (m Memory) Charge(ctx context.Context, installation string, e activities.Execution) (*billing.Charge, error) {
	var in ChargeInput
	var claimed activities.ClaimChargeOutput
	var placed activities.PlaceOrderInput
	data := converter.GetDefaultDataConverter()
	events := m.Client.GetWorkflowHistory(ctx, e.WorkflowID, e.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		var gone *serviceerror.NotFound
		if errors.As(err, &gone) {
			return nil, nil // its retention has ended
		}
		if err != nil {
			return nil, err
		}
		switch attributes := event.GetAttributes().(type) {
		case *history.HistoryEvent_WorkflowExecutionStartedEventAttributes:
			if data.FromPayloads(attributes.WorkflowExecutionStartedEventAttributes.GetInput(), &in) != nil {
				return nil, nil // started by hand, and wrongly: the workflow cannot have read it either
			}
			if in.Installation != installation {
				return nil, nil
			}
		case *history.HistoryEvent_ActivityTaskScheduledEventAttributes: // PlaceOrder is the only one
			err = data.FromPayloads(attributes.ActivityTaskScheduledEventAttributes.GetInput(), &placed)
		case *history.HistoryEvent_MarkerRecordedEventAttributes:
			err = readClaim(data, attributes.MarkerRecordedEventAttributes, &claimed)
		case *history.HistoryEvent_WorkflowExecutionCompletedEventAttributes:
			var charged billing.Charge
			err = data.FromPayloads(attributes.WorkflowExecutionCompletedEventAttributes.GetResult(), &charged)
			return &charged, err
		case *history.HistoryEvent_WorkflowExecutionFailedEventAttributes:
			failure := temporal.GetDefaultFailureConverter().FailureToError(attributes.WorkflowExecutionFailedEventAttributes.GetFailure())
			// Refused by a worker of another installation, one before it may have asked.
			if known := FailureOf(failure); known != nil && known.Code != billing.CodeOtherInstallation {
				return known.Charge, nil // nil where it was refused: then nothing was asked of the shop
			}
		}
		if err != nil {
			return nil, fmt.Errorf("the history of %s: %w", e.WorkflowID, err)
		}
	}
	return withoutOutcome(in, claimed, placed), nil
}

// readClaim decodes the marker of the local activity ClaimCharge, as the SDK
// writes it; other markers leave claimed as it is.
func readClaim(data converter.DataConverter, marker *history.MarkerRecordedEventAttributes, claimed *activities.ClaimChargeOutput) error {
	var activity struct{ ActivityType string }
	details := marker.GetDetails()
	if marker.GetMarkerName() != "LocalActivity" || details["result"] == nil {
		return nil
	}
	if err := data.FromPayloads(details["data"], &activity); err != nil || activity.ActivityType != "ClaimCharge" {
		return err
	}
	return data.FromPayloads(details["result"], claimed)
}

// withoutOutcome is the charge of an execution that still runs, or was ended from
// outside. A derived request id that no activity was given is the one that a run
// derives again.
func withoutOutcome(in ChargeInput, claimed activities.ClaimChargeOutput, placed activities.PlaceOrderInput) *billing.Charge {
	switch {
	case placed.Charge.RequestID == "" && claimed.Step == billing.StepPlace && claimed.Charge != nil:
		return claimed.Charge
	case placed.Charge.RequestID != "":
		return &placed.Charge
	case in.RequestID != "":
		return &billing.Charge{RequestID: in.RequestID, SubscriptionID: in.SubscriptionID, Period: in.Period, Status: billing.Pending}
	}
	return nil
}

// FailureOf returns the domain's error inside of a failed workflow, nil if there
// is none.
func FailureOf(err error) *billing.Error {
	var failure *temporal.ApplicationError
	var known billing.Error
	if errors.As(err, &failure) && failure.HasDetails() && failure.Details(&known) == nil && known.Code != "" {
		return &known
	}
	return nil
}
