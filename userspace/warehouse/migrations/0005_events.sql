-- Which event a ledger's record is, also one that no table is made for, or that a later version wrote.
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS event LowCardinality(String) DEFAULT ''
  COMMENT 'the event''s name, as in docs/journal.md; empty for other records and for rows of before version 5' AFTER code;
