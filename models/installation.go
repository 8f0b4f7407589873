package models

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"drayman/billing"
)

// here is the seat of a database, in SQL (decision 0017). On PostgreSQL it is the cluster,
// which a standby shares with its primary and a dump does not carry, and the database in it,
// whatever its name is. A SQLite file has nothing of the kind.
func (s *Store) here() string {
	if s.dialect == SQLite {
		return "''"
	}
	return `(SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), oid)
		FROM pg_database WHERE datname = current_database())`
}

// Installation reads which installation the database is, and where it stands. Its ID is
// "" if the row is missing.
func (s *Store) Installation(ctx context.Context) (billing.Installation, error) {
	return s.installation(s.read.WithContext(ctx))
}

func (s *Store) installation(tx *gorm.DB) (billing.Installation, error) {
	var rows []struct{ ID, Name, Seat, Recalled, Here, Incarnation string }
	err := tx.Raw("SELECT id, name, seat, recalled, " + s.here() + " AS here, " + s.incarnation() + " AS incarnation FROM installation").Scan(&rows).Error
	found := billing.Installation{Configured: s.name}
	if err != nil {
		return found, fmt.Errorf("reading the installation: %w", err)
	}
	if len(rows) > 0 {
		r := rows[0]
		found.ID, found.Name, found.Seat, found.Recalled, found.Here, found.Incarnation = r.ID, r.Name, r.Seat, r.Recalled, r.Here, r.Incarnation
	}
	return found, nil
}

// mayCharge returns why nothing may be claimed or sent, see [billing.Installation.Permits].
// Call it in the transaction of the claim, after a statement that has locked the ledger:
// nobody can replace the ledger then.
func (s *Store) mayCharge(tx *gorm.DB, asked, recalled string) error {
	found, err := s.installation(tx)
	if err != nil {
		return err
	}
	return found.Permits(asked, recalled)
}

// MakeInstallation makes the database an installation, under the name that the Store
// was opened with. If it is one already, nothing changes.
func (s *Store) MakeInstallation(ctx context.Context) error {
	return s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		err = tx.Exec("INSERT INTO installation (only_row, id, name, seat, recalled, made_at) VALUES (1, ?, ?, "+s.here()+", "+s.incarnation()+", ?) ON CONFLICT DO NOTHING",
			uuid.NewString(), s.name, timestamp{now}).Error
		if err != nil {
			return fmt.Errorf("making the installation: %w", err)
		}
		return nil
	})
}

// Adopt records that the database may charge where it stands, under the name that the Store
// was opened with, and keeps who said so and why. A copy gets a new id, also if it seems to
// be in its place, as the clone of a disk does. It returns the installation afterwards, and
// whether anything has changed.
func (s *Store) Adopt(ctx context.Context, a billing.Adoption) (adopted billing.Installation, changed bool, err error) {
	err = s.inTransaction(ctx, func(tx *gorm.DB) error {
		now, err := s.now(tx)
		if err != nil {
			return err
		}
		if err := s.forUpdate(tx.Table("installation")).Select("id").Scan(new(string)).Error; err != nil {
			return err
		}
		found, err := s.installation(tx)
		if err != nil {
			return err
		}
		if adopted = found; found.ID == "" || found.Adopted() == nil && !a.Copy {
			return nil
		}
		adopted.Name, adopted.Seat, changed = found.Configured, found.Here, true
		if a.Copy {
			adopted.ID = uuid.NewString()
		}
		err = tx.Exec("UPDATE installation SET id = ?, name = ?, seat = ?, adopted_at = ?",
			adopted.ID, adopted.Name, adopted.Seat, timestamp{now}).Error
		if err != nil {
			return fmt.Errorf("adopting the database: %w", err)
		}
		return insertAudit(tx, now, billing.AuditEntry{
			Actor: a.By, Action: "installation.adopt", Subject: "installation/" + adopted.ID, Reason: a.Note,
			Detail: map[string]any{
				"copy": a.Copy, "from": map[string]string{"id": found.ID, "name": found.Name, "seat": found.Seat},
				"to": map[string]string{"id": adopted.ID, "name": adopted.Name, "seat": adopted.Seat},
			},
		})
	})
	return adopted, changed, err
}
