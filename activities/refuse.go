package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"

	"drayman/billing"
)

// Waits before an activity is tried again that this worker may not carry out yet.
const (
	// elsewhere: another worker, on the right database, may be the next to take it.
	elsewhere = 5 * time.Second
	// recallPause: the recall looks through the database.
	recallPause = time.Second
)

// asFailure makes an error of the domain final for Temporal, under its code, with
// itself as details; any other error is left to be tried again.
func asFailure(err error) error {
	var known *billing.Error
	if !errors.As(err, &known) {
		return err
	}
	return temporal.NewApplicationErrorWithOptions(known.Detail, string(known.Code),
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{known}})
}

// failureCode returns the code of an error that [asFailure] has made final.
func failureCode(err error) billing.Code {
	var failure *temporal.ApplicationError
	if !errors.As(err, &failure) {
		return ""
	}
	return billing.Code(failure.Type())
}

// notYet makes a refusal of the database an error that is tried again: a person adopts the
// database, or the recall, which notYet starts, looks through it. Nothing has been done by
// then. The Temporal UI shows the refusal meanwhile. Other errors are returned as they are.
func (a *Activities) notYet(ctx context.Context, installation string, err error) error {
	wait := elsewhere
	switch billing.CodeOf(err) {
	case billing.CodeDatabaseReplaced:
		a.startRecall(ctx, installation)
		wait = recallPause
	case billing.CodeNotAdopted:
		a.log.ErrorContext(ctx, "this worker does not charge", "error", err)
	default:
		return err
	}
	return temporal.NewApplicationErrorWithOptions(err.Error(), string(billing.CodeOf(err)), temporal.ApplicationErrorOptions{NextRetryDelay: wait})
}

// startRecall starts the recall; each activity that meets database_replaced does so. If it
// fails, the next try of the activity starts it.
func (a *Activities) startRecall(ctx context.Context, installation string) {
	if err := a.temporal.StartRecall(ctx, installation); err != nil {
		a.log.WarnContext(ctx, "the workflow Recall cannot be started yet", "error", err)
	}
}

// requireOurs returns an error if this worker's database is not the installation that asks.
// Another worker may do the work, so the error is tried again.
func (a *Activities) requireOurs(ctx context.Context, asked string) error {
	_, err := a.installation(ctx, asked)
	return err
}

// requireCharging is [Activities.requireOurs] for what leads to orders: the database
// must also be one that may charge.
func (a *Activities) requireCharging(ctx context.Context, asked string) error {
	found, err := a.installation(ctx, asked)
	if err != nil {
		return err
	}
	return a.notYet(ctx, asked, found.MayCharge())
}

func (a *Activities) installation(ctx context.Context, asked string) (billing.Installation, error) {
	found, err := within(ctx, a.store.Installation)
	if err == nil {
		err = found.Requires(asked)
	}
	if billing.CodeOf(err) != billing.CodeOtherInstallation {
		return found, err
	}
	a.log.ErrorContext(ctx, "this worker does not charge", "error", err)
	return found, temporal.NewApplicationErrorWithOptions(err.Error(), string(billing.CodeOtherInstallation),
		temporal.ApplicationErrorOptions{NextRetryDelay: elsewhere})
}
