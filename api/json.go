package api

import (
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"drayman/billing"
)

// jsonFormat is huma's, but for bodies that encoding/json would read otherwise
// than they were meant: it takes the last of two members with one name, and puts
// U+FFFD for what is no character, so that a customer's id would become another.
var jsonFormat = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	Unmarshal: func(data []byte, v any) error {
		if err := json.Unmarshal(data, v); err != nil {
			return err
		}
		return billing.Unambiguous(data)
	},
}
