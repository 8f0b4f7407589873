-- +goose Up
-- The ledger: one row for each request id. No foreign key leads to the approved
-- tables: people delete there, and a charge outlives its subscription.
-- Ids and periods compare by bytes (COLLATE "C"), as in Go; in a comparison with
-- an approved column this collation wins. Timestamps are UTC.
CREATE TABLE charge (
  request_id varchar(128) COLLATE "C" PRIMARY KEY,
  subscription_id varchar(36) COLLATE "C" NOT NULL,
  period varchar(7) COLLATE "C" NOT NULL
    CONSTRAINT charge_period_format CHECK (period ~ '^[0-9]{4}-[0-9]{2}$'),
  status varchar(16) NOT NULL
    CONSTRAINT charge_status_known CHECK (status IN ('pending', 'charged', 'declined', 'unresolved')),
  owner varchar(256) NOT NULL,
  claimed_until timestamp without time zone,
  -- Set before the request may leave, where the shop is not idempotent: a row
  -- with it and without an answer is in doubt and is never sent again.
  sent_at timestamp without time zone,
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
  created_at timestamp without time zone NOT NULL,
  settled_at timestamp without time zone);

-- One order for a subscription and period: what is not declined is or may be an order.
CREATE UNIQUE INDEX charge_one_open ON charge (subscription_id, period) WHERE status <> 'declined';
CREATE INDEX charge_by_subscription ON charge (subscription_id, period, created_at);
CREATE INDEX charge_by_period ON charge (period, status);
CREATE INDEX charge_by_run ON charge (run_id, status);
