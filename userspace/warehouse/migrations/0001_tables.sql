-- What the shipper writes. Every table keeps a window of deduplication tokens, so that a batch that is sent again is
-- taken once; and its key names the row, so that one sent again after the window is replaced.

CREATE TABLE IF NOT EXISTS calls (
  tenant LowCardinality(String),
  node LowCardinality(String) COMMENT 'the machine that recorded it',
  journal UUID,
  seq UInt64 COMMENT 'the intent''s number in the journal' CODEC(Delta, ZSTD(1)),
  outcome_seq UInt64 COMMENT 'the outcome''s number' CODEC(Delta, ZSTD(1)),
  id UUID,
  session UUID,
  connection UUID,
  agent LowCardinality(String),
  service LowCardinality(String) COMMENT 'empty: the call could not be decoded',
  operation LowCardinality(String),
  protocol LowCardinality(String),
  actions Array(LowCardinality(String)),
  resources Array(String) CODEC(ZSTD(3)),
  partition LowCardinality(String),
  region LowCardinality(String),
  account LowCardinality(String),
  decision LowCardinality(String),
  reason LowCardinality(String),
  policies Array(LowCardinality(String)),
  policy_version LowCardinality(String),
  message String CODEC(ZSTD(3)),
  method LowCardinality(String),
  host LowCardinality(String) COMMENT 'the host that the request was for',
  target String CODEC(ZSTD(3)),
  outcome LowCardinality(String),
  status Nullable(UInt16),
  aws_request_id Nullable(String),
  error_code Nullable(String),
  error Nullable(String),
  request_bytes UInt64 COMMENT 'of the payload, inside aws-chunked framing' CODEC(T64, ZSTD(1)),
  response_bytes UInt64 CODEC(T64, ZSTD(1)),
  request_sha256 Nullable(String),
  response_sha256 Nullable(String),
  recorded_request_bytes UInt64 CODEC(T64, ZSTD(1)),
  recorded_request_sha256 Nullable(String),
  pid UInt32,
  uid UInt32,
  exe String CODEC(ZSTD(3)),
  argv Array(String) CODEC(ZSTD(3)),
  started DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  duration_us UInt64 CODEC(T64, ZSTD(1)),
  ttfb_us Nullable(UInt64),
  INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 4,
  INDEX by_session session TYPE bloom_filter(0.01) GRANULARITY 4,
  INDEX by_resource resources TYPE bloom_filter(0.01) GRANULARITY 4,
  INDEX by_aws_request_id aws_request_id TYPE bloom_filter(0.01) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(started) ORDER BY (tenant, agent, service, started, journal, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS decisions (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID, seq UInt64 CODEC(Delta, ZSTD(1)),
  call UUID, session UUID, agent LowCardinality(String),
  at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  service LowCardinality(String), operation LowCardinality(String),
  actions Array(LowCardinality(String)), resources Array(String) CODEC(ZSTD(3)),
  decision LowCardinality(String), reason LowCardinality(String), policies Array(LowCardinality(String)),
  policy_version LowCardinality(String), message String CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at) ORDER BY (tenant, at, journal, seq)
SETTINGS non_replicated_deduplication_window = 10000;

-- Sessions and connections can last for days: their two ends are rows of their own, joined by a view.
CREATE TABLE IF NOT EXISTS session_starts (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID, seq UInt64, id UUID,
  agent LowCardinality(String), groups Array(LowCardinality(String)), cgroup String,
  started DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(started) ORDER BY (tenant, id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS session_ends (
  tenant LowCardinality(String), journal UUID, seq UInt64, id UUID, ended DateTime64(6, 'UTC'), why String
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ended) ORDER BY (tenant, id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS connection_opens (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID, seq UInt64, id UUID, session UUID,
  opened DateTime64(6, 'UTC'), kind LowCardinality(String), name LowCardinality(String),
  destination String, upstream String, error String,
  pid UInt32, uid UInt32, exe String CODEC(ZSTD(3)), argv Array(String) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(opened) ORDER BY (tenant, session, id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS connection_closes (
  tenant LowCardinality(String), journal UUID, seq UInt64, id UUID, session UUID,
  closed DateTime64(6, 'UTC'), sent_bytes UInt64, received_bytes UInt64, error String
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(closed) ORDER BY (tenant, session, id)
SETTINGS non_replicated_deduplication_window = 10000;

-- Bodies, by content: the same chunk is stored once per month, however many calls carried it.
CREATE TABLE IF NOT EXISTS body_chunks (
  tenant LowCardinality(String), sha256 FixedString(32), at DateTime64(6, 'UTC'), data String CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at) ORDER BY (tenant, sha256)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 1024, index_granularity_bytes = 4194304;

CREATE TABLE IF NOT EXISTS body_parts (
  tenant LowCardinality(String), journal UUID, seq UInt64 CODEC(Delta, ZSTD(1)),
  call UUID, direction LowCardinality(String), offset UInt64, length UInt32, sha256 FixedString(32),
  at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at) ORDER BY (tenant, call, direction, offset)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every record's head, and the payload of those that are not bodies' bytes: all that the chain is made of.
CREATE TABLE IF NOT EXISTS ledger (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID,
  seq UInt64 CODEC(Delta, ZSTD(1)),
  at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  kind LowCardinality(String), code UInt8, flags UInt8,
  about FixedString(16) COMMENT 'the call, session or connection: UUIDNumToString(about)',
  body_offset UInt64 CODEC(T64, ZSTD(1)), payload_len UInt32 CODEC(T64, ZSTD(1)),
  digest FixedString(32) CODEC(NONE), previous FixedString(32) CODEC(NONE), hash FixedString(32) CODEC(NONE),
  payload String CODEC(ZSTD(3)),
  INDEX by_about about TYPE bloom_filter(0.01) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at) ORDER BY (tenant, journal, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS checkpoints (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID,
  seq UInt64 COMMENT 'the last record that the signature covers', hash FixedString(32),
  at DateTime64(6, 'UTC'), key LowCardinality(String), signature String
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at) ORDER BY (tenant, journal, seq)
SETTINGS non_replicated_deduplication_window = 10000;

-- How far each journal is here. Written last, so everything up to it is.
CREATE TABLE IF NOT EXISTS shipped (
  tenant LowCardinality(String), node LowCardinality(String), journal UUID, seq UInt64,
  position String COMMENT 'JSON: segment, offset, seq, hash',
  floor String COMMENT 'JSON: where the oldest call begins that is still open there',
  at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(seq) ORDER BY (tenant, journal)
SETTINGS non_replicated_deduplication_window = 10000;
