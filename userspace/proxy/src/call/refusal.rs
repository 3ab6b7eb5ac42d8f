//! Why a request is not forwarded, or could not be: kept apart by whose fault it is.

use chaperone_aws::{ChunkedError, ErrorKind, EventStreamError};
use chaperone_model::{OutcomeStatus, Reason};
use http::StatusCode;

use crate::{body::streams::BodyError, upstream::pool::UpstreamError};

/// What the agent is told when AWS isn't asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AccessDenied,
    BadRequest,
    Misdirected,
    NotImplemented,
    Signature,
    Throttled,
    TooLarge,
    Unavailable,
    /// AWS isn't reached at the address that the agent chose. Why, it isn't told: it would be a scanner's answer.
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
            Self::Throttled => (ErrorKind::Throttled, None),
            Self::TooLarge => (ErrorKind::InvalidRequest, Some(StatusCode::PAYLOAD_TOO_LARGE)),
            Self::Unavailable | Self::Unreachable => (ErrorKind::Unavailable, None),
        }
    }
}

/// Why a request is not forwarded, with all that its answer and its record need.
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) outcome: OutcomeStatus,
}

impl Refusal {
    pub(crate) fn denied(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into(), outcome: OutcomeStatus::Denied }
    }
}

/// Why an allowed call could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("AWS answered, and the answer was kept back: {0}")]
    Answer(String),
    #[error(transparent)]
    Body(BodyError),
    #[error("no credentials to sign with: {0}")]
    Credentials(chaperone_aws::CredentialsError),
    #[error(transparent)]
    Sign(chaperone_aws::SignError),
    #[error("the target can't be put into a request")]
    Target,
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
            Self::Answer(_) => (Kind::NotImplemented, OutcomeStatus::Failed),
            Self::Sign(_) => (Kind::AccessDenied, OutcomeStatus::Failed),
            Self::Target => (Kind::BadRequest, OutcomeStatus::Failed),
            Self::Upstream(_) => (Kind::Unreachable, OutcomeStatus::Failed),
            Self::Body(_) | Self::Credentials(_) => (Kind::Unavailable, OutcomeStatus::Failed),
        }
    }
}
