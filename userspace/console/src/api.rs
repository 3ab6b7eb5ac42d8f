//! What may be asked of the daemon, and what it answers: one request, one answer, or an error with a code.
//!
//! A new request is a variant of [`ControlRequest`], one of [`ControlResponse`], and an arm where the daemon handles them.
//! If it changes something, it says so in [`ControlRequest::act`], and is recorded with who asked before it is done.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Something that is asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// What is enrolled, and by which rule.
    Agents,
    /// Waits until what happened before is in the journal's segments, where commands read it.
    CatchUp,
    /// Messages about questions that wait to be delivered, or were given up.
    Deliveries,
    /// A cgroup and a session for a new process of an agent.
    Launch {
        /// The agent's name.
        agent: String,
    },
    /// Says who the session of a cgroup is.
    Register {
        /// The cgroup's path below the root of cgroup v2.
        cgroup: String,
        /// Its id, as it was when whoever asks looked: another one at the same path isn't meant.
        id: u64,
        /// A process in it, if that is what it was named by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        /// Who it is.
        token: Token,
        /// Whether a person has logged in for it: then that person is its sponsor.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        login: bool,
    },
    /// Reads configuration and policies again.
    Reload,
    /// Sends messages once more that were given up.
    Resend {
        /// The message's id, or `all`.
        id: String,
    },
    /// Lets an agent or a session go on that was stopped.
    Resume {
        /// The agent's name, or the session's id.
        of: String,
    },
    /// How the daemon is.
    Status,
    /// From now on nothing of an agent or a session goes out.
    Stop {
        /// The agent's name, or the session's id.
        of: String,
        /// Ends its processes, too.
        #[serde(default)]
        kill: bool,
        /// Why, for the agent and the record; may be empty.
        #[serde(default)]
        reason: String,
    },
}

/// A token on its way to be verified. It is neither shown nor recorded.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(<redacted>)")
    }
}

impl ControlRequest {
    /// Whether it is done even if it can't be recorded: it takes authority away, and a journal that can't write is when
    /// somebody wants that.
    pub const fn is_urgent(&self) -> bool {
        matches!(self, Self::Stop { .. })
    }

    /// What it changes, and on what, for the record; `None` if it only asks.
    pub fn act(&self) -> Option<(&'static str, Option<&str>)> {
        match self {
            Self::Agents | Self::CatchUp | Self::Deliveries | Self::Status => None,
            Self::Launch { agent } => Some(("launch", Some(agent))),
            Self::Register { cgroup, .. } => Some(("register", Some(cgroup))),
            Self::Reload => Some(("reload", None)),
            Self::Resend { id } => Some(("resend", Some(id))),
            Self::Resume { of } => Some(("resume", Some(of))),
            Self::Stop { of, kill: false, .. } => Some(("stop", Some(of))),
            Self::Stop { of, kill: true, .. } => Some(("stop-and-kill", Some(of))),
        }
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "of", rename_all = "kebab-case")]
pub enum ControlResponse {
    /// To [`ControlRequest::Agents`].
    Agents(serde_json::Value),
    /// To [`ControlRequest::CatchUp`].
    CaughtUp,
    /// To [`ControlRequest::Deliveries`].
    Deliveries(Vec<serde_json::Value>),
    /// To [`ControlRequest::Launch`].
    Launched(Launch),
    /// To [`ControlRequest::Register`]: the session, and who it is.
    Registered(serde_json::Value),
    /// To [`ControlRequest::Reload`]: what is in force now, for people.
    Reloaded(String),
    /// To [`ControlRequest::Resend`]: how many.
    Resent(usize),
    /// To [`ControlRequest::Resume`].
    Resumed(Resumed),
    /// To [`ControlRequest::Status`].
    Status(serde_json::Value),
    /// To [`ControlRequest::Stop`].
    Stopped(Stopped),
}

/// What goes on again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// In words.
    pub resumed: Vec<String>,
    /// What it is stopped by nevertheless: a session whose agent is.
    pub still_stopped: Vec<String>,
}

/// What is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// In words.
    pub stopped: String,
    /// Open sessions that this holds.
    pub sessions: Vec<String>,
    /// The cgroups whose processes were ended, if that was asked for.
    pub killed: Vec<String>,
}

/// Where a new agent shall run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The session that began.
    pub session: String,
    /// The agent's name.
    pub agent: String,
    /// The cgroup's folder: the agent's processes belong there before they do anything.
    pub cgroup: PathBuf,
    /// Variables that clients with a trust store of their own need.
    pub environment: Vec<(String, String)>,
}

/// What kind of reason the daemon has not to do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// What is asked can't be understood.
    BadRequest,
    /// It can't be done as things are, such as with a configuration that is wrong.
    Conflict,
    /// A fault of the daemon's.
    Internal,
    /// There is no such thing.
    NotFound,
    /// It may work later.
    Unavailable,
    /// It can't be recorded, so it isn't done.
    Unrecorded,
}

impl ErrorCode {
    /// As in HTTP.
    pub(crate) const fn status(self) -> http::StatusCode {
        match self {
            Self::BadRequest => http::StatusCode::BAD_REQUEST,
            Self::Conflict => http::StatusCode::CONFLICT,
            Self::Internal => http::StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => http::StatusCode::NOT_FOUND,
            Self::Unavailable | Self::Unrecorded => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRequest => "bad-request",
            Self::Conflict => "conflict",
            Self::Internal => "internal",
            Self::NotFound => "not-found",
            Self::Unavailable => "unavailable",
            Self::Unrecorded => "unrecorded",
        })
    }
}

/// Why the daemon didn't do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ControlError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl ControlError {
    /// An error with this code.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_understood_whole_or_not_at_all() {
        let read = serde_json::from_str::<ControlRequest>;
        let launch = ControlRequest::Launch { agent: "coder".into() };
        let text = serde_json::to_string(&launch).unwrap();
        assert_eq!(read(&text).unwrap(), launch);
        assert_eq!(read(r#"{"request":"reload"}"#).unwrap(), ControlRequest::Reload);
        // Who asks is never in the message.
        for wrong in [
            r#"{"request":"launch"}"#,
            r#"{"request":"launch","agent":"coder","actor":{"uid":0}}"#,
            r#"{"request":"stop-the-world"}"#,
            r#"{"agent":"coder"}"#,
            "[]",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn codes_are_told_as_they_are_serialised() {
        use ErrorCode::{BadRequest, Conflict, Internal, NotFound, Unavailable, Unrecorded};
        for code in [BadRequest, Conflict, Internal, NotFound, Unavailable, Unrecorded] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.to_string());
        }
    }
}
