-- +goose Up
-- One row: which installation this database is, under which name it charges
-- (INSTALLATION), and its seat, the server and database that it was made or adopted
-- in. `drayman migrate up` makes the row, `drayman adopt` changes it. A program that
-- finds another seat or name has a copy before it, and charges nobody. recalled is the
-- incarnation of the database (the start of its server, the database, the ledger's
-- file) that the workflow Recall has looked through: if the database is another one now,
-- nobody is charged until Recall has put back what the ledger lacks.
CREATE TABLE installation (
  only_row integer PRIMARY KEY CONSTRAINT installation_only_row CHECK (only_row = 1),
  id varchar(36) COLLATE "C" NOT NULL,
  name varchar(32) COLLATE "C" NOT NULL,
  seat varchar(128) COLLATE "C" NOT NULL,
  recalled varchar(128) COLLATE "C" NOT NULL,
  made_at timestamp without time zone NOT NULL,
  adopted_at timestamp without time zone);
