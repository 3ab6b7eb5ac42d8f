//! `[masking]`: secrets in answers, which agents don't get.

use std::sync::Arc;

use chaperone_masking::{CustomDetector, DetectorError};
use chaperone_proxy::{MaskingSettings, OnError, VaultLimits};
use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// How answers are masked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskingSection {
    /// Whether secrets in AWS's structured answers are masked where no policy says otherwise.
    pub enabled: bool,
    /// What is done with an answer that can't be read: `refuse` or `mask-all`.
    pub on_error: OnError,
    /// The detectors that look through structured answers; the credential detectors, if it isn't set.
    pub detectors: Option<Vec<String>>,
    /// How many masked values are kept in memory for a session, for calls into which a policy's `@unmask_into` lets them
    /// go, and so that they don't come back in an answer.
    pub session_values: usize,
    /// How many bytes those have in all; a value has 4,096 at most. Looking for them takes up to 400 times as much memory.
    pub session_bytes: usize,
    /// Detectors of your own.
    pub custom: Vec<CustomSection>,
}
}

impl Default for MaskingSection {
    fn default() -> Self {
        let VaultLimits { values: session_values, bytes: session_bytes } = VaultLimits::default();
        let (detectors, custom) = (None, Vec::new());
        Self { enabled: true, on_error: OnError::Refuse, detectors, session_values, session_bytes, custom }
    }
}

/// One of `[[masking.custom]]`, which policies and `detectors` name `custom:NAME`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CustomSection {
    /// Its name.
    pub name: String,
    /// A regular expression, as Rust's `regex` reads them. With a group `secret` that alone is masked.
    pub pattern: String,
    /// The longest secret that it finds, in bytes.
    #[serde(default = "default_length")]
    pub max_length: usize,
}

const fn default_length() -> usize {
    256
}

impl MaskingSection {
    /// The settings, or what is wrong with them.
    pub fn settings(&self) -> Result<Arc<MaskingSettings>, DetectorError> {
        let custom = self.custom.iter().map(|it| CustomDetector::new(&it.name, &it.pattern, it.max_length));
        let custom = custom.collect::<Result<Vec<_>, _>>()?;
        let kept = VaultLimits { values: self.session_values, bytes: self.session_bytes };
        let settings = MaskingSettings::new(self.enabled, self.on_error, self.detectors.clone(), custom)?;
        Ok(Arc::new(settings.keeping(kept)))
    }
}
