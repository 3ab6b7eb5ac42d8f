-- What agents executed, and which command made each call and connection.

CREATE TABLE IF NOT EXISTS command_starts (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID, seq UInt64 CODEC(Delta, ZSTD(1)),
  id UUID, session Nullable(UUID), parent Nullable(UUID) COMMENT 'the command whose process executed it',
  started DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  pid UInt32, parent_pid UInt32, uid UInt32, cgroup UInt64 COMMENT 'the process''s, by its number',
  exe String CODEC(ZSTD(3)), exe_sha256 Nullable(String), argv Array(String) CODEC(ZSTD(3)), argv_cut Bool,
  directory String CODEC(ZSTD(3)), found Bool COMMENT 'nobody saw it begin',
  INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 4,
  INDEX by_session session TYPE bloom_filter(0.01) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(started) ORDER BY (tenant, started, journal, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS command_ends (
  tenant LowCardinality(String), journal UUID, seq UInt64 CODEC(Delta, ZSTD(1)), id UUID,
  ended DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  ending LowCardinality(String) COMMENT 'code, signal or replaced', code UInt32 COMMENT 'the exit code, or the signal'
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ended) ORDER BY (tenant, id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS commands_lost (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID, seq UInt64,
  at DateTime64(6, 'UTC'), count UInt64 COMMENT 'beginnings and ends of commands that are not recorded'
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at) ORDER BY (tenant, journal, seq)
SETTINGS non_replicated_deduplication_window = 10000;

ALTER TABLE calls ADD COLUMN IF NOT EXISTS command Nullable(UUID) COMMENT 'what made it: commands.id';

ALTER TABLE connection_opens ADD COLUMN IF NOT EXISTS command Nullable(UUID) COMMENT 'what made it: commands.id';

CREATE VIEW IF NOT EXISTS commands AS
SELECT s.tenant AS tenant, s.node AS node, s.journal AS journal, s.id AS id, s.session AS session, s.parent AS parent,
       s.started AS started, e.ended AS ended, e.ending AS ending, e.code AS code, s.pid AS pid,
       s.parent_pid AS parent_pid, s.uid AS uid, s.exe AS exe, s.exe_sha256 AS exe_sha256, s.argv AS argv,
       s.argv_cut AS argv_cut, s.directory AS directory, s.found AS found
FROM (SELECT * FROM command_starts FINAL) AS s
LEFT JOIN (SELECT tenant, id, toNullable(ended) AS ended, toNullable(ending) AS ending, toNullable(code) AS code
           FROM command_ends FINAL) AS e
  ON e.tenant = s.tenant AND e.id = s.id;

CREATE OR REPLACE VIEW connections AS
SELECT o.tenant AS tenant, o.node AS node, o.journal AS journal, o.id AS id, o.session AS session, o.opened AS opened,
       c.closed AS closed, o.kind AS kind, o.name AS name, o.destination AS destination, o.upstream AS upstream,
       c.sent_bytes AS sent_bytes, c.received_bytes AS received_bytes,
       if(o.error != '', o.error, ifNull(c.error, '')) AS error,
       o.pid AS pid, o.uid AS uid, o.exe AS exe, o.argv AS argv, o.command AS command
FROM (SELECT * FROM connection_opens FINAL) AS o
LEFT JOIN (SELECT tenant, session, id, toNullable(closed) AS closed, sent_bytes, received_bytes, error
           FROM connection_closes FINAL) AS c
  ON c.tenant = o.tenant AND c.session = o.session AND c.id = o.id;
