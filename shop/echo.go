package shop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The fields of the shop's JSON that can say whom an answer is about, for
// Config.Echo.
const (
	EchoRequestID  = "request_id"
	EchoCustomerID = "customer_id"
)

// ParseEcho reads a list of echo fields, separated by commas: "request_id",
// "customer_id" or both. An empty text and "none" are the empty list.
func ParseEcho(list string) ([]string, error) {
	if list = strings.TrimSpace(list); list == "" || list == "none" {
		return nil, nil
	}
	var fields []string
	for name := range strings.SplitSeq(list, ",") {
		fields = append(fields, strings.TrimSpace(name))
	}
	return fields, validEcho(fields)
}

func validEcho(fields []string) error {
	for _, name := range fields {
		if name != EchoRequestID && name != EchoCustomerID {
			return fmt.Errorf("must name %s, %s, both or none", EchoRequestID, EchoCustomerID)
		}
	}
	return nil
}

// aboutAnother returns what an answer says of another order than the one that was
// asked for: "asked for customer_id "a", answered "b"". It is empty if nothing
// disagrees.
//
// Only top-level fields are looked at, by their exact name. An absent field and
// null say nothing. If a name is given several times, each must agree: readers differ
// in which one they take. A body that is not complete JSON cannot be compared.
func (o Order) aboutAnother(fields []string, body []byte) string {
	if len(fields) == 0 || !utf8.Valid(body) || !json.Valid(body) {
		return ""
	}
	asked := map[string]string{EchoRequestID: o.RequestID, EchoCustomerID: o.CustomerID}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, _ := decoder.Token(); start != json.Delim('{') { // valid: no error comes
		return ""
	}
	for decoder.More() {
		name, _ := decoder.Token()
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return ""
		}
		field, _ := name.(string)
		if slices.Contains(fields, field) && !repeats(value, asked[field]) {
			return fmt.Sprintf("asked for %s %q, answered %s", field, asked[field], value)
		}
	}
	return ""
}

// repeats reports whether a JSON value is what was asked for. Texts must be the same
// to the letter. A number repeats a text that is a number of the same value: 42 and
// 42.0 repeat "42", but not "042", which is another id for us.
func repeats(value json.RawMessage, asked string) bool {
	var text string
	switch {
	case string(value) == "null":
		return true
	case value[0] == '"':
		return json.Unmarshal(value, &text) == nil && text == asked
	case !json.Valid([]byte(asked)):
		return false
	}
	answered, err := strconv.ParseFloat(string(value), 64)
	wanted, askedErr := strconv.ParseFloat(asked, 64)
	if err != nil || askedErr != nil { // one is no number
		return false
	}
	const exact = 1 << 53 // beyond it, two ids may be one float64
	return string(value) == asked || answered == wanted && math.Abs(wanted) < exact
}
