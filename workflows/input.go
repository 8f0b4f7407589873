package workflows

import (
	"cmp"
	"errors"
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"drayman/billing"
)

// The JSON that workflows and updates take, as people are shown it.
const (
	chargeForm    = `{"installation": "…", "subscription_id": "…", "period": "2026-11", "request_id": "…", "require_eligible": true}`
	runForm       = `{"installation": "…", "period": "2026-11", "settings": {"orders_per_second": 20}}`
	scheduledForm = `{"installation": "…", "timezone": "UTC", "settings": {"orders_per_second": 20}}`
	recallForm    = `{"installation": "…"}`
	pauseForm     = `{"reason": "…"}, or no data`
	paceForm      = `{"orders_per_second": 20}; 0 is no cap`
	nothingForm   = "no data"
)

// decode reads an input that may have been typed in the Temporal UI, strictly: see
// [billing.DecodeStrict]. If there is no data and no field is required, it leaves into as it
// is. The error shows the form.
func decode(raw converter.RawValue, into any, form string, required ...string) error {
	err := decodePayload(raw, into, required)
	var invalid *billing.Error
	if errors.As(err, &invalid) {
		return &billing.Error{Code: invalid.Code, Field: invalid.Field, Detail: invalid.Detail + "; it takes " + form}
	}
	return err
}

func decodePayload(raw converter.RawValue, into any, required []string) error {
	payload := raw.Payload()
	data := payload.GetData()
	switch encoding := string(payload.GetMetadata()[converter.MetadataEncoding]); encoding {
	case converter.MetadataEncodingJSON, converter.MetadataEncodingProtoJSON:
	case converter.MetadataEncodingNil, "":
		data = nil
	default:
		return billing.Invalid("input", fmt.Sprintf("must be JSON, not %.40q", encoding))
	}
	switch {
	case len(data) > 0 && string(data) != "null":
		//workflowcheck:ignore // encoding/json keeps only what it knows of types
		return billing.DecodeStrict(data, into, required...)
	case len(required) > 0:
		return billing.Invalid("input", "must be given")
	}
	return nil
}

// refusal fails a workflow, or refuses an update, with an error of the domain:
// under its code, with itself as details.
func refusal(err error) error {
	var known *billing.Error
	if !errors.As(err, &known) {
		return err
	}
	return temporal.NewApplicationErrorWithOptions(known.Detail, string(known.Code),
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{known}})
}

// readCharge reads the input of ChargeSubscription.
func readCharge(ctx workflow.Context, raw converter.RawValue) (in ChargeInput, err error) {
	if err := decode(raw, &in, chargeForm, "subscription_id", "period", "require_eligible"); err != nil {
		return in, err
	}
	if err := in.Validate(); err != nil {
		return in, err
	}
	return in, checkID(ctx, namesOf(ctx).ChargeWorkflowID(in.SubscriptionID, in.Period))
}

// checkID refuses an execution under another id than the one that lets only one
// charge, or run, of this input be at work at a time.
func checkID(ctx workflow.Context, id string) error {
	if got := workflow.GetInfo(ctx).WorkflowExecution.ID; got != id {
		return billing.Invalid("workflow id", fmt.Sprintf("must be %q for this input, not %.200q", id, got))
	}
	return nil
}

// readRun reads the input of BillingRun. Only the run itself may have given it a state.
func readRun(ctx workflow.Context, raw converter.RawValue) (in RunInput, err error) {
	if err := decode(raw, &in, runForm, "period"); err != nil {
		return in, err
	}
	if err := cmp.Or(in.Period.Validate(), in.Settings.WithDefaults().Validate(), checkID(ctx, namesOf(ctx).RunWorkflowID(in.Period))); err != nil {
		return in, err
	}
	info := workflow.GetInfo(ctx)
	switch {
	case in.State == nil:
		return in, nil
	case info.ContinuedExecutionRunID == "" || info.CronSchedule != "":
		return in, billing.Invalid("state", "must not be given: only a run that continues has one; leave it out, and the run begins anew")
	}
	return in, in.State.validate(in.Period)
}

// mostBad is far beyond the pages that can stop in a row before the run pauses.
const mostBad = 1000

func (s *runState) validate(period billing.Period) error {
	switch {
	case s.Run.Period != period || !billing.IsRunOf(s.Run.ID, period) || (s.Execution == "") != (s.Recalled == ""):
		return billing.Invalid("state", "must be of a run of "+period.String())
	case s.Pages < 0 || s.Bad < 0 || s.Bad > mostBad:
		return billing.Invalid("state", "must count from 0 on")
	}
	return s.Run.Settings.Validate()
}

func readPause(raw converter.RawValue) (in PauseRequest, err error) {
	if err := decode(raw, &in, pauseForm); err != nil {
		return in, refusal(err)
	}
	return in, refusal(billing.ValidateText("reason", in.Reason, 0, billing.MaxReason))
}

func readPace(raw converter.RawValue) (in PaceRequest, err error) {
	if err := decode(raw, &in, paceForm, "orders_per_second"); err != nil {
		return in, refusal(err)
	}
	return in, refusal(billing.ValidatePace(in.OrdersPerSecond))
}

// readNothing is for updates that take no data.
func readNothing(raw converter.RawValue) error {
	return refusal(decode(raw, &struct{}{}, nothingForm))
}
