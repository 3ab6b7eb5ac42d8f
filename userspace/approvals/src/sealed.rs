//! What a browser keeps for us and can neither read nor make: a sign-in under way, in a cookie, so that whoever begins
//! thousands of them fills no memory.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

/// The longest that is opened.
const MOST: usize = 4096;

/// A key of this process's.
pub(crate) struct Seal(RandomizedNonceKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(<redacted>)")
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    of: T,
    ends: i64,
}

impl Seal {
    pub(crate) fn new() -> Self {
        let key = crate::sessions::random();
        Self(RandomizedNonceKey::new(&AES_256_GCM, &key).expect("BUG: AES-256's key has 32 bytes"))
    }

    /// Seals it for so long.
    pub(crate) fn seal(&self, of: &impl Serialize, life: Duration) -> Option<String> {
        let ends = OffsetDateTime::now_utc().unix_timestamp() + i64::try_from(life.as_secs()).ok()?;
        let mut bytes = serde_json::to_vec(&Sealed { of, ends }).ok()?;
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut bytes).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &bytes].concat()))
    }

    /// What was sealed, if that was here and its time isn't over.
    pub(crate) fn open<T: DeserializeOwned>(&self, text: &str) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(text.get(..text.len().min(MOST))?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        let Sealed { of, ends } = serde_json::from_slice(opened).ok()?;
        (OffsetDateTime::now_utc().unix_timestamp() < ends).then_some(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_here_opens_and_only_in_time() {
        let seal = Seal::new();
        let text = seal.seal(&"secret", Duration::from_mins(1)).unwrap();
        assert!(!text.contains("secret"));
        assert_eq!(seal.open::<String>(&text).as_deref(), Some("secret"));
        assert_eq!(Seal::new().open::<String>(&text), None);
        let over = seal.seal(&"secret", Duration::ZERO).unwrap();
        assert_eq!(seal.open::<String>(&over), None);
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open::<String>(&String::from_utf8(other).unwrap()), None, "{at}");
        }
        for text in ["", "A", "ä", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(seal.open::<String>(text), None);
        }
    }
}
