package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
)

// temporalCosts are what the workflows of a namespace cost Temporal.
type temporalCosts struct {
	Workflows int     `json:"workflows"` // ids
	Histories int     `json:"histories"` // executions, those after a continue-as-new too
	Events    int     `json:"events"`
	Bytes     int64   `json:"bytes"`
	Actions   actions `json:"actions"`
}

// actions by kind.
type actions struct {
	Starts          int `json:"starts"`           // continue-as-new included
	Activities      int `json:"activities"`       // each try is one
	LocalActivities int `json:"local_activities"` // workflow tasks that ran some
	Timers          int `json:"timers"`
	Messages        int `json:"messages"` // signals, updates
	Other           int `json:"other"`    // search attributes upserted, side effects
	Heartbeats      int `json:"heartbeats_estimated"`
}

func (a actions) total() int {
	return a.Starts + a.Activities + a.LocalActivities + a.Timers + a.Messages + a.Other + a.Heartbeats
}

// visibleWithin is how long closed workflows may take to be listed as closed.
const visibleWithin = 30 * time.Second

// costs reads all histories of the namespace, once no workflow is open.
func (s *site) costs(ctx context.Context) (*temporalCosts, error) {
	executions, err := s.closed(ctx)
	if err != nil {
		return nil, err
	}
	var total temporalCosts
	ids := map[string]bool{}
	for _, e := range executions {
		ids[e.GetExecution().GetWorkflowId()] = true
		events, err := s.history(ctx, e.GetExecution())
		if err != nil {
			return nil, err
		}
		total.Histories++
		total.Events += len(events)
		total.Bytes += e.GetHistorySizeBytes()
		total.Actions.count(events)
	}
	total.Workflows = len(ids)
	return &total, nil
}

func (s *site) closed(ctx context.Context) ([]*workflow.WorkflowExecutionInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, visibleWithin)
	defer cancel()
	for {
		executions, open, err := s.list(ctx)
		if err != nil || len(executions) > 0 && open == 0 {
			return executions, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d workflows do not close: %w", open, len(executions), ctx.Err())
		}
	}
}

func (s *site) list(ctx context.Context) (all []*workflow.WorkflowExecutionInfo, open int, err error) {
	for token := []byte(nil); ; {
		page, err := s.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: s.namespace, NextPageToken: token})
		if err != nil {
			return nil, 0, err
		}
		for _, e := range page.GetExecutions() {
			if e.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
				open++
			}
		}
		all = append(all, page.GetExecutions()...)
		if token = page.GetNextPageToken(); len(token) == 0 {
			return all, open, nil
		}
	}
}

func (s *site) history(ctx context.Context, e *common.WorkflowExecution) ([]*history.HistoryEvent, error) {
	iterator := s.temporal.GetWorkflowHistory(ctx, e.GetWorkflowId(), e.GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	var events []*history.HistoryEvent
	for iterator.HasNext() {
		event, err := iterator.Next()
		if err != nil {
			return nil, err
		}
		events = append(events, event)
	}
	if len(events) == 0 {
		return nil, errors.New("a history is empty")
	}
	return events, nil
}

// count adds the actions of a history, as https://docs.temporal.io/cloud/actions
// defines them: a workflow that starts or continues as new; an activity that is
// started or retried, each try; all local activities of one workflow task
// together; a timer that is started; a signal or update; an upsert of search
// attributes; a side effect; a heartbeat that reaches the server. Queries leave no
// event, and none are made here.
func (a *actions) count(events []*history.HistoryEvent) {
	scheduled := map[int64]*history.HistoryEvent{}
	local := map[int64]bool{} // workflow tasks with local activities
	for _, e := range events {
		switch e.GetEventType() { //nolint:exhaustive // the other events are no actions
		case enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			a.Starts++
		case enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			scheduled[e.GetEventId()] = e
		case enums.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			started := e.GetActivityTaskStartedEventAttributes()
			a.Activities += int(started.GetAttempt())
		case enums.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
			a.Heartbeats += heartbeats(scheduled[e.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()], e)
		case enums.EVENT_TYPE_MARKER_RECORDED:
			marker := e.GetMarkerRecordedEventAttributes()
			switch marker.GetMarkerName() {
			case "LocalActivity":
				local[marker.GetWorkflowTaskCompletedEventId()] = true
			case "SideEffect", "MutableSideEffect":
				a.Other++
			}
		case enums.EVENT_TYPE_TIMER_STARTED:
			a.Timers++
		case enums.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
			a.Messages++
		case enums.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
			a.Other++
		}
	}
	a.LocalActivities += len(local)
}

const (
	// beat is how often a long activity of drayman reports.
	beat = 2 * time.Second
	// throttled is the part of the heartbeat timeout in which the SDK lets only
	// one report through to the server.
	throttled = 0.8
)

// heartbeats estimates how many of an activity reached the server.
func heartbeats(scheduled, closed *history.HistoryEvent) int {
	timeout := scheduled.GetActivityTaskScheduledEventAttributes().GetHeartbeatTimeout().AsDuration()
	took := closed.GetEventTime().AsTime().Sub(scheduled.GetEventTime().AsTime())
	if timeout <= 0 || took < beat {
		return 0
	}
	return 1 + int((took-beat)/time.Duration(throttled*float64(timeout)))
}
