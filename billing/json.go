package billing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// DecodeStrict reads a JSON object into a struct as the API reads a body. It returns
// an error with [CodeInvalid] that names the field for: a name that is not exactly
// that of a field, a name given twice, a null, a value of another type, and a required
// name that is absent. encoding/json ignores most of these. DecodeStrict looks into
// structs, but not behind pointers: those hold what a program wrote, perhaps of another
// version. See decision 0016.
func DecodeStrict(data []byte, into any, required ...string) error {
	if err := json.Unmarshal(data, new(json.RawMessage)); err != nil {
		return Invalid("input", "must be JSON: "+err.Error())
	}
	if err := Unambiguous(data); err != nil {
		return Invalid("input", err.Error())
	}
	names, err := memberNames(data, reflect.TypeOf(into).Elem(), "")
	if err != nil {
		return err
	}
	for _, name := range required {
		if !slices.Contains(names, name) {
			return Invalid(name, "must be given")
		}
	}
	return typeError(json.Unmarshal(data, into))
}

// memberNames returns the names of an object, which are all fields of the struct
// and have values. The path leads to the object, "" for the outermost.
func memberNames(data []byte, of reflect.Type, path string) (names []string, err error) {
	object := json.NewDecoder(bytes.NewReader(data))
	if opened, err := object.Token(); err != nil || opened != json.Delim('{') {
		return nil, Invalid(strings.TrimSuffix(path+"input", ".input"), "must be an object")
	}
	for object.More() {
		token, err := object.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := object.Decode(&value); err != nil {
			return nil, err
		}
		name := fmt.Sprint(token)
		field, ok := fieldNamed(of, name)
		switch {
		case !ok:
			return nil, &Error{Code: CodeInvalid, Detail: fmt.Sprintf("there is no field %s%.40q", path, name)}
		case string(value) == "null":
			return nil, Invalid(path+name, "must not be null")
		case isNumber(value) && !keepsFloat(value):
			return nil, Invalid(path+name, "must be a number that is neither too great nor too small")
		case field.Kind() == reflect.Struct && !reflect.PointerTo(field).Implements(textForm):
			if _, err := memberNames(value, field, path+name+"."); err != nil {
				return nil, err
			}
		}
		names = append(names, name)
	}
	return names, nil
}

func isNumber(value json.RawMessage) bool {
	return strings.ContainsAny(string(value[:1]), "-0123456789")
}

func keepsFloat(value json.RawMessage) bool {
	_, kept := FloatKept(json.Number(value))
	return kept
}

var textForm = reflect.TypeFor[interface{ UnmarshalText(text []byte) error }]()

func fieldNamed(of reflect.Type, name string) (reflect.Type, bool) {
	for i := range of.NumField() {
		field := of.Field(i)
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if tag == name && tag != "" && tag != "-" {
			return field.Type, true
		}
		if field.Anonymous && tag == "" && field.Type.Kind() == reflect.Struct { // its fields stand in the same object
			if found, ok := fieldNamed(field.Type, name); ok {
				return found, true
			}
		}
	}
	return nil, false
}

// typeError says in words what encoding/json says of a value of another type. What a
// field says of its own value stays as it is.
func typeError(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil, CodeOf(err) != "":
		return err
	case !errors.As(err, &wrong):
		return Invalid("input", "must fit: "+err.Error())
	}
	return Invalid(wrong.Field, fmt.Sprintf("must be %s, not %.40s", inWords(wrong.Type.Kind()), wrong.Value))
}

func inWords(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	default:
		return "a text"
	}
}

// Unambiguous refuses JSON that readers of JSON may read differently (RFC 7493).
func Unambiguous(data []byte) error {
	switch {
	case !utf8.Valid(data):
		return errors.New("must be valid UTF-8")
	case hasHalfPair(data):
		return errors.New(`must not hold half a surrogate pair, such as "\ud83c" alone`)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // one that no float64 holds is for the field to judge
	return uniqueNames(decoder)
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

// FloatKept returns the float64 that a JSON number is read as. It returns false for one
// that no float64 holds, and for one that is read as 0 but is not 0: a very low cap
// would become 0, "no cap".
func FloatKept(number json.Number) (float64, bool) {
	mantissa, _, _ := strings.Cut(strings.ToLower(number.String()), "e")
	f, err := number.Float64()
	return f, err == nil && (f != 0 || !strings.ContainsAny(mantissa, "123456789"))
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
