//! Answers that carry credentials are held, and go on with placeholders in the credentials' place. What is recorded is
//! what the agent was given.

use bytes::{Bytes, BytesMut};
use chaperone_aws::{CredentialRewriter, MAX_CREDENTIALS_ANSWER, VendingCall};
use chaperone_identity::Resolved;
use chaperone_model::Call;
use http::{HeaderValue, Response, header::CONTENT_LENGTH, response::Parts};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::{
    DataPlane, SessionContext,
    body::streams::{AnswerBody, AnswerStream, BodyError},
    call::exchange::record_whole,
    call::refusal::Failure,
};

/// A call whose answer carries credentials.
pub(crate) struct VendedAnswer {
    call: VendingCall,
    account: Option<String>,
}

impl VendedAnswer {
    /// `None` for nearly every call.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        VendingCall::of(call).map(|it| Self { call: it, account: call.account.as_deref().map(str::to_owned) })
    }

    /// Takes the whole answer and gives what the agent gets. After an error nothing of it goes anywhere.
    pub(crate) async fn answer(
        self,
        shared: &DataPlane,
        session: &Resolved<SessionContext>,
        mut parts: Parts,
        mut stream: AnswerStream,
    ) -> Result<Response<AnswerBody>, Failure> {
        let refused = Failure::Answer;
        // Until all of it is known to be right there is no outcome.
        let (recorder, closing) = (stream.recorder.take(), stream.closing.take());
        let body = hold(shared, &mut stream).await?;
        let issuer = CredentialRewriter {
            keys: &session.own.vended,
            session: session.session.id,
            account: self.account.as_deref(),
            call: &self.call,
        };
        let given = issuer.rewrite(&parts.headers, &body).map_err(|error| refused(error.to_string()))?;
        let given = Bytes::from(given);
        // They were of the body as it came.
        for name in ["content-md5", "digest", "etag", "x-amz-crc32"] {
            parts.headers.remove(name);
        }
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(given.len()));
        if let (Some(recorder), Some(closing)) = (recorder, closing) {
            let digest = record_whole(recorder, &given).await.map_err(|error| Failure::Body(error.into()))?;
            closing.close(Some(digest), None);
        }
        Ok(Response::from_parts(parts, AnswerBody::Whole(Some(given))))
    }
}

/// The whole of an answer that must be read before it goes on.
pub(crate) async fn hold(shared: &DataPlane, stream: &mut AnswerStream) -> Result<BytesMut, Failure> {
    let refused = Failure::Answer;
    let mut body = BytesMut::new();
    loop {
        let frame = timeout(shared.limits.body_timeout, stream.inner.frame())
            .await
            .map_err(|_| refused(BodyError::Stalled(shared.limits.body_timeout).to_string()))?;
        let Some(frame) = frame else { return Ok(body) };
        let frame = frame.map_err(|error| refused(BodyError::http(&error).to_string()))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if body.len() + bytes.len() > MAX_CREDENTIALS_ANSWER {
            return Err(refused(chaperone_aws::AnswerError::TooLarge.to_string()));
        }
        body.extend_from_slice(&bytes);
    }
}
