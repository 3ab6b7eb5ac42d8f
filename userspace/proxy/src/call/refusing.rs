//! Requests that don't go on: recorded with what they carried, and answered by the daemon itself in the protocol's shape.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_aws::{AwsChunkedReader, AwsError, error_response};
use chaperone_journal::JournalError;
use chaperone_model::{Call, CallOutcome, Decision, Direction, Event, OutcomeStatus, Protocol};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{
    body::chunked::Chunks,
    body::streams::{AnswerBody, Sent, Unread},
    call::checking::CheckedBody,
    call::exchange::{HttpConnection, Received, micros, record_whole},
    call::redact,
    call::refusal::{Kind, Refusal},
    connection::quota::QuotaExceeded,
};

/// All that an agent is told of a call that didn't get to AWS. The record says why.
const UNREACHABLE: &str =
    "AWS could not be reached for this call; whoever runs Chaperone finds the reason in its record.";

impl HttpConnection {
    /// Refuses a request that no policy was asked about.
    pub(crate) async fn refuse(
        &self,
        received: &Received,
        call: Option<Call>,
        refusal: Refusal,
        body: Option<CheckedBody>,
    ) -> Response<AnswerBody> {
        let decision = Decision::refused(refusal.reason, refusal.message.clone());
        self.refuse_decided(received, call, decision, refusal, body).await
    }

    pub(crate) async fn refuse_decided(
        &self,
        received: &Received,
        call: Option<Call>,
        decision: Decision,
        refusal: Refusal,
        body: Option<CheckedBody>,
    ) -> Response<AnswerBody> {
        self.shared.metrics.denied.inc();
        if let Err(exceeded) = self.share.refuse() {
            return self.throttled(received, &exceeded);
        }
        let protocol = call.as_ref().map_or(received.protocol, |call| call.protocol);
        let intent = self.intent(received, call, decision);
        // A refusal changes nothing at AWS, so that it needn't be on disk before it is told.
        if let Err(error) = self.shared.journal.append(&intent, self.shared.journal.must_wait(false)).await {
            return self.unrecorded(received, protocol, &error);
        }
        let sent = Arc::new(Mutex::new(Sent::default()));
        if let Some(body) = body {
            self.record_refused(received, body, &sent).await;
        }
        self.own_answer(received, protocol, refusal.kind, &refusal.message, refusal.outcome, &sent)
    }

    /// Records the body of a request that doesn't go on: what was tried is evidence.
    pub(crate) async fn record_refused(&self, received: &Received, body: CheckedBody, sent: &Mutex<Sent>) {
        let recorder = self.shared.journal.body(received.id, Direction::Request).keep(self.shared.limits.refused_bytes);
        match body {
            CheckedBody::Whole(bytes, ..) => match record_whole(recorder, &bytes).await {
                Ok(digest) => sent.lock().digest = Some(digest),
                Err(error) => not_recorded(&error),
            },
            // The client waits to be told whether to send its body at all.
            CheckedBody::Streaming(_) if received.expects => {}
            CheckedBody::Streaming(body) => {
                let chunks = received.is_chunked.then(|| Chunks::Read(AwsChunkedReader::new(None)));
                self.drain(Unread { body, recorder, chunks }, sent).await;
            }
        }
    }

    /// Reads on for a while, and records it: a client that is still sending would otherwise meet a reset connection
    /// instead of the answer. What is more than `limits.drain_bytes` is not read.
    pub(crate) async fn drain(&self, mut unread: Unread, sent: &Mutex<Sent>) {
        let limits = &self.shared.limits;
        unread.recorder.keep_more(limits.refused_bytes);
        let drained = timeout(limits.handshake_timeout, unread.read(limits.drain_bytes)).await.unwrap_or(Ok(()));
        if let Err(error) = drained.and_then(|()| unread.recorder.flush()) {
            not_recorded(&error);
        }
        let mut sent = sent.lock();
        sent.unread = Some(unread);
        sent.end();
    }

    /// The daemon's own answer, in the protocol's shape; recorded with its body.
    #[allow(clippy::too_many_arguments)] // all that an outcome consists of
    pub(crate) fn own_answer(
        &self,
        received: &Received,
        protocol: Protocol,
        kind: Kind,
        message: &str,
        outcome: OutcomeStatus,
        sent: &Mutex<Sent>,
    ) -> Response<AnswerBody> {
        let response = Self::error(received, protocol, kind, message);
        let mut recorder = self.shared.journal.body(received.id, Direction::Response);
        let _ = recorder.push(response.body().clone());
        let digest = recorder.finish();
        let mut sent = std::mem::take(&mut *sent.lock());
        sent.end();
        let event = Event::CallOutcome(Box::new(CallOutcome {
            id: received.id,
            session: self.session.session.id,
            at: OffsetDateTime::now_utc(),
            outcome,
            status: Some(response.status().as_u16()),
            aws_request_id: None,
            error_code: None,
            error: Some(message.to_owned()),
            head: Some(redact::head(response.version(), response.headers())),
            request: sent.digest,
            request_payload: sent.payload,
            response: Some(digest),
            duration_us: micros(received.began),
            ttfb_us: None,
        }));
        if let Err(error) = self.shared.journal.append_now(&event) {
            tracing::error!(call = %received.id, %error, "an outcome could not be recorded");
        }
        response.map(|bytes| AnswerBody::Whole(Some(bytes)))
    }

    fn error(received: &Received, protocol: Protocol, kind: Kind, message: &str) -> Response<Bytes> {
        let request_id = received.id.to_string();
        let message = if kind == Kind::Unreachable { UNREACHABLE } else { message };
        let (kind, status) = kind.spoken();
        let error = AwsError { protocol, service: received.service, kind, message, request_id: &request_id };
        let mut response = error_response(&error, &received.method);
        if let Some(status) = status {
            *response.status_mut() = status;
        }
        response
    }

    /// There is no share left for it. Each would be recorded at the cost of those that keep to theirs: how many there were is
    /// told every ten seconds, and counted.
    pub(crate) fn throttled(&self, received: &Received, exceeded: &QuotaExceeded) -> Response<AnswerBody> {
        if let Some(refused) = exceeded.told {
            let (session, agent) = (self.session.session.id, &self.session.session.agent);
            tracing::warn!(%session, agent, refused, why = %exceeded, "requests were refused, and are not recorded one by one");
        }
        let message = exceeded.to_string();
        Self::error(received, received.protocol, Kind::Throttled, &message).map(|bytes| AnswerBody::Whole(Some(bytes)))
    }

    /// The journal can't take it, so it doesn't happen.
    pub(crate) fn unrecorded(
        &self,
        received: &Received,
        protocol: Protocol,
        error: &JournalError,
    ) -> Response<AnswerBody> {
        self.shared.metrics.unrecorded.inc();
        tracing::error!(call = %received.id, %error, "a call was refused because it can't be recorded");
        // An intent that failed may be on disk nevertheless; its outcome then says that nothing was sent.
        let event = Event::CallOutcome(Box::new(CallOutcome {
            id: received.id,
            session: self.session.session.id,
            at: OffsetDateTime::now_utc(),
            outcome: OutcomeStatus::Failed,
            status: Some(StatusCode::SERVICE_UNAVAILABLE.as_u16()),
            aws_request_id: None,
            error_code: None,
            error: Some(error.to_string()),
            head: None,
            request: None,
            request_payload: None,
            response: None,
            duration_us: micros(received.began),
            ttfb_us: None,
        }));
        let _ = self.shared.journal.append_now(&event);
        let message = "Chaperone can't record this call now, so it was not made. Please try again.";
        let kind = if matches!(error, JournalError::Share { .. }) { Kind::Throttled } else { Kind::Unavailable };
        Self::error(received, protocol, kind, message).map(|bytes| AnswerBody::Whole(Some(bytes)))
    }
}

fn not_recorded(error: &JournalError) {
    tracing::error!(%error, "the body of a refused request could not be recorded");
}
