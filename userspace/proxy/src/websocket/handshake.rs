//! A WebSocket's handshake, once it is permitted: what of its head goes on.

use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, SEC_WEBSOCKET_EXTENSIONS, UPGRADE},
};

/// The largest message of an event stream in a WebSocket, in bytes, which is held until its signature is checked.
/// Transcribe's clients send 32 KiB at most.
pub(crate) const MAX_EVENT: usize = 128 << 10;

/// Takes out what can't be followed, before the head is signed.
pub(crate) fn prepare(headers: &mut HeaderMap) {
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
}

/// Puts in what asks for, or grants, the upgrade.
pub(crate) fn upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}
