package models_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/models"
	"drayman/models/modelstest"
)

// claims are all the ways in which the store lets somebody be charged.
func (b bundle) claims(store *models.Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"a request": func(ctx context.Context) error {
			_, err := store.ClaimCharge(ctx, request("r"), "o", true)
			return err
		},
		"a run": func(ctx context.Context) error {
			_, _, err := store.StartRun(ctx, runOf(november, "e", settings(0)))
			return err
		},
		"a page": func(ctx context.Context) error {
			_, err := store.ClaimPage(ctx, pageOf("", "z", 10))
			return err
		},
	}
}

// openAs opens the database as a process of the installation does.
func (b bundle) openAs(t *testing.T, installation string) *models.Store {
	t.Helper()
	store, err := models.Open(t.Context(), b.URL, models.Options{Installation: installation, Clock: b.clock.Now})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	return store
}

func TestInstallation_NobodyIsClaimedElsewhere(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		for name, store := range map[string]*models.Store{"another name": b.openAs(t, "staging"), "no row": b.Store, "another seat": b.Store} {
			switch name {
			case "no row":
				b.Exec(t, "DELETE FROM installation")
			case "another seat":
				b.Exec(t, "DELETE FROM installation")
				require.NoError(t, store.MakeInstallation(t.Context()))
				b.Exec(t, "UPDATE installation SET seat = 'elsewhere'")
			}
			for claim, make := range b.claims(store) {
				require.Equal(t, billing.CodeNotAdopted, billing.CodeOf(make(t.Context())), "%s, %s", name, claim)
			}
		}
		require.Empty(t, b.Lines(t, "SELECT request_id FROM charge"))
		require.Equal(t, []string{thisRun.ID}, b.Lines(t, "SELECT id FROM billing_run"))
		_, err := b.Subscription(t.Context(), "s")
		require.NoError(t, err, "reads are served")
	})
}

func TestInstallation_AnothersClaimIsRefused(t *testing.T) {
	t.Parallel()
	onRun(t, func(t *testing.T, b bundle) {
		req, page := request("r"), pageOf("", "z", 10)
		req.Installation, page.Installation = "another", "another"
		_, err := b.ClaimCharge(t.Context(), req, "o", true)
		require.Equal(t, billing.CodeOtherInstallation, billing.CodeOf(err))
		_, err = b.ClaimPage(t.Context(), page)
		require.Equal(t, billing.CodeOtherInstallation, billing.CodeOf(err))
		req.Installation = modelstest.Installation
		claim, err := b.ClaimCharge(t.Context(), req, "o", true)
		require.NoError(t, err)
		require.Equal(t, billing.StepPlace, claim.Step)
	})
}

func TestInstallation_IsMadeOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		before, err := b.Store.Installation(t.Context())
		require.NoError(t, err)
		require.NoError(t, b.openAs(t, "staging").MakeInstallation(t.Context()))
		after, err := b.Store.Installation(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, after)
		b.Exec(t, "DELETE FROM installation")
		staging := b.openAs(t, "staging")
		require.NoError(t, staging.MakeInstallation(t.Context()))
		made, err := staging.Installation(t.Context())
		require.NoError(t, err)
		require.NoError(t, made.MayCharge())
		require.Equal(t, "staging", made.Name)
		require.NotEqual(t, before.ID, made.ID)
	})
}

func TestInstallation_Adopt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, b bundle) {
		_, changed, err := b.Adopt(t.Context(), billing.Adoption{Note: "again", By: "Ana"})
		require.NoError(t, err)
		require.False(t, changed, "it is at home already")
		clone, changed, err := b.Adopt(t.Context(), billing.Adoption{Copy: true, By: "Ana"})
		require.NoError(t, err)
		require.True(t, changed, "a clone of a disk seems to be at home")
		require.NotEqual(t, modelstest.Installation, clone.ID)
		b.Exec(t, "UPDATE installation SET id = $1", modelstest.Installation)

		staging := b.openAs(t, "staging")
		same, changed, err := staging.Adopt(t.Context(), billing.Adoption{Note: "renamed", By: "Ana"})
		require.NoError(t, err)
		require.True(t, changed)
		require.Equal(t, modelstest.Installation, same.ID)
		require.NoError(t, b.claims(staging)["a request"](t.Context()))

		copied, changed, err := b.Adopt(t.Context(), billing.Adoption{Copy: true})
		require.NoError(t, err)
		require.True(t, changed)
		require.NotEqual(t, modelstest.Installation, copied.ID)
		require.Equal(t, billing.CodeNotAdopted, billing.CodeOf(b.claims(staging)["a request"](t.Context())))
		require.Equal(t, []string{
			"Ana|installation.adopt|installation/" + clone.ID + "|",
			"Ana|installation.adopt|installation/" + modelstest.Installation + "|renamed",
			"-|installation.adopt|installation/" + copied.ID + "|",
		}, b.Lines(t, "SELECT COALESCE(actor, '-') || '|' || action || '|' || subject || '|' || reason FROM audit ORDER BY id"))

		b.Exec(t, "DELETE FROM installation")
		none, changed, err := b.Adopt(t.Context(), billing.Adoption{Note: "x"})
		require.NoError(t, err)
		require.False(t, changed)
		require.Empty(t, none.ID, "there is nothing to adopt")
	})
}

// The role of the processes needs no right beyond those to read and write rows.
func TestInstallation_IsReadByAPlainRole(t *testing.T) {
	t.Parallel()
	db := modelstest.Postgres(t)
	b := setup(t, db)
	plain := b.WithPlainRole(t)
	store, err := models.Open(t.Context(), plain, models.Options{})
	require.NoError(t, err)
	t.Cleanup(store.Close)
	found, err := store.Installation(t.Context())
	require.NoError(t, err)
	require.NoError(t, found.MayCharge())
}
