package api

import (
	"bytes"
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"drayman/billing"
)

// jsonFormat is huma's, but for bodies that encoding/json would read otherwise
// than they were meant: it takes the last of two members with one name, puts
// U+FFFD for what is no character, so that a customer's id would become another,
// and reads 1e-400 as 0, which is no cap although a very low one was meant (decision 0016).
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
		if err := billing.Unambiguous(data); err != nil {
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
		if f, kept := billing.FloatKept(v); kept {
			return f
		}
		return struct{}{}
	}
	return value
}
