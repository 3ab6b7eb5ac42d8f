//! What was in force last: as much of it as having agents refused takes, users by their numbers. After a boot the kernel
//! knows of no agent: a daemon that can't start then, for a mistake in its configuration, a user that can't be looked up or
//! a full disk, has the hooks refuse those of before all the same. Whatever of it can't be used is said, and the rest holds.

mod file;
mod places;

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use chaperone_capture::{Capture, CaptureConfig, CaptureError, CgroupRules, LsmHooks, PendingPatterns, remove_pins};
use chaperone_identity::{Agent, Agents, Containers};
use serde::Serialize;

use crate::{
    config::{Config, ConfigError, ContainersSection, Journal, Paths},
    daemon, enrolment,
};

/// What is kept of a configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InForce {
    version: u32,
    /// The configuration's file.
    config: PathBuf,
    /// The daemon's folders and sockets.
    pub paths: Paths,
    /// Cgroups that are enrolled, as regular expressions for whole paths.
    patterns: BTreeSet<String>,
    /// Cgroups that are made.
    folders: BTreeSet<String>,
    /// Users who are bound, by number.
    users: BTreeSet<u32>,
    /// Proxies that are captured.
    proxies: BTreeSet<SocketAddr>,
    /// Agents that are containers.
    container_rules: Vec<ContainerRules>,
    containers: ContainersSection,
    /// Where taking the hooks off is recorded.
    pub journal: Journal,
    /// All files that this is kept in.
    kept_in: BTreeSet<PathBuf>,
}

/// An agent's rules for containers.
#[derive(Clone, Debug, Default, Serialize)]
struct ContainerRules {
    name: String,
    labels: Vec<String>,
    images: Vec<String>,
}

impl InForce {
    /// What that version of the file has.
    const VERSION: u32 = 1;

    fn of(config: &Config, agents: &Agents) -> Self {
        let (users, _) = config.capture.known_user_ids();
        let of_containers = agents.iter().filter(|agent| !(agent.labels.is_empty() && agent.images.is_empty()));
        Self {
            version: Self::VERSION,
            config: places::absolute(config.path()),
            paths: config.paths.clone(),
            patterns: agents.patterns().into_iter().collect(),
            folders: agents.folders().into_iter().collect(),
            users: &users | agents.users(),
            proxies: config.capture.known_proxy_addresses().0,
            container_rules: of_containers
                .map(|Agent { name, labels, images, .. }| ContainerRules {
                    name: name.clone(),
                    labels: labels.clone(),
                    images: images.clone(),
                })
                .collect(),
            containers: config.containers.clone(),
            journal: config.journal.clone(),
            kept_in: BTreeSet::new(),
        }
    }

    /// With what another says besides.
    fn and(mut self, more: Self) -> Self {
        self.patterns.extend(more.patterns);
        self.folders.extend(more.folders);
        self.users.extend(more.users);
        self.proxies.extend(more.proxies);
        for ContainerRules { name, labels, images } in more.container_rules {
            match self.container_rules.iter_mut().find(|rules| rules.name == name) {
                Some(rules) => {
                    rules.labels.extend(labels);
                    rules.images.extend(images);
                }
                None => self.container_rules.push(ContainerRules { name, labels, images }),
            }
        }
        self
    }

    fn rules(&self) -> CgroupRules {
        let held = Containers::pattern();
        let held = PendingPatterns { held: &held, never_below: Containers::users_pattern() };
        let held = (!self.container_rules.is_empty()).then_some(held);
        let (mut patterns, wrong): (Vec<_>, Vec<_>) =
            self.patterns.iter().cloned().partition(|pattern| CgroupRules::is_pattern(pattern));
        for pattern in wrong {
            tracing::error!(pattern, "this rule can't be used: the cgroups that it names are not refused");
        }
        loop {
            match CgroupRules::with_held(&patterns, held) {
                Ok(rules) => return rules,
                Err(error) => match patterns.pop() {
                    Some(pattern) => {
                        tracing::error!(pattern, %error, "the cgroups that this rule names are not refused");
                    }
                    None => return CgroupRules::default(),
                },
            }
        }
    }

    /// Whose containers are; `None` if that can't be told for want of a rule: then all of them are held.
    fn agents_of_containers(&self) -> Option<Agents> {
        let agent = |ContainerRules { name, labels, images }: &ContainerRules| Agent {
            name: name.clone(),
            labels: labels.clone(),
            images: images.clone(),
            ..Agent::default()
        };
        let agents = Agents::new(self.container_rules.iter().map(agent).collect(), |_| Err("BUG: a user".to_owned()));
        agents
            .map_err(|error| tracing::error!(%error, "whose containers are isn't known: all of them are refused"))
            .ok()
    }
}

/// Keeps it, whole or not at all, in the daemon's own folder and in the one that is found whatever the configuration says.
/// An error if neither works.
pub fn remember(config: &Config, agents: &Agents) -> Result<(), ConfigError> {
    let places = places::of(config.path(), Some(&config.paths.state));
    let mut now = InForce::of(config, agents);
    now.kept_in = places.iter().cloned().collect();
    let before = file::find(&places, config.path()).map(|(before, _)| before.kept_in).unwrap_or_default();
    let (mut kept, mut trouble) = (false, Vec::new());
    for place in &places {
        match file::write(place, &now) {
            Ok(()) => kept = true,
            Err(error) => trouble.push(format!("{}: {error}", place.display())),
        }
    }
    if !kept {
        return Err(ConfigError(format!(
            "keeping what is in force, for a boot at which the configuration is wrong: {}; make room there, or name another \
             folder by `paths.state`",
            trouble.join("; ")
        )));
    }
    for why in trouble {
        tracing::warn!(
            why,
            "what is in force isn't kept there: if this daemon can't start after a boot, and its configuration doesn't tell \
             `paths.state` any more, agents are free then; let systemd make a folder by `StateDirectory=`"
        );
    }
    let former = places.iter().map(|place| places::former(place));
    for place in before.difference(&now.kept_in).cloned().chain(former) {
        if let Err(error) = remove(&place) {
            tracing::warn!(place = %place.display(), %error, "what was in force before is still kept there");
        }
    }
    Ok(())
}

/// Takes off the hooks of the daemon before, if its folder in the BPF filesystem was another one: nothing listens for them
/// any more. This one's know the agents by now.
pub fn replace_hooks_elsewhere(config: &Config) -> anyhow::Result<()> {
    let Some((before, _)) = file::find(&places::of(config.path(), Some(&config.paths.state)), config.path()) else {
        return Ok(());
    };
    let bpffs = before.paths.bpffs;
    if bpffs == config.paths.bpffs {
        return Ok(());
    }
    match remove_pins(&bpffs) {
        Ok(true) => {
            tracing::info!(bpffs = %bpffs.display(), "`paths.bpffs` changed: the hooks that were pinned there are off");
        }
        // Another daemon's by now.
        Ok(false) | Err(CaptureError::AlreadyRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// What is kept, and the file.
pub fn kept(path: &Path) -> Option<(InForce, PathBuf)> {
    file::find(&places::of(path, places::state_said_by(path).as_deref()), path)
}

/// The hooks were taken off on purpose: nobody is to be refused any more.
pub fn forget(path: &Path) -> io::Result<()> {
    let places = places::of(path, places::state_said_by(path).as_deref());
    let elsewhere = file::find(&places, path).map(|(before, _)| before.kept_in).unwrap_or_default();
    let mine = |place: &PathBuf| file::is_of(place, path);
    for place in elsewhere.iter().chain(&places).filter(|place| mine(place)) {
        remove(place)?;
        remove(&places::former(place))?;
    }
    Ok(())
}

fn remove(place: &Path) -> io::Result<()> {
    match fs::remove_file(place) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        done => done,
    }
}

/// For a daemon that failed before its agents were enrolled: has the hooks refuse those that were in force before. Says what
/// it did; who calls has an error of its own to tell.
pub fn hold(path: &Path) {
    // Who can't look has no hooks to attach either.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let kept = kept(path);
    let (by, in_force) = match (kept, said_besides(path)) {
        (Some((kept, by)), None) => (by, kept),
        (Some((kept, by)), Some(more)) => (by, kept.and(more)),
        (None, Some(said)) => (path.to_owned(), said),
        (None, None) => {
            let places = places::of(path, places::state_said_by(path).as_deref());
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            tracing::error!(
                places = places.join(", "),
                "the daemon can't start, and it isn't kept what was in force before: no agent can be refused; unless hooks are \
                 still on, what agents do now goes unseen"
            );
            return;
        }
    };
    match hold_by(&in_force) {
        Ok(()) => tracing::warn!(
            by = %by.display(),
            "the daemon can't start: until it does, the hooks refuse the agents of the configuration that was in force last"
        ),
        // It serves them.
        Err(error) if matches!(error.downcast_ref(), Some(CaptureError::AlreadyRunning { .. })) => {}
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            by = %by.display(),
            "the daemon can't start, and the agents of the configuration that was in force last can't all be refused either: \
             unless the hooks are still on, what they do now goes unseen"
        ),
    }
}

/// The rules of a configuration in which no more is wrong than users whom nobody knows.
fn said_besides(path: &Path) -> Option<InForce> {
    let config = Config::read(path).ok()?;
    let (agents, unknown) = config.known_agents().ok()?;
    let (_, unbound) = config.capture.known_user_ids();
    if unknown.is_empty() && unbound.is_empty() {
        return None;
    }
    for why in unknown.iter().chain(&unbound) {
        tracing::error!(%why, "this rule is not in force; the others are, and those that were in force last");
    }
    enrolment::check(&config, &agents).ok()?;
    Some(InForce::of(&config, &agents))
}

/// All that can be attached is, and each rule holds that can.
fn hold_by(in_force: &InForce) -> anyhow::Result<()> {
    let capture = CaptureConfig {
        bpffs: in_force.paths.bpffs.clone(),
        cgroup_root: None,
        lsm: LsmHooks::WhereAvailable,
        mask: Arc::default(),
    };
    let capture = Capture::attach(&capture)?;
    for (hook, reason) in capture.missing_hooks() {
        tracing::error!(hook, reason, "this hook can't be attached; the others are");
    }
    if let Err(error) = daemon::exempt_self(&capture) {
        tracing::error!(error = format!("{error:#}"), "this process can't be told from agents");
    }
    for path in &in_force.folders {
        let folder = capture.cgroup_root().join(path.trim_start_matches('/'));
        if let Err(error) = fs::create_dir_all(&folder) {
            tracing::error!(cgroup = %folder.display(), %error, "an agents' cgroup can't be made");
        }
    }
    if let Err(error) = capture.capture_proxies(&in_force.proxies) {
        tracing::error!(%error, "what goes by these proxies isn't refused");
    }
    let (containers, agents) = (in_force.containers.containers(), in_force.agents_of_containers());
    let enrolled = enrolment::enroll_cgroups(&capture, &in_force.rules(), &containers, agents.as_ref());
    let bound = capture.bind_users(&in_force.users);
    enrolled.context("enrolling them")?;
    bound.context("binding their users")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const AGENTS: &str =
        "[[agents]]\nname = \"coder\"\ncgroups = [\"/agents/*\"]\nusers = [\"77\"]\nlabels = [\"team=red\"]\n";

    /// A configuration whose daemon has a folder of its own, and what that is kept as there.
    fn configured(folder: &Path) -> (Config, PathBuf) {
        let path = folder.join("config.toml");
        let text = format!("{AGENTS}[capture]\nusers = [\"78\"]\n[paths]\nstate = \"{}\"\n", folder.display());
        fs::write(&path, text).unwrap();
        (Config::read(&path).unwrap(), folder.join("in-force.json"))
    }

    /// As [`remember`], in this folder alone.
    fn keep(config: &Config, place: &Path) {
        let mut now = InForce::of(config, &config.agents().unwrap());
        now.kept_in.insert(place.to_owned());
        file::write(place, &now).unwrap();
    }

    fn found(place: &Path, config: &Config) -> Option<InForce> {
        file::find(&[place.to_owned()], config.path()).map(|(found, _)| found)
    }

    #[test]
    fn it_is_kept_for_root_alone_and_users_by_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let (config, place) = configured(folder.path());
        keep(&config, &place);
        keep(&config, &place);
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
        let found = found(&place, &config).unwrap();
        assert_eq!(found.users, BTreeSet::from([77, 78]));
        assert_eq!(found.paths.bpffs, config.paths.bpffs);
        assert!(found.rules().name("/agents") && found.rules().name("/user.slice/user-77.slice"), "{found:?}");
        assert!(found.agents_of_containers().unwrap().hold_containers());
    }

    #[test]
    fn what_cant_be_read_of_it_costs_no_more_than_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (config, place) = configured(folder.path());
        keep(&config, &place);
        let mut value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&place).unwrap()).unwrap();
        value["version"] = 2.into();
        value["later"] = serde_json::json!({ "x": 1 });
        value["users"].as_array_mut().unwrap().push("no number".into());
        value["patterns"].as_array_mut().unwrap().push("(".into());
        value["paths"]["later"] = 1.into();
        value["paths"]["bpffs"] = "/sys/fs/bpf/x".into();
        value["journal"]["durability"] = "later".into();
        value["journal"]["dir"] = "/srv/journal".into();
        fs::write(&place, value.to_string()).unwrap();
        let read = found(&place, &config).unwrap();
        assert_eq!(read.users, BTreeSet::from([77, 78]));
        assert!(read.rules().name("/agents"));
        assert_eq!((read.paths.bpffs, read.journal.dir), ("/sys/fs/bpf/x".into(), "/srv/journal".into()));
        fs::write(&place, "{").unwrap();
        assert!(found(&place, &config).is_none());
    }

    #[test]
    fn the_former_one_is_read_and_a_user_who_is_gone_frees_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let (config, place) = configured(folder.path());
        let former = format!(
            "nonsense = 1\n{AGENTS}[[agents]]\nname = \"b\"\nunits = [\"b.service\"]\nusers = [\"nobody-at-all\"]\n\
             [capture]\nlater = 1\nusers = [\"nobody-at-all\", \"78\"]\n[paths]\nbpffs = \"/sys/fs/bpf/x\"\n"
        );
        fs::write(places::former(&place), former).unwrap();
        let read = found(&place, &config).unwrap();
        assert_eq!(read.users, BTreeSet::from([77, 78]));
        assert!(read.rules().name("/agents") && read.rules().name("/system.slice/b.service"), "{read:?}");
        assert_eq!(read.paths.bpffs, Path::new("/sys/fs/bpf/x"));
    }

    #[test]
    fn what_others_could_have_put_there_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (config, place) = configured(folder.path());
        keep(&config, &place);
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&place, &elsewhere).unwrap();
        symlink(&elsewhere, &place).unwrap();
        assert!(found(&place, &config).is_none());
        // What is written takes the link's place.
        keep(&config, &place);
        assert!(found(&place, &config).is_some() && !fs::symlink_metadata(&place).unwrap().is_symlink());
        fs::set_permissions(&place, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(found(&place, &config).is_none());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = file::write(&place, &InForce::of(&config, &config.agents().unwrap())).unwrap_err().to_string();
        assert!(error.contains("chmod go-w"), "{error}");
    }

    #[test]
    fn two_agents_of_one_name_are_one() {
        let rules = |label: &str| ContainerRules { name: "a".into(), labels: vec![label.into()], images: Vec::new() };
        let of = |label: &str| InForce { container_rules: vec![rules(label)], ..InForce::default() };
        assert_eq!(of("x").and(of("y")).agents_of_containers().unwrap().container_rules().count(), 2);
    }
}
