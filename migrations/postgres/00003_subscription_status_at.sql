-- +goose NO TRANSACTION
-- +goose Up
-- "The status at a time" is answered from this index alone. An interrupted
-- concurrent build leaves an invalid index of this name: drop it, build again.
DROP INDEX CONCURRENTLY IF EXISTS drayman_subscription_status_at;
CREATE INDEX CONCURRENTLY drayman_subscription_status_at ON subscription_status_history
  (subscription_id, effect_date DESC, create_date DESC NULLS LAST, id COLLATE "C" DESC) INCLUDE (status_id);
