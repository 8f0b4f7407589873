package models

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"gorm.io/gorm"

	"drayman/billing"
)

// Clubs reads all clubs, by id, as they stand now.
func (s *Store) Clubs(ctx context.Context) ([]billing.Club, error) {
	tx := s.read.WithContext(ctx)
	now, err := s.now(tx)
	if err != nil {
		return nil, err
	}
	return readClubs(tx.Order("id"), now)
}

// Club reads a club as it stands now, or returns club_not_found.
func (s *Store) Club(ctx context.Context, id int) (*billing.Club, error) {
	tx := s.read.WithContext(ctx)
	now, err := s.now(tx)
	if err != nil {
		return nil, err
	}
	return readClub(tx, id, now)
}

func readClub(tx *gorm.DB, id int, at time.Time) (*billing.Club, error) {
	var clubs []billing.Club
	var err error
	if int(int32(id)) == id { // PostgreSQL fails for an id that does not fit the column
		clubs, err = readClubs(tx.Where("id = ?", id), at)
	}
	if err != nil {
		return nil, err
	}
	if len(clubs) == 0 {
		return nil, billing.Errorf(billing.CodeClubNotFound, "there is no club %d", id)
	}
	return &clubs[0], nil
}

func readClubs(scope *gorm.DB, at time.Time) ([]billing.Club, error) {
	var rows []clubRow
	if err := scope.Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("reading the clubs: %w", err)
	}
	ids := make([]int, 0, len(rows))
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	var changes []clubStatusRow
	tx := scope.Session(&gorm.Session{NewDB: true})
	selected := columns(tx, "id", "club_id", "club_status_id", "effect_date", "create_date", "details")
	if err := tx.Select(selected).Where("club_id IN ?", ids).Find(&changes).Error; err != nil {
		return nil, fmt.Errorf("reading the clubs' status histories: %w", err)
	}
	histories := map[int]history{}
	for _, c := range changes {
		h := histories[c.ClubID]
		h.changes = append(h.changes, c.change())
		h.unreadable = append(h.unreadable, unreadable(c.TableName(), c.ID, c.EffectDate, c.CreateDate)...)
		histories[c.ClubID] = h
	}
	clubs := make([]billing.Club, 0, len(rows))
	for _, r := range rows {
		h := histories[r.ID]
		clubs = append(clubs, billing.Club{
			ID: r.ID, Name: valueOf(r.Name), SKU: r.StoreSKU.n, Current: h.at(at), Unreadable: h.unreadable,
		})
	}
	return clubs, nil
}

// snapshot makes several reads see one state of the database.
func (s *Store) snapshot() *sql.TxOptions {
	if s.dialect == SQLite { // a deferred transaction of SQLite is a snapshot
		return &sql.TxOptions{ReadOnly: true}
	}
	return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
}
