//! `chaperone setup`: from an installed package to an agent that is captured. It asks, or takes flags; it changes nothing
//! that is configured already, and can be run again.

mod candidates;
mod file;
mod probe;

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use chaperone_authority::{CertificateAuthority, Trust};
use clap::Args;
use serde::Serialize;

pub use self::probe::run as probe;
use self::{
    candidates::{Candidate, Rule, candidates},
    file::Answers,
};
use crate::{
    config::{Config, ConfigError},
    doctor,
    output::{clean, json_line},
    sandbox,
};

/// What is to be set up. What isn't given is asked for at a terminal, and left out elsewhere.
#[derive(Args, Debug)]
pub struct Setup {
    /// The agent's name, which policies know it by.
    #[arg(long, default_value = "agent")]
    agent: String,
    /// Its groups.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Services of systemd's that are its, such as `agent-*.service`.
    #[arg(long = "unit", value_name = "PATTERN")]
    units: Vec<String>,
    /// Slices of systemd's that are its, such as `agents.slice`.
    #[arg(long = "slice", value_name = "SLICE")]
    slices: Vec<String>,
    /// Users that are its.
    #[arg(long = "user", value_name = "USER")]
    users: Vec<String>,
    /// Containers with this label, `name` or `name=value`.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Containers of this image.
    #[arg(long = "image", value_name = "PATTERN")]
    images: Vec<String>,
    /// Cgroups that are its, such as `/agents/*`.
    #[arg(long = "cgroup", value_name = "PATTERN")]
    cgroups: Vec<String>,
    /// The role that its calls are made with; the daemon's own credentials, if not given.
    #[arg(long, value_name = "ARN")]
    role: Option<String>,
    /// The region that agents are told.
    #[arg(long)]
    region: Option<String>,
    /// ClickHouse's address; without it the record is in the journal alone.
    #[arg(long, value_name = "URL")]
    warehouse: Option<String>,
    /// ClickHouse's user.
    #[arg(long, requires = "warehouse", default_value = "chaperone_writer")]
    warehouse_user: String,
    /// The file with that user's password.
    #[arg(long, requires = "warehouse", value_name = "FILE")]
    warehouse_password_file: Option<PathBuf>,
    /// Where Prometheus finds the metrics, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<std::net::SocketAddr>,
    /// Show what would be written and done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ask nothing: what isn't given is left out.
    #[arg(long, short = 'y')]
    yes: bool,
    /// Leave the service alone: don't enable, start or try it.
    #[arg(long)]
    no_start: bool,
}

/// What became of a step.
#[derive(Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    found: String,
}

/// Goes through the steps, and tells each as it is done. Exit code 1 if the host isn't as it must be at the end.
pub fn run(config: &Path, what: &Setup, json: bool) -> anyhow::Result<ExitCode> {
    if !what.dry_run {
        sandbox::require_root()?;
    }
    let text = if is_configured(config)? {
        if !what.rules().is_empty() {
            return Err(ConfigError(format!(
                "{} names agents already, and is left as it is: add an [[agents]] entry there, then `chaperone config \
                 check` and `systemctl restart chaperone`",
                config.display()
            ))
            .into());
        }
        None
    } else {
        let answers = what.answers()?;
        let text = file::render(&answers);
        file::check(config, &text)?;
        Some(text)
    };
    if what.dry_run {
        return dry_run(config, text.as_deref(), what, json);
    }
    let mut steps = Report { json, all_well: true };
    let is_new = text.is_some();
    match text {
        Some(text) => {
            write(config, &text)?;
            steps.done("configuration", format!("{} written", config.display()))?;
        }
        None => steps.done("configuration", format!("{} names agents, and is left as it is", config.display()))?,
    }
    let config_path = config;
    let config = Config::read(config_path)?;
    steps.done("policies", policies(&config.policy.path)?)?;
    let authority = CertificateAuthority::open_or_create(&config.ca(), &config.domains())?;
    authority.check(&config.domains())?;
    let trust = Trust::of_host()
        .and_then(|trust| trust.with_containers_by(config.path()))
        .map_err(|error| ConfigError(error.to_string()))?;
    let report = trust.install(authority.path())?;
    let untrusting = report.stores.iter().filter(|store| !store.trusted);
    let remedies: Vec<_> = untrusting
        .map(|store| format!("{}: {}", store.path.display(), store.remedy.as_deref().unwrap_or("not trusted")))
        .collect();
    let found = if remedies.is_empty() {
        format!("{} is trusted by {} stores", authority.path().display(), report.stores.len())
    } else {
        remedies.join("; ")
    };
    steps.tell("trust", remedies.is_empty(), found)?;
    if what.no_start {
        steps.done("service", "not started, as asked".into())?;
        return Ok(steps.code());
    }
    let service = start(is_new);
    let runs = service.is_ok();
    steps.tell("service", runs, service.unwrap_or_else(|error| format!("{error:#}")))?;
    if runs {
        let tried = prove(config_path, &config);
        steps.tell("a call", tried.is_ok(), tried.unwrap_or_else(|error| format!("{error:#}")))?;
    }
    if !json {
        println!("\nchaperone doctor:");
    }
    let doctors = doctor::run(config_path, json)?;
    Ok(if doctors == ExitCode::SUCCESS { steps.code() } else { doctors })
}

impl Setup {
    fn rules(&self) -> Vec<Rule> {
        let kinds: [(&str, &[String]); 6] = [
            ("units", &self.units),
            ("slices", &self.slices),
            ("users", &self.users),
            ("labels", &self.labels),
            ("images", &self.images),
            ("cgroups", &self.cgroups),
        ];
        let each = |(kind, all): (&'static str, &[String])| -> Vec<Rule> {
            all.iter().map(|pattern| Rule { kind, pattern: pattern.clone() }).collect()
        };
        kinds.into_iter().flat_map(each).collect()
    }

    /// What the file is to say: by the flags, and by what is answered at a terminal.
    fn answers(&self) -> anyhow::Result<Answers> {
        let asks = !self.yes && !self.dry_run && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let mut answers = Answers {
            agent: self.agent.clone(),
            groups: self.groups.clone(),
            rules: self.rules(),
            role: self.role.clone(),
            region: self.region.clone(),
            warehouse: self.warehouse.clone(),
            warehouse_user: self.warehouse_user.clone(),
            warehouse_password_file: self.warehouse_password_file.clone(),
            metrics: self.metrics,
        };
        let found = candidates(Path::new("/"));
        if answers.rules.is_empty() && asks {
            answers.rules = choose(&found)?;
            answers.role =
                answers.role.or(answer("The role that its calls are made with (ARN; empty: the daemon's own)")?);
            answers.region = answers.region.or(answer("The region that agents are told (empty: us-east-1)")?);
            answers.warehouse = answers.warehouse.or(answer("ClickHouse's address (empty: the journal alone)")?);
        }
        if answers.rules.is_empty() {
            let listed: Vec<_> = found.iter().map(|one| format!("\n  {}  {}", one.rule.flag(), one.what)).collect();
            let listed = if listed.is_empty() { "\n  nothing that looks like one".into() } else { listed.concat() };
            return Err(ConfigError(format!(
                "who the agents are isn't said: give --unit, --slice, --user, --label, --image or --cgroup. On this host \
                 there is:{listed}"
            ))
            .into());
        }
        Ok(answers)
    }
}

/// Whether the file is there and names agents. One that can't be read as TOML is an error, and not written over.
fn is_configured(path: &Path) -> anyhow::Result<bool> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        ConfigError(format!("{}: {}; it is left as it is", path.display(), error.to_string().trim_end()))
    })?;
    if !table.is_empty() && !table.contains_key("agents") {
        return Err(ConfigError(format!(
            "{} has settings and no [[agents]], and is left as it is: add one there, or move the file away",
            path.display()
        ))
        .into());
    }
    Ok(table.contains_key("agents"))
}

/// What could be an agent's, by number, or a user's name or unit that is typed in.
fn choose(found: &[Candidate]) -> anyhow::Result<Vec<Rule>> {
    eprintln!("What on this host is an agent's?");
    for (number, one) in found.iter().enumerate() {
        eprintln!("  {}. {} ({})", number + 1, clean(&one.what), one.rule.flag());
    }
    let question = "Numbers, or such as `unit=agent-*.service` or `user=coder`, with blanks between";
    let said = answer(question)?.unwrap_or_default();
    let mut rules = Vec::new();
    for word in said.split_whitespace() {
        let by_number = word.parse::<usize>().ok().and_then(|number| found.get(number.checked_sub(1)?));
        match (by_number, word.split_once('=').and_then(|(kind, pattern)| Rule::parse(kind, pattern))) {
            (Some(one), _) => rules.push(one.rule.clone()),
            (None, Some(rule)) => rules.push(rule),
            (None, None) => bail!("`{}` is no number of the list, and no rule such as user=coder", clean(word)),
        }
    }
    Ok(rules)
}

fn answer(question: &str) -> anyhow::Result<Option<String>> {
    eprint!("{question}: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("reading the answer")?;
    Ok(Some(line.trim().to_owned()).filter(|line| !line.is_empty()))
}

fn dry_run(config: &Path, text: Option<&str>, what: &Setup, json: bool) -> anyhow::Result<ExitCode> {
    let then = if what.no_start { "" } else { ", enable and start chaperone.service, and try it with one call" };
    let then = format!("make the CA and have the host's stores trust it{then}");
    if json {
        let value = serde_json::json!({ "file": config, "text": text, "then": then });
        json_line(&mut std::io::stdout().lock(), &value)?;
    } else {
        match text {
            Some(text) => println!("{} would be:\n\n{text}", config.display()),
            None => println!("{} names agents, and would be left as it is", config.display()),
        }
        println!("Then setup would {then}. Nothing was done.");
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts the file in place in one step. What was there, comments alone, stays behind it.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("the configuration's path has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let comments = match fs::read_to_string(path) {
        Ok(comments) => format!("\n{comments}"),
        Err(_) => String::new(),
    };
    let new = path.with_extension("toml.new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&new)
        .with_context(|| format!("writing {}", new.display()))?;
    let all = format!("{text}{comments}");
    let written = file
        .set_permissions(fs::Permissions::from_mode(0o640))
        .and_then(|()| file.write_all(all.as_bytes()))
        .and_then(|()| file.sync_all());
    written.with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("putting {} in place", path.display()))
}

/// Without any policy everything would be denied: the default one, if there is none.
fn policies(path: &Path) -> anyhow::Result<String> {
    let has_some = path.is_file()
        || fs::read_dir(path).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.path().extension().is_some_and(|it| it == "cedar"))
        });
    if has_some {
        return Ok(format!("{} is left as it is", path.display()));
    }
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    let file = path.join("default.cedar");
    fs::write(&file, chaperone_policy::DEFAULT_POLICY).with_context(|| format!("writing {}", file.display()))?;
    Ok(format!("{} written: agents may read and list, and nothing that hands out secrets", file.display()))
}

/// Enables the service and has it run by the configuration that is there now. It is ready when systemd says so.
fn start(is_new: bool) -> anyhow::Result<String> {
    if !Path::new("/run/systemd/system").exists() {
        bail!("systemd doesn't run here: start `chaperone daemon` by what does, then `chaperone doctor`");
    }
    // One that runs by what was there before is left alone.
    for arguments in [&["enable", "chaperone"][..], &[if is_new { "restart" } else { "start" }, "chaperone"]] {
        let done = Command::new("systemctl").args(arguments).output().context("running systemctl")?;
        if !done.status.success() {
            bail!(
                "`systemctl {}` failed: {}; `journalctl -u chaperone` says why",
                arguments.join(" "),
                clean(String::from_utf8_lossy(&done.stderr).trim())
            );
        }
    }
    Ok("chaperone.service is enabled and runs".into())
}

/// A process in the agent's own cgroup asks the metadata address who it is: only Chaperone answers there with its role.
fn prove(path: &Path, config: &Config) -> anyhow::Result<String> {
    let Some(agent) = config.agents.iter().find(|agent| agent.run) else {
        return Ok("not tried: no agent has `run = true`, so that nothing can be started as one".into());
    };
    let own = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(&own);
    command.arg("--config").arg(path).args(["run", "--agent", &agent.name, "--"]);
    let done = command.arg(&own).arg("probe").output().context("starting a process as the agent")?;
    let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    if done.status.success() && said == config.aws.role {
        return Ok(format!("a process of agent `{}` was captured: its role is `{}`", agent.name, clean(&said)));
    }
    let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    bail!("a process of agent `{}` was not captured: {} {}", agent.name, clean(&said), clean(&why));
}

/// Tells steps as they are done.
struct Report {
    json: bool,
    all_well: bool,
}

impl Report {
    fn done(&mut self, step: &'static str, found: String) -> anyhow::Result<()> {
        self.tell(step, true, found)
    }

    fn tell(&mut self, step: &'static str, ok: bool, found: String) -> anyhow::Result<()> {
        self.all_well &= ok;
        let mut out = std::io::stdout().lock();
        if self.json {
            return Ok(json_line(&mut out, &Step { name: step, ok, found })?);
        }
        writeln!(out, "{} {step}: {}", if ok { "ok   " } else { "WRONG" }, clean(&found))?;
        Ok(())
    }

    const fn code(&self) -> ExitCode {
        if self.all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_says_something_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert!(!is_configured(&path).unwrap(), "there is none");
        fs::write(&path, "# comments alone\n").unwrap();
        assert!(!is_configured(&path).unwrap());
        fs::write(&path, "[[agents]]\nname = \"a\"\n").unwrap();
        assert!(is_configured(&path).unwrap());
        for text in ["[metrics]\n", "[[agents]\n"] {
            fs::write(&path, text).unwrap();
            assert!(is_configured(&path).unwrap_err().to_string().contains("left as it is"), "{text}");
        }
    }

    #[test]
    fn comments_that_were_there_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.toml");
        write(&path, "# the first\n").unwrap();
        write(&path, "a = 1\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a = 1\n\n# the first\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn policies_that_are_there_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies");
        assert!(policies(&path).unwrap().contains("written"));
        assert!(policies(&path).unwrap().contains("left"));
        fs::remove_file(path.join("default.cedar")).unwrap();
        fs::write(path.join("own.cedar"), "").unwrap();
        assert!(policies(&path).unwrap().contains("left"));
    }
}
