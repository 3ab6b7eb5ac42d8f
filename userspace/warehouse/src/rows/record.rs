//! Rows of `ledger` and `checkpoints`: the record itself; and of `shipped`: how far it is.

use bytes::Bytes;
use chaperone_journal::{Checkpoint, Record};
use clickhouse::Row;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Source, micros, name};

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct LedgerRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
    kind: String,
    code: u8,
    event: String,
    flags: u8,
    about: [u8; 16],
    body_offset: u64,
    payload_len: u32,
    digest: [u8; 32],
    previous: [u8; 32],
    hash: [u8; 32],
    payload: Bytes,
}

impl LedgerRow {
    pub(crate) fn new(source: &Source, record: &Record, event: String) -> Self {
        let head = &record.head;
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: head.seq.0,
            at: micros(head.time_us),
            kind: name(&head.kind),
            code: head.kind.code(),
            event,
            flags: head.flags,
            about: head.id,
            body_offset: head.body_offset,
            payload_len: head.payload_len,
            digest: head.digest,
            previous: head.previous.0,
            hash: record.hash.0,
            payload: if head.kind.is_body() { Bytes::new() } else { record.payload.clone() },
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct CheckpointsRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    hash: [u8; 32],
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
    key: String,
    signature: String,
}

impl CheckpointsRow {
    pub(crate) fn new(source: &Source, checkpoint: Checkpoint) -> Self {
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: checkpoint.journal,
            seq: checkpoint.seq.0,
            hash: checkpoint.hash.0,
            at: micros(checkpoint.time_us),
            key: checkpoint.key,
            signature: checkpoint.signature,
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct ShippedRow {
    pub(crate) tenant: String,
    pub(crate) node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub(crate) journal: Uuid,
    pub(crate) seq: u64,
    pub(crate) position: String,
    pub(crate) floor: String,
}
