//! What one agent may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// Bounds on time and memory; every one can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of all agents at once.
    pub connections: usize,
    /// … of one session, with those of the containers that it started itself.
    pub session_connections: usize,
    /// … of one agent, with all its sessions.
    pub agent_connections: usize,
    /// Cgroups that one session may make below its own: the hooks have room for 65,536 of all.
    pub session_cgroups: u32,
    /// How much of `spool_total_bytes` one session may use, in percent. One body of `spool_bytes` always fits.
    pub session_percent: u8,
    /// … one agent, with all its sessions.
    pub agent_percent: u8,
    /// Requests of one session that are refused, and recorded, every second; of one agent, twice as many. Ten seconds' may
    /// come at once. More are answered with the protocol's throttling error, counted and told.
    pub refusals_per_second: u32,
    /// How much of a refused request's body is recorded, in bytes, beside the digest of what was read of it.
    pub refused_bytes: u64,
    /// The least that a body that is held in memory may arrive at, in bytes a second, after its first 15 s.
    pub body_rate: u64,
    /// Largest body that is held in memory because it must be hashed or decoded before it can be signed, in bytes.
    pub spool_bytes: usize,
    /// All memory for agents' requests together, in bytes: heads, such bodies, chunks, HTTP/2's windows. The last quarter is
    /// for small requests.
    pub spool_total_bytes: usize,
    /// Largest chunk of a body whose chunks are signed, in bytes: each is held until its signature is checked. SDKs make
    /// them of 64 to 128 KiB. Counts towards `spool_total_bytes`.
    pub signed_chunk_bytes: usize,
    /// How much of a refused request's body is read, so that the client gets to read the answer.
    pub drain_bytes: u64,
    /// How fast the bodies of one session's refused requests are read, all together, in bytes a second. A second's may come
    /// at once.
    pub drain_rate: u64,
    /// Streams of one HTTP/2 connection at once.
    pub http2_streams: u32,
    /// Flow-control window of an HTTP/2 stream, in bytes.
    pub http2_window: u32,
    /// Header list of an HTTP/2 request, in bytes.
    pub http2_header_bytes: u32,
    /// From accept to the ClientHello or request head, and for the TLS handshake.
    #[serde(with = "seconds")]
    pub handshake_timeout: Duration,
    /// For a request head, and for an idle connection between requests.
    #[serde(with = "seconds")]
    pub head_timeout: Duration,
    /// For a connection to AWS, its handshake included.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Without a byte of a request's body.
    #[serde(with = "seconds")]
    pub body_timeout: Duration,
    /// Without a byte of an answer that has begun. Lambda's functions run for 15 minutes, and streams of events are silent for
    /// as long as nothing happens; a peer that is gone is found by TCP's own probes within seconds.
    #[serde(with = "seconds")]
    pub answer_timeout: Duration,
    /// Without a byte in either direction of a WebSocket. IoT's clients may be silent for 30 minutes.
    #[serde(with = "seconds")]
    pub websocket_timeout: Duration,
    /// For calls under way when the daemon is told to stop.
    #[serde(with = "seconds")]
    pub drain_timeout: Duration,
}
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 6_000,
            session_connections: 2_000,
            agent_connections: 4_000,
            session_cgroups: 2_048,
            session_percent: 33,
            agent_percent: 66,
            refusals_per_second: 100,
            refused_bytes: 4 << 10,
            body_rate: 32 << 10,
            spool_bytes: 36 << 20,
            spool_total_bytes: 112 << 20,
            signed_chunk_bytes: 1 << 20,
            drain_bytes: 64 << 20,
            drain_rate: 16 << 20,
            http2_streams: 128,
            http2_window: 64 << 10,
            http2_header_bytes: 64 << 10,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(5),
            answer_timeout: Duration::from_hours(1),
            websocket_timeout: Duration::from_mins(35),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// The whole of the memory for agents' requests: at least what one of the largest bodies takes of it.
    pub(crate) fn memory_total(&self) -> usize {
        self.spool_total_bytes.max(self.largest())
    }

    /// One's share of it.
    pub(crate) fn memory_share(&self, percent: u8) -> usize {
        (self.memory_total() / 100 * usize::from(percent.min(100))).max(self.largest())
    }

    /// Three quarters of a pool are for what is large, and its head comes with it.
    fn largest(&self) -> usize {
        (self.spool_bytes.max(self.signed_chunk_bytes) + (1 << 20)).saturating_mul(4) / 3
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Err(serde::de::Error::custom("0 seconds would refuse everything: give at least 1")),
            seconds => Ok(Duration::from_secs(seconds)),
        }
    }
}
