//! Why a body broke off.

use std::time::Duration;

use chaperone_journal::JournalError;

use crate::body::transform::TransformError;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The aws-chunked framing is wrong.
    #[error("the request's aws-chunked body is wrong: {0}")]
    Chunked(#[from] chaperone_aws::ChunkedError),
    /// A message of an event stream is wrong.
    #[error("the request's body is wrong: {0}")]
    Events(#[from] chaperone_aws::EventStreamError),
    /// The hash in `x-amz-content-sha256` is another than the body's.
    #[error("the body's SHA-256 is not the one in x-amz-content-sha256")]
    Hash,
    /// The connection that it came by broke off.
    #[error("{0}")]
    Http(String),
    /// It can't be recorded, so it doesn't go on.
    #[error("the body can't be recorded: {0}")]
    Journal(#[from] JournalError),
    /// The frames of a WebSocket are wrong.
    #[error(transparent)]
    Frames(#[from] crate::websocket::frames::FrameError),
    /// There is no memory for it now.
    #[error(transparent)]
    Quota(#[from] crate::connection::quota::QuotaExceeded),
    /// It can't be changed as it must be, so it doesn't go on.
    #[error("the answer was kept back: {0}")]
    Transform(#[from] TransformError),
    /// HTTP/2 has fields in trailers that belong into the head, which h2 drops unseen. No request of AWS's has any.
    #[error("the request has trailers, which no request to AWS has over HTTP/2")]
    Trailers,
    /// Nothing came for too long.
    #[error("no byte came for {} s", .0.as_secs())]
    Stalled(Duration),
}

impl BodyError {
    pub(crate) fn http(error: &hyper::Error) -> Self {
        Self::Http(chaperone_model::with_causes(error))
    }

    /// Whether the bytes themselves are to blame, and with them whoever sent them.
    pub(crate) fn blames_sender(&self) -> bool {
        matches!(
            self,
            Self::Chunked(_) | Self::Events(_) | Self::Frames(_) | Self::Hash | Self::Http(_) | Self::Trailers
        )
    }
}
