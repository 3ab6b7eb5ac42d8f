//! The sixth stage: signed by the real credentials, which are within reach here and nowhere else.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_aws::{
    AwsChunkedReader, AwsCredentials, ChunkResigner, EventKey, EventResigner, HostKind, SignError, Signer, TokenField,
    VendedCredential,
};
use chaperone_journal::BodyRecorder;
use chaperone_model::{Direction, Payload};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Version,
    header::{self, HOST},
    request::Parts,
};
use http_body::Body as _;

use crate::{
    body::{
        chunked::Chunks,
        error::BodyError,
        request::{Outgoing, RequestStream, record_whole},
        secrets::ScannedAnswer,
        stall::Stall,
        transform::Transforms,
        unmasked::Unmasked,
    },
    call::{
        authenticated::{Authentication, Subject},
        error::{CallError, Failure},
        exchange::{Exchange, RequestBody},
        recorded::Recorded,
    },
    connection::{http_connection::HttpConnection, quota::Memory},
    http::second,
    upstream::{
        credential_broker::SigningIdentity,
        pool::{OwnRoots, Target},
    },
    websocket::{frames::Handshake, handshake},
};

/// Fields that belong to one connection and never go on (RFC 9110, 7.6.1).
pub(super) const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A request as AWS gets it.
pub struct Signed<'e> {
    pub(super) exchange: &'e mut Exchange,
    pub(super) target: Target,
    pub(super) request: Request<Outgoing>,
    pub(super) transforms: Transforms,
    /// The memory that the body holds.
    pub(super) permit: Option<Memory>,
    pub(super) websocket: Option<Opening>,
    /// It goes to AWS itself, whose answers tell what time it is there.
    pub(super) tells_time: bool,
}

/// A WebSocket that is to be opened.
pub(super) struct Opening {
    pub(super) handshake: Handshake,
    /// What messages are signed by, where they may be: the agent's key and ours.
    pub(super) keys: Option<(EventKey, EventKey)>,
    pub(super) held: Option<Memory>,
    pub(super) recorder: BodyRecorder,
}

/// How a body's end is told: by one thing, or by a length and by the frame that is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    One,
    Two,
}

/// What signing needs to know of the request as the agent sent it.
struct Signing<'a> {
    connection: &'a HttpConnection,
    identity: &'a SigningIdentity,
    auth: Authentication,
    shape: Payload,
    held: Option<Memory>,
    events: bool,
    unmasked: Option<Unmasked>,
}

/// What signing changes besides the head.
#[derive(Default)]
struct Changes {
    chunked: Option<Chunks>,
    /// The form, or the body with masked values, that goes on in the body's place.
    form: Option<Bytes>,
    websocket: Option<Handshaken>,
    /// Whose id and token the answer must not bring back.
    signed_by: Option<Arc<AwsCredentials>>,
    /// What the server is verified by, where that isn't what AWS's are.
    roots: Option<Arc<OwnRoots>>,
}

/// A signed handshake.
struct Handshaken {
    handshake: Handshake,
    keys: Option<(EventKey, EventKey)>,
    held: Option<Memory>,
}

impl<'e> Recorded<'e> {
    /// Signs it, and makes it what goes on.
    pub async fn sign(self) -> Result<Signed<'e>, CallError> {
        let Recorded { exchange, mut parts, subject, mut transforms, held, shape, events } = self;
        let connection = exchange.connection.clone();
        let came = (parts.version, if second::has_two_ends(&parts) { Ends::Two } else { Ends::One });
        let http2 = strip(&mut parts);
        let authority = connection.authority_of(&exchange.host);
        parts.headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| Failure::Target)?);
        if transforms.read() {
            parts.headers.remove(header::ACCEPT_ENCODING);
        }
        let plain = connection.plain && matches!(subject, Subject::Inspected);
        let mut changes = Changes::default();
        let mut tells_time = false;
        let mut name = connection.name.clone().unwrap_or_else(|| exchange.host.as_str().into());
        if let Subject::Aws { found, identity, auth } = subject {
            if let Some(endpoint) = found.dotted_buckets_endpoint(&name) {
                name = endpoint.into();
            }
            let unmasked = exchange.unmasked.take();
            exchange.unmasked_by = unmasked.as_ref().map(|it| it.by.clone()).unwrap_or_default();
            let signing = Signing { connection: &connection, identity: &identity, auth, shape, held, events, unmasked };
            tells_time = !matches!(found.kind, HostKind::Endpoint(_) | HostKind::Unknown);
            changes = signing.apply(&mut parts, exchange.body.as_ref()).await?;
            tells_time &= changes.signed_by.is_some();
            if let Some(signed_by) = &changes.signed_by {
                let own = &connection.session.own.placeholder;
                transforms.add(Some(ScannedAnswer::for_key(signed_by, own, &parts.method)));
            }
        }
        let upgraded = changes.websocket.is_some();
        parts.version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let mut uri = http::uri::Builder::new().scheme("https").authority(authority);
        if let Some(path) = parts.uri.path_and_query() {
            uri = uri.path_and_query(path.clone());
        }
        parts.uri = uri.build().map_err(|_| Failure::Target)?;
        let http2 = (http2 && !upgraded).then_some(connection.session.session.id);
        let target = Target { name, address: connection.upstream, http2, plain, roots: changes.roots };
        let recorder = connection.plane.journal.body(exchange.id, Direction::Request);
        let (body, permit, websocket) = if let Some(Handshaken { handshake, keys, held }) = changes.websocket {
            exchange.body = None;
            (Outgoing::Whole(None), None, Some(Opening { handshake, keys, held, recorder }))
        } else {
            let (body, permit) =
                outgoing(exchange, &parts.headers, came, recorder, shape, changes.chunked, changes.form).await?;
            (body, permit, None)
        };
        Ok(Signed {
            exchange,
            target,
            request: Request::from_parts(parts, body),
            transforms,
            permit,
            websocket,
            tells_time,
        })
    }
}

impl Signing<'_> {
    async fn apply(self, parts: &mut Parts, body: Option<&RequestBody>) -> Result<Changes, Failure> {
        let mut changes = Changes::default();
        if self.shape == Payload::StreamingUnsignedTrailer {
            changes.chunked = Some(Chunks::Read(AwsChunkedReader::new(decoded_length(&parts.headers))));
        }
        let vended = self.auth.vended().cloned();
        let plane = &self.connection.plane;
        let now = plane.upstream.clock.now();
        let signer = &plane.signer;
        let own = &self.connection.session.own.placeholder;
        let agents = vended.as_deref().map_or(own, VendedCredential::placeholder).secret_access_key();
        changes.form = self.unmasked.as_ref().map(|unmasked| unmasked.put(&mut parts.headers));
        let hash = match body {
            Some(RequestBody::Whole(_, hash, _)) => Some(self.unmasked.as_ref().map_or(hash, Unmasked::hash)),
            _ => None,
        };
        // The agent's keys for chunks and messages are by its own signature, which ours replaces.
        let chunk_key = self.held.as_ref().and_then(|_| signer.chunk_key(parts, agents));
        let event_key = if self.held.is_some() || self.events { Signer::event_key(parts, agents) } else { None };
        match self.auth {
            Authentication::Anonymous | Authentication::Grant { .. } | Authentication::Token(_) => {
                unsigned(parts, &self.auth);
                return Ok(changes);
            }
            Authentication::Form { form, .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                let form = form.signed(&credentials, now).map_err(Failure::Sign)?;
                parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(form.len()));
                changes.form = Some(form);
                return Ok(changes);
            }
            Authentication::FormV2 { form, .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                let form = form.signed(&credentials, now).map_err(Failure::Sign)?;
                parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(form.len()));
                changes.form = Some(form);
                return Ok(changes);
            }
            Authentication::Cluster { token, cluster, .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                let field = token.field(signer, &credentials, &cluster.name, now).map_err(Failure::Sign)?;
                parts.headers.insert(header::AUTHORIZATION, field);
                parts.headers.remove(TokenField::Security.name());
                changes.roots = Some(cluster.roots.clone());
                return Ok(changes);
            }
            Authentication::Git { made, .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                let field = made.field(signer, &credentials, now).map_err(Failure::Sign)?;
                parts.headers.insert(header::AUTHORIZATION, field);
                return Ok(changes);
            }
            Authentication::SignedQuery { signed, handshake, .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                handshake::prepare(&mut parts.headers);
                let signature = signed.sign(signer, parts, &credentials, now).map_err(Failure::Sign)?;
                let keys = signed.event_keys(agents, credentials.secret_access_key(), signature);
                handshake::upgrade(&mut parts.headers);
                let keys = self.events.then_some(keys);
                changes.websocket = Some(Handshaken { handshake, keys, held: self.held });
                return Ok(changes);
            }
            Authentication::Signed { scope, handshake: Some(handshake), .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                handshake::prepare(&mut parts.headers);
                let empty = chaperone_aws::EMPTY_SHA256;
                signer.sign(parts, Some(&empty), &credentials, &scope, now).map_err(Failure::Sign)?;
                let keys = event_key.zip(Signer::event_key(parts, credentials.secret_access_key()));
                handshake::upgrade(&mut parts.headers);
                let keys = keys.filter(|_| self.events);
                changes.websocket = Some(Handshaken { handshake, keys, held: self.held });
                return Ok(changes);
            }
            Authentication::Signed { scope, handshake: None, .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                signer.sign(parts, hash, &credentials, &scope, now).map_err(Failure::Sign)?;
                if let Some(held) = self.held {
                    changes.chunked =
                        Some(chunks(plane, parts, (chunk_key, event_key), &credentials, self.shape, held)?);
                }
            }
            Authentication::V4a { .. } => {
                let credentials = credentials(self.identity, vended.as_ref()).await?;
                changes.signed_by = Some(credentials.clone());
                signer.sign_v4a(parts, hash, &credentials, now).map_err(Failure::Sign)?;
                if let Some(held) = self.held {
                    changes.chunked =
                        Some(chunks(plane, parts, (chunk_key, event_key), &credentials, self.shape, held)?);
                }
            }
        }
        Ok(changes)
    }
}

async fn credentials(
    identity: &SigningIdentity,
    vended: Option<&Arc<VendedCredential>>,
) -> Result<Arc<AwsCredentials>, Failure> {
    match vended {
        Some(vended) => Ok(vended.credentials().clone()),
        None => identity.credentials.get().await.map_err(Failure::Credentials),
    }
}

/// What signs each chunk or message again, chained from the new signature of the head.
fn chunks(
    plane: &crate::DataPlane,
    parts: &Parts,
    (chunk_key, event_key): (Option<chaperone_aws::ChunkKey>, Option<EventKey>),
    credentials: &AwsCredentials,
    shape: Payload,
    held: Memory,
) -> Result<Chunks, Failure> {
    let unsigned = || Failure::Sign(SignError::NotSupported("a body whose chunks are signed"));
    let (secret, bound) = (credentials.secret_access_key(), plane.limits.signed_chunk_bytes);
    if shape == Payload::EventStream {
        let (agents, ours) = event_key.zip(Signer::event_key(parts, secret)).ok_or_else(unsigned)?;
        return Ok(Chunks::Events(Box::new(EventResigner::new(agents, ours, bound)), held));
    }
    let (agents, ours) = chunk_key.zip(plane.signer.chunk_key(parts, secret)).ok_or_else(unsigned)?;
    let (trailer, length) = (shape == Payload::StreamingSignedTrailer, decoded_length(&parts.headers));
    Ok(Chunks::Signed(Box::new(ChunkResigner::new(agents, ours, trailer, length, bound)), held))
}

/// Takes what belongs to the agent's connection out of the head. Gives whether the request goes on over HTTP/2.
fn strip(parts: &mut Parts) -> bool {
    let http2 = parts.version == Version::HTTP_2 && needs_http2(&parts.headers);
    // Servers of gRPC know by it that the status after the body gets through.
    let trailers = http2 && parts.headers.get(header::TE).is_some_and(|te| te.as_bytes() == b"trailers");
    for name in &HOP_BY_HOP {
        parts.headers.remove(name);
    }
    // Answered here. What else is expected, AWS says that it can't do.
    if parts.headers.get(header::EXPECT).is_some_and(is_continue) {
        parts.headers.remove(header::EXPECT);
    }
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    http2
}

pub(super) fn is_continue(expected: &HeaderValue) -> bool {
    expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// The body as it goes on, recorded on its way as the agent sent it.
async fn outgoing(
    exchange: &mut Exchange,
    headers: &HeaderMap,
    (version, ends): (Version, Ends),
    recorder: BodyRecorder,
    shape: Payload,
    chunked: Option<Chunks>,
    form: Option<Bytes>,
) -> Result<(Outgoing, Option<Memory>), Failure> {
    let declared = (shape == Payload::DeclaredHash).then(|| declared_hash(headers)).flatten();
    Ok(match exchange.body.take() {
        None => (Outgoing::Whole(None), None),
        Some(RequestBody::Whole(bytes, _, permit)) => {
            let digest = record_whole(recorder, &bytes).await.map_err(|error| Failure::Body(error.into()))?;
            exchange.sent.lock().digest = Some(digest);
            // What is recorded is what the agent sent; ours has the real credentials in it.
            (Outgoing::Whole(Some(form.unwrap_or(bytes))), Some(permit))
        }
        Some(RequestBody::Streaming(inner)) if inner.is_end_stream() => {
            let digest = recorder.finish();
            exchange.sent.lock().digest = Some(digest);
            if shape == Payload::DeclaredHash && declared != Some(digest.sha256) {
                return Err(Failure::Body(BodyError::Hash));
            }
            (Outgoing::Whole(None), None)
        }
        Some(RequestBody::Streaming(inner)) => {
            let stream = RequestStream {
                inner: Some(inner),
                recorder: Some(recorder),
                chunked,
                declared,
                hold_last: declared.is_some() || ends == Ends::Two,
                version,
                held: None,
                sent: exchange.sent.clone(),
                stall: Stall::new(exchange.connection.plane.limits.body_timeout),
            };
            (Outgoing::Streaming(Box::new(stream)), None)
        }
    })
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

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");

fn declared_hash(headers: &HeaderMap) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(headers.get(CONTENT_SHA256)?.as_bytes(), &mut hash).ok()?;
    Some(hash)
}

fn decoded_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(DECODED_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A token without a signature is nobody's authority, and a token of the session's goes on as the real one.
fn unsigned(parts: &mut Parts, auth: &Authentication) {
    match auth {
        Authentication::Anonymous | Authentication::Grant { .. } | Authentication::Token(_) => {
            for field in [TokenField::Security, TokenField::S3Session] {
                parts.headers.remove(field.name());
            }
        }
        Authentication::Cluster { .. }
        | Authentication::Form { .. }
        | Authentication::FormV2 { .. }
        | Authentication::Git { .. }
        | Authentication::Signed { .. }
        | Authentication::SignedQuery { .. }
        | Authentication::V4a { .. } => {}
    }
    if let Authentication::Token(token) = auth {
        parts.headers.insert(header::AUTHORIZATION, token.clone());
    }
}
