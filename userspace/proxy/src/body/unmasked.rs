//! A request's body with what was masked in placeholders' places, as AWS gets it, and its checksums made anew.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chaperone_model::Masked;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_LENGTH};
use zeroize::Zeroizing;

use crate::connection::quota::Memory;

const DECLARED: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// A request's body as AWS gets it.
pub(crate) struct Unmasked {
    body: Bytes,
    hash: [u8; 32],
    /// Which policy let what go where.
    pub(crate) by: Vec<Masked>,
}

/// The bytes, which are overwritten when they are let go, and the memory that they take.
struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    /// Held for as long.
    _memory: Memory,
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Unmasked {
    pub(crate) fn new(body: Zeroizing<Vec<u8>>, memory: Memory, by: Vec<Masked>) -> Self {
        let hash = digest(&SHA256, &body).as_ref().try_into().expect("BUG: SHA-256 has 32 bytes");
        Self { body: Bytes::from_owner(Secret { bytes: body, _memory: memory }), hash, by }
    }

    pub(crate) const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Makes the head say of this body what it said of the agent's, and gives the body.
    pub(crate) fn put(&self, headers: &mut HeaderMap) -> Bytes {
        for (name, value) in headers.iter_mut() {
            if let Ok(Some(checksum)) = Checksum::of(name)
                && let Ok(text) = HeaderValue::from_str(&checksum.text(&self.body))
            {
                *value = text;
            }
        }
        let declared = headers.get(&DECLARED).is_some_and(|hash| hash.len() == 64);
        if declared && let Ok(hash) = HeaderValue::from_str(&hex::encode(self.hash)) {
            headers.insert(DECLARED, hash);
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        self.body.clone()
    }
}

/// A checksum of the body in the head that can be made anew.
enum Checksum {
    Crc32,
    Sha1,
    Sha256,
}

impl Checksum {
    /// `None`: the field is no checksum. An error: it is one that can't be made.
    fn of(name: &HeaderName) -> Result<Option<Self>, ()> {
        match name.as_str() {
            "x-amz-checksum-crc32" => Ok(Some(Self::Crc32)),
            "x-amz-checksum-sha1" => Ok(Some(Self::Sha1)),
            "x-amz-checksum-sha256" => Ok(Some(Self::Sha256)),
            "x-amz-checksum-algorithm" | "x-amz-checksum-mode" | "x-amz-checksum-type" => Ok(None),
            "content-md5" | "digest" | "content-digest" | "repr-digest" | "x-amz-sha256-tree-hash" => Err(()),
            other if other.starts_with("x-amz-checksum-") => Err(()),
            _ => Ok(None),
        }
    }

    fn text(&self, body: &[u8]) -> String {
        match self {
            Self::Crc32 => STANDARD.encode(crc32fast::hash(body).to_be_bytes()),
            Self::Sha1 => STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, body)),
            Self::Sha256 => STANDARD.encode(digest(&SHA256, body)),
        }
    }
}

/// A field that says something of the body which can't be made anew.
pub(crate) fn without_checksum(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| Checksum::of(name).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmasked(body: &'static [u8]) -> Unmasked {
        let hash = digest(&SHA256, body).as_ref().try_into().unwrap();
        Unmasked { body: Bytes::from_static(body), hash, by: Vec::new() }
    }

    #[test]
    fn what_the_head_says_of_the_body_is_right_or_refused() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-length", "1"),
            ("x-amz-content-sha256", &*"0".repeat(64)),
            ("x-amz-checksum-crc32", "AAAAAA=="),
            ("x-amz-checksum-sha1", "x"),
            ("x-amz-checksum-sha256", "x"),
            ("x-amz-checksum-algorithm", "CRC32"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let body = unmasked(b"abc").put(&mut headers);
        assert_eq!(body, "abc");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (name, value) in [
            ("content-length", "3"),
            ("x-amz-content-sha256", sha256),
            ("x-amz-checksum-crc32", "NSRBwg=="),
            ("x-amz-checksum-sha1", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="),
            ("x-amz-checksum-sha256", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
            ("x-amz-checksum-algorithm", "CRC32"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        headers.insert(DECLARED, HeaderValue::from_static("UNSIGNED-PAYLOAD"));
        unmasked(b"abc").put(&mut headers);
        assert_eq!(headers[DECLARED], "UNSIGNED-PAYLOAD");
        for name in ["content-md5", "x-amz-checksum-crc64nvme", "x-amz-checksum-new", "digest", "content-digest"] {
            assert!(Checksum::of(&HeaderName::from_static(name)).is_err(), "{name}");
        }
    }
}
