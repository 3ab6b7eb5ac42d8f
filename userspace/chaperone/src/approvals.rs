//! Approvals: the section of the configuration, who an approver is, and what they can do on the command line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use chaperone_console::{ApprovalBackend, ApprovalRequest, ApprovalResponse, Peer, approvals};
use chaperone_model::ApprovalId;
use chaperone_policy::{
    PolicyVersion,
    approvals::{Answer, Asking, Scope, State, Terms},
};
use chaperone_proxy::{ApprovalSettings, DataPlane};
use clap::{Args, Subcommand, ValueEnum};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{Config, ConfigError},
    output,
};

chaperone_model::documented! {
/// Who approves calls, and how long they have.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalsSection {
    /// Seconds that a call is held before its client is told to try again.
    pub hold: u64,
    /// Seconds between two `100 Continue` to a client that waits, which start its read timeout anew. Go's clients before 1.23
    /// bear no more than five of them in one answer.
    pub interim: u64,
    /// Minutes after which a question that nobody answered is over, and an approval that wasn't used.
    pub expires: u64,
    /// Minutes that a question waits for its call, when the client is gone.
    pub returns: u64,
    /// Questions that may be open at once.
    pub open: usize,
    /// Of one session.
    pub open_per_session: usize,
    /// Bodies up to this many bytes are held in memory with their call. Larger ones come again with the retry.
    pub body_bytes: usize,
    /// Users of this host by group: names, or `uid:1001`.
    pub groups: BTreeMap<String, Vec<String>>,
}
}

impl Default for ApprovalsSection {
    fn default() -> Self {
        let ApprovalSettings { hold, interim, terms, body_bytes, groups } = ApprovalSettings::default();
        Self {
            hold: hold.as_secs(),
            interim: interim.as_secs(),
            expires: terms.expires / 60_000,
            returns: terms.returns / 60_000,
            open: terms.open,
            open_per_session: terms.open_per_session,
            body_bytes,
            groups,
        }
    }
}

impl ApprovalsSection {
    /// As the data path takes it.
    pub fn settings(&self) -> ApprovalSettings {
        ApprovalSettings {
            hold: Duration::from_secs(self.hold),
            interim: Duration::from_secs(self.interim),
            terms: Terms {
                expires: self.expires.saturating_mul(60_000),
                returns: self.returns.saturating_mul(60_000),
                open: self.open,
                open_per_session: self.open_per_session,
            },
            body_bytes: self.body_bytes,
            groups: self.groups.clone(),
        }
    }

    /// What TOML's types can't say.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let bound = |key, value: u64, least, most: u64| {
            let ok = (least..=most).contains(&value);
            ok.then_some(()).ok_or_else(|| (key, format!("approvals.{key} = {value}: from {least} to {most}")))
        };
        bound("hold", self.hold, 1, 600)?;
        bound("interim", self.interim, 1, 600)?;
        bound("expires", self.expires, 1, 7 * 24 * 60)?;
        bound("returns", self.returns, 1, 7 * 24 * 60)?;
        bound("open", self.open as u64, 1, 100_000)?;
        bound("open_per_session", self.open_per_session as u64, 1, self.open as u64)?;
        bound("body_bytes", self.body_bytes as u64, 0, 64 << 20)?;
        for (group, members) in &self.groups {
            if members.is_empty() {
                return Err((
                    "groups",
                    format!("approvals.groups.{group}: nobody is in it, so that nobody could approve"),
                ));
            }
        }
        Ok(())
    }
}

/// Policies that ask must ask groups that there are.
pub fn check_groups(policies: &PolicyVersion, config: &Config) -> Result<(), ConfigError> {
    let known: BTreeSet<&str> = config.approvals.groups.keys().map(String::as_str).collect();
    for (policy, group) in policies.approver_groups() {
        if !known.contains(group.as_str()) {
            let all = if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are {}", known.iter().copied().collect::<Vec<_>>().join(", "))
            };
            return Err(ConfigError(format!(
                "policy `{policy}` asks the approvers `{group}`, and no such group is in [approvals.groups] of {}: {all}. \
                 Nobody could approve what it forbids; add the group, with the users who are in it",
                config.path().display()
            )));
        }
    }
    Ok(())
}

/// Serves approvers.
pub struct Desk(pub Arc<DataPlane>);

impl ApprovalBackend for Desk {
    async fn serve(&self, peer: Peer, request: ApprovalRequest) -> ApprovalResponse {
        match self.agent_of(peer) {
            Ok(None) => {}
            Ok(Some(agent)) => {
                tracing::warn!(uid = peer.uid, pid = peer.pid, agent, "an agent's process asked for approvals");
                let why = format!("this process belongs to the agent `{agent}`: agents approve nothing");
                return ApprovalResponse::Error(why);
            }
            // One that is gone before it is looked at could be anybody's.
            Err(why) => {
                tracing::warn!(uid = peer.uid, pid = peer.pid, why, "nobody knows whose process asked for approvals");
                return ApprovalResponse::Error(format!(
                    "whose process this is can't be told: {why}; ask again, and wait"
                ));
            }
        }
        let desk = &self.0.approvals;
        let (name, by_id) = (name_of(peer.uid), format!("uid:{}", peer.uid));
        // Known by whichever of the two the configuration has.
        let who = if desk.groups_of(&name).is_empty() && !desk.groups_of(&by_id).is_empty() { by_id } else { name };
        let groups = desk.groups_of(&who);
        match request {
            ApprovalRequest::List { ended } => {
                let theirs = |asking: &Asking| {
                    let mut asked = asking.asked.requirements.iter().flat_map(|one| &one.groups);
                    peer.uid == 0 || asked.any(|group| groups.contains(group))
                };
                let all = desk.questions().into_iter().filter(|asking| ended || asking.state.is_open());
                ApprovalResponse::Questions(all.filter(theirs).collect())
            }
            ApprovalRequest::Answer { id, allow, reason, scope, seconds } => {
                let now =
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + Duration::from_secs(seconds);
                let until = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
                let answer =
                    Answer { by: who.clone(), allow, reason, scope, until: if seconds == 0 { 0 } else { until } };
                match desk.answer(id, answer).await {
                    Ok(asking) => {
                        tracing::info!(approval = %id, by = who, allow, state = asking.state.as_str(), "a question was answered");
                        ApprovalResponse::Answered(Box::new(asking))
                    }
                    Err(error) => ApprovalResponse::Error(error.to_string()),
                }
            }
        }
    }
}

impl Desk {
    /// The agent whose process this is. (Agents' users are kept out by not being in a group.)
    fn agent_of(&self, peer: Peer) -> Result<Option<String>, String> {
        let pid = peer.pid.ok_or("the kernel doesn't name it")?;
        let file = format!("/proc/{pid}/cgroup");
        let cgroups = fs::read_to_string(&file).map_err(|error| format!("reading {file}: {error}"))?;
        let path = cgroups.lines().find_map(|line| line.strip_prefix("0::")).ok_or("it is in no cgroup")?;
        let below = |of: &str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let open = self.0.sessions.open();
        Ok(open.iter().find(|open| below(&open.session.cgroup_path)).map(|open| open.session.agent.clone()))
    }
}

fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid:{uid}"),
    }
}

/// `chaperone approvals`
#[derive(Debug, Subcommand)]
pub enum Approvals {
    /// Let calls go out.
    #[command(after_help = "Examples:
  chaperone approvals approve 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081
  chaperone approvals approve 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081 --for session --minutes 30 --reason 'migration'")]
    Approve {
        /// The question, as `list` has it.
        id: ApprovalId,
        /// What it is approved for: this call, or the same actions on the same resources.
        #[arg(long = "for", value_enum, default_value_t = For::Once, value_name = "WHAT")]
        scope: For,
        /// For so long, if it is for more than this call.
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        #[command(flatten)]
        why: Why,
    },
    /// Refuse a call. Its client is told why.
    #[command(
        after_help = "Example: chaperone approvals deny 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081 --reason 'use the staging bucket'"
    )]
    Deny {
        /// The question, as `list` has it.
        id: ApprovalId,
        #[command(flatten)]
        why: Why,
    },
    /// List the questions that you may answer.
    #[command(after_help = "Examples:
  chaperone approvals list
  chaperone approvals list --all --json | jq 'select(.state == \"denied\")'")]
    List {
        /// Those of the last day that are over, too.
        #[arg(long)]
        all: bool,
    },
    /// Show a question: who asks, which command made the call, with which parameters.
    #[command(after_help = "Example: chaperone approvals show 0197f2b4-7c9e-7d3a-a1b2-3c4d5e6f7081")]
    Show {
        /// The question, as `list` has it.
        id: ApprovalId,
    },
    /// Print questions as they come, until interrupted.
    #[command(after_help = "Example: chaperone approvals watch")]
    Watch,
}

/// Why somebody answers so.
#[derive(Args, Debug)]
pub struct Why {
    /// For the agent, who reads it in the error, and for the record.
    #[arg(long, default_value = "")]
    reason: String,
}

/// What an approval is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// This agent's.
    Agent,
    /// This call.
    Once,
    /// This session's.
    Session,
}

/// Runs `chaperone approvals`. Without a configuration that can be read, which is root's, the socket is where it usually is.
pub fn run(config: &Path, what: &Approvals, json: bool) -> anyhow::Result<ExitCode> {
    let socket = socket(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(async {
        match what {
            Approvals::Approve { id, scope, minutes, why } => {
                let scope = match scope {
                    For::Agent => Scope::Agent,
                    For::Once => Scope::Once,
                    For::Session => Scope::Session,
                };
                let seconds = if scope == Scope::Once { 0 } else { minutes.saturating_mul(60) };
                let reason = why.reason.clone();
                answered(&socket, ApprovalRequest::Answer { id: *id, allow: true, reason, scope, seconds }, json).await
            }
            Approvals::Deny { id, why } => {
                let (reason, scope) = (why.reason.clone(), Scope::Once);
                answered(&socket, ApprovalRequest::Answer { id: *id, allow: false, reason, scope, seconds: 0 }, json)
                    .await
            }
            Approvals::List { all } => list(&questions(&socket, *all).await?, json),
            Approvals::Show { id } => {
                let all = questions(&socket, true).await?;
                let Some(asking) = all.iter().find(|asking| asking.id == *id) else {
                    anyhow::bail!(
                        "there is no question {id} that you may answer; `chaperone approvals list --all` has them"
                    );
                };
                show(asking, json)
            }
            Approvals::Watch => watch(&socket, json).await,
        }
    })
}

fn socket(config: &Path) -> anyhow::Result<PathBuf> {
    match fs::metadata(config).and_then(|_| fs::File::open(config)) {
        Ok(_) => Ok(Config::read(config)?.paths.approvals),
        Err(_) => Ok(crate::config::Paths::default().approvals),
    }
}

async fn questions(socket: &Path, ended: bool) -> anyhow::Result<Vec<Asking>> {
    match approvals(socket, &ApprovalRequest::List { ended }).await? {
        ApprovalResponse::Questions(all) => Ok(all),
        ApprovalResponse::Error(why) => anyhow::bail!(why),
        ApprovalResponse::Answered(_) => anyhow::bail!("BUG: an answer to a list"),
    }
}

async fn answered(socket: &Path, request: ApprovalRequest, json: bool) -> anyhow::Result<ExitCode> {
    let asking = match approvals(socket, &request).await? {
        ApprovalResponse::Answered(asking) => asking,
        ApprovalResponse::Error(why) => anyhow::bail!(why),
        ApprovalResponse::Questions(_) => anyhow::bail!("BUG: a list to an answer"),
    };
    let mut out = std::io::stdout().lock();
    if json {
        output::json_line(&mut out, &asking)?;
    } else if asking.state == State::Pending {
        writeln!(out, "{}: noted; others must approve it, too", asking.id)?;
    } else {
        writeln!(out, "{}: {}", asking.id, asking.state.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(all: &[Asking], json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for asking in all {
        if json {
            output::json_line(&mut out, asking)?;
        } else {
            line(&mut out, asking)?;
        }
    }
    if all.is_empty() && !json {
        writeln!(out, "no questions that you may answer")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(out: &mut impl std::io::Write, asking: &Asking) -> std::io::Result<()> {
    let needs: Vec<_> = asking.asked.needs.iter().map(|(action, resource)| format!("{action} on {resource}")).collect();
    let what = output::cut(&needs.join(", "), 120);
    writeln!(out, "{}  {:<10}  {:<12}  {what}", asking.id, asking.state.as_str(), output::cut(&asking.asked.agent, 12))
}

fn show(asking: &Asking, json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if json {
        output::json_line(&mut out, asking)?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&mut out, asking)?;
    let about = &asking.asked.about;
    let command: Vec<_> = about["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let state = match &asking.state {
        State::Denied { by, reason } => format!("denied by {by}: {reason}"),
        other => other.as_str().to_owned(),
    };
    let approvers: Vec<_> = asking
        .asked
        .requirements
        .iter()
        .map(|one| format!("{} of {} (policy {})", one.needed, one.groups.join(" or "), one.policy))
        .collect();
    let votes: Vec<_> = asking.votes.iter().map(|vote| vote.by.as_str()).collect();
    let region = about["region"].as_str().unwrap_or("no region");
    let rows = [
        ("state", state),
        ("agent", asking.asked.agent.clone()),
        ("session", asking.asked.session.to_string()),
        ("command", command.join(" ")),
        ("executable", about["executable"].as_str().unwrap_or_default().to_owned()),
        ("call", format!("{}:{}, {region}", text(&about["service"]), text(&about["operation"]))),
        ("parameters", about["parameters"].to_string()),
        ("why", text(&about["why"]).to_owned()),
        ("approvers", approvers.join("; ")),
        ("approved by", votes.join(", ")),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:<12}  {}", output::clean(value))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn watch(socket: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut seen: BTreeMap<ApprovalId, State> = BTreeMap::new();
    loop {
        let all = questions(socket, true).await?;
        {
            let mut out = std::io::stdout().lock();
            for asking in &all {
                let before = seen.insert(asking.id, asking.state.clone());
                // At the beginning, only what is open.
                if before.as_ref() == Some(&asking.state) || before.is_none() && !asking.state.is_open() {
                    continue;
                }
                if json { output::json_line(&mut out, asking)? } else { line(&mut out, asking)? }
            }
            out.flush()?;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            interrupted = tokio::signal::ctrl_c() => return interrupted.map(|()| ExitCode::SUCCESS).context("waiting"),
        }
    }
}
