-- +goose Up
-- What people did, who they were and why: one row for each write by hand, made in
-- the write's own transaction. Rows are only inserted. Timestamps are UTC.
CREATE TABLE audit (
  id integer PRIMARY KEY AUTOINCREMENT,
  at timestamp NOT NULL,
  actor varchar(128),  -- as the caller said; null: nobody said
  action varchar(64) NOT NULL,
  subject varchar(256) NOT NULL,
  reason varchar(1024) NOT NULL,
  detail text);

CREATE INDEX audit_by_subject ON audit (subject, id);

-- INSERT OR REPLACE deletes a row without the trigger on deletes.
-- +goose StatementBegin
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN
  SELECT RAISE(ABORT, 'rows of the table audit are neither changed nor deleted');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
  SELECT RAISE(ABORT, 'rows of the table audit are neither changed nor deleted');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_is_not_deleted_from BEFORE DELETE ON audit BEGIN
  SELECT RAISE(ABORT, 'rows of the table audit are neither changed nor deleted');
END;
-- +goose StatementEnd
