//! One request and its answer, from its first byte until its outcome is recorded: exactly one outcome, whatever happens.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use chaperone_aws::{AwsChunkedReader, AwsError, HostMatch, payload_shape};
use chaperone_journal::JournalError;
use chaperone_model::{
    BodyDigest, Call, CallId, CallIntent, CallOutcome, Decision, Direction, Event, Head, Masked, OutcomeStatus,
    Payload, Protocol, Reason,
};
use chaperone_policy::budgets::Who;
use http::{Method, Request, header, request::Parts};
use hyper::body::Incoming;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{
    body::{
        chunked::Chunks,
        masked::MaskedLog,
        request::{Sent, Unread, record_whole},
        unmasked::Unmasked,
    },
    call::{error::Refusal, redact},
    connection::{
        http_connection::HttpConnection,
        quota::{Memory, QuotaExceeded},
    },
    generation::Generation,
    http::{heads::Refused, interims::Interims},
};

/// A request on its way, and what has been recorded of it.
pub struct Exchange {
    pub(crate) connection: Arc<HttpConnection>,
    /// What was in force when the head had been read.
    pub(crate) generation: Arc<Generation>,
    pub(crate) id: CallId,
    pub(crate) began: Instant,
    pub(crate) at: OffsetDateTime,
    /// The host, if it is clear.
    pub(crate) host: String,
    target: String,
    pub(crate) head: Head,
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The protocol that it seems to be in, until it is decoded.
    pub(crate) protocol: Protocol,
    /// botocore's name of the service, as far as the host tells.
    pub(crate) service: &'static str,
    /// The client waits for `100 Continue` before it sends the body.
    expects: bool,
    /// The body has the framing of aws-chunked.
    is_chunked: bool,
    /// What it was decoded as, until that is recorded.
    pub(crate) call: Option<Call>,
    /// Tells the client that its answer takes longer, where its protocol can.
    pub(crate) interims: Option<Interims>,
    /// The body, until it is on its way.
    pub(crate) body: Option<RequestBody>,
    /// What of it was sent.
    pub(crate) sent: Arc<Mutex<Sent>>,
    /// What of its answer was masked.
    pub(crate) masked: MaskedLog,
    /// The body with values in the places of what stands for them, until it is on its way.
    pub(crate) unmasked: Option<Unmasked>,
    /// What has gone to AWS in such a way.
    pub(crate) unmasked_by: Vec<Masked>,
    recorded: Recorded,
}

/// How far an exchange is in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    Nothing,
    Intent,
    Outcome,
}

/// A request's body before it is on its way.
pub(crate) enum RequestBody {
    /// In memory, with its SHA-256 and the memory that it holds.
    Whole(Bytes, [u8; 32], Memory),
    /// Not read yet.
    Streaming(Incoming),
}

impl RequestBody {
    pub(crate) fn in_memory(bytes: Bytes, permit: Memory) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let hash = digest.as_ref().try_into().expect("BUG: SHA-256 has 32 bytes");
        Self::Whole(bytes, hash, permit)
    }
}

/// A request's head, before anything is believed of it.
pub struct RequestHead {
    pub(crate) parts: Parts,
    pub(crate) host: Result<String, Refusal>,
    /// Why it is refused, if it stands in for a head that nobody else may read.
    pub(crate) refused: Option<Refused>,
}

/// How an exchange ends.
pub(crate) struct Ending {
    pub(crate) outcome: OutcomeStatus,
    /// What the agent was answered.
    pub(crate) answer: Option<AnswerFacts>,
    pub(crate) response: Option<BodyDigest>,
    pub(crate) error: Option<String>,
}

/// An answer's head, as it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct AnswerFacts {
    pub(crate) status: u16,
    pub(crate) head: Option<Head>,
    pub(crate) aws_request_id: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) ttfb_us: Option<u64>,
}

impl Exchange {
    /// A request has come. From here on it is recorded, even if this is dropped.
    pub(crate) fn begin(connection: Arc<HttpConnection>, request: Request<Incoming>) -> (Self, RequestHead) {
        let began = Instant::now();
        let (mut parts, body) = request.into_parts();
        let refused = connection.heads.refused(&mut parts.headers);
        let interims = parts.extensions.remove::<Interims>().filter(|_| parts.version == http::Version::HTTP_11);
        let exceeded = parts.extensions.remove::<QuotaExceeded>().map(Refused::Quota);
        let host = connection.host_of(&parts);
        let found = host.as_deref().ok().and_then(|host| connection.plane.catalog.host(host));
        let exchange = Self {
            id: CallId::new(),
            began,
            at: OffsetDateTime::now_utc(),
            host: host.as_deref().unwrap_or_default().to_owned(),
            target: redact::target(&parts.uri),
            head: redact::head(parts.version, &parts.headers),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            protocol: AwsError::guess(&parts, found.as_ref()),
            service: found.as_ref().map_or("", HostMatch::service_of_errors),
            expects: parts.headers.contains_key(header::EXPECT),
            is_chunked: is_chunked(&parts),
            call: None,
            interims,
            // A head that was refused has a stand-in, without a body.
            body: refused.is_none().then_some(RequestBody::Streaming(body)),
            sent: Arc::new(Mutex::new(Sent::of(connection.share.clone()))),
            masked: MaskedLog::default(),
            unmasked: None,
            unmasked_by: Vec::new(),
            recorded: Recorded::Nothing,
            generation: connection.plane.generation(),
            connection,
        };
        (exchange, RequestHead { parts, host, refused: refused.or(exceeded) })
    }

    /// Records what is about to happen, or why it won't. It takes the call.
    pub(crate) async fn record_intent(&mut self, decision: Decision, wait: bool) -> Result<(), JournalError> {
        let intent = self.intent(decision);
        // Also an append that failed may be on disk.
        self.recorded = Recorded::Intent;
        self.connection.plane.journal.append(&intent, wait).await
    }

    fn intent(&mut self, decision: Decision) -> Event {
        let session = &self.connection.session.session;
        Event::CallIntent(Box::new(CallIntent {
            id: self.id,
            session: session.id,
            agent: session.agent.clone(),
            connection: self.connection.id,
            at: self.at,
            process: self.connection.process.clone(),
            method: self.method.to_string(),
            host: self.host.clone(),
            target: std::mem::take(&mut self.target),
            head: std::mem::replace(&mut self.head, Head { version: String::new(), headers: Vec::new() }),
            call: self.call.take(),
            decision,
        }))
    }

    /// Whose it is, for budgets.
    pub(crate) fn who(&self) -> Who<'_> {
        let session = &self.connection.session.session;
        Who { agent: &session.agent, session: session.id }
    }

    /// Whether its intent is on record.
    pub(crate) fn has_intent(&self) -> bool {
        self.recorded == Recorded::Intent
    }

    /// Nothing of it is recorded: it is one of many that are counted.
    pub(crate) fn forget(&mut self) {
        self.recorded = Recorded::Outcome;
    }

    /// Records the outcome. Gives whether all of both bodies went through.
    pub(crate) fn end(mut self, ending: Ending) -> bool {
        self.close(ending)
    }

    fn close(&mut self, ending: Ending) -> bool {
        self.recorded = Recorded::Outcome;
        let (digest, payload, cut, wrong) = {
            let mut sent = self.sent.lock();
            let cut = sent.end();
            sent.over = true;
            (sent.digest.take(), sent.payload.take(), cut, sent.error.take())
        };
        let error = ending.error.or_else(|| wrong.map(|error| error.to_string()));
        let outcome = match ending.outcome {
            OutcomeStatus::Completed if error.is_some() => OutcomeStatus::Aborted,
            outcome => outcome,
        };
        let (status, head, aws_request_id, error_code, ttfb_us) = match ending.answer {
            Some(facts) => (Some(facts.status), facts.head, facts.aws_request_id, facts.error_code, facts.ttfb_us),
            None => (None, None, None, None, None),
        };
        self.connection.plane.metrics.calls.count(self.service, outcome, status);
        let whole = outcome == OutcomeStatus::Completed && digest.is_some() && !cut;
        let bytes = digest.as_ref().map(|digest| digest.bytes);
        let early = "AWS answered before it had read the whole request";
        let error = error.or_else(|| (cut && outcome == OutcomeStatus::Completed).then(|| early.to_owned()));
        let event = Event::CallOutcome(Box::new(CallOutcome {
            id: self.id,
            session: self.connection.session.session.id,
            at: OffsetDateTime::now_utc(),
            outcome,
            status,
            aws_request_id,
            error_code,
            error,
            head,
            request: digest,
            request_payload: payload,
            response: ending.response,
            duration_us: micros(self.began),
            ttfb_us,
            masked: std::mem::take(&mut *self.masked.lock()),
            unmasked: std::mem::take(&mut self.unmasked_by),
        }));
        if let Err(error) = self.connection.plane.journal.append_now(&event) {
            tracing::error!(call = %self.id, %error, "an outcome could not be recorded");
        }
        self.connection.plane.budgets.sent(self.who(), self.id, outcome, bytes);
        whole
    }

    /// Records the body of a request that doesn't go on, as far as it comes: what was tried is evidence. A client that is
    /// still sending would otherwise meet a reset connection instead of the answer.
    pub(crate) async fn record_unsent(&mut self) {
        let keep = self.connection.plane.limits.refused_bytes;
        let recorder = |this: &Self| this.connection.plane.journal.body(this.id, Direction::Request).keep(keep);
        let unread = match self.body.take() {
            None => self.sent.lock().unread.take(),
            Some(RequestBody::Whole(bytes, ..)) => {
                match record_whole(recorder(self), &bytes).await {
                    Ok(digest) => self.sent.lock().digest = Some(digest),
                    Err(error) => not_recorded(&error),
                }
                None
            }
            // The client waits to be told whether to send its body at all.
            Some(RequestBody::Streaming(_)) if self.expects => None,
            Some(RequestBody::Streaming(body)) => {
                let chunks = self.is_chunked.then(|| Chunks::Read(AwsChunkedReader::new(None)));
                Some(Unread { body, recorder: recorder(self), chunks })
            }
        };
        let Some(mut unread) = unread else { return };
        let limits = &self.connection.plane.limits;
        unread.recorder.keep_more(keep);
        let drained = timeout(limits.handshake_timeout, unread.read(limits.drain_bytes, &self.connection.share))
            .await
            .unwrap_or(Ok(()));
        if let Err(error) = drained.and_then(|()| unread.recorder.flush()) {
            not_recorded(&error);
        }
        let mut sent = self.sent.lock();
        sent.unread = Some(unread);
        sent.end();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.recorded == Recorded::Outcome {
            return;
        }
        let why = "the agent went away before it was answered";
        if self.recorded == Recorded::Nothing {
            // An agent that asks and goes away is one that is refused.
            if self.connection.share.refuse().is_err() {
                return;
            }
            let intent = self.intent(Decision::refused(Reason::Undecodable, why));
            if let Err(error) = self.connection.plane.journal.append_now(&intent) {
                tracing::error!(call = %self.id, %error, "a request that was given up could not be recorded");
            }
        }
        let error = Some(why.to_owned());
        self.close(Ending { outcome: OutcomeStatus::Aborted, answer: None, response: None, error });
    }
}

fn not_recorded(error: &JournalError) {
    tracing::error!(%error, "the body of a refused request could not be recorded");
}

/// Whether the payload is inside of aws-chunked framing.
fn is_chunked(parts: &Parts) -> bool {
    use Payload::{StreamingSigned, StreamingSignedTrailer, StreamingUnsignedTrailer};
    matches!(payload_shape(parts), StreamingSigned | StreamingSignedTrailer | StreamingUnsignedTrailer)
}

pub(crate) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
