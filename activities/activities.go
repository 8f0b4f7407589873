package activities

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/sdk/temporal"

	"drayman/billing"
	"drayman/shop"
)

// Store is what activities need of the database.
type Store interface {
	ClaimCharge(ctx context.Context, req billing.ChargeRequest, owner string, idempotentShop bool) (billing.Claim, error)
	PermitSending(ctx context.Context, id billing.RequestID) (bool, error)
	WithdrawSending(ctx context.Context, id billing.RequestID) error
	SettleCharge(ctx context.Context, c billing.Charge) (*billing.Charge, error)
}

// Policy is how this worker treats the shop.
type Policy struct {
	// Idempotent says that the shop takes a repeated request id for the same
	// order (SHOP_IDEMPOTENT).
	Idempotent bool `json:"idempotent"`
	// RetryFor bounds the retries of one charge (CHARGE_RETRY_FOR).
	RetryFor time.Duration `json:"retry_for"`
	// ShopTimeout bounds one call to the shop (SHOP_TIMEOUT).
	ShopTimeout time.Duration `json:"shop_timeout"`
}

// Activities are registered on a worker; their exported methods are the
// activities, by name.
type Activities struct {
	store  Store
	shop   *shop.Client
	policy Policy
	log    *slog.Logger
}

// New makes the activities of a worker.
func New(store Store, client *shop.Client, policy Policy, log *slog.Logger) *Activities {
	return &Activities{store: store, shop: client, policy: policy, log: log}
}

// asFailure makes an error of the domain final for Temporal, under its code, with
// itself as details; any other error is left to be tried again.
func asFailure(err error) error {
	var known *billing.Error
	if !errors.As(err, &known) {
		return err
	}
	return temporal.NewApplicationErrorWithOptions(known.Detail, string(known.Code),
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{known}})
}
