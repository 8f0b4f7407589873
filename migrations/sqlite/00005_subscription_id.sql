-- +goose Up
-- Pages and streams of ids; the club decides about eligibility, and is read
-- without a visit to the table.
CREATE INDEX drayman_subscription_id ON subscription (id, club_id);
