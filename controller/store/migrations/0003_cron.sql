-- How far the schedule of a cron job is decided, and how many runs it made.
ALTER TABLE jobs ADD COLUMN fired_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;
