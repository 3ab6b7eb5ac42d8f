//! Rows of `connection_opens` and `connection_closes`.

use chaperone_journal::Seq;
use chaperone_model::{CommandId, ConnectionClosed, ConnectionOpened};
use clickhouse::Row;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Source, name};

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct ConnectionOpensRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    session: Uuid,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    opened: OffsetDateTime,
    kind: String,
    name: String,
    destination: String,
    upstream: String,
    error: String,
    pid: u32,
    uid: u32,
    exe: String,
    argv: Vec<String>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    command: Option<Uuid>,
    decision: String,
    reason: String,
    policies: Vec<String>,
    policy_version: String,
    message: String,
}

impl ConnectionOpensRow {
    pub(crate) fn new(source: &Source, seq: Seq, opened: &ConnectionOpened) -> Self {
        let decision = opened.decision.as_ref();
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            id: opened.id.uuid(),
            session: opened.session.uuid(),
            opened: opened.at,
            kind: name(&opened.kind),
            name: opened.name.clone().unwrap_or_default(),
            destination: opened.destination.0.to_string(),
            upstream: opened.upstream.map_or_else(String::new, |address| address.to_string()),
            error: opened.error.clone().unwrap_or_default(),
            pid: opened.process.pid,
            uid: opened.process.uid,
            exe: opened.process.exe.clone(),
            argv: opened.process.argv.clone(),
            command: opened.process.command.map(CommandId::uuid),
            decision: decision.map_or_else(String::new, |decision| name(&decision.verdict)),
            reason: decision.map_or_else(String::new, |decision| name(&decision.reason)),
            policies: decision.map_or_else(Vec::new, |decision| decision.policies.clone()),
            policy_version: decision.map_or_else(String::new, |decision| decision.policy_version.clone()),
            message: decision.map_or_else(String::new, |decision| decision.message.clone()),
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct ConnectionClosesRow {
    tenant: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    session: Uuid,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    closed: OffsetDateTime,
    sent_bytes: u64,
    received_bytes: u64,
    error: String,
}

impl ConnectionClosesRow {
    pub(crate) fn new(source: &Source, seq: Seq, closed: ConnectionClosed) -> Self {
        Self {
            tenant: source.tenant.clone(),
            journal: source.journal,
            seq: seq.0,
            id: closed.id.uuid(),
            session: closed.session.uuid(),
            closed: closed.at,
            sent_bytes: closed.sent_bytes,
            received_bytes: closed.received_bytes,
            error: closed.error.unwrap_or_default(),
        }
    }
}
