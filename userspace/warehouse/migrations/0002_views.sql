-- What people ask.

CREATE VIEW IF NOT EXISTS sessions AS
SELECT s.tenant AS tenant, s.node AS node, s.journal AS journal, s.id AS id, s.agent AS agent, s.groups AS groups,
       s.cgroup AS cgroup, s.started AS started, e.ended AS ended, e.why AS why,
       d.calls AS calls, d.denied AS denied, c.request_bytes AS request_bytes, c.response_bytes AS response_bytes,
       o.connections AS connections
FROM (SELECT * FROM session_starts FINAL) AS s
LEFT JOIN (SELECT tenant, id, toNullable(ended) AS ended, toNullable(why) AS why FROM session_ends FINAL) AS e
  ON e.tenant = s.tenant AND e.id = s.id
LEFT JOIN (SELECT tenant, session, count() AS calls, countIf(decision = 'deny') AS denied
           FROM decisions FINAL GROUP BY tenant, session) AS d
  ON d.tenant = s.tenant AND d.session = s.id
LEFT JOIN (SELECT tenant, session, sum(request_bytes) AS request_bytes, sum(response_bytes) AS response_bytes
           FROM calls FINAL GROUP BY tenant, session) AS c
  ON c.tenant = s.tenant AND c.session = s.id
LEFT JOIN (SELECT tenant, session, count() AS connections FROM connection_opens FINAL GROUP BY tenant, session) AS o
  ON o.tenant = s.tenant AND o.session = s.id;

CREATE VIEW IF NOT EXISTS connections AS
SELECT o.tenant AS tenant, o.node AS node, o.journal AS journal, o.id AS id, o.session AS session, o.opened AS opened,
       c.closed AS closed, o.kind AS kind, o.name AS name, o.destination AS destination, o.upstream AS upstream,
       c.sent_bytes AS sent_bytes, c.received_bytes AS received_bytes,
       if(o.error != '', o.error, ifNull(c.error, '')) AS error,
       o.pid AS pid, o.uid AS uid, o.exe AS exe, o.argv AS argv
FROM (SELECT * FROM connection_opens FINAL) AS o
LEFT JOIN (SELECT tenant, session, id, toNullable(closed) AS closed, sent_bytes, received_bytes, error
           FROM connection_closes FINAL) AS c
  ON c.tenant = o.tenant AND c.session = o.session AND c.id = o.id;

CREATE VIEW IF NOT EXISTS denials AS SELECT * FROM decisions FINAL WHERE decision = 'deny';

-- Records whose hash is not that of their head, that don't continue the one before, or whose payload is another.
-- Empty when the record is whole. What it can't see: rows missing at the very end (compare with the journal's last
-- checkpoint), and a chain forged from some point on (verify `checkpoints` with the journal's public key).
CREATE VIEW IF NOT EXISTS chain_breaks AS
SELECT tenant, journal, seq, kind,
       multiIf(
         hash != computed, 'the hash is not that of the head',
         before != 0 AND seq != before + 1, concat('records are missing after ', toString(before)),
         before != 0 AND previous != before_hash, 'it does not continue the record before it',
         'the payload is not what was recorded') AS what
FROM (
  SELECT tenant, journal, seq, kind, hash, previous, digest, payload, code,
         lagInFrame(seq, 1, toUInt64(0)) OVER w AS before, lagInFrame(hash) OVER w AS before_hash,
         SHA256(concat(
           previous, reinterpretAsFixedString(payload_len), reinterpretAsFixedString(code),
           reinterpretAsFixedString(flags), unhex('0000'), reinterpretAsFixedString(seq),
           reinterpretAsFixedString(toUInt64(toUnixTimestamp64Micro(at))), about,
           reinterpretAsFixedString(body_offset), digest)) AS computed
  FROM ledger FINAL
  WINDOW w AS (PARTITION BY tenant, journal ORDER BY seq ROWS BETWEEN 1 PRECEDING AND CURRENT ROW))
WHERE hash != computed OR (before != 0 AND (seq != before + 1 OR previous != before_hash))
   OR (code NOT IN (4, 5) AND SHA256(payload) != digest);
