-- Jobs of runs know two more states.
ALTER TABLE bucket ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bucket ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;

-- Runs. `number` is a submission number; those of its jobs follow it, in the order of their places. How many jobs stand in
-- each state is counted as they move. `hidden`: it is being deleted. Columns in the order of the states in `row.rs`.
CREATE TABLE run (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    fail_fast INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    deadline INTEGER,
    source BLOB,
    rerun_of BLOB,
    idempotency_key TEXT,
    hidden INTEGER NOT NULL,
    state INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    message TEXT,
    last_event INTEGER NOT NULL,
    scheduled INTEGER NOT NULL,
    blocked INTEGER NOT NULL,
    ready INTEGER NOT NULL,
    running INTEGER NOT NULL,
    cancelling INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    skipped INTEGER NOT NULL
);
CREATE UNIQUE INDEX run_id ON run (id);
CREATE INDEX run_hidden ON run (number) WHERE hidden;

-- What is written once and may be large.
CREATE TABLE run_plan (number INTEGER PRIMARY KEY, blobs BLOB, plan TEXT NOT NULL);

CREATE TABLE run_key (tenant TEXT NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (tenant, key)) WITHOUT ROWID;

-- Final runs by the time they became so, for retention.
CREATE TABLE run_final (completed_at INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (completed_at, number)) WITHOUT ROWID;

-- What a job has as part of its run. How many of its needs aren't final, and what happened before it, isn't written: it
-- follows from the states of the others, and is kept in memory. `needs` are places, 4 bytes each, the lowest byte first.
CREATE TABLE run_job (
    seq INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    gate INTEGER NOT NULL,
    continue_on_error INTEGER NOT NULL,
    done INTEGER NOT NULL,
    pinned TEXT,
    needs BLOB NOT NULL,
    inputs TEXT,
    outputs TEXT
);

-- Events. `place` names the job; `detail` is the worker, the message or the reason.
CREATE TABLE run_event (
    number INTEGER NOT NULL,
    event INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    place INTEGER,
    state INTEGER,
    attempt INTEGER,
    exit_code INTEGER,
    detail TEXT,
    PRIMARY KEY (number, event)
) WITHOUT ROWID;

-- Workspaces: of each the newest generation, held or not, and those that are to be cleaned up.
CREATE TABLE workspace (
    number INTEGER NOT NULL,
    executor TEXT NOT NULL,
    generation INTEGER NOT NULL,
    worker TEXT,
    released INTEGER NOT NULL,
    PRIMARY KEY (number, executor, generation)
) WITHOUT ROWID;
CREATE INDEX workspace_worker ON workspace (worker);

-- Artifacts, with all that is shown of them: they outlive their runs.
CREATE TABLE artifact (
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    run BLOB NOT NULL,
    run_name TEXT NOT NULL,
    job TEXT NOT NULL,
    tree BLOB NOT NULL,
    size INTEGER NOT NULL,
    files INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (number, seq, name)
) WITHOUT ROWID;
CREATE INDEX artifact_age ON artifact (created_at, number, seq, name);
CREATE INDEX artifact_run ON artifact (run);

-- Blobs kept for the artifacts of jobs, those too that a running one hasn't named yet.
CREATE TABLE kept_blob (digest BLOB NOT NULL, seq INTEGER NOT NULL, tree BLOB NOT NULL, PRIMARY KEY (digest, seq, tree)) WITHOUT ROWID;
CREATE INDEX kept_blob_job ON kept_blob (seq, tree);
