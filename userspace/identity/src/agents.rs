//! The configured agents, and the cgroups that make a process one of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong with the configured agents.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AgentError {
    /// Agents are named in policies and recordings.
    #[error("agent `{0}`: a name is 1 to 64 of a-z, A-Z, 0-9, `-`, `_`, `.` and `@`")]
    Name(String),
    /// Two agents with one name.
    #[error("agent `{0}` is there twice: give each its own name, or put both cgroups into one")]
    Twice(String),
    /// An agent without a cgroup would never be seen.
    #[error("agent `{0}` has no cgroup: name at least one, such as \"/agents/{0}\"")]
    NoCgroup(String),
    /// A pattern that would enrol too much or nothing.
    #[error("agent `{agent}`, cgroup \"{pattern}\": {why}")]
    Pattern {
        /// The agent.
        agent: String,
        /// Its pattern.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A path below the cgroup v2 root in which `*` stands for any characters but `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupPattern(String);

impl CgroupPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of `path` that this pattern names: the cgroup itself or the one it is below.
    ///
    /// `/agents/*` names `/agents/a` for the path `/agents/a/b`.
    pub fn matched<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut end = 0;
        let mut parts = path.strip_prefix('/')?.split('/');
        for wanted in self.0.trim_start_matches('/').split('/') {
            let part = parts.next()?;
            if !glob(wanted, part) {
                return None;
            }
            end += 1 + part.len();
        }
        Some(&path[..end])
    }

    /// The folder that surely exists or must be made for the pattern to match: everything before the first `*`.
    pub fn fixed_parent(&self) -> &str {
        match self.0.find('*') {
            None => &self.0,
            Some(star) => &self.0[..self.0[..star].rfind('/').unwrap_or(0)],
        }
    }

    fn problem(&self) -> Option<&'static str> {
        let text = &self.0;
        if !text.starts_with('/') {
            Some("it must begin with `/`: it is a path below the cgroup v2 root")
        } else if text.len() > 1024 {
            Some("it is longer than 1,024 bytes")
        } else if text.trim_end_matches('/').is_empty() || self.fixed_parent().is_empty() {
            Some("it would enrol the whole host: name at least the first folder")
        } else if text[1..].split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            Some("it has an empty part, `.` or `..`")
        } else if ["/init.scope", "/system.slice/init.scope"].iter().any(|path| self.matched(path).is_some()) {
            Some("it would enrol PID 1")
        } else {
            None
        }
    }
}

/// Whether `*` in `pattern` can be filled to give `text`. Linear in both, whatever the pattern.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            back = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star, from)) = back {
            (p, t, back) = (star + 1, from + 1, Some((star, from + 1)));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// One configured agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name: the policies' principal.
    pub name: String,
    /// The groups that it is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The cgroups whose processes it is.
    pub cgroups: Vec<CgroupPattern>,
}

/// All configured agents, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agents(Vec<Agent>);

impl Agents {
    /// Checks names and patterns.
    pub fn new(agents: Vec<Agent>) -> Result<Self, AgentError> {
        for (index, agent) in agents.iter().enumerate() {
            for name in std::iter::once(&agent.name).chain(&agent.groups) {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
                if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
                    return Err(AgentError::Name(name.clone()));
                }
            }
            if agents[..index].iter().any(|other| other.name == agent.name) {
                return Err(AgentError::Twice(agent.name.clone()));
            }
            if agent.cgroups.is_empty() {
                return Err(AgentError::NoCgroup(agent.name.clone()));
            }
            for pattern in &agent.cgroups {
                if let Some(why) = pattern.problem() {
                    let (agent, pattern) = (agent.name.clone(), pattern.0.clone());
                    return Err(AgentError::Pattern { agent, pattern, why });
                }
            }
        }
        Ok(Self(agents))
    }

    /// The agent whose pattern names this cgroup most closely, and the cgroup that makes the session.
    pub fn of<'a>(&self, path: &'a str) -> Option<(&Agent, &'a str)> {
        let matches = self
            .0
            .iter()
            .flat_map(|agent| agent.cgroups.iter().filter_map(move |pattern| Some((agent, pattern.matched(path)?))));
        // `max_by_key` keeps the last of equals, and the first configured shall win.
        matches.collect::<Vec<_>>().into_iter().rev().max_by_key(|(_, cgroup)| cgroup.len())
    }

    /// The agent with this name.
    pub fn named(&self, name: &str) -> Option<&Agent> {
        self.0.iter().find(|agent| agent.name == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.0.iter()
    }

    /// The folders below which everything is enrolled.
    pub fn roots(&self) -> Vec<String> {
        let mut roots: Vec<String> = self
            .0
            .iter()
            .flat_map(|agent| agent.cgroups.iter().map(|pattern| pattern.fixed_parent().to_owned()))
            .collect();
        roots.sort();
        roots.dedup();
        roots
    }
}

impl fmt::Display for CgroupPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(list: &[(&str, &[&str])]) -> Result<Agents, AgentError> {
        let agent = |(name, cgroups): &(&str, &[&str])| Agent {
            name: (*name).to_owned(),
            groups: vec![],
            cgroups: cgroups.iter().map(|text| CgroupPattern((*text).to_owned())).collect(),
        };
        Agents::new(list.iter().map(agent).collect())
    }

    #[test]
    fn the_closest_pattern_names_the_agent() {
        let agents =
            agents(&[("any", &["/agents/*"]), ("coder", &["/agents/coder-*"]), ("job", &["/agents/x/job"])]).unwrap();
        let of = |path| agents.of(path).map(|(agent, cgroup)| (agent.name.as_str(), cgroup));
        assert_eq!(of("/agents/a/b/c"), Some(("any", "/agents/a")));
        assert_eq!(of("/agents/x/job/deep"), Some(("job", "/agents/x/job")));
        assert_eq!(of("/agents"), None);
        assert_eq!(of("/other/a"), None);
        assert_eq!(of("/agents/coder-1").map(|it| it.1), Some("/agents/coder-1"));
    }

    #[test]
    fn globs_are_bounded() {
        assert!(glob("a*b*c", "aXXbYYc") && !glob("a*b*c", "aXXbYY") && glob("*", "") && !glob("", "a"));
        assert!(!glob(&"*a".repeat(200), &"b".repeat(10_000)));
    }

    #[test]
    fn what_would_enrol_too_much_is_refused() {
        for (pattern, why) in [
            ("/", "whole host"),
            ("/*", "whole host"),
            ("agents", "begin with"),
            ("/a//b", "empty"),
            ("/init.scope", "PID 1"),
        ] {
            let error = agents(&[("a", &[pattern])]).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
        assert_eq!(agents(&[("a b", &["/x"])]).unwrap_err(), AgentError::Name("a b".into()));
        assert_eq!(agents(&[("a", &["/x"]), ("a", &["/y"])]).unwrap_err(), AgentError::Twice("a".into()));
        assert_eq!(agents(&[("a", &[])]).unwrap_err(), AgentError::NoCgroup("a".into()));
    }

    #[test]
    fn roots_end_before_the_first_star() {
        let agents = agents(&[("a", &["/agents/*", "/agents/b-*/c"]), ("b", &["/ci/run"])]).unwrap();
        assert_eq!(agents.roots(), ["/agents", "/ci/run"]);
    }
}
