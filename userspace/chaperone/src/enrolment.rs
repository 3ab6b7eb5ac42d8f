//! The rules of enrolment, put in force, and what became of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use chaperone_capture::{Capture, CaptureError, CgroupRules, PreexistingConnection, cgroup_tree};
use chaperone_identity::{Agents, Containers, RuleKind};
use chaperone_model::{CgroupId, SessionId};
use serde::Serialize;

use crate::{
    config::{Config, ConfigError},
    network_admin, sandbox,
};

/// What would cut the daemon off from AWS, or the host from itself, as far as the configuration alone can't tell.
pub fn check(config: &Config, agents: &Agents) -> anyhow::Result<()> {
    Containers::usable().map_err(|error| {
        ConfigError(format!(
            "reading container engines' files takes openat2(2), which this process may not use ({error}): no container could \
             be told from another; under systemd, RestrictSUIDSGID=yes forbids it"
        ))
    })?;
    let own = sandbox::own_cgroup()?;
    // In a container, it is of the host's first process or of nobody's: then there is nothing to see.
    let first = sandbox::cgroup_of("/proc/1/cgroup").ok().flatten().unwrap_or_default();
    for (agent, rule) in agents.rules() {
        let place = config.place(&agent.name, Some((rule.kind().key(), rule.text())));
        if rule.covers(&own) {
            return Err(ConfigError(format!(
                "{place}: agent `{}`, {rule}: the daemon itself runs in {own}, which this would enrol: start it \
                 elsewhere, or give the agents another cgroup",
                agent.name
            ))
            .into());
        }
        if rule.covers(&first) {
            return Err(ConfigError(format!(
                "{place}: agent `{}`, {rule}: it would enrol PID 1, which runs in {first}",
                agent.name
            ))
            .into());
        }
    }
    Ok(())
}

/// Has the hooks enrol what the rules name, now and when it appears; withdraws what others named; binds users. Warns of
/// rules that name nothing that is there.
pub fn enroll(capture: &Capture, config: &Config, agents: &Agents) -> anyhow::Result<()> {
    for path in agents.folders() {
        let folder = capture.cgroup_root().join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder)
            .map_err(|error| ConfigError(format!("making the cgroup {}: {error}", folder.display())))?;
    }
    capture.capture_proxies(&config.captured_proxies()?)?;
    enroll_cgroups(capture, &config.cgroup_rules(agents)?, &config.containers.containers(), Some(agents))?;
    let users: BTreeSet<u32> = &config.bound_users()? | agents.users();
    capture.bind_users(&users)?;
    let report = Report::of(config, agents, capture.cgroup_root());
    for rule in report.unmatched() {
        tracing::warn!(agent = rule.agent, rule = rule.rule, place = rule.place, "{UNMATCHED}");
    }
    for container in report.unsupported() {
        let Unsupported { agent, cgroup, runtime } = container;
        tracing::error!(agent, cgroup, runtime, "{UNSUPPORTED}");
    }
    Ok(())
}

/// Has the hooks enrol what the rules name, now and when it appears, and withdraws what others named. Containers are whose
/// `agents` say; where that isn't known, they are held.
pub fn enroll_cgroups(
    capture: &Capture,
    rules: &CgroupRules,
    containers: &Containers,
    agents: Option<&Agents>,
) -> anyhow::Result<()> {
    for earlier in capture.enroll_by_and(rules, || enroll_containers(capture, containers, agents, rules))? {
        tracing::warn!(
            peer = %earlier.peer,
            local = %earlier.local,
            cgroup = earlier.cgroup.0,
            uid = earlier.uid,
            destroyed = earlier.destroyed,
            "an agent's connection was there before its cgroup was enrolled"
        );
    }
    Ok(())
}

/// Decides on the containers that are there already. Those that an earlier daemon's hooks held are held until then, others
/// were free; what can't be decided is held from now on.
fn enroll_containers(
    capture: &Capture,
    containers: &Containers,
    agents: Option<&Agents>,
    rules: &CgroupRules,
) -> anyhow::Result<Vec<PreexistingConnection>> {
    let mut earlier = Vec::new();
    let enrolled: BTreeSet<_> = capture.enrolled()?.into_iter().collect();
    let held: BTreeSet<_> = capture.held()?.into_iter().collect();
    let tree = cgroup_tree(capture.cgroup_root(), MAX_CGROUPS);
    // One that isn't looked at would be free.
    anyhow::ensure!(
        tree.len() < MAX_CGROUPS,
        "this host has more than {MAX_CGROUPS} cgroups, so that not all containers can be found: remove those that nobody is in"
    );
    for (path, id) in tree.into_iter().filter(|(path, _)| rules.hold(path)) {
        let described = agents.and_then(|agents| Some(agents.of_container(&containers.described(&path)?)));
        let done = match described {
            Some(Ok(None)) => capture.withdraw(id).map(|()| Vec::new()),
            Some(Ok(Some(_))) if held.contains(&id) => capture.confirm(id).map(|()| Vec::new()),
            Some(Ok(Some(_))) => capture.enroll(id),
            // Whoever decides on those that appear later tells why.
            Some(Err(_)) | None if enrolled.contains(&id) => Ok(Vec::new()),
            Some(Err(_)) | None => capture.hold(id),
        };
        match done {
            Err(CaptureError::CgroupGone { .. }) => {}
            done => earlier.extend(done?),
        }
    }
    Ok(earlier)
}

/// What is said of a rule that names no cgroup that is there.
pub const UNMATCHED: &str = "this rule matches no cgroup now; if its agents should be running, it is wrong";

/// What is said of a container of which it can't be told whose it is.
pub const UNDECIDED: &str = "it isn't known whose this container is, so it is held, and refused: `[containers]` doesn't name \
                             its engine's folder, or rules of several agents name it";

/// What is said of an agent's container whose runtime has a network of its own.
pub const UNSUPPORTED: &str = "what this container sends can't be captured: its runtime has a network of its own, not this \
                               host's sockets; run agents by runc or crun";

/// What is said of an agent's container that may change its network.
pub const NETWORK_ADMIN: &str = "it has CAP_NET_ADMIN, and its network has a way out: by rules of its own it can send to AWS \
                                 what the hooks took for something else; run it without that capability (and not privileged), \
                                 or without a network";

/// What became of the rules.
pub struct Report {
    rules: Vec<RuleReport>,
    tree: Vec<(String, CgroupId)>,
    undecided: Vec<String>,
    unsupported: Vec<Unsupported>,
    admins: Vec<NetworkAdmin>,
}

/// An agent's container that can't be captured.
pub struct Unsupported {
    /// Whose.
    pub agent: String,
    /// Where.
    pub cgroup: String,
    /// As its engine names it, such as `io.containerd.kata.v2`.
    pub runtime: String,
}

/// An agent's container that may change its network.
pub struct NetworkAdmin {
    /// Whose.
    pub agent: String,
    /// Where.
    pub cgroup: String,
    /// One of its processes that has the capability.
    pub pid: u32,
}

/// What became of one rule.
#[derive(Debug, Serialize)]
pub struct RuleReport {
    /// The agent.
    pub agent: String,
    /// As it is configured, such as `units "agent-*.service"`.
    pub rule: String,
    /// Where.
    pub place: String,
    /// Whether it names no cgroup that is there. What `chaperone run` starts comes and goes, and isn't missed.
    pub unmatched: bool,
    /// Those that it names: a session each, as soon as they do something. At most 1,000.
    pub cgroups: Vec<String>,
    /// The cgroups that it enrolled: those or the ones that they are in. At most 1,000.
    pub enrolled: Vec<String>,
    /// The sessions that are open by it.
    pub sessions: Vec<SessionId>,
}

/// How many cgroups of the host are looked at, and how many are told of a rule.
pub const MAX_CGROUPS: usize = 100_000;
const MAX_TOLD: usize = 1000;

impl Report {
    /// Of the cgroups that are there.
    pub fn of(config: &Config, agents: &Agents, cgroup_root: &Path) -> Self {
        let tree = cgroup_tree(cgroup_root, MAX_CGROUPS);
        let mut rules: Vec<_> = agents
            .rules()
            .map(|(agent, rule)| RuleReport {
                agent: agent.name.clone(),
                rule: rule.to_string(),
                place: config.place(&agent.name, Some((rule.kind().key(), rule.text()))),
                unmatched: rule.kind() != RuleKind::Run,
                cgroups: told(&tree, |path| {
                    let session = rule.session(path);
                    session == Some(path) || (session.is_some() && Containers::cgroup(path) == Some(path))
                }),
                enrolled: told(&tree, |path| rule.enrols(path)),
                sessions: Vec::new(),
            })
            .collect();
        let undecided = Self::of_containers(config, agents, &tree, &mut rules);
        for rule in &mut rules {
            rule.unmatched &= rule.cgroups.is_empty();
        }
        let unsupported = Self::unsupported_in(config, agents, &tree);
        let admins = Self::admins_in(config, agents, cgroup_root, &tree);
        Self { rules, tree, undecided, unsupported, admins }
    }

    /// The agents' containers among these cgroups that can't be captured.
    fn unsupported_in(config: &Config, agents: &Agents, tree: &[(String, CgroupId)]) -> Vec<Unsupported> {
        let containers = config.containers.containers();
        let own = tree.iter().filter(|(path, _)| Containers::cgroup(path) == Some(path));
        own.filter_map(|(path, _)| {
            let container = containers.described(path)?;
            let runtime = Containers::unsupported_runtime(&container)?.to_owned();
            let agent = agents.of(path).map(|(agent, _)| agent);
            let agent = agent.or_else(|| agents.of_container(&container).ok().flatten())?;
            Some(Unsupported { agent: agent.name.clone(), cgroup: path.clone(), runtime })
        })
        .collect()
    }

    /// The agents' containers among these cgroups that may change their network.
    fn admins_in(config: &Config, agents: &Agents, root: &Path, tree: &[(String, CgroupId)]) -> Vec<NetworkAdmin> {
        let containers = config.containers.containers();
        let mut admins: BTreeMap<&str, NetworkAdmin> = BTreeMap::new();
        for (path, _) in tree {
            let Some(cgroup) = Containers::cgroup(path).filter(|cgroup| !admins.contains_key(cgroup)) else { continue };
            let Some(pid) = network_admin::in_cgroup(&root.join(path.trim_start_matches('/'))) else { continue };
            let described = || agents.of_container(&containers.described(cgroup)?).ok().flatten();
            if let Some(agent) = agents.of(cgroup).map(|(agent, _)| agent).or_else(described) {
                admins.insert(cgroup, NetworkAdmin { agent: agent.name.clone(), cgroup: cgroup.to_owned(), pid });
            }
        }
        admins.into_values().collect()
    }

    /// Adds the rules for containers, which are described anew, and are in no cgroup that another rule names. Gives the
    /// cgroups of those of which it can't be told whose they are.
    fn of_containers(
        config: &Config,
        agents: &Agents,
        tree: &[(String, CgroupId)],
        rules: &mut Vec<RuleReport>,
    ) -> Vec<String> {
        if !agents.hold_containers() {
            return Vec::new();
        }
        let containers = config.containers.containers();
        let is_held = |path: &str| Containers::cgroup(path) == Some(path) && agents.of(path).is_none();
        let held = tree.iter().map(|(path, _)| path).filter(|path| is_held(path));
        let (mut described, mut undecided) = (Vec::new(), Vec::new());
        for path in held {
            match containers.described(path) {
                Some(container) if agents.of_container(&container).is_ok() => described.push((path, container)),
                // A user's own is never held.
                _ if Containers::is_users(path) => {}
                _ => undecided.push(path.clone()),
            }
        }
        rules.extend(agents.container_rules().map(|(agent, rule)| {
            let named = described.iter().filter(|(_, container)| rule.names(container));
            let cgroups: Vec<String> = named.map(|(path, _)| (*path).clone()).take(MAX_TOLD).collect();
            RuleReport {
                agent: agent.name.clone(),
                rule: rule.to_string(),
                place: config.place(&agent.name, Some((rule.kind().key(), rule.text()))),
                // Containers come and go.
                unmatched: false,
                enrolled: cgroups.clone(),
                cgroups,
                sessions: Vec::new(),
            }
        }));
        undecided
    }

    /// The cgroups of containers that are held, since it can't be told whose they are.
    pub fn undecided(&self) -> &[String] {
        &self.undecided
    }

    /// The agents' containers that can't be captured, for their runtime.
    pub fn unsupported(&self) -> &[Unsupported] {
        &self.unsupported
    }

    /// The agents' containers that may change their network, and so where their packets go.
    pub fn network_admins(&self) -> &[NetworkAdmin] {
        &self.admins
    }

    /// Those that name nothing.
    pub fn unmatched(&self) -> impl Iterator<Item = &RuleReport> {
        self.rules.iter().filter(|rule| rule.unmatched)
    }

    /// With what the hooks say is enrolled, and the sessions that are open.
    pub fn with(mut self, enrolled: &[CgroupId], sessions: &BTreeMap<CgroupId, SessionId>) -> Vec<RuleReport> {
        let enrolled: BTreeSet<&str> = {
            let ids: BTreeSet<_> = enrolled.iter().collect();
            self.tree.iter().filter(|(_, id)| ids.contains(id)).map(|(path, _)| path.as_str()).collect()
        };
        let by_path: BTreeMap<&str, SessionId> =
            self.tree.iter().filter_map(|(path, id)| Some((path.as_str(), *sessions.get(id)?))).collect();
        for rule in &mut self.rules {
            rule.enrolled.retain(|path| enrolled.contains(path.as_str()));
            rule.sessions = rule.cgroups.iter().filter_map(|path| by_path.get(path.as_str()).copied()).collect();
        }
        self.rules
    }
}

fn told(tree: &[(String, CgroupId)], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    tree.iter().filter(|(path, _)| wanted(path)).map(|(path, _)| path.clone()).take(MAX_TOLD).collect()
}
