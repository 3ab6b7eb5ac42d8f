-- The container that a session's cgroup is, as its engine describes it.

ALTER TABLE session_starts
  ADD COLUMN IF NOT EXISTS container String COMMENT 'its id; empty if the session is in none',
  ADD COLUMN IF NOT EXISTS container_name String,
  ADD COLUMN IF NOT EXISTS container_image String,
  ADD COLUMN IF NOT EXISTS container_image_id String,
  ADD COLUMN IF NOT EXISTS container_labels Map(String, String);

CREATE OR REPLACE VIEW sessions AS
SELECT s.tenant AS tenant, s.node AS node, s.journal AS journal, s.id AS id, s.agent AS agent, s.groups AS groups,
       s.cgroup AS cgroup, s.started AS started, e.ended AS ended, e.why AS why,
       d.calls AS calls, d.denied AS denied, c.request_bytes AS request_bytes, c.response_bytes AS response_bytes,
       o.connections AS connections, s.container AS container, s.container_name AS container_name,
       s.container_image AS container_image, s.container_image_id AS container_image_id,
       s.container_labels AS container_labels
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
