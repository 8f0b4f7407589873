-- +goose Up
-- As for subscriptions.
CREATE INDEX drayman_club_status_at ON club_status_history
  (club_id, effect_date DESC, create_date DESC, id DESC, club_status_id);
