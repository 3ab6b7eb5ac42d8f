-- What policies said of connections that are passed on, and who had tables keep their rows for how long.

ALTER TABLE connection_opens
  ADD COLUMN IF NOT EXISTS decision LowCardinality(String) DEFAULT ''
    COMMENT 'what the policies said of its being passed on: allow or deny; empty where they weren''t asked',
  ADD COLUMN IF NOT EXISTS reason LowCardinality(String) DEFAULT '' COMMENT 'why, by a fixed name',
  ADD COLUMN IF NOT EXISTS policies Array(LowCardinality(String)) DEFAULT []
    COMMENT 'the policies that decided, by their ids',
  ADD COLUMN IF NOT EXISTS policy_version LowCardinality(String) DEFAULT ''
    COMMENT 'the policy set''s SHA-256, in hexadecimal',
  ADD COLUMN IF NOT EXISTS message String DEFAULT '' COMMENT 'the decision in one sentence' CODEC(ZSTD(3));

ALTER TABLE connection_opens ADD INDEX IF NOT EXISTS by_decision decision TYPE set(4) GRANULARITY 1;

ALTER TABLE connection_opens ADD INDEX IF NOT EXISTS by_opened opened TYPE minmax GRANULARITY 1;

CREATE OR REPLACE VIEW connections AS
SELECT o.tenant AS tenant, o.node AS node, o.journal AS journal, o.id AS id, o.session AS session, o.opened AS opened,
       c.closed AS closed, o.kind AS kind, o.name AS name, o.destination AS destination, o.upstream AS upstream,
       c.sent_bytes AS sent_bytes, c.received_bytes AS received_bytes,
       if(o.error != '', o.error, ifNull(c.error, '')) AS error,
       o.pid AS pid, o.uid AS uid, o.exe AS exe, o.argv AS argv, o.command AS command,
       o.decision AS decision, o.reason AS reason, o.policies AS policies, o.policy_version AS policy_version,
       o.message AS message
FROM (SELECT * FROM connection_opens FINAL) AS o
LEFT JOIN (SELECT tenant, session, id, toNullable(closed) AS closed, sent_bytes, received_bytes, error
           FROM connection_closes FINAL) AS c
  ON c.tenant = o.tenant AND c.session = o.session AND c.id = o.id;

ALTER TABLE connections MODIFY COMMENT 'Connections, each with its end and what policies said of it.';

CREATE OR REPLACE VIEW refused_destinations AS
SELECT o.tenant AS tenant, o.host AS host, s.agent AS agent, o.policy AS policy, any(o.reason) AS reason,
       count() AS connections, uniq(o.session) AS sessions, min(o.opened) AS first, max(o.opened) AS last,
       argMax(o.session, o.opened) AS last_session, argMax(o.exe, o.opened) AS last_exe,
       argMax(o.message, o.opened) AS message
FROM (SELECT tenant, session, opened, exe, toString(reason) AS reason, message,
             if(name != '', toString(name), destination) AS host,
             arrayJoin(if(empty(policies), [''], policies)::Array(String)) AS policy
      FROM connection_opens
      WHERE decision = 'deny' AND opened >= {since:DateTime('UTC')} AND opened < {until:DateTime('UTC')}) AS o
LEFT JOIN (SELECT tenant, id, agent FROM session_starts
           WHERE id IN (SELECT session FROM connection_opens
                        WHERE decision = 'deny' AND opened >= {since:DateTime('UTC')}
                          AND opened < {until:DateTime('UTC')})) AS s
  ON s.tenant = o.tenant AND s.id = o.session
GROUP BY tenant, host, agent, policy
ORDER BY connections DESC
COMMENT 'Where agents wanted to go and policies did not let them, most first.';

CREATE TABLE IF NOT EXISTS retention_changes (
  at DateTime64(6, 'UTC') DEFAULT now64(6) COMMENT 'when',
  node LowCardinality(String) COMMENT 'the machine whose configuration says so',
  user String DEFAULT currentUser() COMMENT 'the user of ClickHouse''s that did it',
  table_name LowCardinality(String) COMMENT 'the table',
  ttl_days_before UInt32 COMMENT 'after how many days rows were deleted; 0 is never',
  ttl_days UInt32 COMMENT 'after how many days they are deleted from now on',
  storage_policy_before LowCardinality(String) COMMENT 'where its rows were kept',
  storage_policy LowCardinality(String) COMMENT 'where they are kept from now on'
) ENGINE = MergeTree ORDER BY (at, table_name)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Each time that a table was to keep its rows for another while or elsewhere; noted before it is done.';
