-- +goose NO TRANSACTION
-- +goose Up
-- Has this customer subscribed to this club before? The customer comes first: an
-- index that begins with the club tempts a planner to read whole clubs from it,
-- and then to sort them by id, where pages and streams go by id already.
DROP INDEX CONCURRENTLY IF EXISTS drayman_subscription_customer;
CREATE INDEX CONCURRENTLY drayman_subscription_customer ON subscription (customer_store_id, club_id);
