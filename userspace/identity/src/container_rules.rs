//! The rules by which a container is an agent's: by its labels, its pod's, or its image, as its engine describes it.
//!
//! They say whose a container is, and so can whoever starts containers: who may start one as this agent has this agent's
//! authority, and no other's.

use std::fmt;

use chaperone_model::Container;

use crate::{RuleKind, containers, rules::glob};

/// One rule, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRule {
    kind: RuleKind,
    text: String,
}

impl ContainerRule {
    /// A label of the container, its image or its pod: `name`, or `name=value` in whose value `*` stands for any characters.
    pub fn label(text: &str) -> Result<Self, &'static str> {
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        if name.is_empty() || name.contains('*') || name.trim() != name {
            return Err("it is `name` or `name=value`, and a label's name has no `*` and no space at its ends");
        }
        if name.starts_with(containers::OWN) {
            return Err("labels with `io.chaperone.` are the daemon's own");
        }
        Self::checked(RuleKind::Label, text)
    }

    /// An image, as the engine names it; `*` stands for any characters.
    pub fn image(text: &str) -> Result<Self, &'static str> {
        if text.bytes().all(|byte| byte == b'*') {
            return Err("it would enrol every container of the host: name at least a part of the image");
        }
        Self::checked(RuleKind::Image, text)
    }

    fn checked(kind: RuleKind, text: &str) -> Result<Self, &'static str> {
        if text.len() > 1000 {
            return Err("it is longer than 1,000 bytes");
        }
        Ok(Self { kind, text: text.to_owned() })
    }

    /// What it is written as.
    pub fn kind(&self) -> RuleKind {
        self.kind
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it names this container, which must be described whole.
    pub fn names(&self, container: &Container) -> bool {
        if self.kind == RuleKind::Image {
            return glob(&self.text, &container.image);
        }
        match self.text.split_once('=') {
            Some((name, value)) => container.labels.get(name).is_some_and(|found| glob(value, found)),
            None => container.labels.contains_key(&self.text),
        }
    }
}

impl fmt::Display for ContainerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.kind.key(), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_images_name_containers() {
        let labels = [("team", "red"), ("empty", ""), ("a/b", "x=y")];
        let container = Container {
            image: "example.com/agents/coder:1".into(),
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ..Container::default()
        };
        for (rule, so) in [
            (ContainerRule::label("team"), true),
            (ContainerRule::label("team=red"), true),
            (ContainerRule::label("team=r*"), true),
            (ContainerRule::label("team="), false),
            (ContainerRule::label("team=blue"), false),
            (ContainerRule::label("empty="), true),
            (ContainerRule::label("a/b=x=*"), true),
            (ContainerRule::label("tea"), false),
            (ContainerRule::image("example.com/agents/*"), true),
            (ContainerRule::image("example.com/agents"), false),
        ] {
            let rule = rule.unwrap();
            assert_eq!(rule.names(&container), so, "{rule}");
        }
        for (rule, why) in [
            (ContainerRule::label(""), "`name`"),
            (ContainerRule::label("=red"), "`name`"),
            (ContainerRule::label("te*=red"), "no `*`"),
            (ContainerRule::label("team =red"), "no space"),
            (ContainerRule::label("io.chaperone.word-of=uid 0"), "own"),
            (ContainerRule::image("*"), "every container"),
            (ContainerRule::image(""), "every container"),
        ] {
            assert!(rule.clone().unwrap_err().contains(why), "{rule:?}");
        }
    }
}
