package shop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

const (
	// maxDetail bounds Answer.Detail, in bytes.
	maxDetail = 500
	// maxQuote bounds what is quoted of the shop's words, in bytes.
	maxQuote = 240
)

// noAnswer is the answer if no status line came.
func (c *Client) noAnswer(ctx context.Context, err error, sent bool) Answer {
	answer := Answer{Outcome: NotNow, Doubt: sent}
	said := "No order was sent"
	if sent {
		said = "The order may have reached the shop, but no answer came"
	}
	why := ""
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		said += ": the call was cancelled"
	case ctx.Err() != nil:
		said += ": the time for the call was over (at most " + c.timeout.String() + ")"
	case errors.Is(err, io.EOF):
		said += ": the shop closed the connection"
	default:
		why = err.Error()
	}
	answer.Detail = c.detail(said, why)
	return answer
}

// notAsked is the answer if a status line was on the connection before the order was
// written to it. Whatever it belongs to, it is no verdict on the order. The rest of the
// order may still be leaving: hence the doubt.
func (c *Client) notAsked(response *http.Response) Answer {
	outcome, _ := judge(response.StatusCode)
	if outcome != Refused {
		outcome = NotNow
	}
	said := "The shop answered " + statusName(response.StatusCode) + " before the order was sent"
	return Answer{Outcome: outcome, HTTPStatus: response.StatusCode, Detail: c.detail(said, ""), Doubt: true}
}

// answered is the answer to a status line; the body only adds to it, unless it is
// about another order. Then about says how.
func (c *Client) answered(ctx context.Context, response *http.Response, order Order) (answer Answer, about string) {
	answer.HTTPStatus = response.StatusCode
	answer.Outcome, answer.Doubt = judge(response.StatusCode)
	body, err := readBody(response)
	if err != nil {
		err = fmt.Errorf("it could not be read whole (%s)", c.bodyFailure(ctx, err))
	}
	said := "The shop answered " + statusName(response.StatusCode)
	if about = order.aboutAnother(c.echo, body); err == nil && about != "" {
		return c.foreign(response, said, about), about
	}
	switch answer.Outcome {
	case Charged:
		answer.Order, err = c.order(body, err)
		answer.Detail = c.detail(said+notKept(err), "")
	case Declined:
		quoted := quotable(body, err)
		answer.Order, err = c.order(body, err)
		answer.Detail = c.detail("The shop declined the order with "+statusName(response.StatusCode)+notKept(err), quoted)
	case Refused, NotNow:
		answer.RetryAfter = retryAfter(response.Header, c.now())
		answer.Detail = c.refusal(said, response, quotable(body, err))
	}
	return answer, ""
}

// foreign is the answer if the body is about another order: no verdict on this one, of
// which nothing is known. A wait that the shop asks for is honoured.
func (c *Client) foreign(response *http.Response, said, about string) Answer {
	outcome, _ := judge(response.StatusCode)
	if outcome != Refused {
		outcome = NotNow
	}
	return Answer{
		Outcome: outcome, HTTPStatus: response.StatusCode, Doubt: true, RetryAfter: retryAfter(response.Header, c.now()),
		Detail: c.detail(said+" about another order", about),
	}
}

// refusal is the sentence for answers without an order: a redirect's target says more
// than its body.
func (c *Client) refusal(said string, response *http.Response, quoted string) string {
	if status := response.StatusCode; status >= 300 && status < 400 {
		return c.detail(said+"; redirects are not followed", response.Header.Get("Location"))
	}
	return c.detail(said, quoted)
}

// readBody reads to the end, so that the connection can be used again, but at
// most maxOrder + 1 bytes. A switch of protocols has no body and no end.
func readBody(response *http.Response) ([]byte, error) {
	if response.StatusCode < http.StatusOK {
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(response.Body, maxOrder+1))
}

// bodyFailure is a reason in few words.
func (c *Client) bodyFailure(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return "the time for the call was over"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was cut"
	}
	return c.redactor.quote(err.Error(), maxQuote)
}

// order keeps the body as the order, or says why not.
func (c *Client) order(body []byte, err error) (json.RawMessage, error) {
	if err != nil {
		return nil, err
	}
	return c.redactor.keepOrder(body)
}

func notKept(err error) string {
	if err == nil {
		return ""
	}
	return "; its text is not kept: " + err.Error()
}

// quotable is the body if it is complete. The end of a cut one may be half a
// credential, which could not be found.
func quotable(body []byte, err error) string {
	if err != nil {
		return ""
	}
	return string(body)
}

// detail joins our own words with a quote from outside into one sentence.
func (c *Client) detail(said, quoted string) string {
	quoted = c.redactor.quote(quoted, maxQuote)
	if quoted == "" {
		return cutRunes(said, maxDetail-1) + "."
	}
	text := cutRunes(strings.TrimRight(said, ".")+": "+quoted, maxDetail)
	if c.redactor.in(text) {
		return cutRunes(said, maxDetail-1) + "." // it came about by the joining
	}
	return text
}
