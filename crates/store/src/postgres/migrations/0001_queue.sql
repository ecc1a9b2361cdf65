-- The queue as it began.
--
-- Times are microseconds since 1970, by the database's clock. Names sort by their bytes (COLLATE "C").
-- Where a job stands is told by the one table that holds a row for it: scheduled, blocked, ready, lease (running,
-- cancelling) or ended. Those rows are narrow and are inserted and deleted, never updated on the usual way; the job
-- itself, with all that was asked for, is written once.

CREATE TABLE executr.setting (
    name text PRIMARY KEY,
    value text NOT NULL
);

-- Jobs of one queue, class, priority and tenant. Every process knows all of them by heart. They are made and retired
-- under a lock; the one with the highest id is never deleted, so that ids only grow.
CREATE TABLE executr.bucket (
    id integer PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    priority smallint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    -- Whether there may be a row for it in `ready`. False is certain: whoever makes a job ready holds the row with
    -- FOR KEY SHARE, whoever sets it to false with FOR UPDATE.
    active boolean NOT NULL DEFAULT false,
    -- When its tenant was last served; the largest of a tenant's buckets counts.
    turn bigint NOT NULL DEFAULT 0,
    -- Under which its jobs are counted: the first of its queue, class and priority.
    tally integer NOT NULL,
    -- Fell out of use: it gets no more jobs and goes with the last that it had. Whoever submits a job holds the row
    -- with FOR KEY SHARE, whoever retires it with FOR UPDATE.
    retired boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX bucket_name ON executr.bucket (queue, priority, tenant, class) WHERE NOT retired;
CREATE INDEX bucket_turn ON executr.bucket (queue, priority, turn, tenant) WHERE active;
CREATE INDEX bucket_class ON executr.bucket (queue, class, priority, turn, tenant) WHERE active;
CREATE SEQUENCE executr.turn;

-- What was asked for. Written once, deleted by retention.
CREATE TABLE executr.job (
    -- The submission number.
    seq bigint PRIMARY KEY,
    id uuid NOT NULL,
    bucket integer NOT NULL,
    created_at bigint NOT NULL,
    job_type text COLLATE "C" NOT NULL,
    max_retries bigint NOT NULL,
    -- JSON; NULL is the default.
    backoff text,
    idempotency_key text COLLATE "C",
    permit bigint,
    permit_limit bigint,
    blobs boolean NOT NULL,
    spec text NOT NULL
);
CREATE UNIQUE INDEX job_id ON executr.job (id);
CREATE INDEX job_permit ON executr.job (permit) WHERE permit IS NOT NULL;
CREATE SEQUENCE executr.job_seq;

CREATE TABLE executr.idempotency (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    job uuid NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE executr.job_blob (
    digest bytea NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (digest, seq)
);
CREATE INDEX job_blob_seq ON executr.job_blob (seq);

-- A concurrency key and how many permits of it are held.
CREATE TABLE executr.permit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    held bigint NOT NULL DEFAULT 0,
    UNIQUE (tenant, key)
) WITH (fillfactor = 50);

CREATE TABLE executr.ready (
    bucket integer NOT NULL,
    seq bigint NOT NULL,
    -- Attempts so far, failed ones and lost leases.
    attempt integer NOT NULL,
    failures integer NOT NULL,
    lost integer NOT NULL,
    -- Whether it is running besides, under a lease that ran out.
    reclaim boolean NOT NULL,
    PRIMARY KEY (bucket, seq)
);

CREATE TABLE executr.scheduled (
    seq bigint PRIMARY KEY,
    due_at bigint NOT NULL,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    lost integer NOT NULL
);
CREATE INDEX scheduled_due ON executr.scheduled (due_at, seq);

CREATE TABLE executr.blocked (
    seq bigint PRIMARY KEY,
    permit bigint NOT NULL,
    priority smallint NOT NULL,
    permit_limit bigint NOT NULL,
    bucket integer NOT NULL,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    lost integer NOT NULL
);
CREATE INDEX blocked_order ON executr.blocked (permit, priority, seq);

CREATE TABLE executr.lease (
    job uuid PRIMARY KEY,
    seq bigint NOT NULL,
    bucket integer NOT NULL,
    permit bigint,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    lost integer NOT NULL,
    lease uuid NOT NULL,
    worker text COLLATE "C" NOT NULL,
    ip text,
    started_at bigint NOT NULL,
    renewed_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    -- When there will be something to do about it; NULL while the job is reclaimable.
    due_at bigint,
    -- For how long it was given last, in microseconds.
    period bigint NOT NULL,
    cancelling boolean NOT NULL DEFAULT false,
    reason text,
    -- Where the output ends.
    output_end bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX lease_worker ON executr.lease (worker);

-- How a job ended, together with its last attempt when that is what ended it (`lease` is NULL otherwise).
CREATE TABLE executr.ended (
    seq bigint PRIMARY KEY,
    state smallint NOT NULL,
    completed_at bigint NOT NULL,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    lost integer NOT NULL,
    -- Why it was cancelled, or what else is to be told instead of the attempt's own error.
    reason text,
    lease uuid,
    worker text COLLATE "C",
    ip text,
    started_at bigint,
    status smallint,
    exit_code integer,
    error text,
    usage text,
    steps text,
    output_bytes bigint
);
CREATE INDEX ended_completed ON executr.ended (completed_at, seq);
CREATE INDEX ended_badly ON executr.ended (seq) WHERE state > 5;

-- Ended attempts other than those in `ended`.
CREATE TABLE executr.attempt (
    seq bigint NOT NULL,
    attempt integer NOT NULL,
    lease uuid NOT NULL,
    worker text COLLATE "C" NOT NULL,
    ip text,
    started_at bigint NOT NULL,
    ended_at bigint NOT NULL,
    status smallint NOT NULL,
    exit_code integer,
    error text,
    usage text,
    steps text,
    output_bytes bigint NOT NULL,
    PRIMARY KEY (seq, attempt)
);

CREATE VIEW executr.all_attempts AS
    SELECT seq, attempt, lease, worker, ip, started_at, ended_at, status, exit_code, error, usage, steps, output_bytes
    FROM executr.attempt
    UNION ALL
    SELECT seq, attempt, lease, worker, ip, started_at, completed_at, status, exit_code, error, usage, steps, output_bytes
    FROM executr.ended WHERE lease IS NOT NULL;

-- How many jobs stand in which state: the sum of all rows of a bucket and state. Every command adds rows; now and then
-- they are summed up. The bucket is the one in `bucket.tally`, whatever the job's tenant.
CREATE TABLE executr.tally (
    bucket integer NOT NULL,
    state smallint NOT NULL,
    jobs bigint NOT NULL
);

CREATE TABLE executr.worker (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    ip text,
    version text,
    slots bigint NOT NULL,
    queues text NOT NULL,
    offers text NOT NULL,
    draining boolean NOT NULL,
    last_seen bigint NOT NULL,
    jobs_completed bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE executr.token (
    id uuid PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    role text NOT NULL,
    name text,
    tenant text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint
);

-- The days for which there is a table `output_<day>` (days since 1970 of the attempts' starts).
CREATE TABLE executr.output_day (
    day integer PRIMARY KEY
);

-- Blobs keep the chunks of the upload that they were made of.
CREATE TABLE executr.blob (
    digest bytea PRIMARY KEY,
    upload uuid NOT NULL,
    size bigint NOT NULL,
    touched_at bigint NOT NULL
);
CREATE TABLE executr.upload (
    upload uuid PRIMARY KEY,
    size bigint NOT NULL,
    touched_at bigint NOT NULL
);
CREATE TABLE executr.blob_chunk (
    upload uuid NOT NULL,
    start bigint NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (upload, start)
);
ALTER TABLE executr.blob_chunk ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Rows of these live for moments: what they leave behind is cleared away by count, not as a share of the table.
ALTER TABLE executr.ready SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE executr.lease SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE executr.scheduled SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE executr.blocked SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE executr.bucket SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE executr.tally SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
