-- +goose Up
-- One row: which installation this database is, under which name it charges
-- (INSTALLATION), and its seat, the server and database that it was made or adopted
-- in. `drayman migrate up` makes the row, `drayman adopt` changes it. A program that
-- finds another seat or name has a copy before it, and charges nobody.
CREATE TABLE installation (
  only_row integer PRIMARY KEY CONSTRAINT installation_only_row CHECK (only_row = 1),
  id varchar(36) COLLATE "C" NOT NULL,
  name varchar(32) COLLATE "C" NOT NULL,
  seat varchar(128) COLLATE "C" NOT NULL,
  made_at timestamp without time zone NOT NULL,
  adopted_at timestamp without time zone);
