package billing_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/billing"
)

func TestCorrection_Validate(t *testing.T) {
	t.Parallel()
	ids := func(n int) []billing.RequestID {
		all := make([]billing.RequestID, n)
		for i := range all {
			all[i] = "r"
		}
		return all
	}
	for name, c := range map[string]struct {
		change func(*billing.Correction)
		field  string
	}{
		"good":                    {change: func(*billing.Correction) {}},
		"longest":                 {change: func(c *billing.Correction) { c.Note, c.By = strings.Repeat("é", 1024), strings.Repeat("é", 128) }},
		"lines":                   {change: func(c *billing.Correction) { c.Note = "a\nb\tc" }},
		"nobody says who":         {change: func(c *billing.Correction) { c.By = "" }},
		"most":                    {change: func(c *billing.Correction) { c.RequestIDs = ids(1000) }},
		"by period":               {change: func(c *billing.Correction) { c.RequestIDs, c.SubscriptionID = nil, "s" }},
		"nothing named":           {change: func(c *billing.Correction) { c.RequestIDs = nil }, field: "request_ids"},
		"too many":                {change: func(c *billing.Correction) { c.RequestIDs = ids(1001) }, field: "request_ids"},
		"a request id":            {change: func(c *billing.Correction) { c.RequestIDs = []billing.RequestID{"r", "a/b"} }, field: "request_id"},
		"an empty request id":     {change: func(c *billing.Correction) { c.RequestIDs = []billing.RequestID{""} }, field: "request_id"},
		"no outcome":              {change: func(c *billing.Correction) { c.Outcome = "" }, field: "outcome"},
		"an outcome in doubt":     {change: func(c *billing.Correction) { c.Outcome = billing.Unresolved }, field: "outcome"},
		"no note":                 {change: func(c *billing.Correction) { c.Note = "" }, field: "note"},
		"a note of blanks":        {change: func(c *billing.Correction) { c.Note = " \n\u00a0" }, field: "note"},
		"a long note":             {change: func(c *billing.Correction) { c.Note = strings.Repeat("é", 1025) }, field: "note"},
		"a note with NUL":         {change: func(c *billing.Correction) { c.Note = "a\x00" }, field: "note"},
		"a note that is no UTF-8": {change: func(c *billing.Correction) { c.Note = "a\xff" }, field: "note"},
		"a long name":             {change: func(c *billing.Correction) { c.By = strings.Repeat("é", 129) }, field: "by"},
		"a name with NUL":         {change: func(c *billing.Correction) { c.By = "a\x00" }, field: "by"},
		"a name of two lines":     {change: func(c *billing.Correction) { c.By = "a\nb" }, field: "by"},
		"a name that is no UTF-8": {change: func(c *billing.Correction) { c.By = "\xff" }, field: "by"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			correction := billing.Correction{RequestIDs: ids(1), Outcome: billing.Charged, By: "Ana", Note: "why"}
			c.change(&correction)
			err := correction.Validate()
			if c.field == "" {
				require.NoError(t, err)
				return
			}
			var invalid *billing.Error
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, billing.CodeInvalid, invalid.Code)
			require.Equal(t, c.field, invalid.Field)
			resolution := billing.Resolution{Outcome: correction.Outcome, By: correction.By, Note: correction.Note}
			require.Equal(t, strings.HasPrefix(c.field, "request_id"), resolution.Validate() == nil, "the same holds for resolve")
		})
	}
}

func TestChargeDeclined_SaysByWhom(t *testing.T) {
	t.Parallel()
	c := &billing.Charge{Status: billing.Declined, FailureDetail: "402"}
	require.Equal(t, "the shop declined the order: 402", billing.ChargeDeclined(c).Detail)
	c.ResolvedNote = "a maintenance\npage\x1b"
	require.Equal(t, "a person has settled the charge as declined: a maintenance page ", billing.ChargeDeclined(c).Detail)
}
