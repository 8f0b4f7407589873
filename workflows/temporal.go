package workflows

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.temporal.io/api/common/v1"
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

// Runs implements [activities.Temporal]. A run that has continued as new is listed once for
// each execution; the latest comes first, and counts.
func (t Temporal) Runs(ctx context.Context, installation string) (runs []billing.Run, err error) {
	known := map[string]bool{}
	for token := []byte(nil); ; {
		listed, err := t.list(ctx, token, "WorkflowType = '%s'", BillingRunName)
		if err != nil {
			return nil, err
		}
		for _, info := range listed.Executions {
			id := info.GetExecution().GetWorkflowId()
			if !strings.HasPrefix(id, t.Names.with("billing-run/")) {
				continue // another installation's, or started by hand
			}
			run, err := t.run(ctx, installation, info.GetExecution(), known)
			if err != nil {
				return nil, fmt.Errorf("the history of %s: %w", id, err)
			}
			if run != nil {
				known[run.ExecutionID] = true
				runs = append(runs, *run)
			}
		}
		if token = listed.NextPageToken; len(token) == 0 {
			return runs, nil
		}
	}
}

// run reads the run that an execution is of, as it last was in the input of its history and in
// the results of StartRun and WatchRun, which have a field "run" alone; nil if it was
// never recorded, is known by its first execution, or is another installation's. A run that
// has ended in any other way than by its completion is abandoned.
func (t Temporal) run(ctx context.Context, installation string, e *common.WorkflowExecution, known map[string]bool) (run *billing.Run, err error) {
	data := converter.GetDefaultDataConverter()
	events := t.Client.GetWorkflowHistory(ctx, e.GetWorkflowId(), e.GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := nextEvent(events)
		if event == nil {
			return nil, err
		}
		switch attributes := event.GetAttributes().(type) {
		case *history.HistoryEvent_WorkflowExecutionStartedEventAttributes:
			var in RunInput
			started := attributes.WorkflowExecutionStartedEventAttributes
			if data.FromPayloads(started.GetInput(), &in) != nil || in.Installation != installation || known[started.GetFirstExecutionRunId()] {
				return nil, nil // started by hand, and wrongly; or not ours; or known
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
		default:
			abandon(run, event)
		}
	}
	return run, nil
}

// nextEvent returns neither an event nor an error if the retention of the history has ended.
func nextEvent(events client.HistoryEventIterator) (*history.HistoryEvent, error) {
	event, err := events.Next()
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return nil, nil
	}
	return event, err
}

// abandon ends the run if the event ends its execution without completing it.
func abandon(run *billing.Run, event *history.HistoryEvent) {
	switch event.GetAttributes().(type) {
	case *history.HistoryEvent_WorkflowExecutionFailedEventAttributes, *history.HistoryEvent_WorkflowExecutionTerminatedEventAttributes,
		*history.HistoryEvent_WorkflowExecutionTimedOutEventAttributes, *history.HistoryEvent_WorkflowExecutionCanceledEventAttributes:
		if run != nil {
			at := event.GetEventTime().AsTime()
			run.State, run.EndedAt = billing.RunAbandoned, &at
		}
	}
}

// Charge implements [activities.Temporal].
func (t Temporal) Charge(ctx context.Context, installation string, e activities.Execution) (*billing.Charge, error) {
	told := story{claims: map[int64]bool{}}
	events := t.Client.GetWorkflowHistory(ctx, e.WorkflowID, e.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := nextEvent(events)
		if event == nil {
			return nil, err
		}
		if err := told.read(event); err != nil {
			return nil, fmt.Errorf("the history of %s: %w", e.WorkflowID, err)
		}
	}
	if !told.readable || told.in.Installation != installation {
		return nil, nil
	}
	return told.charge()
}

// story is what the history of a ChargeSubscription tells.
type story struct {
	readable bool // else a person has started it with a wrong input, which the workflow refuses
	in       ChargeInput
	claimed  activities.ClaimChargeOutput
	placed   activities.PlaceOrderInput
	claims   map[int64]bool // activities that claim, by the event that has scheduled them
	waits    bool           // for such an activity: the local claim has failed, and sent nothing
	tasks    int            // begun
	through  int            // completed
	broken   bool           // a task was not completed by the worker that began it
	ended    bool
	outcome  *billing.Charge // with ended; nil if it made no charge
}

func (s *story) read(event *history.HistoryEvent) (err error) {
	data := converter.GetDefaultDataConverter()
	switch attributes := event.GetAttributes().(type) {
	case *history.HistoryEvent_WorkflowExecutionStartedEventAttributes:
		s.readable = data.FromPayloads(attributes.WorkflowExecutionStartedEventAttributes.GetInput(), &s.in) == nil
	case *history.HistoryEvent_WorkflowTaskStartedEventAttributes:
		s.tasks++
	case *history.HistoryEvent_WorkflowTaskCompletedEventAttributes:
		s.through++
	case *history.HistoryEvent_WorkflowTaskFailedEventAttributes, *history.HistoryEvent_WorkflowTaskTimedOutEventAttributes:
		s.through, s.broken = s.through+1, true
	case *history.HistoryEvent_ActivityTaskScheduledEventAttributes:
		switch scheduled := attributes.ActivityTaskScheduledEventAttributes; scheduled.GetActivityType().GetName() {
		case "ClaimCharge":
			s.claims[event.GetEventId()], s.waits = true, true
		case "PlaceOrder":
			err = data.FromPayloads(scheduled.GetInput(), &s.placed)
		}
	case *history.HistoryEvent_ActivityTaskCompletedEventAttributes:
		if completed := attributes.ActivityTaskCompletedEventAttributes; s.claims[completed.GetScheduledEventId()] {
			s.claimed, s.waits = activities.ClaimChargeOutput{}, false
			err = data.FromPayloads(completed.GetResult(), &s.claimed)
		}
	case *history.HistoryEvent_MarkerRecordedEventAttributes:
		err = readClaim(data, attributes.MarkerRecordedEventAttributes, &s.claimed)
	case *history.HistoryEvent_WorkflowExecutionCompletedEventAttributes:
		s.ended, s.outcome = true, &billing.Charge{}
		err = data.FromPayloads(attributes.WorkflowExecutionCompletedEventAttributes.GetResult(), s.outcome)
	case *history.HistoryEvent_WorkflowExecutionFailedEventAttributes:
		failure := temporal.GetDefaultFailureConverter().FailureToError(attributes.WorkflowExecutionFailedEventAttributes.GetFailure())
		// Refused by a worker of another installation, one before it may have asked.
		if known := FailureOf(failure); known != nil && known.Code != billing.CodeOtherInstallation {
			s.ended, s.outcome = true, known.Charge // nil if it was refused: then nothing was asked of the shop
		}
	}
	return err
}

// errBegins says that the history does not tell yet whether the execution may ask.
var errBegins = errors.New("a charge begins just now; its history does not tell yet whether it asks the shop")

// charge is the charge that the history shows; nil if nothing can have been asked of the
// shop. The workflow may have asked before its history says so: claim, order and settle are
// local activities of its first task.
func (s *story) charge() (*billing.Charge, error) {
	placed := s.placed.Charge
	switch {
	case s.ended:
		return s.outcome, nil
	case placed.RequestID != "":
		return &placed, nil
	case s.claimed.Charge != nil && (s.claimed.Step == billing.StepPlace || s.claimed.Step == billing.StepJoin):
		return s.claimed.Charge, nil // its own, or that of the page for which it waits
	case s.in.RequestID == "": // a run asks again for the one that it derives
		return nil, nil
	case s.tasks == 0, s.waits && !s.broken: // no worker has begun; or the claim was refused
		return nil, nil
	case s.tasks > s.through && !s.broken:
		return nil, errBegins
	}
	return &billing.Charge{
		RequestID: s.in.RequestID, SubscriptionID: s.in.SubscriptionID, Period: s.in.Period, RunID: s.in.RunID, Status: billing.Pending,
	}, nil
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
	*claimed = activities.ClaimChargeOutput{} // decoding into an old one would keep what is absent now
	return data.FromPayloads(details["result"], claimed)
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
