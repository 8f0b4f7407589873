package models

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"drayman/billing"
)

// The rows of the approved tables. Nearly all columns allow null, and so are pointers:
// people write into these tables by hand.

type clubRow struct {
	ID       int `gorm:"primaryKey"`
	Name     *string
	StoreSKU whole `gorm:"column:store_sku"`
}

func (clubRow) TableName() string { return "club" }

type subscriptionRow struct {
	ID              string `gorm:"primaryKey"`
	ClubID          whole
	CustomerStoreID *string
	CreateDate      written
}

func (subscriptionRow) TableName() string { return "subscription" }

type subscriptionStatusRow struct {
	ID             string `gorm:"primaryKey"`
	SubscriptionID string
	StatusID       whole
	EffectDate     written
	CreateDate     written
	Details        *string
}

func (subscriptionStatusRow) TableName() string { return "subscription_status_history" }

type clubStatusRow struct {
	ID           string `gorm:"primaryKey"`
	ClubID       int
	ClubStatusID whole
	EffectDate   written
	CreateDate   written
	Details      *string
}

func (clubStatusRow) TableName() string { return "club_status_history" }

func (r subscriptionStatusRow) change() billing.Change {
	return billing.Change{
		ID: r.ID, StatusID: valueOf(r.StatusID.n), EffectDate: r.EffectDate.at,
		CreateDate: r.CreateDate.at, Details: valueOf(r.Details),
	}
}

func (r clubStatusRow) change() billing.Change {
	return billing.Change{
		ID: r.ID, StatusID: valueOf(r.ClubStatusID.n), EffectDate: r.EffectDate.at,
		CreateDate: r.CreateDate.at, Details: valueOf(r.Details),
	}
}

// chargeRow is a row of the ledger, without the columns that the database derives. Its JSON
// is for statements about many rows, see batch.
type chargeRow struct {
	RequestID       string     `gorm:"primaryKey" json:"request_id"`
	SubscriptionID  string     `json:"subscription_id"`
	Period          string     `json:"period"`
	Status          string     `json:"status"`
	Owner           string     `json:"owner"`
	ClaimedUntil    *timestamp `json:"claimed_until,omitempty"`
	SentAt          *timestamp `json:"sent_at,omitempty"`
	Attempts        int        `json:"attempts"`
	RunID           *string    `json:"run_id,omitempty"`
	Installation    *string    `json:"installation,omitempty"`
	StatusRowID     *string    `json:"status_row_id,omitempty"`
	ClubStatusRowID *string    `json:"club_status_row_id,omitempty"`
	ClubID          *int       `json:"club_id,omitempty"`
	CustomerID      string     `json:"customer_id"`
	SKUID           int        `gorm:"column:sku_id" json:"sku_id"`
	ShopOrder       *string    `json:"shop_order,omitempty"`
	FailureCode     *string    `json:"failure_code,omitempty"`
	FailureDetail   *string    `json:"failure_detail,omitempty"`
	ResolvedBy      *string    `json:"resolved_by,omitempty"`
	ResolvedNote    *string    `json:"resolved_note,omitempty"`
	CreatedAt       timestamp  `gorm:"autoCreateTime:false" json:"created_at"`
	SettledAt       *timestamp `json:"settled_at,omitempty"`
}

func (chargeRow) TableName() string { return "charge" }

func (r chargeRow) charge() (*billing.Charge, error) {
	period, _ := billing.ParsePeriod(r.Period) // zero if a person has written something else
	c := &billing.Charge{
		RequestID: billing.RequestID(r.RequestID), SubscriptionID: r.SubscriptionID, Period: period,
		Status: billing.ChargeStatus(r.Status), Attempts: r.Attempts, ClubID: valueOf(r.ClubID),
		CustomerID: r.CustomerID, SKU: r.SKUID, FailureCode: valueOf(r.FailureCode),
		FailureDetail: valueOf(r.FailureDetail), ResolvedBy: valueOf(r.ResolvedBy),
		ResolvedNote: valueOf(r.ResolvedNote), CreatedAt: r.CreatedAt.Time, SettledAt: timeOf(r.SettledAt),
		Owner: r.Owner, RunID: valueOf(r.RunID), Installation: valueOf(r.Installation),
		StatusRow: valueOf(r.StatusRowID), ClubStatusRow: valueOf(r.ClubStatusRowID),
	}
	if r.ShopOrder != nil {
		c.Order = json.RawMessage(*r.ShopOrder)
	}
	if r.ClaimedUntil != nil {
		c.ClaimedUntil = r.ClaimedUntil.Time
	}
	if r.SentAt != nil {
		c.SentAt = r.SentAt.Time
	}
	return c, nil
}

func chargesOf(rows []chargeRow) ([]billing.Charge, error) {
	charges := make([]billing.Charge, 0, len(rows))
	for _, r := range rows {
		c, err := r.charge()
		if err != nil {
			return nil, err
		}
		charges = append(charges, *c)
	}
	return charges, nil
}

func newChargeRow(c *billing.Charge) chargeRow {
	r := chargeRow{
		RequestID: string(c.RequestID), SubscriptionID: c.SubscriptionID, Period: c.Period.String(),
		Status: string(c.Status), Owner: c.Owner, Attempts: c.Attempts, RunID: orNull(c.RunID),
		ClubID: orNull(c.ClubID), CustomerID: c.CustomerID, SKUID: c.SKU,
		ShopOrder: orNull(storable(string(c.Order), len(c.Order))), FailureCode: orNull(storable(c.FailureCode, 64)),
		FailureDetail: orNull(storable(c.FailureDetail, 1024)), ResolvedBy: orNull(c.ResolvedBy),
		ResolvedNote: orNull(c.ResolvedNote), CreatedAt: timestamp{c.CreatedAt}, SettledAt: newTimestamp(c.SettledAt),
		Installation: orNull(c.Installation), StatusRowID: orNull(storable(c.StatusRow, 36)), ClubStatusRowID: orNull(storable(c.ClubStatusRow, 36)),
	}
	if !c.ClaimedUntil.IsZero() {
		r.ClaimedUntil = &timestamp{c.ClaimedUntil}
	}
	if !c.SentAt.IsZero() {
		r.SentAt = &timestamp{c.SentAt}
	}
	return r
}

// storable changes text from outside so that the table takes it: else a settle would be
// tried again without end. The length is in characters.
func storable(text string, longest int) string {
	const unknown = "\uFFFD"
	text = strings.ReplaceAll(strings.ToValidUTF8(text, unknown), "\x00", unknown)
	if utf8.RuneCountInString(text) <= longest {
		return text
	}
	return string([]rune(text)[:longest-1]) + "…"
}

func valueOf[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
