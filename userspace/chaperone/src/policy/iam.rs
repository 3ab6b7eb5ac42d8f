//! What was learnt, as an IAM policy document.

use std::collections::BTreeSet;

use chaperone_model::CallIntent;
use serde_json::{Value, json};

use super::learn::{Resource, Statement, fits};

/// A document: who it is for is whoever's role it is attached to.
#[derive(Debug)]
pub struct Document {
    statements: Vec<(BTreeSet<String>, BTreeSet<String>)>,
    /// Actions that IAM hasn't got: those of inspected names and of Kubernetes.
    pub left_out: BTreeSet<String>,
}

/// Whether IAM has it.
fn is_iams(action: &str) -> bool {
    !["http:", "k8s:"].iter().any(|prefix| action.starts_with(prefix))
}

/// The document that permits what the statements do, whichever agent's they are.
pub fn document(learnt: &[Statement]) -> Document {
    let mut document = Document { statements: Vec::new(), left_out: BTreeSet::new() };
    for statement in learnt {
        let (other, actions): (BTreeSet<_>, BTreeSet<_>) =
            statement.actions.iter().cloned().partition(|action| !is_iams(action));
        document.left_out.extend(other);
        let resources: BTreeSet<String> = statement.resources.iter().map(text).collect();
        if !actions.is_empty() && !document.statements.contains(&(actions.clone(), resources.clone())) {
            document.statements.push((actions, resources));
        }
    }
    document
}

/// In a resource of IAM's `*`, `?` and `$` mean something, and are written as variables where they stand for themselves
/// (IAM user guide, "Policy variables").
fn text(resource: &Resource) -> String {
    match resource {
        Resource::Exact(arn) if arn == "*" => arn.clone(),
        Resource::Exact(arn) => escaped(arn, &['*', '?', '$']),
        Resource::Like(pattern) => escaped(pattern, &['?', '$']),
    }
}

fn escaped(text: &str, special: &[char]) -> String {
    text.chars().map(|c| if special.contains(&c) { format!("${{{c}}}") } else { c.to_string() }).collect()
}

impl Document {
    /// As IAM takes it.
    pub fn json(&self) -> Value {
        let statements: Vec<Value> = self
            .statements
            .iter()
            .enumerate()
            .map(|(index, (actions, resources))| {
                json!({ "Sid": format!("Learnt{}", index + 1), "Effect": "Allow", "Action": actions, "Resource": resources })
            })
            .collect();
        json!({ "Version": "2012-10-17", "Statement": statements })
    }

    fn permits(&self, action: &str, resource: &str) -> bool {
        let is_like = |pattern: &String| pattern == "*" || is_permitted(pattern, resource);
        self.statements.iter().any(|(actions, resources)| actions.contains(action) && resources.iter().any(is_like))
    }
}

/// Whether a resource of IAM's means this one.
fn is_permitted(pattern: &str, resource: &str) -> bool {
    /// Stands for a star that is one; in no name.
    const STAR: &str = "\u{1}";
    let pattern = pattern.replace("${*}", STAR).replace("${?}", "?").replace("${$}", "$");
    fits(&pattern, &if pattern.contains(STAR) { resource.replace('*', STAR) } else { resource.to_owned() })
}

/// Decides calls by the document; those that it doesn't permit. What isn't IAM's isn't asked.
pub fn prove(document: &Document, calls: &[CallIntent]) -> Vec<String> {
    let mut failed = Vec::new();
    for intent in calls {
        let Some(call) = &intent.call else { continue };
        let unknown: Vec<_> = call.unknown_resources().filter(|(_, it)| !it.alias).collect();
        let stood_for: BTreeSet<&str> = unknown.iter().map(|(action, _)| &*action.name).collect();
        let named = call.needs().filter(|(action, resource)| *resource != "*" || !stood_for.contains(&*action.name));
        let all = named.chain(unknown.iter().map(|(action, unknown)| (*action, &*unknown.pattern)));
        let refused = all
            .filter(|(action, _)| is_iams(&action.name))
            .find(|(action, resource)| !document.permits(&action.name, resource));
        if let Some((action, resource)) = refused {
            failed.push(format!("{}: {} on {resource}", intent.id, action.name));
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_iam_is_written_as_itself() {
        assert_eq!(text(&Resource::Exact("arn:aws:s3:::b/a*?$".into())), "arn:aws:s3:::b/a${*}${?}${$}");
        assert_eq!(text(&Resource::Like("arn:aws:s3:::b/a*?".into())), "arn:aws:s3:::b/a*${?}");
        assert_eq!(text(&Resource::Exact("*".into())), "*");
        assert!(is_permitted("arn:aws:s3:::b/a${*}", "arn:aws:s3:::b/a*"));
        assert!(!is_permitted("arn:aws:s3:::b/a${*}", "arn:aws:s3:::b/ab"));
        assert!(is_permitted("arn:aws:s3:::b/a*", "arn:aws:s3:::b/a*x"));
    }
}
