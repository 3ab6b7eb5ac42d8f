//! `chaperone run`: a command as an agent.

use std::{
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, anyhow, bail};
use chaperone_console::{ControlRequest, ControlResponse};
use clap::Args;
use nix::unistd::User;

use crate::{
    commands::{ask, other_answer},
    config::{Config, ConfigError},
    login, sandbox,
};

/// Of a person's own `AWS_…` variables, those that say nothing of who they are. The others hold or name keys, of which there
/// are more every year: they would make every call a foreign authority's.
const OWN: [&str; 7] = [
    "AWS_CA_BUNDLE",
    "AWS_DEFAULT_OUTPUT",
    "AWS_DEFAULT_REGION",
    "AWS_MAX_ATTEMPTS",
    "AWS_PAGER",
    "AWS_REGION",
    "AWS_RETRY_MODE",
];

/// What runs, and as whom.
#[derive(Args, Debug)]
pub struct Run {
    /// The agent's configured name; the first one's if not given.
    #[arg(long)]
    agent: Option<String>,
    /// The user to run as.
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    login: login::Options,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Asks the daemon for a cgroup, runs the command in it, and passes its exit code on.
pub fn run(config: &Path, what: &Run) -> anyhow::Result<ExitCode> {
    let Run { agent, user, login, command } = what;
    let config = Config::read(config)?;
    sandbox::require_root()?;
    let agent = agent.as_deref().unwrap_or(&config.agents[0].name);
    let person = login.begin(&config, agent)?;
    let launch = ControlRequest::Launch { agent: agent.to_owned() };
    let ControlResponse::Launched(grant) = ask(&config, &launch)? else { return Err(other_answer()) };
    let person = person.map(|it| it.introduce(&config.paths.control, &grant.cgroup)).transpose();
    let person = person.inspect_err(|_| drop(fs::remove_dir(&grant.cgroup)))?;
    let own = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(own);
    child.arg("enter").arg("--cgroup").arg(&grant.cgroup);
    if let Some(user) = user {
        child.arg("--user").arg(user);
    }
    child.arg("--").args(command);
    for (key, _) in std::env::vars_os() {
        let key = key.to_string_lossy();
        if key.starts_with("AWS_") && !OWN.contains(&&*key) {
            eprintln!("chaperone: {key} is left out: the agent's calls are signed with the daemon's credentials");
            child.env_remove(&*key);
        }
    }
    child.envs(grant.environment);
    // The command gets the terminal's signals itself, and this process tells how it ended.
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGQUIT] {
        ignore(signal)?;
    }
    // Its tokens are renewed until this process ends.
    if let Some(person) = person {
        person.stay()?;
    }
    let status = child.status().context("starting the command")?;
    // Processes that the command left behind keep the cgroup, and the session, open.
    let _ = fs::remove_dir(&grant.cgroup);
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Blocks the signal here; `enter` unblocks it again for the command.
fn ignore(signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(signal);
    set.thread_block().context("blocking a signal")
}

/// In the child: moves into the cgroup, becomes the user and the command.
pub fn enter(cgroup: &Path, user: Option<&str>, command: &[String]) -> anyhow::Result<ExitCode> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("moving into the cgroup {}", cgroup.display()))?;
    nix::sys::signal::SigSet::all().thread_unblock().context("unblocking signals")?;
    let [program, arguments @ ..] = command else { bail!("no command") };
    let mut next = Command::new(program);
    next.args(arguments);
    if let Some(name) = user {
        let user = User::from_name(name)?.ok_or_else(|| ConfigError(format!("there is no user `{name}`")))?;
        let c_name = std::ffi::CString::new(name)?;
        nix::unistd::initgroups(&c_name, user.gid).context("taking on the user's groups")?;
        nix::unistd::setgid(user.gid).context("taking on the user's group")?;
        nix::unistd::setuid(user.uid).context("becoming the user")?;
        next.env("HOME", &user.dir).env("USER", name).env("LOGNAME", name);
    }
    let error = next.exec();
    Err(anyhow!("starting `{program}`: {error}"))
}
