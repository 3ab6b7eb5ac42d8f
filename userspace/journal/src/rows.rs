//! One row per call, session and connection: what lists show, from the journal and from a warehouse alike.

use std::collections::HashMap;

use chaperone_model::{
    BodyDigest, CallIntent, CallOutcome, CommandEnded, CommandExit, CommandId, CommandStarted, ConnectionClosed,
    ConnectionKind, ConnectionOpened, Container, Event, OutcomeStatus, Protocol, Reason, SessionEnded, SessionId,
    SessionStarted, Verdict,
};
use chaperone_model::{CallId, ConnectionId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Seq;

/// A call, intent and outcome joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRow {
    /// The call.
    pub id: CallId,
    /// The intent's number in the journal.
    pub seq: Seq,
    /// Its session.
    pub session: SessionId,
    /// Its connection.
    pub connection: ConnectionId,
    /// The agent's name.
    pub agent: String,
    /// botocore's service name; `None` if the call could not be decoded.
    pub service: Option<String>,
    /// Operation.
    pub operation: Option<String>,
    /// Wire protocol.
    pub protocol: Option<Protocol>,
    /// IAM actions.
    pub actions: Vec<String>,
    /// ARNs.
    pub resources: Vec<String>,
    /// Partition.
    pub partition: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Account.
    pub account: Option<String>,
    /// Allowed or denied.
    pub decision: Verdict,
    /// Why.
    pub reason: Reason,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// The policy set's SHA-256.
    pub policy_version: String,
    /// The decision in one sentence.
    pub message: String,
    /// HTTP method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// How it ended; `None` while it is open.
    pub outcome: Option<OutcomeStatus>,
    /// The HTTP status that the agent got.
    pub status: Option<u16>,
    /// AWS's request id.
    pub aws_request_id: Option<String>,
    /// AWS's error code.
    pub error_code: Option<String>,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// Bytes of the request's payload: inside aws-chunked framing, where there is one.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// SHA-256 of the request's payload, in hexadecimal.
    pub request_sha256: Option<String>,
    /// SHA-256 of the answer's body, in hexadecimal.
    pub response_sha256: Option<String>,
    /// Bytes of the request's body as it is recorded: without aws-chunked framing, which is recorded beside it.
    pub recorded_request_bytes: u64,
    /// SHA-256 of that: the name of the recorded body.
    pub recorded_request_sha256: Option<String>,
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Executable.
    pub exe: String,
    /// Arguments.
    pub argv: Vec<String>,
    /// When its head had been read.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
    /// From there to the end, in microseconds.
    pub duration_us: Option<u64>,
    /// From there to the upstream answer's head, in microseconds.
    pub ttfb_us: Option<u64>,
    /// The command that made it.
    pub command: Option<CommandId>,
}

impl CallRow {
    /// The row of a call with this intent, at `seq`, and this outcome, if it has one.
    pub fn new(seq: Seq, intent: &CallIntent, outcome: Option<&CallOutcome>) -> Self {
        let call = intent.call.as_ref();
        let owned = |text: &str| text.to_owned();
        let recorded = outcome.and_then(|outcome| outcome.request);
        let request = outcome.and_then(|outcome| outcome.request_payload).or(recorded);
        let response = outcome.and_then(|outcome| outcome.response);
        let bytes = |body: Option<BodyDigest>| body.map_or(0, |body| body.bytes);
        let sha256 = |body: Option<BodyDigest>| body.map(|body| hex::encode(body.sha256));
        Self {
            id: intent.id,
            seq,
            session: intent.session,
            connection: intent.connection,
            agent: intent.agent.clone(),
            service: call.map(|call| owned(&call.service)),
            operation: call.map(|call| owned(&call.operation)),
            protocol: call.map(|call| call.protocol),
            actions: call.map_or_else(Vec::new, |call| call.actions.iter().map(|action| owned(&action.name)).collect()),
            resources: call.map_or_else(Vec::new, |call| call.resources.clone()),
            partition: call.map(|call| owned(&call.partition)),
            region: call.and_then(|call| call.region.as_deref().map(owned)),
            account: call.and_then(|call| call.account.as_deref().map(owned)),
            decision: intent.decision.verdict,
            reason: intent.decision.reason,
            policies: intent.decision.policies.clone(),
            policy_version: intent.decision.policy_version.clone(),
            message: intent.decision.message.clone(),
            method: intent.method.clone(),
            host: intent.host.clone(),
            target: intent.target.clone(),
            outcome: outcome.map(|outcome| outcome.outcome),
            status: outcome.and_then(|outcome| outcome.status),
            aws_request_id: outcome.and_then(|outcome| outcome.aws_request_id.clone()),
            error_code: outcome.and_then(|outcome| outcome.error_code.clone()),
            error: outcome.and_then(|outcome| outcome.error.clone()),
            request_bytes: bytes(request),
            response_bytes: bytes(response),
            request_sha256: sha256(request),
            response_sha256: sha256(response),
            recorded_request_bytes: bytes(recorded),
            recorded_request_sha256: sha256(recorded),
            pid: intent.process.pid,
            uid: intent.process.uid,
            exe: intent.process.exe.clone(),
            argv: intent.process.argv.clone(),
            started: intent.at,
            duration_us: outcome.map(|outcome| outcome.duration_us),
            ttfb_us: outcome.and_then(|outcome| outcome.ttfb_us),
            command: intent.process.command,
        }
    }
}

/// A session, with what it did so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// The agent's name.
    pub agent: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// The host.
    pub host: String,
    /// The cgroup's path.
    pub cgroup: String,
    /// The container that it is.
    pub container: Option<Container>,
    /// The session that it began inside of.
    pub parent: Option<SessionId>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
    /// When it ended; `None` while it goes on.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended: Option<OffsetDateTime>,
    /// Why it ended.
    pub why: Option<String>,
    /// How many calls it made.
    pub calls: u64,
    /// How many of them were denied.
    pub denied: u64,
    /// How many connections it opened.
    pub connections: u64,
    /// Bytes of request payloads.
    pub request_bytes: u64,
    /// Bytes of answers' bodies.
    pub response_bytes: u64,
}

/// Gathers sessions from events.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    order: Vec<SessionId>,
    rows: HashMap<SessionId, SessionRow>,
}

impl Sessions {
    pub(crate) fn take(&mut self, event: &Event) {
        match event {
            Event::CallIntent(intent) => {
                if let Some(row) = self.rows.get_mut(&intent.session) {
                    row.calls += 1;
                    row.denied += u64::from(!intent.decision.is_allowed());
                }
            }
            Event::CallOutcome(outcome) => {
                if let Some(row) = self.rows.get_mut(&outcome.session) {
                    let request = outcome.request_payload.or(outcome.request);
                    row.request_bytes += request.map_or(0, |body| body.bytes);
                    row.response_bytes += outcome.response.map_or(0, |body| body.bytes);
                }
            }
            Event::ConnectionOpened(opened) => {
                if let Some(row) = self.rows.get_mut(&opened.session) {
                    row.connections += 1;
                }
            }
            Event::SessionStarted(started) => self.start(started),
            Event::SessionEnded(SessionEnded { id, at, why }) => {
                if let Some(row) = self.rows.get_mut(id) {
                    row.ended = Some(*at);
                    row.why = Some(why.clone());
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, SessionStarted { session, host }: &SessionStarted) {
        if self.rows.contains_key(&session.id) {
            return; // resumed by a later daemon
        }
        self.order.push(session.id);
        let row = SessionRow {
            id: session.id,
            agent: session.agent.clone(),
            groups: session.groups.clone(),
            host: host.clone(),
            cgroup: session.cgroup_path.clone(),
            container: session.container.clone(),
            parent: session.parent,
            started: session.started,
            ended: None,
            why: None,
            calls: 0,
            denied: 0,
            connections: 0,
            request_bytes: 0,
            response_bytes: 0,
        };
        self.rows.insert(session.id, row);
    }

    pub(crate) fn into_rows(mut self) -> Vec<SessionRow> {
        self.order.iter().filter_map(|id| self.rows.remove(id)).collect()
    }
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// The connection.
    pub id: ConnectionId,
    /// Its session.
    pub session: SessionId,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub opened: OffsetDateTime,
    /// When it ended; `None` while it goes on.
    #[serde(with = "time::serde::rfc3339::option")]
    pub closed: Option<OffsetDateTime>,
    /// What became of it.
    pub kind: ConnectionKind,
    /// The name in the handshake or the Host field.
    pub name: Option<String>,
    /// Where it wanted to go.
    pub destination: String,
    /// Where it was taken.
    pub upstream: Option<String>,
    /// Bytes from the agent, for passed connections.
    pub sent_bytes: u64,
    /// Bytes to the agent, for passed connections.
    pub received_bytes: u64,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Executable.
    pub exe: String,
    /// Arguments.
    pub argv: Vec<String>,
    /// The command that made it.
    pub command: Option<CommandId>,
}

impl ConnectionRow {
    /// The row of a connection opened and closed so.
    pub fn new(opened: &ConnectionOpened, closed: Option<&ConnectionClosed>) -> Self {
        Self {
            id: opened.id,
            session: opened.session,
            opened: opened.at,
            closed: closed.map(|closed| closed.at),
            kind: opened.kind,
            name: opened.name.clone(),
            destination: opened.destination.0.to_string(),
            upstream: opened.upstream.map(|address| address.to_string()),
            sent_bytes: closed.map_or(0, |closed| closed.sent_bytes),
            received_bytes: closed.map_or(0, |closed| closed.received_bytes),
            error: opened.error.clone().or_else(|| closed.and_then(|closed| closed.error.clone())),
            pid: opened.process.pid,
            uid: opened.process.uid,
            exe: opened.process.exe.clone(),
            argv: opened.process.argv.clone(),
            command: opened.process.command,
        }
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRow {
    /// The command.
    pub id: CommandId,
    /// Its session.
    pub session: Option<SessionId>,
    /// The command whose process executed it.
    pub parent: Option<CommandId>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
    /// When it ended; `None` while it goes on, or if that is not known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended: Option<OffsetDateTime>,
    /// How it ended.
    pub exit: Option<CommandExit>,
    /// Process id.
    pub pid: u32,
    /// The parent process's id.
    pub parent_pid: u32,
    /// User id.
    pub uid: u32,
    /// Executable.
    pub exe: String,
    /// Its SHA-256, in hexadecimal.
    pub exe_sha256: Option<String>,
    /// Arguments.
    pub argv: Vec<String>,
    /// Whether there were more of them.
    pub argv_cut: bool,
    /// Working directory.
    pub directory: String,
    /// Whether nobody saw it begin.
    pub found: bool,
}

impl CommandRow {
    /// The row of a command that began and ended so.
    pub fn new(started: &CommandStarted, ended: Option<&CommandEnded>) -> Self {
        Self {
            id: started.id,
            session: started.session,
            parent: started.parent,
            started: started.at,
            ended: ended.map(|ended| ended.at),
            exit: ended.map(|ended| ended.exit),
            pid: started.pid,
            parent_pid: started.parent_pid,
            uid: started.uid,
            exe: started.exe.clone(),
            exe_sha256: started.exe_sha256.clone(),
            argv: started.argv.clone(),
            argv_cut: started.argv_cut,
            directory: started.directory.clone(),
            found: started.found,
        }
    }
}
