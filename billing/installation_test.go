package billing_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/billing"
)

func TestInstallation_MayCharge(t *testing.T) {
	t.Parallel()
	home := billing.Installation{ID: "i", Name: "blue", Seat: "7/1", Configured: "blue", Here: "7/1"}
	require.NoError(t, home.MayCharge())
	for says, change := range map[string]func(*billing.Installation){
		"run `drayman migrate up`":    func(i *billing.Installation) { i.ID = "" },
		`INSTALLATION is "green"`:     func(i *billing.Installation) { i.Configured = "green" },
		`INSTALLATION is not set`:     func(i *billing.Installation) { i.Configured = "" },
		"(7/1) than where it stands":  func(i *billing.Installation) { i.Here = "7/2" },
		"it is a copy, was restored,": func(i *billing.Installation) { i.Here = "8/1" },
	} {
		elsewhere := home
		change(&elsewhere)
		err := elsewhere.MayCharge()
		require.Equal(t, billing.CodeNotAdopted, billing.CodeOf(err))
		require.ErrorContains(t, err, says)
	}
}

func TestInstallation_Requires(t *testing.T) {
	t.Parallel()
	ours := billing.Installation{ID: "i"}
	require.NoError(t, ours.Requires("i"))
	for _, asked := range []string{"", "I", "another"} {
		require.Equal(t, billing.CodeOtherInstallation, billing.CodeOf(ours.Requires(asked)), asked)
	}
	require.Equal(t, billing.CodeOtherInstallation, billing.CodeOf(billing.Installation{}.Requires("")))
}

func TestInstallation_ValidName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "a", "7", "staging", "eu-1", strings.Repeat("a", billing.MaxInstallation)} {
		require.NoError(t, billing.ValidateInstallation(name), name)
	}
	for _, name := range []string{" ", "-a", "a-", "A", "a/b", "a b", "é", "a\n", strings.Repeat("a", billing.MaxInstallation+1)} {
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(billing.ValidateInstallation(name)), name)
	}
}
