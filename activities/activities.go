package activities

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"drayman/billing"
	"drayman/models"
	"drayman/shop"
)

// Temporal is what activities ask of the Temporal server. Package workflows implements it;
// it cannot be imported here.
type Temporal interface {
	// StartCharge starts a ChargeSubscription, or joins the one that runs.
	StartCharge(ctx context.Context, req billing.ChargeRequest) error
	// StartRecall starts the installation's Recall, or joins the one that runs.
	StartRecall(ctx context.Context, installation string) error
	// IsListed says whether Temporal's list shows the execution. If it does, it also shows
	// those that began or ended before it.
	IsListed(ctx context.Context, workflowID, runID string) (bool, error)
	// Executions lists the executions of ChargeSubscription that have completed, which says
	// that they have charged; or all others. The latest come first, one list page at a time.
	Executions(ctx context.Context, completed bool, token []byte) (page []Execution, next []byte, err error)
	// Charge reads the charge of an execution from its history; nil if the execution made
	// none, or if another installation has asked for it. It is pending if the history has no
	// outcome; its customer is empty if the history has nothing but the request.
	Charge(ctx context.Context, installation string, e Execution) (*billing.Charge, error)
	// Runs reads the billing runs of the installation, each as its history last shows it.
	Runs(ctx context.Context, installation string) ([]billing.Run, error)
}

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

// Config is what activities are made of. All fields but the last are required.
type Config struct {
	Store    *models.Store
	Shop     *shop.Client
	Policy   Policy
	Zone     *time.Location // BILLING_TIMEZONE, in which a month begins
	Temporal Temporal
	Log      *slog.Logger
	// CallsAtOnce is how many calls of PlaceOrder the worker makes inside of workflow
	// tasks; 0 is [CallsAtOnce].
	CallsAtOnce int64
}

// Activities are registered on a worker; their exported methods are the
// activities, by name.
type Activities struct {
	store    *models.Store
	shop     *shop.Client
	policy   Policy
	zone     *time.Location
	temporal Temporal
	log      *slog.Logger

	atOnce *semaphore.Weighted // calls of workflow tasks

	// Temporal may lose sight of an attempt that is alive, and start another one in this
	// process. The other one joins what is under way. PlaceOrder is joined as a whole, by
	// what it is asked for: at a shop that is not idempotent, a second permission to send
	// would be refused, and the order be in doubt, while the answer is on its way. Calls to
	// the shop are joined by request id, for pages also, which settle a batch at once.
	placing singleflight.Group
	calls   singleflight.Group
}

// New makes the activities of a worker.
func New(c Config) *Activities {
	if c.CallsAtOnce == 0 {
		c.CallsAtOnce = CallsAtOnce
	}
	return &Activities{
		store: c.Store, shop: c.Shop, policy: c.Policy, zone: c.Zone, temporal: c.Temporal, log: c.Log,
		atOnce: semaphore.NewWeighted(c.CallsAtOnce),
	}
}
