package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/temporal"

	"drayman/billing"
)

// elsewhere is the wait before an activity is tried again that this worker may not
// do: another worker, on the right database, may be the next to take it.
const elsewhere = 5 * time.Second

// requireOurs returns an error unless this worker's database is the installation that
// asks. Nothing has been done then, and another worker may do it: so the error is
// tried again, and the Temporal UI shows it until a person sees to it.
func (a *Activities) requireOurs(ctx context.Context, asked string) error {
	_, err := a.installation(ctx, asked)
	return err
}

// requireCharging is [Activities.requireOurs] for what leads to orders: the database
// must also stand where it was made or adopted.
func (a *Activities) requireCharging(ctx context.Context, asked string) error {
	found, err := a.installation(ctx, asked)
	if err != nil {
		return err
	}
	return a.notHere(ctx, found.MayCharge())
}

func (a *Activities) installation(ctx context.Context, asked string) (billing.Installation, error) {
	found, err := within(ctx, a.store.Installation)
	if err != nil {
		return found, err
	}
	return found, a.notHere(ctx, found.Requires(asked))
}

// notAdopted is [Activities.notHere] where the database may be ours all the same: it was
// restored, and nobody has said so yet.
func (a *Activities) notAdopted(ctx context.Context, err error) error {
	if billing.CodeOf(err) != billing.CodeNotAdopted {
		return err
	}
	return a.notHere(ctx, err)
}

// notHere makes a refusal of [billing.Installation] one that is tried again.
func (a *Activities) notHere(ctx context.Context, err error) error {
	code := billing.CodeOf(err)
	if code != billing.CodeNotAdopted && code != billing.CodeOtherInstallation {
		return err
	}
	a.log.ErrorContext(ctx, "this worker does not charge", "error", err)
	return temporal.NewApplicationErrorWithOptions(err.Error(), string(code), temporal.ApplicationErrorOptions{NextRetryDelay: elsewhere})
}
