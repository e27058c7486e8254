-- What every database of a deployment holds, be it a shard, the directory, or both. See src/schema.rs for how
-- migrations run and src/lib.rs for what the tables are for.

-- The tables of Holon that are there, and the relation in this schema that holds each.
CREATE TABLE holon.tables (
    name text COLLATE "C" PRIMARY KEY,
    relation text COLLATE "C" NOT NULL UNIQUE
);

-- Versions of rows: taken under the lock of the partition, so that they grow with its commits.
CREATE SEQUENCE holon.versions;

-- Which shard this database is. A commit that was routed by a directory older than the fence is refused.
CREATE TABLE holon.shard (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    name text NOT NULL,
    fence bigint NOT NULL DEFAULT 0
);

-- The slots that this shard has had. Commits are taken for owned ones only; reads also for frozen ones.
CREATE TABLE holon.slots (
    slot int PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('owned', 'frozen', 'moved')),
    version bigint NOT NULL
);

CREATE TABLE holon.outbox (
    number bigserial PRIMARY KEY,
    topic text NOT NULL,
    id bigint NOT NULL,
    time bigint NOT NULL,
    tenant text NOT NULL,
    key text NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    data bytea NOT NULL,
    traceparent text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE holon.leases (
    name text COLLATE "C" PRIMARY KEY,
    holder text NOT NULL,
    fence bigint NOT NULL,
    expires bigint NOT NULL
) WITH (fillfactor = 50);

-- The directory: read from one database only, whose version row is there.
CREATE TABLE holon.directory (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
CREATE TABLE holon.directory_slots (
    slot int PRIMARY KEY,
    shard text NOT NULL,
    state text NOT NULL CHECK (state IN ('owned', 'frozen')),
    version bigint NOT NULL
);
-- Rules that give partitions a slot of their own, beside the hash.
CREATE TABLE holon.directory_rules (
    slot int PRIMARY KEY REFERENCES holon.directory_slots,
    kind text NOT NULL CHECK (kind IN ('partition', 'tenant', 'prefix', 'range')),
    tenant text COLLATE "C",
    low text COLLATE "C",
    high text COLLATE "C"
);

-- One step of a commit on one row. `wave` orders the commits of one partition within a call.
CREATE TYPE holon.step AS (
    wave int,
    commit int,       -- its place among the commits of the call, from 1
    step int,         -- its place among the steps of the commit, from 0, for errors
    tbl int,          -- its place among the tables of the call, from 1
    action smallint,  -- 0 nothing, 1 put, 2 delete, 3 add
    tenant text,
    entity text,
    slot int,
    sort bytea,
    condition smallint, -- 0 any, 1 absent, 2 present, 3 version
    want bigint,
    kind smallint,    -- 0 JSON, 1 binary, 2 counter
    bytes bytea,
    queryable boolean, -- whether jsonb can hold the document
    counter bigint,   -- the count of a put; of an add, the sum of its deltas is counter + extra
    extra bigint,
    low bigint,       -- the ends at which an add saturates
    high bigint,
    fresh boolean,    -- of an add: what the row held counts for nothing
    expires bigint
);

CREATE TYPE holon.event AS (
    wave int,
    commit int,
    topic text,
    id bigint,
    tenant text,
    key text,
    kind text,
    subject text,
    data bytea,
    traceparent text
);

-- The functions of one table: static SQL, so that each session plans it once. `!check` answers the steps that do not
-- hold; `!write` applies the steps of the commits that have a version.
CREATE FUNCTION holon.create_functions(relation text) RETURNS void LANGUAGE plpgsql AS $create$
BEGIN
    EXECUTE format($make$
        CREATE OR REPLACE FUNCTION holon.%2$I(now_ms bigint, in_wave int, of_table int, steps holon.step[])
        RETURNS TABLE (failed_commit int, failed_step int, failed_reason smallint) LANGUAGE plpgsql AS $$
        BEGIN
            RETURN QUERY
            SELECT s.commit, s.step, CASE WHEN s.action = 3 THEN 2::smallint ELSE 1::smallint END
            FROM unnest(steps) s
            LEFT JOIN holon.%1$I r ON r.tenant = s.tenant AND r.entity = s.entity AND r.sort = s.sort
                AND (r.expires IS NULL OR r.expires > now_ms)
            WHERE s.wave = in_wave AND s.tbl = of_table AND (s.condition <> 0 OR s.action = 3)
                AND CASE
                    WHEN s.action = 3 THEN r.kind <> 2
                    WHEN s.condition = 1 THEN r.version IS NOT NULL
                    WHEN s.condition = 2 THEN r.version IS NULL
                    ELSE r.version IS DISTINCT FROM s.want
                END;
        END $$ $make$, relation, relation || '!check');
    -- The lateral part has OFFSET 0 so that the planner keeps it apart, and a put probes no row that it need not know.
    EXECUTE format($make$
        CREATE OR REPLACE FUNCTION holon.%2$I(now_ms bigint, in_wave int, of_table int, deletes boolean,
            steps holon.step[], versions bigint[])
        RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO holon.%1$I AS r
                (tenant, entity, sort, slot, kind, json, bytes, counter, version, expires)
            SELECT s.tenant, s.entity, s.sort, s.slot, s.kind,
                CASE WHEN s.queryable THEN convert_from(s.bytes, 'UTF8')::jsonb END,
                s.bytes,
                CASE WHEN s.action = 3
                    THEN least(greatest(coalesce(o.counter, 0)::numeric + s.counter + s.extra, s.low), s.high)::bigint
                    ELSE s.counter END,
                versions[s.commit],
                CASE WHEN s.fresh THEN s.expires ELSE coalesce(s.expires, o.expires) END
            FROM unnest(steps) s
            LEFT JOIN LATERAL (
                SELECT c.counter, c.expires FROM holon.%1$I c
                WHERE s.action = 3 AND c.tenant = s.tenant AND c.entity = s.entity AND c.sort = s.sort
                    AND (c.expires IS NULL OR c.expires > now_ms)
                OFFSET 0
            ) o ON true
            WHERE s.wave = in_wave AND s.tbl = of_table AND s.action IN (1, 3) AND versions[s.commit] IS NOT NULL
            ON CONFLICT (tenant, entity, sort) DO UPDATE SET
                slot = excluded.slot, kind = excluded.kind, json = excluded.json, bytes = excluded.bytes,
                counter = excluded.counter, version = excluded.version, expires = excluded.expires;
            IF deletes THEN
                DELETE FROM holon.%1$I r USING unnest(steps) s
                WHERE s.wave = in_wave AND s.tbl = of_table AND s.action = 2 AND versions[s.commit] IS NOT NULL
                    AND r.tenant = s.tenant AND r.entity = s.entity AND r.sort = s.sort;
            END IF;
        END $$ $make$, relation, relation || '!write');
END $create$;

CREATE FUNCTION holon.create_table(of_name text, of_relation text) RETURNS void LANGUAGE plpgsql AS $create$
BEGIN
    IF EXISTS (SELECT FROM holon.tables t WHERE t.name = of_name) THEN
        RETURN;
    END IF;
    EXECUTE format($make$
        CREATE TABLE holon.%1$I (
            tenant text COLLATE "C" NOT NULL,
            entity text COLLATE "C" NOT NULL,
            sort bytea NOT NULL,
            slot int NOT NULL,
            kind smallint NOT NULL,
            json jsonb,
            bytes bytea,
            counter bigint,
            version bigint NOT NULL,
            expires bigint,
            PRIMARY KEY (tenant, entity, sort)
        ) WITH (fillfactor = 90) $make$, of_relation);
    EXECUTE format('CREATE INDEX ON holon.%1$I (expires) WHERE expires IS NOT NULL', of_relation);
    PERFORM holon.create_functions(of_relation);
    INSERT INTO holon.tables (name, relation) VALUES (of_name, of_relation);
END $create$;

-- Applies independent commits in one transaction; see src/lane.rs. `waves` has one entry a commit. Answers for each
-- commit its version, or the step that failed and why (1: its condition, 2: no counter). `owned` is false, and
-- nothing was done, if the caller's directory is too old or a slot is not owned.
--
-- Runs under READ COMMITTED, where each statement of a volatile function sees what was committed before it began:
-- what follows the locks sees the last commit of every partition locked.
CREATE FUNCTION holon.commit(directory bigint, now_ms bigint, locks bigint[], of_slots int[], waves int[],
    tables text[], conditions boolean, writes boolean, deletes boolean,
    steps holon.step[], events holon.event[],
    OUT owned boolean, OUT versions bigint[], OUT failed int[], OUT reasons smallint[])
LANGUAGE plpgsql AS $commit$
DECLARE
    commits int := cardinality(waves);
    last_wave int;
    failure record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1213156398, 1);
    SELECT s.fence <= directory AND NOT EXISTS (
            SELECT FROM unnest(of_slots) u LEFT JOIN holon.slots o ON o.slot = u
            WHERE o.state IS DISTINCT FROM 'owned')
        INTO owned FROM holon.shard s;
    IF owned IS NOT TRUE THEN
        owned := false;
        RETURN;
    END IF;
    -- In ascending order, as every caller does: no two wait for each other.
    PERFORM pg_advisory_xact_lock(u) FROM unnest(locks) u;
    versions := array_fill(NULL::bigint, ARRAY[commits]);
    failed := array_fill(NULL::int, ARRAY[commits]);
    reasons := array_fill(NULL::smallint, ARRAY[commits]);
    SELECT max(u) INTO last_wave FROM unnest(waves) u;
    FOR in_wave IN 1..last_wave LOOP
        IF conditions THEN
            FOR of_table IN 1..cardinality(tables) LOOP
                FOR failure IN EXECUTE format('SELECT * FROM holon.%I($1, $2, $3, $4)', tables[of_table] || '!check')
                    USING now_ms, in_wave, of_table, steps
                LOOP
                    IF failed[failure.failed_commit] IS NULL OR failure.failed_step < failed[failure.failed_commit] THEN
                        failed[failure.failed_commit] := failure.failed_step;
                        reasons[failure.failed_commit] := failure.failed_reason;
                    END IF;
                END LOOP;
            END LOOP;
        END IF;
        FOR of_commit IN 1..commits LOOP
            IF waves[of_commit] = in_wave AND failed[of_commit] IS NULL THEN
                versions[of_commit] := nextval('holon.versions');
            END IF;
        END LOOP;
        IF writes THEN
            FOR of_table IN 1..cardinality(tables) LOOP
                EXECUTE format('SELECT holon.%I($1, $2, $3, $4, $5, $6)', tables[of_table] || '!write')
                    USING now_ms, in_wave, of_table, deletes, steps, versions;
            END LOOP;
        END IF;
        IF cardinality(events) > 0 THEN
            INSERT INTO holon.outbox (topic, id, time, tenant, key, kind, subject, data, traceparent)
            SELECT e.topic, e.id, now_ms, e.tenant, e.key, e.kind, e.subject, e.data, e.traceparent
            FROM unnest(events) WITH ORDINALITY AS
                e (wave, commit, topic, id, tenant, key, kind, subject, data, traceparent, place)
            WHERE e.wave = in_wave AND versions[e.commit] IS NOT NULL
            ORDER BY e.place;
        END IF;
    END LOOP;
END $commit$;

-- Refuses, from its commit on, what is routed by an older directory. Waits for the commits that run.
CREATE FUNCTION holon.raise_fence(directory bigint) RETURNS void LANGUAGE plpgsql AS $fence$
BEGIN
    PERFORM pg_advisory_xact_lock(1213156398, 1);
    UPDATE holon.shard SET fence = greatest(fence, directory);
END $fence$;

-- Deletes expired rows, at most so many of each table. What a commit has locked is left for the next time.
CREATE FUNCTION holon.sweep(now_ms bigint, most int) RETURNS bigint LANGUAGE plpgsql AS $sweep$
DECLARE
    of_relation text;
    swept bigint;
    total bigint := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1213156398, 3) THEN
        RETURN 0;
    END IF;
    FOR of_relation IN SELECT relation FROM holon.tables LOOP
        EXECUTE format('DELETE FROM holon.%1$I WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM holon.%1$I WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED))',
            of_relation) USING now_ms, most;
        GET DIAGNOSTICS swept = ROW_COUNT;
        total := total + swept;
    END LOOP;
    RETURN total;
END $sweep$;

-- Whether any row is there that a rule covers; `low` and `high` are escaped as entities are. An entity with an escape
-- does not sort as it is, so a range counts it as covered.
CREATE FUNCTION holon.is_covered(kind text, of_tenant text, low text, high text) RETURNS boolean
LANGUAGE plpgsql AS $covered$
DECLARE
    of_relation text;
    found_one boolean;
    part text := CASE kind
        WHEN 'partition' THEN 'r.tenant = $1 AND r.entity = $2'
        WHEN 'tenant' THEN 'r.tenant = $1'
        WHEN 'prefix' THEN '($1 IS NULL OR r.tenant = $1) AND starts_with(r.entity, $2)'
        ELSE '($1 IS NULL OR r.tenant = $1) AND (strpos(r.entity, ''\'') > 0
              OR r.entity >= $2 AND ($3 IS NULL OR r.entity < $3))'
    END;
BEGIN
    FOR of_relation IN SELECT relation FROM holon.tables LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM holon.%I r WHERE %s)', of_relation, part)
            INTO found_one USING of_tenant, low, high;
        IF found_one THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $covered$;
