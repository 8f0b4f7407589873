package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// order is one in the shop's book.
type order struct {
	RequestID  string    `json:"request_id"`
	CustomerID string    `json:"customer_id"`
	CreatedAt  time.Time `json:"created_at"`
	Calls      int       `json:"calls"`
}

// check holds the shop's book against the ledger and the subscriptions: one
// order each, under the request id of its charge. It adds to the figures what
// the book knows.
func (s *site) check(ctx context.Context, o options, period string, f *runFigures) error {
	charges, err := s.charged(ctx, period)
	if err != nil {
		return err
	}
	charged := len(charges)
	orders, err := s.orders(ctx, o, period)
	if err != nil {
		return err
	}
	var first, last time.Time
	for _, order := range orders {
		if charges[order.RequestID] != order.CustomerID {
			return fmt.Errorf("order %s is in no charge of the ledger, or is there twice", order.RequestID)
		}
		delete(charges, order.RequestID)
		f.Repeated += order.Calls - 1
		if first.IsZero() || order.CreatedAt.Before(first) {
			first = order.CreatedAt
		}
		if order.CreatedAt.After(last) {
			last = order.CreatedAt
		}
	}
	if len(orders) != o.Charges || charged != o.Charges {
		return fmt.Errorf("%d subscriptions, %d charged, %d orders at the shop", o.Charges, charged, len(orders))
	}
	f.Orders = last.Sub(first).Seconds()
	f.OrderRate = float64(len(orders)) / max(f.Orders, 0.001)
	return nil
}

// charged returns the customers of the charges in the ledger, by request id. The
// ledger's own index admits no second one for a subscription.
func (s *site) charged(ctx context.Context, period string) (map[string]string, error) {
	rows, err := s.db.Query(ctx, `SELECT c.request_id, c.customer_id FROM charge c JOIN subscription s
		ON s.id = c.subscription_id AND s.customer_store_id = c.customer_id WHERE c.period = $1 AND c.status = 'charged'`, period)
	if err != nil {
		return nil, err
	}
	charges := map[string]string{}
	var requestID, customer string
	_, err = pgx.ForEachRow(rows, []any{&requestID, &customer}, func() error {
		charges[requestID] = customer
		return nil
	})
	return charges, err
}

// orders returns the shop's orders of the run, without those of the baselines.
func (s *site) orders(ctx context.Context, o options, period string) ([]order, error) {
	var book struct {
		Orders []order `json:"orders"`
	}
	all := 2*o.Charges + 2*o.Baseline // one too many must be seen
	if err := send(ctx, http.MethodGet, fmt.Sprintf("%s/orders?limit=%d", s.shopURL, all), nil, &book); err != nil {
		return nil, err
	}
	var orders []order
	for _, order := range book.Orders {
		if strings.HasPrefix(order.RequestID, period+"-") {
			orders = append(orders, order)
		}
	}
	return orders, nil
}
