-- Jobs of runs know two more states.
ALTER TABLE bucket ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bucket ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
