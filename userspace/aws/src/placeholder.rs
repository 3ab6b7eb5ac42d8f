//! What an agent holds instead of credentials: a key that signs, is unique to its session, and opens nothing.

use std::fmt;

use aws_lc_rs::{hkdf, rand};
use chaperone_model::SessionId;
use zeroize::Zeroizing;

use crate::TokenField;

/// For the key's id, the secret, and the token.
const BYTES: usize = 10 + 30 + 60;

/// What sessions' placeholders are derived from, so that the next daemon gives a running agent the same: SDKs keep
/// credentials for hours, and ask nobody whether they still hold.
pub struct PlaceholderKey(hkdf::Prk);

impl PlaceholderKey {
    /// How many bytes it is of.
    pub const BYTES: usize = 32;

    /// Of these random bytes.
    pub fn new(bytes: &[u8; Self::BYTES]) -> Self {
        Self(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, bytes))
    }

    /// The placeholder of a session, by whatever it is that makes the session the same to its processes.
    ///
    /// # Panics
    /// Never: HKDF gives 255 times as much as is asked for here (RFC 5869).
    pub fn derive(&self, session: SessionId, of: &[&[u8]]) -> Placeholder {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                BYTES
            }
        }
        // Each part with its length, so that no two lists are one.
        let lengths: Vec<[u8; 8]> = of.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
        let info: Vec<&[u8]> = lengths.iter().zip(of).flat_map(|(length, part)| [length.as_slice(), part]).collect();
        let mut bytes = Zeroizing::new([0; BYTES]);
        self.0
            .expand(&info, Length)
            .and_then(|expanded| expanded.fill(bytes.as_mut_slice()))
            .expect("BUG: HKDF gives less than its standard says");
        Placeholder::made_of(session, &bytes)
    }
}

impl fmt::Debug for PlaceholderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaceholderKey").finish_non_exhaustive()
    }
}

/// A session's stand-in for credentials. It never expires by itself: it is worth nothing outside of the daemon, nor in
/// another session.
#[derive(Clone)]
pub struct Placeholder {
    session: SessionId,
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Zeroizing<String>,
    token_field: TokenField,
}

impl Placeholder {
    /// A new one for a session: 80 random bits in its id, 240 in its secret.
    ///
    /// # Panics
    /// When the operating system gives no randomness; nothing here could go on safely.
    pub fn mint(session: SessionId) -> Self {
        let mut random = [0_u8; BYTES];
        rand::fill(&mut random).expect("the operating system must have randomness");
        Self::made_of(session, &random)
    }

    fn made_of(session: SessionId, random: &[u8; BYTES]) -> Self {
        let mut access_key_id = String::from("ASIA");
        base32(&mut access_key_id, &random[..10]);
        let secret = base64(&random[10..40]);
        // Real tokens are some hundred characters; clients treat them as opaque.
        let token = format!("chaperone/{}", base64(&random[40..]));
        Self {
            session,
            access_key_id,
            secret_access_key: Zeroizing::new(secret),
            session_token: Zeroizing::new(token),
            token_field: TokenField::Security,
        }
    }

    /// The same for credentials whose token goes elsewhere.
    #[must_use]
    pub fn with_token_field(mut self, field: TokenField) -> Self {
        self.token_field = field;
        self
    }

    /// Where the agent sends the token.
    pub fn token_field(&self) -> TokenField {
        self.token_field
    }

    /// The session that it stands for.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// `ASIA…`, 20 characters: the shape of temporary credentials.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The secret that the agent signs with.
    pub fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    /// The token that the agent sends in `x-amz-security-token`.
    pub fn session_token(&self) -> &str {
        &self.session_token
    }

    #[cfg(test)]
    pub(crate) fn fixed(id: &str, secret: &str, token: &str) -> Self {
        Self {
            session: SessionId::from_bytes([7; 16]),
            access_key_id: id.into(),
            secret_access_key: Zeroizing::new(secret.into()),
            session_token: Zeroizing::new(token.into()),
            token_field: TokenField::Security,
        }
    }
}

impl fmt::Debug for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placeholder")
            .field("session", &self.session)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

fn base32(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    for chunk in bytes.chunks(5) {
        let mut word = [0_u8; 8];
        word[3..3 + chunk.len()].copy_from_slice(chunk);
        let word = u64::from_be_bytes(word);
        for shift in (0..8).rev() {
            out.push(ALPHABET[usize::try_from((word >> (shift * 5)) & 31).unwrap_or(0)] as char);
        }
    }
}

/// Standard base64 of a multiple of three bytes, so that there is no padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len() / 3 * 4);
    for chunk in bytes.chunks_exact(3) {
        let word = u32::from_be_bytes([0, chunk[0], chunk[1], chunk[2]]);
        for shift in [18, 12, 6, 0] {
            out.push(ALPHABET[((word >> shift) & 63) as usize] as char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_look_like_credentials_and_differ() {
        let (one, two) = (Placeholder::mint(SessionId::new()), Placeholder::mint(SessionId::new()));
        assert_eq!(one.access_key_id().len(), 20);
        assert!(one.access_key_id().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
        assert_eq!(one.secret_access_key().len(), 40);
        assert_ne!(one.access_key_id(), two.access_key_id());
        assert_ne!(one.session_token(), two.session_token());
    }

    #[test]
    fn derived_placeholders_are_the_same_for_the_same_and_for_nobody_else() {
        let key = PlaceholderKey::new(&[1; PlaceholderKey::BYTES]);
        let derive = |key: &PlaceholderKey, of: &[&[u8]]| {
            let placeholder = key.derive(SessionId::new(), of);
            (placeholder.access_key_id().to_owned(), placeholder.secret_access_key().to_owned())
        };
        let one = derive(&key, &[b"boot", b"ab", b"c"]);
        assert_eq!(one, derive(&PlaceholderKey::new(&[1; PlaceholderKey::BYTES]), &[b"boot", b"ab", b"c"]));
        for other in [&[b"boot".as_slice(), b"a", b"bc"][..], &[b"boot", b"abc"], &[b"reboot", b"ab", b"c"]] {
            let other = derive(&key, other);
            assert!(other.0 != one.0 && other.1 != one.1);
        }
        let another = derive(&PlaceholderKey::new(&[2; PlaceholderKey::BYTES]), &[b"boot", b"ab", b"c"]);
        assert!(another.0 != one.0 && another.1 != one.1);
    }

    #[test]
    fn debug_shows_no_secret() {
        let placeholder = Placeholder::mint(SessionId::new());
        let shown = format!("{placeholder:?}");
        assert!(!shown.contains(placeholder.secret_access_key()) && !shown.contains(placeholder.session_token()));
    }
}
