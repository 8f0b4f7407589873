-- +goose NO TRANSACTION
-- +goose Up
-- Pages and streams of ids go by bytes, whatever the database's collation; the
-- club decides about eligibility, and is read without a visit to the table.
DROP INDEX CONCURRENTLY IF EXISTS drayman_subscription_id;
CREATE INDEX CONCURRENTLY drayman_subscription_id ON subscription (id COLLATE "C") INCLUDE (club_id);
