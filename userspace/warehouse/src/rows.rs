//! The rows of the tables, as in `migrations`.

use bytes::Bytes;
use chaperone_journal::{CallRow, Checkpoint, Kind, Record, Seq};
use chaperone_model::{
    CallId, CallIntent, CallOutcome, CommandEnded, CommandExit, CommandId, CommandStarted, CommandsLost,
    ConnectionClosed, ConnectionId, ConnectionOpened, SessionEnded, SessionId, SessionIdentified, SessionStarted,
};
use clickhouse::Row;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::WarehouseError;

/// What every row begins with: whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) tenant: String,
    pub(crate) node: String,
    pub(crate) journal: Uuid,
}

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
            parent: session.parent.map(|it| it.uuid()),
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
}

impl ConnectionOpensRow {
    pub(crate) fn new(source: &Source, seq: Seq, opened: &ConnectionOpened) -> Self {
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

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct CommandStartsRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::uuid::option")]
    session: Option<Uuid>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    parent: Option<Uuid>,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    started: OffsetDateTime,
    pid: u32,
    parent_pid: u32,
    uid: u32,
    cgroup: u64,
    exe: String,
    exe_sha256: Option<String>,
    argv: Vec<String>,
    argv_cut: bool,
    directory: String,
    found: bool,
}

impl CommandStartsRow {
    pub(crate) fn new(source: &Source, seq: Seq, started: CommandStarted) -> Self {
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            id: started.id.uuid(),
            session: started.session.map(SessionId::uuid),
            parent: started.parent.map(CommandId::uuid),
            started: started.at,
            pid: started.pid,
            parent_pid: started.parent_pid,
            uid: started.uid,
            cgroup: started.cgroup.0,
            exe: started.exe,
            exe_sha256: started.exe_sha256,
            argv: started.argv,
            argv_cut: started.argv_cut,
            directory: started.directory,
            found: started.found,
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct CommandEndsRow {
    tenant: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    ended: OffsetDateTime,
    ending: &'static str,
    code: u32,
}

impl CommandEndsRow {
    pub(crate) fn new(source: &Source, seq: Seq, ended: &CommandEnded) -> Self {
        let (ending, code) = match ended.exit {
            CommandExit::Code(code) => ("code", code),
            CommandExit::Gone => ("gone", 0),
            CommandExit::Replaced => ("replaced", 0),
            CommandExit::Signal(signal) => ("signal", signal),
        };
        Self {
            tenant: source.tenant.clone(),
            journal: source.journal,
            seq: seq.0,
            id: ended.id.uuid(),
            ended: ended.at,
            ending,
            code,
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct CommandsLostRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
    count: u64,
}

impl CommandsLostRow {
    pub(crate) fn new(source: &Source, seq: Seq, lost: &CommandsLost) -> Self {
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            at: lost.at,
            count: lost.count,
        }
    }
}

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

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

fn micros(since_1970: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(since_1970) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A unit variant's name, as it stands in JSON.
pub(crate) fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("BUG: not the name of a variant: {other:?}"),
    }
}

/// The variant with this name.
pub(crate) fn parse<T: DeserializeOwned>(table: &'static str, name: &str) -> Result<T, WarehouseError> {
    serde_json::from_value(name.into()).map_err(|error| WarehouseError::Row { table, why: error.to_string() })
}

impl BodyChunksRow {
    pub(crate) const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}
