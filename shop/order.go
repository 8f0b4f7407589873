package shop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// maxOrder is the largest answer that is kept, in bytes.
	maxOrder = 64 << 10
	// maxDepth bounds the nesting of an answer that is kept. Databases read
	// JSON recursively and refuse it at depths that depend on their settings.
	maxDepth = 100
)

var (
	errTooLarge = fmt.Errorf("it is larger than %d KiB", maxOrder>>10)
	errNotJSON  = errors.New("it is no JSON")
	errTooDeep  = fmt.Errorf("it is nested more than %d deep", maxDepth)
	errLeak     = errors.New("it repeats a credential in a way that cannot be taken out")
)

// keepOrder returns the shop's JSON as it is to be kept: nil with a reason, or nil
// without one if the shop said nothing (an empty body or null).
//
// It keeps the shop's own bytes if it can. It writes the JSON anew if a credential has
// to be removed, or if there are \u escapes: some of these (U+0000, half a surrogate
// pair) cannot be stored as jsonb in PostgreSQL.
func (r *redactor) keepOrder(body []byte) (json.RawMessage, error) {
	if len(body) > maxOrder {
		return nil, errTooLarge
	}
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // RFC 8259 §8.1: may be passed over
	body = bytes.TrimSpace(body)
	if len(body) == 0 || string(body) == "null" {
		return nil, nil
	}
	value, err := decode(body)
	if err != nil {
		return nil, err
	}
	value, err = r.clean(value, maxDepth)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(body, []byte(`\u`)) && !r.in(string(body)) {
		return body, nil
	}
	return r.encode(value)
}

func decode(body []byte) (value any, err error) {
	if !utf8.Valid(body) { // encoding/json would accept it
		return nil, errNotJSON
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, errNotJSON
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotJSON // something follows
	}
	return value, nil
}

// clean returns value without credentials and U+0000, also in names and numbers.
func (r *redactor) clean(value any, depth int) (any, error) {
	if depth < 0 {
		return nil, errTooDeep
	}
	var err error
	switch v := value.(type) {
	case string:
		return r.cleanText(v), nil
	case json.Number:
		if r.in(v.String()) {
			return mask, nil
		}
	case []any:
		for i := range v {
			if v[i], err = r.clean(v[i], depth-1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		return r.cleanObject(v, depth)
	}
	return value, nil
}

func (r *redactor) cleanObject(object map[string]any, depth int) (any, error) {
	cleaned := make(map[string]any, len(object))
	for name, value := range object {
		value, err := r.clean(value, depth-1)
		if err != nil {
			return nil, err
		}
		cleaned[r.cleanText(name)] = value
	}
	return cleaned, nil
}

func (r *redactor) cleanText(text string) string {
	return r.redact(strings.ReplaceAll(text, "\x00", "\ufffd"))
}

// encode writes value and looks again: a credential may also span the punctuation
// between values, or be so short that it is punctuation.
func (r *redactor) encode(value any) (json.RawMessage, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, errNotJSON
	}
	order := bytes.TrimSpace(out.Bytes())
	if len(order) > maxOrder {
		return nil, errTooLarge
	}
	if r.in(string(order)) {
		return nil, errLeak
	}
	return order, nil
}
