//! What one agent may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds on time and memory; every one can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of all agents at once.
    pub connections: usize,
    /// … of one session, with those of the containers that it started itself.
    pub session_connections: usize,
    /// Largest body that is held in memory because it must be hashed or decoded before it can be signed, in bytes.
    pub spool_bytes: usize,
    /// All such bodies together, in bytes.
    pub spool_total_bytes: usize,
    /// Largest chunk of a body whose chunks are signed, in bytes: each is held until its signature is checked. SDKs make
    /// them of 64 to 128 KiB. Counts towards `spool_total_bytes`.
    pub signed_chunk_bytes: usize,
    /// How much of a refused request's body is read and thrown away, so that the client gets to read the answer.
    pub drain_bytes: u64,
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
    /// Without a byte in either direction of a body.
    #[serde(with = "seconds")]
    pub body_timeout: Duration,
    /// Without a byte in either direction of a WebSocket. IoT's clients may be silent for 30 minutes.
    #[serde(with = "seconds")]
    pub websocket_timeout: Duration,
    /// For calls under way when the daemon is told to stop.
    #[serde(with = "seconds")]
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            session_connections: 5_000,
            spool_bytes: 16 << 20,
            spool_total_bytes: 64 << 20,
            signed_chunk_bytes: 1 << 20,
            drain_bytes: 16 << 20,
            http2_streams: 128,
            http2_window: 256 << 10,
            http2_header_bytes: 64 << 10,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(5),
            websocket_timeout: Duration::from_mins(35),
            drain_timeout: Duration::from_secs(20),
        }
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
