//! Every ARN and account that an input names, wherever it stands.

use std::{collections::BTreeSet, sync::LazyLock};

use aho_corasick::AhoCorasick;
use memchr::memmem::Finder;
use serde_json::Value;

use super::names::is_account;

/// How many are kept, and how long they may be together.
const MAX: usize = 2000;
const MAX_BYTES: usize = 256 << 10;

/// Prepared once: they are looked for in every text of every input.
static ARN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("arn:"));
static REGISTRY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(".dkr.ecr."));

/// Collects references from the inputs of all candidates.
#[derive(Default)]
pub(crate) struct References {
    arns: BTreeSet<String>,
    accounts: BTreeSet<String>,
    bytes: usize,
    /// There are more.
    overflowed: bool,
}

impl References {
    /// Looks through a document; `name` is the member that holds it.
    pub fn collect(&mut self, name: &str, value: &Value) {
        match value {
            Value::String(text) => self.text(name, text),
            Value::Number(number) if names_accounts(name) => self.account(&number.to_string()),
            Value::Array(all) => all.iter().for_each(|value| self.collect(name, value)),
            Value::Object(all) => {
                for (inner, value) in all {
                    // A map may be keyed by what it is about.
                    self.text(name, inner);
                    self.collect(inner, value);
                }
            }
            _ => {}
        }
    }

    /// What was found, and whether it is all.
    pub fn finish(self) -> (chaperone_model::References, bool) {
        let references = chaperone_model::References {
            arns: self.arns.into_iter().collect(),
            accounts: self.accounts.into_iter().collect(),
        };
        (references, !self.overflowed)
    }

    /// Looks through one text.
    pub fn text(&mut self, name: &str, text: &str) {
        let is_arn = text.starts_with("arn:");
        let mut rest = text;
        while let Some(at) = ARN.find(rest.as_bytes()) {
            let tail = &rest[at..];
            let end = tail.find(|c: char| {
                c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '\\' | '<' | '>' | ')' | ']' | '}')
            });
            let end = if is_arn { None } else { end }.unwrap_or(tail.len());
            self.arn(&tail[..end], is_arn);
            rest = &tail[end.max(4)..];
        }
        let mut accounts = text.split(',').map(str::trim).filter(|one| is_account(one)).peekable();
        if accounts.peek().is_some() && names_accounts(name) {
            accounts.for_each(|one| self.account(one));
        }
        // A registry's host, and a queue's address.
        if let Some(at) = REGISTRY.find(text.as_bytes()) {
            self.account(text[..at].trim_start_matches("https://"));
        }
        if text.starts_with("https://") {
            text.split('/').skip(3).for_each(|segment| self.account(segment));
        }
    }

    fn arn(&mut self, arn: &str, is_whole: bool) {
        let mut parts = arn.splitn(6, ':');
        let Some(account) = parts.nth(4).filter(|_| parts.next().is_some()) else { return };
        if is_whole {
            self.account(account);
        }
        if self.may_keep(arn) {
            self.arns.insert(arn.to_owned());
        }
    }

    fn account(&mut self, text: &str) {
        if is_account(text) && self.may_keep(text) {
            self.accounts.insert(text.to_owned());
        }
    }

    fn may_keep(&mut self, text: &str) -> bool {
        let keeps = self.arns.len() + self.accounts.len() < MAX && self.bytes + text.len() <= MAX_BYTES;
        self.overflowed |= !keeps;
        self.bytes += if keeps { text.len() } else { 0 };
        keeps
    }
}

/// Members that hold accounts. Other numbers of twelve digits are telephones, order numbers, …
fn names_accounts(member: &str) -> bool {
    static PARTS: LazyLock<AhoCorasick> = LazyLock::new(|| {
        AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build([
                "account",
                "owner",
                "registry",
                "catalogid",
                "principal",
                "userid",
                "grantee",
                "aws",
                "requester",
                "accepter",
                "delegate",
            ])
            .expect("BUG: eleven words make an automaton")
    });
    PARTS.is_match(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_named_is_found() {
        let mut found = References::default();
        found.collect(
            "",
            &serde_json::json!({
                "registryId": "210987654321", "Phone": "441234567890", "OwnerIds": ["self", "111111111111"],
                "Image": "222222222222.dkr.ecr.eu-west-1.amazonaws.com/a:b",
                "Deep": [{"Key": "arn:aws:kms:eu-west-1:333333333333:key/k"}],
                "Policy": "{\"Resource\":[\"arn:aws:s3:::b/*\",\"arn:aws:iam::444444444444:root\"]}",
                "QueueUrl": "https://sqs.eu-west-1.amazonaws.com/555555555555/q",
            }),
        );
        let (references, is_all) = found.finish();
        assert!(is_all);
        assert_eq!(
            references.accounts,
            ["111111111111", "210987654321", "222222222222", "333333333333", "555555555555"]
        );
        assert_eq!(
            references.arns,
            ["arn:aws:iam::444444444444:root", "arn:aws:kms:eu-west-1:333333333333:key/k", "arn:aws:s3:::b/*"]
        );
    }

    #[test]
    fn more_than_is_kept_is_told() {
        let mut found = References::default();
        let all: Vec<String> = (0..=MAX).map(|i| format!("arn:aws:s3:::b{i}")).collect();
        found.collect("", &serde_json::json!({ "Arns": all }));
        let (references, is_all) = found.finish();
        assert_eq!((references.arns.len(), is_all), (MAX, false));
    }
}
