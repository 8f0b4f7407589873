-- +goose Up
-- "The status at a time" is answered from this index alone: status_id at its end
-- stands for PostgreSQL's INCLUDE. DESC puts nulls last in SQLite by itself, and
-- its planner knows that ORDER BY … DESC NULLS LAST is this order.
CREATE INDEX drayman_subscription_status_at ON subscription_status_history
  (subscription_id, effect_date DESC, create_date DESC, id DESC, status_id);
