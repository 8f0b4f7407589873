package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"drayman/shop"
)

// subscription is a row to be ordered for.
type subscription struct {
	id, customer string
	sku          int
}

func (s *site) subscriptions(ctx context.Context, limit int) ([]subscription, error) {
	rows, err := s.db.Query(ctx, `SELECT s.id, s.customer_store_id, c.store_sku
		FROM subscription s JOIN club c ON c.id = s.club_id ORDER BY s.id LIMIT $1`, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var subscriptions []subscription
	for rows.Next() {
		var sub subscription
		if err := rows.Scan(&sub.id, &sub.customer, &sub.sku); err != nil {
			return nil, err
		}
		subscriptions = append(subscriptions, sub)
	}
	return subscriptions, rows.Err()
}

// baselines measures both, in orders a second.
func (s *site) baselines(ctx context.Context, o options) (calls, rowByRow float64, err error) {
	subscriptions, err := s.subscriptions(ctx, o.Baseline)
	if err != nil || len(subscriptions) == 0 {
		return 0, 0, err
	}
	// The run's ledger must stay empty, so this is another, with the same indexes.
	if _, err := s.db.Exec(ctx, `CREATE TABLE plain_charge (LIKE charge INCLUDING ALL)`); err != nil {
		return 0, 0, err
	}
	shop, err := shop.New(shop.Config{URL: s.shopURL, APIKey: shopKey, APISecret: shopSecret, Timeout: 10 * time.Second})
	if err != nil {
		return 0, 0, err
	}
	defer shop.Close()
	job := plainJob{s, shop}
	if calls, err = perSecond(ctx, o.Concurrency, subscriptions, job.call); err != nil {
		return 0, 0, fmt.Errorf("calls alone: %w", err)
	}
	if rowByRow, err = perSecond(ctx, o.Concurrency, subscriptions, job.charge); err != nil {
		return 0, 0, fmt.Errorf("row by row: %w", err)
	}
	return calls, rowByRow, nil
}

func perSecond(ctx context.Context, concurrency int, all []subscription, do func(context.Context, subscription) error) (float64, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	begun := time.Now()
	for _, sub := range all {
		group.Go(func() error { return do(ctx, sub) })
	}
	err := group.Wait()
	return float64(len(all)) / time.Since(begun).Seconds(), err
}

// plainJob charges one by one, as a job without batches does.
type plainJob struct {
	site *site
	shop *shop.Client
}

func (j plainJob) order(ctx context.Context, requestID string, sub subscription) (string, error) {
	answer := j.shop.PlaceOrder(ctx, shop.Order{RequestID: requestID, CustomerID: sub.customer, SKU: sub.sku})
	if answer.Outcome != shop.Charged {
		return "", fmt.Errorf("the shop: %s", answer.Detail)
	}
	return string(answer.Order), nil
}

func (j plainJob) call(ctx context.Context, sub subscription) error {
	_, err := j.order(ctx, "calls-"+sub.id, sub)
	return err
}

func (j plainJob) charge(ctx context.Context, sub subscription) error {
	requestID := "plain-" + sub.id
	_, err := j.site.db.Exec(ctx, `INSERT INTO plain_charge (request_id, subscription_id, period, status, owner, customer_id, sku_id, created_at)
		VALUES ($1, $2, '2026-01', 'pending', 'bench', $3, $4, now())`, requestID, sub.id, sub.customer, sub.sku)
	if err != nil {
		return err
	}
	order, err := j.order(ctx, requestID, sub)
	if err != nil {
		return err
	}
	_, err = j.site.db.Exec(ctx, `UPDATE plain_charge SET status = 'charged', attempts = 1, shop_order = $2, settled_at = now()
		WHERE request_id = $1 AND status = 'pending'`, requestID, order)
	return err
}
