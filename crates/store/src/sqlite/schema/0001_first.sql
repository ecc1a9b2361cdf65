-- Who stands where, counted. A job points here instead of repeating four texts; the counts are kept as jobs move, so
-- nothing is ever counted by looking at jobs. Columns in the order of the states in `row.rs`.
CREATE TABLE bucket (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    class TEXT NOT NULL,
    priority INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    scheduled INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    running INTEGER NOT NULL,
    cancelling INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL
);

-- When each tenant was served last, as a running number.
CREATE TABLE turn (
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    turn INTEGER NOT NULL,
    PRIMARY KEY (queue, priority, tenant)
) WITHOUT ROWID;

-- `seq` is the submission number. While a job has a row in `lease` it is running or cancelling, and `state` still says
-- ready: handing out a job doesn't touch its row.
CREATE TABLE job (
    seq INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    bucket INTEGER NOT NULL,
    type TEXT NOT NULL,
    state INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    due_at INTEGER,
    attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    lost_leases INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,
    worker TEXT,
    exit_code INTEGER,
    error_message TEXT,
    usage TEXT,
    output_bytes INTEGER NOT NULL,
    idempotency_key TEXT,
    concurrency_key TEXT,
    concurrency_limit INTEGER
);
CREATE UNIQUE INDEX job_id ON job (id);

-- What is written once: apart, so that the rows that change stay small.
CREATE TABLE spec (
    seq INTEGER PRIMARY KEY,
    backoff_kind INTEGER NOT NULL,
    backoff_min INTEGER NOT NULL,
    backoff_max INTEGER NOT NULL,
    blobs BLOB,
    spec TEXT NOT NULL
);

-- The ready set: ready jobs, and running ones that are reclaimable.
CREATE TABLE ready (bucket INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (bucket, seq)) WITHOUT ROWID;

-- Scheduled jobs by their time.
CREATE TABLE due (due_at INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (due_at, seq)) WITHOUT ROWID;

-- Jobs blocked by their concurrency key, in the order they are let go.
CREATE TABLE blocked (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    priority INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (tenant, key, priority, seq)
) WITHOUT ROWID;

-- How many permits of a concurrency key are held; no row for 0.
CREATE TABLE permit (tenant TEXT NOT NULL, key TEXT NOT NULL, held INTEGER NOT NULL, PRIMARY KEY (tenant, key)) WITHOUT ROWID;

-- Final jobs by the time they became so, for retention.
CREATE TABLE final (completed_at INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (completed_at, seq)) WITHOUT ROWID;

CREATE TABLE idempotency (tenant TEXT NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (tenant, key)) WITHOUT ROWID;

-- Live leases. Times in microseconds.
CREATE TABLE lease (
    seq INTEGER PRIMARY KEY,
    lease BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    ip TEXT,
    started_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    period INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL,
    cancelling INTEGER NOT NULL,
    reclaimable INTEGER NOT NULL
);

-- Ended attempts; `key` is seq * 2^24 + attempt. Small output lies in `output`; of larger output only the length is
-- here, and the bytes are in a segment file.
CREATE TABLE attempt (
    key INTEGER PRIMARY KEY,
    lease BLOB NOT NULL,
    worker TEXT NOT NULL,
    ip TEXT,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    exit_code INTEGER,
    error_message TEXT,
    usage TEXT,
    steps TEXT,
    output_bytes INTEGER NOT NULL,
    output BLOB
);

CREATE TABLE blob (digest BLOB PRIMARY KEY, size INTEGER NOT NULL, touched_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE blob_use (digest BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (digest, seq)) WITHOUT ROWID;

CREATE TABLE worker (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    ip TEXT,
    version TEXT,
    slots INTEGER NOT NULL,
    queues TEXT NOT NULL,
    offers TEXT NOT NULL,
    draining INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    jobs_completed INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE token (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    name TEXT,
    tenant TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) WITHOUT ROWID;
