//! What an instance's user data says: the configuration, line by line as it will be in force, and after it what the image
//! makes of the host.

use std::{collections::BTreeMap, path::PathBuf};

use chaperone_policy::{DEFAULT_POLICY, PolicyVersion};
use serde::Deserialize;

use super::PLACE;
use crate::{
    config::{Config, ConfigError, Policy},
    daemon::KnownActions,
};

/// What the errors call it.
const NAME: &str = "user data";
/// A user of the image's that may become root, and so can't be an agent.
const ADMIN: &str = "admin";

/// Checked as far as that goes without this host.
#[derive(Debug)]
pub struct UserData {
    pub config: Config,
    /// By the names of their files, as they will be beside one another.
    pub policies: BTreeMap<String, String>,
    /// Users that are made where they aren't there.
    pub users: Vec<String>,
}

/// `[image]`, which comes last.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Image {
    users: Vec<String>,
    policies: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rest {
    image: Image,
}

impl UserData {
    /// Reads it; what is wrong is said with its line and its key.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
            ConfigError(format!(
                "{NAME}:{line}: it isn't UTF-8: it must be TOML as it is, not compressed and not encoded once more"
            ))
        })?;
        if text.starts_with("#!") || text.starts_with("#cloud-config") || text.starts_with("Content-Type:") {
            return Err(ConfigError(format!(
                "{NAME}:1: this image has no cloud-init, and runs no scripts: give the configuration's TOML, see docs/image.md"
            )));
        }
        let (configuration, rest) = text.split_at(image_begins(text));
        let Rest { image } = image_of(configuration, rest)?;
        let config = Config::parse(&PathBuf::from(NAME), configuration.to_owned())?;
        if config.policy.path != Policy::default().path {
            return Err(config.wrong(
                "policy.path",
                format!(
                    "the image's policies are in {}: leave this out, and give them in [image.policies]",
                    PLACE.policies
                ),
            ));
        }
        for user in &image.users {
            if !is_name(user) || user == ADMIN || user == "root" {
                let why = "a new user's name begins with a letter, and has 31 of a-z, 0-9, - and _ at most; `admin` and \
                           `root` are not for agents";
                return Err(ConfigError(format!("{NAME}:{}: image.users: `{user}`: {why}", line_of(text, user))));
            }
        }
        for agent in &config.agents {
            if let Some(user) = agent.users.iter().find(|user| user.as_str() == ADMIN) {
                let place = config.place(&agent.name, Some(("users", user)));
                return Err(ConfigError(format!("{place}: agent `{}`: `{user}` may become root here", agent.name)));
            }
        }
        let policies = checked(image.policies, text)?;
        Ok(Self { config, policies, users: image.users })
    }
}

/// Policies that can be put in force; the shipped one, if none is given.
fn checked(policies: BTreeMap<String, String>, text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    if policies.is_empty() {
        return Ok(BTreeMap::from([("default.cedar".to_owned(), DEFAULT_POLICY.to_owned())]));
    }
    let fits = |stem: &str| {
        (1..=64).contains(&stem.len()) && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if let Some(name) = policies.keys().find(|name| !name.strip_suffix(".cedar").is_some_and(fits)) {
        let line = line_of(text, name);
        return Err(ConfigError(format!(
            "{NAME}:{line}: image.policies: `{name}`: a policy file's name is letters, digits, - and _, and `.cedar`"
        )));
    }
    let files: Vec<_> = policies.iter().map(|(name, text)| (PathBuf::from(name), text.clone())).collect();
    PolicyVersion::parse(&files, &KnownActions)
        .map_err(|error| ConfigError(format!("{NAME}: image.policies: {error}")))?;
    Ok(policies)
}

/// The offset of the first line with a header of `[image]`'s. In the middle of a string it leaves two halves that can't be
/// read.
fn image_begins(text: &str) -> usize {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let header = line.trim_start().strip_prefix('[').map(str::trim_start).unwrap_or_default();
        let after = header.strip_prefix("image").map(str::trim_start);
        if after.is_some_and(|after| after.starts_with([']', '.'])) {
            return offset;
        }
        offset += line.len();
    }
    text.len()
}

/// With as many lines before it as there are, so that errors have the right ones.
fn image_of(before: &str, rest: &str) -> Result<Rest, ConfigError> {
    let skipped = before.matches('\n').count();
    let text = format!("{}{rest}", "\n".repeat(skipped));
    toml::from_str(&text).map_err(|error| {
        let line =
            error.span().map_or(skipped + 1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        ConfigError(format!(
            "{NAME}:{line}: {} ([image] comes last, after the configuration)",
            error.to_string().trim_end()
        ))
    })
}

/// The first line with that word in it.
fn line_of(text: &str, word: &str) -> usize {
    text.lines().position(|line| line.contains(word)).map_or(1, |line| line + 1)
}

fn is_name(user: &str) -> bool {
    user.len() <= 31
        && user.starts_with(|first: char| first.is_ascii_lowercase())
        && user.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[agents]]\nname = \"coder\"\nslices = [\"agents.slice\"]\n\n[image]\nusers = [\"builder\"]\n\n[image.policies]\n\"own.cedar\" = '''\n@id(\"read\") permit (principal, action == Action::\"s3:GetObject\", resource);\n'''\n";

    #[test]
    fn the_configuration_is_what_is_before_the_image() {
        let data = UserData::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(data.config.text(), "[[agents]]\nname = \"coder\"\nslices = [\"agents.slice\"]\n\n");
        assert_eq!(data.users, ["builder"]);
        assert!(data.policies["own.cedar"].contains("s3:GetObject"));
        let without = UserData::parse(b"[[agents]]\nname = \"a\"\nslices = [\"agents.slice\"]\n").unwrap();
        assert_eq!(without.policies["default.cedar"], DEFAULT_POLICY);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_key() {
        let with = |from: &str, to: &str| GOOD.replace(from, to);
        for (text, line, word) in [
            (with("slices", "slice"), 3, "slice"),
            (with("name = \"coder\"", "name = coder"), 2, "coder"),
            (with("users = ", "user = "), 6, "user"),
            (with("\"builder\"", "\"Builder\""), 6, "Builder"),
            (with("\"builder\"", "\"admin\""), 6, "admin"),
            (with("\"builder\"", "7"), 6, "string"),
            (with("slices = [\"agents.slice\"]", "users = [\"admin\"]"), 3, "root"),
            (with("own.cedar", "../own.cedar"), 9, "file's name"),
            (with("[image]\n", "[policy]\npath = \"/tmp\"\n[image]\n"), 6, "policy.path"),
            (with("[image]\n", "[metrics]\nlisten = \"0.0.0.0:1\"\n[image]\n"), 6, "loopback"),
            (format!("{GOOD}[metrics]\n"), 12, "metrics"),
            (with("[image]", "x = '''\n[image]"), 6, "multi-line"),
            ("#!/bin/sh\necho\n".to_owned(), 1, "no scripts"),
            (String::new(), 1, "agents"),
        ] {
            let error = UserData::parse(text.as_bytes()).expect_err(&text).0;
            assert!(error.contains(&format!("user data:{line}: ")), "{text}: {error}");
            assert!(error.contains(word), "{text}: {error}");
        }
        let error = UserData::parse(with("s3:GetObject", "s3:GetObjekt").as_bytes()).unwrap_err().0;
        assert!(error.contains("own.cedar") && error.contains("GetObjekt"), "{error}");
        let error = UserData::parse(b"[[agents]]\n\x1f\x8b").unwrap_err().0;
        assert!(error.contains("user data:2: ") && error.contains("UTF-8"), "{error}");
    }
}
