package shoptest

import (
	"net/http"
	"sync"
	"time"

	"drayman/guard"
)

// Options say how the fake shop behaves.
type Options struct {
	// APIKey and APISecret are what calls must carry in x-api-key and
	// x-api-secret. If one is empty, its header may have any value, but not be absent.
	APIKey, APISecret string
	// Journal is the path of the file that keeps the order book. It is made if it
	// is missing. Empty: the book is in memory.
	Journal string
	// NewOrderPerCall books an order at each call, even under a request id that
	// was used: a shop that is not idempotent.
	NewOrderPerCall bool
	// Guard says whom the shop serves; its zero value fits a server on loopback.
	Guard guard.Policy
	// FoldCase compares request ids without case, as some shops do: a call whose id
	// differs in case alone gets the order that is there, whoever it belongs to.
	FoldCase bool
	// Now is the clock for times of orders and calls; nil means time.Now.
	Now func() time.Time
}

// Shop is a fake shop. It is an http.Handler and safe for concurrent use.
type Shop struct {
	options Options
	handler http.Handler
	book    *book
	calls   *callLog
	faults  faultSet

	closing sync.Once
	closed  chan struct{} // ends the delays
}

// New returns a shop with the orders of its journal.
func New(options Options) (*Shop, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	book, err := newBook(options)
	if err != nil {
		return nil, err
	}
	s := &Shop{
		options: options,
		book:    book,
		calls:   newCallLog(maxCalls),
		closed:  make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /order/{request_id}", s.serveOrder)
	mux.HandleFunc("GET /orders", s.serveOrders)
	mux.HandleFunc("GET /calls", s.serveCalls)
	mux.HandleFunc("GET /faults", s.serveFaults)
	mux.HandleFunc("PUT /faults", s.replaceFaults)
	mux.HandleFunc("DELETE /faults", s.deleteFaults)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	s.handler = options.Guard.Handler(mux, func(w http.ResponseWriter, _ *http.Request, why *guard.Refusal) {
		writeJSON(w, why.Status, map[string]string{"error": why.Error()})
	})
	return s, nil
}

// ServeHTTP answers as the shop does; see the package's page for the paths.
func (s *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close ends the delays under way, whose calls are cut, and closes the journal.
// Calls after it that would book an order are answered 500. Only the first
// Close does anything.
func (s *Shop) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.closed)
		err = s.book.close()
	})
	return err
}

// Orders returns the order book, in the order of booking.
func (s *Shop) Orders() []Order { return s.book.all() }

// OrdersFor returns one customer's orders, in the order of booking.
func (s *Shop) OrdersFor(customerID string) []Order { return s.book.forCustomer(customerID) }

// Calls returns the calls seen, oldest first: the latest 500,000 of them.
func (s *Shop) Calls() []Call { return s.calls.all() }

// SetFaults replaces all faults, and starts their counts anew. With none, the
// shop works well again. It panics at a fault that Validate refuses, so that a
// test with a rule that can never act does not go on.
func (s *Shop) SetFaults(faults ...Fault) {
	if err := s.faults.replace(faults); err != nil {
		panic("shoptest: SetFaults: " + err.Error())
	}
}

// Faults returns the faults as they were set.
func (s *Shop) Faults() []Fault { return s.faults.list() }

// Reset forgets orders, calls and faults, and empties the journal.
func (s *Shop) Reset() error {
	s.SetFaults()
	s.calls.reset()
	return s.book.reset()
}
