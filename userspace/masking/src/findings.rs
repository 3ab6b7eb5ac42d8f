//! What was masked, and what goes in its place.

use crate::Kind;

/// Different findings that are told apart; more are counted under the last one's rule without a path.
const MAX_FINDINGS: usize = 64;
/// How much of a path is told.
const MAX_PATH: usize = 256;

/// One rule at one path.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What said that it is a secret: `sensitive`, a detector's name, or a policy's id.
    pub rule: String,
    /// Where: members' names with dots between them, `[]` for elements; empty where there are no names.
    pub path: String,
    /// How often.
    pub count: u64,
}

/// All that was masked in one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// One more.
    pub(crate) fn add(&mut self, rule: &str, path: &str) {
        let path = if path.len() > MAX_PATH { cut(path) } else { path };
        if let Some(known) = self.0.iter_mut().find(|it| it.rule == rule && it.path == path) {
            known.count += 1;
        } else if self.0.len() < MAX_FINDINGS {
            self.0.push(Finding { rule: rule.to_owned(), path: path.to_owned(), count: 1 });
        } else if let Some(known) = self.0.iter_mut().find(|it| it.rule == rule && it.path.is_empty()) {
            known.count += 1;
        } else {
            self.0.push(Finding { rule: rule.to_owned(), path: String::new(), count: 1 });
        }
    }

    /// In the order in which they were met first.
    pub fn all(&self) -> &[Finding] {
        &self.0
    }

    /// How many values were masked.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|finding| finding.count).sum()
    }

    /// Whether nothing was masked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn cut(path: &str) -> &str {
    let mut end = MAX_PATH;
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}

/// A value that is masked.
#[derive(Clone, Copy)]
pub struct Secret<'a> {
    /// What it is.
    pub kind: Kind,
    /// What said so.
    pub rule: &'a str,
    /// Where it stood.
    pub path: &'a str,
    /// The value as its readers see it: escapes decoded, base64 not. `None` if it is longer than is kept.
    pub value: Option<&'a [u8]>,
}

impl std::fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("rule", &self.rule).field("path", &self.path).finish_non_exhaustive()
    }
}

/// Gives what goes in a secret's place.
pub trait Vault: Send {
    /// A text of ASCII letters, digits, `-` and `_`, which stands in every format as it is.
    fn placeholder(&mut self, secret: Secret<'_>) -> String;
}

/// The same text for every secret, which nothing leads back from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixed;

impl Vault for Fixed {
    fn placeholder(&mut self, _: Secret<'_>) -> String {
        "chaperone-masked".to_owned()
    }
}
