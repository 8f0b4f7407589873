package cmd_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each setting stands in the table of docs/operations.md.
func TestTheDocsNameEachSetting(t *testing.T) {
	operations, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	for _, command := range []string{"api", "worker", "serve", "healthcheck"} {
		code, help, _ := run(t, nil, command, "--help")
		require.Zero(t, code)
		variables := regexp.MustCompile(`\(\$([A-Z_]+)\)`).FindAllStringSubmatch(help, -1)
		require.NotEmpty(t, variables, help)
		for _, variable := range variables {
			require.Regexp(t, `(?m)^\| .*`+"`"+variable[1]+"`", string(operations), command)
		}
	}
}
