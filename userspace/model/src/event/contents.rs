//! What each event holds. Fields may be added with a default; what is there keeps its name and meaning.

use std::{net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    ApprovalId, Call, CallId, CgroupId, CommandId, ConnectionId, Decision, Identity, OriginalDst, ProcessFacts,
    Session, SessionId,
};

/// Which way a body flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the agent to AWS, as it was sent on.
    Request,
    /// From AWS to the agent, as it came.
    Response,
}

/// What a finished body amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyDigest {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of all bytes.
    #[serde(with = "hex::serde")]
    pub sha256: [u8; 32],
    /// How many bytes of its beginning are recorded, if that isn't all: of a refused request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
}

/// The head of a request or an answer, as it went on. Header values that carry authority (`authorization`,
/// `x-amz-security-token`, `cookie`, …) are replaced by `<redacted>` before they get here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Name and value, in order; bytes that aren't UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a field; `name` in lower case.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A call was decoded and decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallIntent {
    /// The call.
    pub id: CallId,
    /// Its session.
    pub session: SessionId,
    /// The agent's name.
    pub agent: String,
    /// The connection that it came by.
    pub connection: ConnectionId,
    /// When its head had been read.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The process that connected.
    pub process: Arc<ProcessFacts>,
    /// HTTP method.
    pub method: String,
    /// Host the request is for.
    pub host: String,
    /// Path and query, with presigned credentials redacted.
    pub target: String,
    /// The request's head.
    pub head: Head,
    /// What it was taken for; `None` if it could not be decoded.
    pub call: Option<Call>,
    /// What was decided.
    pub decision: Decision,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeStatus {
    /// Answered by AWS, and the answer passed on whole.
    Completed,
    /// Denied; the daemon answered.
    Denied,
    /// The agent or AWS broke off.
    Aborted,
    /// The daemon could not carry it out (no credentials, no connection, upstream certificate wrong).
    Failed,
    /// The daemon stopped in the middle; written at the next start.
    Interrupted,
}

/// A call is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallOutcome {
    /// The call.
    pub id: CallId,
    /// Its session.
    pub session: SessionId,
    /// When it was over.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How.
    pub outcome: OutcomeStatus,
    /// The HTTP status that the agent got; `None` if it got none.
    pub status: Option<u16>,
    /// AWS's request id, if it gave one.
    pub aws_request_id: Option<String>,
    /// AWS's error code, such as `NoSuchKey`, if the answer carried one in its head.
    #[serde(default)]
    pub error_code: Option<String>,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// The answer's head, if there was one.
    pub head: Option<Head>,
    /// The request body as it is recorded: of an aws-chunked one the payload, without the framing around it.
    pub request: Option<BodyDigest>,
    /// The payload inside, where that isn't what is recorded: of an event stream, what its messages carry.
    #[serde(default)]
    pub request_payload: Option<BodyDigest>,
    /// The answer's body.
    pub response: Option<BodyDigest>,
    /// From the head read to the end, in microseconds.
    pub duration_us: u64,
    /// From the head read to the upstream answer's head, in microseconds.
    pub ttfb_us: Option<u64>,
    /// What of the answer was masked before the agent got it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<Masked>,
    /// What stood for masked values in the request, and was replaced by them on its way to AWS: by which policy's
    /// `@unmask_into`, in which member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmasked: Vec<Masked>,
}

/// Values of an answer that were masked, by the same rule in the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masked {
    /// `sensitive`, a detector's name, or the id of a policy with `@mask`.
    pub rule: String,
    /// Where, by members' names; empty where there are none.
    pub path: String,
    /// How many.
    pub count: u64,
}

/// An agent executed something: one `execve(2)` that succeeded, with all that its process forks until that executes
/// something itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandStarted {
    /// The command.
    pub id: CommandId,
    /// Its session; `None` if it isn't known whose its container was, or wasn't yet.
    pub session: Option<SessionId>,
    /// The command whose process executed it; `None` if that isn't an agent's, or was there before its enrolment.
    pub parent: Option<CommandId>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Process id in the daemon's pid namespace.
    pub pid: u32,
    /// The parent process's id.
    pub parent_pid: u32,
    /// User id.
    pub uid: u32,
    /// The process's cgroup.
    pub cgroup: CgroupId,
    /// Path of the executed file as its process sees it, or its name as it was given if the process was gone already.
    pub exe: String,
    /// SHA-256 of that file, in hexadecimal; `None` if it couldn't be read in time, or is too large.
    pub exe_sha256: Option<String>,
    /// Arguments, bounded to 64 of 4 KiB in all, secrets masked.
    pub argv: Vec<String>,
    /// Whether there were more of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub argv_cut: bool,
    /// The working directory; empty if the process was gone already.
    pub directory: String,
    /// Whether nobody saw it begin: the process was there before its cgroup was enrolled, or before it was in it, and
    /// made a socket at this time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandExit {
    /// By itself, with this code.
    Code(u32),
    /// Its process was seen to be gone; nobody saw how it went, or when.
    Gone,
    /// Its process executed something else in its stead.
    Replaced,
    /// By this signal.
    Signal(u32),
}

/// A command of an agent's ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnded {
    /// The command.
    pub id: CommandId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How.
    pub exit: CommandExit,
}

/// Commands began or ended, and it isn't known which: more came at once than there was room for, or they could not be
/// recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandsLost {
    /// When that was noticed.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How many beginnings and ends.
    pub count: u64,
}

/// What became of an accepted connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionKind {
    /// Opened: its requests are decoded, decided and recorded.
    Inspected,
    /// A metadata service's stand-in answered.
    Metadata,
    /// Passed on byte for byte: not AWS.
    Passed,
    /// Refused.
    Refused,
}

/// A connection of an agent was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionOpened {
    /// The connection.
    pub id: ConnectionId,
    /// Its session.
    pub session: SessionId,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The process that connected.
    pub process: Arc<ProcessFacts>,
    /// Where it wanted to go.
    pub destination: OriginalDst,
    /// Where it was taken: for passed connections, the address that the daemon resolved.
    pub upstream: Option<SocketAddr>,
    /// The name in the handshake or the Host field; `None` when there was none.
    pub name: Option<String>,
    /// What became of it.
    pub kind: ConnectionKind,
    /// Why it was refused.
    #[serde(default)]
    pub error: Option<String>,
    /// What the policies said, where they were asked whether it may be passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// A connection of an agent ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionClosed {
    /// The connection.
    pub id: ConnectionId,
    /// Its session.
    pub session: SessionId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Bytes from the agent (passed connections: of the stream as it is; else 0).
    pub sent_bytes: u64,
    /// Bytes to the agent (passed connections: of the stream as it is; else 0).
    pub received_bytes: u64,
    /// What went wrong, for people.
    #[serde(default)]
    pub error: Option<String>,
}

/// The daemon began to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStarted {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Its version.
    pub version: String,
    /// The host's name.
    pub host: String,
    /// The policy set's SHA-256, in hexadecimal.
    pub policy_version: String,
}

/// The daemon stopped in an orderly way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStopped {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// Somebody took the kernel hooks off, by `chaperone disable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksRemoved {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The login's user id, which `sudo` keeps; `None` if there was no login.
    pub login_uid: Option<u32>,
}

/// Who asks the daemon for something: what the kernel says of the other end, never what it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// How it asks: `control`, over the control socket, or `signal`.
    pub by: String,
    /// User id of its process.
    pub uid: Option<u32>,
    /// Its process.
    pub pid: Option<u32>,
    /// The login's user id, which `sudo` keeps; `None` if there was no login.
    pub login_uid: Option<u32>,
    /// The name of the user who logged in, or else of the process's.
    pub name: Option<String>,
}

/// An operator asks the daemon to do something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorActed {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub actor: Actor,
    /// What: `launch`, `reload`.
    pub act: String,
    /// On what, such as an agent's name.
    pub on: Option<String>,
}

/// The daemon didn't do what an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRefused {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who asked.
    pub actor: Actor,
    /// For what.
    pub act: String,
    /// On what, such as an agent's name.
    pub on: Option<String>,
    /// The kind of reason, such as `conflict`.
    pub code: String,
    /// The reason, for people.
    pub why: String,
}

/// A session began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// The session.
    #[serde(flatten)]
    pub session: Session,
    /// The host's name.
    pub host: String,
}

/// Who a session's agent is has become known, or is known for longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionIdentified {
    /// The session.
    pub id: SessionId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How the token came: `token-file` or `register`.
    pub by: String,
    /// Who it is.
    #[serde(flatten)]
    pub identity: Identity,
}

/// A token that came for a session was not believed, or is another subject's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionIdentityRefused {
    /// The session.
    pub id: SessionId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How the token came.
    pub by: String,
    /// What is wrong with it.
    pub why: String,
}

/// A session is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnded {
    /// The session.
    pub id: SessionId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Why, for people: the cgroup is empty, or the daemon stopped.
    pub why: String,
}

/// A call waits for people to approve it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalAsked {
    /// The question.
    pub id: ApprovalId,
    /// The session whose call it is.
    pub session: SessionId,
    /// The session's agent.
    pub agent: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// When it is over, answered or not.
    #[serde(with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
    /// The call that asked first. Its retries have ids of their own.
    pub call: CallId,
    /// SHA-256 over what makes a call the same one when it is made again, in hexadecimal.
    pub fingerprint: String,
    /// Actions, each with the resource that it needs approval on.
    pub needs: Vec<(String, String)>,
    /// Who must approve it.
    pub requirements: Vec<ApprovalRequirement>,
}

/// One policy's demand for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequirement {
    /// The policy.
    pub policy: String,
    /// Whoever is in one of these groups may answer.
    pub groups: Vec<String>,
    /// How many of them must say yes.
    pub needed: u32,
}

/// A person answered a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalAnswered {
    /// The question.
    pub id: ApprovalId,
    /// The session whose call it is.
    pub session: SessionId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub by: String,
    /// Yes or no.
    pub allow: bool,
    /// Why.
    pub reason: String,
    /// What a yes is for: `once`, `session` or `agent`.
    pub scope: String,
    /// Until when it is for more than this call.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// Where the question stands now: `pending` if others must answer, too.
    pub state: String,
    /// How they answered, and what was known of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<Approver>,
}

/// An approver, as they were when they answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// Where they answered: `command-line`, `https`, `bearer` or `slack`.
    pub by: String,
    /// User id of their process, on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Their process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The provider that vouched for them; a Slack workspace's is `slack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Who they are to that provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The address that they came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The approvers' groups that they were in.
    pub groups: Vec<String>,
}

/// A message about a question went to a webhook or to Slack, or couldn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDelivered {
    /// The question.
    pub id: ApprovalId,
    /// The session whose call it is.
    pub session: SessionId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The message's own id, which all attempts share.
    pub delivery: String,
    /// The webhook's name, or `slack`.
    pub to: String,
    /// What was told: `asked`, `approved`, `denied`, `expired`, `superseded`, `used` or `withdrawn`.
    pub kind: String,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    /// `delivered`, `failed` (it will be tried again) or `dead` (it won't).
    pub outcome: String,
    /// What the receiver answered, or why it didn't.
    pub answer: String,
}

/// A question is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalEnded {
    /// The question.
    pub id: ApprovalId,
    /// The session whose call it is.
    pub session: SessionId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `denied`, `expired`, `superseded`, `used` or `withdrawn`.
    pub state: String,
    /// The call that used it.
    #[serde(default)]
    pub call: Option<CallId>,
}
