package billing_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/billing"
)

type nested struct {
	Pace  float64 `json:"pace"`
	Whole int     `json:"whole"`
	Yes   bool    `json:"yes,omitempty"`
}

type strict struct {
	Period billing.Period  `json:"period"`
	Name   string          `json:"name"`
	Nested nested          `json:"nested"`
	Ours   *nested         `json:"ours,omitempty"`
	Raw    json.RawMessage `json:"-"`
}

func TestDecodeStrict_WhatIsRefused(t *testing.T) {
	t.Parallel()
	for data, sentence := range map[string]string{
		``:                                   "input must be JSON: unexpected end of JSON input",
		`{`:                                  "input must be JSON: unexpected end of JSON input",
		`{} {}`:                              "input must be JSON: invalid character '{' after top-level value",
		`NaN`:                                "input must be JSON: invalid character 'N' looking for beginning of value",
		`null`:                               "input must be an object",
		`[]`:                                 "input must be an object",
		`{}`:                                 "period must be given",
		`{"Period":""}`:                      `there is no field "Period"`,
		`{"":1}`:                             `there is no field ""`,
		`{"-":1}`:                            `there is no field "-"`,
		`{"period":"2026-11","name":null}`:   "name must not be null",
		`{"period":"2026-11","nested":null}`: "nested must not be null",
		`{"period":"2026-11","nested":7}`:    "nested must be an object",
		`{"period":"2026-11","nested":{"pace":null}}`:                  "nested.pace must not be null",
		`{"period":"2026-11","nested":{"PACE":1}}`:                     `there is no field nested."PACE"`,
		`{"period":"2026-11","nested":{"pace":1,"pace":2}}`:            `input "pace" must not stand twice in one object`,
		`{"period":"2026-11","nested":{"pace":1,"p\u0061ce":2}}`:       `input "pace" must not stand twice in one object`,
		`{"period":"2026-11","nested":{"pace":"1"}}`:                   "nested.pace must be a number, not string",
		`{"period":"2026-11","nested":{"pace":1e999}}`:                 "nested.pace must be a number that is neither too great nor too small",
		`{"period":"2026-11","nested":{"whole":1.5}}`:                  "nested.whole must be a whole number, not number 1.5",
		`{"period":"2026-11","nested":{"whole":99999999999999999999}}`: "nested.whole must be a whole number, not number 99999999999999999999",
		`{"period":"2026-11","nested":{"yes":1}}`:                      "nested.yes must be true or false, not number",
		`{"period":"2026-11","name":1}`:                                "name must be a text, not number",
		`{"period":"2026-13"}`:                                         "period must be a month such as 2026-11",
		`{"period":7}`:                                                 "period must be a text, not number",
		`{"period":"2026-11","name":"\ud800"}`:                         `input must not hold half a surrogate pair, such as "\ud83c" alone`,
		"{\"period\":\"2026-11\",\"name\":\"\xff\"}":                   "input must be valid UTF-8",
		`{"` + strings.Repeat("x", 1000) + `":1}`:                      `there is no field "` + strings.Repeat("x", 40) + `"`,
	} {
		err := billing.DecodeStrict([]byte(data), &strict{}, "period")
		require.Equal(t, billing.CodeInvalid, billing.CodeOf(err), data)
		require.EqualError(t, err, "validation_failed: "+sentence, data)
	}
}

func TestDecodeStrict_WhatIsTaken(t *testing.T) {
	t.Parallel()
	var got strict
	require.NoError(t, billing.DecodeStrict([]byte(` {"period":"2026-11","n\u0061me":"é","nested":{"pace":0},"ours":{"later":null,"pace":2}} `), &got, "period", "name"))
	november, err := billing.ParsePeriod("2026-11")
	require.NoError(t, err)
	require.Equal(t, strict{Period: november, Name: "é", Ours: &nested{Pace: 2}}, got, "behind a pointer a newer program may say more")
	require.NoError(t, billing.DecodeStrict([]byte(`{}`), &struct{}{}))
}

// FuzzDecodeStrict: what is taken says each thing once, by its exact name, and reads
// the same when it is written again; what is refused is refused in one short line.
func FuzzDecodeStrict(f *testing.F) {
	for _, data := range []string{
		`{}`, `null`, `{"period":"2026-11"}`, `{"period":"2026-11","nested":{"pace":1e999}}`, `{"Period":"x"}`,
		`{"name":"\ud83c\udf7a","name":""}`, `{"nested":{"whole":-0}}`, `[[[[`, "{\"\xff\":0}", `{"ours":{"x":null}}`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, again strict
		if err := billing.DecodeStrict(data, &got); err != nil {
			require.Equal(t, billing.CodeInvalid, billing.CodeOf(err))
			require.NotContains(t, err.Error(), "\n")
			require.Less(t, len(err.Error()), 500)
			return
		}
		text, err := json.Marshal(got)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, got, again)
	})
}

func TestChargeRequest_Validate(t *testing.T) {
	t.Parallel()
	november, err := billing.ParsePeriod("2026-11")
	require.NoError(t, err)
	good := billing.ChargeRequest{SubscriptionID: "s", Period: november, RequestID: "r"}
	require.NoError(t, good.Validate())
	require.NoError(t, billing.ChargeRequest{SubscriptionID: "a\tb", Period: november, RunID: "2026-11/12"}.Validate())
	for field, change := range map[string]func(r *billing.ChargeRequest){
		"period":          func(r *billing.ChargeRequest) { r.Period = billing.Period{} },
		"subscription_id": func(r *billing.ChargeRequest) { r.SubscriptionID = "a\tb" },
		"request_id":      func(r *billing.ChargeRequest) { r.RequestID = "" },
		"run_id":          func(r *billing.ChargeRequest) { r.RunID = "2026-11/" },
	} {
		r := good
		change(&r)
		requireInvalid(t, r.Validate(), field)
	}
	byRun := billing.ChargeRequest{Period: november, RunID: "2026-11/1"}
	requireInvalid(t, byRun.Validate(), "subscription_id")
	byRun.SubscriptionID, byRun.RequestID = "s", "../../admin"
	requireInvalid(t, byRun.Validate(), "request_id")
	for _, id := range []string{"2026-11", "2026-11/0", "2026-11/-1", "2026-11/1/2", "2026-10/1", "/1"} {
		require.False(t, billing.IsRunOf(id, november), id)
	}
}
