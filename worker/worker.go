package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	sdk "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"drayman/activities"
	"drayman/workflows"
)

// The SDK's default of two pollers is too few for a busy queue. Tasks wait for the shop most
// of the time, so one core carries concurrentTasks of them.
const (
	pollers         = 8
	concurrentTasks = 200
)

// Workers polls both task queues of one process.
type Workers struct {
	client client.Client
	names  workflows.Names
	acts   *activities.Activities
	drain  time.Duration
	// failed takes the error for which the SDK has given up a poll.
	failed chan error
}

// New makes workers of the client, which poll the task queues of the names. drain is
// how long a stop waits for what is under way.
func New(c client.Client, names workflows.Names, acts *activities.Activities, drain time.Duration) *Workers {
	return &Workers{client: c, names: names, acts: acts, drain: drain, failed: make(chan error, 1)}
}

// register makes the SDK's workers, which cannot be started again after a stop. Each kind of
// work has a worker of its own: one worker for several kinds would stop them one after the
// other, and pages would go on ordering until the last workflow task is done.
func (w *Workers) register(log *slog.Logger) []sdk.Worker {
	options := sdk.Options{
		MaxConcurrentWorkflowTaskPollers:        pollers,
		MaxConcurrentActivityTaskPollers:        pollers,
		MaxConcurrentLocalActivityExecutionSize: 2 * activities.CallsAtOnce,
		MaxConcurrentActivityExecutionSize:      concurrentTasks,
		WorkerStopTimeout:                       w.drain,
		OnFatalError:                            w.fail,
	}
	flows := options
	flows.LocalActivityWorkerOnly = true
	flows.Interceptors = []interceptor.WorkerInterceptor{&teller{log: log}}
	main := sdk.New(w.client, w.names.TaskQueue(), flows)
	main.RegisterWorkflowWithOptions(workflows.ChargeSubscription, workflow.RegisterOptions{Name: workflows.ChargeSubscriptionName})
	main.RegisterWorkflowWithOptions(workflows.BillingRun, workflow.RegisterOptions{Name: workflows.BillingRunName})
	main.RegisterWorkflowWithOptions(workflows.Recall, workflow.RegisterOptions{Name: workflows.RecallName})
	main.RegisterWorkflowWithOptions(workflows.ScheduledRun, workflow.RegisterOptions{Name: workflows.ScheduledRunName})

	main.RegisterActivity(w.acts)

	options.DisableWorkflowWorker = true
	quick, orders := sdk.New(w.client, w.names.TaskQueue(), options), sdk.New(w.client, w.names.OrderTaskQueue(), options)
	registerGuarded(quick, w.acts)
	registerGuarded(orders, w.acts)
	return []sdk.Worker{main, quick, orders}
}

// fail records that a worker no longer polls. One error is enough to begin anew.
func (w *Workers) fail(err error) {
	select {
	case w.failed <- err:
	default:
	}
}

// Run polls until the context ends, then lets what is under way finish. It waits for a
// Temporal server that cannot be reached. If the namespace is away for minutes, the SDK gives
// up, and Run begins anew.
func (w *Workers) Run(ctx context.Context, c client.Client, namespace string, log *slog.Logger) error {
	for {
		if err := Prepare(ctx, c, namespace, log); err != nil || ctx.Err() != nil {
			return err
		}
		failure, err := w.poll(ctx, namespace, log)
		if err != nil || failure == nil {
			return err
		}
		log.ErrorContext(ctx, "the worker could not poll any longer and begins anew", "error", failure)
	}
}

// poll returns what made the SDK give up, nil when the context has ended.
func (w *Workers) poll(ctx context.Context, namespace string, log *slog.Logger) (failure, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-w.failed: //nolint:errcheck // of workers that are stopped by now
	default:
	}
	workers := w.register(log)
	for i, worker := range workers {
		if err := worker.Start(); err != nil {
			return nil, errors.Join(fmt.Errorf("starting the worker: %w", err), w.stop(workers[:i]))
		}
	}
	log.InfoContext(ctx, "worker polls", "task_queues", []string{w.names.TaskQueue(), w.names.OrderTaskQueue()})
	go keepPrepared(ctx, w.client, namespace, log)
	select {
	case <-ctx.Done():
		return nil, w.stop(workers)
	case failure = <-w.failed:
		err := w.stop(workers)
		if ctx.Err() == nil {
			err = nil // Temporal gives work that was cut to others, as after any failure
		}
		return failure, err
	}
}

// stop stops the workers at once, and returns an error if work is left after the drain time.
// Temporal then gives that work to another worker, after its timeout.
func (w *Workers) stop(workers []sdk.Worker) error {
	begun := time.Now()
	var stops sync.WaitGroup
	for _, worker := range workers {
		stops.Go(worker.Stop)
	}
	stopped := make(chan struct{})
	go func() { // outlives the deadline: only the end of the process ends it then
		stops.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(w.drain):
	}
	if time.Since(begun) >= w.drain { // the SDK gives up after the same time, and does not say so
		return fmt.Errorf("the worker's work was cut after %s", w.drain)
	}
	return nil
}

// preparePause is the wait between two tries to reach the Temporal server.
const preparePause = time.Second

// Prepare makes the search attributes that the workflows carry, if they are missing, and
// waits until the server takes them. It also waits for the server. It returns an error only
// if another try is of no use, and nil if the context ended.
func Prepare(ctx context.Context, c client.Client, namespace string, log *slog.Logger) error {
	for warned := false; ; {
		err := tryPrepare(ctx, c, namespace)
		var denied *serviceerror.PermissionDenied
		switch {
		case err == nil, ctx.Err() != nil:
			return nil
		case errors.As(err, &denied):
			return fmt.Errorf("the search attributes SubscriptionId, BillingPeriod, ClubId and RequestId (Keyword) are missing, "+
				"and we may not make them; add them to the namespace by hand: %w", err)
		case !warned && !errors.Is(err, errNotUsable):
			log.WarnContext(ctx, "waiting for the Temporal server", "error", err)
			warned = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(preparePause):
		}
	}
}

// prepareAgain is how often a process looks whether the search attributes are
// still there. A new Temporal server has none, and refuses every start without
// them; the look is one query of visibility that finds nothing.
const prepareAgain = 10 * time.Second

// Keep does what [Prepare] does, again whenever the server was made anew, until the context
// ends.
func Keep(ctx context.Context, c client.Client, namespace string, log *slog.Logger) error {
	if err := Prepare(ctx, c, namespace, log); err != nil {
		return err
	}
	keepPrepared(ctx, c, namespace, log)
	return nil
}

func keepPrepared(ctx context.Context, c client.Client, namespace string, log *slog.Logger) {
	ticker := time.NewTicker(prepareAgain)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// What worked before is no reason to end now.
		if err := Prepare(ctx, c, namespace, log); err != nil {
			log.ErrorContext(ctx, "the Temporal server is not as it was", "error", err)
		}
	}
}

// errNotUsable says that not all parts of the server know the search attributes yet: they
// cache what a namespace has.
var errNotUsable = errors.New("the search attributes are not usable yet")

func tryPrepare(ctx context.Context, c client.Client, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	missing := workflows.SearchAttributes()
	var terms []string
	for name := range missing {
		terms = append(terms, name+" = ''")
	}
	// A query is refused as long as one of them is unknown.
	_, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
		Namespace: namespace, Query: strings.Join(terms, " AND "),
	})
	var unknown *serviceerror.InvalidArgument
	if !errors.As(err, &unknown) {
		return err
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: namespace, SearchAttributes: missing,
	})
	var exists *serviceerror.AlreadyExists
	if err == nil || errors.As(err, &exists) {
		return errNotUsable
	}
	return err
}
