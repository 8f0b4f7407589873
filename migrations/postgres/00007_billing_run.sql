-- +goose Up
-- A billing run: its settings and its state, which pages read before each batch
-- of orders, so that a pause, a cancel or a new pace holds at once and for all
-- workers. id is "{period}/{number}"; next_slot paces the orders of the run: it
-- is when the next one may go out. Timestamps are UTC.
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
  next_slot timestamp without time zone,
  ended_at timestamp without time zone,
  CONSTRAINT billing_run_number UNIQUE (period, number));
