//! One request and its answer: decode, decide, record the intent, sign, forward, record the outcome.

use std::{borrow::Cow, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use chaperone_aws::{
    Authority, AwsChunkedReader, AwsError, BodyNeed, ChunkResigner, EventResigner, HandingCall, HostMatch, IssuedKey,
    PostPolicy, Presigned, Scope, SignError, SignedHandshake, Signer, TokenField, V4aAuthority, VerifyError,
    payload_shape, take_bearer,
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
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    Lent, Own, Shared,
    accept::ALTERNATE_HTTPS,
    body::{AnswerBody, AnswerStream, BodyError, Outgoing, RequestStream, Sent, Stall},
    chunks::Chunks,
    closing::Closing,
    handing::Handing,
    issuing::Issuing,
    keep_alive::More,
    redact,
    refusal::{Failure, Kind, Refusal},
    strict::Violation,
    upgrade::{MAX_EVENT, Opening},
    upstream::{Lease, Target},
    websocket::Handshake,
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

/// The parameter that says which call's answer brought a presigned URL; no member of an operation's input is called so.
const LENT_BY: &str = "chaperone:LentBy";

/// A connection whose requests are looked into.
pub(crate) struct Inspected {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<chaperone_identity::Resolved<Own>>,
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

/// What decoding and checking gave.
struct Checked {
    call: Call,
    /// `None`: it goes on as it is, without a signature.
    signing: Option<Signing>,
    /// The `Authorization` field that goes on in the agent's place, where it isn't signed.
    token: Option<HeaderValue>,
    /// It is a form that is signed inside.
    form: Option<Box<PostPolicy>>,
    /// It is a WebSocket's handshake.
    opening: Option<Box<Opening>>,
    /// Its answer may bring a presigned URL.
    handing: Option<Handing>,
    body: CheckedBody,
    /// The memory in which chunks are held to be checked.
    held: Option<OwnedSemaphorePermit>,
}

/// By what the request is signed.
pub(crate) struct Signing {
    /// `None`: SigV4A, for the regions that the request names.
    pub(crate) scope: Option<Scope>,
    /// What the session is lent.
    pub(crate) lent: Arc<Lent>,
    /// The agent signed it by a placeholder that stands for credentials from an answer.
    pub(crate) issued: Option<Arc<IssuedKey>>,
}

/// What is signed in its query by a key of the session.
enum InQuery {
    Handshake(SignedHandshake),
    Request(Presigned),
}

pub(crate) enum CheckedBody {
    /// In memory, with its hash and the memory that it holds.
    Whole(Bytes, [u8; 32], OwnedSemaphorePermit),
    Streaming(Incoming),
}

impl CheckedBody {
    /// The bytes and their SHA-256, if they are in memory.
    fn whole(&self) -> Option<(&Bytes, &[u8; 32])> {
        match self {
            Self::Whole(bytes, hash, _) => Some((bytes, hash)),
            Self::Streaming(_) => None,
        }
    }

    fn in_memory(bytes: Bytes, permit: OwnedSemaphorePermit) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let hash = digest.as_ref().try_into().expect("BUG: SHA-256 has 32 bytes");
        Self::Whole(bytes, hash, permit)
    }
}

/// Why a request isn't made, the call as far as it is known, and what there is of its body, to be recorded.
type Refused = (Refusal, Option<Box<Call>>, Option<CheckedBody>);

impl Inspected {
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
                checked.handing = HandingCall::of(&checked.call, &found).map(|call| {
                    let by = format!("{} {}:{}", received.id, checked.call.service, checked.call.operation);
                    Handing { call, by }
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
            crate::hello::host_name(text)
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

    /// Signature, body and operation. What fails comes back with the call as far as it is known, and the unread body.
    async fn check(
        &self,
        parts: &mut Parts,
        (host, found): (&str, &HostMatch),
        handshake: Option<Handshake>,
        body: Incoming,
    ) -> Result<Checked, Refused> {
        if PostPolicy::is(parts, found) {
            return self.check_form(parts, found, body).await;
        }
        if handshake.is_none()
            && body.is_end_stream()
            && let Some(by) = self.handed(parts, host)
        {
            let call = self.check_handed(parts, found, by).map_err(|(refusal, call)| (refusal, call, None))?;
            let (signing, opening, handing, body) = (None, None, None, CheckedBody::Streaming(body));
            return Ok(Checked { call, signing, token: None, form: None, opening, handing, body, held: None });
        }
        let bearer = self.bearer(parts, found);
        let presigned = match self.presigned(parts, found, handshake.is_some()) {
            Ok(presigned) => presigned,
            Err(error) => return Err((Self::not_verified(&error), None, Some(CheckedBody::Streaming(body)))),
        };
        let (presigned, signed) = match presigned {
            Some(InQuery::Handshake(signed)) => (None, Some(signed)),
            Some(InQuery::Request(presigned)) => (Some(presigned), None),
            None => (None, None),
        };
        let parts = &*parts;
        let own = &self.session.own.placeholder;
        let authority = signed.as_ref().map_or_else(|| Authority::of(parts), SignedHandshake::authority);
        let id = authority.access_key_id();
        let issued = id.filter(|id| *id != own.access_key_id()).and_then(|id| self.session.own.issued.get(id));
        let placeholder = issued.as_deref().map_or(own, IssuedKey::placeholder);
        let token = match authority {
            Authority::Bearer | Authority::Other => self.session.own.issued.tokens().exchange(parts, found),
            _ => None,
        };
        let foreign = |what: String| Refusal::denied(Kind::Signature, Reason::ForeignAuthority, what);
        // Before anything of the body is read: whose authority is it?
        match id {
            Some(id) if id != placeholder.access_key_id() => {
                let shown: String = id.chars().filter(char::is_ascii_graphic).take(24).collect();
                let why = format!("the request is signed by {shown}, which is not this session's placeholder key");
                return Err((foreign(why), None, Some(CheckedBody::Streaming(body))));
            }
            None if token.is_none() && !matches!(authority, Authority::None) => {
                let why =
                    format!("the request carries {}, which is not this session's authority", authority.describe());
                return Err((foreign(why), None, Some(CheckedBody::Streaming(body))));
            }
            _ => {}
        }
        let shape = payload_shape(parts);
        let whole = token.is_none() && matches!(shape, Payload::ImpliedHash | Payload::None)
            || self.shared.catalog.body_need(found, parts) == BodyNeed::Whole;
        let body = if whole {
            match self.spool(parts, body).await {
                Ok((bytes, permit)) => CheckedBody::in_memory(bytes, permit),
                Err((refusal, body)) => return Err((refusal, None, body)),
            }
        } else {
            CheckedBody::Streaming(body)
        };
        let lent = self.shared.lent(&self.session);
        let decoded = {
            let of_host = if issued.is_none() && id.is_some() { lent.credentials.account() } else { None };
            let account = issued.as_deref().map_or(of_host.as_deref(), |issued| issued.credentials().account());
            self.shared.catalog.decode(found, parts, body.whole().map(|(bytes, _)| &bytes[..]), &authority, account)
        };
        let call = match decoded {
            Ok(call) => call,
            Err(error) => {
                let (reason, why) = (Reason::Undecodable, format!("not permitted: {error}"));
                return Err((Refusal::denied(Kind::AccessDenied, reason, why), None, Some(body)));
            }
        };
        if let Some(why) = lent.out_of_reach(&call) {
            let why = format!("{} is not permitted: {why}", call.operation);
            let refusal = Refusal::denied(Kind::AccessDenied, Reason::OutOfReach, why);
            return Err((refusal, Some(Box::new(call)), Some(body)));
        }
        if handshake.is_none()
            && (token.is_some() || authority == Authority::None && self.shared.catalog.takes_unsigned(found, &call))
        {
            let mut call = call;
            call.payload = Payload::None;
            return Ok(Checked {
                call,
                signing: None,
                token,
                form: None,
                opening: None,
                handing: None,
                body,
                held: None,
            });
        }
        let scope = match &authority {
            Authority::Header(header) => Some(Scope::of(header)),
            // Its regions are in a field of its own. What it is for must be what it was decoded as.
            Authority::SigV4a { .. } => match V4aAuthority::of(parts) {
                Ok(v4a) if v4a.service == call.signing_name => None,
                Ok(_) => {
                    let why = "not permitted: the request is signed for another service than its host's";
                    let refusal = Refusal::denied(Kind::AccessDenied, Reason::Undecodable, why);
                    return Err((refusal, Some(Box::new(call)), Some(body)));
                }
                Err(error) => return Err((Self::not_verified(&error), Some(Box::new(call)), Some(body))),
            },
            other => {
                let what = other.describe();
                let why = format!("{} with {what} is not supported by this version of Chaperone", call.operation);
                let refusal = Refusal::denied(Kind::AccessDenied, Reason::NotSupported, why);
                return Err((refusal, Some(Box::new(call)), Some(body)));
            }
        };
        let body_sha256 = body.whole().map(|(_, hash)| hash);
        let (signer, now) = (&self.shared.signer, OffsetDateTime::now_utc());
        let verified = match &presigned {
            Some(presigned) => presigned.verify(signer, body_sha256, placeholder, now),
            None if signed.is_some() => {
                signed.as_ref().map_or(Ok(()), |signed| signed.verify(signer, parts, placeholder, now))
            }
            None if bearer => Ok(()),
            None if scope.is_none() => signer.verify_v4a(parts, body_sha256, placeholder, now),
            None => signer.verify(parts, &authority, body_sha256, placeholder, now),
        };
        if let Err(error) = verified {
            return Err((Self::not_verified(&error), Some(Box::new(call)), Some(body)));
        }
        let events = handshake.is_some() && call.service == "transcribe-streaming";
        let signed_chunks =
            matches!(shape, Payload::StreamingSigned | Payload::StreamingSignedTrailer | Payload::EventStream);
        let held = match &body {
            CheckedBody::Whole(..) if signed_chunks => {
                let why = format!("{} with a body of signed chunks is not supported", call.operation);
                let refusal = Refusal::denied(Kind::AccessDenied, Reason::NotSupported, why);
                return Err((refusal, Some(Box::new(call)), Some(body)));
            }
            CheckedBody::Streaming(stream) if signed_chunks && !stream.is_end_stream() => {
                let bound = self.shared.limits.signed_chunk_bytes as u64;
                let most = stream.size_hint().exact().unwrap_or(u64::MAX).min(bound);
                match self.reserve(most).await {
                    Ok(permit) => Some(permit),
                    Err(refusal) => return Err((refusal, Some(Box::new(call)), Some(body))),
                }
            }
            _ if events => match self.reserve(MAX_EVENT as u64).await {
                Ok(permit) => Some(permit),
                Err(refusal) => return Err((refusal, Some(Box::new(call)), None)),
            },
            _ => None,
        };
        let signing = Some(Signing { scope, lent, issued });
        let opening = handshake.map(|handshake| Box::new(Opening { handshake, signed, events }));
        Ok(Checked { call, signing, token: None, form: None, opening, handing: None, body, held })
    }

    /// A presigned URL that AWS gave to this session, which goes on as it is: decided as the reading that it is, and told by
    /// which call it was given.
    fn check_handed(&self, parts: &Parts, found: &HostMatch, by: String) -> Result<Call, (Refusal, Option<Box<Call>>)> {
        let decoded = self.shared.catalog.decode(found, parts, None, &Authority::None, None);
        let mut call = decoded.map_err(|error| {
            let why = format!("not permitted: {error}");
            (Refusal::denied(Kind::AccessDenied, Reason::Undecodable, why), None)
        })?;
        call.payload = Payload::None;
        if let serde_json::Value::Object(parameters) = &mut call.parameters {
            parameters.insert(LENT_BY.to_owned(), by.into());
        }
        if let Some(why) = self.shared.lent(&self.session).out_of_reach(&call) {
            let why = format!("{} is not permitted: {why}", call.operation);
            return Err((Refusal::denied(Kind::AccessDenied, Reason::OutOfReach, why), Some(Box::new(call))));
        }
        Ok(call)
    }

    /// A presigned request by a key of this session becomes a header-signed one; a WebSocket's handshake stays as it is,
    /// since its services look for the signature in the query. Others stay what they are, and are
    /// refused for whose key it is.
    fn presigned(&self, parts: &mut Parts, found: &HostMatch, handshake: bool) -> Result<Option<InQuery>, VerifyError> {
        if parts.uri.query().is_none() || parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        let (Authority::Presigned { access_key_id: id } | Authority::PresignedV2 { access_key_id: id }) =
            Authority::of(parts)
        else {
            return Ok(None);
        };
        let own = &self.session.own;
        if id != own.placeholder.access_key_id() && own.issued.get(id).is_none() {
            return Ok(None);
        }
        if handshake {
            return SignedHandshake::of(parts).map(|signed| Some(InQuery::Handshake(signed)));
        }
        let presigned = Presigned::take(parts, found, &self.region(), OffsetDateTime::now_utc())?;
        Ok(Some(InQuery::Request(presigned)))
    }

    /// A request whose bearer token is the session's own becomes a header-signed one, of which nothing is left to check.
    fn bearer(&self, parts: &mut Parts, found: &HostMatch) -> bool {
        if !parts.headers.contains_key(header::AUTHORIZATION) || !matches!(Authority::of(parts), Authority::Bearer) {
            return false;
        }
        take_bearer(parts, found, &self.region(), &self.session.own.placeholder, OffsetDateTime::now_utc())
    }

    /// Where calls go whose host names no region.
    fn region(&self) -> String {
        let settings = self.shared.settings.load();
        if settings.region.is_empty() { "us-east-1".to_owned() } else { settings.region.clone() }
    }

    /// An S3 POST form, whose authority is inside of it. It is held whole, for what is before the file changes its length.
    async fn check_form(&self, parts: &Parts, found: &HostMatch, body: Incoming) -> Result<Checked, Refused> {
        let (bytes, permit) = self.spool(parts, body).await.map_err(|(refusal, body)| (refusal, None, body))?;
        let body = CheckedBody::in_memory(bytes.clone(), permit);
        match self.check_parts_of_form(parts, found, &bytes) {
            Ok((call, signing, form)) => {
                let signing = Some(signing);
                let (opening, handing, held) = (None, None, None);
                Ok(Checked { call, signing, token: None, form: Some(form), opening, handing, body, held })
            }
            Err((refusal, call)) => Err((refusal, call, Some(body))),
        }
    }

    #[allow(clippy::type_complexity)] // what becomes of it, or why nothing does
    fn check_parts_of_form(
        &self,
        parts: &Parts,
        found: &HostMatch,
        bytes: &Bytes,
    ) -> Result<(Call, Signing, Box<PostPolicy>), (Refusal, Option<Box<Call>>)> {
        let wrong = |error: VerifyError| (Self::not_verified(&error), None);
        let form = PostPolicy::read(parts, found, &self.region(), bytes).map_err(wrong)?;
        let own = &self.session.own;
        let issued = Some(form.access_key_id())
            .filter(|id| *id != own.placeholder.access_key_id())
            .and_then(|id| own.issued.get(id));
        let placeholder = issued.as_deref().map_or(&own.placeholder, IssuedKey::placeholder);
        form.verify(placeholder).map_err(wrong)?;
        let put = form.as_put(parts, found).map_err(wrong)?;
        let lent = self.shared.lent(&self.session);
        let account = match &issued {
            Some(issued) => issued.credentials().account().map(Arc::from),
            None => lent.credentials.account(),
        };
        let decoded = self.shared.catalog.decode(found, &put, None, &Authority::of(&put), account.as_deref());
        let mut call = decoded.map_err(|error| {
            let why = format!("not permitted: {error}");
            (Refusal::denied(Kind::AccessDenied, Reason::Undecodable, why), None)
        })?;
        call.operation = Cow::Borrowed("PostObject");
        call.payload = Payload::None;
        if let Some(why) = lent.out_of_reach(&call) {
            let why = format!("{} is not permitted: {why}", call.operation);
            return Err((Refusal::denied(Kind::AccessDenied, Reason::OutOfReach, why), Some(Box::new(call))));
        }
        let signing = Signing { scope: Some(form.scope()), lent, issued };
        Ok((call, signing, Box::new(form)))
    }

    fn not_verified(error: &VerifyError) -> Refusal {
        let (kind, reason) = match error {
            VerifyError::ForeignKey { .. } => (Kind::Signature, Reason::ForeignAuthority),
            VerifyError::NotSupported(_) => (Kind::AccessDenied, Reason::NotSupported),
            _ => (Kind::Signature, Reason::InvalidSignature),
        };
        Refusal::denied(kind, reason, error.to_string())
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
        let issuing = Issuing::of(&call);
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
        (issuing, handing): (Option<Issuing>, Option<Handing>),
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
        if issuing.is_some() || handing.as_ref().is_some_and(Handing::reads) {
            // The answer must be read.
            parts.headers.remove(header::ACCEPT_ENCODING);
        }
        let mut sent_form = None;
        if let Some(Signing { scope, lent, issued }) = signing {
            let credentials = match &issued {
                Some(issued) => issued.credentials().clone(),
                None => lent.credentials.get().await.map_err(|error| failed(Failure::Credentials(error)))?,
            };
            let placeholder = issued.as_deref().map_or(&self.session.own.placeholder, IssuedKey::placeholder);
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
        let closing = Closing {
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

    /// Reads a body into memory, within the bounds for one and for all. Comes back with what there is of it, if that fails.
    async fn spool(
        &self,
        parts: &Parts,
        mut body: Incoming,
    ) -> Result<(Bytes, OwnedSemaphorePermit), (Refusal, Option<CheckedBody>)> {
        let limit = self.shared.limits.spool_bytes;
        let too_large = || {
            let why =
                format!("the body is larger than {limit} bytes, which must be held to be signed (limits.spool_bytes)");
            Refusal::denied(Kind::TooLarge, Reason::NotSupported, why)
        };
        let announced = body.size_hint().exact().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        if announced.is_some_and(|size| size > limit) {
            return Err((too_large(), Some(CheckedBody::Streaming(body))));
        }
        // Without an announced length, the most that it can become is set aside.
        let permit = match self.reserve(announced.unwrap_or(limit) as u64).await {
            Ok(permit) => permit,
            Err(refusal) => return Err((refusal, Some(CheckedBody::Streaming(body)))),
        };
        if body.is_end_stream() {
            return Ok((Bytes::new(), permit));
        }
        let broken = |why: String| Refusal {
            kind: Kind::BadRequest,
            reason: Reason::Undecodable,
            message: format!("the body of {} {} broke off: {why}", parts.method, parts.uri.path()),
            outcome: OutcomeStatus::Aborted,
        };
        let mut first: Option<Bytes> = None;
        let mut more = BytesMut::new();
        let failed = loop {
            let frame = match timeout(self.shared.limits.body_timeout, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break None,
                Ok(Some(Err(error))) => break Some(broken(BodyError::http(&error).to_string())),
                Err(_) => {
                    break Some(broken(format!("no byte came for {} s", self.shared.limits.body_timeout.as_secs())));
                }
            };
            let Ok(bytes) = frame.into_data() else { continue };
            if more.len() + first.as_ref().map_or(0, Bytes::len) + bytes.len() > limit {
                break Some(too_large());
            }
            match &mut first {
                None if more.is_empty() => first = Some(bytes),
                None => more.extend_from_slice(&bytes),
                Some(one) => {
                    more.reserve(announced.unwrap_or(0).max(one.len() + bytes.len()));
                    more.extend_from_slice(one);
                    more.extend_from_slice(&bytes);
                    first = None;
                }
            }
        };
        let bytes = first.unwrap_or_else(|| more.freeze());
        match failed {
            None => Ok((bytes, permit)),
            Some(refusal) => Err((refusal, Some(CheckedBody::in_memory(bytes, permit)))),
        }
    }

    /// Waits for so many bytes of the memory that all agents' requests share.
    async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let permits = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
        timeout(self.shared.limits.body_timeout, self.shared.spool.clone().acquire_many_owned(permits))
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Refusal {
                kind: Kind::Unavailable,
                reason: Reason::NotSupported,
                message: "too many large requests are waiting to be signed (limits.spool_total_bytes): try again"
                    .into(),
                outcome: OutcomeStatus::Failed,
            })
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
