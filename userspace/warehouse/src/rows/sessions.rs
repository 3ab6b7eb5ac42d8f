//! Rows of `session_starts`, `session_identities` and `session_ends`.

use chaperone_journal::Seq;
use chaperone_model::{SessionEnded, SessionId, SessionIdentified, SessionStarted};
use clickhouse::Row;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Source;

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct SessionStartsRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    agent: String,
    groups: Vec<String>,
    cgroup: String,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    started: OffsetDateTime,
    container: String,
    container_name: String,
    container_image: String,
    container_image_id: String,
    container_labels: Vec<(String, String)>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    parent: Option<Uuid>,
}

impl SessionStartsRow {
    pub(crate) fn new(source: &Source, seq: Seq, SessionStarted { session, host }: SessionStarted) -> Self {
        let container = session.container.unwrap_or_default();
        Self {
            tenant: source.tenant.clone(),
            node: host,
            journal: source.journal,
            seq: seq.0,
            id: session.id.uuid(),
            agent: session.agent,
            groups: session.groups,
            cgroup: session.cgroup_path,
            started: session.started,
            container: container.id,
            container_name: container.name,
            container_image: container.image,
            container_image_id: container.image_id,
            container_labels: container.labels.into_iter().collect(),
            parent: session.parent.map(SessionId::uuid),
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct SessionIdentitiesRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
    by: String,
    provider: String,
    issuer: String,
    subject: String,
    groups: Vec<String>,
    sponsor: String,
    display_name: String,
    token_id: String,
    claims: Vec<(String, String)>,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    expires: OffsetDateTime,
}

impl SessionIdentitiesRow {
    pub(crate) fn new(source: &Source, seq: Seq, event: SessionIdentified) -> Self {
        let identity = event.identity;
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            id: event.id.uuid(),
            at: event.at,
            by: event.by,
            provider: identity.provider,
            issuer: identity.issuer,
            subject: identity.subject,
            groups: identity.groups,
            sponsor: identity.sponsor.unwrap_or_default(),
            display_name: identity.display_name.unwrap_or_default(),
            token_id: identity.token_id,
            claims: identity.claims.into_iter().collect(),
            expires: identity.expires,
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct SessionEndsRow {
    tenant: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    ended: OffsetDateTime,
    why: String,
}

impl SessionEndsRow {
    pub(crate) fn new(source: &Source, seq: Seq, SessionEnded { id, at, why }: SessionEnded) -> Self {
        Self { tenant: source.tenant.clone(), journal: source.journal, seq: seq.0, id: id.uuid(), ended: at, why }
    }
}
