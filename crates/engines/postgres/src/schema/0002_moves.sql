-- Moving slots while the cluster serves: see src/mover/mod.rs.
--
-- `holon.commit` is another one from here on: a program of the version before can no longer commit, so its changes to a
-- slot that moves cannot go unseen.

-- The shards, and how nodes reach them. In the directory only. A retired one has been drained and is not asked any more.
CREATE TABLE holon.directory_shards (
    number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    url text NOT NULL,
    replicas text[] NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'draining', 'retired')),
    claimed boolean NOT NULL DEFAULT false -- its database knows that it is this shard
);

-- `arrived` is the version of the directory by which the slot came to its shard: a replica that has not replayed so far
-- does not have its rows. `pending`: of a rule whose rows are still being copied.
ALTER TABLE holon.directory_slots
    ADD COLUMN arrived bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT directory_slots_state_check,
    ADD CONSTRAINT directory_slots_state_check CHECK (state IN ('owned', 'frozen', 'pending'));
-- A rule that is not active yet decides nothing but that commits wait while its slot is frozen.
ALTER TABLE holon.directory_rules ADD COLUMN active boolean NOT NULL DEFAULT true;

-- What is on its way. In the directory only. `batch` is null until it is begun; slots of a batch move together.
CREATE TABLE holon.moves (
    slot int PRIMARY KEY REFERENCES holon.directory_slots,
    batch bigint,
    source text, -- null: wherever rows are that the slot's rule covers
    target text NOT NULL,
    stage text NOT NULL DEFAULT 'waiting' CHECK (stage IN ('waiting', 'copying', 'frozen', 'opening', 'clearing')),
    place text,  -- how far the copy is, in the words of the mover
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    asked timestamptz NOT NULL DEFAULT now(),
    trouble text
);
CREATE SEQUENCE holon.batches;

-- On a shard. `arriving`: rows are being copied here. `logged`: changes are written down for the mover. `mover` is the
-- fence of the mover that changed the row last; one with a smaller fence changes nothing.
ALTER TABLE holon.slots
    ADD COLUMN logged boolean NOT NULL DEFAULT false,
    ADD COLUMN mover bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT slots_state_check,
    ADD CONSTRAINT slots_state_check CHECK (state IN ('owned', 'frozen', 'moved', 'arriving'));

-- Rules whose rows leave this shard for a slot of their own: changes are written down until they are `moved`.
CREATE TABLE holon.pins (
    slot int PRIMARY KEY,
    kind text NOT NULL,
    tenant text COLLATE "C",
    low text COLLATE "C",
    high text COLLATE "C",
    state text NOT NULL CHECK (state IN ('logged', 'moved')),
    mover bigint NOT NULL
);

-- The rows that were changed since they were copied, perhaps.
CREATE TABLE holon.changes (
    number bigserial PRIMARY KEY,
    slot int NOT NULL, -- the one that moves
    relation text NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    entity text COLLATE "C" NOT NULL,
    sort bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Events keep the order of their partition across a move: events of `slot` here with numbers above `after` wait until
-- `source` has told all of its own up to `upto`; those of the slot, or all where `whole`.
ALTER TABLE holon.outbox ADD COLUMN slot int;
CREATE TABLE holon.outbox_holds (
    slot int NOT NULL,
    after bigint NOT NULL,
    source text NOT NULL,
    upto bigint NOT NULL,
    whole boolean NOT NULL,
    PRIMARY KEY (slot, after, source)
);

-- Whether a rule covers a partition, or may: `low` and `high` are escaped as entities are, and an entity with an
-- escape does not sort as it is, so that a range counts it as covered.
CREATE FUNCTION holon.covers(kind text, of_tenant text, low text, high text, tenant text, entity text)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $covers$
    SELECT CASE kind
        WHEN 'partition' THEN tenant = of_tenant AND entity = low
        WHEN 'tenant' THEN tenant = of_tenant
        WHEN 'prefix' THEN (of_tenant IS NULL OR tenant = of_tenant) AND starts_with(entity, low)
        ELSE (of_tenant IS NULL OR tenant = of_tenant) AND (strpos(entity, '\') > 0
              OR entity COLLATE "C" >= low AND (high IS NULL OR entity COLLATE "C" < high))
    END
$covers$;
DROP FUNCTION holon.is_covered(text, text, text, text);

-- As in 0001, but that `of_slots` has one slot a commit, events know theirs, and changes of rows on the move are
-- written down.
DROP FUNCTION holon.commit(bigint, bigint, bigint[], int[], int[], text[], boolean, boolean, boolean,
    holon.step[], holon.event[]);
CREATE FUNCTION holon.commit(directory bigint, now_ms bigint, locks bigint[], of_slots int[], waves int[],
    tables text[], conditions boolean, writes boolean, deletes boolean,
    steps holon.step[], events holon.event[],
    OUT owned boolean, OUT versions bigint[], OUT failed int[], OUT reasons smallint[])
LANGUAGE plpgsql AS $commit$
DECLARE
    commits int := cardinality(waves);
    last_wave int;
    failure record;
    logged boolean;
    pinned boolean;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1213156398, 1);
    SELECT s.fence <= directory AND c.all_owned, c.any_logged, EXISTS (SELECT FROM holon.pins p WHERE p.state = 'logged')
        INTO owned, logged, pinned
        FROM holon.shard s, (
            SELECT coalesce(bool_and(coalesce(o.state = 'owned', false)), true) AS all_owned,
                bool_or(o.logged) AS any_logged
            FROM unnest(of_slots) u LEFT JOIN holon.slots o ON o.slot = u) c;
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
            INSERT INTO holon.outbox (topic, id, time, tenant, key, kind, subject, data, traceparent, slot)
            SELECT e.topic, e.id, now_ms, e.tenant, e.key, e.kind, e.subject, e.data, e.traceparent,
                of_slots[e.commit]
            FROM unnest(events) WITH ORDINALITY AS
                e (wave, commit, topic, id, tenant, key, kind, subject, data, traceparent, place)
            WHERE e.wave = in_wave AND versions[e.commit] IS NOT NULL
            ORDER BY e.place;
        END IF;
    END LOOP;
    IF writes AND logged THEN
        INSERT INTO holon.changes (slot, relation, tenant, entity, sort)
        SELECT DISTINCT s.slot, tables[s.tbl], s.tenant, s.entity, s.sort
        FROM unnest(steps) s JOIN holon.slots o ON o.slot = s.slot AND o.logged
        WHERE s.action <> 0 AND versions[s.commit] IS NOT NULL;
    END IF;
    IF writes AND pinned THEN
        INSERT INTO holon.changes (slot, relation, tenant, entity, sort)
        SELECT DISTINCT p.slot, tables[s.tbl], s.tenant, s.entity, s.sort
        FROM unnest(steps) s JOIN holon.pins p ON p.state = 'logged'
            AND holon.covers(p.kind, p.tenant, p.low, p.high, s.tenant, s.entity)
        WHERE s.action <> 0 AND versions[s.commit] IS NOT NULL;
    END IF;
END $commit$;

-- Sees to it that the versions of this shard go on above those of rows that came here. Waits for the commits that run.
CREATE FUNCTION holon.pass_version(reached bigint) RETURNS void LANGUAGE plpgsql AS $pass$
BEGIN
    IF (SELECT last_value FROM holon.versions) >= reached THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(1213156398, 1);
    PERFORM setval('holon.versions', greatest(reached, (SELECT last_value FROM holon.versions)));
END $pass$;

-- Refuses, by an error, a mover that another has taken over from. What it waits for or locks stays so until the
-- transaction ends, so that a takeover comes before or after it, never in between.
CREATE FUNCTION holon.must_move(of_slots int[], of_state text, of_mover bigint) RETURNS void LANGUAGE plpgsql AS $must$
DECLARE
    found int;
BEGIN
    SELECT count(*) INTO found FROM (
        SELECT FROM holon.slots s WHERE s.slot = ANY (of_slots) AND s.state = of_state AND s.mover = of_mover FOR SHARE) s;
    IF found <> cardinality(of_slots) THEN
        RAISE EXCEPTION 'another mover has taken over' USING ERRCODE = 'HL001';
    END IF;
END $must$;

-- Copies rows into a table, and deletes those that are gone; `queryable` says which documents `jsonb` can hold.
CREATE FUNCTION holon.take(of_batch int[], of_mover bigint, of_relation text,
    slots int[], tenants text[], entities text[], sorts bytea[], kinds smallint[], queryable boolean[],
    documents bytea[], counters bigint[], versions bigint[], expiries bigint[],
    gone_tenants text[], gone_entities text[], gone_sorts bytea[])
RETURNS void LANGUAGE plpgsql AS $take$
BEGIN
    PERFORM holon.must_move(of_batch, 'arriving', of_mover);
    EXECUTE format($make$
        INSERT INTO holon.%1$I AS r (tenant, entity, sort, slot, kind, json, bytes, counter, version, expires)
        SELECT u.tenant, u.entity, u.sort, u.slot, u.kind,
            CASE WHEN u.queryable THEN convert_from(u.bytes, 'UTF8')::jsonb END,
            u.bytes, u.counter, u.version, u.expires
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            u (slot, tenant, entity, sort, kind, queryable, bytes, counter, version, expires)
        ON CONFLICT (tenant, entity, sort) DO UPDATE SET
            slot = excluded.slot, kind = excluded.kind, json = excluded.json, bytes = excluded.bytes,
            counter = excluded.counter, version = excluded.version, expires = excluded.expires
        $make$, of_relation)
        USING slots, tenants, entities, sorts, kinds, queryable, documents, counters, versions, expiries;
    IF cardinality(gone_tenants) > 0 THEN
        EXECUTE format('DELETE FROM holon.%1$I r USING unnest($1, $2, $3) u (tenant, entity, sort)
            WHERE r.tenant = u.tenant AND r.entity = u.entity AND r.sort = u.sort', of_relation)
            USING gone_tenants, gone_entities, gone_sorts;
    END IF;
END $take$;
