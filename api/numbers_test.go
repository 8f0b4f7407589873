package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drayman/models/modelstest"
)

// cutToOne are numbers of which some width of integer, or a float, keeps 1.
func cutToOne() []string {
	var numbers []string
	for _, lead := range []string{"", "-"} {
		for _, n := range []string{"4294967297", "8589934593", "4611686018427387905", "18446744073709551617", "340282366920938463463374607431768211457"} {
			numbers = append(numbers, lead+n)
		}
	}
	return append(numbers, "-4294967295", "-18446744073709551615")
}

func TestClub_NumberOutOfRangeIsNotFound(t *testing.T) {
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		db.AddClub(t, 1, 1)
		before := s.rowCounts(t)
		edges := []string{
			"257", "65537",
			"2147483647", "2147483648", "-1", "-2147483648", "-2147483649", "9223372036854775807", "9223372036854775808",
			"-9223372036854775809", strings.Repeat("9", 400), "01", "+1", "-0", "0", "0000004294967297",
		}
		for _, id := range append(edges, cutToOne()...) {
			for _, r := range []response{
				s.do(t, http.MethodGet, "/club/"+id, ""),
				s.do(t, http.MethodPost, "/club/"+id+"/subscribe/", `{"customer_id":"wrap"}`),
			} {
				require.Equal(t, http.StatusNotFound, r.Code, "%s: %s", id, r.Raw)
				require.Equal(t, "club_not_found", r.Problem.Code)
				if len(id) < 100 {
					require.Equal(t, "there is no club "+id, r.Problem.Detail)
				}
			}
		}
		for _, id := range []string{"abc", "1e0", "1.0", "0x1", "1_0", "%201", "٣"} {
			r := s.do(t, http.MethodGet, "/club/"+url.PathEscape(id), "")
			require.Equal(t, http.StatusUnprocessableEntity, r.Code, "%s: %s", id, r.Raw)
		}
		require.Equal(t, before, s.rowCounts(t), "something was written")
		require.Equal(t, http.StatusOK, s.do(t, http.MethodGet, "/club/1", "").Code)
	})
}

// schema is what the test reads of a schema in the OpenAPI document.
type schema struct {
	Type       any    // a string, or a list of them
	Ref        string `json:"$ref"`
	Properties map[string]schema
}

func (s schema) isNumber() bool {
	kinds := fmt.Sprint(s.Type)
	return strings.Contains(kinds, "integer") || strings.Contains(kinds, "number")
}

type openAPI struct {
	Paths map[string]map[string]struct {
		Parameters []struct {
			Name, In string
			Schema   schema
		}
		RequestBody struct {
			Content map[string]struct{ Schema schema }
		}
	}
	Components struct{ Schemas map[string]schema }
}

// Each number that the API documents is refused by name when it has no room,
// whatever it would be if it were cut.
func TestNumber_OutOfRangeIsInvalidAndNamed(t *testing.T) {
	t.Parallel()
	b := besiege(t)
	var document openAPI
	b.get(t, "/openapi.json", &document)
	tried := map[string]int{}
	for path, operations := range document.Paths {
		for method, operation := range operations {
			target := strings.NewReplacer("{id}", "s", "{request_id}", "r", "{period}", "2026-11").Replace(path)
			for _, p := range operation.Parameters {
				if p.Schema.isNumber() && p.In != "path" {
					for _, n := range append(cutToOne(), "1e400", "1e-400", "NaN", "Inf") {
						require.Equal(t, "query", p.In, "write the request for a number in a %s", p.In)
						b.requireInvalid(t, strings.ToUpper(method), target+"?"+p.Name+"="+url.QueryEscape(n), "", "query."+p.Name)
						tried["query"]++
					}
				}
			}
			for name, property := range document.bodyOf(operation.RequestBody.Content["application/json"].Schema) {
				if property.isNumber() {
					for _, n := range append(cutToOne(), "1e400", "-1e400", "1e-400", "-1e-400", "0.0000001e-320") {
						b.requireInvalid(t, strings.ToUpper(method), target, fmt.Sprintf(`{%q:%s}`, name, n), "body."+name)
						tried["body"]++
					}
				}
			}
		}
	}
	require.NotZero(t, tried["query"])
	require.NotZero(t, tried["body"])
}

func (d openAPI) bodyOf(s schema) map[string]schema {
	return d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")].Properties
}

func (b *besieged) requireInvalid(t *testing.T, method, target, body, field string) {
	t.Helper()
	a := b.send(t, hostile{method: method, target: target, headers: "Content-Type: application/json", body: []byte(body)})
	require.NotNil(t, a)
	require.Equal(t, http.StatusUnprocessableEntity, a.Code, "%s %s %s: %s", method, target, body, a.Body)
	require.Contains(t, string(a.Body), fmt.Sprintf(`"location":%q`, field), "%s %s", target, body)
	require.Empty(t, a.Asked)
}

// FuzzClub: the path of a club names it in one way only.
func FuzzClub(f *testing.F) {
	for _, id := range append(cutToOne(), "1", "2", "01", "+1", "-1", "1e0", "", "1 ", "２", "\x00", "\xff", "1/subscribe") {
		f.Add(id)
	}
	b := besiege(f)
	f.Fuzz(func(t *testing.T, id string) {
		a := b.send(t, hostile{method: http.MethodGet, target: "/club/" + url.PathEscape(id)})
		require.NotNil(t, a)
		known := map[string]string{"1": `"id":1,`, "2": `"id":2,`}
		if a.Code != http.StatusOK {
			require.NotContains(t, slices.Collect(maps.Keys(known)), id)
			return
		}
		require.Contains(t, known, id, "%s", a.Body)
		require.True(t, json.Valid(a.Body))
		require.Contains(t, string(a.Body), known[id])
	})
}

func TestPrefer_WaitOutOfRangeIsTheLongest(t *testing.T) {
	t.Parallel()
	s := setup(t, modelstest.SQLite(t), options{})
	s.db.AddClub(t, 1, 1)
	for i, wait := range []string{"61", "4294967296", "9223372036854775807", "9223372036854775808", strings.Repeat("9", 100)} {
		s.db.AddSubscription(t, fmt.Sprint("s", i), 1, fmt.Sprint("customer", i))

		r := s.charge(t, fmt.Sprint("s", i), "r-"+fmt.Sprint(i), "Prefer", "wait="+wait)

		require.Equal(t, http.StatusOK, r.Code, r.Raw)
		require.Equal(t, "wait=60", r.Header.Get("Preference-Applied"), wait)
	}
}
