package cmd_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/shop/shoptest"
)

// chargeRecord is a charge as the API answers it.
func chargeRecord(id billing.RequestID, status billing.ChargeStatus) billing.Charge {
	period, _ := billing.ParsePeriod("2026-11")
	return billing.Charge{RequestID: id, SubscriptionID: "a/b", Period: period, Status: status}
}

func TestChargeResolve(t *testing.T) {
	api := startAPI(t, ok(chargeRecord("r-1", billing.Charged)))
	code, out, errs := run(t, map[string]string{"API_URL": api.url, "OUTCOME": "declined", "NOTE": "x", "BY": "x"},
		"charge", "resolve", "a/b", "2026-11", "--outcome", "charged", "--note", "order 4711")
	require.Zero(t, code, errs)
	require.Equal(t, "r-1: charged, subscription a/b, 2026-11\n", out)
	require.Equal(t, []string{`POST /subscription/a%2Fb/charges/2026-11/resolve {"outcome":"charged","note":"order 4711"}`}, api.called())

	api = startAPI(t, problem(http.StatusConflict, "charge_not_unresolved", "it is charged"))
	code, _, errs = run(t, nil, "charge", "resolve", "s", "2026-11", "--outcome", "declined", "--note", "n", "--by", "Ana", "--api-url", api.url)
	require.Equal(t, 1, code)
	require.Equal(t, "drayman: it is charged (charge_not_unresolved)\n", errs)
	require.Contains(t, api.called()[0], `"by":"Ana"`)
}

func TestChargeCorrect_One(t *testing.T) {
	api := startAPI(t, ok([]billing.Charge{chargeRecord("r-1", billing.Declined)}))
	code, out, errs := run(t, map[string]string{"YES": "true"},
		"charge", "correct", "r-1", "--outcome", "declined", "--note", "a maintenance page", "--by", "Ana", "--api-url", api.url)
	require.Zero(t, code, errs)
	require.Empty(t, errs, "one is not asked for")
	require.Equal(t, "r-1: declined, subscription a/b, 2026-11\n", out)
	require.Equal(t, []string{`POST /charges/correct {"request_ids":["r-1"],"outcome":"declined","note":"a maintenance page","by":"Ana"}`}, api.called())
}

func TestChargeCommands_WrongUsage(t *testing.T) {
	api := startAPI(t, ok(nil))
	verdict := []string{"--outcome", "charged", "--note", "n"}
	for name, args := range map[string][]string{
		"no outcome":        {"correct", "r", "--note", "n"},
		"other outcome":     {"correct", "r", "--outcome", "pending", "--note", "n"},
		"no note":           {"correct", "r", "--outcome", "charged"},
		"blank note":        {"correct", "r", "--outcome", "charged", "--note", " "},
		"long name":         append([]string{"correct", "r", "--by", strings.Repeat("x", 129)}, verdict...),
		"nothing":           append([]string{"correct"}, verdict...),
		"bad request id":    append([]string{"correct", "r", "a/b"}, verdict...),
		"- and another":     append([]string{"correct", "-", "r", "--yes"}, verdict...),
		"- and a question":  append([]string{"correct", "-"}, verdict...),
		"no period":         append([]string{"resolve", "s"}, verdict...),
		"bad period":        append([]string{"resolve", "s", "2026-13"}, verdict...),
		"long subscription": append([]string{"resolve", strings.Repeat("s", 37), "2026-11"}, verdict...),
		"resolve, no note":  {"resolve", "s", "2026-11", "--outcome", "charged"},
	} {
		code, _, errs := run(t, map[string]string{"API_URL": api.url, "NOTE": "n", "OUTCOME": "charged"}, append([]string{"charge"}, args...)...)
		require.Equal(t, 2, code, "%s: %s", name, errs)
	}
	require.Empty(t, api.called())
}

// correctWith runs the program with something on its standard input.
func correctWith(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if !slices.Contains(args, "--outcome") {
		args = append(args, "--outcome", "declined")
	}
	c := exec.CommandContext(t.Context(), binary(t, "TEST_DRAYMAN"), append([]string{"charge", "correct", "--note", "n"}, args...)...)
	c.Env, c.Stdin, c.Stdout, c.Stderr = []string{}, strings.NewReader(stdin), &out, &errs
	_ = c.Run() // the exit code tells
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// How a person is asked on a terminal, the tests of run start show.
func TestChargeCorrect_ManyAreConfirmed(t *testing.T) {
	t.Parallel()
	both := ok([]billing.Charge{chargeRecord("r-1", billing.Declined), chargeRecord("r-2", billing.Declined)})
	api := startAPI(t, both)
	code, _, errs := correctWith(t, "y\n", "r-1", "r-2", "--api-url", api.url)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "2 charges become declined; the shop is not asked. Nothing was corrected: there is no terminal to ask on; give --yes")
	require.Empty(t, api.called())

	api = startAPI(t, both)
	code, out, errs := correctWith(t, "", "r-1", "r-2", "--yes", "--api-url", api.url)
	require.Zero(t, code, errs)
	require.Equal(t, "r-1: declined, subscription a/b, 2026-11\nr-2: declined, subscription a/b, 2026-11\n", out)
}

func TestChargeCorrect_AListFromStandardInput(t *testing.T) {
	t.Parallel()
	var list strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&list, " r-%d \r\n\n", i)
	}
	api := startAPI(t, ok([]billing.Charge{chargeRecord("r", billing.Declined)}), problem(http.StatusConflict, "charge_not_settled", "r-1200 is pending"))
	code, _, errs := correctWith(t, list.String(), "-", "--yes", "--api-url", api.url)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "r-1200 is pending (charge_not_settled); the first 1000 are corrected")
	require.Len(t, api.called(), 2)
	require.Contains(t, api.called()[0], `"r-0","r-1",`)
	require.Contains(t, api.called()[1], `["r-1000",`)
	for _, nothing := range []string{"", "\n \n", list.String() + "a/b"} {
		code, _, errs := correctWith(t, nothing, "-", "--yes", "--api-url", api.url)
		require.Equal(t, 1, code, errs)
	}
	require.Len(t, api.called(), 2)
}

// A run charges for a maintenance page. Its charges are corrected on the command line,
// and the next run orders them, once.
func TestChargeCorrect_AfterAMaintenancePage(t *testing.T) {
	t.Parallel()
	const n = 30
	s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
	s.subscribers(t, n)
	_, api := s.api(t, "serve")
	s.shop.SetFaults(shoptest.Fault{Status: http.StatusOK, Body: "<html>We are back soon</html>", CustomerIDs: customers(1, 7, n)})
	startRun(t, api, "")
	eventuallyRun(t, api, "finished")
	require.Len(t, s.shop.Orders(), n-3)
	s.shop.SetFaults()
	wrong := s.db.Lines(t, "SELECT request_id FROM charge WHERE shop_order IS NULL")
	require.Len(t, wrong, 3)

	code, out, errs := correctWith(t, strings.Join(wrong, "\n"), "-", "--yes", "--by", "Ana", "--api-url", api)

	require.Zero(t, code, errs)
	require.Equal(t, 3, strings.Count(out, ": declined, subscription s-"))
	startRun(t, api, "")
	eventuallyRun(t, api, "finished")
	s.requireOneOrderEach(t, n)
	requireClosed(t, api)
	require.Equal(t, []string{"3"}, s.db.Lines(t, "SELECT count(*)::text FROM audit WHERE actor = 'Ana' AND reason = 'n'"))
	code, _, errs = correctWith(t, "", wrong[0], "--outcome", "charged", "--api-url", api)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "(charge_stands)")
}
