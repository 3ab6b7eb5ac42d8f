//! What was masked goes back to AWS: where a permitted call has a placeholder in a member that a policy's `@unmask_into`
//! names, the request that is signed has the value. What is recorded is what the agent sent.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chaperone_aws::PlacedText;
use chaperone_model::{Call, Masked, Payload, Reason};
use chaperone_policy::UnmaskTarget;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
    request::Parts,
};
use zeroize::Zeroizing;

use crate::{
    call::{
        authenticated::{Authentication, Subject},
        error::{Kind, Refusal},
        exchange::{Exchange, RequestBody},
        work::Turn,
    },
    connection::quota::Memory,
    session_vault::PREFIX,
};

/// Members into which values go only if another has this text: AWS gives others of them back to whoever may read them.
const ONLY_IF: [(&str, &str, &str, &str); 1] = [("ssm", "PutParameter", "Type", "SecureString")];
/// A placeholder's letters behind [`PREFIX`].
const DIGITS: usize = 16;
const DECLARED: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// A request's body as AWS gets it.
pub(crate) struct Unmasked {
    body: Bytes,
    hash: [u8; 32],
    /// Which policy let what go where.
    pub(crate) by: Vec<Masked>,
}

/// The bytes, which are overwritten when they are let go, and the memory that they take.
struct Secret(Zeroizing<Vec<u8>>, #[allow(dead_code)] Memory);

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The body of a call that the policies have permitted, with values in placeholders' places; `None` for nearly every call.
pub(super) async fn unmask(
    exchange: &Exchange,
    parts: &Parts,
    subject: &Subject,
    call: &Call,
) -> Result<Option<Unmasked>, Refusal> {
    let vault = exchange.connection.session.own.masking.vault();
    if !vault.may_unmask() || !is_plain(parts, subject, call) {
        return Ok(None);
    }
    let Some(RequestBody::Whole(body, ..)) = &exchange.body else { return Ok(None) };
    if memchr::memmem::find(body, PREFIX.as_bytes()).is_none() {
        return Ok(None);
    }
    let connection = &exchange.connection;
    let policies = exchange.generation.engine.version();
    let turn = Turn::of(&connection.share, body.len()).await;
    turn.run(|| {
        let mut texts = Vec::new();
        let mut by: Vec<Masked> = Vec::new();
        for text in connection.plane.catalog.placed_texts(call, body, &is_placeholder) {
            // What let it go when it was masked must let it go now.
            let may = |id: &str, target: &UnmaskTarget| {
                goes_to(target, call, &text.path) && policies.unmask_targets(id).contains(target)
            };
            let Some((value, policy)) = vault.unmask(&text.text, may) else { continue };
            match by.iter_mut().find(|it| it.rule == policy && it.path == text.path) {
                Some(known) => known.count += 1,
                None => by.push(Masked { rule: policy, path: text.path.clone(), count: 1 }),
            }
            texts.push((text, value));
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let memory = connection.share.hold(body.len() + texts.iter().map(|(_, value)| value.len()).sum::<usize>())?;
        let with: Vec<_> = texts.iter().map(|(text, value)| (text.clone(), &value[..])).collect();
        let body = PlacedText::replace(body, &with);
        check(&parts.headers, call)?;
        let hash = digest(&SHA256, &body).as_ref().try_into().expect("BUG: SHA-256 has 32 bytes");
        Ok(Some(Unmasked { body: Bytes::from_owner(Secret(body, memory)), hash, by }))
    })
}

/// Whether the request is one whose body can be another: signed by us as a whole, not compressed, and understood.
fn is_plain(parts: &Parts, subject: &Subject, call: &Call) -> bool {
    let signed = match subject {
        Subject::Aws { auth: Authentication::Signed { handshake, .. }, .. } => handshake.is_none(),
        Subject::Aws { auth: Authentication::V4a { .. }, .. } => true,
        _ => false,
    };
    let whole = matches!(call.payload, Payload::DeclaredHash | Payload::ImpliedHash | Payload::Unsigned);
    let encoded = parts.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    signed && whole && !encoded && call.unread.is_empty() && !call.has_dropped() && is_one(call) && is_meant(call)
}

/// Whether whatever service reads it takes it for the same operation: those of RDS, Neptune and DocumentDB are called alike.
fn is_one(call: &Call) -> bool {
    call.candidates.iter().all(|it| it.rsplit(':').next() == Some(&*call.operation))
}

fn is_meant(call: &Call) -> bool {
    ONLY_IF.iter().all(|(service, operation, member, text)| {
        call.service != *service
            || call.operation != *operation
            || call.parameters.get(*member).and_then(serde_json::Value::as_str) == Some(*text)
    })
}

/// Whether this is the member of this call.
fn goes_to(target: &UnmaskTarget, call: &Call, path: &str) -> bool {
    target.path == path
        && call.actions.iter().any(|action| *action.name == *target.action)
        && target
            .operations
            .iter()
            .any(|(service, operation)| *service == *call.service && *operation == *call.operation)
}

fn is_placeholder(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == DIGITS && rest.bytes().all(digit))
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

/// Whether what the head says of the body can be said of another.
fn check(headers: &HeaderMap, call: &Call) -> Result<(), Refusal> {
    match headers.keys().find(|name| Checksum::of(name).is_err()) {
        None => Ok(()),
        Some(name) => Err(Refusal::denied(
            Kind::BadRequest,
            Reason::NotSupported,
            format!(
                "{} has a masked value to be put back into its body, whose checksum in {name} can't be made anew. Send it \
                 without, or with SHA-256 or CRC-32 (request_checksum_calculation = when_required in the AWS configuration)",
                call.operation
            ),
        )),
    }
}

impl Unmasked {
    pub(super) const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Makes the head say of this body what it said of the agent's, and gives the body.
    pub(super) fn put(&self, headers: &mut HeaderMap) -> Bytes {
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

    #[test]
    fn a_placeholder_is_one_to_its_last_letter() {
        assert!(is_placeholder("chaperone-masked-0123456789abcdef"));
        for other in
            ["chaperone-masked-", "chaperone-masked-0123456789ABCDEF", "chaperone-masked-0123456789abcdef0", "x"]
        {
            assert!(!is_placeholder(other), "{other}");
        }
    }
}
