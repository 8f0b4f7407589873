package models

import (
	"encoding/json"
	"fmt"
	"time"

	"gorm.io/gorm"

	"drayman/billing"
)

// auditRow is one row of the audit. Its id is the database's to give.
type auditRow struct {
	At      timestamp
	Actor   *string
	Action  string
	Subject string
	Reason  string
	Detail  *string
}

func (auditRow) TableName() string { return "audit" }

// insertAudit notes who made a write and why, one entry for each thing written to. The
// transaction is the write's own: both are kept, or neither.
func insertAudit(tx *gorm.DB, now time.Time, entries ...billing.AuditEntry) error {
	rows := make([]auditRow, 0, len(entries))
	for _, e := range entries {
		row := auditRow{
			At: timestamp{now}, Actor: orNull(storable(e.Actor, 128)), Action: e.Action,
			Subject: storable(e.Subject, 256), Reason: storable(e.Reason, 1024),
		}
		if e.Detail != nil {
			text, err := json.Marshal(e.Detail)
			if err != nil {
				return fmt.Errorf("writing the audit: %w", err)
			}
			row.Detail = orNull(string(text))
		}
		rows = append(rows, row)
	}
	if err := tx.Create(&rows).Error; err != nil {
		return fmt.Errorf("writing the audit: %w", err)
	}
	return nil
}
