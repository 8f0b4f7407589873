package modelstest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"drayman/billing"
)

// Long is when rows take effect that have "always" been there.
var Long = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Since is a history row of a [billing.Status] or [billing.ClubStatus], written
// when it takes effect.
func Since[S ~int](status S, effect time.Time) billing.Change {
	return billing.Change{StatusID: int(status), EffectDate: &effect, CreateDate: &effect}
}

// AddClub adds a club with its history; without changes it has long been
// ACTIVE. SKU 0 is null.
func (d Database) AddClub(t testing.TB, id, sku int, changes ...billing.Change) {
	t.Helper()
	d.Exec(t, "INSERT INTO club (id, name, store_sku) VALUES ($1, $2, $3)", id, fmt.Sprintf("Club %d", id), orNull(sku))
	if len(changes) == 0 {
		changes = []billing.Change{Since(billing.ClubActive, Long)}
	}
	d.AddClubChanges(t, id, changes...)
}

// AddClubChanges adds rows to a club's history, see [Database.AddChanges].
func (d Database) AddClubChanges(t testing.TB, id int, changes ...billing.Change) {
	t.Helper()
	d.addChanges(t, "club_status_history (id, club_id, club_status_id", id, changes)
}

// AddSubscription adds a subscription with its history; without changes it has
// long been ACTIVE. Club 0 and customer "" are null.
func (d Database) AddSubscription(t testing.TB, id string, club int, customer string, changes ...billing.Change) {
	t.Helper()
	d.Exec(t, "INSERT INTO subscription (id, club_id, customer_store_id, create_date) VALUES ($1, $2, $3, $4)",
		id, orNull(club), orNull(customer), Long)
	if len(changes) == 0 {
		changes = []billing.Change{Since(billing.Active, Long)}
	}
	d.AddChanges(t, id, changes...)
}

// AddChanges adds rows to a subscription's history. A row without an id gets
// one; status 0, nil dates and empty details are null.
func (d Database) AddChanges(t testing.TB, id string, changes ...billing.Change) {
	t.Helper()
	d.addChanges(t, "subscription_status_history (id, subscription_id, status_id", id, changes)
}

func (d Database) addChanges(t testing.TB, into string, of any, changes []billing.Change) {
	t.Helper()
	for _, c := range changes {
		if c.ID == "" {
			c.ID = uuid.NewString()
		}
		d.Exec(t, "INSERT INTO "+into+", effect_date, create_date, details) VALUES ($1, $2, $3, $4, $5, $6)",
			c.ID, of, orNull(c.StatusID), c.EffectDate, c.CreateDate, orNull(c.Details))
	}
}

func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}
