package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"drayman/shop/shoptest"
)

// stormKinds are what a shop can do wrong for a while.
var stormKinds = []string{"unavailable", "too_many", "refused", "late", "cut_before", "cut_after", "redirect", "booked_and_500", "another"}

func stormFault(kind string) shoptest.Fault {
	switch kind {
	case "unavailable":
		return shoptest.Fault{Status: http.StatusServiceUnavailable}
	case "too_many":
		return shoptest.Fault{Status: http.StatusTooManyRequests, RetryAfter: "1"}
	case "refused":
		return shoptest.Fault{Status: http.StatusUnauthorized}
	case "late": // later than SHOP_TIMEOUT
		return shoptest.Fault{Delay: shopTimeout + 500*time.Millisecond}
	case "cut_before":
		return shoptest.Fault{Cut: shoptest.CutBefore}
	case "cut_after":
		return shoptest.Fault{Cut: shoptest.CutAfter}
	case "another": // booked, and answered with somebody else's order
		return shoptest.Fault{Body: `{"order_id":"ANOTHER","request_id":"another","customer_id":"another","sku_id":1}`}
	case "redirect":
		return shoptest.Fault{Redirect: "http://127.0.0.1:1/elsewhere"}
	}
	return shoptest.Fault{Status: http.StatusInternalServerError, BookFirst: true}
}

// faultBoard keeps the shop's faults as they should be, also over its deaths.
type faultBoard struct {
	url  string
	seed uint64

	mu       sync.Mutex
	declined []string // customers
	calm     bool     // declines only
	storm    []shoptest.Fault
	posts    uint64
}

// faults is the list: the first that fits acts. Declines come first and are by
// customer, as a shop's are: who is declined never has an order. The others are
// drawn for each call.
func (b *faultBoard) faults() []shoptest.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []shoptest.Fault
	if len(b.declined) > 0 { // an empty list would be everybody
		list = append(list, shoptest.Fault{CustomerIDs: b.declined, Status: http.StatusUnprocessableEntity})
	}
	if b.calm {
		return list
	}
	list = append(list, b.storm...)
	b.posts++ // else the lots would be the same after each post
	seed := b.seed<<16 + b.posts<<8
	for i, kind := range stormKinds {
		fault := stormFault(kind)
		fault.Percent, fault.PercentOfCalls, fault.Seed = 0.5, true, seed+uint64(i)
		list = append(list, fault)
	}
	return append(list,
		shoptest.Fault{Percent: 0.5, PercentOfCalls: true, Seed: seed + 100, Body: "thank you, come again"},
		shoptest.Fault{Percent: 5, PercentOfCalls: true, Seed: seed + 101, Delay: 200 * time.Millisecond})
}

func (b *faultBoard) set(ctx context.Context, change func(*faultBoard)) {
	b.mu.Lock()
	change(b)
	b.mu.Unlock()
	b.post(ctx)
}

// post tells the shop, until it has heard.
func (b *faultBoard) post(ctx context.Context) {
	for b.tryPost(ctx) != nil && wait(ctx, 50*time.Millisecond) {
	}
}

func (b *faultBoard) tryPost(ctx context.Context) error {
	data, err := json.Marshal(b.faults())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, b.url+"/faults", bytes.NewReader(data))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // nothing in it
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the shop takes no faults: %s", response.Status)
	}
	return nil
}

// rage is a storm.
func (b *faultBoard) rage(ctx context.Context, s storm) {
	fault := stormFault(s.Kind)
	fault.Percent, fault.PercentOfCalls, fault.Seed = s.Percent, true, uint64(s.At)
	b.set(ctx, func(b *faultBoard) { b.storm = []shoptest.Fault{fault} })
	wait(ctx, s.For)
	b.set(ctx, func(b *faultBoard) { b.storm = nil })
}

// readBook reads the shop's orders from its journal.
func readBook(path string) ([]shoptest.Order, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	var orders []shoptest.Order
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var order shoptest.Order
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			return nil, fmt.Errorf("order %d: %w", len(orders)+1, err)
		}
		orders = append(orders, order)
	}
	return orders, lines.Err()
}

// bookedIDs are the request ids that have an order.
func bookedIDs(orders []shoptest.Order) map[string]bool {
	booked := map[string]bool{}
	for _, order := range orders {
		booked[order.RequestID] = true
	}
	return booked
}
