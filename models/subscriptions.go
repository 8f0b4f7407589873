package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"drayman/billing"
)

// Subscribe makes a subscription to the club, ACTIVE from now on. It returns a
// [billing.Error]: club_not_found, club_not_active, or already_subscribed with
// the id of the subscription there is.
func (s *Store) Subscribe(ctx context.Context, clubID int, customerID string) (*billing.Subscription, error) {
	var made *billing.Subscription
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		if err := s.lockCustomer(tx, clubID, customerID); err != nil {
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		if err := mayJoin(tx, clubID, customerID, now); err != nil {
			return err
		}
		made, err = insertSubscription(tx, clubID, customerID, now)
		return err
	})
	return made, err
}

// lockCustomer admits one of several identical subscribes at a time, over all
// processes: the approved table cannot get a unique index. On SQLite the immediate
// transaction does it.
func (s *Store) lockCustomer(tx *gorm.DB, clubID int, customerID string) error {
	if s.dialect == SQLite {
		return nil
	}
	key := fmt.Sprintf("drayman subscribe %d %s", clubID, customerID)
	return tx.Exec("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", key).Error
}

func mayJoin(tx *gorm.DB, clubID int, customerID string, now time.Time) error {
	club, err := readClub(tx, clubID, now)
	if err != nil {
		return err
	}
	if billing.ClubStatus(club.Current.StatusID) != billing.ClubActive {
		return billing.Errorf(billing.CodeClubNotActive,
			"club %d takes no new subscriptions: its status is %s", clubID, billing.ClubStatus(club.Current.StatusID))
	}
	var existing []subscriptionRow
	err = tx.Where("club_id = ? AND customer_store_id = ?", clubID, customerID).Order("id").Limit(1).Find(&existing).Error
	if err != nil || len(existing) == 0 {
		return err
	}
	problem := billing.Errorf(billing.CodeAlreadySubscribed,
		"the customer has subscribed to club %d before; activate that subscription instead", clubID)
	problem.SubscriptionID = existing[0].ID
	return problem
}

func insertSubscription(tx *gorm.DB, clubID int, customerID string, now time.Time) (*billing.Subscription, error) {
	row := subscriptionRow{ID: uuid.NewString(), ClubID: whole{&clubID}, CustomerStoreID: &customerID, CreateDate: written{at: &now}}
	if err := tx.Create(&row).Error; err != nil {
		return nil, fmt.Errorf("inserting the subscription: %w", err)
	}
	active := billing.Change{ID: uuid.NewString(), StatusID: int(billing.Active), EffectDate: &now, CreateDate: &now}
	if err := insertChange(tx, row.ID, active); err != nil {
		return nil, err
	}
	return newSubscription(row, history{changes: []billing.Change{active}}, now), nil
}

func insertChange(tx *gorm.DB, subscriptionID string, c billing.Change) error {
	row := subscriptionStatusRow{
		ID: c.ID, SubscriptionID: subscriptionID, StatusID: whole{&c.StatusID}, EffectDate: written{at: c.EffectDate},
		CreateDate: written{at: c.CreateDate}, Details: orNull(c.Details),
	}
	if err := tx.Create(&row).Error; err != nil {
		return fmt.Errorf("inserting the status: %w", err)
	}
	return nil
}

// Subscription reads a subscription as it stands now, or returns
// subscription_not_found.
func (s *Store) Subscription(ctx context.Context, id string) (*billing.Subscription, error) {
	tx := s.read.WithContext(ctx)
	now, err := s.now(tx)
	if err != nil {
		return nil, err
	}
	row, err := readSubscription(tx, id)
	if err != nil {
		return nil, err
	}
	h, err := readHistory(tx, id)
	if err != nil {
		return nil, err
	}
	return newSubscription(row, h, now), nil
}

// ChangeStatus appends a status row, and removes the automatic returns that it
// supersedes, see [billing.PlanStatusChange]. A zero EffectDate means now. It
// returns subscription_not_found or validation_failed.
//
// It takes the lock that a claim takes. So the claim honours a cancel that has
// answered before it, and a cancel that comes later finds the charge and returns it in
// InProgress.
func (s *Store) ChangeStatus(ctx context.Context, id string, change billing.StatusChange) (*billing.Subscription, error) {
	var changed *billing.Subscription
	err := s.inTransaction(ctx, func(tx *gorm.DB) error {
		if err := s.lockSubscription(tx, id); err != nil {
			return err
		}
		row, err := readSubscription(tx, id)
		if err != nil {
			return err
		}
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		if change.EffectDate.IsZero() {
			change.EffectDate = now
		}
		if err := change.Validate(); err != nil {
			return err
		}
		after, err := applyChange(tx, id, change, now)
		if err != nil {
			return err
		}
		changed = newSubscription(row, after, now)
		changed.InProgress, err = chargeInProgress(tx, id)
		return err
	})
	return changed, err
}

func applyChange(tx *gorm.DB, id string, change billing.StatusChange, now time.Time) (history, error) {
	before, err := readHistory(tx, id)
	if err != nil {
		return before, err
	}
	plan := billing.PlanStatusChange(before.changes, change, now, uuid.NewString)
	for _, c := range plan.Add {
		if err := insertChange(tx, id, c); err != nil {
			return before, err
		}
	}
	for _, c := range plan.Remove {
		if err := tx.Delete(&subscriptionStatusRow{ID: c.ID}).Error; err != nil {
			return before, fmt.Errorf("taking away an automatic return: %w", err)
		}
	}
	return readHistory(tx, id)
}

// lockSubscription holds the subscription's row until the transaction ends. A
// person's forgotten transaction may hold it for hours: the wait is bounded, and
// the error tells the caller to try again. A subscription without a row locks
// nothing.
func (s *Store) lockSubscription(tx *gorm.DB, id string) error {
	return s.lockSubscriptions(tx, []string{id})
}

// lockSubscriptions locks the rows in the order of their ids, so that two transactions
// which lock several cannot wait for each other.
func (s *Store) lockSubscriptions(tx *gorm.DB, ids []string) error {
	if s.dialect == SQLite {
		return nil
	}
	if err := tx.Exec("SET LOCAL lock_timeout = '3s'").Error; err != nil {
		return err
	}
	var locked []string
	err := tx.Raw(`SELECT id FROM subscription WHERE id IN ? ORDER BY id COLLATE "C" FOR UPDATE`, ids).Scan(&locked).Error
	if err != nil {
		return fmt.Errorf("locking the subscription: %w", err)
	}
	return nil
}

func readSubscription(tx *gorm.DB, id string) (subscriptionRow, error) {
	var row subscriptionRow
	err := tx.Select(columns(tx, "id", "club_id", "customer_store_id", "create_date")).Take(&row, "id = ?", id).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return row, billing.SubscriptionNotFound(id)
	}
	return row, err
}

// history are the rows of a status history.
type history struct {
	changes    []billing.Change
	unreadable []billing.Unreadable
}

// at returns the row that decides at the time; its ID is "" if none does.
func (h history) at(at time.Time) billing.Change {
	decides, _ := billing.StatusAt(h.changes, at)
	return shown(decides)
}

func readHistory(tx *gorm.DB, id string) (history, error) {
	var h history
	var rows []subscriptionStatusRow
	selected := columns(tx, "id", "subscription_id", "status_id", "effect_date", "create_date", "details")
	if err := tx.Select(selected).Where("subscription_id = ?", id).Find(&rows).Error; err != nil {
		return h, fmt.Errorf("reading the status history: %w", err)
	}
	for _, r := range rows {
		h.changes = append(h.changes, r.change())
		h.unreadable = append(h.unreadable, unreadable(r.TableName(), r.ID, r.EffectDate, r.CreateDate)...)
	}
	return h, nil
}

func newSubscription(row subscriptionRow, h history, at time.Time) *billing.Subscription {
	return &billing.Subscription{
		ID: row.ID, ClubID: valueOf(row.ClubID.n), CustomerID: valueOf(row.CustomerStoreID),
		CreateDate: within4Digits(row.CreateDate.at), At: at, Current: h.at(at), Scheduled: scheduledAfter(h.changes, at),
		Unreadable: append(unreadable(row.TableName(), row.ID, written{}, row.CreateDate), h.unreadable...),
	}
}

func scheduledAfter(history []billing.Change, at time.Time) []billing.Change {
	scheduled := []billing.Change{}
	for _, c := range history {
		if c.EffectDate != nil && c.EffectDate.After(at) {
			scheduled = append(scheduled, shown(c))
		}
	}
	slices.SortFunc(scheduled, func(a, b billing.Change) int { return a.EffectDate.Compare(*b.EffectDate) })
	return scheduled
}

// Explain returns what decides about the subscription at the time at, or
// subscription_not_found. A zero time means now.
func (s *Store) Explain(ctx context.Context, id string, at time.Time) (*billing.Explanation, error) {
	var e *billing.Explanation
	// One snapshot: the rows shown must be the rows that decided.
	err := s.read.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		row, err := readSubscription(tx, id)
		if err != nil {
			return err
		}
		if at.IsZero() {
			if at, err = s.now(tx); err != nil {
				return err
			}
		}
		h, err := readHistory(tx, id)
		if err != nil {
			return err
		}
		e = &billing.Explanation{At: at, ClubID: valueOf(row.ClubID.n), Subscription: h.at(at), Unreadable: h.unreadable}
		if row.ClubID.n != nil {
			club, err := readClub(tx, *row.ClubID.n, at)
			if err != nil {
				return err
			}
			e.Club, e.Unreadable = club.Current, append(e.Unreadable, club.Unreadable...)
		}
		e.Reason = billing.WhyNotEligible(billing.Standing{
			Subscription: billing.Status(e.Subscription.StatusID), HasClub: row.ClubID.n != nil,
			Club: billing.ClubStatus(e.Club.StatusID),
		})
		return nil
	}, s.snapshot())
	return e, err
}
