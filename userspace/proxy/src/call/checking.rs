//! By whose authority a request is, and what it asks for: signature, body and operation.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use chaperone_aws::{
    BodyNeed, HostMatch, PostPolicy, Presigned, RequestAuth, Scope, SignedHandshake, V4aAuth, VendedCredential,
    VerifyError, payload_shape, take_bearer,
};
use chaperone_model::{Call, OutcomeStatus, Payload, Reason};
use http::{HeaderValue, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use time::OffsetDateTime;

use crate::{
    SigningIdentity,
    body::presigned::PresignedAnswer,
    body::spool::{self, SpoolError},
    call::exchange::HttpConnection,
    call::refusal::{Kind, Refusal},
    call::work::run_bounded,
    connection::quota::{Memory, QuotaExceeded},
    websocket::frames::Handshake,
    websocket::handshake::{MAX_EVENT, Opening},
};

/// The parameter that says which call's answer brought a presigned URL; no member of an operation's input is called so.
const LENT_BY: &str = "chaperone:LentBy";

/// What decoding and checking gave.
pub(crate) struct Checked {
    pub(crate) call: Call,
    /// `None`: it goes on as it is, without a signature.
    pub(crate) signing: Option<Signing>,
    /// The `Authorization` field that goes on in the agent's place, where it isn't signed.
    pub(crate) token: Option<HeaderValue>,
    /// It is a form that is signed inside.
    pub(crate) form: Option<Box<PostPolicy>>,
    /// It is a WebSocket's handshake.
    pub(crate) opening: Option<Box<Opening>>,
    /// Its answer may bring a presigned URL.
    pub(crate) handing: Option<PresignedAnswer>,
    pub(crate) body: CheckedBody,
    /// The memory in which chunks are held to be checked.
    pub(crate) held: Option<Memory>,
}

/// By what the request is signed.
pub(crate) struct Signing {
    /// `None`: SigV4A, for the regions that the request names.
    pub(crate) scope: Option<Scope>,
    /// What the session is lent.
    pub(crate) lent: Arc<SigningIdentity>,
    /// The agent signed it by a placeholder that stands for credentials from an answer.
    pub(crate) vended: Option<Arc<VendedCredential>>,
}

/// What is signed in its query by a key of the session.
enum InQuery {
    Handshake(SignedHandshake),
    Request(Presigned),
}

pub(crate) enum CheckedBody {
    /// In memory, with its hash and the memory that it holds.
    Whole(Bytes, [u8; 32], Memory),
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

    fn in_memory(bytes: Bytes, memory: Memory) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let hash = digest.as_ref().try_into().expect("BUG: SHA-256 has 32 bytes");
        Self::Whole(bytes, hash, memory)
    }
}

/// Why a request isn't made, the call as far as it is known, and what there is of its body, to be recorded.
pub(crate) type Refused = (Refusal, Option<Box<Call>>, Option<CheckedBody>);

impl HttpConnection {
    /// Signature, body and operation. What fails comes back with the call as far as it is known, and the unread body.
    pub(crate) async fn check(
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
        let authority = signed.as_ref().map_or_else(|| RequestAuth::of(parts), SignedHandshake::authority);
        let id = authority.access_key_id();
        let vended = id.filter(|id| *id != own.access_key_id()).and_then(|id| self.session.own.vended.get(id));
        let placeholder = vended.as_deref().map_or(own, VendedCredential::placeholder);
        let token = match authority {
            RequestAuth::Bearer | RequestAuth::Other => self.session.own.vended.tokens().exchange(parts, found),
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
            None if token.is_none() && !matches!(authority, RequestAuth::None) => {
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
                Ok((bytes, memory)) => {
                    let size = bytes.len();
                    run_bounded(&self.share, size, move || CheckedBody::in_memory(bytes, memory)).await
                }
                Err((refusal, body)) => return Err((refusal, None, body)),
            }
        } else {
            CheckedBody::Streaming(body)
        };
        let lent = self.shared.lent(&self.session);
        let decoded = {
            let of_host = if vended.is_none() && id.is_some() { lent.credentials.account() } else { None };
            let account = vended.as_deref().map_or(of_host.as_deref(), |vended| vended.credentials().account());
            let bytes = body.whole().map(|(bytes, _)| &bytes[..]);
            let decode = || self.shared.catalog.decode(found, parts, bytes, &authority, account);
            run_bounded(&self.share, bytes.map_or(0, <[u8]>::len), decode).await
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
            && (token.is_some() || authority == RequestAuth::None && self.shared.catalog.takes_unsigned(found, &call))
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
            RequestAuth::Header(header) => Some(Scope::of(header)),
            // Its regions are in a field of its own. What it is for must be what it was decoded as.
            RequestAuth::SigV4a { .. } => match V4aAuth::of(parts) {
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
                // It grows with what is held.
                Some(self.share.memory())
            }
            _ if events => match self.share.hold(MAX_EVENT) {
                Ok(memory) => Some(memory),
                Err(exceeded) => return Err((exceeded.into(), Some(Box::new(call)), None)),
            },
            _ => None,
        };
        let signing = Some(Signing { scope, lent, vended });
        let opening = handshake.map(|handshake| Box::new(Opening { handshake, signed, events }));
        Ok(Checked { call, signing, token: None, form: None, opening, handing: None, body, held })
    }

    /// A presigned URL that AWS gave to this session, which goes on as it is: decided as the reading that it is, and told by
    /// which call it was given.
    fn check_handed(&self, parts: &Parts, found: &HostMatch, by: String) -> Result<Call, (Refusal, Option<Box<Call>>)> {
        let decoded = self.shared.catalog.decode(found, parts, None, &RequestAuth::None, None);
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
        let (RequestAuth::Presigned { access_key_id: id } | RequestAuth::PresignedV2 { access_key_id: id }) =
            RequestAuth::of(parts)
        else {
            return Ok(None);
        };
        let own = &self.session.own;
        if id != own.placeholder.access_key_id() && own.vended.get(id).is_none() {
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
        if !parts.headers.contains_key(header::AUTHORIZATION) || !matches!(RequestAuth::of(parts), RequestAuth::Bearer)
        {
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
        let vended = Some(form.access_key_id())
            .filter(|id| *id != own.placeholder.access_key_id())
            .and_then(|id| own.vended.get(id));
        let placeholder = vended.as_deref().map_or(&own.placeholder, VendedCredential::placeholder);
        form.verify(placeholder).map_err(wrong)?;
        let put = form.as_put(parts, found).map_err(wrong)?;
        let lent = self.shared.lent(&self.session);
        let account = match &vended {
            Some(vended) => vended.credentials().account().map(Arc::from),
            None => lent.credentials.account(),
        };
        let decoded = self.shared.catalog.decode(found, &put, None, &RequestAuth::of(&put), account.as_deref());
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
        let signing = Signing { scope: Some(form.scope()), lent, vended };
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

    /// Reads a body into memory, within the bounds for one and for all. Comes back with what there is of it, if that fails.
    async fn spool(
        &self,
        parts: &Parts,
        mut body: Incoming,
    ) -> Result<(Bytes, Memory), (Refusal, Option<CheckedBody>)> {
        let mut memory = self.share.memory();
        let (bytes, read) = spool::read(&mut body, &mut memory, &self.shared.limits).await;
        let (kind, reason, outcome) = match &read {
            Ok(()) => return Ok((bytes, memory)),
            Err(SpoolError::Broken(_) | SpoolError::Slow { .. }) => {
                (Kind::BadRequest, Reason::Undecodable, OutcomeStatus::Aborted)
            }
            Err(SpoolError::Quota(_)) => (Kind::Throttled, Reason::NotSupported, OutcomeStatus::Failed),
            Err(SpoolError::TooLarge { .. }) => (Kind::TooLarge, Reason::NotSupported, OutcomeStatus::Denied),
        };
        let why = read.err().map(|error| error.to_string()).unwrap_or_default();
        let message = format!("{} {}: {why}", parts.method, parts.uri.path());
        // Of what was announced as too large nothing was read.
        let rest = if bytes.is_empty() && kind == Kind::TooLarge {
            CheckedBody::Streaming(body)
        } else {
            CheckedBody::in_memory(bytes, memory)
        };
        Err((Refusal { kind, reason, message, outcome }, Some(rest)))
    }
}

impl From<QuotaExceeded> for Refusal {
    fn from(exceeded: QuotaExceeded) -> Self {
        Self {
            kind: Kind::Throttled,
            reason: Reason::NotSupported,
            message: exceeded.to_string(),
            outcome: OutcomeStatus::Failed,
        }
    }
}
