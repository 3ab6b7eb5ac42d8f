-- The session that one began inside of, as one of a container that an agent starts does.

ALTER TABLE session_starts
  ADD COLUMN IF NOT EXISTS parent Nullable(UUID) COMMENT 'the session that it began inside of: sessions.id';

CREATE OR REPLACE VIEW sessions AS
SELECT s.tenant AS tenant, s.node AS node, s.journal AS journal, s.id AS id, s.agent AS agent, s.groups AS groups,
       s.cgroup AS cgroup, s.started AS started, e.ended AS ended, e.why AS why,
       d.calls AS calls, d.denied AS denied, c.request_bytes AS request_bytes, c.response_bytes AS response_bytes,
       o.connections AS connections, s.container AS container, s.container_name AS container_name,
       s.container_image AS container_image, s.container_image_id AS container_image_id,
       s.container_labels AS container_labels,
       i.issuer AS issuer, i.subject AS subject, i.sponsor AS sponsor, i.identity_groups AS identity_groups,
       i.token_id AS token_id, i.identity_expires AS identity_expires, s.parent AS parent
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
  ON o.tenant = s.tenant AND o.session = s.id
LEFT JOIN (SELECT tenant, id, argMax(issuer, at) AS issuer, argMax(subject, at) AS subject,
                  argMax(sponsor, at) AS sponsor, argMax(groups, at) AS identity_groups,
                  argMax(token_id, at) AS token_id, toNullable(max(expires)) AS identity_expires
           FROM session_identities FINAL GROUP BY tenant, id) AS i
  ON i.tenant = s.tenant AND i.id = s.id;
