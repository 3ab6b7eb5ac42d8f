//! `chaperone doctor --agent`: whether an agent's programs trust what Chaperone shows them, asked as that agent.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, bail};
use chaperone_console::{ControlRequest, ControlResponse};
use chaperone_identity::Agents;
use clap::Args;
use nix::unistd::{Uid, User};

use super::runtimes::{self, State};
use crate::{
    commands::{ask, other_answer},
    config::{Config, ConfigError},
    output::json_line,
    sandbox,
};

/// What `doctor` is asked.
#[derive(Args, Debug)]
pub struct Asked {
    /// Look at what this agent's programs trust, instead of the host.
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// As this user, instead of who the agent runs as or is configured to be.
    #[arg(long, requires = "agent")]
    user: Option<String>,
    /// With this variable, besides those of a process of the agent's; without a value, without it.
    #[arg(long, requires = "agent", value_name = "NAME=VALUE")]
    env: Vec<String>,
}

/// The variables that decide which programs there are and what they trust: others of an agent's are nobody's business.
const VARIABLES: [&str; 26] = [
    "AWS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_NO_VERIFY",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HOME",
    "JAVA_HOME",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LANG",
    "LD_LIBRARY_PATH",
    "NODE_EXTRA_CA_CERTS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "NODE_USE_SYSTEM_CA",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "VIRTUAL_ENV",
];
/// For all programs of an agent's together.
const PATIENCE: Duration = Duration::from_mins(15);
const MOST: u64 = 1 << 20;
const ENVIRON: u64 = 256 << 10;
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Who an agent is on this host.
#[derive(Debug, Default)]
struct Known {
    user: Option<User>,
    environment: BTreeMap<String, String>,
    /// How that is known.
    by: String,
}

/// Exit code 1 if a program doesn't trust the CA, or it can't be told.
pub fn run(path: &Path, asked: &Asked, json: bool) -> anyhow::Result<ExitCode> {
    sandbox::require_root()?;
    let config = Config::read(path)?;
    let name = asked.agent.as_deref().context("BUG: it was asked for an agent")?;
    let agents = config.agents()?;
    let mut known = known(&config, &agents, name)?;
    let launch = ControlRequest::Launch { agent: name.to_owned() };
    let ControlResponse::Launched(grant) = ask(&config, &launch)? else { return Err(other_answer()) };
    if known.environment.is_empty() {
        known.environment = grant.environment.clone().into_iter().collect();
    }
    if let Some(user) = &asked.user {
        known.user = Some(user_named(user)?);
        "as asked".clone_into(&mut known.by);
    }
    for pair in &asked.env {
        let (variable, value) = pair.split_once('=').unwrap_or((pair, ""));
        if value.is_empty() {
            known.environment.remove(variable);
        } else {
            known.environment.insert(variable.to_owned(), value.to_owned());
        }
    }
    let said = runtimes::said_in(&mut command(&grant.cgroup, &known)?, PATIENCE, MOST);
    // Processes that were left behind keep the cgroup, and the session, open.
    let _ = fs::remove_dir(&grant.cgroup);
    let (code, said) = said.context("asking as the agent")?;
    if code != Some(0) {
        bail!("the agent's side failed: {}", said.trim());
    }
    let found = runtimes::read(&said)?;
    let mut out = std::io::stdout().lock();
    if !json {
        let user = known.user.as_ref().map_or("root", |user| &user.name);
        println!("as agent `{name}`, user {user} ({}), asking {}", known.by, runtimes::HOST);
    }
    for each in &found {
        if json {
            json_line(&mut out, each)?;
        } else {
            runtimes::write(&mut out, each)?;
        }
    }
    let wrong = found.iter().any(|each| matches!(each.state, State::Untrusted | State::Failed));
    if wrong && !json {
        println!("`chaperone trust env` prints the variables that programs with stores of their own need");
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// This program in the agent's cgroup, as its user. The agent's variables are put in force by the last step alone, by which
/// it is that user: root must not load what they name.
fn command(cgroup: &Path, known: &Known) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(&own);
    command.env_clear().args(["enter", "--cgroup"]).arg(cgroup);
    if let Some(user) = &known.user {
        command.args(["--user", &user.name]);
    }
    command.args(["--", "/usr/bin/env", "-i"]);
    let mut environment = known.environment.clone();
    environment.entry("PATH".into()).or_insert_with(|| PATH.into());
    let home = known.user.as_ref().map_or_else(|| "/root".into(), |user| user.dir.display().to_string());
    environment.entry("HOME".into()).or_insert(home);
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(own).arg("runtimes").current_dir("/");
    Ok(command)
}

/// By its newest process in this mount namespace; if it has none, by the configuration.
fn known(config: &Config, agents: &Agents, name: &str) -> anyhow::Result<Known> {
    let mount_namespace = fs::read_link("/proc/self/ns/mnt").context("reading this process's mount namespace")?;
    let mut newest: Option<u32> = None;
    for entry in fs::read_dir("/proc").context("listing processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let of = |file: &str| format!("/proc/{pid}/{file}");
        let is_its = || {
            let path = sandbox::cgroup_of(&of("cgroup")).ok()??;
            let (agent, _) = agents.of(&path)?;
            let here = fs::read_link(of("ns/mnt")).ok()?;
            Some(agent.name == name && here == mount_namespace)
        };
        if newest.is_none_or(|newest| pid > newest) && is_its() == Some(true) {
            newest = Some(pid);
        }
    }
    if let Some(pid) = newest
        && let Ok(meta) = fs::metadata(format!("/proc/{pid}"))
        && let Ok(file) = fs::File::open(format!("/proc/{pid}/environ"))
    {
        let mut bytes = Vec::new();
        if file.take(ENVIRON).read_to_end(&mut bytes).is_ok() {
            let user = User::from_uid(Uid::from_raw(meta.uid())).context("looking up the agent's user")?;
            return Ok(Known { user, environment: relevant(&bytes), by: format!("as its process {pid}") });
        }
    }
    let agent = config.agents.iter().find(|agent| agent.name == name);
    let user = agent.and_then(|agent| agent.users.first()).map(|user| user_named(user)).transpose()?;
    Ok(Known { user, environment: BTreeMap::new(), by: "it has no process; by the configuration".to_owned() })
}

fn user_named(name: &str) -> anyhow::Result<User> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let found = found.with_context(|| format!("looking up the user `{name}`"))?;
    Ok(found.ok_or_else(|| ConfigError(format!("there is no user `{name}`")))?)
}

/// Of a process's environment, as the kernel has it.
fn relevant(environ: &[u8]) -> BTreeMap<String, String> {
    let pairs = environ.split(|byte| *byte == 0).filter_map(|pair| {
        let (name, value) = OsStr::from_bytes(pair).to_str()?.split_once('=')?;
        (VARIABLES.contains(&name) && !value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_agents_variables_only_those_are_taken_that_matter() {
        let found =
            relevant(b"PATH=/bin\0TOKEN=secret\0LD_PRELOAD=/tmp/x.so\0SSL_CERT_FILE=/a=b\0\xff=1\0HOME=\0noise");
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("PATH", "/bin"), ("SSL_CERT_FILE", "/a=b")]);
    }

    #[test]
    fn root_never_has_the_agents_variables() {
        let environment = BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), "/home/a".to_owned())]);
        let user = User::from_uid(Uid::from_raw(0)).unwrap();
        let command = command(Path::new("/agents/x"), &Known { user, environment, by: String::new() }).unwrap();
        assert_eq!(command.get_envs().count(), 0);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let variable = words.iter().position(|word| word == "LD_LIBRARY_PATH=/home/a").unwrap();
        assert!(variable > words.iter().position(|word| word == "/usr/bin/env").unwrap(), "{words:?}");
    }
}
