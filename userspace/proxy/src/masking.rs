//! What masking goes by: the configuration, and a session's placeholders.

use std::{collections::BTreeSet, sync::Arc};

use aws_lc_rs::hmac;
use chaperone_masking::{CustomDetector, DETECTORS, DetectorError, Detectors, Secret, Vault};
use foldhash::HashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

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
    default: Vec<String>,
    custom: Vec<CustomDetector>,
    ready: Mutex<HashMap<BTreeSet<String>, Detectors>>,
}

impl Default for MaskingSettings {
    fn default() -> Self {
        let default = DETECTORS.iter().filter(|it| it.default).map(|it| it.name.to_owned()).collect();
        Self { enabled: true, on_error: OnError::default(), default, custom: Vec::new(), ready: Mutex::default() }
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
        settings.detectors(settings.default.clone())?;
        Ok(settings)
    }

    /// The names of the detectors that are on by default.
    pub(crate) fn default_detectors(&self) -> impl Iterator<Item = String> + '_ {
        self.default.iter().cloned()
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

/// Makes a session's placeholders: the same secret in the same place has the same one, so that a client that reads
/// twice sees one answer; what it stands for can't be told from it, nor from another session's.
#[derive(Clone, Debug)]
pub struct Placeholders(Arc<hmac::Key>);

impl Placeholders {
    /// Of a new session, by a key that nobody has.
    pub fn new() -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        Self(Arc::new(hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("BUG: the system has random bytes")))
    }
}

impl Default for Placeholders {
    fn default() -> Self {
        Self::new()
    }
}

impl Vault for Placeholders {
    fn placeholder(&mut self, secret: Secret<'_>) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [secret.rule.as_bytes(), secret.path.as_bytes(), secret.value.unwrap_or_default()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        format!("chaperone-masked-{}", hex::encode(&context.sign().as_ref()[..8]))
    }
}
