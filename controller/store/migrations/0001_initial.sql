-- Tables keep the order of their rows' fields where nothing speaks against it. Keys that are
-- read in ranges are the tables themselves (WITHOUT ROWID): the tasks of a job lie together.
-- No foreign keys: each row has one writer, and a lookup per row per parent is what they cost.

CREATE TABLE leader (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    holder TEXT NOT NULL,
    renewed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE fleet (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_name ON tokens (name);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    count INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    guarantee TEXT NOT NULL,
    max_attempts INTEGER NOT NULL,
    ttl_ms INTEGER NOT NULL,
    lease_ms INTEGER NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    desired TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_state ON jobs (state);
CREATE INDEX jobs_name ON jobs (name);
CREATE INDEX jobs_finished ON jobs (changed_at) WHERE state <> 'open';
CREATE INDEX jobs_keys ON jobs (created_at) WHERE idempotency_key <> '';

-- The id is "job.index" and is not stored: text of 25 characters less in the table and each index.
CREATE TABLE tasks (
    job TEXT NOT NULL,
    idx INTEGER NOT NULL,
    state TEXT NOT NULL,
    desired TEXT NOT NULL,
    device TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    exit_code INTEGER,
    reason TEXT NOT NULL,
    failures INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (job, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_state ON tasks (state);
CREATE INDEX tasks_device ON tasks (device, state) WHERE device <> '';

CREATE TABLE attempts (
    task TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    device TEXT NOT NULL,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    removed_epoch INTEGER NOT NULL,
    until INTEGER NOT NULL,
    exit_code INTEGER,
    signal INTEGER NOT NULL,
    reason TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_held ON attempts (state) WHERE state <> 'free';
CREATE INDEX attempts_listed ON attempts (device, until) WHERE state = 'free';
CREATE INDEX attempts_ended ON attempts (ended_at) WHERE state = 'free';

CREATE TABLE devices (
    device TEXT PRIMARY KEY,
    session INTEGER NOT NULL, -- 64 bits, two's complement
    boot_id TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    previous_identity TEXT NOT NULL,
    inventory INTEGER NOT NULL,
    profile TEXT NOT NULL,
    capacity TEXT NOT NULL,
    labels TEXT NOT NULL,
    runtimes TEXT NOT NULL,
    containment TEXT NOT NULL,
    heartbeat_ms INTEGER NOT NULL,
    version TEXT NOT NULL,
    cordoned INTEGER NOT NULL,
    draining INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    settings_epoch INTEGER NOT NULL,
    settings_number INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    limits TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE documents (
    device TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a number is a cursor of readers and must not come again after pruning.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    what TEXT NOT NULL,
    object TEXT NOT NULL,
    old TEXT NOT NULL,
    new TEXT NOT NULL,
    device TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX audit_object ON audit (object);

-- A rowid table: pieces of 16 KiB inside a key tree would make every search read them.
CREATE TABLE output (
    task TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    last INTEGER NOT NULL,
    data BLOB NOT NULL, -- behind the others, which are then read without it
    UNIQUE (task, attempt, stream, offset)
) STRICT;
CREATE INDEX output_last ON output (task, attempt, stream) WHERE last = 1;

-- Counters, kept by triggers, so that no path of writing can forget them.
CREATE TABLE totals (
    name TEXT PRIMARY KEY,
    n INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO totals VALUES
    ('task.pending', 0), ('task.assigned', 0), ('task.running', 0),
    ('task.succeeded', 0), ('task.failed', 0), ('task.cancelled', 0),
    ('job.open', 0), ('job.succeeded', 0), ('job.failed', 0), ('job.cancelled', 0),
    ('output.bytes', 0);

CREATE TABLE job_tasks (
    job TEXT PRIMARY KEY,
    pending INTEGER NOT NULL,
    assigned INTEGER NOT NULL,
    running INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER task_added AFTER INSERT ON tasks BEGIN
    UPDATE totals SET n = n + 1 WHERE name = 'task.' || new.state;
    INSERT INTO job_tasks VALUES (
        new.job, new.state = 'pending', new.state = 'assigned', new.state = 'running',
        new.state = 'succeeded', new.state = 'failed', new.state = 'cancelled'
    ) ON CONFLICT (job) DO UPDATE SET
        pending = pending + excluded.pending,
        assigned = assigned + excluded.assigned,
        running = running + excluded.running,
        succeeded = succeeded + excluded.succeeded,
        failed = failed + excluded.failed,
        cancelled = cancelled + excluded.cancelled;
END;

CREATE TRIGGER task_moved AFTER UPDATE OF state ON tasks WHEN old.state <> new.state BEGIN
    UPDATE totals SET n = n - 1 WHERE name = 'task.' || old.state;
    UPDATE totals SET n = n + 1 WHERE name = 'task.' || new.state;
    UPDATE job_tasks SET
        pending = pending + (new.state = 'pending') - (old.state = 'pending'),
        assigned = assigned + (new.state = 'assigned') - (old.state = 'assigned'),
        running = running + (new.state = 'running') - (old.state = 'running'),
        succeeded = succeeded + (new.state = 'succeeded') - (old.state = 'succeeded'),
        failed = failed + (new.state = 'failed') - (old.state = 'failed'),
        cancelled = cancelled + (new.state = 'cancelled') - (old.state = 'cancelled')
    WHERE job = new.job;
END;

CREATE TRIGGER task_pruned AFTER DELETE ON tasks BEGIN
    UPDATE totals SET n = n - 1 WHERE name = 'task.' || old.state;
    UPDATE job_tasks SET
        pending = pending - (old.state = 'pending'),
        assigned = assigned - (old.state = 'assigned'),
        running = running - (old.state = 'running'),
        succeeded = succeeded - (old.state = 'succeeded'),
        failed = failed - (old.state = 'failed'),
        cancelled = cancelled - (old.state = 'cancelled')
    WHERE job = old.job;
END;

CREATE TRIGGER job_added AFTER INSERT ON jobs BEGIN
    UPDATE totals SET n = n + 1 WHERE name = 'job.' || new.state;
END;

CREATE TRIGGER job_moved AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
    UPDATE totals SET n = n - 1 WHERE name = 'job.' || old.state;
    UPDATE totals SET n = n + 1 WHERE name = 'job.' || new.state;
END;

CREATE TRIGGER job_pruned AFTER DELETE ON jobs BEGIN
    UPDATE totals SET n = n - 1 WHERE name = 'job.' || old.state;
END;

CREATE TRIGGER output_added AFTER INSERT ON output BEGIN
    UPDATE totals SET n = n + length(new.data) WHERE name = 'output.bytes';
END;

CREATE TRIGGER output_grown AFTER UPDATE OF data ON output BEGIN
    UPDATE totals SET n = n + length(new.data) - length(old.data) WHERE name = 'output.bytes';
END;

CREATE TRIGGER output_pruned AFTER DELETE ON output BEGIN
    UPDATE totals SET n = n - length(old.data) WHERE name = 'output.bytes';
END;
