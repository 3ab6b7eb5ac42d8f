//! What masking goes by: the configuration, and a session's placeholders.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use aws_lc_rs::hmac;
use chaperone_masking::{CustomDetector, DETECTORS, DetectorError, Detectors, Kind, Secret, Vault};
use chaperone_model::Call;
use chaperone_policy::Unmask;
use foldhash::HashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::session_vault::{PREFIX, SessionVault, VaultLimits};

/// Sets of detectors that policies ask for and that are kept ready.
const MAX_READY: usize = 64;

/// What is done with a body that can't be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// All of it is masked; where some has gone on, the answer breaks off.
    MaskAll,
    /// The answer is refused.
    #[default]
    Refuse,
}

/// How answers are masked. A reload replaces it.
#[derive(Debug)]
pub struct MaskingSettings {
    /// Whether anything is masked that no policy asks for.
    pub enabled: bool,
    /// What is done with a body that can't be read.
    pub on_error: OnError,
    /// How much is kept of what was masked, for each session.
    pub kept: VaultLimits,
    default: Vec<String>,
    /// Those of [`default`](Self::default), ready.
    credentials: Detectors,
    custom: Vec<CustomDetector>,
    ready: Mutex<HashMap<BTreeSet<String>, Detectors>>,
}

impl Default for MaskingSettings {
    fn default() -> Self {
        let default = DETECTORS.iter().filter(|it| it.default).map(|it| it.name.to_owned()).collect();
        let (on_error, kept) = (OnError::default(), VaultLimits::default());
        let credentials = Detectors::credentials();
        Self { enabled: true, on_error, kept, default, credentials, custom: Vec::new(), ready: Mutex::default() }
    }
}

impl MaskingSettings {
    /// With these detectors for answers that are looked through by default, and custom ones by their names.
    pub fn new(
        enabled: bool,
        on_error: OnError,
        default: Option<Vec<String>>,
        custom: Vec<CustomDetector>,
    ) -> Result<Self, DetectorError> {
        let mut settings = Self { enabled, on_error, custom, ..Self::default() };
        settings.default.extend(settings.custom.iter().map(|it| format!("custom:{}", it.name())));
        if let Some(default) = default {
            settings.default = default;
        }
        settings.credentials = settings.detectors(settings.default.clone())?;
        Ok(settings)
    }

    /// With other bounds for what is kept.
    #[must_use]
    pub fn keeping(self, kept: VaultLimits) -> Self {
        Self { kept, ..self }
    }

    /// The names of the detectors that are on by default.
    pub(crate) fn default_detectors(&self) -> impl Iterator<Item = String> + '_ {
        self.default.iter().cloned()
    }

    /// The detectors that are on by default.
    pub(crate) fn credentials(&self) -> Detectors {
        self.credentials.clone()
    }

    /// Detectors by their names, made once.
    pub(crate) fn detectors(&self, names: Vec<String>) -> Result<Detectors, DetectorError> {
        let names: BTreeSet<String> = names.into_iter().collect();
        if let Some(ready) = self.ready.lock().get(&names) {
            return Ok(ready.clone());
        }
        let (mut built_in, mut custom) = (Vec::new(), Vec::new());
        for name in &names {
            match name.strip_prefix("custom:") {
                None => built_in.push(name.as_str()),
                Some(own) => {
                    let found = self.custom.iter().find(|it| it.name() == own);
                    custom.push(found.ok_or_else(|| DetectorError::Unknown(name.clone()))?.clone());
                }
            }
        }
        let detectors = Detectors::new(&built_in, custom)?;
        let mut ready = self.ready.lock();
        if ready.len() >= MAX_READY {
            ready.clear();
        }
        ready.insert(names, detectors.clone());
        Ok(detectors)
    }
}

/// Makes a session's placeholders, and knows what they stand for: the same secret in the same place has the same one, so
/// that a client that reads twice sees one answer; what it stands for can't be told from it, nor from another session's.
#[derive(Clone, Debug)]
pub struct Placeholders(Arc<Session>);

#[derive(Debug)]
struct Session {
    key: hmac::Key,
    places: RandomState,
    vault: SessionVault,
}

impl Placeholders {
    /// Of a new session, by a key that nobody has.
    pub fn new() -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("BUG: the system has random bytes");
        Self(Arc::new(Session { key, places: RandomState::new(), vault: SessionVault::default() }))
    }

    /// What they stand for.
    pub(crate) fn vault(&self) -> &SessionVault {
        &self.0.vault
    }

    /// Those of one call's answer: a secret of another service's or resource's has another one, though its value be the
    /// same, so that nobody can find out a value by storing guesses.
    pub(crate) fn of(&self, call: &Call) -> AnswerPlaceholders {
        let place = self.0.places.hash_one((&call.service, &call.resources));
        AnswerPlaceholders {
            session: self.clone(),
            place,
            is_parameter: call.service == "ssm",
            unmask: Arc::default(),
            limits: VaultLimits::default(),
        }
    }
}

impl Default for Placeholders {
    fn default() -> Self {
        Self::new()
    }
}

/// A session's placeholders for one answer.
#[derive(Clone, Debug)]
pub(crate) struct AnswerPlaceholders {
    session: Placeholders,
    place: u64,
    is_parameter: bool,
    unmask: Arc<[Unmask]>,
    limits: VaultLimits,
}

impl AnswerPlaceholders {
    /// With what policies let go back, and how much is kept of it.
    pub(crate) fn letting(mut self, unmask: &[Unmask], limits: VaultLimits) -> Self {
        self.unmask = unmask.into();
        self.limits = limits;
        self
    }

    pub(crate) fn vault(&self) -> &SessionVault {
        self.session.vault()
    }
}

impl Vault for AnswerPlaceholders {
    fn placeholder(&mut self, secret: Secret<'_>) -> String {
        let mut context = hmac::Context::with_key(&self.session.0.key);
        let place = self.place.to_be_bytes();
        for part in [&place, secret.rule.as_bytes(), secret.path.as_bytes(), secret.value.unwrap_or_default()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let text = format!("{PREFIX}{}", hex::encode(&context.sign().as_ref()[..8]));
        // Of bytes nobody knows what text they would be.
        if let (Kind::Text, Some(value)) = (secret.kind, secret.value)
            && (!self.unmask.is_empty() || self.is_parameter || is_called_secret(secret.path))
        {
            self.vault().keep(&text, value, &self.unmask, self.limits);
        }
        text
    }
}

/// Whether a member is called like something that stands nowhere else but by mistake. An environment variable's value may
/// be anything.
fn is_called_secret(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    ["password", "secret", "token", "privatekey", "keymaterial", "passphrase"].iter().any(|part| last.contains(part))
}
