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

// Temporal is the Temporal server as activities see it. It starts workflows, and reads from
// the server's list and histories.
type Temporal struct {
	Client    client.Client
	Namespace string
	Names     Names
}

// StartCharge implements [activities.Temporal].
func (t Temporal) StartCharge(ctx context.Context, req billing.ChargeRequest) error {
	_, err := t.Names.StartCharge(ctx, t.Client, ChargeInput{ChargeRequest: req})
	return err
}

// StartRecall implements [activities.Temporal].
func (t Temporal) StartRecall(ctx context.Context, installation string) error {
	_, err := t.Names.StartRecall(ctx, t.Client, installation)
	return err
}

// list returns one list page of the executions that the query finds.
func (t Temporal) list(ctx context.Context, token []byte, query string, arguments ...any) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	return t.Client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Namespace: t.Namespace, PageSize: executionsPage, NextPageToken: token, Query: fmt.Sprintf(query, arguments...),
	})
}

// IsListed implements [activities.Temporal].
func (t Temporal) IsListed(ctx context.Context, workflowID, runID string) (bool, error) {
	listed, err := t.list(ctx, nil, "WorkflowId = '%s' AND RunId = '%s'", workflowID, runID)
	return err == nil && len(listed.Executions) > 0, err
}

// executionsPage is the most that a Temporal server lists at once by default.
const executionsPage = 1000

// Executions implements [activities.Temporal].
func (t Temporal) Executions(ctx context.Context, completed bool, token []byte) ([]activities.Execution, []byte, error) {
	which := "!="
	if completed {
		which = "="
	}
	listed, err := t.list(ctx, token, "WorkflowType = '%s' AND ExecutionStatus %s 'Completed'", ChargeSubscriptionName, which)
	if err != nil {
		return nil, nil, err
	}
	var page []activities.Execution
	for _, info := range listed.Executions {
		id := info.GetExecution().GetWorkflowId()
		subscription, period, ok := t.Names.charged(id)
		if ok { // else it was not started by us
			page = append(page, activities.Execution{
				WorkflowID: id, RunID: info.GetExecution().GetRunId(), SubscriptionID: subscription, Period: period,
			})
		}
	}
	return page, listed.NextPageToken, nil
}

// charged is the reverse of [Names.ChargeWorkflowID].
func (n Names) charged(workflowID string) (subscriptionID string, period billing.Period, ok bool) {
	rest, ours := strings.CutPrefix(workflowID, n.with("charge/"))
	escaped, month, both := strings.Cut(rest, "/")
	if !ours || !both {
		return "", period, false
	}
	id, err := url.PathUnescape(escaped)
	if err == nil {
		period, err = billing.ParsePeriod(month)
	}
	return id, period, err == nil
}

// Runs implements [activities.Temporal].
func (t Temporal) Runs(ctx context.Context, installation string) (runs []billing.Run, err error) {
	for token := []byte(nil); ; {
		listed, err := t.list(ctx, token, "WorkflowType = '%s' AND ExecutionStatus != 'ContinuedAsNew'", BillingRunName)
		if err != nil {
			return nil, err
		}
		for _, info := range listed.Executions {
			if !strings.HasPrefix(info.GetExecution().GetWorkflowId(), t.Names.with("billing-run/")) {
				continue // another installation's, or started by hand
			}
			run, err := t.run(ctx, installation, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId())
			if err != nil {
				return nil, fmt.Errorf("the history of %s: %w", info.GetExecution().GetWorkflowId(), err)
			}
			if run != nil {
				runs = append(runs, *run)
			}
		}
		if token = listed.NextPageToken; len(token) == 0 {
			return runs, nil
		}
	}
}

// run reads the run of an execution, as its history last shows it; nil if it was never
// recorded, or is another installation's. If the execution has ended without completing, the
// run is abandoned.
func (t Temporal) run(ctx context.Context, installation, workflowID, runID string) (run *billing.Run, err error) {
	data := converter.GetDefaultDataConverter()
	events := t.Client.GetWorkflowHistory(ctx, workflowID, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		var gone *serviceerror.NotFound
		switch {
		case errors.As(err, &gone):
			return nil, nil // its retention has ended
		case err != nil:
			return nil, err
		}
		switch attributes := event.GetAttributes().(type) {
		case *history.HistoryEvent_WorkflowExecutionStartedEventAttributes:
			var in RunInput
			if data.FromPayloads(attributes.WorkflowExecutionStartedEventAttributes.GetInput(), &in) != nil || in.Installation != installation {
				return nil, nil // a person has started it with a wrong input; or it is not ours
			}
			if in.State != nil {
				run = &in.State.Run
			}
		case *history.HistoryEvent_ActivityTaskCompletedEventAttributes:
			var out struct{ Run *billing.Run }
			if data.FromPayloads(attributes.ActivityTaskCompletedEventAttributes.GetResult(), &out) == nil && out.Run != nil && out.Run.ID != "" {
				run = out.Run // of StartRun and of WatchRun
			}
		case *history.HistoryEvent_WorkflowExecutionCompletedEventAttributes:
			var ended billing.Progress
			err := data.FromPayloads(attributes.WorkflowExecutionCompletedEventAttributes.GetResult(), &ended)
			return &ended.Run, err
		case *history.HistoryEvent_WorkflowExecutionFailedEventAttributes, *history.HistoryEvent_WorkflowExecutionTerminatedEventAttributes,
			*history.HistoryEvent_WorkflowExecutionTimedOutEventAttributes, *history.HistoryEvent_WorkflowExecutionCanceledEventAttributes:
			if run != nil {
				at := event.GetEventTime().AsTime()
				run.State, run.EndedAt = billing.RunAbandoned, &at
			}
		}
	}
	return run, nil
}

// Charge implements [activities.Temporal].
func (t Temporal) Charge(ctx context.Context, installation string, e activities.Execution) (*billing.Charge, error) {
	var in ChargeInput
	var claimed activities.ClaimChargeOutput
	var placed activities.PlaceOrderInput
	data := converter.GetDefaultDataConverter()
	events := t.Client.GetWorkflowHistory(ctx, e.WorkflowID, e.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
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
				return nil, nil // a person has started it with a wrong input, which the workflow refuses
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
				return known.Charge, nil // nil if it was refused: then nothing was asked of the shop
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

// withoutOutcome is the charge of an execution that still runs, or was ended from outside.
// Its request id is "" if it is to be derived and was given to no activity: then a run
// derives the same one.
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
