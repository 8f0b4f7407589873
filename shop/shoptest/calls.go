package shoptest

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// maxCalls bounds the log of calls; at 48 bytes a call, some 24 MB.
const maxCalls = 500_000

// Call is one POST /order/… that the shop saw.
type Call struct {
	// At is when it came, UTC.
	At        time.Time `json:"at"`
	RequestID string    `json:"request_id"`
	// Status is the answer's; 0 if there is none yet, or the call was cut.
	Status int `json:"status"`
}

// callLog keeps the latest calls in a ring.
type callLog struct {
	mu    sync.Mutex
	limit int
	seen  int // calls since the last reset, those that were dropped included
	since int // raised by reset, so that calls under way do not write into the new log
	ring  []callEntry
}

// callEntry is a Call in 32 bytes, its request id not counted.
type callEntry struct {
	at        int64 // nanoseconds since 1970
	requestID string
	status    int
}

// callMark finds a call in the log again.
type callMark struct{ number, since int }

func newCallLog(limit int) *callLog { return &callLog{limit: limit} }

func (l *callLog) begin(requestID string, at time.Time) callMark {
	// The id would keep the whole request line in memory.
	entry := callEntry{at: at.UnixNano(), requestID: strings.Clone(requestID)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < l.limit {
		l.ring = append(l.ring, entry)
	} else {
		l.ring[l.seen%l.limit] = entry
	}
	l.seen++
	return callMark{number: l.seen - 1, since: l.since}
}

func (l *callLog) end(mark callMark, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mark.since == l.since && mark.number >= l.seen-len(l.ring) {
		l.ring[mark.number%l.limit].status = status
	}
}

func (l *callLog) all() []Call {
	calls, _ := l.latest(l.limit)
	slices.Reverse(calls)
	return calls
}

// latest returns the newest calls, newest first, at most limit, and the number
// of all that were seen.
func (l *callLog) latest(limit int) (calls []Call, total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit = min(limit, len(l.ring))
	calls = make([]Call, 0, limit)
	for number := l.seen - 1; number >= l.seen-limit; number-- {
		entry := l.ring[number%l.limit]
		calls = append(calls, Call{At: time.Unix(0, entry.at).UTC(), RequestID: entry.requestID, Status: entry.status})
	}
	return calls, l.seen
}

func (l *callLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring, l.seen = nil, 0
	l.since++
}
