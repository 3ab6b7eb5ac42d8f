//! Why a request is not forwarded, or could not be: kept apart by whose fault it is.

use chaperone_aws::{ChunkedError, ErrorKind, EventStreamError};
use chaperone_journal::JournalError;
use chaperone_model::{Decision, OutcomeStatus, Reason};
use http::StatusCode;
use time::OffsetDateTime;

use crate::{body::error::BodyError, connection::quota::QuotaExceeded, upstream::pool::UpstreamError};

/// Whose fault it is that a call isn't made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The request is wrong, or asks for what it may not have.
    Agent,
    /// AWS, or the way there.
    Aws,
    /// The daemon or its host.
    Us,
}

/// Why a call isn't made, at whatever stage that is found. Each stage's error is one of these, and
/// `rescue` makes an answer of it.
#[derive(Debug)]
pub enum CallError {
    /// The policies said no.
    Denied(Box<Decision>),
    /// It waits for a person, and its client is told to come again.
    Held(Box<Decision>),
    /// It was permitted and recorded, and could not be carried out.
    Failed(Failure),
    /// It never came to the policies.
    Refused(Refusal),
    /// Its agent or session is stopped, before it went out or while it was under way.
    Stopped(Refusal),
    /// Its agent has used up a share of what all agents have in common. Recording each such request would be at the cost
    /// of those that keep to theirs: they are counted.
    Throttled(QuotaExceeded),
    /// It can't be recorded, so it doesn't happen.
    Unrecorded(JournalError),
}

impl CallError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Refused(refusal) if refusal.kind == Kind::Unavailable => Blame::Us,
            Self::Denied(_) | Self::Held(_) | Self::Refused(_) | Self::Stopped(_) | Self::Throttled(_) => Blame::Agent,
            Self::Unrecorded(_) => Blame::Us,
            Self::Failed(failure) => failure.blame(),
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<QuotaExceeded> for Refusal {
    fn from(exceeded: QuotaExceeded) -> Self {
        Self {
            kind: Kind::Throttled,
            reason: Reason::NotSupported,
            message: exceeded.to_string(),
            outcome: OutcomeStatus::Failed,
        }
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the agent is told when AWS isn't asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 403, in the protocol's own shape.
    AccessDenied,
    /// 400.
    BadRequest,
    /// 421.
    Misdirected,
    /// 501.
    NotImplemented,
    /// SignatureDoesNotMatch, or what the protocol calls it.
    Signature,
    /// The agent's clock is wrong.
    Skewed {
        /// When the request says that it was signed.
        signed: OffsetDateTime,
        /// What time it is.
        now: OffsetDateTime,
    },
    /// What the protocol says when there are too many requests, which SDKs retry.
    Throttled,
    /// 413.
    TooLarge,
    /// 503, which SDKs retry.
    Unavailable,
    /// The same, for what isn't reached at the address that the agent chose. Why, it isn't told: that would be a scanner's
    /// answer.
    Unreachable,
}

impl Kind {
    /// The error in AWS's own vocabulary, and a status that says more than AWS's would.
    pub(crate) fn spoken(self) -> (ErrorKind, Option<StatusCode>) {
        match self {
            Self::AccessDenied => (ErrorKind::AccessDenied, None),
            Self::BadRequest => (ErrorKind::InvalidRequest, None),
            Self::Misdirected => (ErrorKind::InvalidRequest, Some(StatusCode::MISDIRECTED_REQUEST)),
            Self::NotImplemented => (ErrorKind::InvalidRequest, Some(StatusCode::NOT_IMPLEMENTED)),
            Self::Signature => (ErrorKind::InvalidSignature, None),
            Self::Skewed { signed, now } => (ErrorKind::Skewed { signed, now }, None),
            Self::Throttled => (ErrorKind::Throttled, None),
            Self::TooLarge => (ErrorKind::InvalidRequest, Some(StatusCode::PAYLOAD_TOO_LARGE)),
            Self::Unavailable | Self::Unreachable => (ErrorKind::Unavailable, None),
        }
    }
}

/// Why a request never comes to the policies, with all that its answer and its record need.
#[derive(Debug)]
pub struct Refusal {
    /// What the agent is told.
    pub(crate) kind: Kind,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) outcome: OutcomeStatus,
}

impl Refusal {
    pub(crate) fn denied(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into(), outcome: OutcomeStatus::Denied }
    }

    /// AccessDenied, for what this version can't do.
    pub(crate) fn not_supported(message: impl Into<String>) -> Self {
        Self::denied(Kind::AccessDenied, Reason::NotSupported, message)
    }

    /// AccessDenied, for what can't be read in one way only.
    pub(crate) fn undecodable(error: &dyn std::fmt::Display) -> Self {
        Self::denied(Kind::AccessDenied, Reason::Undecodable, format!("not permitted: {error}"))
    }
}

/// Why a permitted call could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// AWS answered, and the answer must not go on as it is.
    #[error("AWS answered, and the answer was kept back: {0}")]
    Answer(String),
    /// A body broke off.
    #[error(transparent)]
    Body(BodyError),
    /// AWS's answer broke off before any of it had gone on.
    #[error("AWS's answer broke off: {0}")]
    Broken(BodyError),
    /// It was signed by a clock that was wrong, which is known by AWS's refusal.
    #[error("AWS refused it, and its date says that this host's clock is wrong: the next one is signed by AWS's time")]
    Clock,
    /// There is nothing to sign with.
    #[error("no credentials to sign with: {0}")]
    Credentials(chaperone_aws::CredentialsError),
    /// It can't be signed.
    #[error(transparent)]
    Sign(chaperone_aws::SignError),
    /// Its path and host make no URI.
    #[error("the target can't be put into a request")]
    Target,
    /// AWS can't be reached, or broke off.
    #[error(transparent)]
    Upstream(UpstreamError),
}

impl Failure {
    pub(crate) fn kind(&self) -> (Kind, OutcomeStatus) {
        match self {
            Self::Body(
                BodyError::Chunked(ChunkedError::Signature(_)) | BodyError::Events(EventStreamError::Signature),
            ) => (Kind::Signature, OutcomeStatus::Aborted),
            Self::Body(BodyError::Quota(_)) => (Kind::Throttled, OutcomeStatus::Failed),
            Self::Body(error) if error.blames_sender() => (Kind::BadRequest, OutcomeStatus::Aborted),
            // Asked again, AWS would answer the same.
            Self::Answer(_) | Self::Upstream(UpstreamError::Answer { .. }) => {
                (Kind::NotImplemented, OutcomeStatus::Failed)
            }
            Self::Sign(_) => (Kind::AccessDenied, OutcomeStatus::Failed),
            Self::Target => (Kind::BadRequest, OutcomeStatus::Failed),
            Self::Upstream(_) => (Kind::Unreachable, OutcomeStatus::Failed),
            Self::Body(_) | Self::Broken(_) | Self::Clock | Self::Credentials(_) => {
                (Kind::Unavailable, OutcomeStatus::Failed)
            }
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Answer(_) | Self::Broken(_) | Self::Upstream(_) => Blame::Aws,
            Self::Sign(_) | Self::Target => Blame::Agent,
            Self::Body(error) if error.blames_sender() => Blame::Agent,
            Self::Body(_) | Self::Clock | Self::Credentials(_) => Blame::Us,
        }
    }
}
