package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	sdk "go.temporal.io/sdk/worker"

	"drayman/activities"
	"drayman/billing"
	"drayman/workflows"
)

// asked says which type of workflow asks for each activity. A person can make a Temporal
// server start an activity without a workflow, or for any workflow that names it.
var asked = map[string]string{
	"ClaimCharge":  workflows.ChargeSubscriptionName,
	"PlaceOrder":   workflows.ChargeSubscriptionName,
	"SettleCharge": workflows.ChargeSubscriptionName,
	"StartRun":     workflows.BillingRunName,
	"ChangeRun":    workflows.BillingRunName,
	"Progress":     workflows.BillingRunName,
	"PlanRun":      workflows.BillingRunName,
	"ChargePage":   workflows.BillingRunName,
	"WatchRun":     workflows.BillingRunName,
	"Recall":       workflows.RecallName,
}

// Types of the errors of an activity that was not carried out.
const (
	failureNotAsked = "not_asked_by_a_workflow"
	failureInput    = string(billing.CodeInvalid)
)

// registerGuarded registers the methods of the activities by name. Each is carried out only
// for the workflow that asks for it. Any other start fails for good. So does an input that
// cannot be read, which the SDK would try again without end.
func registerGuarded(worker sdk.Worker, acts *activities.Activities) {
	all := reflect.ValueOf(acts)
	for i := range all.NumMethod() {
		name := all.Type().Method(i).Name
		worker.RegisterActivityWithOptions(guarded(name, all.Method(i)), activity.RegisterOptions{Name: name})
	}
}

func guarded(name string, method reflect.Value) any {
	return func(ctx context.Context, raw converter.RawValue) (any, error) {
		if err := mayAsk(name, activity.GetInfo(ctx)); err != nil {
			return nil, err
		}
		in := reflect.New(method.Type().In(1))
		if err := converter.GetDefaultDataConverter().FromPayload(raw.Payload(), in.Interface()); err != nil {
			return nil, temporal.NewNonRetryableApplicationError(fmt.Sprintf("the input of %s cannot be read", name), failureInput, err)
		}
		out := method.Call([]reflect.Value{reflect.ValueOf(ctx), in.Elem()})
		if err, failed := out[1].Interface().(error); failed {
			return nil, err
		}
		return out[0].Interface(), nil
	}
}

func mayAsk(name string, info activity.Info) error {
	by := "nobody"
	if info.WorkflowType != nil && info.WorkflowExecution.ID != "" {
		by = info.WorkflowType.Name
	}
	if want := asked[name]; want == "" || by != want {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("%s is a step of the workflow %s, and was asked for by %.100s; "+
			"nothing was done: start the workflow instead", name, want, by), failureNotAsked, nil)
	}
	return nil
}

// teller logs each try of a local activity that fails with an error outside the domain.
// No history shows such a try before the last one.
type teller struct {
	interceptor.WorkerInterceptorBase
	log *slog.Logger
}

func (t *teller) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &told{interceptor.ActivityInboundInterceptorBase{Next: next}, t.log}
}

type told struct {
	interceptor.ActivityInboundInterceptorBase
	log *slog.Logger
}

func (t *told) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	out, err := t.Next.ExecuteActivity(ctx, in)
	var known *temporal.ApplicationError
	if info := activity.GetInfo(ctx); err != nil && info.IsLocalActivity && !errors.As(err, &known) {
		t.log.WarnContext(ctx, "a step of a workflow failed and is tried again", "step", info.ActivityType.Name,
			"workflow", info.WorkflowExecution.ID, "attempt", info.Attempt, "error", err)
	}
	return out, err
}
