//! The commands that read the journal, ask the daemon, or look after trust and policies.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use chaperone_authority::{CertificateAuthority, Trust};
use chaperone_console::{ClientError, ControlRequest, ControlResponse};
use chaperone_journal::{CallRow, Calls, Changes, CommandRow, ConnectionRow, PublicKey, SessionRow, VerifyOptions};
use chaperone_model::{CommandExit, Container, Event, Verdict};
use chaperone_query::{EventFilter, JournalQuery, Query, Rows};
use futures_util::TryStreamExt as _;
use serde_json::Value;
use time::{OffsetDateTime, macros::format_description};

use crate::{
    approvals, cli,
    config::{Config, ConfigError},
    output::{clean, cut, json_line, size, table},
};

/// Rows that are printed together: columns are as wide as the widest of these.
const PAGE: usize = 200;
const SESSION_HEADS: [&str; 11] =
    ["STARTED", "AGENT", "GROUPS", "CGROUP", "CONTAINER", "CALLS", "DENIED", "SENT", "GOT", "ENDED", "ID"];
const CONNECTION_HEADS: [&str; 8] = ["OPENED", "KIND", "NAME", "DESTINATION", "UPSTREAM", "SENT/GOT", "EXE", "ERROR"];
const COMMAND_HEADS: [&str; 9] = ["STARTED", "PID", "PARENT", "UID", "EXIT", "TIME", "DIRECTORY", "COMMAND", "ID"];
const CALL_HEADS: [&str; 10] =
    ["STARTED", "AGENT", "ACTION", "RESOURCE", "REGION", "DECISION", "STATUS", "TIME", "SENT/GOT", "ID"];

/// Asks ClickHouse, or else this host's journal.
pub fn query<T>(
    config: &Config,
    warehouse: bool,
    asking: impl AsyncFnOnce(&dyn Query) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if !warehouse {
        let journal = JournalQuery::new(recorded(config));
        return blocking_on(asking(&journal))?;
    }
    let warehouse = config.warehouse()?.ok_or_else(|| {
        ConfigError("--warehouse: the configuration has no [warehouse]; without it this host's journal is asked".into())
    })?;
    blocking_on(async {
        warehouse.reach().await?;
        asking(&warehouse).await
    })?
}

/// Prints rows as they come: lines of JSON, or tables of a page each.
struct Printer<'a> {
    out: BufWriter<io::StdoutLock<'a>>,
    json: bool,
    heads: &'static [&'static str],
    page: Vec<Vec<String>>,
}

impl Printer<'_> {
    fn new(json: bool, heads: &'static [&'static str]) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json, heads, page: Vec::new() }
    }

    async fn print<T: serde::Serialize>(
        mut self,
        mut rows: Rows<'_, T>,
        cells: fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        while let Some(row) = rows.try_next().await? {
            if self.json {
                json_line(&mut self.out, &row)?;
                continue;
            }
            self.page.push(cells(&row));
            if self.page.len() == PAGE {
                table(&mut self.out, self.heads, &std::mem::take(&mut self.page))?;
            }
        }
        if !self.json {
            table(&mut self.out, self.heads, &self.page)?;
        }
        Ok(self.out.flush()?)
    }
}

/// Runs `work` to its end, on a runtime of its own.
pub fn blocking_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

pub fn sessions(config: &Path, warehouse: bool, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    query(&config, warehouse, async |record| {
        Printer::new(json, &SESSION_HEADS).print(record.sessions(), session_cells).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn session_cells(row: &SessionRow) -> Vec<String> {
    vec![
        moment(row.started),
        cut(&row.agent, 24),
        cut(&row.groups.join(","), 24),
        cut(&row.cgroup, 48),
        row.container.as_ref().map_or_else(|| "-".to_owned(), container),
        row.calls.to_string(),
        row.denied.to_string(),
        size(row.request_bytes),
        size(row.response_bytes),
        row.ended.map_or_else(|| "open".to_owned(), moment),
        row.id.to_string(),
    ]
}

/// As people call it.
fn container(container: &Container) -> String {
    let name = if container.name.is_empty() { container.id.get(..12).unwrap_or_default() } else { &container.name };
    cut(&format!("{name} ({})", container.image), 48)
}

pub fn calls(config: &Path, filter: &cli::Filter, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    query(&config, filter.warehouse, async |record| {
        let rows = record.calls(filter.journal(), filter.limit);
        Printer::new(json, &CALL_HEADS).print(rows, call_cells).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn call_cells(row: &CallRow) -> Vec<String> {
    let action = match row.actions.as_slice() {
        [] => format!("{} {}", row.method, row.target),
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one} +{}", rest.len()),
    };
    let resource = match row.resources.as_slice() {
        [] => row.host.clone(),
        [one] => one.clone(),
        [one, rest @ ..] => format!("{one} +{}", rest.len()),
    };
    vec![
        moment(row.started),
        cut(&row.agent, 20),
        cut(&action, 40),
        cut(&resource, 56),
        cut(row.region.as_deref().unwrap_or("-"), 16),
        if row.decision == Verdict::Allow { "allow" } else { "DENY" }.to_owned(),
        row.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        row.duration_us.map_or_else(|| "open".to_owned(), |us| format!("{}.{} ms", us / 1000, us % 1000 / 100)),
        format!("{}/{}", size(row.request_bytes), size(row.response_bytes)),
        row.id.to_string(),
    ]
}

pub fn connections(config: &Path, of: &cli::OfSession, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    query(&config, of.warehouse, async |record| {
        let rows = record.connections(of.session, of.limit);
        Printer::new(json, &CONNECTION_HEADS).print(rows, connection_cells).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn connection_cells(row: &ConnectionRow) -> Vec<String> {
    let kind = serde_json::to_value(row.kind).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default();
    vec![
        moment(row.opened),
        kind,
        cut(row.name.as_deref().unwrap_or("-"), 48),
        row.destination.clone(),
        row.upstream.clone().unwrap_or_else(|| "-".to_owned()),
        format!("{}/{}", size(row.sent_bytes), size(row.received_bytes)),
        cut(&row.exe, 32),
        cut(row.error.as_deref().unwrap_or_default(), 80),
    ]
}

pub fn commands(config: &Path, of: &cli::OfSession, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let lost = query(&config, of.warehouse, async |record| {
        let rows = record.commands(of.session, of.limit);
        Printer::new(json, &COMMAND_HEADS).print(rows, command_cells).await?;
        if of.warehouse {
            // The ledger has them, which an analyst may not read, and all of it would be.
            return Ok(0);
        }
        let lost = EventFilter { names: vec!["commands-lost"], ..EventFilter::default() };
        let mut events = record.events(lost);
        let mut lost = 0_u64;
        while let Some(event) = events.try_next().await? {
            if let Event::CommandsLost(some) = event {
                lost = lost.saturating_add(some.count);
            }
        }
        Ok(lost)
    })?;
    if lost > 0 {
        eprintln!("chaperone: {lost} more beginnings and ends of commands came too fast to be recorded");
    }
    Ok(ExitCode::SUCCESS)
}

fn command_cells(row: &CommandRow) -> Vec<String> {
    let exit = match row.exit {
        None => "-".to_owned(),
        Some(CommandExit::Code(code)) => code.to_string(),
        Some(CommandExit::Gone) => "gone".to_owned(),
        Some(CommandExit::Replaced) => "exec".to_owned(),
        Some(CommandExit::Signal(signal)) => format!("signal {signal}"),
    };
    let time =
        row.ended.map_or_else(|| "-".to_owned(), |ended| format!("{:.3} s", (ended - row.started).as_seconds_f64()));
    // Its folder says less than its arguments.
    let mut argv = row.argv.iter().map(String::as_str);
    let program = argv.next().map(|program| program.rsplit('/').next().unwrap_or(program));
    let command = program.into_iter().chain(argv).collect::<Vec<_>>().join(" ");
    vec![
        moment(row.started),
        row.pid.to_string(),
        row.parent_pid.to_string(),
        row.uid.to_string(),
        exit,
        time,
        cut(&row.directory, 32),
        cut(&command, 96),
        row.id.to_string(),
    ]
}

/// Follows the journal's files: the writer tells nobody, but the kernel does.
pub fn tail(config: &Path, filter: &cli::Filter, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let dir = &config.journal.dir;
    let changes = Changes::watch(dir)?;
    let mut calls = Calls::scan(dir, filter.journal())?;
    // What is there already was listed by `calls`.
    while calls.next_row()?.is_some() {}
    let mut first = true;
    loop {
        let mut out = BufWriter::new(io::stdout().lock());
        while let Some(row) = calls.next_row()? {
            if json {
                json_line(&mut out, &row)?;
            } else {
                if std::mem::take(&mut first) {
                    writeln!(out, "{}", CALL_HEADS.join("  "))?;
                }
                writeln!(out, "{}", call_cells(&row).join("  "))?;
            }
        }
        out.flush()?;
        drop(out);
        changes.wait(Duration::from_mins(1))?;
    }
}

pub fn verify(config: &Path, dir: Option<PathBuf>, key: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let dir = match dir {
        Some(dir) => dir,
        None => Config::read(config)?.journal.dir,
    };
    let key = match key {
        None => None,
        Some(path) => {
            let pem = std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("reading the key {}: {error}", path.display())))?;
            Some(PublicKey::from_pem(&pem).ok_or_else(|| {
                ConfigError(format!("{} is not an Ed25519 public key in PEM, such as journal.pub", path.display()))
            })?)
        }
    };
    let show = io::stderr().is_terminal();
    let mut told = 0;
    let found = chaperone_journal::verify(&dir, &VerifyOptions { key, witness: None }, |done, all| {
        let percent = done.saturating_mul(100) / all.max(1);
        if show && percent != told {
            told = percent;
            eprint!("\rverifying {percent} %");
        }
    })?;
    if show {
        eprint!("\r\x1b[K");
    }
    let mut out = io::stdout().lock();
    if json {
        let mut value = serde_json::to_value(&found)?;
        value["clean"] = found.is_clean().into();
        json_line(&mut out, &value)?;
    } else {
        writeln!(
            out,
            "journal {}: {} records ({} events, {} calls, {} open), {} of bodies in {} frames, {} segments, {} checkpoints",
            found.journal,
            found.records,
            found.events,
            found.calls,
            found.open_calls,
            size(found.body_bytes),
            found.frames,
            found.segments,
            found.checkpoints,
        )?;
        writeln!(out, "signed by key {} up to record {}", found.key, found.signed.0)?;
        for (count, what) in [
            (found.unknown_events, "events"),
            (found.unknown_records, "records of a kind"),
            (found.unknown_flags, "records with flags"),
            (found.encoded_bodies, "calls with bodies in a codec"),
        ] {
            if count > 0 {
                writeln!(out, "{count} {what} that this version doesn't know: a later one wrote them")?;
            }
        }
        match &found.wrong {
            None => writeln!(
                out,
                "clean: every record is what was written, from {} to {}",
                found.first.0, found.last.seq.0
            )?,
            Some(wrong) => writeln!(out, "WRONG: {}", clean(&wrong.to_string()))?,
        }
    }
    Ok(if found.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn trust(config: &Path, what: &cli::Trust, json: bool) -> anyhow::Result<ExitCode> {
    let path = config;
    let config = Config::read(path)?;
    let trust = Trust::of_host()
        .and_then(|trust| trust.with_containers_by(path))
        .map_err(|error| ConfigError(error.to_string()))?;
    let report = match what {
        cli::Trust::Env => {
            for (name, value) in trust.environment() {
                println!("{name}={value}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        cli::Trust::Remove => {
            trust.remove()?;
            println!("removed; the CA itself stays in {}", config.ca().display());
            return Ok(ExitCode::SUCCESS);
        }
        cli::Trust::Install { renew } => {
            let authority = if *renew {
                CertificateAuthority::create(&config.ca(), &config.domains())?
            } else {
                CertificateAuthority::open_or_create(&config.ca(), &config.domains())?
            };
            authority.check(&config.domains())?;
            trust.install(authority.path())?
        }
        cli::Trust::Status => trust.status(CertificateAuthority::open(&config.ca())?.path())?,
    };
    let mut out = io::stdout().lock();
    if json {
        let mut value = serde_json::to_value(&report)?;
        value["environment"] =
            trust.environment().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        json_line(&mut out, &value)?;
    } else {
        let cells: Vec<Vec<String>> = report
            .stores
            .iter()
            .map(|store| {
                let state = if store.trusted { "trusted" } else { "NOT trusted" };
                let remedy = store.remedy.clone().unwrap_or_default();
                vec![store.store.to_owned(), state.to_owned(), store.path.display().to_string(), remedy]
            })
            .collect();
        table(&mut out, &["STORE", "STATE", "PATH", "REMEDY"], &cells)?;
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn agents(config: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let ControlResponse::Agents(rules) = ask(&config, &ControlRequest::Agents)? else { return Err(other_answer()) };
    let mut out = io::stdout().lock();
    let mut page = Vec::new();
    for rule in rules.as_array().into_iter().flatten() {
        if json {
            json_line(&mut out, rule)?;
            continue;
        }
        let text = |key: &str| clean(rule[key].as_str().unwrap_or_default());
        let count = |key: &str| rule[key].as_array().map_or(0, Vec::len).to_string();
        let first = rule["enrolled"][0].as_str().map_or_else(|| "-".to_owned(), clean);
        let enrolled = match rule["enrolled"].as_array().map_or(0, Vec::len) {
            0 | 1 => first,
            more => format!("{first} and {} more", more - 1),
        };
        let cgroups = if rule["unmatched"] == true { "matches nothing".to_owned() } else { count("cgroups") };
        page.push(vec![text("agent"), text("rule"), enrolled, cgroups, count("sessions"), text("place")]);
    }
    if !json {
        table(&mut out, &["AGENT", "RULE", "ENROLLED", "CGROUPS", "SESSIONS", "PLACE"], &page)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn status(config: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let ControlResponse::Status(status) = ask(&config, &ControlRequest::Status)? else { return Err(other_answer()) };
    let mut out = io::stdout().lock();
    if json {
        json_line(&mut out, &status)?;
    } else if let Value::Object(members) = &status {
        for (name, value) in members {
            let text = match value {
                Value::String(text) => clean(text),
                Value::Array(items) if name == "over_share" => over_share(items),
                Value::Array(items) if name == "budgets" => budgets(items),
                Value::Array(items) if name == "stopped" => stopped(items),
                Value::Array(items) => items.len().to_string(),
                other => other.to_string(),
            };
            writeln!(out, "{name:<16} {text}")?;
        }
    }
    Ok(if status["journal"]["trouble"].is_null() && status["hooks"]["trouble"].is_null() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is used of budgets.
fn budgets(items: &[Value]) -> String {
    let text = |item: &Value, name: &str| clean(item[name].as_str().unwrap_or_default());
    let one = |item: &Value| {
        format!("{} of {}: {} of {}", text(item, "budget"), text(item, "of"), item["used"], item["limit"])
    };
    if items.is_empty() { "nothing".to_owned() } else { items.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// Who is stopped, by whom and why.
fn stopped(items: &[Value]) -> String {
    let text = |item: &Value, name: &str| clean(item[name].as_str().unwrap_or_default());
    let one = |item: &Value| match text(item, "reason") {
        reason if reason.is_empty() => format!("{} by {}", text(item, "of"), text(item, "by")),
        reason => format!("{} by {} ({reason})", text(item, "of"), text(item, "by")),
    };
    if items.is_empty() { "nobody".to_owned() } else { items.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// Which agents had their share of what lately.
fn over_share(items: &[Value]) -> String {
    let one = |item: &Value| {
        let (agent, what) = (item["agent"].as_str().unwrap_or_default(), item["what"].as_str().unwrap_or_default());
        format!("{}: {what} ({} times)", clean(agent), item["times"])
    };
    if items.is_empty() { "nobody".to_owned() } else { items.iter().map(one).collect::<Vec<_>>().join(", ") }
}

/// Checks or prints the configuration.
pub fn config(path: &Path, what: &cli::Config, json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match what {
        cli::Config::Default if json => json_line(&mut out, &crate::config::default_json())?,
        cli::Config::Default => out.write_all(crate::config::default_file().as_bytes())?,
        cli::Config::Check => {
            let config = Config::read(path)?;
            config.agents()?;
            config.bound_users()?;
            config.captured_proxies()?;
            config.warehouse()?;
            approvals::Surfaces::prepare(&config)?;
            if json {
                json_line(&mut out, &serde_json::json!({ "path": config.path(), "usable": true }))?;
            } else {
                writeln!(out, "{}: it can be used", config.path().display())?;
            }
        }
        cli::Config::Show => {
            let config = Config::read(path)?;
            if json {
                json_line(&mut out, &config)?;
            } else {
                writeln!(out, "{}", toml::to_string(&config)?.trim_end())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn reload(config: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let ControlResponse::Reloaded(said) = ask(&config, &ControlRequest::Reload)? else { return Err(other_answer()) };
    if json {
        json_line(&mut io::stdout(), &serde_json::json!({ "reloaded": said }))?;
    } else {
        println!("{said}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The journal's folder, once a daemon that runs has written there what it holds in memory: a call that was answered
/// before somebody asks for it is found.
pub fn recorded(config: &Config) -> &Path {
    /// Longer than a disk takes that works; who looks into the journal because one doesn't, shall not wait for it.
    const PATIENCE: Duration = Duration::from_secs(5);
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(async {
            let request = chaperone_console::request(&config.paths.control, &ControlRequest::CatchUp);
            tokio::time::timeout(PATIENCE, request).await
        })
    });
    let trouble = match asked {
        Ok(Ok(Ok(_) | Err(ClientError::Away { .. }))) => None,
        Ok(Ok(Err(refused))) => Some(refused.to_string()),
        Ok(Err(_)) => Some(format!("the daemon has not answered within {} s", PATIENCE.as_secs())),
        Err(error) => Some(error.to_string()),
    };
    if let Some(trouble) = trouble {
        eprintln!("chaperone: the latest records may be missing here: {trouble}");
    }
    &config.journal.dir
}

/// Asks the daemon.
pub fn ask(config: &Config, request: &ControlRequest) -> anyhow::Result<ControlResponse> {
    ask_at(&config.paths.control, request)
}

/// Asks the daemon that has this control socket.
pub fn ask_at(control: &Path, request: &ControlRequest) -> anyhow::Result<ControlResponse> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(chaperone_console::request(control, request))?)
}

/// An answer to something else than was asked.
pub fn other_answer() -> anyhow::Error {
    anyhow::anyhow!("BUG: the daemon answered something else than it was asked")
}

fn moment(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]Z");
    at.format(format).unwrap_or_default()
}
