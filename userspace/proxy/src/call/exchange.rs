//! One request and its answer: decode, decide, record the intent, sign, forward, record the outcome.

use std::{borrow::Cow, sync::Arc, time::Instant};

use bytes::Bytes;
use chaperone_aws::{
    AwsChunkedReader, AwsError, ChunkResigner, EventResigner, PostPolicy, PresigningCall, SignError, Signer,
    TokenField, VendedCredential, payload_shape,
};
use chaperone_journal::{BodyRecorder, JournalError};
use chaperone_model::{
    AccessLevel, Action, BodyDigest, Call, CallId, CallIntent, ConnectionId, Decision, Direction, Event, Head,
    OutcomeStatus, Payload, ProcessFacts, Protocol, Reason,
};
use chaperone_policy::CallFacts;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version,
    header::{self, HOST},
    request::Parts,
};
use http_body::Body as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    DataPlane, SessionContext,
    body::chunked::Chunks,
    body::presigned::PresignedAnswer,
    body::streams::{AnswerBody, AnswerStream, BodyError, Outgoing, RequestStream, Sent, Stall},
    body::vended::VendedAnswer,
    call::checking::{Checked, CheckedBody, Signing},
    call::outcome::OutcomeRecorder,
    call::redact,
    call::refusal::{Failure, Kind, Refusal},
    connection::accept::ALTERNATE_HTTPS,
    http::keep_alive::More,
    http::strict::Violation,
    upstream::pool::{Lease, Target},
    websocket::frames::Handshake,
};

/// Fields that belong to one connection and never go on (RFC 9110, 7.6.1), and `Expect`, which is answered here.
pub(crate) const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// A connection whose requests are looked into.
pub(crate) struct HttpConnection {
    pub(crate) shared: Arc<DataPlane>,
    pub(crate) session: Arc<chaperone_identity::Resolved<SessionContext>>,
    pub(crate) id: ConnectionId,
    pub(crate) process: Arc<ProcessFacts>,
    /// The name that the TLS handshake was for. Plain HTTP has none but each request's own.
    pub(crate) name: Option<Arc<str>>,
    /// Where AWS is: the agent's original address, port 443 or the other one that the agent dialled.
    pub(crate) upstream: std::net::SocketAddr,
    /// Set by the framing check when a head was refused.
    pub(crate) violation: Arc<Mutex<Option<Violation>>>,
    /// Why nothing of this connection may go on: its beginning could not be recorded.
    pub(crate) unrecorded: Option<JournalError>,
}

/// What is known of a request before it is decoded.
pub(crate) struct Received {
    pub(crate) id: CallId,
    pub(crate) began: Instant,
    at: OffsetDateTime,
    pub(crate) host: String,
    target: String,
    head: Head,
    pub(crate) method: Method,
    path: String,
    /// The protocol that it seems to be in, for errors before it is decoded.
    pub(crate) protocol: Protocol,
    /// botocore's name of the service, as far as the host tells.
    pub(crate) service: &'static str,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects: bool,
    /// The body has the framing of aws-chunked.
    pub(crate) is_chunked: bool,
}

impl HttpConnection {
    /// Answers one request. Every request is recorded and answered, whatever happens.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        let began = Instant::now();
        self.shared.metrics.requests.inc();
        let (mut parts, body) = request.into_parts();
        let violation = self.violation.lock().take();
        let host = if violation.is_some() { Ok(String::new()) } else { self.host_of(&mut parts) };
        let found = host.as_deref().ok().and_then(|host| self.shared.catalog.host(host));
        let received = Received {
            id: CallId::new(),
            began,
            at: OffsetDateTime::now_utc(),
            host: host.as_deref().unwrap_or_default().to_owned(),
            target: redact::target(&parts.uri),
            head: redact::head(parts.version, &parts.headers),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            protocol: AwsError::guess(&parts, found.as_ref()),
            service: found.as_ref().and_then(|found| found.services().next()).unwrap_or_default(),
            expects: parts.headers.contains_key(header::EXPECT),
            is_chunked: is_chunked(&parts),
        };
        if let Some(error) = &self.unrecorded {
            return self.unrecorded(&received, received.protocol, error);
        }
        let host = match (violation, host) {
            (Some(violation), _) => {
                let why = format!("the request was refused because of {violation}");
                let refusal = Refusal::denied(Kind::BadRequest, Reason::Undecodable, why);
                return self.refuse(&received, None, refusal, None).await;
            }
            (None, Err(refusal)) => {
                return self.refuse(&received, None, refusal, Some(CheckedBody::Streaming(body))).await;
            }
            (None, Ok(host)) => host,
        };
        let handshake = match Handshake::of(&parts) {
            None => None,
            Some(Ok(handshake))
                if body.is_end_stream()
                    && parts.extensions.get::<More>().is_none()
                    && !self.shared.is_inspected(&host) =>
            {
                Some(handshake)
            }
            Some(refused) => {
                let other =
                    "of upgrades, AWS's own WebSockets alone are passed on, and nothing that is sent before the answer";
                let why = refused.err().unwrap_or(other);
                let refusal =
                    Refusal::denied(Kind::NotImplemented, Reason::NotSupported, format!("not permitted: {why}"));
                return self.refuse(&received, None, refusal, Some(CheckedBody::Streaming(body))).await;
            }
        };
        if self.shared.is_inspected(&host) {
            return self.answer_http(received, parts, body).await;
        }
        let Some(found) = found else {
            let why = format!("`{host}` is not a name of AWS");
            let refusal = Refusal::denied(Kind::Misdirected, Reason::Undecodable, why);
            return self.refuse(&received, None, refusal, Some(CheckedBody::Streaming(body))).await;
        };
        match self.check(&mut parts, (&host, &found), handshake, body).await {
            Err((refusal, call, body)) => self.refuse(&received, call.map(|call| *call), refusal, body).await,
            Ok(mut checked) => {
                checked.handing = PresigningCall::of(&checked.call, &found).map(|call| {
                    let by = format!("{} {}:{}", received.id, checked.call.service, checked.call.operation);
                    PresignedAnswer { call, by }
                });
                self.decide(received, parts, checked).await
            }
        }
    }

    /// The one host that the request is for: the handshake's name, the Host field and `:authority` must agree.
    fn host_of(&self, parts: &mut Parts) -> Result<String, Refusal> {
        let bad = |why: &str| Refusal::denied(Kind::BadRequest, Reason::Undecodable, why);
        let mut fields = parts.headers.get_all(HOST).iter();
        let field = fields.next().map(|field| field.as_bytes().to_vec());
        if fields.next().is_some() {
            return Err(bad("the request has two Host fields"));
        }
        let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec());
        let name = |bytes: &[u8]| -> Option<String> {
            let dialled = (self.upstream.port() == ALTERNATE_HTTPS).then_some(b":8443".as_slice());
            let mut ports = [b":443".as_slice(), b":80"].into_iter().chain(dialled);
            let text = ports.find_map(|port| bytes.strip_suffix(port)).unwrap_or(bytes);
            crate::connection::hello::host_name(text)
        };
        let host = match (&authority, &field) {
            (Some(one), Some(other)) if name(one) != name(other) => {
                return Err(Refusal::denied(
                    Kind::Misdirected,
                    Reason::Undecodable,
                    "the request's :authority and Host field disagree",
                ));
            }
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => return Err(bad("the request has no host")),
        };
        let host = name(host).ok_or_else(|| bad("the request's Host is not a plain DNS name"))?;
        if self.name.as_deref().is_some_and(|name| name != host) {
            let named = self.name.as_deref().unwrap_or_default();
            let why = format!("the connection was opened for `{named}` and the request is for `{host}`");
            return Err(Refusal::denied(Kind::Misdirected, Reason::Undecodable, why));
        }
        Ok(host)
    }

    /// The host as AWS is told it: with the port where that isn't HTTPS's own.
    pub(crate) fn authority_of(&self, received: &Received) -> String {
        match self.upstream.port() {
            443 => received.host.clone(),
            port => format!("{}:{port}", received.host),
        }
    }

    /// A name that the configuration lists under `inspect`: decided by method, recorded whole, not signed.
    async fn answer_http(self: Arc<Self>, received: Received, parts: Parts, body: Incoming) -> Response<AnswerBody> {
        let level = match parts.method {
            Method::GET | Method::HEAD | Method::OPTIONS => AccessLevel::Read,
            _ => AccessLevel::Write,
        };
        let call = Call {
            partition: Cow::Borrowed("http"),
            region: None,
            account: None,
            service: Cow::Owned(received.host.clone()),
            signing_name: Cow::Borrowed(""),
            operation: Cow::Owned(parts.method.to_string()),
            candidates: Vec::new(),
            protocol: Protocol::Http,
            actions: vec![Action { name: Cow::Owned(format!("http:{}", parts.method)), level }],
            resources: vec![format!("https://{}{}", received.host, parts.uri.path())],
            pairs: Vec::new(),
            unknown: Vec::new(),
            unread: Vec::new(),
            references: chaperone_model::References::default(),
            parameters: serde_json::Value::Null,
            payload: Payload::None,
        };
        let body = CheckedBody::Streaming(body);
        let checked =
            Checked { call, signing: None, token: None, form: None, opening: None, handing: None, body, held: None };
        self.decide(received, parts, checked).await
    }

    async fn decide(self: Arc<Self>, received: Received, mut parts: Parts, checked: Checked) -> Response<AnswerBody> {
        let facts = CallFacts {
            method: received.method.as_str(),
            host: &received.host,
            path: &received.path,
            session: &self.session.own.id,
            exe: &self.process.exe,
        };
        let decision = self.shared.engine.decide(&self.session.own.principal, &checked.call, facts);
        if !decision.is_allowed() {
            let refusal = Refusal {
                kind: Kind::AccessDenied,
                reason: decision.reason,
                message: decision.message.clone(),
                outcome: OutcomeStatus::Denied,
            };
            return self.refuse_decided(&received, Some(checked.call), decision, refusal, Some(checked.body)).await;
        }
        let mutating = checked.call.is_mutating();
        let protocol = checked.call.protocol;
        let shape = checked.call.payload;
        let Checked { call, signing, token, form, opening, handing, body, held } = checked;
        if signing.is_none() && call.protocol != Protocol::Http {
            // A token without a signature is nobody's authority.
            for field in [TokenField::Security, TokenField::S3Session] {
                parts.headers.remove(field.name());
            }
        }
        if let Some(token) = token {
            parts.headers.insert(header::AUTHORIZATION, token);
        }
        let issuing = VendedAnswer::of(&call);
        let intent = self.intent(&received, Some(call), decision);
        let wait = self.shared.journal.must_wait(mutating);
        if let Err(error) = self.shared.journal.append(&intent, wait).await {
            return self.unrecorded(&received, protocol, &error);
        }
        // What else has come meanwhile gets as far as this first, and then all of it goes on together: AWS's side of the
        // host is woken once and not for each. Under load that is a quarter of a call's cost; alone it is a microsecond.
        tokio::task::yield_now().await;
        let forward = match opening {
            Some(opening) => self.open_websocket(&received, parts, signing, *opening, held).await,
            None => self.forward(&received, parts, signing, form, body, shape, held, (issuing, handing)).await,
        };
        match forward {
            Ok(response) => response,
            Err((failure, sent)) => {
                let unread = sent.lock().unread.take();
                if let Some(unread) = unread {
                    self.drain(unread, &sent).await;
                }
                let (kind, status) = failure.kind();
                let message = failure.to_string();
                tracing::warn!(call = %received.id, host = received.host, error = message, "a call could not be carried out");
                self.own_answer(&received, protocol, kind, &message, status, &sent)
            }
        }
    }

    /// Everything after the decision: credentials, signature, AWS.
    #[allow(clippy::too_many_arguments)] // all that a request consists of once it is allowed
    async fn forward(
        self: &Arc<Self>,
        received: &Received,
        mut parts: Parts,
        signing: Option<Signing>,
        form: Option<Box<PostPolicy>>,
        body: CheckedBody,
        shape: Payload,
        held: Option<OwnedSemaphorePermit>,
        (issuing, handing): (Option<VendedAnswer>, Option<PresignedAnswer>),
    ) -> Result<Response<AnswerBody>, (Failure, Arc<Mutex<Sent>>)> {
        let sent = Arc::new(Mutex::new(Sent::default()));
        let failed = |failure: Failure| (failure, sent.clone());
        let http2 = parts.version == Version::HTTP_2 && needs_http2(&parts.headers);
        // Servers of gRPC know by it that the status after the body gets through.
        let trailers = http2 && parts.headers.get(header::TE).is_some_and(|te| te.as_bytes() == b"trailers");
        for name in &HOP_BY_HOP {
            parts.headers.remove(name);
        }
        if trailers {
            parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let authority = self.authority_of(received);
        let host = HeaderValue::from_str(&authority).expect("BUG: a DNS name fits a header");
        parts.headers.insert(HOST, host);
        let mut chunked = (shape == Payload::StreamingUnsignedTrailer)
            .then(|| Chunks::Read(AwsChunkedReader::new(decoded_length(&parts.headers))));
        if issuing.is_some() || handing.as_ref().is_some_and(PresignedAnswer::reads) {
            // The answer must be read.
            parts.headers.remove(header::ACCEPT_ENCODING);
        }
        let mut sent_form = None;
        if let Some(Signing { scope, lent, vended }) = signing {
            let credentials = match &vended {
                Some(vended) => vended.credentials().clone(),
                None => lent.credentials.get().await.map_err(|error| failed(Failure::Credentials(error)))?,
            };
            let placeholder = vended.as_deref().map_or(&self.session.own.placeholder, VendedCredential::placeholder);
            let secret = placeholder.secret_access_key();
            let events = shape == Payload::EventStream;
            let agent = held.as_ref().filter(|_| !events).and_then(|_| self.shared.signer.chunk_key(&parts, secret));
            let agents_events = held.as_ref().filter(|_| events).and_then(|_| Signer::event_key(&parts, secret));
            let hash = match &body {
                CheckedBody::Whole(_, hash, _) => Some(hash),
                CheckedBody::Streaming(_) => None,
            };
            let (signer, now) = (&self.shared.signer, OffsetDateTime::now_utc());
            match (&form, &scope) {
                (Some(form), _) => form.signed(&credentials, now).map(|form| {
                    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(form.len()));
                    sent_form = Some(form);
                }),
                (None, Some(scope)) => signer.sign(&mut parts, hash, &credentials, scope, now),
                (None, None) => signer.sign_v4a(&mut parts, hash, &credentials, now),
            }
            .map_err(|error| failed(Failure::Sign(error)))?;
            if let Some(held) = held {
                let unsigned = || failed(Failure::Sign(SignError::NotSupported("a body whose chunks are signed")));
                let (secret, bound) = (credentials.secret_access_key(), self.shared.limits.signed_chunk_bytes);
                chunked = Some(if events {
                    let (agent, ours) = agents_events.zip(Signer::event_key(&parts, secret)).ok_or_else(unsigned)?;
                    Chunks::Events(Box::new(EventResigner::new(agent, ours, bound)), held)
                } else {
                    let (agent, ours) = agent.zip(signer.chunk_key(&parts, secret)).ok_or_else(unsigned)?;
                    let (trailer, length) = (shape == Payload::StreamingSignedTrailer, decoded_length(&parts.headers));
                    Chunks::Signed(Box::new(ChunkResigner::new(agent, ours, trailer, length, bound)), held)
                });
            }
        }
        let mut permit = None;
        let recorder = self.shared.journal.body(received.id, Direction::Request);
        let outgoing = match body {
            CheckedBody::Whole(bytes, _, held) => {
                permit = Some(held);
                let digest =
                    record_whole(recorder, &bytes).await.map_err(|error| failed(Failure::Body(error.into())))?;
                sent.lock().digest = Some(digest);
                // What is recorded is what the agent sent; ours has the real credentials in it.
                Outgoing::Whole(Some(sent_form.unwrap_or(bytes)))
            }
            CheckedBody::Streaming(inner) if inner.is_end_stream() => {
                let digest = recorder.finish();
                sent.lock().digest = Some(digest);
                if shape == Payload::DeclaredHash && declared_hash(&parts.headers) != Some(digest.sha256) {
                    return Err(failed(Failure::Body(BodyError::Hash)));
                }
                Outgoing::Whole(None)
            }
            CheckedBody::Streaming(inner) => Outgoing::Streaming(Box::new(RequestStream {
                inner: Some(inner),
                recorder: Some(recorder),
                chunked,
                declared: (shape == Payload::DeclaredHash).then(|| declared_hash(&parts.headers)).flatten(),
                held: None,
                sent: sent.clone(),
                stall: Stall::new(self.shared.limits.body_timeout),
            })),
        };
        parts.version = Version::HTTP_11;
        let mut uri = http::uri::Builder::new().scheme("https").authority(authority);
        if let Some(path) = parts.uri.path_and_query() {
            uri = uri.path_and_query(path.clone());
        }
        parts.uri = uri.build().map_err(|_| failed(Failure::Target))?;
        if http2 {
            parts.version = Version::HTTP_2;
        }
        let name = self.name.clone().unwrap_or_else(|| received.host.as_str().into());
        let target = Target { name, address: self.upstream, http2: http2.then_some(self.session.session.id) };
        let request = Request::from_parts(parts, outgoing);
        let answer = self.shared.upstream.send(&target, request).await.map_err(|error| {
            // A body that is wrong makes hyper break off: then that is what happened.
            match sent.lock().error.take() {
                Some(error) => failed_with(Failure::Body(error), &sent),
                None => failed_with(Failure::Upstream(error), &sent),
            }
        })?;
        drop(permit);
        let issuing = issuing.filter(|_| answer.response.status().is_success());
        let handing = handing.filter(|handing| answer.response.status().is_success() || !handing.reads());
        let (response, stream) = self.begin_answer(received, answer.response, answer.lease, &sent);
        let answered = match (issuing, handing) {
            (Some(issuing), _) => issuing.answer(&self.shared, &self.session, response, stream).await,
            (None, Some(handing)) if handing.reads() => {
                handing.answer(&self.shared, &self.session, response, stream).await
            }
            (None, handing) => {
                if let Some(handing) = handing {
                    handing.redirected(&self.session, &response.headers);
                }
                Ok(Self::pass_on(response, stream).await)
            }
        };
        answered.map_err(|failure| failed_with(failure, &sent))
    }

    pub(crate) fn begin_answer(
        self: &Arc<Self>,
        received: &Received,
        response: Response<Incoming>,
        lease: Option<Lease>,
        sent: &Arc<Mutex<Sent>>,
    ) -> (http::response::Parts, AnswerStream) {
        let (mut parts, inner) = response.into_parts();
        let head = redact::head(parts.version, &parts.headers);
        for name in &HOP_BY_HOP {
            parts.headers.remove(name);
        }
        let text = |name: &str| -> Option<String> {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some(value.chars().take(256).collect())
        };
        let closing = OutcomeRecorder {
            shared: self.shared.clone(),
            id: received.id,
            session: self.session.session.id,
            began: received.began,
            ttfb_us: Some(micros(received.began)),
            status: parts.status,
            head,
            aws_request_id: text("x-amzn-requestid").or_else(|| text("x-amz-request-id")),
            error_code: text("x-amzn-errortype")
                .map(|code| {
                    code.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default().to_owned()
                })
                .or_else(|| text("x-amz-error-code")),
            lease,
            sent: sent.clone(),
        };
        let stream = AnswerStream {
            recorder: Some(self.shared.journal.body(received.id, Direction::Response)),
            inner,
            first: None,
            broken: None,
            closing: Some(closing),
            stall: Stall::new(self.shared.limits.body_timeout),
        };
        parts.version = Version::HTTP_11;
        (parts, stream)
    }

    pub(crate) async fn pass_on(parts: http::response::Parts, mut stream: AnswerStream) -> Response<AnswerBody> {
        if stream.inner.is_end_stream() {
            // hyper doesn't ask for a body that is over: the outcome is due now.
            stream.end_now();
        } else {
            stream.look_ahead().await;
        }
        Response::from_parts(parts, AnswerBody::Streaming(Box::new(stream)))
    }

    pub(crate) fn intent(&self, received: &Received, call: Option<Call>, decision: Decision) -> Event {
        Event::CallIntent(Box::new(CallIntent {
            id: received.id,
            session: self.session.session.id,
            agent: self.session.session.agent.clone(),
            connection: self.id,
            at: received.at,
            process: self.process.clone(),
            method: received.method.to_string(),
            host: received.host.clone(),
            target: received.target.clone(),
            head: received.head.clone(),
            call,
            decision,
        }))
    }
}

fn failed_with(failure: Failure, sent: &Arc<Mutex<Sent>>) -> (Failure, Arc<Mutex<Sent>>) {
    (failure, sent.clone())
}

pub(crate) async fn record_whole(mut recorder: BodyRecorder, bytes: &Bytes) -> Result<BodyDigest, JournalError> {
    if !bytes.is_empty() {
        std::future::poll_fn(|cx| recorder.poll_ready(cx)).await?;
        recorder.push(bytes.clone())?;
        recorder.flush()?;
    }
    Ok(recorder.finish())
}

/// Whether both bodies stream at once, which HTTP/1.1 has no room for: event streams of the SDKs, and gRPC. Everything
/// else goes on over HTTP/1.1, whatever the agent spoke: there one call's answer can't slow another's by the window that
/// they share, nor end it. (h2 ends a connection at its 101st empty DATA frame, which no setting changes.)
fn needs_http2(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().to_ascii_lowercase();
        kind.starts_with(b"application/vnd.amazon.eventstream") || kind.starts_with(b"application/grpc")
    })
}

/// Whether the payload is inside of aws-chunked framing.
fn is_chunked(parts: &Parts) -> bool {
    use Payload::{StreamingSigned, StreamingSignedTrailer, StreamingUnsignedTrailer};
    matches!(payload_shape(parts), StreamingSigned | StreamingSignedTrailer | StreamingUnsignedTrailer)
}

fn declared_hash(headers: &HeaderMap) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(headers.get("x-amz-content-sha256")?.as_bytes(), &mut hash).ok()?;
    Some(hash)
}

fn decoded_length(headers: &HeaderMap) -> Option<u64> {
    headers.get("x-amz-decoded-content-length")?.to_str().ok()?.parse().ok()
}

pub(crate) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
