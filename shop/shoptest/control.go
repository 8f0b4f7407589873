package shoptest

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
)

const (
	defaultLimit = 100     // entries of a list without ?limit=
	maxFaults    = 1 << 20 // bytes of a list of faults
)

func (s *Shop) serveOrders(w http.ResponseWriter, r *http.Request) {
	limit, ok := limitOf(w, r)
	if !ok {
		return
	}
	query := r.URL.Query()
	orders, total := s.book.page(query.Get("customer_id"), query.Get("request_id"), limit)
	writeJSON(w, http.StatusOK, struct {
		Total  int     `json:"total"`
		Orders []Order `json:"orders"`
	}{total, orders})
}

func (s *Shop) serveCalls(w http.ResponseWriter, r *http.Request) {
	limit, ok := limitOf(w, r)
	if !ok {
		return
	}
	calls, total := s.calls.latest(limit)
	writeJSON(w, http.StatusOK, struct {
		Total int    `json:"total"`
		Calls []Call `json:"calls"`
	}{total, calls})
}

// limitOf reads ?limit=, and answers 400 itself if it is no number from 0 up.
func limitOf(w http.ResponseWriter, r *http.Request) (limit int, ok bool) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultLimit, true
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 0 {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "limit must be a whole number, 0 or more"})
		return 0, false
	}
	return limit, true
}

func (s *Shop) serveFaults(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.faults.list())
}

// replaceFaults accepts a whole list or none of it.
func (s *Shop) replaceFaults(w http.ResponseWriter, r *http.Request) {
	var faults []Fault
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaults))
	if err == nil {
		err = json.Unmarshal(data, &faults)
	}
	if err == nil {
		err = s.faults.replace(faults)
	}
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	s.serveFaults(w, r)
}

func (s *Shop) deleteFaults(w http.ResponseWriter, _ *http.Request) {
	s.SetFaults()
	w.WriteHeader(http.StatusNoContent)
}
