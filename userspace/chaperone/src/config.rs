//! The configuration file: what it may say, and what is wrong with it, with the place.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use chaperone_capture::{ArgumentMask, CgroupRules, LsmHooks, PendingPatterns};
use chaperone_identity::{Agent, Agents, Containers, EngineFolders};
use chaperone_journal::{Durability, JournalConfig};
use chaperone_proxy::{Limits, Rule};
use chaperone_warehouse::{Warehouse, WarehouseConfig};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{approvals::ApprovalsSection, masking::MaskingSection, roles::RoleSection};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/chaperone/config.toml";

/// Domains that the CA may vouch for besides the inspected names: AWS's API names in every partition.
pub const AWS_DOMAINS: [&str; 10] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.aws",
    "on.aws",
    "api.amazonwebservices.com.cn",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

/// A configuration that can't be used: for people, with file, line and remedy. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which cgroups are whose.
    pub agents: Vec<Agent>,
    /// Folders and sockets.
    #[serde(default)]
    pub paths: Paths,
    /// The kernel hooks.
    #[serde(default)]
    pub capture: CaptureSection,
    /// What agents execute.
    #[serde(default)]
    pub commands: CommandsSection,
    /// Where containers are described.
    #[serde(default)]
    pub containers: ContainersSection,
    /// The record.
    #[serde(default)]
    pub journal: Journal,
    /// The policies.
    #[serde(default)]
    pub policy: Policy,
    /// The way to AWS.
    #[serde(default)]
    pub upstream: Upstream,
    /// What agents are told of AWS, and what we are.
    #[serde(default)]
    pub aws: Aws,
    /// Whose authority agents' calls are made by.
    #[serde(default)]
    pub roles: Vec<RoleSection>,
    /// The data path.
    #[serde(default)]
    pub proxy: Proxy,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Secrets in answers.
    #[serde(default)]
    pub masking: MaskingSection,
    /// Who approves calls.
    #[serde(default)]
    pub approvals: ApprovalsSection,
    /// Prometheus.
    #[serde(default)]
    pub metrics: Metrics,
    /// ClickHouse, if there is one.
    pub warehouse: Option<WarehouseSection>,
    #[serde(skip)]
    source: Source,
}

/// The file itself, for telling places in it.
#[derive(Clone, Debug, Default)]
struct Source {
    path: PathBuf,
    text: String,
}

/// Folders and sockets.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// The daemon's own folder; the CA is in `ca/` below it.
    pub state: PathBuf,
    /// The control socket.
    pub control: PathBuf,
    /// The approvers' socket, which any user may connect to.
    pub approvals: PathBuf,
    /// The daemon's folder in the BPF filesystem.
    pub bpffs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state: "/var/lib/chaperone".into(),
            control: "/run/chaperone/control.sock".into(),
            approvals: "/run/chaperone/approvals.sock".into(),
            bpffs: "/sys/fs/bpf/chaperone".into(),
        }
    }
}

impl Paths {
    /// The CA's folder.
    pub fn ca(&self) -> PathBuf {
        self.state.join("ca")
    }
}

/// The kernel hooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSection {
    /// Whether the daemon starts where the kernel doesn't take the hooks of the LSM.
    pub lsm: Lsm,
    /// Users, by name or number, whose processes are agents' wherever they are: outside of enrolled cgroups they get no
    /// network.
    pub users: Vec<String>,
}

impl CaptureSection {
    /// The users' ids.
    pub fn user_ids(&self) -> Result<BTreeSet<u32>, ConfigError> {
        let (ids, mut wrong) = self.known_user_ids();
        if wrong.is_empty() { Ok(ids) } else { Err(wrong.remove(0)) }
    }

    /// The ids of those that there are and that can be bound, and what is wrong with the others.
    pub fn known_user_ids(&self) -> (BTreeSet<u32>, Vec<ConfigError>) {
        let (mut ids, mut wrong) = (BTreeSet::new(), Vec::new());
        for user in &self.users {
            match user_id(user) {
                Ok(0) => wrong.push("root can't be bound: the host's own services are root's".to_owned()),
                Ok(id) => drop(ids.insert(id)),
                Err(why) => wrong.push(why),
            }
        }
        (ids, wrong.into_iter().map(|why| ConfigError(format!("capture.users: {why}"))).collect())
    }
}

/// The id of a user by name or number.
pub fn user_id(user: &str) -> Result<u32, String> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    match nix::unistd::User::from_name(user) {
        Ok(Some(found)) => Ok(found.uid.as_raw()),
        Ok(None) => Err(format!("there is no user `{user}` on this host")),
        Err(error) => Err(format!("looking up `{user}`: {error}")),
    }
}

/// What to do where the kernel doesn't take the hooks of the LSM.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Lsm {
    /// The daemon doesn't start.
    #[default]
    Required,
    /// It says what agents can do for the lack of them, and goes on.
    Optional,
}

impl From<Lsm> for LsmHooks {
    fn from(lsm: Lsm) -> Self {
        match lsm {
            Lsm::Required => Self::Required,
            Lsm::Optional => Self::WhereAvailable,
        }
    }
}

/// Where containers are described.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersSection {
    /// podman's and CRI-O's storage: `graphroot` and `runroot` in storage.conf.
    pub podman: Vec<PathBuf>,
    /// Docker's `data-root`.
    pub docker: Vec<PathBuf>,
    /// containerd's `state` and `root`.
    pub containerd: Vec<PathBuf>,
    /// The kubelet's `--root-dir`.
    pub kubelet: Vec<PathBuf>,
    /// Whether the storage in a user's home describes the containers of that user's own podman.
    pub rootless: bool,
}

impl Default for ContainersSection {
    fn default() -> Self {
        Self {
            podman: vec!["/var/lib/containers/storage".into(), "/run/containers/storage".into()],
            docker: vec!["/var/lib/docker".into()],
            containerd: vec!["/run/containerd".into(), "/var/lib/containerd".into()],
            kubelet: vec!["/var/lib/kubelet".into()],
            rootless: true,
        }
    }
}

impl ContainersSection {
    /// Those that read them.
    pub fn containers(&self) -> Containers {
        let Self { podman, docker, containerd, kubelet, rootless } = self.clone();
        Containers::new(EngineFolders { podman, docker, containerd, kubelet, rootless })
    }
}

/// What agents execute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandsSection {
    /// Regular expressions for secrets in arguments, beside those that are always masked. Group 1 is masked, or all that
    /// is found if there is no group.
    pub mask: Vec<String>,
}

/// The record.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Its folder.
    pub dir: PathBuf,
    /// Size of a segment, in bytes.
    pub segment_bytes: u64,
    /// What a call waits for.
    pub durability: Durability,
    /// Body bytes that may be on their way to disk.
    pub queue_bytes: usize,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: u64,
    /// Room on disk, in bytes, that is kept for agents that recorded little lately; at most an eighth of the disk.
    pub kept_bytes: u64,
}

impl Default for Journal {
    fn default() -> Self {
        let config = JournalConfig::new("/var/lib/chaperone/journal");
        Self {
            dir: config.dir,
            segment_bytes: config.segment_bytes,
            durability: config.durability,
            queue_bytes: config.queue_bytes,
            checkpoint_seconds: config.checkpoint_interval.as_secs(),
            kept_bytes: config.kept_bytes,
        }
    }
}

impl Journal {
    /// The journal's own configuration.
    pub fn config(&self) -> JournalConfig {
        let mut config = JournalConfig::new(&self.dir);
        config.segment_bytes = self.segment_bytes;
        config.durability = self.durability;
        config.queue_bytes = self.queue_bytes;
        config.kept_bytes = self.kept_bytes;
        config.checkpoint_interval = Duration::from_secs(self.checkpoint_seconds.max(1));
        config
    }
}

/// The policies.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// A `.cedar` file or a folder of them.
    pub path: PathBuf,
}

impl Default for Policy {
    fn default() -> Self {
        Self { path: "/etc/chaperone/policies".into() }
    }
}

/// The way to AWS.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// CA certificates (PEM) that are trusted besides the system's, for private endpoints.
    pub ca_file: Option<PathBuf>,
}

/// What agents are told of AWS, and what we are.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aws {
    /// The region that the metadata services tell agents.
    pub region: String,
    /// The account of the daemon's credentials, where their source doesn't tell.
    pub account: Option<String>,
    /// The role name that the metadata services tell agents.
    pub role: String,
}

impl Default for Aws {
    fn default() -> Self {
        Self { region: "us-east-1".into(), account: None, role: "chaperone".into() }
    }
}

/// The data path.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// Names that are opened like AWS's; `*.example.com` stands for everything below.
    pub inspect: Vec<String>,
    /// Ports of the listeners on 127.0.0.1 and ::1; 0 lets the kernel choose.
    pub ports: [u16; 2],
    /// Threads of the data path; 0 for one a core.
    pub threads: usize,
}

/// Prometheus.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where metrics are served; nowhere if not given. It must be a loopback address.
    pub listen: Option<SocketAddr>,
}

/// ClickHouse.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarehouseSection {
    /// Its HTTP interface, such as `https://clickhouse.example.com:8443`.
    pub url: String,
    /// The database; made if the user may.
    #[serde(default = "default_database")]
    pub database: String,
    /// The user; ClickHouse's default one if not given.
    pub user: Option<String>,
    /// A file with the password in it, readable by root alone.
    pub password_file: Option<PathBuf>,
    /// CA certificates (PEM) to verify it by, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whose rows these are, where several share a database.
    #[serde(default)]
    pub tenant: String,
}

fn default_database() -> String {
    "chaperone".into()
}

impl Config {
    /// Reads and checks the file. That there is nobody of a user's name is no error here: only the daemon needs all of them.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError(format!(
                "reading the configuration {}: {error}; name another by --config, or copy the example from the README",
                path.display()
            ))
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError(format!("{}:{line}: {}", path.display(), error.to_string().trim_end()))
        })?;
        config
            .check()
            .map_err(|(key, why)| ConfigError(format!("{}:{}: {why}", path.display(), line_of(&text, key))))?;
        config.source = Source { path: path.to_owned(), text };
        let (agents, _) = config.known_agents()?;
        config.cgroup_rules(&agents)?;
        Ok(config)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The file, as it was read.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// Where that rule of that agent is in the file, such as `/etc/chaperone/config.toml:4`.
    pub fn place(&self, agent: &str, rule: Option<(&str, &str)>) -> String {
        format!("{}:{}", self.source.path.display(), line_of_rule(&self.source.text, agent, rule))
    }

    /// Whose authority agents' calls are made by.
    pub fn rules(&self) -> Vec<Rule> {
        self.roles.iter().map(RoleSection::rule).collect()
    }

    /// What TOML's types can't say.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.agents.is_empty() {
            return Err(("agents", "no [[agents]]: nobody would be captured; add at least one".into()));
        }
        if let Some(listen) = self.metrics.listen
            && !listen.ip().is_loopback()
        {
            let why = format!("metrics.listen = \"{listen}\": metrics tell what agents do; use a loopback address");
            return Err(("listen", why));
        }
        self.approvals.check()?;
        self.mask().map_err(|error| ("mask", format!("commands.mask: {error}")))?;
        self.masking.settings().map_err(|error| {
            let key =
                if matches!(error, chaperone_masking::DetectorError::Custom { .. }) { "pattern" } else { "detectors" };
            (key, format!("masking: {error}"))
        })?;
        for name in &self.proxy.inspect {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            if chaperone_proxy::connection::hello::host_name(bare.as_bytes()).as_deref() != Some(bare) {
                let why = format!("proxy.inspect: `{name}` is not a DNS name in lower case, nor one after `*.`");
                return Err(("inspect", why));
            }
        }
        let names: Vec<&str> = self.agents.iter().map(|agent| agent.name.as_str()).collect();
        let groups: Vec<&str> = self.agents.iter().flat_map(|agent| agent.groups.iter().map(String::as_str)).collect();
        for role in &self.roles {
            role.check(&names, &groups).map_err(|why| ("roles", format!("[[roles]]: {why}")))?;
        }
        if let Some(account) = &self.aws.account
            && (account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(("account", format!("aws.account = \"{account}\": an account id has 12 digits")));
        }
        let fits =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+=,.@".contains(&b));
        if !fits(&self.aws.role) || !fits(&self.aws.region) {
            let why = "aws.region and aws.role: letters, digits and -_+=,.@ only, as IAM has them".into();
            return Err(("aws", why));
        }
        Ok(())
    }

    /// What is masked in arguments, checked.
    pub fn mask(&self) -> Result<ArgumentMask, chaperone_capture::RuleError> {
        ArgumentMask::new(&self.commands.mask)
    }

    /// The agents, checked.
    pub fn agents(&self) -> Result<Agents, ConfigError> {
        Agents::new(self.agents.clone(), user_id).map_err(|error| {
            let (agent, rule) = error.place();
            ConfigError(format!("{}: {error}", self.place(agent, rule)))
        })
    }

    /// The agents, checked, without the rules by users whom nobody knows, or can't be asked for; and what is wrong with
    /// those.
    pub fn known_agents(&self) -> Result<(Agents, Vec<ConfigError>), ConfigError> {
        let (mut agents, mut unknown) = (self.agents.clone(), Vec::new());
        agents.retain_mut(|agent| {
            let before = agent.users.len();
            agent.users.retain(|user| {
                let why = user_id(user).err();
                unknown.extend(why.as_ref().map(|why| {
                    let place = self.place(&agent.name, Some(("users", user)));
                    ConfigError(format!("{place}: agent `{}`, users \"{user}\": {why}", agent.name))
                }));
                why.is_none()
            });
            agent.users.len() == before || agent.has_rules()
        });
        let agents = Agents::new(agents, user_id).map_err(|error| {
            let (agent, rule) = error.place();
            ConfigError(format!("{}: {error}", self.place(agent, rule)))
        })?;
        Ok((agents, unknown))
    }

    /// Which cgroups are enrolled when they appear.
    pub fn cgroup_rules(&self, agents: &Agents) -> Result<CgroupRules, ConfigError> {
        let held = Containers::pattern();
        let held = PendingPatterns { held: &held, never_below: Containers::users_pattern() };
        let held = agents.hold_containers().then_some(held);
        CgroupRules::with_held(&agents.patterns(), held).map_err(|error| {
            let first = self.agents.first().map_or("", |agent| agent.name.as_str());
            ConfigError(format!("{}: {error}", self.place(first, None)))
        })
    }

    /// The domains that the CA must be able to vouch for.
    pub fn domains(&self) -> Vec<String> {
        let inspected = self.proxy.inspect.iter().map(|name| name.trim_start_matches("*.").to_owned());
        AWS_DOMAINS.iter().map(|&domain| domain.to_owned()).chain(inspected).collect()
    }

    /// The CA's folder.
    pub fn ca(&self) -> PathBuf {
        self.paths.ca()
    }

    /// The warehouse, checked as far as that goes without asking it.
    pub fn warehouse(&self) -> Result<Option<Warehouse>, ConfigError> {
        let Some(config) = &self.warehouse else { return Ok(None) };
        let node = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut warehouse = WarehouseConfig::new(&config.url, node);
        warehouse.database.clone_from(&config.database);
        warehouse.user.clone_from(&config.user);
        warehouse.password_file.clone_from(&config.password_file);
        warehouse.ca_file.clone_from(&config.ca_file);
        warehouse.tenant.clone_from(&config.tenant);
        Warehouse::new(warehouse).map(Some).map_err(|error| ConfigError(format!("[warehouse]: {error}")))
    }

    /// The journal's own configuration.
    pub fn journal(&self) -> JournalConfig {
        self.journal.config()
    }
}

/// The first line that sets `key`.
fn line_of(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']']))
    };
    text.lines().position(sets).map_or(1, |index| index + 1)
}

/// The line of an agent's rule, or of its name.
fn line_of_rule(text: &str, agent: &str, rule: Option<(&str, &str)>) -> usize {
    #[derive(Deserialize)]
    struct Places {
        agents: Vec<AgentPlaces>,
    }
    #[derive(Deserialize)]
    struct AgentPlaces {
        name: Spanned<String>,
        #[serde(default)]
        cgroups: Vec<Spanned<String>>,
        #[serde(default)]
        slices: Vec<Spanned<String>>,
        #[serde(default)]
        units: Vec<Spanned<String>>,
        #[serde(default)]
        users: Vec<Spanned<String>>,
        #[serde(default)]
        labels: Vec<Spanned<String>>,
        #[serde(default)]
        images: Vec<Spanned<String>>,
        run: Option<Spanned<bool>>,
    }
    // Of two with one name, the second is wrong.
    let places = toml::from_str::<Places>(text).ok();
    let Some(place) =
        places.and_then(|places| places.agents.into_iter().rev().find(|place| place.name.get_ref() == agent))
    else {
        return line_of(text, "agents");
    };
    let texts = match rule.map(|(key, _)| key) {
        Some("cgroups") => &place.cgroups[..],
        Some("slices") => &place.slices,
        Some("units") => &place.units,
        Some("users") => &place.users,
        Some("labels") => &place.labels,
        Some("images") => &place.images,
        _ => &[],
    };
    let found = texts.iter().rev().find(|text| rule.is_some_and(|(_, rule)| text.get_ref() == rule));
    let run = place.run.filter(|_| rule.is_some_and(|(key, _)| key == "run"));
    let at = found.map(Spanned::span).or(run.map(|run| run.span())).unwrap_or_else(|| place.name.span()).start;
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::read(file.path()).map_err(|error| error.to_string())
    }

    const AGENT: &str = "[[agents]]\nname = \"coder\"\ncgroups = [\"/agents/*\"]\n";

    #[test]
    fn containers_are_held_only_where_a_rule_needs_it() {
        let rules = |text: &str| {
            let config = read(text).unwrap();
            config.cgroup_rules(&config.agents().unwrap()).unwrap()
        };
        let id = "0123456789abcdef".repeat(4);
        let container = format!("/system.slice/docker-{id}.scope");
        assert!(!rules(AGENT).hold(&container));
        let held = rules(&format!("{AGENT}units = [\"agent-*.service\"]\nlabels = [\"team=red\"]\n"));
        for path in [
            container,
            format!("/docker/{id}"),
            format!("/machine.slice/libpod-{id}.scope"),
            format!("/system.slice/quadlet.service/libpod-payload-{id}"),
            format!("/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{id}.scope"),
        ] {
            assert!(held.hold(&path), "{path}");
        }
        for path in [
            format!("/agents/libpod-{id}"),
            format!("/machine.slice/libpod-conmon-{id}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"),
            format!("/docker/{id}/docker/{id}"),
            "/system.slice/x.service".to_owned(),
        ] {
            assert!(!held.hold(&path), "{path}");
        }
        assert!(held.name("/system.slice/agent-1.service") && held.name("/agents"));
    }

    #[test]
    fn only_who_needs_the_agents_minds_that_there_is_no_such_user() {
        let alone = "[[agents]]\nname = \"b\"\nusers = [\"nobody-at-all\"]\n";
        let config = read(&format!("{AGENT}users = [\"nobody-at-all\", \"77\"]\n{alone}")).unwrap();
        let error = config.agents().unwrap_err().to_string();
        assert!(error.contains(":4: ") && error.contains("no user `nobody-at-all`"), "{error}");
        let (known, unknown) = config.known_agents().unwrap();
        assert_eq!(known.users(), &BTreeSet::from([77]));
        assert_eq!(known.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["coder"]);
        assert!(unknown[0].0.contains(":4: ") && unknown[1].0.contains(":7: "), "{unknown:?}");
        let config = read(&format!("{AGENT}[capture]\nusers = [\"77\", \"nobody-at-all\", \"root\"]\n")).unwrap();
        assert!(config.capture.user_ids().is_err());
        let (known, wrong) = config.capture.known_user_ids();
        assert_eq!((known, wrong.len()), (BTreeSet::from([77]), 2));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert!(read(AGENT).is_ok());
        let long: Vec<_> = (0..10).map(|number| format!("\"{number}{}.service\"", "a".repeat(200))).collect();
        for (text, line, word) in [
            (format!("{AGENT}[journal]\ndirr = \"/x\"\n"), 5, "dirr"),
            (format!("{AGENT}[journal]\nsegment_bytes = \"big\"\n"), 5, "u64"),
            (format!("{AGENT}[metrics]\nlisten = \"0.0.0.0:9\"\n"), 5, "loopback"),
            (format!("{AGENT}[commands]\nmask = [\"(\"]\n"), 5, "regular expression"),
            (format!("{AGENT}[aws]\naccount = \"1\"\n"), 5, "12 digits"),
            (format!("{AGENT}[proxy]\ninspect = [\"Example.com\"]\n"), 5, "lower case"),
            (format!("{AGENT}[limits]\nhead_timeout = 0\n"), 5, "at least 1"),
            ("[[agents]]\nname = \"a\"\ncgroups = [\"/\"]\n".into(), 3, "whole host"),
            ("[[agents]]\nname = \"a\"\n".into(), 2, "no rule"),
            (
                format!("{AGENT}[[agents]]\nname = \"b\"\nunits = [\n  \"b.service\",\n  \"c.slice\"]\n"),
                8,
                "`.service`",
            ),
            (format!("{AGENT}[[agents]]\nname = \"b\"\ncgroups = [\"/agents/b-*\"]\n"), 6, "overlaps"),
            (format!("{AGENT}labels = [\"te*m\"]\n"), 4, "no `*`"),
            (format!("{AGENT}images = [\"**\"]\n"), 4, "every container"),
            (format!("{AGENT}slices = [\"user.slice\"]\nusers = [\"root\"]\n"), 5, "root"),
            (format!("{AGENT}units = [{}]\n", long.join(", ")), 2, "too many"),
            (format!("{AGENT}[[roles]]\nagents = [\"codr\"]\n"), 4, "no agent `codr`"),
            ("agents = []\n".into(), 1, "nobody"),
            (format!("{AGENT}x = = 1\n"), 4, "column 5"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(&format!(":{line}: ")), "{text}: {error}");
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
