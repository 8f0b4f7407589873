package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"drayman/billing"
)

// Time limits of a call: until the answer begins (a report reads through all
// subscriptions), and for all of a short one.
const (
	answerTimeout   = 2 * time.Minute
	progressTimeout = 60 * time.Second
)

// maxProblemBytes is how much of an error's answer is read.
const maxProblemBytes = 64 << 10

var errNotDrayman = errors.New("the answer is not Drayman's; is --api-url ($API_URL) right?")

// runAPI is a client of the API: of its billing runs and charges.
type runAPI struct {
	base string
	http *http.Client
}

func newRunAPI(base string) *runAPI {
	return &runAPI{base: strings.TrimRight(base, "/"), http: &http.Client{
		Transport: &http.Transport{
			Proxy:       http.ProxyFromEnvironment, // never for this machine
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, ResponseHeaderTimeout: answerTimeout,
		},
		// A redirected POST would become a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// apiError is an answer of the API that is no success.
type apiError struct {
	status int
	Code   billing.Code `json:"code"`
	Detail string       `json:"detail"`
	CutOff *time.Time   `json:"cut_off"` // with past_period_unconfirmed, as Due
	Due    *int         `json:"due"`
}

// Error is the sentence and the code, in one line.
func (e *apiError) Error() string {
	return fmt.Sprintf("%s (%s)", oneLine(e.Detail), oneLine(string(e.Code)))
}

// isNoRun reports whether the API says that the month has no run.
func isNoRun(err error) bool {
	var answer *apiError
	return errors.As(err, &answer) && answer.Code == billing.CodeRunNotFound
}

// isTransient reports whether the same call may go well a little later: the API
// could not be reached, or says that it cannot now.
func isTransient(err error) bool {
	var answer *apiError
	return !errors.Is(err, errNotDrayman) &&
		(!errors.As(err, &answer) || answer.status >= http.StatusInternalServerError || answer.status == http.StatusTooManyRequests)
}

// oneLine keeps text of others from breaking lines or commanding a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, s)
}

// call returns a successful answer; its body is the caller's to close.
func (a *runAPI) call(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, payload)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "drayman/"+Version)
	res, err := a.http.Do(req)
	if err != nil {
		return nil, a.unreachable(err)
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }() // an error is all there is
	problem := &apiError{status: res.StatusCode}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxProblemBytes)).Decode(problem); err != nil || problem.Code == "" {
		return nil, &apiError{status: res.StatusCode, Code: "no_problem_details", Detail: a.base + " answers " + res.Status}
	}
	return nil, problem
}

// unreachable says which address gave no answer.
func (a *runAPI) unreachable(err error) error {
	var op *url.Error
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("no answer from the API at %s (--api-url, $API_URL): %w", a.base, err)
}

// open returns the body of an answer to a GET.
func (a *runAPI) open(ctx context.Context, path string) (io.ReadCloser, error) {
	res, err := a.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// runProgress is a progress and the status that it came with.
type runProgress struct {
	billing.Progress
	status int
}

// progress makes a call that is answered with the progress of a run.
func (a *runAPI) progress(ctx context.Context, method, path string, body any) (p runProgress, err error) {
	p.status, err = a.read(ctx, method, path, body, &p.Progress)
	if err == nil && p.State == "" {
		err = errNotDrayman
	}
	if err != nil {
		return runProgress{}, err
	}
	return p, nil
}

// read makes a short call, decodes its answer and returns the answer's status.
func (a *runAPI) read(ctx context.Context, method, path string, body, answer any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, progressTimeout)
	defer cancel()
	res, err := a.call(ctx, method, path, body)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, a.unreachable(err)
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return 0, errNotDrayman
	}
	return res.StatusCode, nil
}

// installation asks which installation the API serves.
func (a *runAPI) installation(ctx context.Context) (found struct{ ID, Name string }, err error) {
	ctx, cancel := context.WithTimeout(ctx, progressTimeout)
	defer cancel()
	body, err := a.open(ctx, "/installation")
	if err != nil {
		return found, err
	}
	defer func() { _ = body.Close() }() // it has been read
	if err := json.NewDecoder(body).Decode(&found); err != nil || found.ID == "" {
		return found, errNotDrayman
	}
	return found, nil
}
