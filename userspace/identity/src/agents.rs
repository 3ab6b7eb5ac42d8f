//! The configured agents, and the rules that make a process one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use chaperone_model::Container;
use serde::{Deserialize, Serialize};

use crate::{ContainerRule, Rule, RuleKind};

/// What is wrong with the configured agents.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AgentError {
    /// Agents are named in policies and recordings.
    #[error("agent `{0}`: a name is 1 to 64 of a-z, A-Z, 0-9, `-`, `_`, `.` and `@`")]
    Name(String),
    /// An agent without a rule would never be seen.
    #[error(
        "agent `{0}` has no rule that makes a process it: name at least one of cgroups, slices, units, users, labels and \
         images, or set `run = true` for what `chaperone run` starts"
    )]
    NoRule(String),
    /// Two agents could be meant.
    #[error(
        "agent `{agent}`, {rule}: it overlaps with {other} of the agent `{of}`: a process could be both; make one of them \
         narrower"
    )]
    Overlap {
        /// The agent that is later in the file.
        agent: String,
        /// Its rule.
        rule: Box<Rule>,
        /// The agent before.
        of: String,
        /// Its rule.
        other: Box<Rule>,
    },
    /// A rule that would enrol too much or nothing.
    #[error("agent `{agent}`, {} \"{rule}\": {why}", kind.key())]
    Rule {
        /// The agent.
        agent: String,
        /// Where the rule is.
        kind: RuleKind,
        /// The rule.
        rule: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two agents with one name.
    #[error("agent `{0}` is there twice: give each its own name, or put the rules of both into one")]
    Twice(String),
}

impl AgentError {
    /// The agent's name, and the key and the text of its rule, for finding the place in the file.
    pub fn place(&self) -> (&str, Option<(&'static str, &str)>) {
        match self {
            Self::Name(agent) | Self::NoRule(agent) | Self::Twice(agent) => (agent, None),
            Self::Overlap { agent, rule, .. } => (agent, Some((rule.kind().key(), rule.text()))),
            Self::Rule { agent, kind, rule, .. } => (agent, Some((kind.key(), rule))),
        }
    }
}

chaperone_model::documented! {
/// One agent, as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name: the policies' principal.
    pub name: String,
    /// The groups that it is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Paths below the cgroup v2 root, such as `/agents/*`: what the whole path names is a session each, and nothing below the
    /// part before the first `*` is free.
    #[serde(default)]
    pub cgroups: Vec<String>,
    /// Slices of systemd's, such as `agents.slice`: each of their units is a session.
    #[serde(default)]
    pub slices: Vec<String>,
    /// Services and scopes of systemd's, such as `agent-*.service`, in `system.slice` unless a slice stands before it.
    #[serde(default)]
    pub units: Vec<String>,
    /// Users, by name or number: each login session and the user's own service manager is a session.
    #[serde(default)]
    pub users: Vec<String>,
    /// Labels of containers, images or pods: `name`, or `name=value` in whose value `*` stands for any characters.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Images of containers, as the engine names them; `*` stands for any characters.
    #[serde(default)]
    pub images: Vec<String>,
    /// Whether `chaperone run` may start it in a cgroup of its own.
    #[serde(default)]
    pub run: bool,
    /// A file with a token of one of `[[identity.issuers]]`, which says who its sessions are. It is read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// `required`: without a token, calls are refused. `optional`: the agent is unidentified, and policies say what it may do.
    #[serde(default)]
    pub identity: IdentityNeed,
}
}

/// Whether an agent needs an identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityNeed {
    /// Policies say what it may do without one.
    #[default]
    Optional,
    /// Without one it may do nothing.
    Required,
}

impl Agent {
    /// Whether any rule makes a process it.
    pub fn has_rules(&self) -> bool {
        let Self { name: _, groups: _, cgroups, slices, units, users, labels, images, run, token_file: _, identity: _ } =
            self;
        *run || [cgroups, slices, units, users, labels, images].iter().any(|rules| !rules.is_empty())
    }

    fn rules(&self, uid_of: &impl Fn(&str) -> Result<u32, String>) -> Result<Vec<(Rule, Option<u32>)>, AgentError> {
        let wrong = |kind, rule: &str, why: String| AgentError::Rule {
            agent: self.name.clone(),
            kind,
            rule: rule.to_owned(),
            why,
        };
        let mut rules = Vec::new();
        for (kind, texts, make) in [
            (RuleKind::Cgroup, &self.cgroups, Rule::cgroup as fn(&str) -> _),
            (RuleKind::Slice, &self.slices, Rule::slice),
            (RuleKind::Unit, &self.units, Rule::unit),
        ] {
            for text in texts {
                rules.push((make(text).map_err(|why| wrong(kind, text, why.to_owned()))?, None));
            }
        }
        for text in &self.users {
            let uid = uid_of(text).map_err(|why| wrong(RuleKind::User, text, why))?;
            let rule = Rule::user(text, uid).map_err(|why| wrong(RuleKind::User, text, why.to_owned()))?;
            rules.push((rule, Some(uid)));
        }
        if self.run {
            let rule = Rule::run(&self.name).map_err(|why| wrong(RuleKind::Run, "true", why.to_owned()))?;
            rules.push((rule, None));
        }
        Ok(rules)
    }

    fn container_rules(&self) -> Result<Vec<ContainerRule>, AgentError> {
        let mut rules = Vec::new();
        for (kind, texts, make) in [
            (RuleKind::Label, &self.labels, ContainerRule::label as fn(&str) -> _),
            (RuleKind::Image, &self.images, ContainerRule::image),
        ] {
            for text in texts {
                rules.push(make(text).map_err(|why: &str| AgentError::Rule {
                    agent: self.name.clone(),
                    kind,
                    rule: text.clone(),
                    why: why.to_owned(),
                })?);
            }
        }
        Ok(rules)
    }
}

/// All configured agents with their rules, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agents {
    all: Vec<Agent>,
    /// With the places of their agents.
    rules: Vec<(usize, Rule)>,
    container_rules: Vec<(usize, ContainerRule)>,
    users: BTreeSet<u32>,
}

/// Rules of several agents name a container.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("rules of the agents {0} name this container: it can be only one's, make the rules narrower")]
pub struct Ambiguous(String);

impl Agents {
    /// Checks names and rules. `uid_of` gives the id of a user, or says why not.
    pub fn new(agents: Vec<Agent>, uid_of: impl Fn(&str) -> Result<u32, String>) -> Result<Self, AgentError> {
        let (mut rules, mut users): (Vec<(usize, Rule)>, _) = (Vec::new(), BTreeSet::new());
        let mut container_rules: Vec<(usize, ContainerRule)> = Vec::new();
        let mut names = BTreeMap::new();
        for (index, agent) in agents.iter().enumerate() {
            for name in std::iter::once(&agent.name).chain(&agent.groups) {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
                // `..` is no name of a folder.
                if name.is_empty()
                    || name.len() > 64
                    || !name.bytes().all(fits)
                    || name.bytes().all(|byte| byte == b'.')
                {
                    return Err(AgentError::Name(name.clone()));
                }
            }
            if names.insert(&agent.name, index).is_some() {
                return Err(AgentError::Twice(agent.name.clone()));
            }
            let own = agent.rules(&uid_of)?;
            let of_containers = agent.container_rules()?;
            if own.is_empty() && of_containers.is_empty() {
                return Err(AgentError::NoRule(agent.name.clone()));
            }
            for rule in of_containers {
                if let Some((of, _)) = container_rules.iter().find(|(of, other)| *of != index && *other == rule) {
                    return Err(AgentError::Rule {
                        agent: agent.name.clone(),
                        kind: rule.kind(),
                        rule: rule.text().to_owned(),
                        why: format!("the agent `{}` has the same rule: a container could be both", agents[*of].name),
                    });
                }
                container_rules.push((index, rule));
            }
            for (rule, user) in own {
                if let Some((of, other)) = rules.iter().find(|(of, other)| *of != index && other.overlaps(&rule)) {
                    return Err(AgentError::Overlap {
                        agent: agent.name.clone(),
                        rule: Box::new(rule),
                        of: agents[*of].name.clone(),
                        other: Box::new(other.clone()),
                    });
                }
                users.extend(user);
                rules.push((index, rule));
            }
        }
        Ok(Self { all: agents, rules, container_rules, users })
    }

    /// The agent that a process in this cgroup is, and the cgroup that makes its session: the deepest, if rules of one
    /// agent name several.
    pub fn of<'a>(&self, path: &'a str) -> Option<(&Agent, &'a str)> {
        let (agent, _, cgroup) = self.rule_of(path)?;
        Some((agent, cgroup))
    }

    /// As [`of`](Self::of), with the rule that says so.
    pub fn rule_of<'a>(&self, path: &'a str) -> Option<(&Agent, &Rule, &'a str)> {
        let matches =
            self.rules.iter().filter_map(|(agent, rule)| Some((&self.all[*agent], rule, rule.session(path)?)));
        // `max_by_key` keeps the last of equals, and the first configured shall win.
        matches.collect::<Vec<_>>().into_iter().rev().max_by_key(|(_, _, cgroup)| cgroup.len())
    }

    /// The agent that a container is, in a cgroup that no other rule names. It must be described whole.
    pub fn of_container(&self, container: &Container) -> Result<Option<&Agent>, Ambiguous> {
        let naming = self.container_rules.iter().filter(|(_, rule)| rule.names(container)).map(|(agent, _)| *agent);
        let agents: Vec<_> = naming.collect::<BTreeSet<_>>().into_iter().map(|agent| &self.all[agent]).collect();
        match agents[..] {
            [] => Ok(None),
            [agent] => Ok(Some(agent)),
            _ => Err(Ambiguous(agents.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>().join(", "))),
        }
    }

    /// The rules for containers, with their agents.
    pub fn container_rules(&self) -> impl Iterator<Item = (&Agent, &ContainerRule)> {
        self.container_rules.iter().map(|(agent, rule)| (&self.all[*agent], rule))
    }

    /// Whether containers are held until it is known whose they are.
    pub fn hold_containers(&self) -> bool {
        !self.container_rules.is_empty()
    }

    /// The agent with this name.
    pub fn named(&self, name: &str) -> Option<&Agent> {
        self.all.iter().find(|agent| agent.name == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Agent> {
        self.all.iter()
    }

    /// All rules, with their agents.
    pub fn rules(&self) -> impl Iterator<Item = (&Agent, &Rule)> {
        self.rules.iter().map(|(agent, rule)| (&self.all[*agent], rule))
    }

    /// The users who are agents: wherever their processes are.
    pub fn users(&self) -> &BTreeSet<u32> {
        &self.users
    }

    /// The cgroups that are enrolled, as regular expressions for whole paths.
    pub fn patterns(&self) -> Vec<String> {
        self.rules.iter().map(|(_, rule)| rule.pattern()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The folders that the daemon makes.
    pub fn folders(&self) -> Vec<String> {
        self.rules.iter().filter_map(|(_, rule)| rule.folder()).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    fn agent(name: &str, cgroups: &[&str]) -> Agent {
        Agent { name: name.to_owned(), cgroups: strings(cgroups), ..Agent::default() }
    }

    fn agents(list: &[(&str, &[&str])]) -> Result<Agents, AgentError> {
        let nobody = |_: &str| Err("no such user".to_owned());
        Agents::new(list.iter().map(|(name, cgroups)| agent(name, cgroups)).collect(), nobody)
    }

    #[test]
    fn a_cgroup_names_the_agent_and_the_session() {
        let agents = agents(&[("any", &["/agents/*", "/agents/x/job"]), ("coder", &["/coders/c-*"])]).unwrap();
        let of = |path| agents.of(path).map(|(agent, cgroup)| (agent.name.as_str(), cgroup));
        assert_eq!(of("/agents/a/b/c"), Some(("any", "/agents/a")));
        assert_eq!(of("/agents/x/job/deep"), Some(("any", "/agents/x/job")));
        assert_eq!(of("/coders/c-1"), Some(("coder", "/coders/c-1")));
        assert_eq!(of("/coders/d-1"), None);
        assert_eq!(of("/agents"), None);
        assert_eq!(of("/other/a"), None);
        assert_eq!(agents.folders(), ["/agents", "/agents/x/job", "/coders"]);
    }

    #[test]
    fn users_are_their_slices_and_bound() {
        let agent = Agent { name: "a".into(), users: strings(&["coder", "77"]), ..Agent::default() };
        let uid_of = |user: &str| user.parse().or(Ok(1000));
        let agents = Agents::new(vec![agent.clone()], uid_of).unwrap();
        assert_eq!(agents.users(), &BTreeSet::from([77, 1000]));
        let (_, rule, cgroup) = agents.rule_of("/user.slice/user-77.slice/session-1.scope/x").unwrap();
        assert_eq!((rule.to_string().as_str(), cgroup), ("users \"77\"", "/user.slice/user-77.slice/session-1.scope"));
        let unknown = Agents::new(vec![agent], |_| Err("there is no such user".to_owned())).unwrap_err();
        assert_eq!(unknown.place(), ("a", Some(("users", "coder"))));
        assert!(unknown.to_string().contains("no such user"), "{unknown}");
    }

    #[test]
    fn a_container_is_one_agents() {
        let agent = |name: &str, labels: &[&str], images: &[&str]| Agent {
            name: name.into(),
            labels: strings(labels),
            images: strings(images),
            ..Agent::default()
        };
        let nobody = |_: &str| Err("no such user".to_owned());
        let list = vec![agent("red", &["team=red"], &[]), agent("any", &["agent"], &["example.com/agents/*"])];
        let agents = Agents::new(list, nobody).unwrap();
        let of = |labels: &[&str], image: &str| {
            let labels = labels.iter().map(|label| label.split_once('=').unwrap_or((label, "")));
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let container = Container { labels, image: image.into(), ..Container::default() };
            agents.of_container(&container).map(|agent| agent.map(|agent| agent.name.clone()))
        };
        assert_eq!(of(&["team=red"], "x"), Ok(Some("red".into())));
        assert_eq!(of(&["agent", "x=y"], "example.com/agents/a"), Ok(Some("any".into())));
        assert_eq!(of(&["team=blue"], "example.com/x"), Ok(None));
        assert!(of(&["team=red"], "example.com/agents/a").unwrap_err().to_string().contains("red, any"));
        let same = Agents::new(vec![agent("a", &["x"], &[]), agent("b", &["x"], &[])], nobody).unwrap_err();
        assert_eq!(same.place(), ("b", Some(("labels", "x"))));
    }

    #[test]
    fn what_is_wrong_is_refused_and_has_a_place() {
        let error = agents(&[("a", &["/x"]), ("b", &["/init.scope"])]).unwrap_err();
        assert_eq!(error.place(), ("b", Some(("cgroups", "/init.scope"))));
        assert!(error.to_string().contains("PID 1"), "{error}");
        let error = agents(&[("a", &["/x/*"]), ("b", &["/y", "/x/b-*"])]).unwrap_err();
        assert_eq!(error.place(), ("b", Some(("cgroups", "/x/b-*"))));
        assert!(error.to_string().contains("overlaps with cgroups \"/x/*\" of the agent `a`"), "{error}");
        assert_eq!(agents(&[("a b", &["/x"])]).unwrap_err(), AgentError::Name("a b".into()));
        assert_eq!(agents(&[("..", &["/x"])]).unwrap_err(), AgentError::Name("..".into()));
        assert_eq!(agents(&[("a", &["/x"]), ("a", &["/y"])]).unwrap_err(), AgentError::Twice("a".into()));
        assert_eq!(agents(&[("a", &[])]).unwrap_err(), AgentError::NoRule("a".into()));
    }
}
