-- +goose NO TRANSACTION
-- +goose Up
-- As for subscriptions.
DROP INDEX CONCURRENTLY IF EXISTS drayman_club_status_at;
CREATE INDEX CONCURRENTLY drayman_club_status_at ON club_status_history
  (club_id, effect_date DESC, create_date DESC NULLS LAST, id COLLATE "C" DESC) INCLUDE (club_status_id);
