//! What a request's head says.

use http::{
    HeaderMap, HeaderName,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    request::Parts,
};

/// What tells RPC protocols apart that have the operation in their path.
pub(crate) const SMITHY_PROTOCOL: HeaderName = HeaderName::from_static("smithy-protocol");

/// Whether a body is announced. (Over HTTP/2 a body need not be: then it may be there.)
pub(crate) fn announces_body(parts: &Parts) -> bool {
    match parts.headers.get(CONTENT_LENGTH) {
        Some(length) => length != "0",
        None => parts.headers.contains_key(TRANSFER_ENCODING),
    }
}

/// A header's value as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
