//! The second stage: by whose authority the request is. The signature is verified before anything of the body is decoded.

use std::sync::Arc;

use bytes::Bytes;
use chaperone_aws::{
    BodyNeed, ClusterName, EksToken, GitCredential, HeaderForm, HostMatch, PostPolicy, Presigned, RequestAuth, Scope,
    SignedForm, SignedHandshake, V4aAuth, VendedCredential, VerifyError, payload_shape, take_api_key, take_bearer,
};
use chaperone_model::{OutcomeStatus, Payload, Reason};
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use http_body::Body as _;
use time::OffsetDateTime;

use crate::{
    body::spool::{self, SpoolError},
    call::{
        error::{CallError, Kind, Refusal},
        exchange::{Exchange, RequestBody},
        received::{Destination, Received},
        work::Leave,
    },
    connection::http_connection::HttpConnection,
    http::second,
    upstream::{
        clusters::{Cluster, Eks},
        credential_broker::SigningIdentity,
    },
    websocket::frames::Handshake,
};

/// A request of which it is known by whose authority it is.
pub struct Authenticated<'e> {
    pub(super) exchange: &'e mut Exchange,
    pub(super) parts: Parts,
    pub(super) subject: Subject,
}

/// Whom the request speaks for, and to.
pub(super) enum Subject {
    /// AWS's API, on behalf of the session.
    Aws {
        found: Box<HostMatch>,
        /// What the session's calls are made by.
        identity: Arc<SigningIdentity>,
        auth: Authentication,
    },
    /// A name under `inspect`, or an application on AWS, where whatever it carries is between the agent and that server.
    Inspected,
}

/// By what a request is authorised, once that has been verified.
pub(super) enum Authentication {
    /// By nothing.
    Anonymous,
    /// A token for an EKS cluster.
    Cluster { token: Box<EksToken>, cluster: Arc<Cluster>, vended: Option<Arc<VendedCredential>> },
    /// An S3 POST form, which is signed inside. `put` is the upload that it stands for.
    Form { form: Box<PostPolicy>, put: Box<Parts>, vended: Option<Arc<VendedCredential>> },
    /// A form of SimpleDB's, which is signed inside by version 2.
    FormV2 { form: Box<SignedForm>, vended: Option<Arc<VendedCredential>> },
    /// What git makes of a SigV4 signature for CodeCommit.
    Git { made: Box<GitCredential>, vended: Option<Arc<VendedCredential>> },
    /// A presigned URL that AWS gave to this session in the answer to this call: it goes on as it is.
    Grant { by: String },
    /// SigV4 in the head, or what was made of a presigned query or bearer token of the session's own.
    Signed { scope: Scope, vended: Option<Arc<VendedCredential>>, handshake: Option<Handshake> },
    /// SigV4 in the query of a WebSocket's handshake.
    SignedQuery { signed: Box<SignedHandshake>, vended: Option<Arc<VendedCredential>>, handshake: Handshake },
    /// A token of the session's, with the real one for its place.
    Token(HeaderValue),
    /// SigV4A, for the regions that the request names and this service.
    V4a { service: String, vended: Option<Arc<VendedCredential>> },
}

impl Authentication {
    /// The credentials from an answer that the agent's key stands for, if it does.
    pub(super) fn vended(&self) -> Option<&Arc<VendedCredential>> {
        match self {
            Self::Anonymous | Self::Grant { .. } | Self::Token(_) => None,
            Self::Cluster { vended, .. }
            | Self::Form { vended, .. }
            | Self::FormV2 { vended, .. }
            | Self::Git { vended, .. }
            | Self::Signed { vended, .. }
            | Self::SignedQuery { vended, .. }
            | Self::V4a { vended, .. } => vended.as_ref(),
        }
    }
}

/// What of a request for a presigned URL goes on: what part of the object is wanted, and in which case. Nothing else that
/// the agent says reaches whoever signed the URL.
const PASSED_WITH_GRANT: [HeaderName; 7] = [
    header::ACCEPT,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

impl<'e> Received<'e> {
    /// Finds out by whose authority the request is, and verifies it.
    pub async fn authenticate(self) -> Result<Authenticated<'e>, CallError> {
        let Received { exchange, mut parts, destination } = self;
        if second::announces_nothing(&parts) {
            // Its head would be a whole request, before it is known that no body follows.
            hold(&exchange.connection.clone(), exchange, &parts).await?;
        }
        let (found, handshake) = match destination {
            Destination::Inspected => return Ok(Authenticated { exchange, parts, subject: Subject::Inspected }),
            Destination::Aws { found, handshake } => (found, handshake),
        };
        let connection = exchange.connection.clone();
        let auth = authentication(&connection, exchange, &mut parts, &found, handshake).await?;
        let identity = connection.plane.signing_identity(&exchange.generation, &connection.session);
        Ok(Authenticated { exchange, parts, subject: Subject::Aws { found: Box::new(found), identity, auth } })
    }
}

async fn authentication(
    connection: &Arc<HttpConnection>,
    exchange: &mut Exchange,
    parts: &mut Parts,
    found: &HostMatch,
    handshake: Option<Handshake>,
) -> Result<Authentication, CallError> {
    if PostPolicy::is(parts, found) {
        hold(connection, exchange, parts).await?;
        return form(connection, exchange, parts, found);
    }
    if handshake.is_none() && SignedForm::may_be(parts, found) {
        hold(connection, exchange, parts).await?;
        if let Some(signed) = form_v2(connection, exchange, parts)? {
            return Ok(signed);
        }
    }
    if handshake.is_none()
        && let Some(by) = grant(connection, exchange, parts)
    {
        return Ok(Authentication::Grant { by });
    }
    if handshake.is_none()
        && let Some(token) = EksToken::of(parts, found)
    {
        return cluster(connection, exchange, parts, found, token).await;
    }
    let own = &connection.session.own;
    take_api_key(parts, found);
    let in_head = RequestAuth::is_in_head(parts);
    let bearer = !in_head
        && parts.headers.contains_key(header::AUTHORIZATION)
        && matches!(RequestAuth::of(parts), RequestAuth::Bearer)
        && take_bearer(parts, found, exchange.generation.default_region(), &own.placeholder, OffsetDateTime::now_utc());
    let in_query = if in_head {
        None
    } else {
        in_query(exchange, parts, found, handshake.is_some()).map_err(|error| not_verified(&error))?
    };
    let (presigned, signed) = match in_query {
        Some(InQuery::Handshake(signed)) => (None, Some(signed)),
        Some(InQuery::Request(presigned)) => (Some(presigned), None),
        None => (None, None),
    };
    let claimed = signed.as_ref().map_or_else(|| RequestAuth::of(parts), SignedHandshake::authority);
    let git = match claimed {
        RequestAuth::Other if handshake.is_none() => GitCredential::of(parts, found),
        _ => None,
    };
    let id = claimed.access_key_id().or(git.as_ref().map(GitCredential::access_key_id));
    let vended = id.filter(|id| *id != own.placeholder.access_key_id()).and_then(|id| own.vended.get(id));
    let placeholder = vended.as_deref().map_or(&own.placeholder, VendedCredential::placeholder);
    if let Some(made) = &git {
        let verify = |now| made.verify(&connection.plane.signer, placeholder, now);
        connection.plane.upstream.clock.judge(verify).map_err(|error| not_verified(&error))?;
    }
    if let Some(made) = git {
        return Ok(Authentication::Git { made: Box::new(made), vended });
    }
    let token = match claimed {
        RequestAuth::Bearer | RequestAuth::Other => own.vended.tokens().exchange(parts, found),
        _ => None,
    };
    ours(&claimed, placeholder.access_key_id(), token.is_some())?;
    let scope = match &claimed {
        RequestAuth::Header(header) => Some(Scope::of(header)),
        _ => None,
    };
    let v4a = match &claimed {
        RequestAuth::SigV4a { .. } => {
            Some(V4aAuth::of(parts).map_err(|error| not_verified(&error))?.service.to_owned())
        }
        _ => None,
    };
    let is_none = matches!(claimed, RequestAuth::None);
    let supported = match handshake {
        Some(_) => scope.is_some(),
        None => scope.is_some() || v4a.is_some() || token.is_some() || is_none,
    };
    if !supported {
        let what = claimed.describe();
        return Err(Refusal::not_supported(format!(
            "a request with {what} is not supported by this version of Chaperone"
        ))
        .into());
    }
    if token.is_none() && matches!(payload_shape(parts), Payload::ImpliedHash | Payload::None)
        || connection.plane.catalog.body_need(found, parts) == BodyNeed::Whole
    {
        hold(connection, exchange, parts).await?;
    }
    let sha256 = match &exchange.body {
        Some(RequestBody::Whole(_, hash, _)) => Some(hash),
        _ => None,
    };
    let signer = &connection.plane.signer;
    let verify = |now| match (&presigned, &signed) {
        (Some(presigned), _) => presigned.verify(signer, sha256, placeholder, now).map(|()| HeaderForm::default()),
        (None, Some(signed)) => signed.verify(signer, parts, placeholder, now).map(|()| HeaderForm::default()),
        // Taking it was the check.
        (None, None) if bearer => Ok(HeaderForm::default()),
        (None, None) if v4a.is_some() => signer.verify_v4a(parts, sha256, placeholder, now),
        (None, None) if scope.is_some() => signer.verify(parts, &claimed, sha256, placeholder, now),
        (None, None) => Ok(HeaderForm::default()),
    };
    let form = connection.plane.upstream.clock.judge(verify).map_err(|error| not_verified(&error))?;
    parts.extensions.insert(form);
    Ok(match (scope, v4a, token, signed) {
        (_, _, _, Some(signed)) => {
            let handshake =
                handshake.ok_or_else(|| Refusal::not_supported("BUG: a signed query that is no handshake"))?;
            Authentication::SignedQuery { signed: Box::new(signed), vended, handshake }
        }
        (Some(scope), ..) => Authentication::Signed { scope, vended, handshake },
        (None, Some(service), ..) => Authentication::V4a { service, vended },
        (None, None, Some(token), None) => Authentication::Token(token),
        (None, None, None, None) => Authentication::Anonymous,
    })
}

/// A token for an EKS cluster. Which cluster it is, is what EKS says of the host's name to the credentials that will sign.
async fn cluster(
    connection: &Arc<HttpConnection>,
    exchange: &Exchange,
    parts: &mut Parts,
    found: &HostMatch,
    token: EksToken,
) -> Result<Authentication, CallError> {
    let (own, plane) = (&connection.session.own, &connection.plane);
    let id = token.access_key_id();
    let vended = (id != own.placeholder.access_key_id()).then(|| own.vended.get(id)).flatten();
    let placeholder = vended.as_deref().map_or(&own.placeholder, VendedCredential::placeholder);
    // EKS is asked for who has the session's key, and for nobody else.
    token.check_bearer(placeholder).map_err(|error| not_verified(&error))?;
    let identity = plane.signing_identity(&exchange.generation, &connection.session);
    let unavailable = |why: String| Refusal {
        kind: Kind::Unavailable,
        reason: Reason::NotSupported,
        message: why,
        outcome: OutcomeStatus::Failed,
    };
    let credentials = match &vended {
        Some(vended) => vended.credentials().clone(),
        None => identity.credentials.get().await.map_err(|error| unavailable(error.to_string()))?,
    };
    let of_host = if vended.is_none() { identity.credentials.account() } else { None };
    let eks = Eks {
        upstream: &plane.upstream,
        signer: &plane.signer,
        account: of_host.as_deref().or(credentials.account()),
        credentials: &credentials,
        answer_timeout: plane.limits.answer_timeout,
    };
    let cluster = Box::pin(plane.clusters.at(&exchange.host, found, &eks)).await.map_err(|error| {
        if error.is_passing() {
            unavailable(error.to_string())
        } else {
            Refusal::denied(Kind::AccessDenied, Reason::OutOfReach, format!("not permitted: {error}"))
        }
    })?;
    let verify = |now| token.verify(&plane.signer, placeholder, &cluster.name, now);
    plane.upstream.clock.judge(verify).map_err(|error| not_verified(&error))?;
    parts.extensions.insert(ClusterName(cluster.name.clone()));
    Ok(Authentication::Cluster { token: Box::new(token), cluster, vended })
}

/// Before anything of the body is read: is it the session's own authority?
fn ours(claimed: &RequestAuth<'_>, placeholder: &str, token: bool) -> Result<(), Refusal> {
    let foreign = |what: String| Err(Refusal::denied(Kind::Signature, Reason::ForeignAuthority, what));
    match claimed.access_key_id() {
        Some(id) if id != placeholder => {
            let shown: String = id.chars().filter(char::is_ascii_graphic).take(24).collect();
            foreign(format!("the request is signed by {shown}, which is not this session's placeholder key"))
        }
        None if !token && !matches!(claimed, RequestAuth::None) => {
            let what = claimed.describe();
            foreign(format!("the request carries {what}, which is not this session's authority"))
        }
        _ => Ok(()),
    }
}

/// Reads the body into memory, and hashes it.
async fn hold(connection: &HttpConnection, exchange: &mut Exchange, parts: &Parts) -> Result<(), Refusal> {
    let mut body = match exchange.body.take() {
        Some(RequestBody::Streaming(body)) => body,
        other => {
            exchange.body = other;
            return Ok(());
        }
    };
    let mut memory = connection.share.memory();
    let limits = &connection.plane.limits;
    let (bytes, read) = Box::pin(spool::read(&mut body, &mut memory, parts.version, limits)).await;
    let (kind, reason, outcome) = match &read {
        Ok(()) => {
            let turn = Leave::of(&connection.share, bytes.len()).await;
            exchange.body = Some(turn.run(|| RequestBody::in_memory(bytes, memory)));
            return Ok(());
        }
        Err(SpoolError::Broken(_) | SpoolError::Slow { .. }) => {
            (Kind::BadRequest, Reason::Undecodable, OutcomeStatus::Aborted)
        }
        Err(SpoolError::Quota(_)) => (Kind::Throttled, Reason::NotSupported, OutcomeStatus::Failed),
        Err(SpoolError::TooLarge { .. }) => (Kind::TooLarge, Reason::NotSupported, OutcomeStatus::Denied),
    };
    let why = read.err().map(|error| error.to_string()).unwrap_or_default();
    let message = format!("{} {}: {why}", parts.method, parts.uri.path());
    // Of what was announced as too large nothing was read.
    exchange.body = Some(if bytes.is_empty() && kind == Kind::TooLarge {
        RequestBody::Streaming(body)
    } else {
        RequestBody::in_memory(bytes, memory)
    });
    Err(Refusal { kind, reason, message, outcome })
}

/// What is signed in its query by a key of the session.
enum InQuery {
    Handshake(SignedHandshake),
    Request(Presigned),
}

/// A presigned request by a key of this session becomes a header-signed one; a WebSocket's handshake stays as it is,
/// since its services look for the signature in the query. Others stay what they are, and are refused for whose key it
/// is.
fn in_query(
    exchange: &Exchange,
    parts: &mut Parts,
    found: &HostMatch,
    handshake: bool,
) -> Result<Option<InQuery>, VerifyError> {
    let id = match RequestAuth::of(parts) {
        RequestAuth::Presigned { access_key_id } | RequestAuth::PresignedV2 { access_key_id } => access_key_id,
        // Of its own form in the head, too, nothing is left afterwards.
        RequestAuth::HeaderV2 { access_key_id } if !handshake && found.is_s3() => access_key_id,
        _ => return Ok(None),
    };
    let own = &exchange.connection.session.own;
    if id != own.placeholder.access_key_id() && own.vended.get(id).is_none() {
        return Ok(None);
    }
    if handshake {
        return SignedHandshake::of(parts).map(|signed| Some(InQuery::Handshake(signed)));
    }
    let presigned = Presigned::take(parts, found, exchange.generation.default_region(), OffsetDateTime::now_utc())?;
    Ok(Some(InQuery::Request(presigned)))
}

/// By which call the session was given exactly this request's URL. If it was, the request is stripped of all that the
/// URL doesn't need.
fn grant(connection: &HttpConnection, exchange: &Exchange, parts: &mut Parts) -> Option<String> {
    if !matches!(&exchange.body, Some(RequestBody::Streaming(body)) if body.is_end_stream()) {
        return None;
    }
    let by = connection.session.own.vended.urls().given(parts, &exchange.host, OffsetDateTime::now_utc())?;
    let kept: HeaderMap =
        PASSED_WITH_GRANT.iter().filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone()))).collect();
    parts.headers = kept;
    Some(by)
}

/// An S3 POST form, whose authority is inside of it. It is held whole, for what is before the file changes its length.
fn form(
    connection: &HttpConnection,
    exchange: &Exchange,
    parts: &Parts,
    found: &HostMatch,
) -> Result<Authentication, CallError> {
    let bytes = match &exchange.body {
        Some(RequestBody::Whole(bytes, ..)) => bytes.clone(),
        _ => Bytes::new(),
    };
    let wrong = |error: VerifyError| CallError::from(not_verified(&error));
    let form = PostPolicy::read(parts, found, exchange.generation.default_region(), &bytes).map_err(wrong)?;
    let own = &connection.session.own;
    let vended = Some(form.access_key_id())
        .filter(|id| *id != own.placeholder.access_key_id())
        .and_then(|id| own.vended.get(id));
    form.verify(vended.as_deref().map_or(&own.placeholder, VendedCredential::placeholder)).map_err(wrong)?;
    let put = Box::new(form.as_put(parts, found).map_err(wrong)?);
    Ok(Authentication::Form { form: Box::new(form), put, vended })
}

/// A form of version 2, if it is signed at all.
fn form_v2(
    connection: &HttpConnection,
    exchange: &Exchange,
    parts: &Parts,
) -> Result<Option<Authentication>, CallError> {
    let wrong = |error: VerifyError| CallError::from(not_verified(&error));
    let Some(RequestBody::Whole(bytes, ..)) = &exchange.body else { return Ok(None) };
    let Some(form) = SignedForm::read(parts, bytes).map_err(wrong)? else { return Ok(None) };
    let own = &connection.session.own;
    let vended = Some(form.access_key_id())
        .filter(|id| *id != own.placeholder.access_key_id())
        .and_then(|id| own.vended.get(id));
    let placeholder = vended.as_deref().map_or(&own.placeholder, VendedCredential::placeholder);
    connection.plane.upstream.clock.judge(|now| form.verify(placeholder, now)).map_err(wrong)?;
    Ok(Some(Authentication::FormV2 { form: Box::new(form), vended }))
}

fn not_verified(error: &VerifyError) -> Refusal {
    let (kind, reason) = match error {
        VerifyError::ForeignKey { .. } => (Kind::Signature, Reason::ForeignAuthority),
        VerifyError::NotSupported(_) => (Kind::AccessDenied, Reason::NotSupported),
        VerifyError::Skewed { signed, now } => (Kind::Skewed { signed: *signed, now: *now }, Reason::InvalidSignature),
        _ => (Kind::Signature, Reason::InvalidSignature),
    };
    Refusal::denied(kind, reason, error.to_string())
}
