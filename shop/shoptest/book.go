package shoptest

import (
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"
)

// Order is one booked order.
type Order struct {
	// OrderID is the shop's own id, unique over all shops.
	OrderID    string `json:"order_id"`
	RequestID  string `json:"request_id"`
	CustomerID string `json:"customer_id"`
	SKU        int    `json:"sku_id"`
	// CreatedAt is when it was booked, UTC.
	CreatedAt time.Time `json:"created_at"`
	// Calls is how many calls came to this order, the one that booked it
	// included; repeats before a restart are not counted.
	Calls int `json:"calls"`
}

// booking is what came of a request to book.
type booking int

const (
	booked   booking = iota // a new order
	repeated                // the order was there already
	conflict                // the request id belongs to another customer or product
)

var errClosed = errors.New("shoptest: the shop is closed")

// book is the order book. Its lock is held for a few microseconds a booking,
// one write to the journal included.
type book struct {
	perCall, foldCase bool

	mu         sync.Mutex
	closed     bool
	journal    *journal // nil: none is kept
	orders     []Order  // in the order of booking
	byRequest  map[string]int
	byCustomer map[string][]int
}

func newBook(o Options) (*book, error) {
	b := &book{perCall: o.NewOrderPerCall, foldCase: o.FoldCase}
	b.clear()
	if o.Journal == "" {
		return b, nil
	}
	var err error
	b.journal, err = openJournal(o.Journal, b.add)
	return b, err
}

// place books an order, or finds the one that its request id stands for.
func (b *book) place(requestID, customerID string, sku int, at time.Time) (Order, booking, error) {
	order := Order{
		OrderID: rand.Text(), RequestID: requestID, CustomerID: customerID, SKU: sku, CreatedAt: at.UTC(), Calls: 1,
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return Order{}, booked, errClosed
	}
	if i, ok := b.byRequest[b.key(requestID)]; ok && !b.perCall {
		found := &b.orders[i]
		if !b.foldCase && (found.CustomerID != customerID || found.SKU != sku) {
			return Order{}, conflict, nil
		}
		found.Calls++
		return *found, repeated, nil
	}
	if b.journal != nil {
		if err := b.journal.append(order); err != nil {
			return Order{}, booked, err
		}
	}
	b.add(order)
	return order, booked, nil
}

// key is what the book takes a request id for.
func (b *book) key(requestID string) string {
	if b.foldCase {
		return strings.ToLower(requestID)
	}
	return requestID
}

func (b *book) add(order Order) {
	i := len(b.orders)
	order.Calls = 1
	b.orders = append(b.orders, order)
	b.byRequest[b.key(order.RequestID)] = i
	b.byCustomer[order.CustomerID] = append(b.byCustomer[order.CustomerID], i)
}

func (b *book) all() []Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Order(nil), b.orders...)
}

func (b *book) forCustomer(customerID string) []Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	var orders []Order
	for _, i := range b.byCustomer[customerID] {
		orders = append(orders, b.orders[i])
	}
	return orders
}

// page returns the newest orders that match, at most limit, and the number of
// all that match. An empty customer or request id matches every one.
func (b *book) page(customerID, requestID string, limit int) (orders []Order, total int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	orders = []Order{} // an empty list in JSON, not null
	for i := len(b.orders) - 1; i >= 0; i-- {
		order := b.orders[i]
		if customerID != "" && order.CustomerID != customerID || requestID != "" && order.RequestID != requestID {
			continue
		}
		total++
		if len(orders) < limit {
			orders = append(orders, order)
		}
	}
	return orders, total
}

func (b *book) reset() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	if b.journal == nil {
		return nil
	}
	return b.journal.reset()
}

func (b *book) clear() {
	b.orders = nil
	b.byRequest = map[string]int{}
	b.byCustomer = map[string][]int{}
}

func (b *book) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.journal == nil {
		return nil
	}
	return b.journal.close()
}
