//! Detectors of the operator's own: regular expressions, without backtracking and bounded when they are loaded.

use regex::bytes::{Regex, RegexBuilder};

/// What a compiled expression may take, in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// The longest expression, in bytes.
const MAX_PATTERN: usize = 4096;
/// The longest secret that one may find, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// Why a detector can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetectorError {
    /// No such name.
    #[error("there is no detector `{0}`: `chaperone mask detectors` lists them")]
    Unknown(String),
    /// Too many.
    #[error("there are too many detectors")]
    TooMany,
    /// The automaton can't be built.
    #[error("the detectors don't make an automaton: {0}")]
    Automaton(String),
    /// An expression can't be used.
    #[error("the detector `{name}`: {why}")]
    Custom {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A detector by a regular expression.
#[derive(Clone, Debug)]
pub struct CustomDetector {
    pub(super) name: String,
    regex: Regex,
    length: usize,
}

impl CustomDetector {
    /// Compiles an expression that finds secrets of up to `length` bytes. With a group `secret` only that is masked.
    pub fn new(name: &str, pattern: &str, length: usize) -> Result<Self, DetectorError> {
        let wrong = |why: String| DetectorError::Custom { name: name.to_owned(), why };
        if pattern.len() > MAX_PATTERN {
            return Err(wrong(format!("the expression is longer than {MAX_PATTERN} bytes")));
        }
        if length == 0 || length > MAX_LENGTH {
            return Err(wrong(format!("its longest secret must have 1 to {MAX_LENGTH} bytes")));
        }
        let regex = RegexBuilder::new(pattern)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .nest_limit(64)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        if regex.is_match(b"") {
            return Err(wrong("the expression fits nothing, and so everything".to_owned()));
        }
        Ok(Self { name: name.to_owned(), regex, length })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks through a text. Without `last`, what begins in the last `length` bytes is looked at again.
    pub(super) fn scan(
        &self,
        text: &[u8],
        last: bool,
        mut safe: usize,
        mut hit: impl FnMut(usize, usize, usize),
    ) -> usize {
        let decided = if last { text.len() } else { text.len().saturating_sub(self.length) };
        for found in self.regex.captures_iter(text) {
            let Some(whole) = found.get(0) else { continue };
            if whole.start() >= decided {
                break;
            }
            let secret = found.name("secret").unwrap_or(whole);
            if secret.start() < secret.end() {
                hit(whole.start(), secret.start(), secret.end());
            }
        }
        safe = safe.min(decided);
        safe
    }
}
