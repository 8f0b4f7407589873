package cmd_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/cmd"
	"drayman/models/modelstest"
)

func run(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // ends what should not have started
	defer cancel()
	code = cmd.Run(ctx, args, func(name string) string { return env[name] }, &out, &errs)
	return code, out.String(), errs.String()
}

// complete is a configuration with which serve starts.
func complete(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"DATABASE_URL": "sqlite:" + filepath.Join(t.TempDir(), "d.db"), "HTTP_ADDR": "127.0.0.1:0",
		"SHOP_URL": "http://127.0.0.1:1", "SHOP_API_KEY": "key", "SHOP_API_SECRET": "s3cret",
		"TEMPORAL_ADDRESS": "127.0.0.1:1", "TEMPORAL_CONFIG_FILE": os.DevNull,
	}
}

func TestAWrongSettingStopsTheStartInOneLine(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for name, c := range map[string]struct {
		set  map[string]string
		says string
	}{
		"no database":        {map[string]string{"DATABASE_URL": ""}, "--database-url"},
		"unknown database":   {map[string]string{"DATABASE_URL": "mysql://u:s3cret@h/d"}, "DATABASE_URL"},
		"database away":      {map[string]string{"DATABASE_URL": "postgres://u:s3cret@127.0.0.1:1/d"}, "cannot reach the database"},
		"bad URL":            {map[string]string{"DATABASE_URL": "postgres://u:s3cret@h:port/d"}, "DATABASE_URL"},
		"not migrated":       {nil, "drayman migrate up"},
		"wait too long":      {map[string]string{"CHARGE_WAIT": "2h"}, "CHARGE_WAIT"},
		"wait no duration":   {map[string]string{"CHARGE_WAIT": "soon"}, "charge-wait"},
		"zone":               {map[string]string{"BILLING_TIMEZONE": "Mars/Olympus"}, "BILLING_TIMEZONE"},
		"open to all":        {map[string]string{"HTTP_ADDR": "0.0.0.0:8080"}, "--allow-unauthenticated-network-access"},
		"open to all, short": {map[string]string{"HTTP_ADDR": ":8080"}, "--allow-unauthenticated-network-access"},
		"no port":            {map[string]string{"HTTP_ADDR": "localhost"}, "HTTP_ADDR"},
		"any host":           {map[string]string{"HTTP_HOSTS": "*"}, `--http-hosts ($HTTP_HOSTS): "*" is no host name`},
		"host with a port":   {map[string]string{"HTTP_HOSTS": "api,drayman.example:8080"}, "HTTP_HOSTS"},
		"any origin":         {map[string]string{"CORS_ORIGINS": "*"}, `--cors-origins ($CORS_ORIGINS): "*" is no origin`},
		"no origin":          {map[string]string{"CORS_ORIGINS": "https://a.example,null"}, "CORS_ORIGINS"},
		"origin with a path": {map[string]string{"CORS_ORIGINS": "https://front.example/"}, "which is https://front.example"},
		"no secret":          {map[string]string{"SHOP_API_SECRET": ""}, "--shop-api-secret"},
		"no secret file":     {map[string]string{"SHOP_API_SECRET": "", "SHOP_API_SECRET_FILE": missing}, "SHOP_API_SECRET_FILE"},
		"secret twice":       {map[string]string{"SHOP_API_SECRET_FILE": missing}, "SHOP_API_SECRET_FILE"},
		"timeout":            {map[string]string{"SHOP_TIMEOUT": "1h"}, "SHOP_TIMEOUT"},
		"retries":            {map[string]string{"CHARGE_RETRY_FOR": "-1s"}, "CHARGE_RETRY_FOR"},
		"echo":               {map[string]string{"SHOP_ECHO": "Customer_ID"}, "SHOP_ECHO"},
		"shop":               {map[string]string{"SHOP_URL": "ftp://shop"}, "SHOP_URL"},
		"boolean":            {map[string]string{"SHOP_IDEMPOTENT": "perhaps"}, "shop-idempotent"},
		"log level":          {map[string]string{"LOG_LEVEL": "loud"}, "log-level"},
		"log format":         {map[string]string{"LOG_FORMAT": "xml"}, "log-format"},
		"temporal":           {map[string]string{"TEMPORAL_TLS": "true", "TEMPORAL_TLS_CLIENT_CERT_PATH": missing, "TEMPORAL_TLS_CLIENT_KEY_PATH": missing}, "TEMPORAL_"},
	} {
		t.Run(name, func(t *testing.T) {
			env := complete(t)
			for variable, value := range c.set {
				env[variable] = value
			}
			code, _, stderr := run(t, env, "serve")
			require.NotZero(t, code)
			require.Contains(t, stderr, c.says)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			require.NotContains(t, stderr, "s3cret")
		})
	}
}

func TestEncoding_LATIN1StopsEveryCommand(t *testing.T) {
	env := complete(t)
	env["DATABASE_URL"] = modelstest.PostgresIn(t, "LATIN1").URL
	for _, command := range [][]string{{"migrate", "status"}, {"migrate", "up"}, {"api"}, {"worker"}, {"serve"}} {
		code, out, stderr := run(t, env, command...)
		require.Equal(t, 1, code, command)
		require.Empty(t, out, command)
		require.Contains(t, stderr, "the database's encoding is LATIN1 and UTF8 is needed", command)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

func TestMigrateAndStatus(t *testing.T) {
	env := complete(t)
	code, out, _ := run(t, env, "migrate", "status")
	require.Zero(t, code)
	require.Contains(t, out, "pending")
	require.NotContains(t, out, "applied")
	file := strings.TrimPrefix(env["DATABASE_URL"], "sqlite:")
	secretFile := filepath.Join(t.TempDir(), "url")
	require.NoError(t, os.WriteFile(secretFile, []byte("sqlite:"+file+"\n"), 0o600))
	code, out, errs := run(t, map[string]string{"DATABASE_URL_FILE": secretFile}, "migrate", "up")
	require.Zero(t, code, errs)
	require.Contains(t, out, "applied 00001 baseline")
	code, out, _ = run(t, env, "migrate", "status")
	require.Zero(t, code)
	require.NotContains(t, out, "pending")
}

func TestVersionAndHelp(t *testing.T) {
	code, out, _ := run(t, nil, "version")
	require.Zero(t, code)
	require.Contains(t, out, "drayman dev")
	code, out, _ = run(t, nil, "serve", "--help")
	require.Zero(t, code)
	for _, variable := range []string{"DATABASE_URL", "HTTP_ADDR", "HTTP_HOSTS", "CORS_ORIGINS", "SHOP_API_SECRET", "CHARGE_RETRY_FOR"} {
		require.Contains(t, out, "$"+variable)
	}
	code, _, errs := run(t, nil, "brew")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "brew")
}
