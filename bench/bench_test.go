package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// The measurement works; its figures are nobody's business here.
func TestAHundredCharges(t *testing.T) {
	var out, complaints bytes.Buffer

	err := run(t.Context(), []string{"--charges", "100", "--baseline", "100", "--page-size", "20", "--timeout", "5m", "--json"}, &out, &complaints)

	require.NoError(t, err, complaints.String())
	var results []result
	require.NoError(t, json.Unmarshal(out.Bytes(), &results))
	require.Len(t, results, 1)
	r := results[0]
	require.Equal(t, 100, r.Charges)
	require.Equal(t, 1, r.Temporal.Workflows)
	require.GreaterOrEqual(t, r.Temporal.Actions.Activities, 100/20, "each page is an activity")
	require.Positive(t, r.Temporal.Events)
	require.Positive(t, r.Run.PerSecond)
	require.Positive(t, r.OfCalls)
	require.Positive(t, r.OfRows)
}

func TestTheTableHasMedians(t *testing.T) {
	var out bytes.Buffer
	results := []result{{Charges: 1}, {Charges: 1}, {Charges: 1}}
	for i := range results {
		results[i].Run.PerSecond = float64(i + 7)
	}

	writeTable(&out, results)

	require.Regexp(t, `end of run +8 +7 +9\n`, out.String())
}
