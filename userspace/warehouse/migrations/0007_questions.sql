-- Questions by name. None reads with FINAL: every row arrives once (a batch that is sent again carries the same token),
-- and what is aggregated while it arrives is a minimum, which twice the same row doesn't change.

ALTER TABLE calls
  ADD COLUMN IF NOT EXISTS masked_rules Array(LowCardinality(String)) DEFAULT []
    COMMENT 'the rules that masked something in the answer',
  ADD COLUMN IF NOT EXISTS masked_paths Array(String) DEFAULT []
    COMMENT 'where, one for each of masked_rules' CODEC(ZSTD(3)),
  ADD COLUMN IF NOT EXISTS masked_counts Array(UInt64) DEFAULT []
    COMMENT 'how many values, one for each of masked_rules';

ALTER TABLE calls ADD INDEX IF NOT EXISTS by_time started TYPE minmax GRANULARITY 1;

ALTER TABLE decisions ADD INDEX IF NOT EXISTS by_decision decision TYPE set(4) GRANULARITY 1;

ALTER TABLE calls ADD INDEX IF NOT EXISTS by_action actions TYPE bloom_filter(0.01) GRANULARITY 4;

CREATE TABLE IF NOT EXISTS notable_actions (
  list UInt32 COMMENT 'the list''s number: the greatest counts',
  kind LowCardinality(String) COMMENT 'risk, secret or cost',
  action String COMMENT 'the IAM action',
  severity LowCardinality(String) COMMENT 'low, medium, high or critical',
  reason String COMMENT 'why it is on the list'
) ENGINE = ReplacingMergeTree ORDER BY (list, kind, action)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Actions that a security team wants to see, and why; kept with the program.';

CREATE TABLE IF NOT EXISTS first_uses (
  tenant LowCardinality(String) COMMENT 'whose it is',
  agent LowCardinality(String) COMMENT 'the agent',
  kind LowCardinality(String) COMMENT 'action, service, region, account, host or bucket',
  value String COMMENT 'which',
  first SimpleAggregateFunction(min, DateTime64(6, 'UTC')) COMMENT 'when the agent used it first'
) ENGINE = AggregatingMergeTree ORDER BY (tenant, agent, kind, value)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'When each agent first used each action, service, region, account, host and bucket.';

-- With the rights of whoever makes it: a user who inserts calls need not be able to read them.
CREATE MATERIALIZED VIEW IF NOT EXISTS first_uses_of_calls TO first_uses
DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
SELECT tenant, agent, tupleElement(used, 1) AS kind, tupleElement(used, 2) AS value, min(started) AS first
FROM calls
ARRAY JOIN arrayConcat(
  arrayMap(x -> ('action', toString(x)), actions),
  [('service', toString(service)), ('region', toString(region)), ('account', toString(account)),
   ('host', toString(host))],
  arrayMap(x -> ('bucket', splitByChar('/', x)[1]), arrayFilter(x -> startsWith(x, 'arn:aws') AND position(x, ':s3:::') > 0, resources))
) AS used
WHERE outcome != 'denied' AND tupleElement(used, 2) != ''
GROUP BY tenant, agent, kind, value;

INSERT INTO first_uses
SELECT tenant, agent, tupleElement(used, 1) AS kind, tupleElement(used, 2) AS value, min(started) AS first
FROM calls
ARRAY JOIN arrayConcat(
  arrayMap(x -> ('action', toString(x)), actions),
  [('service', toString(service)), ('region', toString(region)), ('account', toString(account)),
   ('host', toString(host))],
  arrayMap(x -> ('bucket', splitByChar('/', x)[1]), arrayFilter(x -> startsWith(x, 'arn:aws') AND position(x, ':s3:::') > 0, resources))
) AS used
WHERE outcome != 'denied' AND tupleElement(used, 2) != ''
GROUP BY tenant, agent, kind, value;

CREATE OR REPLACE VIEW who_touched AS
SELECT tenant, agent, service, operation, decision, count() AS calls, uniqExact(session) AS sessions,
       min(started) AS first, max(started) AS last, argMax(id, started) AS last_call, argMax(node, started) AS last_node
FROM calls
WHERE has(resources, {resource:String}) AND started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')}
GROUP BY tenant, agent, service, operation, decision
ORDER BY last DESC
COMMENT 'Who used this resource, by its ARN, and how.';

CREATE OR REPLACE VIEW session_timeline AS
SELECT tenant, at, what, subject, detail, result, id FROM (
  SELECT tenant, started AS at, 'session starts' AS what, toString(agent) AS subject,
         concat(node, ' ', cgroup) AS detail, '' AS result, id
  FROM session_starts WHERE id = {session:UUID}
  UNION ALL
  SELECT tenant, ended, 'session ends', '', why, '', id FROM session_ends WHERE id = {session:UUID}
  UNION ALL
  SELECT tenant, started, 'command', exe, arrayStringConcat(argv, ' '), if(found, 'found running', ''), id
  FROM command_starts WHERE session = {session:UUID}
  UNION ALL
  SELECT tenant, opened, 'connection', if(name != '', toString(name), destination), toString(kind), error, id
  FROM connection_opens WHERE session = {session:UUID}
  UNION ALL
  SELECT tenant, started, 'call', concat(service, ':', operation), arrayStringConcat(resources, ' '),
         concat(decision, ' ', outcome, ' ', toString(ifNull(status, 0))), id
  FROM calls WHERE session = {session:UUID})
ORDER BY at, id
COMMENT 'Everything of one session in one order: its commands, connections and calls with what was decided.';

CREATE OR REPLACE VIEW what_did AS
SELECT tenant, service, operation, decision, count() AS calls, countIf(error_code IS NOT NULL) AS errors,
       sum(request_bytes) AS sent_bytes, sum(response_bytes) AS received_bytes,
       uniq(session) AS sessions, min(started) AS first, max(started) AS last, argMax(id, started) AS last_call
FROM calls
WHERE agent = {agent:String} AND started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')}
GROUP BY tenant, service, operation, decision
ORDER BY calls DESC
COMMENT 'What an agent did, by operation and decision.';

CREATE OR REPLACE VIEW denials_by_policy AS
SELECT tenant, if(d.by = '', concat('(', any(d.why), ')'), d.by) AS policy, any(d.why) AS reason, count() AS calls,
       uniq(agent) AS agents, uniq(session) AS sessions, topK(3)(concat(service, ':', operation)) AS operations,
       max(d.at) AS last, argMax(agent, d.at) AS last_agent, argMax(call, d.at) AS last_call,
       argMax(d.message, d.at) AS message
FROM (SELECT tenant, agent, session, call, at, service, operation, toString(reason) AS why, message,
             arrayJoin(if(empty(policies), [''], policies)::Array(String)) AS by
      FROM decisions
      WHERE decision = 'deny' AND at >= {since:DateTime('UTC')} AND at < {until:DateTime('UTC')}) AS d
GROUP BY tenant, d.by, if(d.by = '', d.why, '')
ORDER BY calls DESC
COMMENT 'Which policies refused what, most first; where no policy was asked, the reason in brackets.';

CREATE OR REPLACE VIEW first_time_actions AS
SELECT tenant, agent, kind, value, min(first) AS at
FROM first_uses
GROUP BY tenant, agent, kind, value
HAVING at >= {since:DateTime('UTC')} AND at < {until:DateTime('UTC')}
ORDER BY at DESC
COMMENT 'What agents used for the first time: an action, service, region, account, host or bucket.';

CREATE OR REPLACE VIEW volume_out AS
SELECT tenant, agent, service, host, sum(request_bytes) AS sent_bytes, sum(response_bytes) AS received_bytes,
       count() AS calls, max(request_bytes) AS largest, argMax(id, request_bytes) AS largest_call
FROM calls
WHERE started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')} AND outcome != 'denied'
GROUP BY tenant, agent, service, host
HAVING sent_bytes > 0
ORDER BY sent_bytes DESC
COMMENT 'How many bytes agents sent to AWS, and where to, most first.';

CREATE OR REPLACE VIEW volume_elsewhere AS
SELECT o.tenant AS tenant, o.name AS host, any(s.agent) AS agent, uniq(o.session) AS sessions, count() AS connections,
       sum(c.sent_bytes) AS sent_bytes, sum(c.received_bytes) AS received_bytes, max(o.opened) AS last
FROM (SELECT tenant, session, id, opened, if(name != '', toString(name), destination) AS name
      FROM connection_opens
      WHERE kind = 'passed' AND opened >= {since:DateTime('UTC')} AND opened < {until:DateTime('UTC')}) AS o
LEFT JOIN (SELECT tenant, id, sent_bytes, received_bytes FROM connection_closes
           WHERE closed >= {since:DateTime('UTC')}) AS c ON c.tenant = o.tenant AND c.id = o.id
LEFT JOIN (SELECT tenant, id, agent FROM session_starts) AS s ON s.tenant = o.tenant AND s.id = o.session
GROUP BY tenant, host
ORDER BY sent_bytes DESC
COMMENT 'How many bytes agents sent to hosts that are not AWS''s, most first.';

CREATE OR REPLACE VIEW secrets_asked_for AS
SELECT tenant, agent, action, resources, decision, count() AS calls, max(started) AS last,
       argMax(id, started) AS last_call, sum(arraySum(masked_counts)) AS masked_values,
       arrayDistinct(arrayFlatten(groupUniqArray(10)(masked_rules::Array(String)))) AS masked_by
FROM (SELECT *, arrayJoin(if(empty(actions), [''], actions)::Array(String)) AS action FROM calls
      WHERE started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')}
        AND (notEmpty(masked_rules)
             OR arrayExists(x -> x IN (SELECT action FROM notable_actions WHERE kind = 'secret'
                                       AND list = (SELECT max(list) FROM notable_actions)), actions)))
WHERE notEmpty(masked_rules) OR action IN (
  SELECT action FROM notable_actions
  WHERE kind = 'secret' AND list = (SELECT max(list) FROM notable_actions))
GROUP BY tenant, agent, action, resources, decision
ORDER BY last DESC
COMMENT 'Who asked for secrets, or got answers in which something was masked.';

CREATE OR REPLACE VIEW risky_calls AS
SELECT c.tenant AS tenant, c.started AS at, c.agent AS agent, n.severity AS severity, c.action AS action,
       n.reason AS reason, c.resources AS resources, c.decision AS decision, c.outcome AS outcome, c.status AS status,
       c.session AS session, c.id AS call, c.node AS node
FROM (SELECT tenant, started, agent, resources, decision, outcome, status, session, id, node,
             arrayJoin(actions)::String AS action
      FROM calls
      WHERE started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')}
        AND arrayExists(x -> x IN (SELECT action FROM notable_actions WHERE kind = 'risk'
                                       AND list = (SELECT max(list) FROM notable_actions)), actions)) AS c
INNER JOIN (SELECT DISTINCT action, severity, reason FROM notable_actions
            WHERE kind = 'risk' AND list = (SELECT max(list) FROM notable_actions)) AS n ON n.action = c.action
ORDER BY at DESC
COMMENT 'Calls of actions on the list of risks, each with the reason why it is there.';

CREATE OR REPLACE VIEW cost_drivers AS
SELECT c.tenant AS tenant, c.agent AS agent, c.action AS action, n.severity AS severity, n.reason AS reason,
       c.account AS account, c.region AS region, count() AS calls, countIf(c.decision = 'deny') AS denied,
       max(c.started) AS last, argMax(c.id, c.started) AS last_call
FROM (SELECT tenant, started, agent, account, region, decision, id, arrayJoin(actions)::String AS action
      FROM calls
      WHERE started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')}
        AND arrayExists(x -> x IN (SELECT action FROM notable_actions WHERE kind = 'cost'
                                       AND list = (SELECT max(list) FROM notable_actions)), actions)) AS c
INNER JOIN (SELECT DISTINCT action, severity, reason FROM notable_actions
            WHERE kind = 'cost' AND list = (SELECT max(list) FROM notable_actions)) AS n ON n.action = c.action
GROUP BY tenant, agent, action, severity, reason, account, region
ORDER BY calls DESC
COMMENT 'Calls that start what costs money by the hour or for years, by agent.';

CREATE OR REPLACE VIEW new_hosts_called AS
SELECT o.tenant AS tenant, o.host AS host, o.first AS first, o.kind AS kind, s.agent AS agent, o.connections AS connections,
       o.session AS session, o.exe AS exe, o.node AS node
FROM (SELECT tenant, if(name != '', toString(name), destination) AS host, min(opened) AS first, count() AS connections,
             argMin(kind, opened) AS kind, argMin(session, opened) AS session, argMin(exe, opened) AS exe,
             argMin(node, opened) AS node
      FROM connection_opens GROUP BY tenant, host
      HAVING first >= {since:DateTime('UTC')} AND first < {until:DateTime('UTC')}) AS o
LEFT JOIN (SELECT tenant, id, agent FROM session_starts) AS s ON s.tenant = o.tenant AND s.id = o.session
ORDER BY first DESC
COMMENT 'Hosts that no agent had called before, and who was the first.';

CREATE OR REPLACE VIEW foreign_authority AS
SELECT tenant, at, agent, reason, service, operation, resources, message, session, call, node
FROM decisions
WHERE decision = 'deny' AND reason IN ('foreign-authority', 'invalid-signature')
  AND at >= {since:DateTime('UTC')} AND at < {until:DateTime('UTC')}
ORDER BY at DESC
COMMENT 'Calls signed by keys that are not ours, or with a signature that does not fit.';

CREATE OR REPLACE VIEW unattributed_commands AS
SELECT tenant, at, node, what, subject, detail, id FROM (
  SELECT tenant, started AS at, toString(node) AS node, 'command of no known session' AS what, exe AS subject,
         arrayStringConcat(argv, ' ') AS detail, toNullable(id) AS id
  FROM command_starts
  WHERE session IS NULL AND started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')}
  UNION ALL
  SELECT tenant, started, toString(node), 'command that nobody saw begin', exe, arrayStringConcat(argv, ' '),
         toNullable(id)
  FROM command_starts
  WHERE session IS NOT NULL AND found AND started >= {since:DateTime('UTC')} AND started < {until:DateTime('UTC')}
  UNION ALL
  SELECT tenant, at, toString(node), 'commands lost', toString(count), '', NULL FROM commands_lost
  WHERE at >= {since:DateTime('UTC')} AND at < {until:DateTime('UTC')})
ORDER BY at DESC
COMMENT 'Commands that could not be put down to a session, or that are not recorded.';

CREATE OR REPLACE VIEW gaps AS
SELECT tenant, node, journal, what, at, amount FROM (
  SELECT tenant, toString(any(l.node)) AS node, journal, 'records missing' AS what, max(l.at) AS at,
         toInt64(max(seq) - min(seq) + 1) - toInt64(count()) AS amount
  FROM ledger AS l WHERE l.at >= {since:DateTime('UTC')} GROUP BY tenant, journal HAVING amount > 0
  UNION ALL
  SELECT tenant, toString(node), journal, 'host silent, in seconds', last, toInt64(dateDiff('second', last, now64(6, 'UTC')))
  FROM (SELECT tenant, any(node) AS node, journal, max(at) AS last FROM shipped GROUP BY tenant, journal) AS h
  WHERE last < now64(6, 'UTC') - INTERVAL 10 MINUTE
  UNION ALL
  SELECT tenant, toString(node), journal, 'commands lost', at, toInt64(count) FROM commands_lost
  WHERE at >= {since:DateTime('UTC')})
ORDER BY at DESC
COMMENT 'What is missing: records, hosts that fell silent, and commands that were lost. The chain itself: chain_breaks.';

CREATE OR REPLACE VIEW hosts AS
SELECT h.tenant AS tenant, any(h.node) AS node, h.journal AS journal, max(h.at) AS last_shipped, max(h.seq) AS records,
       dateDiff('second', last_shipped, now64(6, 'UTC')) AS silent_seconds,
       any(s.agents) AS agents, any(s.sessions) AS sessions, any(s.last_session) AS last_session
FROM shipped AS h
LEFT JOIN (SELECT tenant, journal, groupUniqArray(agent) AS agents, count() AS sessions, max(started) AS last_session
           FROM session_starts GROUP BY tenant, journal) AS s
  ON s.tenant = h.tenant AND s.journal = h.journal
GROUP BY tenant, journal
ORDER BY node
COMMENT 'Every host: when it last shipped something, and which agents ran there.';
