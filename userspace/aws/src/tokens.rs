//! Tokens that are not AWS keys, and that AWS gave out in an answer to an agent: ECR's for a registry, CodeArtifact's for
//! a repository. The agent gets a placeholder, which stands for the token at those hosts alone.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use aws_lc_rs::rand;
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{HeaderValue, header::AUTHORIZATION, request::Parts};
use parking_lot::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use crate::{HostKind, HostMatch, endpoint::Endpoint};

/// So many tokens a session can have been given at once, some 3 KiB each. With one more, the one goes that ends first.
const MAX_TOKENS: usize = 64;
/// Longer than any `Authorization` field with a token of ours.
const MAX_FIELD: usize = 1024;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// CodeArtifact's repositories: the password of the user `aws`, or a bearer token.
    Packages,
    /// ECR's registries: user and password together, in base64.
    Registry,
}

impl TokenKind {
    /// Whose answer carries it.
    pub(crate) fn of(service: &str, operation: &str) -> Option<Self> {
        match (service, operation) {
            ("codeartifact", "GetAuthorizationToken") => Some(Self::Packages),
            ("ecr", "GetAuthorizationToken") => Some(Self::Registry),
            _ => None,
        }
    }

    fn at(host: &HostMatch) -> Option<Self> {
        match &host.kind {
            HostKind::Endpoint(Endpoint::Packages { .. }) => Some(Self::Packages),
            HostKind::Endpoint(Endpoint::Registry { .. }) => Some(Self::Registry),
            _ => None,
        }
    }
}

struct Issued {
    kind: TokenKind,
    /// The password or bearer token alone.
    real: Zeroizing<String>,
    expiry: Option<SystemTime>,
}

/// All tokens that one session was given.
#[derive(Default)]
pub struct IssuedTokens(Mutex<HashMap<String, Arc<Issued>>>);

impl fmt::Debug for IssuedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedTokens").field("count", &self.lock().len()).finish()
    }
}

impl IssuedTokens {
    /// What the agent gets in the place of a token as it is in an answer. `None`: it is none of this kind.
    ///
    /// # Panics
    /// When the operating system gives no randomness; nothing here could go on safely.
    pub(crate) fn issue(&self, kind: TokenKind, token: &str, expiry: Option<SystemTime>) -> Option<String> {
        let mut random = [0_u8; 48];
        rand::fill(&mut random).expect("the operating system must have randomness");
        let given = format!("chaperone-{}", BASE64_URL_SAFE_NO_PAD.encode(random));
        let (real, shown) = match kind {
            TokenKind::Packages => (Zeroizing::new(token.to_owned()), given.clone()),
            TokenKind::Registry => {
                let (_, password) = basic(token)?;
                (password, BASE64_STANDARD.encode(format!("AWS:{given}")))
            }
        };
        let mut tokens = self.lock();
        if tokens.len() >= MAX_TOKENS {
            let end = |token: &Issued| token.expiry.map_or((1, None), |expiry| (0, Some(expiry)));
            let first = tokens.iter().min_by_key(|(_, token)| end(token)).map(|(given, _)| given.clone());
            first.map(|given| tokens.remove(&given));
        }
        tokens.insert(given, Arc::new(Issued { kind, real, expiry }));
        Some(shown)
    }

    /// The `Authorization` field that goes on in the place of the agent's, if it has one of this session's placeholders
    /// in it and the host takes such tokens.
    pub fn exchange(&self, parts: &Parts, host: &HostMatch) -> Option<HeaderValue> {
        let kind = TokenKind::at(host)?;
        let mut fields = parts.headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let (scheme, rest) = field.to_str().ok().filter(|text| text.len() <= MAX_FIELD)?.split_once(' ')?;
        let field = if scheme.eq_ignore_ascii_case("basic") {
            let (user, password) = basic(rest.trim())?;
            let real = self.get(kind, &password)?;
            let both = Zeroizing::new(format!("{user}:{}", *real.real));
            Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(both.as_bytes())))
        } else if scheme.eq_ignore_ascii_case("bearer") {
            Zeroizing::new(format!("Bearer {}", *self.get(kind, rest.trim())?.real))
        } else {
            return None;
        };
        let mut value = HeaderValue::from_str(&field).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn get(&self, kind: TokenKind, given: &str) -> Option<Arc<Issued>> {
        self.lock().get(given).filter(|token| token.kind == kind).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Issued>>> {
        self.0.lock()
    }
}

/// User and password of `base64(user:password)`.
fn basic(text: &str) -> Option<(String, Zeroizing<String>)> {
    let both = Zeroizing::new(String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?);
    let (user, password) = both.split_once(':')?;
    (!password.is_empty()).then(|| (user.to_owned(), Zeroizing::new(password.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;

    use super::*;
    use crate::Catalog;

    const REGISTRY: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    const PACKAGES: &str = "dom-123456789012.d.codeartifact.eu-west-1.amazonaws.com";

    fn exchanged(tokens: &IssuedTokens, host: &str, fields: &[&str]) -> Option<String> {
        let mut request = Request::builder().uri("/v2/");
        for field in fields {
            request = request.header(AUTHORIZATION, *field);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let host = Catalog::global().host(host).unwrap();
        tokens.exchange(&parts, &host).map(|it| it.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_registrys_token_stands_for_the_real_one_at_registries() {
        let tokens = IssuedTokens::default();
        let real = BASE64_STANDARD.encode("AWS:the real password");
        let given = tokens.issue(TokenKind::Registry, &real, None).unwrap();
        let (user, password) = basic(&given).unwrap();
        assert!(user == "AWS" && password.starts_with("chaperone-"));
        // As docker sends it, after `docker login --username AWS`.
        assert_eq!(exchanged(&tokens, REGISTRY, &[&format!("Basic {given}")]), Some(format!("Basic {real}")));
        assert_eq!(exchanged(&tokens, REGISTRY, &[&format!("basic {given}")]), Some(format!("Basic {real}")));
        assert_eq!(exchanged(&tokens, PACKAGES, &[&format!("Basic {given}")]), None, "elsewhere it is nothing");
        assert_eq!(exchanged(&tokens, "ecr.eu-west-1.amazonaws.com", &[&format!("Basic {given}")]), None);
        assert_eq!(exchanged(&IssuedTokens::default(), REGISTRY, &[&format!("Basic {given}")]), None);
        assert!(!format!("{tokens:?}").contains("chaperone-"));
    }

    #[test]
    fn a_repositorys_token_stands_for_the_real_one_in_both_schemes() {
        let tokens = IssuedTokens::default();
        let given = tokens.issue(TokenKind::Packages, "eyJ2.real", None).unwrap();
        assert_eq!(exchanged(&tokens, PACKAGES, &[&format!("Bearer {given}")]), Some("Bearer eyJ2.real".into()));
        let pip = BASE64_STANDARD.encode(format!("aws:{given}"));
        let real = BASE64_STANDARD.encode("aws:eyJ2.real");
        assert_eq!(exchanged(&tokens, PACKAGES, &[&format!("Basic {pip}")]), Some(format!("Basic {real}")));
    }

    #[test]
    fn hostile_fields_are_nothing() {
        let tokens = IssuedTokens::default();
        let real = BASE64_STANDARD.encode("AWS:the real password");
        let good = format!("Basic {}", tokens.issue(TokenKind::Registry, &real, None).unwrap());
        let long = format!("Basic {}", BASE64_STANDARD.encode("a".repeat(2000)));
        for bad in ["", "Basic", "Basic ", "Basic !!!", "Basic /w==", "Basic QVdT", "Bearer ", "Digest x", &long] {
            assert_eq!(exchanged(&tokens, REGISTRY, &[bad]), None, "{bad}");
        }
        assert_eq!(exchanged(&tokens, REGISTRY, &[&good, &good]), None);
        assert_eq!(exchanged(&tokens, REGISTRY, &[&format!("Basic {real}")]), None, "the real one opens nothing");
        for bad in ["", "not base64!", "QVdT", "QVdTOg=="] {
            assert_eq!(tokens.issue(TokenKind::Registry, bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_session_is_given_so_many() {
        let tokens = IssuedTokens::default();
        for seconds in 0..MAX_TOKENS as u64 * 2 {
            let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let given = tokens.issue(TokenKind::Packages, "t", Some(expiry)).unwrap();
            assert!(exchanged(&tokens, PACKAGES, &[&format!("Bearer {given}")]).is_some());
        }
        assert_eq!(tokens.lock().len(), MAX_TOKENS);
    }
}
