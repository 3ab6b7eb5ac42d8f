//! SigV4: the agent's signature checked, and ours made.
//!
//! Keys are derived by `aws-sigv4`. The canonical request is our own, because the agent's must be canonicalised as *it*
//! signed it, and because what was checked and what is signed must be read alike; tests hold it equal to `aws-sigv4`'s
//! on everything that botocore builds.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
};

use aws_lc_rs::{digest, hmac};
use aws_sigv4::sign::v4::generate_signing_key;
use chaperone_model::{Call, Payload};
use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, DATE, HOST},
    request::Parts,
};
use parking_lot::Mutex;
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, macros::format_description};
use zeroize::Zeroizing;

use crate::{
    AwsCredentials, Placeholder, TokenField,
    canonical::{AUTHORITY, HeaderForm, PathRules, write_head},
    chunked::ChunkKey,
    request_auth::{HeaderAuthority, RequestAuth, X_AMZ_CONTENT_SHA256, host_field, payload_shape, single},
};

/// How far the agent's clock may be from ours, as AWS allows.
pub const MAX_CLOCK_SKEW: Duration = Duration::minutes(15);

/// Of no bytes at all: what is signed as the payload where there is none.
pub const EMPTY_SHA256: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const DATE_FORMAT: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// Why the agent's signature is not believed. All of these are the agent's doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The body is not what the request says it is.
    #[error("the body's SHA-256 is not the one in x-amz-content-sha256")]
    BodyMismatch,
    /// It must be hashed first, and wasn't.
    #[error("BUG: the body's SHA-256 is needed to check this signature")]
    BodyNeeded,
    /// The date is missing, malformed, contradicts the scope, or is too far from now.
    #[error("the signature's date is not valid: {0}")]
    Date(&'static str),
    /// An S3 POST form can't be read in one way only.
    #[error("the POST form is not valid: {0}")]
    Form(&'static str),
    /// The signature is by another key.
    #[error("the request is signed by {access_key_id}, not by this session's key")]
    ForeignKey {
        /// That key's id.
        access_key_id: String,
    },
    /// The `Authorization` field can't be read.
    #[error("the Authorization field has {0}")]
    Malformed(&'static str),
    /// The signature is not the one that the key makes.
    #[error("the request's signature is not the one that this session's key makes")]
    Mismatch,
    /// A kind of signature that can't be checked and made again.
    #[error("{0} can't be signed again by this version; use a header-signed request")]
    NotSupported(&'static str),
    /// The query says that it is presigned, and can't be read in one way only.
    #[error("the presigned query is not valid: {0}")]
    Presigned(&'static str),
    /// The clock of whoever signed it is wrong. Told in AWS's words, by which SDKs correct theirs.
    #[error("{}", skewed(*signed, *now))]
    Skewed {
        /// When it says that it was signed.
        signed: OffsetDateTime,
        /// What time it is.
        now: OffsetDateTime,
    },
    /// The session token is missing or another one.
    #[error("the request's x-amz-security-token is not this session's")]
    Token,
    /// A header field is not signed that must be.
    #[error("the header field `{0}` must be signed, once, and is not")]
    Unsigned(String),
}

/// What AWS says of a clock that is wrong.
fn skewed(signed: OffsetDateTime, now: OffsetDateTime) -> String {
    let [at, time] = [signed, now].map(format_date);
    if signed < now {
        let bound = format_date(now - MAX_CLOCK_SKEW);
        format!("Signature expired: {at} is now earlier than {bound} ({time} - 15 min.)")
    } else {
        let bound = format_date(now + MAX_CLOCK_SKEW);
        format!("Signature not yet current: {at} is still later than {bound} ({time} + 15 min.)")
    }
}

/// Why a request can't be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// It must be hashed first, and wasn't.
    #[error("BUG: the body's SHA-256 is needed to sign this request")]
    BodyNeeded,
    /// A signed header field can't be put into a canonical request.
    #[error("the request has no header field of a name that must be signed")]
    Header,
    /// The credentials can't be put into a header field.
    #[error("the credentials contain bytes that no header field can carry; check their source")]
    Credentials,
    /// A kind of request that can't be signed again.
    #[error("{0} can't be signed again by this version")]
    NotSupported(&'static str),
}

/// The last line of a canonical request.
#[derive(Clone, Copy)]
pub(crate) enum Hashed<'a> {
    /// The body's SHA-256.
    Body(&'a [u8; 32]),
    /// What the request says in its place.
    Text(&'a str),
}

/// What a signature is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The region that it is made for.
    pub region: String,
    /// The signing name.
    pub service: String,
}

impl Scope {
    /// The scope that the agent signed for. [`decode`](crate::Catalog::decode) has cross-checked it with the host.
    pub fn of(authority: &HeaderAuthority<'_>) -> Self {
        Self { region: authority.region.to_owned(), service: authority.service.to_owned() }
    }

    /// The scope of a decoded call.
    pub fn of_call(call: &Call) -> Option<Self> {
        Some(Self { region: call.region.as_deref()?.to_owned(), service: call.signing_name.clone().into_owned() })
    }
}

/// Checks and makes signatures; keeps the keys that it derived, each good for a day, a region and a service.
pub struct Signer {
    slots: [Mutex<Option<Derived>>; 64],
    hasher: RandomState,
}

struct Derived {
    access_key_id: String,
    secret: Zeroizing<String>,
    date: String,
    region: String,
    service: String,
    key: hmac::Key,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Mutex::new(None)), hasher: RandomState::new() }
    }
}

impl Signer {
    /// A signer with nothing derived yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks that the request is signed by this placeholder, here and now. `body_sha256` is needed when
    /// [`payload_shape`] is `ImpliedHash`; when given for a declared hash, the two must agree. Gives the form that its
    /// signer has; put into the request's extensions, it is that of [`sign`](Self::sign).
    pub fn verify(
        &self,
        parts: &Parts,
        authority: &RequestAuth<'_>,
        body_sha256: Option<&[u8; 32]>,
        placeholder: &Placeholder,
        now: OffsetDateTime,
    ) -> Result<HeaderForm, VerifyError> {
        let header = match authority {
            RequestAuth::Header(header) if header.access_key_id == placeholder.access_key_id() => header,
            other => {
                return Err(match other.access_key_id() {
                    Some(id) if id != placeholder.access_key_id() => {
                        VerifyError::ForeignKey { access_key_id: id.chars().take(128).collect() }
                    }
                    _ => VerifyError::NotSupported(other.describe()),
                });
            }
        };
        if single(&parts.headers, placeholder.token_field().name()) != Some(placeholder.session_token()) {
            return Err(VerifyError::Token);
        }
        let date = single(&parts.headers, X_AMZ_DATE).ok_or(VerifyError::Date("no x-amz-date field"))?;
        check_time(date, header.date, now)?;
        let payload = payload(parts, body_sha256)?;
        self.verify_head(parts, header, date, payload, placeholder)
    }

    /// Checks the signature alone, wherever in the request it and its date were.
    pub(crate) fn verify_head(
        &self,
        parts: &Parts,
        header: &HeaderAuthority<'_>,
        date: &str,
        payload: Hashed<'_>,
        placeholder: &Placeholder,
    ) -> Result<HeaderForm, VerifyError> {
        let secret = placeholder.secret_access_key();
        let scope = (header.date, header.region, header.service);
        for form in HeaderForm::of(&parts.headers, header.signed_headers.split(';')) {
            let canonical = canonical_request(parts, header.service, header.signed_headers, payload, form)?;
            let to_sign = string_to_sign(&canonical, date, header.date, header.region, header.service);
            let verified = self.with_key(header.access_key_id, secret, scope, |key| {
                hmac::verify(key, to_sign.as_bytes(), &header.signature)
            });
            if verified.is_ok() {
                return Ok(form);
            }
        }
        Err(VerifyError::Mismatch)
    }

    /// Takes the agent's authority out of the request and puts ours in. The body goes on as it is: `body_sha256` is
    /// needed when [`payload_shape`] is `ImpliedHash`, and ignored when the request declares its own.
    ///
    /// Signed are: the host, every `x-amz-*` field, and what the agent signed, except fields that may change on the way.
    pub fn sign(
        &self,
        parts: &mut Parts,
        body_sha256: Option<&[u8; 32]>,
        credentials: &AwsCredentials,
        scope: &Scope,
        now: OffsetDateTime,
    ) -> Result<(), SignError> {
        let names = match RequestAuth::of(parts) {
            RequestAuth::Header(header) => kept(parts, header.signed_headers),
            other => return Err(SignError::NotSupported(other.describe())),
        };
        let shape = payload_shape(parts);
        if matches!(shape, Payload::StreamingSigned | Payload::StreamingSignedTrailer) && streaming(parts).is_none() {
            return Err(SignError::NotSupported(other_streaming(parts)));
        }
        let rules = PathRules::of_request(&scope.service, parts);
        let Prepared { stamp, names, canonical } = prepare(parts, names, body_sha256, credentials, rules, now)?;
        let day = &stamp[..8];
        let to_sign = string_to_sign(&canonical, &stamp, day, &scope.region, &scope.service);
        let id = credentials.access_key_id();
        let signature =
            self.with_key(id, credentials.secret_access_key(), (day, &scope.region, &scope.service), |key| {
                hmac::sign(key, to_sign.as_bytes())
            });

        let mut field = String::with_capacity(256);
        field.push_str("AWS4-HMAC-SHA256 Credential=");
        push_scope(&mut field, &[id, day, &scope.region, &scope.service]);
        field.push_str(", SignedHeaders=");
        push_names(&mut field, &names);
        field.push_str(", Signature=");
        push_hex(&mut field, signature.as_ref());
        authorize(parts, &field)
    }

    /// What the chunks of a body are signed by, whose head is signed by this secret: the agent's when the head is as it
    /// came, ours once [`sign`](Self::sign) has been at it. `None` when it is not header-signed.
    pub fn chunk_key(&self, parts: &Parts, secret: &str) -> Option<ChunkKey> {
        let RequestAuth::Header(header) = RequestAuth::of(parts) else { return None };
        let mut scope = String::with_capacity(64);
        push_scope(&mut scope, &[header.date, header.region, header.service]);
        let place = (header.date, header.region, header.service);
        Some(ChunkKey {
            key: self.with_key(header.access_key_id, secret, place, hmac::Key::clone),
            stamp: single(&parts.headers, X_AMZ_DATE)?.to_owned(),
            scope,
            previous: hex::encode(header.signature),
        })
    }

    /// The signature of a canonical request.
    pub(crate) fn signature(
        &self,
        id: &str,
        secret: &str,
        canonical: &[u8],
        stamp: &str,
        scope: (&str, &str, &str),
    ) -> hmac::Tag {
        let to_sign = string_to_sign(canonical, stamp, scope.0, scope.1, scope.2);
        self.with_key(id, secret, scope, |key| hmac::sign(key, to_sign.as_bytes()))
    }

    /// Runs `use_key` with the derived key, which is made when it isn't at hand.
    fn with_key<T>(
        &self,
        id: &str,
        secret: &str,
        (date, region, service): (&str, &str, &str),
        use_key: impl FnOnce(&hmac::Key) -> T,
    ) -> T {
        let place = self.hasher.hash_one((id, region, service));
        let slot = &self.slots[usize::try_from(place % 64).unwrap_or(0)];
        let mut slot = slot.lock();
        if let Some(derived) = &*slot
            && derived.access_key_id == id
            && derived.date == date
            && derived.region == region
            && derived.service == service
            && *derived.secret == secret
        {
            let key = derived.key.clone();
            drop(slot);
            return use_key(&key);
        }
        let key = derive(secret, date, region, service);
        *slot = Some(Derived {
            access_key_id: id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            key: key.clone(),
        });
        drop(slot);
        use_key(&key)
    }
}

/// What the request says of its payload.
pub(crate) fn payload<'a>(parts: &'a Parts, body_sha256: Option<&'a [u8; 32]>) -> Result<Hashed<'a>, VerifyError> {
    Ok(match payload_shape(parts) {
        Payload::DeclaredHash => {
            let declared = single(&parts.headers, X_AMZ_CONTENT_SHA256)
                .ok_or_else(|| VerifyError::Unsigned("x-amz-content-sha256".into()))?;
            check_hash(declared)?;
            if let Some(body) = body_sha256
                && !hex_is(declared, body)
            {
                return Err(VerifyError::BodyMismatch);
            }
            Hashed::Text(declared)
        }
        Payload::ImpliedHash => Hashed::Body(body_sha256.ok_or(VerifyError::BodyNeeded)?),
        Payload::Unsigned => Hashed::Text("UNSIGNED-PAYLOAD"),
        Payload::StreamingUnsignedTrailer => Hashed::Text("STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        Payload::StreamingSigned | Payload::StreamingSignedTrailer => {
            Hashed::Text(streaming(parts).ok_or_else(|| VerifyError::NotSupported(other_streaming(parts)))?)
        }
        Payload::EventStream => Hashed::Text("STREAMING-AWS4-HMAC-SHA256-EVENTS"),
        Payload::None => return Err(VerifyError::NotSupported("a request without a signature")),
    })
}

/// A payload is said to have a hash: what is none could not be held against the body.
pub(crate) fn check_hash(declared: &str) -> Result<(), VerifyError> {
    if declared.len() == 64 && declared.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(());
    }
    Err(VerifyError::NotSupported("an x-amz-content-sha256 that is neither a SHA-256 nor one of AWS's words for none"))
}

/// The canonical request as the agent signed it. Fails when not all is signed that must be.
pub(crate) fn canonical_request(
    parts: &Parts,
    service: &str,
    signed_headers: &str,
    payload: Hashed<'_>,
    form: HeaderForm,
) -> Result<Vec<u8>, VerifyError> {
    check_signed(parts, signed_headers)?;
    let mut canonical = Vec::with_capacity(1024);
    if !write_head(&mut canonical, parts, PathRules::of_request(service, parts), form, signed_headers.split(';')) {
        return Err(VerifyError::Unsigned("one of SignedHeaders".into()));
    }
    match payload {
        Hashed::Body(hash) => canonical.extend_from_slice(hex_of(hash).as_bytes()),
        Hashed::Text(text) => canonical.extend_from_slice(text.as_bytes()),
    }
    Ok(canonical)
}

/// A request that has all of its fields but the signature.
pub(crate) struct Prepared {
    /// Its `x-amz-date`.
    pub stamp: String,
    /// The fields to be signed, sorted.
    pub names: Vec<HeaderName>,
    /// The canonical request.
    pub canonical: Vec<u8>,
}

/// Of the fields that the agent signed, those that reach AWS as they are.
pub(crate) fn kept(parts: &Parts, signed_headers: &str) -> Vec<HeaderName> {
    let there = |name: &str| parts.headers.contains_key(name).then(|| name.parse().ok()).flatten();
    signed_headers.split(';').filter(|name| stays(name)).filter_map(there).collect()
}

/// Takes the agent's authority out, puts date and token in, and writes the canonical request over these names, the host
/// and every `x-amz-*` field.
pub(crate) fn prepare(
    parts: &mut Parts,
    mut names: Vec<HeaderName>,
    body_sha256: Option<&[u8; 32]>,
    credentials: &AwsCredentials,
    rules: PathRules,
    now: OffsetDateTime,
) -> Result<Prepared, SignError> {
    let shape = payload_shape(parts);
    if shape == Payload::ImpliedHash && body_sha256.is_none() {
        return Err(SignError::BodyNeeded);
    }
    let stamp = format_date(now);
    for name in [AUTHORIZATION, DATE] {
        parts.headers.remove(name);
    }
    parts.headers.remove(TokenField::Security.name());
    parts.headers.remove(TokenField::S3Session.name());
    if let Some(token) = credentials.session_token() {
        let mut value = HeaderValue::from_str(token).map_err(|_| SignError::Credentials)?;
        value.set_sensitive(true);
        parts.headers.insert(credentials.token_field().name(), value);
    }
    let date = HeaderValue::from_str(&stamp).map_err(|_| SignError::Header)?;
    parts.headers.insert(X_AMZ_DATE, date);
    if rules == PathRules::S3
        && let (Payload::ImpliedHash, Some(body)) = (shape, body_sha256)
    {
        // S3 takes no request without it.
        let value = HeaderValue::from_str(&hex::encode(body)).map_err(|_| SignError::Header)?;
        parts.headers.insert(X_AMZ_CONTENT_SHA256, value);
    }
    if host_field(parts).is_none() {
        return Err(SignError::Header);
    }
    names.extend(parts.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned());
    names.push(HOST);
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    let form = parts.extensions.get::<HeaderForm>().copied().unwrap_or_default();
    let mut canonical = Vec::with_capacity(1024);
    if !write_head(&mut canonical, parts, rules, form, names.iter().map(HeaderName::as_str)) {
        return Err(SignError::Header);
    }
    match body_sha256 {
        Some(body) if shape == Payload::ImpliedHash => canonical.extend_from_slice(hex_of(body).as_bytes()),
        _ => {
            let said = single(&parts.headers, X_AMZ_CONTENT_SHA256).ok_or(SignError::BodyNeeded)?;
            canonical.extend_from_slice(said.as_bytes());
        }
    }
    Ok(Prepared { stamp, names, canonical })
}

/// Puts the finished `Authorization` field in.
pub(crate) fn authorize(parts: &mut Parts, field: &str) -> Result<(), SignError> {
    let mut field = HeaderValue::from_str(field).map_err(|_| SignError::Credentials)?;
    field.set_sensitive(true);
    parts.headers.insert(AUTHORIZATION, field);
    Ok(())
}

pub(crate) fn push_names(out: &mut String, names: &[HeaderName]) {
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            out.push(';');
        }
        out.push_str(name.as_str());
    }
}

/// `x-amz-content-sha256` of a body whose chunks are signed, if it is of a kind that SigV4 has.
fn streaming(parts: &Parts) -> Option<&str> {
    single(&parts.headers, X_AMZ_CONTENT_SHA256)
        .filter(|it| matches!(*it, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"))
}

/// What to call another one.
fn other_streaming(parts: &Parts) -> &'static str {
    match single(&parts.headers, X_AMZ_CONTENT_SHA256).unwrap_or_default() {
        text if text.ends_with("-EVENTS") => "an event stream that is signed by SigV4A",
        text if text.contains("ECDSA") => "a body whose chunks are signed by SigV4A",
        _ => "an x-amz-content-sha256 that SigV4 has not",
    }
}

pub(crate) fn derive(secret: &str, date: &str, region: &str, service: &str) -> hmac::Key {
    let day = Date::parse(date, format_description!("[year][month][day]")).unwrap_or(Date::MIN);
    let key = generate_signing_key(secret, day.midnight().assume_utc().into(), region, service);
    hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
}

fn string_to_sign(canonical: &[u8], stamp: &str, day: &str, region: &str, service: &str) -> String {
    let mut out = String::with_capacity(192);
    out.push_str("AWS4-HMAC-SHA256\n");
    out.push_str(stamp);
    out.push('\n');
    push_scope(&mut out, &[day, region, service]);
    out.push('\n');
    push_hex(&mut out, digest::digest(&digest::SHA256, canonical).as_ref());
    out
}

pub(crate) fn push_scope(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
        out.push('/');
    }
    out.push_str("aws4_request");
}

pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

pub(crate) fn hex_of(bytes: &[u8; 32]) -> String {
    let mut out = String::with_capacity(64);
    push_hex(&mut out, bytes);
    out
}

pub(crate) fn hex_is(text: &str, bytes: &[u8; 32]) -> bool {
    let mut decoded = [0; 32];
    hex::decode_to_slice(text, &mut decoded).is_ok() && decoded == *bytes
}

pub(crate) fn format_date(now: OffsetDateTime) -> String {
    let now = now.to_offset(time::UtcOffset::UTC);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

/// Whether a request was signed at about this time.
pub(crate) fn check_time(date: &str, scope: &str, now: OffsetDateTime) -> Result<(), VerifyError> {
    let signed = parse_date(date, scope)?;
    if (now - signed).abs() > MAX_CLOCK_SKEW { Err(VerifyError::Skewed { signed, now }) } else { Ok(()) }
}

/// A date as SigV4 has it, which must be of the scope's day.
pub(crate) fn parse_date(date: &str, scope: &str) -> Result<OffsetDateTime, VerifyError> {
    let signed = PrimitiveDateTime::parse(date, DATE_FORMAT)
        .map_err(|_| VerifyError::Date("x-amz-date is not like 20150830T123600Z"))?
        .assume_utc();
    if date.get(..8) != Some(scope) {
        return Err(VerifyError::Date("x-amz-date and the credential scope differ in their day"));
    }
    Ok(signed)
}

/// The host and every `x-amz-*` field must be signed, or something could be added to a signed request.
fn check_signed(parts: &Parts, signed: &str) -> Result<(), VerifyError> {
    let has = |name: &str| signed.split(';').any(|s| s == name);
    if !(has("host") || parts.version == http::Version::HTTP_2 && has(AUTHORITY)) {
        return Err(VerifyError::Unsigned("host".into()));
    }
    for name in parts.headers.keys() {
        let name = name.as_str();
        if name.starts_with("x-amz-") && !has(name) {
            return Err(VerifyError::Unsigned(name.to_owned()));
        }
    }
    Ok(())
}

/// Whether a field that the agent signed reaches AWS as it is now: not what belongs to a single hop, nor what the
/// daemon sets, nor what a proxy may rewrite.
fn stays(name: &str) -> bool {
    !matches!(
        name,
        "accept-encoding"
            | "authorization"
            | "connection"
            | "content-length"
            | "date"
            | "expect"
            | "host"
            | "keep-alive"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "user-agent"
            | "x-amz-date"
            | "x-amz-s3session-token"
            | "x-amz-security-token"
            | "x-amzn-trace-id"
    )
}

/// The signature of a canonical request, for the vectors.
#[cfg(test)]
pub(crate) fn signature_of(secret: &str, canonical: &[u8], stamp: &str, scope: (&str, &str, &str)) -> String {
    let (day, region, service) = scope;
    let to_sign = string_to_sign(canonical, stamp, day, region, service);
    hex::encode(hmac::sign(&derive(secret, day, region, service), to_sign.as_bytes()))
}
