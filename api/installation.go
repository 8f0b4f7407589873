package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"drayman/billing"
)

// InstallationView is the database that this API serves.
type InstallationView struct {
	ID        string `json:"id" doc:"made at random by drayman migrate up" example:"5f0c1c1e-6f0e-4a47-9d0c-3c1f6b7a9d11"`
	Name      string `json:"name" doc:"INSTALLATION, under which it charges; empty by default" example:"staging"`
	MayCharge bool   `json:"may_charge" doc:"false: the database is a copy, or was restored or moved, and nobody has adopted it"`
	Refusal   string `json:"refusal,omitempty" doc:"why nobody is charged, and what to do"`
}

func (a *api) registerInstallation(h huma.API) {
	huma.Register(h, operation(http.MethodGet, "/installation", "get-installation", "Read which installation this is",
		"Its id stands in the inputs of all workflows, its name in their ids. A database that was copied, restored or moved "+
			"charges nobody until a person runs drayman adopt."), a.getInstallation)
}

type installationOutput struct{ Body InstallationView }

func (a *api) getInstallation(ctx context.Context, _ *struct{}) (*installationOutput, error) {
	found, err := a.store.Installation(ctx)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	view := InstallationView{ID: found.ID, Name: found.Name, MayCharge: true}
	if err := found.MayCharge(); err != nil {
		view.MayCharge, view.Refusal = false, a.problem(ctx, err).Detail
	}
	return &installationOutput{Body: view}, nil
}

// recallWait is how long a request waits for the recall of a replaced database, which
// takes a second or two; then it is for the caller to ask again.
const recallWait = 5 * time.Second

// charging returns the id of the installation, or why it charges nobody. What would be
// refused at the claim never reaches Temporal. In a database that was replaced, it starts
// the recall and waits for it.
func (a *api) charging(ctx context.Context) (string, error) {
	found, err := a.store.Installation(ctx)
	if err == nil && billing.CodeOf(found.MayCharge()) == billing.CodeDatabaseReplaced {
		a.awaitRecall(ctx, found.ID)
		found, err = a.store.Installation(ctx)
	}
	if err == nil {
		err = found.MayCharge()
	}
	if err != nil {
		return "", a.problem(ctx, err)
	}
	return found.ID, nil
}

// awaitRecall returns when the recall has ended, however it did, or recallWait is over. All
// requests share one wait.
func (a *api) awaitRecall(ctx context.Context, installation string) {
	recalled := a.recalls.DoChan(installation, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recallWait)
		defer cancel()
		run, err := a.names.StartRecall(ctx, a.temporal, installation)
		if err == nil {
			err = run.Get(ctx, nil)
		}
		if err != nil {
			a.log.WarnContext(ctx, "the recall has not ended yet", "error", err)
		}
		return nil, nil
	})
	select {
	case <-recalled:
	case <-a.stopping:
	case <-ctx.Done():
	}
}
