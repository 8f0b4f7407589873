package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"

	"drayman/billing"
)

func (a *api) registerEligible(h huma.API) {
	op := operation(http.MethodGet, "/subscription/eligible", "list-eligible", "List who is due",
		"A bare array of the ids of all eligible subscriptions, ordered by id (by bytes), one consistent snapshot, streamed. "+
			"A connection that is cut before the closing bracket means that the list is not whole.")
	ids := &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
	op.Responses = map[string]*huma.Response{"200": {
		Description: "the ids", Content: map[string]*huma.MediaType{"application/json": {Schema: ids}},
		Headers: map[string]*huma.Param{"Link": {
			Description: `with limit, if there are more: the next page, rel="next"`, Schema: &huma.Schema{Type: huma.TypeString},
		}},
	}}
	huma.Register(h, op, a.listEligible)
}

type eligibleInput struct {
	At        string `query:"at" doc:"eligible at this moment, RFC 3339, past or future; default now" example:"2026-12-01T00:00:00Z"`
	Uncharged bool   `query:"uncharged" doc:"leave out those whose charge in the current period is charged, pending or unresolved"`
	After     string `query:"after" doc:"only ids greater than this one"`
	// A page is held in memory, to know whether there is a next: hence the maximum.
	Limit int `query:"limit" doc:"the greatest number of ids in the answer; if there are more, a Link names the next page" minimum:"1" maximum:"10000"`
}

// Resolve implements huma.Resolver.
func (in *eligibleInput) Resolve(huma.Context) []error {
	if in.After == "" {
		return nil
	}
	return inputErrors("query.after", billing.ValidateID("after", in.After))
}

func (a *api) listEligible(ctx context.Context, in *eligibleInput) (*huma.StreamResponse, error) {
	q, err := a.eligibleQuery(ctx, in)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	if in.Limit > 0 {
		return a.eligiblePage(ctx, in, q)
	}
	return a.idsResponse(ctx, func(ctx context.Context, yield func(string) error) error { return a.store.Eligible(ctx, q, yield) }), nil
}

func (a *api) eligibleQuery(ctx context.Context, in *eligibleInput) (billing.EligibleQuery, error) {
	q := billing.EligibleQuery{After: in.After}
	now, err := a.store.Now(ctx)
	if err != nil {
		return q, err
	}
	if q.At, err = optionalTime("at", in.At); err != nil {
		return q, err
	}
	if q.At.IsZero() {
		q.At = now
	}
	if in.Uncharged {
		q.Uncharged = billing.PeriodAt(now, a.zone)
	}
	return q, nil
}

// eligiblePage answers with at most limit ids. The link to the next page keeps
// the moment, so that all pages ask about the same one.
func (a *api) eligiblePage(ctx context.Context, in *eligibleInput, q billing.EligibleQuery) (*huma.StreamResponse, error) {
	q.Limit = in.Limit + 1
	ids := make([]string, 0, q.Limit)
	err := a.store.Eligible(ctx, q, func(id string) error {
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	var link string
	if len(ids) > in.Limit {
		ids = ids[:in.Limit]
		next := url.Values{"after": {ids[in.Limit-1]}, "limit": {fmt.Sprint(in.Limit)}, "at": {q.At.Format(time.RFC3339Nano)}}
		if in.Uncharged {
			next.Set("uncharged", "true")
		}
		link = fmt.Sprintf(`</subscription/eligible?%s>; rel="next"`, next.Encode())
	}
	return jsonResponse(ids, "Link", link), nil
}

// jsonResponse answers with the value. Header pairs follow it; a header with an empty value
// is left out.
func jsonResponse(value any, header ...string) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		for i := 0; i+1 < len(header); i += 2 {
			if header[i+1] != "" {
				hctx.SetHeader(header[i], header[i+1])
			}
		}
		hctx.SetHeader("Content-Type", "application/json")
		_ = json.NewEncoder(hctx.BodyWriter()).Encode(value) // a caller that is gone cannot be told
	}}
}

// Ids are written in blocks; each block gives the caller streamPatience to take
// it, so that a slow one lives and a dead one does not hold a snapshot open.
const (
	streamBlock    = 32 << 10
	streamPatience = 30 * time.Second
)

// idsResponse answers with a list of ids, as it is read.
func (a *api) idsResponse(ctx context.Context, list idLister) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hctx huma.Context) { a.streamIDs(ctx, hctx, list) }}
}

// idLister calls yield with each id.
type idLister func(ctx context.Context, yield func(id string) error) error

// streamIDs writes a list of ids in constant memory. An error before the first
// byte is a problem response; a later one cuts the connection.
func (a *api) streamIDs(ctx context.Context, hctx huma.Context, list idLister) {
	w := humagin.Unwrap(hctx).Writer
	deadline := http.NewResponseController(w)
	body := bufio.NewWriterSize(writerFunc(func(p []byte) (int, error) {
		_ = deadline.SetWriteDeadline(time.Now().Add(streamPatience)) // not all transports have deadlines
		return w.Write(p)
	}), streamBlock)
	hctx.SetHeader("Content-Type", "application/json")
	separator := byte('[')
	err := list(ctx, func(id string) error {
		quoted, err := json.Marshal(id)
		if err != nil {
			return err
		}
		_ = body.WriteByte(separator) // bufio keeps the error for the next call
		separator = ','
		_, err = body.Write(quoted)
		return err
	})
	switch {
	case err == nil:
		if separator == '[' {
			_ = body.WriteByte('[')
		}
		_, _ = body.WriteString("]\n")
		_ = body.Flush() // a caller that is gone cannot be told
	case w.Written():
		a.log.WarnContext(ctx, "a list of ids was cut short", "error", err)
		panic(http.ErrAbortHandler)
	default:
		a.problem(ctx, err).write(w)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
