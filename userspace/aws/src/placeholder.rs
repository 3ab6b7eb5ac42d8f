//! What an agent holds instead of credentials: a key that signs, is unique to its session, and opens nothing.

use std::fmt;

use aws_lc_rs::rand;
use chaperone_model::SessionId;
use zeroize::Zeroizing;

use crate::TokenField;

/// A session's stand-in for credentials. It never expires by itself: it is worth nothing outside of the daemon, and ends
/// with its session.
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
        let mut random = [0_u8; 10 + 30 + 60];
        rand::fill(&mut random).expect("the operating system must have randomness");
        let mut access_key_id = String::from("ASIA");
        base32(&mut access_key_id, &random[..10]);
        let secret = base64(&random[10..40]);
        // Real tokens are some hundred characters; clients treat them as opaque.
        let token = format!("chaperone/{session}/{}", base64(&random[40..]));
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
    fn debug_shows_no_secret() {
        let placeholder = Placeholder::mint(SessionId::new());
        let shown = format!("{placeholder:?}");
        assert!(!shown.contains(placeholder.secret_access_key()) && !shown.contains(placeholder.session_token()));
    }
}
