-- +goose Up
-- What people did, who they were and why: one row for each write by hand, made in
-- the write's own transaction. Rows are only inserted. Timestamps are UTC.
CREATE TABLE audit (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamp without time zone NOT NULL,
  actor varchar(128),  -- as the caller said; null: nobody said
  action varchar(64) NOT NULL,
  subject varchar(256) COLLATE "C" NOT NULL,
  reason varchar(1024) NOT NULL,
  detail text);

CREATE INDEX audit_by_subject ON audit (subject, id);

-- +goose StatementBegin
CREATE FUNCTION audit_is_only_inserted_into() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of the table audit are neither changed nor deleted';
END $$;
-- +goose StatementEnd

CREATE TRIGGER audit_is_only_inserted_into BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_inserted_into();
