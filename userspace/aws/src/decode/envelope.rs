//! What a request of each protocol may look like: method, path, query, content type, markers, version, and whether there
//! is a body. All else is refused by name, so that no part of a request is there for another reader to go by.

use std::borrow::Cow;

use chaperone_model::{Payload, Protocol};
use http::{
    HeaderMap, HeaderName, Method,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
    request::Parts,
};
use serde_json::{Map, Value};

use super::{
    Candidate, DecodeError, Request,
    form::{Form, is_v2_of_simpledb},
    has_body,
    value::Budget,
};
use crate::{
    catalog::{Location, Service},
    head::{SMITHY_PROTOCOL, announces_body},
    host::{HostKind, HostMatch},
    request_auth::{payload_shape, single},
    route::is_percent_encoded,
};

const API_VERSION: HeaderName = HeaderName::from_static("x-amz-api-version");

/// Fields that may be there once: what they say decides how the rest is read.
const ONCE: [&str; 9] = [
    "content-encoding",
    "content-type",
    "smithy-protocol",
    "x-amz-api-version",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-target",
    "x-amzn-query-mode",
];

/// Fields with which some servers take a request for another than its first line says. No client of AWS sends them.
const OVERRIDING: [&str; 17] = [
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-url",
    "x-rewrite-url",
];

/// Fields of AWS's own that any request may have: they authorise, check or trace, and ask for nothing.
const COMMON: [&str; 17] = [
    "x-amz-api-version",
    "x-amz-content-sha256",
    "x-amz-data-partition",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-glacier-version",
    "x-amz-region-set",
    "x-amz-s3session-token",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
    "x-amz-sha256-tree-hash",
    "x-amz-target",
    "x-amz-te",
    "x-amz-trailer",
    "x-amz-user-agent",
    "x-amzn-query-mode",
    "x-amzn-trace-id",
];

/// Names that say what a request does, or by whose authority: in a query or form they have one place, and elsewhere none.
const CONTROLS: [&str; 13] = [
    "_method",
    "action",
    "awsaccesskeyid",
    "operation",
    "securitytoken",
    "signature",
    "signaturemethod",
    "signatureversion",
    "smithyprotocol",
    "version",
    "xhttpmethodoverride",
    "httpmethod",
    "methodoverride",
];

/// What a content type is, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    None,
    Cbor,
    Form,
    Json,
    Octets,
    Xml,
    /// Anything else, parameters that nobody knows included.
    Other,
}

impl Media {
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(CONTENT_TYPE) else { return Self::None };
        let Ok(text) = value.to_str() else { return Self::Other };
        let (kind, parameters) = text.split_once(';').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        // UTF-8, once, is all that a parameter may say.
        let plain = parameters.is_none_or(|text| {
            text.trim_matches([' ', '\t']).split_once('=').is_some_and(|(name, value)| {
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
                name.eq_ignore_ascii_case("charset") && value.eq_ignore_ascii_case("utf-8")
            })
        });
        let kind = kind.trim_matches([' ', '\t']).to_ascii_lowercase();
        match kind.as_str() {
            _ if !plain => Self::Other,
            "application/cbor" => Self::Cbor,
            "application/x-www-form-urlencoded" => Self::Form,
            "application/json" | "application/x-amz-json-1.0" | "application/x-amz-json-1.1" => Self::Json,
            "application/octet-stream" | "binary/octet-stream" => Self::Octets,
            "application/xml" | "text/xml" => Self::Xml,
            _ => Self::Other,
        }
    }
}

/// What holds for any request to a name of AWS's.
pub(super) fn check_head(parts: &Parts) -> Result<(), DecodeError> {
    if !parts.uri.path().starts_with('/') {
        return Err(DecodeError::Path("a path that doesn't begin with `/`"));
    }
    if !is_percent_encoded(parts.uri.path()) {
        return Err(DecodeError::Path("a path with a `%` without two hexadecimal digits after it"));
    }
    for name in parts.headers.keys() {
        let name = name.as_str();
        // Gateways of the CGI kind take one for the other.
        let folded = if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
        if OVERRIDING.contains(&&*folded) {
            return Err(refused("carries", name, "with which some servers take a request for another"));
        }
        if let Cow::Owned(folded) = folded {
            let reserved = ["x-amz", "content-", "smithy-", "transfer-", "authorization", "host"];
            if reserved.iter().any(|start| folded.starts_with(start)) && name != "x-amz-sso_bearer_token" {
                return Err(refused("carries", name, "which some servers take for the field with hyphens"));
            }
        }
    }
    for name in ONCE {
        if parts.headers.get_all(name).iter().nth(1).is_some() {
            return Err(match name {
                "x-amz-target" => DecodeError::Contradiction("X-Amz-Target comes twice"),
                // What is wrong with it is said where it is expanded.
                "content-encoding" => continue,
                _ => refused("carries", name, "twice"),
            });
        }
    }
    Ok(())
}

/// What holds for a request that is read by the models. `presigned`: its query is signed, by somebody else than the agent.
pub(super) fn check_query(parts: &Parts, presigned: bool) -> Result<(), DecodeError> {
    for pair in parts.uri.query().unwrap_or_default().split('&') {
        if pair.contains(['+', ';']) && !(presigned && is_signing(pair.split('=').next().unwrap_or_default())) {
            return Err(DecodeError::Path(
                "a raw `+` or `;` in its query, which readers take differently: write it `%20`, `%2B` or `%3B`",
            ));
        }
    }
    Ok(())
}

/// The names by which a query is signed.
pub(super) fn is_signing(name: &str) -> bool {
    name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"))
        || matches!(name, "AWSAccessKeyId" | "Signature" | "Expires")
}

/// Whether a name is one of those that control a request, however it is written: letters of either case, an array's
/// brackets or index, white space, characters that some readers leave out.
pub(super) fn controls(name: &str) -> bool {
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    let first = decoded.split(['.', '[']).find(|part| !part.is_empty()).unwrap_or_default();
    let plain: String =
        first.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(64).collect();
    plain.starts_with("xamz")
        || CONTROLS.iter().any(|control| control.trim_start_matches('_') == plain) && !plain.is_empty()
        // `_method` is a convention; plain `method` is a member's name.
        && (plain != "method" || first.starts_with('_'))
}

/// One candidate's envelope, for the protocol that it is in.
pub(super) fn check(
    candidate: &Candidate,
    request: &Request<'_>,
    form: Option<&Form<'_>>,
    host: &HostMatch,
) -> Result<(), DecodeError> {
    let Candidate { service, operation, protocol } = candidate;
    let parts = request.parts;
    let media = Media::of(&parts.headers);
    let has = |name: &str| parts.headers.contains_key(name);
    check_framing(candidate, parts)?;
    if parts.headers.contains_key(SMITHY_PROTOCOL) && *protocol != Protocol::RpcV2Cbor {
        return Err(refused("carries", "smithy-protocol", "which its operation isn't named by"));
    }
    if let Some(version) = parts.headers.get(API_VERSION)
        && service.api_version.is_some_and(|of_service| version != of_service)
    {
        return Err(refused("carries", "x-amz-api-version", "of another version than the service's"));
    }
    match protocol {
        Protocol::Json => {
            plain_post(parts, "a request with X-Amz-Target")?;
            if !matches!(media, Media::None | Media::Json) {
                return Err(type_refused(parts, "application/x-amz-json-1.0 or 1.1"));
            }
            if has("x-amzn-query-mode") && single(&parts.headers, "x-amzn-query-mode") != Some("true") {
                return Err(refused("carries", "x-amzn-query-mode", "with another value than `true`"));
            }
            Ok(())
        }
        Protocol::Query | Protocol::Ec2 => check_form(candidate, request, media, form),
        Protocol::RpcV2Cbor => {
            if parts.method != Method::POST || parts.uri.query().is_some_and(|query| !query.is_empty()) {
                return Err(DecodeError::Contradiction("an RPC path without POST, or with a query"));
            }
            if !matches!(media, Media::None | Media::Cbor) {
                return Err(type_refused(parts, "application/cbor"));
            }
            Ok(())
        }
        Protocol::RestJson | Protocol::RestXml => {
            check_rest_path(&request.path, service, host)?;
            let body = has_body(service, operation) && operation.method != "HEAD";
            let streams = operation.streams() && body;
            let announced = request.body.map_or_else(|| announces_body(parts), |body| !body.is_empty());
            if !announced {
                return Ok(());
            }
            if is_search(candidate, parts) {
                if parts.uri.query().is_some_and(|query| !query.is_empty()) {
                    return Err(DecodeError::Contradiction("a search is in its body, and has a query as well"));
                }
                return if media == Media::Form { Ok(()) } else { Err(type_refused(parts, "a form")) };
            }
            if !body {
                // Some clients write an input without members as an empty object, which says nothing to any reader.
                let empty = request.body.is_some_and(|body| body == b"{}") && *protocol == Protocol::RestJson;
                return if empty && operation.method != "HEAD" && matches!(media, Media::None | Media::Json) {
                    Ok(())
                } else {
                    Err(DecodeError::Envelope(format!("the request has a body, and {} takes none", operation.name)))
                };
            }
            // What a blob is, its own member says; some operations have one for their document's type too.
            let named = service.structure(operation.input).is_some_and(|structure| {
                let is_type = |wire: &str| wire.eq_ignore_ascii_case("content-type");
                structure.members.iter().any(|member| member.location() == Location::Header && is_type(member.wire()))
            });
            if streams || operation.text_body() || named && media == Media::Other && !is_multipart(parts) {
                return Ok(());
            }
            let fits = match protocol {
                Protocol::RestJson => matches!(media, Media::None | Media::Json),
                _ => matches!(media, Media::None | Media::Xml | Media::Octets),
            };
            let wanted = if *protocol == Protocol::RestJson { "application/json" } else { "application/xml" };
            if fits { Ok(()) } else { Err(type_refused(parts, wanted)) }
        }
        Protocol::Http => Ok(()),
    }
}

/// SDKs send long searches by POST, with the query as the body.
pub(super) fn is_search(candidate: &Candidate, parts: &Parts) -> bool {
    candidate.service.name == "cloudsearchdomain" && candidate.operation.method == "GET" && parts.method == Method::POST
}

/// aws-chunked framing and event streams: only around a body that goes on as it comes.
fn check_framing(candidate: &Candidate, parts: &Parts) -> Result<(), DecodeError> {
    const FRAMED: DecodeError = DecodeError::Body("in aws-chunked framing, in which no body is that is read whole");
    let operation = candidate.operation;
    let encoded = parts.headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        value.to_str().map_or(true, |text| text.split(',').any(|it| it.trim().eq_ignore_ascii_case("aws-chunked")))
    });
    let shape = payload_shape(parts);
    let chunked =
        matches!(shape, Payload::StreamingSigned | Payload::StreamingSignedTrailer | Payload::StreamingUnsignedTrailer);
    if chunked && !operation.streams() {
        return Err(FRAMED);
    }
    if encoded && !chunked {
        return Err(DecodeError::Body("called aws-chunked, and x-amz-content-sha256 doesn't say so"));
    }
    if shape == Payload::EventStream && operation.event_stream == 0 {
        return Err(DecodeError::Body("called an event stream, which its operation doesn't take"));
    }
    Ok(())
}

/// POST to `/`, and no query.
fn plain_post(parts: &Parts, what: &str) -> Result<(), DecodeError> {
    if parts.method != Method::POST {
        return Err(DecodeError::Contradiction("X-Amz-Target without POST"));
    }
    if parts.uri.path() != "/" {
        return Err(DecodeError::Envelope(format!("{what} goes to `/`, and its path is {}", shown(parts.uri.path()))));
    }
    match parts.uri.query() {
        None | Some("") => Ok(()),
        Some(query) => Err(DecodeError::Envelope(format!("{what} has no query, and this one has {}", shown(query)))),
    }
}

fn check_form(
    candidate: &Candidate,
    request: &Request<'_>,
    media: Media,
    form: Option<&Form<'_>>,
) -> Result<(), DecodeError> {
    let Candidate { service, operation, .. } = candidate;
    let parts = request.parts;
    if !matches!(parts.method, Method::GET | Method::POST) {
        return Err(DecodeError::Envelope(format!("a form comes by POST or GET, and this one by {}", parts.method)));
    }
    let path = parts.uri.path();
    if path != "/" && !(service.name == "sqs" && is_queue(path)) {
        return Err(DecodeError::Envelope(format!("a form goes to `/`, and its path is {}", shown(path))));
    }
    if !matches!(media, Media::Form) && (parts.method == Method::POST || media != Media::None) {
        let empty = request.body.is_some_and(<[u8]>::is_empty) && media == Media::None;
        if !empty {
            return Err(type_refused(parts, "application/x-www-form-urlencoded"));
        }
    }
    let Some(form) = form else { return Ok(()) };
    if let Some(version) = form.get("Version")
        && service.api_version.is_some_and(|of_service| version != of_service)
    {
        let (ours, theirs) = (service.api_version.unwrap_or_default(), shown(version));
        return Err(DecodeError::Envelope(format!("the form's Version is {theirs}, and {}'s is {ours}", service.name)));
    }
    let structure = service.structure(operation.input);
    for name in form.names() {
        let first = name.split('.').next().unwrap_or_default();
        let member = !matches!(first, "Action" | "Version")
            && structure.is_some_and(|structure| structure.by_wire(first).is_some());
        let signs = is_v2_of_simpledb(service, name) && !parts.headers.contains_key(AUTHORIZATION);
        if !matches!(name, "Action" | "Version") && !member && !signs && controls(name) {
            return Err(DecodeError::Envelope(format!(
                "the form has {}, which controls a request and has its place elsewhere",
                shown(name)
            )));
        }
    }
    Ok(())
}

/// `/123456789012/name`, to which clients of SQS's query protocol send what concerns a queue.
fn is_queue(path: &str) -> bool {
    let Some((account, name)) = path[1..].split_once('/') else { return false };
    let stem = name.strip_suffix(".fifo").unwrap_or(name);
    account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && !stem.is_empty()
        && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Outside of S3, AWS normalises paths before it looks at them; what could then be another path is refused. S3 takes keys as
/// they are, but for where the bucket's name ends.
fn check_rest_path(path: &str, service: &Service, host: &HostMatch) -> Result<(), DecodeError> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    if path.contains("%00") {
        return Err(DecodeError::Path("a path with a NUL"));
    }
    if service.name == "s3" {
        let bucket = inner.split('/').next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let by_path = matches!(host.kind, HostKind::S3Path | HostKind::S3ExpressControl | HostKind::Service);
        return if !by_path || bucket.bytes().all(plain) && !matches!(bucket, "." | "..") {
            Ok(())
        } else {
            Err(DecodeError::Path("a bucket's name that is encoded, or isn't one"))
        };
    }
    if path.contains([';', '\\']) {
        return Err(DecodeError::Path("a path with a raw `;` or backslash"));
    }
    let bytes = path.as_bytes();
    for at in memchr::memchr_iter(b'%', bytes) {
        let code = path.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if code.is_none_or(|byte| byte.is_ascii_alphanumeric() || byte.is_ascii_control() || b"-._\\".contains(&byte)) {
            return Err(DecodeError::Path("a path with a character encoded that no client encodes"));
        }
    }
    Ok(())
}

/// What the input itself must not say twice or vaguely.
pub(super) fn check_members(
    candidate: &Candidate,
    request: &Request<'_>,
    members: &Map<String, Value>,
) -> Result<(), DecodeError> {
    match candidate.service.name {
        "sqs" => {
            let Some(url) = members.get("QueueUrl").and_then(Value::as_str) else { return Ok(()) };
            let path = url.split_once("://").and_then(|(_, rest)| Some(&rest[rest.find('/')?..])).unwrap_or(url);
            let clear = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%' | '\\' | ';' | '@');
            if !url.chars().all(clear) || path.contains("//") {
                return Err(DecodeError::Envelope(format!("QueueUrl is {}, which isn't a queue's URL", shown(url))));
            }
            let own = request.parts.uri.path();
            if own != "/" && own != path {
                return Err(DecodeError::Contradiction("the path and QueueUrl name a queue each"));
            }
            Ok(())
        }
        "s3" => match single(&request.parts.headers, "x-amz-copy-source") {
            None => Ok(()),
            Some(source) => check_copy_source(source),
        },
        _ => Ok(()),
    }
}

/// `BUCKET/KEY`, and at most a version after it.
fn check_copy_source(source: &str) -> Result<(), DecodeError> {
    let (object, query) = source.split_once('?').map_or((source, None), |(object, query)| (object, Some(query)));
    let version = query.is_none_or(|query| {
        query
            .strip_prefix("versionId=")
            .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)))
    });
    if !version || source.contains('#') || !is_percent_encoded(object) {
        return Err(DecodeError::Path("a copy source that is not BUCKET/KEY or BUCKET/KEY?versionId=ID"));
    }
    Ok(())
}

/// Fields of AWS's that the operation has no member for.
pub(super) fn check_fields(candidate: &Candidate, headers: &HeaderMap, budget: &mut Budget) {
    let structure = candidate.service.structure(candidate.operation.input);
    for name in headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("x-amz")) {
        if COMMON.contains(&name) || name.starts_with("x-amz-checksum-") {
            continue;
        }
        let member = structure.into_iter().flat_map(|structure| &structure.members).any(|member| {
            let wire = member.wire();
            match member.location() {
                Location::Header => wire.eq_ignore_ascii_case(name),
                Location::HeaderPrefix => {
                    !wire.is_empty() && name.get(..wire.len()).is_some_and(|start| start.eq_ignore_ascii_case(wire))
                }
                _ => false,
            }
        });
        if !member {
            budget.unread(&["header.", name].concat());
        }
    }
}

fn is_multipart(parts: &Parts) -> bool {
    parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")))
}

fn refused(verb: &str, name: &str, why: &str) -> DecodeError {
    DecodeError::Envelope(format!("the request {verb} {}, {why}", shown(name)))
}

fn type_refused(parts: &Parts, wanted: &str) -> DecodeError {
    let value = parts.headers.get(CONTENT_TYPE).map_or(&b"none"[..], |value| value.as_bytes());
    let value = shown(&String::from_utf8_lossy(value));
    DecodeError::Envelope(format!("the request's Content-Type is {value}, where {wanted} is expected"))
}

/// What the agent wrote, for a message: short, and nothing that a terminal would act on.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", cut.escape_debug())
}
