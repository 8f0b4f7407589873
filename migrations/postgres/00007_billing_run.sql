-- +goose Up
-- A billing run: its settings and its state, which pages read before each batch
-- of orders, so that a pause, a cancel or a new pace holds at once and for all
-- workers. id is "{period}/{number}"; next_slot paces the orders of the run: it
-- is when the next one may go out. doubt is set if the database was replaced while the
-- run was, or may have been, under way: the ledger may lack orders of its pages.
-- "repeat": at a shop that is idempotent, a new claim of the month is made under the
-- request id that a run derives. "confirm": at another shop, a new claim is unresolved
-- until a person has resumed a run of the month. Timestamps are UTC.
CREATE TABLE billing_run (
  id varchar(128) COLLATE "C" PRIMARY KEY,
  period varchar(7) COLLATE "C" NOT NULL,
  number integer NOT NULL,
  execution_id varchar(128) NOT NULL CONSTRAINT billing_run_execution UNIQUE,
  state varchar(16) NOT NULL
    CONSTRAINT billing_run_state_known CHECK (state IN ('running', 'paused', 'finished', 'cancelled', 'abandoned')),
  reason varchar(1024),
  cut_off timestamp without time zone NOT NULL,
  due integer NOT NULL,
  orders_per_second double precision NOT NULL,
  page_size integer NOT NULL,
  concurrency integer NOT NULL,
  workflow_per_charge boolean NOT NULL,
  doubt varchar(16)
    CONSTRAINT billing_run_doubt_known CHECK (doubt IN ('repeat', 'confirm')),
  next_slot timestamp without time zone,
  ended_at timestamp without time zone,
  CONSTRAINT billing_run_number UNIQUE (period, number));

-- The Temporal updates that have been carried out, in the transaction of their write: one
-- that a worker repeats must not come after a later change.
CREATE TABLE billing_run_update (
  update_id varchar(256) COLLATE "C" PRIMARY KEY,
  run_id varchar(128) COLLATE "C" NOT NULL,
  made_at timestamp without time zone NOT NULL);
