package shoptest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
	"unicode/utf8"
)

const (
	maxBody       = 64 << 10 // bytes of a request's body
	maxCustomerID = 36       // characters
)

// reply is the answer to a call. Status 0 closes the connection instead.
type reply struct {
	status     int
	body       any    // written as JSON, unless
	text       string // is set, which is written as it stands
	location   string
	retryAfter string
	extra      string // a second answer
}

// orderBody is the body of a call.
type orderBody struct {
	customerID string
	sku        int
}

// serveOrder logs the call's end before the answer leaves, so that a caller that has
// the answer finds it in the log.
func (s *Shop) serveOrder(w http.ResponseWriter, r *http.Request) {
	mark := s.calls.begin(r.PathValue("request_id"), s.options.Now())
	answer := s.decide(r)
	s.calls.end(mark, answer.status)
	answer.send(w)
	if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok && answer.extra != "" {
		extra := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer.extra), answer.extra)
		time.AfterFunc(extraAfter, func() { _, _ = io.WriteString(conn, extra) }) // the caller may be gone
	}
}

// connKey is the context's key for the connection of a call.
type connKey struct{}

// extraAfter is when a second answer follows the first: when the next order may
// have taken the connection.
const extraAfter = 2 * time.Millisecond

func (s *Shop) decide(r *http.Request) reply {
	if !s.admits(r.Header) {
		return failure(http.StatusUnauthorized, "unknown x-api-key or x-api-secret")
	}
	order, err := readOrder(r.Body)
	if err != nil {
		return failure(http.StatusUnprocessableEntity, err.Error())
	}
	requestID := r.PathValue("request_id")
	fault, found := s.faults.take(requestID, order)
	if !found {
		return s.place(requestID, order)
	}
	var answer reply
	if fault.books() {
		answer = s.place(requestID, order)
	}
	if !s.wait(r.Context(), fault.Delay) {
		return reply{}
	}
	return fault.change(answer)
}

func (s *Shop) admits(header http.Header) bool {
	fits := func(got, want string) bool { return got != "" && (want == "" || got == want) }
	return fits(header.Get("X-Api-Key"), s.options.APIKey) &&
		fits(header.Get("X-Api-Secret"), s.options.APISecret)
}

func readOrder(body io.Reader) (orderBody, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil || len(data) > maxBody {
		return orderBody{}, errors.New("the body cannot be read, or is too large")
	}
	var in struct {
		CustomerID *string `json:"customer_id"`
		SKU        *int    `json:"sku_id"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return orderBody{}, errors.New("the body must be a JSON object with customer_id, a string, and sku_id, an integer")
	}
	if in.CustomerID == nil || *in.CustomerID == "" || utf8.RuneCountInString(*in.CustomerID) > maxCustomerID {
		return orderBody{}, errors.New("customer_id must have 1 to 36 characters")
	}
	if in.SKU == nil {
		return orderBody{}, errors.New("sku_id is missing")
	}
	return orderBody{customerID: *in.CustomerID, sku: *in.SKU}, nil
}

// place books and answers with the order: 201 for a new one, 200 for one that
// was there, 422 if the request id was used for something else.
func (s *Shop) place(requestID string, body orderBody) reply {
	order, what, err := s.book.place(requestID, body.customerID, body.sku, s.options.Now())
	if err != nil {
		return failure(http.StatusInternalServerError, "the order book cannot be written")
	}
	if what == conflict {
		return failure(http.StatusUnprocessableEntity, "the request id was used for another customer or product")
	}
	status := http.StatusCreated
	if what == repeated {
		status = http.StatusOK
	}
	return reply{status: status, body: struct {
		Order
		Calls int `json:"calls,omitempty"` // hides the book's own count, which is no part of an answer
	}{Order: order}}
}

// wait reports whether the whole delay passed; the caller's end and Close cut it
// short.
func (s *Shop) wait(ctx context.Context, delay time.Duration) bool {
	if delay == 0 {
		return true
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-s.closed:
	}
	return false
}

// change turns the answer that the call would have had into the fault's.
func (f Fault) change(answer reply) reply {
	if f.Cut != "" {
		return reply{}
	}
	switch {
	case f.Status != 0:
		answer = failure(f.Status, "fault")
	case f.Redirect != "":
		answer = failure(http.StatusTemporaryRedirect, "fault")
	}
	answer.location, answer.text, answer.retryAfter, answer.extra = f.Redirect, f.Body, f.RetryAfter, f.Extra
	return answer
}

func failure(status int, message string) reply {
	return reply{status: status, body: map[string]string{"error": message}}
}

// send writes the reply. The panic is net/http's own way to close a connection
// without an answer.
func (r reply) send(w http.ResponseWriter) {
	if r.status == 0 {
		panic(http.ErrAbortHandler)
	}
	if r.location != "" {
		w.Header().Set("Location", r.location)
	}
	if r.retryAfter != "" {
		w.Header().Set("Retry-After", r.retryAfter)
	}
	if r.text == "" {
		writeJSON(w, r.status, r.body)
		return
	}
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, r.text) // the caller may be gone
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the caller may be gone
}
