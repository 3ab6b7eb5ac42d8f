//! Goes into a lab and becomes a command there.

use std::{
    collections::BTreeMap,
    env,
    ffi::{CString, OsString},
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::SigSet,
    unistd::{User, chroot, fchdir, initgroups, setgid, setuid},
};

use super::{folder::Lab, services};
use crate::Refusal;

/// Where Debian has its programs.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a command is in the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Enrolled, and with an environment that has nothing about AWS.
    Agent,
    /// Not a command: starts the daemon again.
    Daemon,
    /// Root, not enrolled.
    Operator,
}

/// Arguments of `lab-enter`.
#[derive(Args, Debug)]
pub struct Options {
    pub dir: PathBuf,
    #[arg(long, value_enum)]
    pub role: Role,
    /// The agent's cgroup.
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    #[arg(long)]
    pub user: Option<String>,
    #[arg(long = "env")]
    pub env: Vec<String>,
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

impl Options {
    /// As they are given to a child.
    pub fn arguments(&self) -> Vec<OsString> {
        let role = match self.role {
            Role::Agent => "agent",
            Role::Daemon => "daemon",
            Role::Operator => "operator",
        };
        let mut arguments: Vec<OsString> = vec![self.dir.clone().into(), "--role".into(), role.into()];
        if let Some(cgroup) = &self.cgroup {
            arguments.extend(["--cgroup".into(), cgroup.clone().into()]);
        }
        if let Some(user) = &self.user {
            arguments.extend(["--user".into(), user.into()]);
        }
        for pair in &self.env {
            arguments.extend(["--env".into(), pair.into()]);
        }
        arguments.push("--".into());
        arguments.extend(self.command.iter().map(OsString::from));
        arguments
    }
}

/// A variable, as `--env` has it.
pub fn variable(pair: &str) -> Result<(String, String)> {
    match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!(Refusal(format!("--env {pair}: it must be NAME=VALUE"))),
    }
}

/// Never returns if it is a command and all goes well.
pub fn run(options: Options) -> Result<u8> {
    let lab = Lab::open(&options.dir)?;
    let cgroup = match (options.role, options.cgroup) {
        (Role::Agent, Some(cgroup)) => cgroup,
        (Role::Agent, None) => bail!("BUG: an agent without a cgroup"),
        (Role::Daemon, _) => lab.cgroup.join("services"),
        (Role::Operator, _) => lab.cgroup.join("operator"),
    };
    let folder = env::current_dir().unwrap_or_else(|_| "/".into());
    let keeper = fs::read_to_string(lab.dir.join("keeper.pid"))
        .with_context(|| format!("the lab in {} doesn't run", lab.dir.display()))?;
    let namespace = |name: &str| {
        let path = format!("/proc/{}/ns/{name}", keeper.trim());
        File::open(&path).with_context(|| format!("the lab's keeper is gone: opening {path}"))
    };
    let (net, mnt) = (namespace("net")?, namespace("mnt")?);
    let root = format!("/proc/{}/root", keeper.trim());
    let root = File::open(&root).with_context(|| format!("the lab's keeper is gone: opening {root}"))?;
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("moving into {}", cgroup.display()))?;
    setns(net, CloneFlags::CLONE_NEWNET).context("entering the lab's network")?;
    setns(mnt, CloneFlags::CLONE_NEWNS).context("entering the lab's mounts")?;
    // Joining a mount namespace moves to its root, which in a chroot is another one than the keeper's.
    fchdir(&root).and_then(|()| chroot(".")).context("moving to the lab's root")?;
    env::set_current_dir(&folder).or_else(|_| env::set_current_dir("/")).context("keeping the folder")?;
    if options.role == Role::Daemon {
        services::daemon(&lab)?;
        return Ok(0);
    }

    let [program, arguments @ ..] = options.command.as_slice() else { bail!("BUG: no command") };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment(&lab, options.role)?);
    for pair in &options.env {
        let (name, value) = variable(pair)?;
        command.env(name, value);
    }
    SigSet::all().thread_unblock().context("unblocking signals")?;
    if let Some(name) = options.user.filter(|name| name != "root") {
        let user = User::from_name(&name)?.ok_or_else(|| Refusal(format!("there is no user `{name}`")))?;
        initgroups(&CString::new(name.clone())?, user.gid).context("taking on the user's groups")?;
        setgid(user.gid).context("taking on the user's group")?;
        setuid(user.uid).context("becoming the user")?;
    }
    let error = command.exec();
    eprintln!("xtask: starting `{program}`: {error}");
    Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

fn environment(lab: &Lab, role: Role) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(lab.dir.join("environment.json")).context("reading the agents' environment")?;
    let mut environment: BTreeMap<String, String> =
        serde_json::from_str(&text).context("reading the agents' environment")?;
    let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
    // `aws` is the first, from PyPI; Debian's, which is version 2, is `/usr/bin/aws`.
    let venv = lab.venv.join("bin");
    match role {
        Role::Agent | Role::Daemon => {
            set("PATH", format!("{}:{SYSTEM_PATH}", venv.display()));
        }
        Role::Operator => {
            set("PATH", format!("{}:{}:{SYSTEM_PATH}", lab.bin.display(), venv.display()));
            set("CHAPERONE_CONFIG", lab.dir.join("config.toml").display().to_string());
            set("HOME", "/root".to_owned());
            // As systemd tells it the daemon.
            set("STATE_DIRECTORY", lab.dir.join("state").display().to_string());
        }
    }
    set("CHAPERONE_LAB", lab.dir.display().to_string());
    set("LANG", "C.UTF-8".to_owned());
    set("TERM", env::var("TERM").unwrap_or_else(|_| "dumb".to_owned()));
    Ok(environment)
}
