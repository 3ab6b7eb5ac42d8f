//! An issuer's keys: asked for when they are needed, kept while the provider is away.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{DecodingKey, jwk::Jwk};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    Algorithm, Issuer, ProviderError, TokenError,
    discovery::Document,
    exchange::cut,
    fetch::{Fetch, MAX_DOCUMENT},
};

/// How old keys become before they are asked for anew.
const REFRESH: Duration = Duration::from_hours(1);
/// How old they may be while the provider is away. Then one that it took back might still be believed.
const MAX_AGE: Duration = Duration::from_hours(24);
/// Between two questions, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(5);
/// The most keys of a provider.
const MAX_KEYS: usize = 100;

/// A key, as the provider published it.
#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// `alg`, if the provider says so.
    algorithm: Option<String>,
    kind: String,
    curve: Option<String>,
    verifies: DecodingKey,
}

impl Key {
    /// Reads one; `None` if it is of a kind that isn't known, or isn't for signatures.
    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        if text("use").is_some_and(|it| it != "sig") {
            return None;
        }
        let operations = value.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|all| !all.iter().any(|one| one == "verify")) {
            return None;
        }
        let kind = text("kty").filter(|kind| matches!(kind.as_str(), "RSA" | "EC" | "OKP"))?;
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let verifies = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: text("kid"), algorithm: text("alg"), kind, curve: text("crv"), verifies })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let (kind, curve) = algorithm.key();
        self.kind == kind
            && curve.is_none_or(|curve| self.curve.as_deref() == Some(curve))
            && self.algorithm.as_deref().is_none_or(|own| own == algorithm.as_str())
    }
}

/// What is known of an issuer's keys.
#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    /// When they were had.
    at: Option<Instant>,
    /// When they were last asked for.
    asked: Option<Instant>,
    /// Why that failed, if it did.
    trouble: Option<ProviderError>,
    /// The file that they are from, as it was.
    file: Option<SystemTime>,
}

/// An issuer's keys.
pub(crate) struct Keys {
    fetch: Fetch,
    known: Mutex<Known>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    pub(crate) fn new(issuer: &Issuer) -> Result<Self, String> {
        Ok(Self { fetch: Fetch::new(issuer.ca_file.as_deref())?, known: Mutex::default() })
    }

    /// The keys by which a token with this header may be signed, at least one. Who comes while the provider is asked waits
    /// for the same answer.
    pub(crate) async fn of(
        &self,
        issuer: &Issuer,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<DecodingKey>, TokenError> {
        let mut known = self.known.lock().await;
        let age = |known: &Known| known.at.map_or(Duration::MAX, |at| at.elapsed());
        if age(&known) >= REFRESH || file_changed(issuer, &known) {
            self.renew(issuer, &mut known).await;
        }
        let mut found = fitting(&known.keys, kid, algorithm);
        if found.is_empty() && !known.keys.is_empty() {
            self.renew(issuer, &mut known).await;
            found = fitting(&known.keys, kid, algorithm);
        }
        if known.keys.is_empty() || age(&known) > MAX_AGE {
            let why = known.trouble.clone().unwrap_or(ProviderError::TooSoon(PAUSE.as_secs()));
            return Err(TokenError::Provider { issuer: issuer.name.clone(), why });
        }
        if found.is_empty() {
            return Err(TokenError::Key {
                issuer: issuer.name.clone(),
                kid: kid.unwrap_or_default().chars().filter(|it| !it.is_control()).take(64).collect(),
                algorithm: algorithm.as_str(),
                asked: known.trouble.as_ref().map(ToString::to_string),
            });
        }
        Ok(found)
    }

    /// Asks again, unless that was done a moment ago. What is there stays if it fails.
    async fn renew(&self, issuer: &Issuer, known: &mut Known) {
        if issuer.jwks_file.is_none() && known.asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            return;
        }
        known.asked = Some(Instant::now());
        let had = match &issuer.jwks_file {
            Some(path) => from_file(path).map(|(keys, changed)| {
                known.file = Some(changed);
                keys
            }),
            None => self.ask(issuer).await,
        };
        match had {
            Ok(keys) => {
                tracing::debug!(issuer = issuer.name, keys = keys.len(), "an issuer's keys were read");
                (known.keys, known.at, known.trouble) = (keys, Some(Instant::now()), None);
            }
            Err(error) => {
                tracing::warn!(issuer = issuer.name, %error, "an issuer's keys can't be had; those that are known stay");
                known.trouble = Some(error);
            }
        }
    }

    async fn ask(&self, issuer: &Issuer) -> Result<Vec<Key>, ProviderError> {
        let wrong = |url: &str, why: String| ProviderError::Ask { url: url.to_owned(), why };
        let at = match &issuer.jwks_uri {
            Some(uri) => uri.clone(),
            None => self.discover(issuer).await?,
        };
        let uri = issuer.url("jwks_uri", &at).map_err(|why| wrong(&at, why))?;
        keys_of(&self.fetch.json(&uri).await?).map_err(|why| wrong(&at, why))
    }

    /// Where the keys are, by the provider's own word.
    async fn discover(&self, issuer: &Issuer) -> Result<String, ProviderError> {
        let document = Document::of(issuer, &self.fetch).await?;
        let keys = document.needed("jwks_uri")?;
        let at = document.text("jwks_uri").unwrap_or_default();
        if (keys.scheme(), keys.authority()) != (document.uri().scheme(), document.uri().authority()) {
            return Err(ProviderError::ElsewhereKeys(cut(at)));
        }
        Ok(at.to_owned())
    }
}

fn fitting(keys: &[Key], kid: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
    let fits = |key: &&Key| key.fits(algorithm) && kid.is_none_or(|kid| key.id.as_deref() == Some(kid));
    keys.iter().filter(fits).map(|key| key.verifies.clone()).collect()
}

fn keys_of(document: &Value) -> Result<Vec<Key>, String> {
    let all = document.get("keys").and_then(Value::as_array).ok_or("it is no set of keys (JWKS)")?;
    if all.len() > MAX_KEYS {
        return Err(format!("it has {} keys: at most {MAX_KEYS} are read", all.len()));
    }
    let keys: Vec<_> = all.iter().filter_map(Key::read).collect();
    if keys.is_empty() {
        return Err("none of its keys is for signatures that are known here".to_owned());
    }
    Ok(keys)
}

fn from_file(path: &Path) -> Result<(Vec<Key>, SystemTime), ProviderError> {
    let wrong = |why: String| ProviderError::File { path: path.to_owned(), why };
    let of = |error: std::io::Error| wrong(error.to_string());
    let about = fs::metadata(path).map_err(of)?;
    if !about.is_file() || about.len() > MAX_DOCUMENT as u64 {
        return Err(wrong(format!("not a file of at most {MAX_DOCUMENT} bytes")));
    }
    let document = serde_json::from_slice(&fs::read(path).map_err(of)?).map_err(|error| wrong(error.to_string()))?;
    Ok((keys_of(&document).map_err(wrong)?, about.modified().map_err(of)?))
}

fn file_changed(issuer: &Issuer, known: &Known) -> bool {
    let now = |path| fs::metadata(path).and_then(|about| about.modified()).ok();
    issuer.jwks_file.as_deref().is_some_and(|path| now(path) != known.file)
}
