//! What can be asked on the command line.

use std::path::PathBuf;

use chaperone_journal::CallFilter;
use chaperone_model::{CallId, SessionId, Verdict};
use clap::{Args, Parser, Subcommand, ValueEnum};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{approvals::Approvals, config::DEFAULT_PATH};

/// Chaperone goes along wherever an AI agent goes on AWS: it decides, signs and records every call.
#[derive(Debug, Parser)]
#[command(
    name = "chaperone",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  chaperone run --agent coder -- aws s3 ls
  chaperone calls --decision deny --since 1h
  chaperone show 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081
  chaperone verify

Exit codes: 0 done; 1 it failed, or what was checked is wrong; 2 bad input or configuration."
)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, env = "CHAPERONE_CONFIG", default_value = DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON: one object, or for lists one a line.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked of masking.
#[derive(Debug, Subcommand)]
pub enum MaskCommand {
    /// List the detectors, and whether they are on by default.
    #[command(after_help = "Example: chaperone mask detectors")]
    Detectors,
    /// Tell what would be masked in an answer, and by which rule. Needs no daemon, no configuration and no privileges.
    #[command(after_help = "Examples:
  chaperone mask test answer.json --operation secretsmanager:GetSecretValue
  chaperone show 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081 --body response | chaperone mask test - --json")]
    Test(MaskTest),
}

/// What `mask test` is told.
#[derive(Debug, Args)]
pub struct MaskTest {
    /// The answer's body; `-` for standard input.
    pub file: PathBuf,
    /// Its content type; told by its beginning if not given.
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// The operation that it answers, such as secretsmanager:GetSecretValue, by botocore's names.
    #[arg(long, value_name = "SERVICE:OPERATION")]
    pub operation: Option<String>,
    /// All members that AWS's models mark as sensitive, and not only secrets: as `@mask("sensitive")`.
    #[arg(long, requires = "operation")]
    pub sensitive: bool,
    /// A member besides, by its path.
    #[arg(long, value_name = "PATH")]
    pub path: Vec<String>,
    /// Print the masked body alone.
    #[arg(long)]
    pub body: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the rules that enrol agents: what each enrolled, and its sessions.
    #[command(after_help = "Examples:
  chaperone agents
  chaperone agents --json | jq 'select(.unmatched).place'")]
    Agents,
    /// Answer questions: calls that wait for a person.
    #[command(subcommand)]
    Approvals(Approvals),
    /// Ask a question by its name: who used this bucket, what did this agent do, which policies refuse most?
    #[command(after_help = "Examples:
  chaperone ask --list
  chaperone ask what_did agent=coder since=1d
  chaperone ask risky_calls --json | jq 'select(.severity == \"critical\")'")]
    Ask(Ask),
    /// List calls, each when it ended.
    #[command(after_help = "Examples:
  chaperone calls --service s3 --action 's3:Delete*'
  chaperone calls --since 15m --json | jq .resources")]
    Calls(Filter),
    /// List what agents executed, each when it ended.
    #[command(after_help = "Examples:
  chaperone commands
  chaperone commands --warehouse --json | jq 'select(.id == \"0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081\").argv'")]
    Commands(OfSession),
    /// Print a completion script for a shell.
    #[command(after_help = "Example: chaperone completions bash > /etc/bash_completion.d/chaperone")]
    Completions { shell: clap_complete::Shell },
    /// Check and print the configuration.
    #[command(subcommand)]
    Config(Config),
    /// List connections, those too that were passed on or refused.
    #[command(after_help = "Examples:
  chaperone connections --json
  chaperone connections --warehouse --session 0199b0c4-6a7e-7c31-9d0e-3f5b8a2c4d61")]
    Connections(OfSession),
    /// Run the daemon in the foreground.
    #[command(after_help = "Example: chaperone daemon --config /etc/chaperone/config.toml")]
    Daemon,
    /// Take the kernel hooks off: agents reach AWS by themselves again, unseen.
    #[command(after_help = "Example: systemctl stop chaperone && chaperone disable")]
    Disable {
        /// Do it even if the journal can't record it, a full disk say. The system's log is told.
        #[arg(long)]
        unrecorded: bool,
    },
    /// Check what the daemon needs, with a remedy for each thing that is missing.
    #[command(after_help = "Examples:
  chaperone doctor
  chaperone doctor --agent coder
  chaperone doctor --agent coder --user alice --json | jq 'select(.state != \"verified\")'

With --agent it runs as that agent, and tells for each of curl, git, Python's and Node's libraries, JDKs, Go and the AWS CLI
that are found whether a call to AWS would verify, by making one without a signature: it is refused, and recorded.

Exit codes: 0 all is well; 1 something is wrong, as told; 2 bad input.")]
    Doctor(crate::doctor::Asked),
    /// Tell what a request is taken for, and why. Needs no daemon, no configuration and no privileges.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(Explain),
    /// Move into a cgroup and become a command (used by `run`).
    #[command(hide = true)]
    Enter {
        #[arg(long)]
        cgroup: PathBuf,
        #[arg(long)]
        user: Option<String>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Write the manual's pages and every shell's completions below a folder (used to make packages).
    #[command(hide = true)]
    Manual { folder: PathBuf },
    /// Show what is masked in answers.
    #[command(subcommand)]
    Mask(MaskCommand),
    /// Have an agent's container trust the CA: what podman and CRI-O call before they start one.
    #[command(hide = true)]
    OciHook,
    /// The same in the place of an OCI runtime, which it then becomes: what Docker and containerd call.
    #[command(hide = true)]
    OciRuntime {
        /// What the runtime is asked.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Check policies, test them, try them on what was recorded, learn them from it.
    #[command(subcommand)]
    Policy(crate::policy::Policy),
    /// Set an instance of the image up by its user data (docs/image.md): what the image does at each boot.
    #[command(after_help = "Example: chaperone provision --user-data user-data.toml --check

Exit codes: 0 it is in force, or can be used; 1 something failed; 2 it can't be used.")]
    Provision(crate::provision::Provision),
    /// Have the daemon read its configuration and policies again.
    #[command(after_help = "Example: chaperone policy check && chaperone reload")]
    Reload,
    /// Let an agent or a session go on that was stopped.
    #[command(after_help = "Example: chaperone resume coder")]
    Resume {
        /// The agent's name, or the session's id.
        of: String,
    },
    /// Start a command as an agent, for trying.
    #[command(after_help = "Examples:
  chaperone run -- aws sts get-caller-identity
  chaperone run --agent coder --user alice -- bash
  chaperone run --login --user alice -- claude")]
    Run(crate::run::Run),
    /// Say who a session is, by a token of a configured issuer (docs/identities.md).
    #[command(after_help = "Examples:
  chaperone register --cgroup /sys/fs/cgroup/runner.slice/job-7.scope --token-file /run/job-7/token
  printf %s \"$TOKEN\" | chaperone register --pid 4711 --token-file -")]
    Register(crate::register::Register),
    /// Try what this user's programs trust (used by `doctor --agent`).
    #[command(hide = true)]
    Runtimes,
    /// List sessions.
    #[command(after_help = "Examples:
  chaperone sessions
  chaperone sessions --warehouse --json")]
    Sessions {
        /// Ask ClickHouse, which has every host's sessions, instead of this host's journal.
        #[arg(long)]
        warehouse: bool,
    },
    /// Ask the metadata address for this process's role (used by `setup`).
    #[command(hide = true)]
    Probe,
    /// Set this host up: who the agents are, the CA, the service, and one call that proves it.
    #[command(after_help = "Examples:
  chaperone setup
  chaperone setup --agent ci --unit 'actions.runner.*.service' --role arn:aws:iam::123456789012:role/ci --yes
  chaperone setup --agent coder --user coder --dry-run

What is configured already is left as it is, and it can be run again. Exit codes: 0 all is well; 1 something isn't, as told;
2 bad input, and nothing was done.")]
    Setup(Box<crate::setup::Setup>),
    /// Show a call: heads and both bodies.
    #[command(after_help = "Examples:
  chaperone show 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081
  chaperone show 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081 --body response > object")]
    Show {
        /// Its id, as `calls` lists it.
        call: CallId,
        /// Write this body alone, whole and as it is.
        #[arg(long)]
        body: Option<Body>,
        /// Ask ClickHouse, which has every host's calls, instead of this host's journal.
        #[arg(long)]
        warehouse: bool,
    },
    /// Refuse everything of an agent or a session from now on, and cut off what is under way.
    #[command(after_help = "Examples:
  chaperone stop coder --reason 'it deletes what it should list'
  chaperone stop 0199b0c4-6a7e-7c31-9d0e-3f5b8a2c4d61 --kill")]
    Stop {
        /// The agent's name, or the session's id.
        of: String,
        /// End its processes, too, and all others in their cgroups.
        #[arg(long)]
        kill: bool,
        /// Why: the agent is told so, and the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Tell how the daemon is.
    #[command(after_help = "Example: chaperone status --json")]
    Status,
    /// Show calls as they end, until interrupted.
    #[command(after_help = "Example: chaperone tail --decision deny")]
    Tail(Filter),
    /// The local CA in the host's trust stores.
    #[command(subcommand)]
    Trust(Trust),
    /// ClickHouse: how it is, its tables, and who may read what.
    #[command(subcommand)]
    Warehouse(Warehouse),
    /// Verify the whole journal: chain, digests, checkpoints and their signatures.
    #[command(after_help = "Examples:
  chaperone verify
  chaperone verify --dir /mnt/copy --key journal.pub")]
    Verify {
        /// The journal's folder, if not the configured one.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The public key that must have signed it (PEM); without it, the one beside the journal.
        #[arg(long)]
        key: Option<PathBuf>,
    },
}

const EXPLAIN_EXAMPLES: &str = "Examples:
  chaperone explain GET https://my-bucket.s3.eu-west-1.amazonaws.com/key
  chaperone explain POST https://dynamodb.eu-west-1.amazonaws.com/ --header 'X-Amz-Target: DynamoDB_20120810.GetItem' \\
    --body item.json --account 123456789012 --json
  chaperone explain --batch < requests.jsonl > answers.jsonl

--batch reads one JSON object a line: {\"method\", \"url\", \"headers\": [[name, value], …], \"body_base64\"}; the last
two may be left out. Each gets one line: service, operation, candidates, region, account, actions, access_level,
resources, signing_name, payload, and error where it can't be decoded. A line that can't be read gets a line whose
error begins with its number.

Exit codes: 0 decoded, or the batch is through; 1 the request would be refused as undecodable; 2 bad input.";

/// A request to be explained.
#[derive(Args, Debug)]
pub struct Explain {
    /// The HTTP method.
    #[arg(required_unless_present = "batch", value_name = "METHOD")]
    pub method: Option<String>,
    /// The whole URL, https or http.
    #[arg(required_unless_present = "batch", value_name = "URL")]
    pub url: Option<String>,
    /// A header field; may be given many times. Host is taken from the URL if it isn't given.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", conflicts_with = "batch")]
    pub headers: Vec<String>,
    /// The file with the body; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub body: Option<PathBuf>,
    /// Read requests from standard input, one JSON object a line.
    #[arg(long, conflicts_with_all = ["method", "url"])]
    pub batch: bool,
    /// The account whose credentials would sign, for the resources' names.
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Body {
    /// What went to AWS. Of an upload in aws-chunked framing: the object itself.
    Request,
    /// The same with its framing, as the client sent it.
    RequestFramed,
    /// What came back.
    Response,
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check the file, with the place of what is wrong.
    #[command(after_help = "Examples:
  chaperone config check
  chaperone config check --config new.toml && mv new.toml /etc/chaperone/config.toml

Exit codes: 0 it can be used; 2 it can't.")]
    Check,
    /// Print every key with its default, what it is for, and whether a reload applies it.
    #[command(after_help = "Examples:
  chaperone config default > /etc/chaperone/config.toml
  chaperone config default --json | jq '.limits.spool_bytes'")]
    Default,
    /// Print the configuration that the file makes, with the defaults of what it doesn't say.
    #[command(after_help = "Examples:
  chaperone config show
  chaperone config show --json | jq .limits")]
    Show,
}

#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Print the variables that clients with a trust store of their own need.
    #[command(after_help = "Example: env $(chaperone trust env) python3 script.py")]
    Env,
    /// Make the CA if there is none, and have every store trust it.
    #[command(after_help = "Example: chaperone trust install")]
    Install {
        /// Make a new CA in the place of the present one.
        #[arg(long)]
        renew: bool,
    },
    /// Take the CA out of every store.
    #[command(after_help = "Example: chaperone trust remove")]
    Remove,
    /// Tell which stores know the CA.
    #[command(after_help = "Example: chaperone trust status --json")]
    Status,
}

/// What can be done about ClickHouse.
#[derive(Debug, Subcommand)]
pub enum Warehouse {
    /// Make the database and its tables, or bring them up to date. The daemon does it, too, if its user may.
    #[command(after_help = "Examples:
  chaperone warehouse migrate
  chaperone warehouse migrate --user admin --password-file /root/clickhouse-admin")]
    Migrate {
        /// As this user, instead of the configuration's.
        #[arg(long)]
        user: Option<String>,
        /// A file with that user's password in it.
        #[arg(long, requires = "user", value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Print the roles: who may read and write what. Needs no daemon and no configuration.
    #[command(after_help = "Examples:
  chaperone warehouse roles | clickhouse-client --multiquery
  chaperone warehouse roles --format xml --tenant acme > /etc/clickhouse-server/users.d/chaperone.xml")]
    Roles {
        /// As statements, or as a file for users.d.
        #[arg(long, value_enum, default_value_t = RolesFormat::Sql)]
        format: RolesFormat,
        /// The database.
        #[arg(long, default_value = "chaperone")]
        database: String,
        /// People see this tenant's rows alone.
        #[arg(long)]
        tenant: Option<String>,
        /// People see rows of agents in this group alone.
        #[arg(long)]
        group: Option<String>,
    },
    /// Tell whether each address answers, at which version the schema is, and how tables keep their rows.
    #[command(after_help = "Examples:
  chaperone warehouse status
  chaperone warehouse status --json | jq .amiss")]
    Status,
}

/// How roles are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RolesFormat {
    /// Statements.
    Sql,
    /// A file for `users.d`.
    Xml,
}

/// A question.
#[derive(Args, Debug)]
pub struct Ask {
    /// The question's name, as --list has it.
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// What it has to be told. `since` and `until` are times (RFC 3339) or a while ago (15m, 2h, 7d).
    #[arg(value_name = "KEY=VALUE")]
    pub parameters: Vec<String>,
    /// List the questions.
    #[arg(long, conflicts_with = "name")]
    pub list: bool,
    /// Ask this host's journal, also if there is a ClickHouse.
    #[arg(long)]
    pub journal: bool,
    /// At most so many rows.
    #[arg(long, default_value_t = 1000)]
    pub limit: u64,
}

/// Which calls are wanted.
#[derive(Args, Debug)]
pub struct Filter {
    /// Of this session.
    #[arg(long)]
    session: Option<SessionId>,
    /// Of this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Of this service, such as s3.
    #[arg(long)]
    service: Option<String>,
    /// Needing this IAM action, such as s3:GetObject; `*` stands for anything.
    #[arg(long)]
    action: Option<String>,
    /// Decided so.
    #[arg(long)]
    decision: Option<DecisionArgument>,
    /// Begun at this time (RFC 3339) or later, or this long ago (90s, 15m, 2h, 7d).
    #[arg(long, value_parser = moment)]
    since: Option<OffsetDateTime>,
    /// Begun before this time, likewise.
    #[arg(long, value_parser = moment)]
    until: Option<OffsetDateTime>,
    /// Ask ClickHouse, which has every host's calls, instead of this host's journal.
    #[arg(long)]
    pub warehouse: bool,
    /// At most so many from ClickHouse, the oldest first.
    #[arg(long, default_value_t = 100_000, requires = "warehouse")]
    pub limit: u64,
}

/// Which commands or connections.
#[derive(Debug, Args)]
pub struct OfSession {
    /// Of this session.
    #[arg(long)]
    pub session: Option<SessionId>,
    /// Ask ClickHouse, which has those of every host, instead of this host's journal.
    #[arg(long)]
    pub warehouse: bool,
    /// At most so many from ClickHouse, the oldest first.
    #[arg(long, default_value_t = 100_000, requires = "warehouse")]
    pub limit: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecisionArgument {
    Allow,
    Deny,
}

impl Filter {
    /// As the journal takes it.
    pub fn journal(&self) -> CallFilter {
        CallFilter {
            session: self.session,
            agent: self.agent.clone(),
            service: self.service.clone(),
            action: self.action.clone(),
            decision: self.decision.map(|decision| match decision {
                DecisionArgument::Allow => Verdict::Allow,
                DecisionArgument::Deny => Verdict::Deny,
            }),
            outcome: None,
            since: self.since,
            until: self.until,
        }
    }
}

/// A time, or a while ago.
pub fn moment(text: &str) -> Result<OffsetDateTime, String> {
    let ago = || {
        let unit = match text.chars().last()? {
            's' => Duration::SECOND,
            'm' => Duration::MINUTE,
            'h' => Duration::HOUR,
            'd' => Duration::DAY,
            _ => return None,
        };
        let count: i32 = text[..text.len() - 1].parse().ok()?;
        OffsetDateTime::now_utc().checked_sub(unit.checked_mul(count)?)
    };
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .or_else(ago)
        .ok_or_else(|| "neither an RFC 3339 time such as 2026-01-31T12:00:00Z nor a while ago such as 15m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn moments_are_times_or_whiles() {
        assert_eq!(moment("2026-01-31T12:00:00Z").unwrap().unix_timestamp(), 1_769_860_800);
        let ago = OffsetDateTime::now_utc() - moment("2h").unwrap();
        assert!((ago - Duration::hours(2)).abs() < Duration::MINUTE);
        for bad in ["", "h", "-", "1y", "yesterday", "é"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
