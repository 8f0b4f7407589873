-- +goose Up
-- The six approved tables, as the Python version made them through Alembic
-- (revision 6640484e5703). They do not change: no later step may add, alter or
-- drop a column, type, constraint or unique index here. An existing database is
-- compared with this step and taken over; see takeover.go.
CREATE TABLE club (
  id serial PRIMARY KEY,
  name varchar(128),
  store_sku integer);
CREATE TABLE club_status (
  id serial PRIMARY KEY,
  name varchar(128));
CREATE TABLE status (
  id serial PRIMARY KEY,
  name varchar(128));
CREATE TABLE club_status_history (
  id varchar(36) PRIMARY KEY,
  club_id integer REFERENCES club (id) ON DELETE RESTRICT,
  club_status_id integer REFERENCES club_status (id) ON DELETE RESTRICT,
  effect_date timestamp without time zone,
  create_date timestamp without time zone,
  details varchar(256));
CREATE TABLE subscription (
  id varchar(36) PRIMARY KEY,
  club_id integer REFERENCES club (id) ON DELETE RESTRICT,
  customer_store_id varchar(36),
  create_date timestamp without time zone);
CREATE TABLE subscription_status_history (
  id varchar(36) PRIMARY KEY,
  subscription_id varchar(36) REFERENCES subscription (id) ON DELETE RESTRICT,
  status_id integer REFERENCES status (id) ON DELETE RESTRICT,
  effect_date timestamp without time zone,
  create_date timestamp without time zone,
  details varchar(256));

INSERT INTO status (id, name) VALUES (1, 'ATIVO'), (2, 'CANCELADO'), (3, 'PAUSADO');
INSERT INTO club_status (id, name) VALUES (1, 'ATIVO'), (2, 'FECHADO'), (3, 'INATIVO');
-- So that a row put in by hand without an id does not meet one of these.
SELECT setval('status_id_seq', 3);
SELECT setval('club_status_id_seq', 3);
