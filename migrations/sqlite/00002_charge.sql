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
    CONSTRAINT charge_status_known CHECK (status IN ('pending', 'charged', 'declined', 'unresolved', 'withdrawn')),
  owner varchar(256) NOT NULL,
  claimed_until timestamp,
  -- NULL: the shop has certainly made no order under the request id, and no request
  -- is under way. Every claim sets it; only who knows that nothing was ordered clears
  -- it.
  sent_at timestamp,
  attempts integer NOT NULL DEFAULT 0,
  run_id varchar(128),
  -- The installation that claimed the charge, and the rows of the two status
  -- histories that decided then that the subscription was eligible.
  installation varchar(36),
  status_row_id varchar(36),
  club_status_row_id varchar(36),
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
  settled_at timestamp,
  -- '' while the charge is or may become an order. An index on this column, and not
  -- on the status, need not change when a charge is settled.
  closed_as varchar(128) NOT NULL
    GENERATED ALWAYS AS (CASE WHEN status IN ('declined', 'withdrawn') THEN request_id ELSE '' END) STORED,
  -- The period of a charge that waits for somebody: not settled, and held by nobody.
  open_in varchar(7)
    GENERATED ALWAYS AS (CASE WHEN status IN ('pending', 'unresolved') AND claimed_until IS NULL THEN period END) STORED);

-- One order for a subscription and period: at most one charge that is not closed.
CREATE UNIQUE INDEX charge_once ON charge (subscription_id, period, closed_as);
CREATE INDEX charge_open ON charge (open_in, subscription_id) WHERE open_in IS NOT NULL;
CREATE INDEX charge_by_run ON charge (run_id, status);
