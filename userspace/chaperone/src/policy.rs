//! `chaperone policy`: checking policies, testing them against tables, trying them on what was recorded, learning them
//! from it, and telling why a call was decided as it was. None of it touches the daemon or what is in force.

mod cases;
mod iam;
mod learn;
#[cfg(test)]
mod packs_tests;
mod recorded;
#[cfg(test)]
mod samples;
mod trial;
mod why;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use chaperone_model::{CallId, SessionId};
use chaperone_policy::{DEFAULT_POLICY, PolicyError, PolicyVersion, TimeZone, nearest, schema_text};
use clap::{Args, Subcommand, ValueEnum};
use time::OffsetDateTime;

use crate::{
    cli::moment,
    config::{Config, ConfigError},
    daemon::KnownActions,
    output::json_line,
};

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check policies without putting them in force, and run the table tests beside them.
    #[command(after_help = "Examples:
  chaperone policy check
  chaperone policy check /etc/chaperone/policies

Exit codes: 0 they can be put in force; 1 a table test fails; 2 they are wrong.")]
    Check {
        /// A file or folder, if not the configured one.
        path: Option<PathBuf>,
    },
    /// Print the shipped default policy.
    #[command(after_help = "Example: chaperone policy default > /etc/chaperone/policies/default.cedar")]
    Default,
    /// Make the least policy under which sessions could do what they did, and prove it on them.
    #[command(after_help = "Examples:
  chaperone policy learn 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081 > learned.cedar
  chaperone policy learn --agent coder --since 7d --generalize 'arn:aws:s3:::data/*' --iam > role-policy.json

Exit codes: 0 every call is permitted by what was made; 1 some can't be; 2 bad input, or nothing to learn from.")]
    Learn(Box<Learn>),
    /// Print the Cedar schema with every action.
    #[command(after_help = "Example: chaperone policy schema > chaperone.cedarschema")]
    Schema,
    /// Run table tests: who does what, and what must come of it (docs/policies.md).
    #[command(after_help = "Examples:
  chaperone policy test
  chaperone policy test /etc/chaperone/policies --json | jq 'select(.passed | not)'

Exit codes: 0 all pass; 1 some fail; 2 a table or a policy is wrong.")]
    Test {
        /// Policies with their tables, or one table; if not the configured policies.
        path: Option<PathBuf>,
    },
    /// Decide recorded calls and connections by other policies, and tell which would change.
    #[command(after_help = "Examples:
  chaperone policy try new-policies/ --since 7d
  chaperone policy try new.cedar --agent coder --warehouse --json | jq 'select(.to == \"deny\")'

Exit codes: 0 nothing would change; 1 something would, or can't be said; 2 bad input or wrong policies.")]
    Try(Box<Try>),
    /// Tell what each policy made of a recorded call, or of a connection to somewhere else than AWS: what it looked at, and which would have to change.
    #[command(after_help = "Examples:
  chaperone policy why 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081
  chaperone policy why 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081 --policies new-policies/ --json

Exit codes: 0 the policies permit it; 1 they don't; 2 bad input or wrong policies.")]
    Why(Why),
}

/// Which recorded calls.
#[derive(Args, Debug)]
pub struct Range {
    /// Begun at this time (RFC 3339) or later, or this long ago (90s, 15m, 2h, 7d).
    #[arg(long, value_parser = moment)]
    since: Option<OffsetDateTime>,
    /// Begun before this time, likewise.
    #[arg(long, value_parser = moment)]
    until: Option<OffsetDateTime>,
    /// Of this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Ask ClickHouse, which has every host's calls, instead of this host's journal.
    #[arg(long)]
    warehouse: bool,
}

/// What `policy try` is told.
#[derive(Args, Debug)]
pub struct Try {
    /// The policies: a file or a folder.
    path: PathBuf,
    #[command(flatten)]
    range: Range,
    /// Of this session.
    #[arg(long)]
    session: Vec<SessionId>,
    /// How many calls are named for each change.
    #[arg(long, default_value_t = 3)]
    examples: usize,
}

/// What `policy learn` is told.
#[derive(Args, Debug)]
pub struct Learn {
    /// The sessions, as `chaperone sessions` lists them.
    #[arg(required_unless_present = "agent")]
    sessions: Vec<SessionId>,
    #[command(flatten)]
    range: Range,
    /// Resources that are like this become it; `*` stands for anything. May be given many times; the first that fits counts.
    #[arg(long, value_name = "PATTERN")]
    generalize: Vec<String>,
    /// How much of the resources' names is left open.
    #[arg(long, value_enum, default_value_t = Breadth::Exact)]
    by: Breadth,
    /// Make an IAM policy document, which can be attached to the role.
    #[arg(long)]
    iam: bool,
}

/// How much of a resource's name is left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Breadth {
    /// Nothing: each by itself.
    Exact,
    /// What follows the last slash: `bucket/logs/*`.
    Folder,
    /// What follows the kind: `instance/*`; of S3's objects, what follows the bucket.
    Kind,
    /// All of a service's resources in that account and region.
    Service,
}

/// What `policy why` is told.
#[derive(Args, Debug)]
pub struct Why {
    /// The call, as `chaperone calls` lists it, or the connection, as `chaperone connections` does.
    call: CallId,
    /// The policies, if not the configured ones.
    #[arg(long, value_name = "PATH")]
    policies: Option<PathBuf>,
    /// Ask ClickHouse.
    #[arg(long)]
    warehouse: bool,
    /// Policies that are far from matching, too.
    #[arg(long)]
    all: bool,
}

/// Does it.
pub fn run(config: &Path, what: &Policy, json: bool) -> anyhow::Result<ExitCode> {
    match what {
        Policy::Check { path } => check(config, path.as_deref(), json),
        Policy::Default => {
            print!("{DEFAULT_POLICY}");
            Ok(ExitCode::SUCCESS)
        }
        Policy::Learn(what) => learn::run(config, what, json),
        Policy::Schema => {
            io::stdout().write_all(schema_text(&KnownActions).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Policy::Test { path } => cases::run(config, path.as_deref(), json),
        Policy::Try(what) => trial::run(config, what, json),
        Policy::Why(what) => why::run(config, what, json),
    }
}

fn check(config: &Path, path: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let agents = Agents::of(config, path.is_none())?;
    let (path, zone) = policies_at(config, path)?;
    let version = match PolicyVersion::read(&path, &KnownActions) {
        Ok(version) => version.in_zone(zone),
        Err(PolicyError::Invalid(problems)) if json => {
            json_line(&mut io::stdout(), &serde_json::json!({ "valid": false, "problems": problems }))?;
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(ConfigError(error.to_string()).into()),
    };
    let mut warnings = version.warnings.clone();
    warnings.extend(version.misspelt(&agents.names, &agents.groups));
    let (policies, digest) = (version.len(), version.digest.clone());
    let ran = cases::beside(&path, version, &agents)?;
    let failed = ran.iter().filter(|case| !case.passed).count();
    if json {
        let value = serde_json::json!({
            "valid": true, "policies": policies, "version": digest, "warnings": warnings,
            "tests": { "passed": ran.len() - failed, "failed": failed, "failures": cases::failures(&ran) },
        });
        json_line(&mut io::stdout(), &value)?;
    } else {
        for warning in &warnings {
            eprintln!("warning: {warning}");
        }
        println!("{policies} policies, version {digest}");
        if !ran.is_empty() {
            cases::print(&mut io::stdout().lock(), &ran, false)?;
        }
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Agents and groups that the configuration knows.
#[derive(Debug, Default)]
struct Agents {
    names: Vec<String>,
    groups: Vec<String>,
    /// Each agent's own.
    groups_of: std::collections::BTreeMap<String, Vec<String>>,
}

impl Agents {
    /// Those of the configuration. Where it isn't needed, and isn't there, nothing is known.
    fn of(config: &Path, is_needed: bool) -> Result<Self, ConfigError> {
        let config = match Config::read(config) {
            Ok(config) => config,
            Err(error) if is_needed => return Err(error),
            Err(_) => return Ok(Self::default()),
        };
        let mut known = Self::default();
        for agent in &config.agents {
            known.names.push(agent.name.clone());
            known.groups.extend(agent.groups.iter().cloned());
            known.groups_of.insert(agent.name.clone(), agent.groups.clone());
        }
        known.groups.sort();
        known.groups.dedup();
        Ok(known)
    }

    /// What is wrong with the name of an agent: nothing, where none is known.
    fn check(&self, name: &str) -> Result<(), String> {
        if self.names.is_empty() || self.names.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(match nearest(name, self.names.iter().map(String::as_str)) {
            Some(meant) => format!("no agent `{name}`; did you mean `{meant}`?"),
            None => format!("no agent `{name}`: there are {}", self.names.join(", ")),
        })
    }
}

/// Where the policies are, and the zone of their clocks.
fn policies_at(config: &Path, path: Option<&Path>) -> Result<(PathBuf, TimeZone), ConfigError> {
    match (path, Config::read(config)) {
        (Some(path), Ok(config)) => Ok((path.to_owned(), config.policy.zone()?)),
        (Some(path), Err(_)) => Ok((path.to_owned(), TimeZone::UTC)),
        (None, Ok(config)) => Ok((config.policy.path.clone(), config.policy.zone()?)),
        (None, Err(error)) => Err(error),
    }
}

/// Reads policies that aren't in force.
fn read(config: &Path, path: Option<&Path>) -> Result<PolicyVersion, ConfigError> {
    let (path, time_zone) = policies_at(config, path)?;
    let version = PolicyVersion::read(&path, &KnownActions).map_err(|error| ConfigError(error.to_string()))?;
    Ok(version.in_zone(time_zone))
}
