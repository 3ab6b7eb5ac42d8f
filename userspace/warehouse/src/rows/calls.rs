//! Rows of `calls` and `decisions`.

use chaperone_journal::{CallRow, Seq};
use chaperone_model::{CallId, CallIntent, CallOutcome, CommandId, ConnectionId, SessionId};
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Source, name, parse};
use crate::WarehouseError;

#[derive(Clone, Debug, Row, Serialize, Deserialize)]
pub(crate) struct CallsRow {
    pub(crate) tenant: String,
    pub(crate) node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub(crate) journal: Uuid,
    pub(crate) seq: u64,
    pub(crate) outcome_seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub(crate) id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    pub(crate) session: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    pub(crate) connection: Uuid,
    pub(crate) agent: String,
    pub(crate) service: String,
    pub(crate) operation: String,
    pub(crate) protocol: String,
    pub(crate) actions: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) partition: String,
    pub(crate) region: String,
    pub(crate) account: String,
    pub(crate) decision: String,
    pub(crate) reason: String,
    pub(crate) policies: Vec<String>,
    pub(crate) policy_version: String,
    pub(crate) message: String,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) outcome: String,
    pub(crate) status: Option<u16>,
    pub(crate) aws_request_id: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) request_sha256: Option<String>,
    pub(crate) response_sha256: Option<String>,
    pub(crate) recorded_request_bytes: u64,
    pub(crate) recorded_request_sha256: Option<String>,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) exe: String,
    pub(crate) argv: Vec<String>,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    pub(crate) started: OffsetDateTime,
    pub(crate) duration_us: u64,
    pub(crate) ttfb_us: Option<u64>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    pub(crate) command: Option<Uuid>,
    pub(crate) masked_rules: Vec<String>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) masked_counts: Vec<u64>,
    pub(crate) unmasked_policies: Vec<String>,
    pub(crate) unmasked_paths: Vec<String>,
}

impl CallsRow {
    pub(crate) fn new(source: &Source, seq: Seq, intent: &CallIntent, ended: Seq, outcome: &CallOutcome) -> Self {
        let row = CallRow::new(seq, intent, Some(outcome));
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            outcome_seq: ended.0,
            id: row.id.uuid(),
            session: row.session.uuid(),
            connection: row.connection.uuid(),
            agent: row.agent,
            service: row.service.unwrap_or_default(),
            operation: row.operation.unwrap_or_default(),
            protocol: row.protocol.map_or_else(String::new, |protocol| name(&protocol)),
            actions: row.actions,
            resources: row.resources,
            partition: row.partition.unwrap_or_default(),
            region: row.region.unwrap_or_default(),
            account: row.account.unwrap_or_default(),
            decision: name(&row.decision),
            reason: name(&row.reason),
            policies: row.policies,
            policy_version: row.policy_version,
            message: row.message,
            method: row.method,
            host: row.host,
            target: row.target,
            outcome: name(&outcome.outcome),
            status: row.status,
            aws_request_id: row.aws_request_id,
            error_code: row.error_code,
            error: row.error,
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
            request_sha256: row.request_sha256,
            response_sha256: row.response_sha256,
            recorded_request_bytes: row.recorded_request_bytes,
            recorded_request_sha256: row.recorded_request_sha256,
            pid: row.pid,
            uid: row.uid,
            exe: row.exe,
            argv: row.argv,
            started: row.started,
            duration_us: outcome.duration_us,
            ttfb_us: row.ttfb_us,
            command: row.command.map(CommandId::uuid),
            masked_rules: outcome.masked.iter().map(|masked| masked.rule.clone()).collect(),
            masked_paths: outcome.masked.iter().map(|masked| masked.path.clone()).collect(),
            masked_counts: outcome.masked.iter().map(|masked| masked.count).collect(),
            unmasked_policies: outcome.unmasked.iter().map(|unmasked| unmasked.rule.clone()).collect(),
            unmasked_paths: outcome.unmasked.iter().map(|unmasked| unmasked.path.clone()).collect(),
        }
    }

    pub(crate) fn into_call_row(self) -> Result<CallRow, WarehouseError> {
        let filled = |text: String| (!text.is_empty()).then_some(text);
        let parse_opt = |text: String| filled(text).map(|text| parse("calls", &text)).transpose();
        Ok(CallRow {
            id: CallId::from_bytes(self.id.into_bytes()),
            seq: Seq(self.seq),
            session: SessionId::from_bytes(self.session.into_bytes()),
            connection: ConnectionId::from_bytes(self.connection.into_bytes()),
            agent: self.agent,
            service: filled(self.service),
            operation: filled(self.operation),
            protocol: parse_opt(self.protocol)?,
            actions: self.actions,
            resources: self.resources,
            partition: filled(self.partition),
            region: filled(self.region),
            account: filled(self.account),
            decision: parse("calls", &self.decision)?,
            reason: parse("calls", &self.reason)?,
            policies: self.policies,
            policy_version: self.policy_version,
            message: self.message,
            method: self.method,
            host: self.host,
            target: self.target,
            outcome: Some(parse("calls", &self.outcome)?),
            status: self.status,
            aws_request_id: self.aws_request_id,
            error_code: self.error_code,
            error: self.error,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            request_sha256: self.request_sha256,
            response_sha256: self.response_sha256,
            recorded_request_bytes: self.recorded_request_bytes,
            recorded_request_sha256: self.recorded_request_sha256,
            pid: self.pid,
            uid: self.uid,
            exe: self.exe,
            argv: self.argv,
            started: self.started,
            duration_us: Some(self.duration_us),
            ttfb_us: self.ttfb_us,
            command: self.command.map(|id| CommandId::from_bytes(id.into_bytes())),
        })
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct DecisionsRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    call: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    session: Uuid,
    agent: String,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
    service: String,
    operation: String,
    actions: Vec<String>,
    resources: Vec<String>,
    decision: String,
    reason: String,
    policies: Vec<String>,
    policy_version: String,
    message: String,
}

impl DecisionsRow {
    pub(crate) fn new(source: &Source, seq: Seq, intent: &CallIntent) -> Self {
        let row = CallRow::new(seq, intent, None);
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            call: row.id.uuid(),
            session: row.session.uuid(),
            agent: row.agent,
            at: row.started,
            service: row.service.unwrap_or_default(),
            operation: row.operation.unwrap_or_default(),
            actions: row.actions,
            resources: row.resources,
            decision: name(&row.decision),
            reason: name(&row.reason),
            policies: row.policies,
            policy_version: row.policy_version,
            message: row.message,
        }
    }
}
