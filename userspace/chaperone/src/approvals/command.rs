//! `chaperone approvals`: what an approver, or an operator, can do on the command line.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use chaperone_console::{ApprovalRequest, ApprovalResponse, ControlRequest, ControlResponse, approvals};
use chaperone_model::ApprovalId;
use chaperone_policy::approvals::{Asking, Scope, State};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::{
    commands::{ask, other_answer},
    config::Config,
    output,
};

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
    /// List messages to webhooks that wait or were given up, or send those that were given up once more. Root only.
    #[command(after_help = "Examples:
  chaperone approvals deliveries
  chaperone approvals deliveries --resend all")]
    Deliveries {
        /// Send this message once more, by its id; or `all`.
        #[arg(long, value_name = "ID")]
        resend: Option<String>,
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
    if let Approvals::Deliveries { resend } = what {
        return deliveries(config, resend.as_deref(), json);
    }
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
            Approvals::Deliveries { .. } => anyhow::bail!("BUG: that is asked over the control socket"),
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

fn deliveries(config: &Path, resend: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let mut out = std::io::stdout().lock();
    if let Some(id) = resend {
        let answer = ask(&config, &ControlRequest::Resend { id: id.to_owned() })?;
        let ControlResponse::Resent(count) = answer else { return Err(other_answer()) };
        if json {
            output::json_line(&mut out, &serde_json::json!({ "resent": count }))?;
        } else {
            writeln!(out, "{count} messages are sent once more")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let ControlResponse::Deliveries(all) = ask(&config, &ControlRequest::Deliveries)? else {
        return Err(other_answer());
    };
    for one in &all {
        if json {
            output::json_line(&mut out, one)?;
            continue;
        }
        let state = if one["dead"] == true { "given up" } else { "waits" };
        let (id, to, last) = (text(&one["id"]), text(&one["to"]), output::cut(text(&one["last"]), 80));
        writeln!(out, "{id}  {to:<16}  {state:<8}  {} attempts  {last}", one["attempts"])?;
    }
    if all.is_empty() && !json {
        writeln!(out, "every message was delivered")?;
    }
    Ok(ExitCode::SUCCESS)
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
        ("sponsor", asking.asked.sponsor.clone().unwrap_or_default()),
        ("command", command.join(" ")),
        ("directory", text(&about["directory"]).to_owned()),
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
