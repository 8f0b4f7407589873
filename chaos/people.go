package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Customers ask until they are answered: with the same request id, and now and
// then with another one, as front ends do that have lost theirs.

// askAgain is the wait after a request that has not been answered for good; longer
// where the answer says so.
const askAgain = 1500 * time.Millisecond

// operatorsPatience is how long an operator repeats a request.
const operatorsPatience = 30 * time.Second

// askUntil asks until an answer is final or the context ends, and reports which.
func askUntil(ctx context.Context, ask func(try int) exchange, later ...int) (exchange, bool) {
	for try := 1; ctx.Err() == nil; try++ {
		e := ask(try)
		if e.Status != 0 && e.Status != http.StatusServiceUnavailable && !slices.Contains(later, e.Status) {
			return e, true
		}
		wait(ctx, max(askAgain, time.Duration(e.RetryAfter)*time.Second))
	}
	return exchange{}, false
}

// charge asks for the order; it reports whether the answer was final.
func (c *client) charge(ctx context.Context, subscription, requestID string) bool {
	_, answered := askUntil(ctx, func(try int) exchange {
		id := requestID
		if try%4 == 3 {
			id = fmt.Sprintf("%s-again-%d", requestID, try)
		}
		return c.send(ctx, http.MethodPost, "/subscription/"+subscription+"/charge/"+id, "")
	}, http.StatusAccepted)
	return answered
}

// change sets the status, and after a pause sets it back.
func (c *client) change(ctx context.Context, s change) bool {
	answered := c.setStatus(ctx, s.Subscription, s.Status)
	if s.Back > 0 && wait(ctx, s.Back) {
		answered = c.setStatus(ctx, s.Subscription, statusActive) && answered
	}
	return answered
}

func (c *client) setStatus(ctx context.Context, subscription string, status int) bool {
	_, answered := askUntil(ctx, func(int) exchange {
		return c.send(ctx, http.MethodPost, "/subscription/"+subscription+"/status/", fmt.Sprintf(`{"status_id":%d}`, status))
	})
	return answered
}

// join subscribes a new customer and charges the first month.
func (c *client) join(ctx context.Context, j join) bool {
	e, answered := askUntil(ctx, func(int) exchange {
		return c.send(ctx, http.MethodPost, "/club/1/subscribe/", fmt.Sprintf(`{"customer_id":%q}`, j.Customer))
	})
	var made struct {
		ID       string `json:"id"`
		Existing string `json:"subscription_id"`
	}
	if !answered || json.Unmarshal(e.Answer, &made) != nil || made.ID+made.Existing == "" {
		return false
	}
	return c.charge(ctx, made.ID+made.Existing, "front-"+j.Customer)
}

// operate carries out a step of a run. Most find a run in another state than
// they expect; so do operators.
func (c *campaign) operate(ctx context.Context, month string, s runStep) {
	path, body := "/billing-run/"+month, ""
	switch s.Do {
	case "start":
		body = fmt.Sprintf(`{"orders_per_second":%.2f,"page_size":60,"concurrency":16,"confirm_past":true}`, s.Pace)
	case "pause":
		path, body = path+"/pause", `{"reason":"chaos"}`
	case "pace":
		path, body = path+"/pace", fmt.Sprintf(`{"orders_per_second":%.2f}`, s.Pace)
	case "resume":
		c.resume(ctx, month)
		return
	default:
		path += "/" + s.Do
	}
	ctx, cancel := context.WithTimeout(ctx, operatorsPatience)
	defer cancel()
	_, _ = askUntil(ctx, func(int) exchange { return c.client.send(ctx, http.MethodPost, path, body) })
}

// neverStarted is the state of a month without a run.
const neverStarted = "never started"

// runState reads where the month's run stands; "" where nobody knows.
func (c *client) runState(ctx context.Context, month string) (state, reason string) {
	e := c.send(ctx, http.MethodGet, "/billing-run/"+month, "")
	var run struct{ State, Reason string }
	if e.Status == http.StatusNotFound {
		return neverStarted, ""
	}
	if e.Status != http.StatusOK || json.Unmarshal(e.Answer, &run) != nil {
		return "", ""
	}
	return run.State, run.Reason
}

// watchRuns resumes runs that have paused themselves, as an operator does who has
// seen to the cause.
func (c *campaign) watchRuns(ctx context.Context) {
	for wait(ctx, 2*time.Second) {
		for _, month := range c.months {
			if state, reason := c.client.runState(ctx, month); state == "paused" && reason != "chaos" {
				c.resume(ctx, month)
			}
		}
	}
}
