-- +goose Up
-- The six approved tables, as near to those on PostgreSQL as SQLite has it:
-- AUTOINCREMENT for serial (an id is never used twice), NOT NULL on the text
-- keys, which SQLite would let be null. Lengths are not enforced here.
CREATE TABLE club (
  id integer PRIMARY KEY AUTOINCREMENT,
  name varchar(128),
  store_sku integer);
CREATE TABLE club_status (
  id integer PRIMARY KEY AUTOINCREMENT,
  name varchar(128));
CREATE TABLE status (
  id integer PRIMARY KEY AUTOINCREMENT,
  name varchar(128));
CREATE TABLE club_status_history (
  id varchar(36) NOT NULL PRIMARY KEY,
  club_id integer REFERENCES club (id) ON DELETE RESTRICT,
  club_status_id integer REFERENCES club_status (id) ON DELETE RESTRICT,
  effect_date timestamp,
  create_date timestamp,
  details varchar(256));
CREATE TABLE subscription (
  id varchar(36) NOT NULL PRIMARY KEY,
  club_id integer REFERENCES club (id) ON DELETE RESTRICT,
  customer_store_id varchar(36),
  create_date timestamp);
CREATE TABLE subscription_status_history (
  id varchar(36) NOT NULL PRIMARY KEY,
  subscription_id varchar(36) REFERENCES subscription (id) ON DELETE RESTRICT,
  status_id integer REFERENCES status (id) ON DELETE RESTRICT,
  effect_date timestamp,
  create_date timestamp,
  details varchar(256));

INSERT INTO status (id, name) VALUES (1, 'ATIVO'), (2, 'CANCELADO'), (3, 'PAUSADO');
INSERT INTO club_status (id, name) VALUES (1, 'ATIVO'), (2, 'FECHADO'), (3, 'INATIVO');
