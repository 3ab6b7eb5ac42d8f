//! Rows of `body_chunks` and `body_parts`.

use bytes::Bytes;
use chaperone_journal::{Kind, Record};
use clickhouse::Row;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Source, micros};

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct BodyChunksRow {
    tenant: String,
    sha256: [u8; 32],
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
    data: Bytes,
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct BodyPartsRow {
    tenant: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    call: Uuid,
    direction: &'static str,
    offset: u64,
    length: u32,
    sha256: [u8; 32],
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
}

/// A frame of a body: its content, and whose part it is.
pub(crate) fn body_rows(source: &Source, record: &Record) -> (BodyChunksRow, BodyPartsRow) {
    let head = &record.head;
    // The head has the hash of the body so far: for its first frame, of the frame.
    let sha256 = if head.body_offset == 0 { head.digest } else { sha256(&record.payload) };
    let at = micros(head.time_us);
    let chunk = BodyChunksRow { tenant: source.tenant.clone(), sha256, at, data: record.payload.clone() };
    let part = BodyPartsRow {
        tenant: source.tenant.clone(),
        journal: source.journal,
        seq: head.seq.0,
        call: Uuid::from_bytes(head.id),
        direction: if head.kind == Kind::RequestBody { "request" } else { "response" },
        offset: head.body_offset,
        length: head.payload_len,
        sha256,
        at,
    };
    (chunk, part)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

impl BodyChunksRow {
    pub(crate) const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}
