//! Presigned URLs that answers bring: noted for the session before the agent has them, so that it may use exactly those.

use chaperone_aws::PresigningCall;
use chaperone_identity::Resolved;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{self, CONTENT_LENGTH},
    request, response,
};
use time::OffsetDateTime;

use crate::{
    DataPlane, SessionContext,
    body::streams::{AnswerBody, AnswerStream},
    body::vended::hold,
    call::exchange::{HttpConnection, record_whole},
    call::refusal::Failure,
};

/// A call whose answer may bring a presigned URL.
pub(crate) struct PresignedAnswer {
    pub(crate) call: PresigningCall,
    /// What it is remembered by: the call's id and operation.
    pub(crate) by: String,
}

impl PresignedAnswer {
    /// Whether the answer's body must be read.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.call, PresigningCall::Member(_))
    }

    /// Notes what a redirection leads to.
    pub(crate) fn redirected(&self, session: &Resolved<SessionContext>, headers: &HeaderMap) {
        if let (PresigningCall::Location, Some(url)) = (self.call, self.call.url(headers, &[])) {
            session.own.vended.urls().note(&url, &self.by, OffsetDateTime::now_utc());
        }
    }

    /// Takes the whole answer, notes the URL in it, and gives it as it was.
    pub(crate) async fn answer(
        self,
        shared: &DataPlane,
        session: &Resolved<SessionContext>,
        mut parts: response::Parts,
        mut stream: AnswerStream,
    ) -> Result<Response<AnswerBody>, Failure> {
        let (recorder, closing) = (stream.recorder.take(), stream.closing.take());
        let body = hold(shared, &mut stream).await?;
        if let Some(url) = self.call.url(&parts.headers, &body) {
            session.own.vended.urls().note(&url, &self.by, OffsetDateTime::now_utc());
        }
        let body = body.freeze();
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let (Some(recorder), Some(closing)) = (recorder, closing) {
            let digest = record_whole(recorder, &body).await.map_err(|error| Failure::Body(error.into()))?;
            closing.close(Some(digest), None);
        }
        Ok(Response::from_parts(parts, AnswerBody::Whole(Some(body))))
    }
}

/// What of a request for a handed URL goes on: what part of the object is wanted, and in which case. Nothing else that the
/// agent says reaches whoever signed the URL.
const PASSED: [header::HeaderName; 7] = [
    header::ACCEPT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

impl HttpConnection {
    /// By which call the session was given exactly this request's URL. If it was, the request is stripped of all that the URL
    /// doesn't need.
    pub(crate) fn handed(&self, parts: &mut request::Parts, host: &str) -> Option<String> {
        let by = self.session.own.vended.urls().given(parts, host, OffsetDateTime::now_utc())?;
        let kept = PASSED.iter().filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone()))).collect();
        parts.headers = kept;
        Some(by)
    }
}
