package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// jsonFormat is huma's, but for bodies that encoding/json would read otherwise
// than they were meant: it takes the last of two members with one name, puts
// U+FFFD for what is no character, so that a customer's id would become another,
// and reads 1e-400 as 0, which is no cap where a very low one was meant.
var jsonFormat = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	// huma reads a body twice: to check it against the schema, then into the input.
	Unmarshal: func(data []byte, v any) error {
		checked, ok := v.(*any)
		if !ok {
			return json.Unmarshal(data, v)
		}
		var whole json.RawMessage
		if err := json.Unmarshal(data, &whole); err != nil {
			return err
		}
		if err := unambiguous(data); err != nil {
			return err
		}
		err := numbersKept(data).Decode(checked)
		*checked = withFloats(*checked)
		return err
	},
}

// numbersKept reads numbers as they are written.
func numbersKept(data []byte) *json.Decoder {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return decoder
}

// withFloats makes the numbers in a JSON value what huma checks against a schema.
// One that a float64 does not hold becomes what no schema takes.
func withFloats(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = withFloats(member)
		}
	case []any:
		for i, element := range v {
			v[i] = withFloats(element)
		}
	case json.Number:
		mantissa, _, _ := strings.Cut(strings.ToLower(v.String()), "e")
		f, err := v.Float64()
		if err == nil && (f != 0 || !strings.ContainsAny(mantissa, "123456789")) {
			return f
		}
		return struct{}{}
	}
	return value
}

// unambiguous refuses JSON that readers of JSON may read differently (RFC 7493).
func unambiguous(data []byte) error {
	switch {
	case !utf8.Valid(data):
		return errors.New("must be valid UTF-8")
	case hasHalfPair(data):
		return errors.New(`must not hold half a surrogate pair, such as "\ud83c" alone`)
	}
	return uniqueNames(numbersKept(data))
}

var (
	escapes  = regexp.MustCompile(`(?i)\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|u[0-9a-f]{4}|.)`)
	halfPair = regexp.MustCompile(`(?i)^\\ud[89a-f][0-9a-f]{2}$`)
)

// hasHalfPair looks through the escapes from left to right, whole pairs first.
func hasHalfPair(data []byte) bool {
	for _, escape := range escapes.FindAll(data, -1) {
		if halfPair.Match(escape) {
			return true
		}
	}
	return false
}

// uniqueNames reads one value of valid JSON.
func uniqueNames(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	opened, _ := token.(json.Delim)
	if opened == 0 {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if opened == '{' {
			token, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := token.(string)
			if seen[name] {
				return fmt.Errorf("%.40q must not stand twice in one object", name)
			}
			seen[name] = true
		}
		if err := uniqueNames(d); err != nil {
			return err
		}
	}
	_, err = d.Token() // what closes it
	return err
}
