//! `cargo xtask lab`: a place of its own, with a fake AWS and the daemon, for agents and experiments.
//!
//! A *keeper* process makes the namespaces and starts the services in them; commands join by `lab-enter`. All that
//! belongs to a lab is in one cgroup, so that nothing survives it, and in one folder.

pub mod config;
pub mod enter;
pub mod folder;
pub mod keeper;
pub mod services;

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use crate::{Refusal, setup};
use folder::Lab;

/// Arguments of `cargo xtask lab`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask lab -- aws sts get-caller-identity --region eu-west-1
  cargo xtask lab --policy my.cedar --keep /tmp/l -- true
  cargo xtask lab exec /tmp/l -- chaperone calls
  cargo xtask lab down /tmp/l")]
pub struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// TOML that is laid over the lab's own configuration: tables are merged, everything else is replaced.
    /// `${LAB}` in it stands for the lab's folder, `${CGROUP}` for its cgroup.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A policy file or folder in the place of the shipped default policy.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// What plays AWS on 127.77.0.1.
    #[arg(long, value_enum, default_value = "moto")]
    aws: Aws,
    /// Without Chaperone: the same names and fakes, which agents then trust, and the fakes' key in the environment.
    #[arg(long)]
    direct: bool,
    /// Start a ClickHouse too, and have the daemon ship to it.
    #[arg(long)]
    warehouse: bool,
    /// The user that agents run as. He must be able to reach the target folder.
    #[arg(long, default_value = "root", value_name = "NAME")]
    user: String,
    /// One more variable for the command, besides the very few that it has.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Keep the lab in this folder, and running, until `lab down DIR`.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// What the agent runs.
    #[arg(last = true)]
    command: Vec<String>,
    /// Files that are copied into the lab's folder before anything starts.
    #[arg(skip)]
    files: Vec<PathBuf>,
}

impl Options {
    /// All that there is to show, under these policies, with this laid over the configuration, and the files that it names.
    pub fn demo(policy: PathBuf, config: PathBuf, files: Vec<PathBuf>, keep: Option<PathBuf>) -> Self {
        Self {
            action: None,
            config: Some(config),
            files,
            policy: Some(policy),
            aws: Aws::Both,
            direct: false,
            warehouse: true,
            user: "root".to_owned(),
            env: Vec::new(),
            keep,
            command: Vec::new(),
        }
    }
}

/// What plays AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Aws {
    /// S3 by s3s-fs, which verifies signatures; the rest by moto.
    Both,
    /// All by moto.
    Moto,
    /// Nothing: bring a listener on 127.77.0.1:443.
    None,
    /// S3 by s3s-fs, nothing else.
    S3,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a command as one more agent.
    Agent {
        dir: PathBuf,
        /// The agent's cgroup begins with this.
        #[arg(long, default_value = "coder")]
        name: String,
        /// The user, if not the lab's.
        #[arg(long)]
        user: Option<String>,
        /// One more variable.
        #[arg(long = "env", value_name = "NAME=VALUE")]
        env: Vec<String>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// End a lab that was kept, and take all of it away.
    Down {
        dir: PathBuf,
        /// Leave the folder with journal and logs.
        #[arg(long)]
        keep_files: bool,
    },
    /// Run a command in the lab as its operator: root, and not an agent.
    Exec {
        dir: PathBuf,
        /// One more variable.
        #[arg(long = "env", value_name = "NAME=VALUE")]
        env: Vec<String>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Start the daemon again, after it was stopped or killed.
    Restart { dir: PathBuf },
}

/// Runs it; the result is the exit code.
pub fn run(options: Options) -> Result<u8> {
    match options.action {
        None => start(options),
        Some(Action::Agent { dir, name, user, env, command }) => agent(&Lab::open(&dir)?, &name, user, env, command),
        Some(Action::Down { dir, keep_files }) => Lab::open(&dir)?.down(keep_files).map(|()| 0),
        Some(Action::Exec { dir, env, command }) => {
            let lab = Lab::open(&dir)?;
            enter(&enter::Options { dir: lab.dir, role: enter::Role::Operator, cgroup: None, user: None, env, command })
        }
        Some(Action::Restart { dir }) => {
            let dir = Lab::open(&dir)?.dir;
            let command = vec!["lab-daemon".to_owned()];
            enter(&enter::Options { dir, role: enter::Role::Daemon, cgroup: None, user: None, env: vec![], command })
        }
    }
}

fn start(options: Options) -> Result<u8> {
    if options.command.is_empty() && options.keep.is_none() {
        bail!(Refusal("no command: put it after `--`, or give --keep DIR".to_owned()));
    }
    let running = Running::start(&options)?;
    let result = if options.command.is_empty() {
        Ok(0)
    } else {
        agent(&running.lab, "coder", None, options.env, options.command)
    };
    if running.lab.kept {
        eprintln!("lab: kept; `cargo xtask lab down {}` ends it", running.lab.dir.display());
        return result;
    }
    let down = running.lab.down(false);
    let code = result?;
    down.map(|()| code)
}

/// A lab that is up.
#[derive(Debug)]
pub struct Running {
    /// What it is.
    pub lab: Lab,
    // Unless the lab is kept, the keeper ends it when this end of the pipe is closed, however this process ends.
    _keeper: Child,
}

impl Running {
    /// Sets up what is missing, and brings a lab up. If that fails nothing of it is left.
    pub fn start(options: &Options) -> Result<Self> {
        for pair in &options.env {
            enter::variable(pair)?;
        }
        if nix::unistd::User::from_name(&options.user).context("looking up the user")?.is_none() {
            bail!(Refusal(format!("--user: there is no user `{}`", options.user)));
        }
        let lab = Lab::create(options, setup::lab()?)?;
        // Ctrl-C is for the command; it ends, and then the lab does.
        block_interrupts()?;
        match start_keeper(&lab) {
            Ok(keeper) => Ok(Self { lab, _keeper: keeper }),
            Err(error) => {
                let _ = lab.down(false);
                Err(error)
            }
        }
    }
}

/// `lab-enter` unblocks them again for the command.
fn block_interrupts() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGQUIT);
    signals.thread_block().context("blocking Ctrl-C")
}

fn start_keeper(lab: &Lab) -> Result<Child> {
    let own = env::current_exe().context("finding this program")?;
    let log = std::fs::File::create(lab.dir.join("keeper.log")).context("making the keeper's log")?;
    let mut keeper = Command::new(own)
        .arg("lab-keeper")
        .arg(&lab.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("starting the lab's keeper")?;
    let said = keeper.stdout.take().context("BUG: the keeper has no stdout")?;
    let mut text = String::new();
    for line in BufReader::new(said).lines() {
        let line = line.context("listening to the lab's keeper")?;
        if line == "ready" {
            return Ok(keeper);
        }
        text.push_str(&line);
        text.push('\n');
    }
    let _ = keeper.wait();
    if text.is_empty() {
        text = std::fs::read_to_string(lab.dir.join("keeper.log")).unwrap_or_default();
    }
    bail!("the lab did not start: {}", text.trim_end())
}

/// Runs a command as an agent in a cgroup of its own.
fn agent(lab: &Lab, name: &str, user: Option<String>, env: Vec<String>, command: Vec<String>) -> Result<u8> {
    let cgroup = lab.agent_cgroup(name)?;
    let user = user.unwrap_or_else(|| lab.user.clone());
    let mut env = env;
    env.insert(0, format!("HOME={}", lab.home(&user)?.display()));
    let user = Some(user);
    let role = enter::Role::Agent;
    let code = enter(&enter::Options { dir: lab.dir.clone(), role, cgroup: Some(cgroup.clone()), user, env, command });
    // Processes that the command left behind keep it, and the session, open.
    let _ = std::fs::remove_dir(&cgroup);
    code
}

/// In a child, since there is no way back out of a mount namespace.
fn enter(options: &enter::Options) -> Result<u8> {
    block_interrupts()?;
    let own = env::current_exe().context("finding this program")?;
    let mut child = Command::new(own);
    child.arg("lab-enter").args(options.arguments());
    let status = child.status().context("going into the lab")?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Says something to whoever started this process.
fn tell(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("telling how the lab is")
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
