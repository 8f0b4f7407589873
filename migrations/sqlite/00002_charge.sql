-- +goose Up
-- The ledger: one row for each request id. No foreign key leads to the approved
-- tables: people delete there, and a charge outlives its subscription.
-- Timestamps are UTC.
CREATE TABLE charge (
  request_id varchar(128) NOT NULL PRIMARY KEY,
  subscription_id varchar(36) NOT NULL,
  period varchar(7) NOT NULL
    CONSTRAINT charge_period_format CHECK (period GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]'),
  status varchar(16) NOT NULL
    CONSTRAINT charge_status_known CHECK (status IN ('pending', 'charged', 'declined', 'unresolved')),
  owner varchar(256) NOT NULL,
  claimed_until timestamp,
  -- Set before the request may leave, where the shop is not idempotent: a row
  -- with it and without an answer is in doubt and is never sent again.
  sent_at timestamp,
  attempts integer NOT NULL DEFAULT 0,
  run_id varchar(128),
  club_id integer,
  customer_id varchar(36) NOT NULL,
  sku_id integer NOT NULL,
  -- The shop's answer. Text, not json: it is kept as it came.
  shop_order text,
  failure_code varchar(64),
  failure_detail varchar(1024),
  resolved_by varchar(128),
  resolved_note varchar(1024),
  created_at timestamp NOT NULL,
  settled_at timestamp);

-- One order for a subscription and period: what is not declined is or may be an order.
CREATE UNIQUE INDEX charge_one_open ON charge (subscription_id, period) WHERE status <> 'declined';
CREATE INDEX charge_by_subscription ON charge (subscription_id, period, created_at);
CREATE INDEX charge_by_period ON charge (period, status);
CREATE INDEX charge_by_run ON charge (run_id, status);
