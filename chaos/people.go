package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Customers ask until they are answered: with the same request id, and now and
// then with another one, as front ends do that have lost theirs.

// askAgain is the wait after a request that has not been answered for good.
const askAgain = 400 * time.Millisecond

// charge asks for the order until the answer is final, or the context ends.
func (c *client) charge(ctx context.Context, subscription, requestID string) {
	for try := 1; ctx.Err() == nil; try++ {
		id := requestID
		if try%4 == 3 {
			id = fmt.Sprintf("%s-again-%d", requestID, try)
		}
		e := c.send(ctx, http.MethodPost, "/subscription/"+subscription+"/charge/"+id, "")
		switch e.Status {
		case 0, http.StatusAccepted, http.StatusServiceUnavailable:
		default:
			return
		}
		wait(ctx, askAgain)
	}
}

// change sets the status, and after a pause sets it back.
func (c *client) change(ctx context.Context, s change) {
	c.setStatus(ctx, s.Subscription, s.Status)
	if s.Back > 0 && wait(ctx, s.Back) {
		c.setStatus(ctx, s.Subscription, statusActive)
	}
}

func (c *client) setStatus(ctx context.Context, subscription string, status int) {
	for ctx.Err() == nil {
		e := c.send(ctx, http.MethodPost, "/subscription/"+subscription+"/status/", fmt.Sprintf(`{"status_id":%d}`, status))
		if e.Status != 0 && e.Status != http.StatusServiceUnavailable {
			return
		}
		wait(ctx, askAgain)
	}
}

// join subscribes a new customer and charges the first month.
func (c *client) join(ctx context.Context, j join) {
	for ctx.Err() == nil {
		e := c.send(ctx, http.MethodPost, "/club/1/subscribe/", fmt.Sprintf(`{"customer_id":%q}`, j.Customer))
		var made struct {
			ID       string `json:"id"`
			Existing string `json:"subscription_id"`
		}
		if e.Status == http.StatusCreated || e.Status == http.StatusConflict {
			_ = json.Unmarshal(e.Answer, &made) // checked below; the checker sees what was answered
			if id := made.ID + made.Existing; id != "" {
				c.charge(ctx, id, "front-"+j.Customer)
			}
			return
		}
		if e.Status != 0 && e.Status != http.StatusServiceUnavailable {
			return
		}
		wait(ctx, askAgain)
	}
}

// operate carries out a step of a run. Most find a run in another state than
// they expect; so do operators.
func (c *client) operate(ctx context.Context, month string, s runStep) {
	path, body := "/billing-run/"+month, ""
	switch s.Do {
	case "start":
		body = fmt.Sprintf(`{"orders_per_second":%.2f,"page_size":60,"concurrency":16}`, s.Pace)
	case "pause":
		path, body = path+"/pause", `{"reason":"chaos"}`
	case "pace":
		path, body = path+"/pace", fmt.Sprintf(`{"orders_per_second":%.2f}`, s.Pace)
	default:
		path += "/" + s.Do
	}
	for try := 0; try < 20 && ctx.Err() == nil; try++ {
		if e := c.send(ctx, http.MethodPost, path, body); e.Status != 0 && e.Status != http.StatusServiceUnavailable {
			return
		}
		wait(ctx, askAgain)
	}
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
func (c *client) watchRuns(ctx context.Context, months []string) {
	for wait(ctx, 2*time.Second) {
		for _, month := range months {
			if state, reason := c.runState(ctx, month); state == "paused" && reason != "chaos" {
				c.send(ctx, http.MethodPost, "/billing-run/"+month+"/resume", "")
			}
		}
	}
}
