package activities

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"drayman/billing"
	"drayman/shop"
)

// Store is what activities need of the database.
type Store interface {
	ClaimCharge(ctx context.Context, req billing.ChargeRequest, owner string, idempotentShop bool) (billing.Claim, error)
	PermitSending(ctx context.Context, id billing.RequestID, claimed time.Time, installation string) (permitted bool, sentAt time.Time, err error)
	NotOrdered(ctx context.Context, id billing.RequestID, sentAt time.Time) error
	SettleCharge(ctx context.Context, c billing.Charge) (*billing.Charge, error)
	ChargeByRequestID(ctx context.Context, id billing.RequestID) (*billing.Charge, error)

	RunByID(ctx context.Context, id string) (*billing.Run, error)
	StartRun(ctx context.Context, start billing.RunStart) (*billing.Run, error)
	SetRunState(ctx context.Context, runID string, state billing.RunState, reason string) (*billing.Run, error)
	SetRunPace(ctx context.Context, runID string, ordersPerSecond float64) (*billing.Run, error)
	RunCounts(ctx context.Context, runID string) (billing.RunCounts, error)
	OpenCharges(ctx context.Context, runID string) (int, error)
	PlanPages(ctx context.Context, run billing.Run, after string, size, limit int) (ends []string, more bool, err error)
	LeftOver(ctx context.Context, q billing.LeftOverQuery) ([]string, error)
	Eligible(ctx context.Context, q billing.EligibleQuery, yield func(id string) error) error
	Now(ctx context.Context) (time.Time, error)
	Installation(ctx context.Context) (billing.Installation, error)

	ReserveSlots(ctx context.Context, runID string, count int) (billing.Slots, error)
	ClaimPage(ctx context.Context, in billing.PageClaim) (billing.PageClaimed, error)
	OwnClaims(ctx context.Context, runID, owner string) ([]billing.Charge, error)
	HoldClaims(ctx context.Context, owner string, ids []billing.RequestID, heldFor time.Duration) ([]billing.RequestID, error)
	SettlePage(ctx context.Context, charges []billing.PlacedCharge) error

	Incarnation(ctx context.Context) (string, error)
	Replaced(ctx context.Context, known string) (bool, error)
	FreeClaims(ctx context.Context, run billing.Run) error
	NewestOpen(ctx context.Context, period billing.Period) (time.Time, error)
	Standing(ctx context.Context, period billing.Period, ids []string) (map[string]billing.ChargeStatus, error)
	PutBack(ctx context.Context, c billing.Charge) (bool, error)
}

// StartCharge starts a ChargeSubscription for a billing run, or joins the one
// that runs. Package workflows knows how; it cannot be imported here.
type StartCharge func(ctx context.Context, installation, runID string, period billing.Period, subscriptionID string) error

// Policy is how this worker treats the shop.
type Policy struct {
	// Idempotent says that the shop takes a repeated request id for the same
	// order (SHOP_IDEMPOTENT).
	Idempotent bool `json:"idempotent"`
	// RetryFor bounds the retries of one charge (CHARGE_RETRY_FOR).
	RetryFor time.Duration `json:"retry_for"`
	// ShopTimeout bounds one call to the shop (SHOP_TIMEOUT), at most
	// [shop.MaxTimeout].
	ShopTimeout time.Duration `json:"shop_timeout"`
}

// Activities are registered on a worker; their exported methods are the
// activities, by name.
type Activities struct {
	store  Store
	shop   *shop.Client
	policy Policy
	zone   *time.Location // BILLING_TIMEZONE
	start  StartCharge
	memory Memory // nil: none
	log    *slog.Logger

	atOnce  *semaphore.Weighted // calls of workflow tasks
	placing singleflight.Group  // PlaceOrder under way, by request id
	calls   singleflight.Group  // calls to the shop under way, by request id
}

// New makes the activities of a worker. The zone is in which a month begins.
func New(store Store, client *shop.Client, policy Policy, zone *time.Location, start StartCharge, log *slog.Logger) *Activities {
	return &Activities{
		store: store, shop: client, policy: policy, zone: zone, start: start, log: log, atOnce: semaphore.NewWeighted(CallsAtOnce),
	}
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
