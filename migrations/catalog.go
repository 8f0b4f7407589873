package migrations

// describeTables describes the approved tables of the current schema (PostgreSQL),
// a line for each table, column, constraint and further unique index. Not null is
// told with the column, not as the constraint that PostgreSQL 18 makes of it.
// The sequence behind an id may have any name.
const describeTables = `
WITH t AS (
  SELECT c.oid, c.relname, c.relkind
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = current_schema() AND c.relname IN (
    'club', 'club_status', 'club_status_history', 'status', 'subscription', 'subscription_status_history')
)
SELECT CASE relkind WHEN 'r' THEN 'table ' ELSE 'relation of kind ' || relkind::text || ' ' END || relname FROM t
UNION ALL
SELECT format('column %s.%s %s%s%s%s', t.relname, a.attname, format_type(a.atttypid, a.atttypmod),
  CASE WHEN a.attcollation <> y.typcollation THEN ' collate ' || l.collname END,
  CASE WHEN a.attnotnull THEN ' not null' END,
  CASE WHEN a.attidentity <> '' THEN ' identity' WHEN a.attgenerated <> '' THEN ' generated'
    WHEN a.atthasdef THEN ' default ' || regexp_replace(pg_get_expr(d.adbin, d.adrelid), '^nextval\(.*\)$', 'nextval') END)
FROM t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type y ON y.oid = a.atttypid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT format('constraint on %s: %s', t.relname, pg_get_constraintdef(c.oid))
FROM t JOIN pg_constraint c ON c.conrelid = t.oid AND c.contype IN ('p', 'u', 'f', 'c', 'x')
UNION ALL
SELECT format('unique index on %s: %s', t.relname, pg_get_indexdef(i.indexrelid))
FROM t JOIN pg_index i ON i.indrelid = t.oid AND i.indisunique
WHERE NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.conrelid = t.oid)
ORDER BY 1`

// baselineDescription is what describeTables says after step 1, and of the
// database that Alembic made. A test holds it to both.
const baselineDescription = `
column club.id integer not null default nextval
column club.name character varying(128)
column club.store_sku integer
column club_status.id integer not null default nextval
column club_status.name character varying(128)
column club_status_history.club_id integer
column club_status_history.club_status_id integer
column club_status_history.create_date timestamp without time zone
column club_status_history.details character varying(256)
column club_status_history.effect_date timestamp without time zone
column club_status_history.id character varying(36) not null
column status.id integer not null default nextval
column status.name character varying(128)
column subscription.club_id integer
column subscription.create_date timestamp without time zone
column subscription.customer_store_id character varying(36)
column subscription.id character varying(36) not null
column subscription_status_history.create_date timestamp without time zone
column subscription_status_history.details character varying(256)
column subscription_status_history.effect_date timestamp without time zone
column subscription_status_history.id character varying(36) not null
column subscription_status_history.status_id integer
column subscription_status_history.subscription_id character varying(36)
constraint on club: PRIMARY KEY (id)
constraint on club_status: PRIMARY KEY (id)
constraint on club_status_history: FOREIGN KEY (club_id) REFERENCES club(id) ON DELETE RESTRICT
constraint on club_status_history: FOREIGN KEY (club_status_id) REFERENCES club_status(id) ON DELETE RESTRICT
constraint on club_status_history: PRIMARY KEY (id)
constraint on status: PRIMARY KEY (id)
constraint on subscription: FOREIGN KEY (club_id) REFERENCES club(id) ON DELETE RESTRICT
constraint on subscription: PRIMARY KEY (id)
constraint on subscription_status_history: FOREIGN KEY (status_id) REFERENCES status(id) ON DELETE RESTRICT
constraint on subscription_status_history: FOREIGN KEY (subscription_id) REFERENCES subscription(id) ON DELETE RESTRICT
constraint on subscription_status_history: PRIMARY KEY (id)
table club
table club_status
table club_status_history
table status
table subscription
table subscription_status_history
`
