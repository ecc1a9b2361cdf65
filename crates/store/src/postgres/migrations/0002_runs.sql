-- Runs: graphs of jobs.
--
-- Whoever changes where a run or its graph stands locks the run's row first, before any row of its jobs: so what happens
-- in a run has an order, and its events have numbers without gaps. Claims don't: what they have to tell waits in
-- `run_news` for whoever holds the run next, and `workspace_holder` has a lock of its own.

-- The run of a job and the workspace it uses, if it uses one.
ALTER TABLE executr.job ADD COLUMN run bigint, ADD COLUMN workspace bigint;
CREATE INDEX job_workspace ON executr.job (workspace) WHERE workspace IS NOT NULL;
ALTER TABLE executr.lease ADD COLUMN run bigint;
CREATE INDEX lease_run ON executr.lease (run) WHERE run IS NOT NULL;
ALTER TABLE executr.blocked ADD COLUMN workspace bigint;

CREATE TABLE executr.run (
    -- The submission number; those of its jobs follow, up to `last_seq`, perhaps with others' between.
    seq bigint PRIMARY KEY,
    last_seq bigint NOT NULL,
    id uuid NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    state smallint NOT NULL,
    fail_fast boolean NOT NULL,
    timeout bigint,
    deadline bigint,
    source bytea,
    rerun_of uuid,
    idempotency_key text COLLATE "C",
    created_at bigint NOT NULL,
    started_at bigint,
    completed_at bigint,
    message text,
    last_event bigint NOT NULL,
    -- Where its jobs wait when they are ready, but for those that use a workspace.
    buckets integer[] NOT NULL,
    -- How many jobs it has, and how many of them are in these states.
    jobs bigint NOT NULL,
    waiting bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    skipped bigint NOT NULL,
    -- How many of the failed ones count as failures.
    failures bigint NOT NULL,
    -- To be seen no more; what is left of it is being deleted.
    deleted boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX run_id ON executr.run (id);
CREATE UNIQUE INDEX run_key ON executr.run (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL AND NOT deleted;
CREATE INDEX run_state ON executr.run (state, seq) WHERE NOT deleted;
CREATE INDEX run_name ON executr.run (name, seq) WHERE NOT deleted;
CREATE INDEX run_deadline ON executr.run (deadline, seq) WHERE state = 0 AND deadline IS NOT NULL;
CREATE INDEX run_completed ON executr.run (completed_at, seq) WHERE completed_at IS NOT NULL AND NOT deleted;
CREATE INDEX run_deleted ON executr.run (seq) WHERE deleted;

-- The plan, as it was given.
CREATE TABLE executr.run_plan (
    run bigint PRIMARY KEY,
    plan text NOT NULL
);

-- A job's place in its run's graph. Written once, but for `before`.
CREATE TABLE executr.run_job (
    seq bigint PRIMARY KEY,
    run bigint NOT NULL,
    place integer NOT NULL,
    job uuid NOT NULL,
    -- Where it waits when it is ready; of one that uses a workspace `job.bucket` counts.
    bucket integer NOT NULL,
    permit bigint,
    permit_limit bigint,
    workspace bigint,
    name text NOT NULL,
    gate smallint NOT NULL,
    continue_on_error boolean NOT NULL,
    needs integer[] NOT NULL,
    successors integer[] NOT NULL,
    -- JSON; NULL is none.
    inputs text,
    -- What happened before it: 1 a failure, 2 a cancellation; as it was when its turn came.
    before smallint NOT NULL DEFAULT 0
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX run_job_place ON executr.run_job (run, place);

-- Jobs that wait for their needs, or for an answer.
CREATE TABLE executr.waiting (
    seq bigint PRIMARY KEY,
    run bigint NOT NULL,
    -- So many of its needs aren't final.
    needs integer NOT NULL,
    -- As `run_job.before`, as far as is known.
    before smallint NOT NULL,
    asked boolean NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX waiting_asked ON executr.waiting (seq) WHERE asked;

CREATE TABLE executr.run_event (
    run bigint NOT NULL,
    number bigint NOT NULL,
    at bigint NOT NULL,
    -- JSON.
    kind text NOT NULL,
    PRIMARY KEY (run, number)
);

-- Events that have no numbers yet, in their order.
CREATE TABLE executr.run_news (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL,
    at bigint NOT NULL,
    kind text NOT NULL
);
CREATE INDEX run_news_run ON executr.run_news (run, id);

-- The outputs of final jobs that have some; JSON.
CREATE TABLE executr.handed (
    seq bigint PRIMARY KEY,
    outputs text NOT NULL
);

-- Stays when its run is deleted.
CREATE TABLE executr.artifact (
    run bigint NOT NULL,
    place integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- The job.
    seq bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    run_name text NOT NULL,
    job_name text NOT NULL,
    tree bytea NOT NULL,
    size bigint NOT NULL,
    files bigint NOT NULL,
    created_at bigint NOT NULL
);
CREATE UNIQUE INDEX artifact_name ON executr.artifact (run DESC, place, name);
CREATE INDEX artifact_run ON executr.artifact (run_id);
CREATE INDEX artifact_tenant ON executr.artifact (tenant, run DESC, place, name);
CREATE INDEX artifact_tree ON executr.artifact (seq, tree);
CREATE INDEX artifact_age ON executr.artifact (created_at, run, place, name);

-- Blobs kept for the artifact of a job that has this tree, also before it is known whether there will be one.
CREATE TABLE executr.kept_blob (
    digest bytea NOT NULL,
    seq bigint NOT NULL,
    tree bytea NOT NULL,
    PRIMARY KEY (digest, seq, tree)
);
CREATE INDEX kept_blob_tree ON executr.kept_blob (seq, tree);

-- What an executor holds for its jobs of a run. Changed by whoever holds the run.
CREATE TABLE executr.workspace (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL,
    executor text COLLATE "C" NOT NULL,
    -- So many jobs that use it aren't final.
    users bigint NOT NULL,
    UNIQUE (run, executor)
);

-- Which worker holds it. Locked after rows of `ready`, and while it is locked nobody waits for those.
CREATE TABLE executr.workspace_holder (
    workspace bigint PRIMARY KEY,
    generation integer NOT NULL,
    worker text COLLATE "C"
);
CREATE INDEX workspace_worker ON executr.workspace_holder (worker) WHERE worker IS NOT NULL;

-- Those that are needed no more, until their workers have cleaned them up.
CREATE TABLE executr.workspace_released (
    run bigint NOT NULL,
    executor text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    worker text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, executor, generation)
);
CREATE INDEX workspace_cleaning ON executr.workspace_released (worker);

ALTER TABLE executr.run_news SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE executr.waiting SET (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 20000);
