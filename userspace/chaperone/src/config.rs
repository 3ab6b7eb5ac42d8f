//! The configuration file: what it may say, and what is wrong with it, with the place.

mod aws;
mod capture;
mod commands;
mod containers;
mod identity;
mod journal;
mod keys;
mod metrics;
mod paths;
mod place;
mod policy;
mod proxy;
mod upstream;
mod warehouse;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chaperone_capture::{ArgumentMask, CgroupRules, PendingPatterns};
use chaperone_identity::{Agent, Agents, Containers};
use chaperone_journal::JournalConfig;
use chaperone_policy::budgets::Budget;
use chaperone_proxy::{Limits, Rule};
use chaperone_warehouse::Warehouse;
use serde::{Deserialize, Serialize};

use self::place::{line_of, line_of_rule};
pub use self::{
    aws::Aws,
    capture::{CaptureSection, Lsm, user_id},
    commands::CommandsSection,
    containers::ContainersSection,
    identity::IdentitySection,
    journal::Journal,
    keys::{default_file, default_json, takes_restart},
    metrics::Metrics,
    paths::Paths,
    policy::Policy,
    proxy::Proxy,
    upstream::Upstream,
    warehouse::WarehouseSection,
};

use crate::{approvals::ApprovalsSection, budgets::BudgetSection, masking::MaskingSection, roles::RoleSection};

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
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// Whose tokens say who agents are.
    #[serde(default)]
    pub identity: IdentitySection,
    /// Who approves calls.
    #[serde(default)]
    pub approvals: ApprovalsSection,
    /// How much agents may do.
    #[serde(default)]
    pub budgets: Vec<BudgetSection>,
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

impl Config {
    /// Reads and checks the file. That there is nobody of a user's name is no error here: only the daemon needs all of them.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError(format!(
                "reading the configuration {}: {error}; name another by --config, or have `chaperone setup` make one",
                path.display()
            ))
        })?;
        Self::parse(path, text)
    }

    /// The same of a text that is, or is to be, at that path.
    pub fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
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

    /// Who agents are, checked.
    pub fn identities(&self) -> Result<chaperone_proxy::IdentitySettings, ConfigError> {
        self.identity.settings(&self.agents).map_err(|error| self.wrong("identity", error))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The file, as it was read.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// Where a key such as `capture.users` is in the file, such as `/etc/chaperone/config.toml:12`: for what is found to be
    /// wrong with it after reading. The file alone, if it isn't set there.
    pub fn place_of(&self, key: &str) -> String {
        match place::line(&self.source.text, key) {
            Some(line) => format!("{}:{line}", self.source.path.display()),
            None => self.source.path.display().to_string(),
        }
    }

    /// `error`, at the place of `key`.
    pub fn wrong(&self, key: &str, error: impl std::fmt::Display) -> ConfigError {
        ConfigError(format!("{}: {key}: {error}", self.place_of(key)))
    }

    /// Where that rule of that agent is in the file, such as `/etc/chaperone/config.toml:4`.
    pub fn place(&self, agent: &str, rule: Option<(&str, &str)>) -> String {
        format!("{}:{}", self.source.path.display(), line_of_rule(&self.source.text, agent, rule))
    }

    /// Whose authority agents' calls are made by.
    pub fn rules(&self) -> Vec<Rule> {
        self.roles.iter().map(RoleSection::rule).collect()
    }

    /// How much agents may do.
    pub fn budgets(&self) -> Vec<Budget> {
        self.budgets.iter().map(BudgetSection::budget).collect()
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
            return Err(("metrics.listen", why));
        }
        self.policy.zone().map_err(|error| ("policy.time_zone", error.to_string()))?;
        self.approvals.check()?;
        self.identity.check(&self.agents)?;
        self.masking.settings().map_err(|error| {
            let is_custom = matches!(error, chaperone_masking::DetectorError::Custom { .. });
            let key = if is_custom { "masking.custom" } else { "masking.detectors" };
            (key, format!("masking: {error}"))
        })?;
        self.upstream.http_proxy().map_err(|why| ("upstream.proxy", why))?;
        self.mask().map_err(|error| ("commands.mask", format!("commands.mask: {error}")))?;
        for name in &self.proxy.inspect {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            if chaperone_proxy::connection::hello::host_name(bare.as_bytes()).as_deref() != Some(bare) {
                let why = format!("proxy.inspect: `{name}` is not a DNS name in lower case, nor one after `*.`");
                return Err(("proxy.inspect", why));
            }
        }
        let names: Vec<&str> = self.agents.iter().map(|agent| agent.name.as_str()).collect();
        let groups: Vec<&str> = self.agents.iter().flat_map(|agent| agent.groups.iter().map(String::as_str)).collect();
        for role in &self.roles {
            role.check(&names, &groups).map_err(|why| ("roles", format!("[[roles]]: {why}")))?;
        }
        BudgetSection::check(&self.budgets, &names).map_err(|why| ("budgets", why))?;
        if let Some(account) = &self.aws.account
            && (account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(("aws.account", format!("aws.account = \"{account}\": an account id has 12 digits")));
        }
        let fits =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+=,.@".contains(&b));
        if !fits(&self.aws.role) || !fits(&self.aws.region) {
            let why = "aws.region and aws.role: letters, digits and -_+=,.@ only, as IAM has them".into();
            return Err(("aws", why));
        }
        Ok(())
    }

    /// The ids of the users that are bound, at the place of what is wrong with one.
    pub fn bound_users(&self) -> Result<BTreeSet<u32>, ConfigError> {
        let place = || self.place_of("capture.users");
        self.capture.user_ids().map_err(|error| ConfigError(format!("{}: {error}", place())))
    }

    /// The proxies that agents dial, at the place of what is wrong with one.
    pub fn captured_proxies(&self) -> Result<BTreeSet<SocketAddr>, ConfigError> {
        let place = || self.place_of("capture.proxies");
        self.capture.proxy_addresses().map_err(|error| ConfigError(format!("{}: {error}", place())))
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
        let Some(section) = &self.warehouse else { return Ok(None) };
        let node = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Warehouse::new(section.config(node)).map(Some).map_err(|error| {
            // At the key that is wrong, or the nearest that is there.
            let mut key = format!("warehouse.{}", error.setting().unwrap_or_default());
            while place::line(&self.source.text, &key).is_none() {
                let Some((above, _)) = key.rsplit_once('.') else { break };
                key = above.to_owned();
            }
            ConfigError(format!("{}: {error}", self.place_of(&key)))
        })
    }

    /// The journal's own configuration.
    pub fn journal(&self) -> JournalConfig {
        self.journal.config()
    }
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

    #[test]
    fn what_is_wrong_with_the_warehouse_is_told_with_its_place() {
        let of = |text: &str| {
            let config = read(&format!("{AGENT}[warehouse]\n{text}")).unwrap();
            config.warehouse().map_err(|error| error.to_string())
        };
        let urls = |text: &str| of(text).unwrap().unwrap().config().urls.clone();
        assert_eq!(urls("url = 'http://a'"), ["http://a"]);
        assert_eq!(urls("url = 'http://a'\nurls = ['http://b']"), ["http://a", "http://b"]);
        assert_eq!(urls("urls = ['http://a', 'http://b']"), ["http://a", "http://b"]);
        let kept = of("url = 'http://a'\n[warehouse.tables.ledger]\nttl_days = 400\nstorage_policy = 'cold'");
        let kept = kept.unwrap().unwrap().config().tables["ledger"].clone();
        assert_eq!((kept.ttl_days, kept.storage_policy.as_deref()), (Some(400), Some("cold")));
        // AGENT has three lines, and the section's name is the fourth.
        for (text, line, said) in [
            ("", 4, "`url`"),
            ("url = 'http://a'\nurls = ['x']", 6, "`urls`"),
            ("url = 'http://a'\nclient_key_file = '/x'", 6, "plain http"),
            ("url = 'https://a'\nclient_key_file = '/x'", 4, "`client_cert_file`"),
            ("url = 'https://a'\nca_file = '/nonexistent'", 6, "/nonexistent"),
            ("url = 'http://a'\n\n[warehouse.tables.calls]\nttl_days = 3", 8, "`tables.calls.ttl_days`: 3 days"),
            ("url = 'http://a'\n[warehouse.tables.call]\nttl_days = 300", 6, "`tables.call`"),
            ("url = 'http://a'\ncluster = \"a'\"", 6, "`cluster`"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(&format!(":{line}: ")) && error.contains(said), "{text}: {error}");
        }
        let error = read(&format!("{AGENT}[warehouse]\nurl = 'http://a'\ntables.calls.days = 1")).unwrap_err();
        assert!(error.contains("days"), "{error}");
    }
}
