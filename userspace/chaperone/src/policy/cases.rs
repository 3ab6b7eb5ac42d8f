//! Table tests of policies, in TOML beside them (`*.test.toml`): who does what, and what must come of it.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use chaperone_aws::Catalog;
use chaperone_model::{
    Action, Call, CgroupId, Container, Decision, Identity, Payload, Protocol, References, Session, SessionId,
    UnknownResources, Verdict,
};
use chaperone_policy::{
    Approval, CallFacts, Egress, EgressKind, Engine, MaskTarget, Masks, PolicyError, PolicyVersion, Ruling, TimeZone,
    UnmaskTarget, known_level, nearest, parse_mask, suggest_action,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Agents, policies_at, recorded::Said};
use crate::{
    config::ConfigError,
    daemon::KnownActions,
    explain,
    output::{clean, json_line},
};

/// A table larger than this is refused.
const MAX_BYTES: u64 = 8 << 20;
const FILE_KEYS: [&str; 5] = ["agents", "policies", "test", "time_zone", "with"];
const CASE_KEYS: [&str; 40] = [
    "account",
    "accounts",
    "action",
    "actions",
    "address",
    "agent",
    "approved",
    "approvers",
    "arguments",
    "arns",
    "at",
    "body_bytes",
    "by",
    "exe",
    "expect",
    "groups",
    "host",
    "identity",
    "image",
    "labels",
    "masks",
    "method",
    "name",
    "operation",
    "over_budget",
    "parameters",
    "parent",
    "partition",
    "path",
    "port",
    "region",
    "request",
    "resource",
    "resources",
    "retry",
    "session_age",
    "session",
    "unknown",
    "unmasks_into",
    "unread",
];
const IDENTITY_KEYS: [&str; 6] = ["claims", "display_name", "groups", "issuer", "sponsor", "subject"];
const REQUEST_KEYS: [&str; 5] = ["account", "body", "headers", "method", "url"];

/// A table.
#[derive(Deserialize)]
struct Table {
    /// Agents that there are; else the configuration's.
    agents: Option<Vec<String>>,
    /// The policy files that it is about, beside it; else all that it is run with.
    policies: Option<Vec<Spanned<String>>>,
    /// The zone of the clock.
    time_zone: Option<Spanned<String>>,
    /// Policies besides, such as a permit for what guards only forbid.
    with: Option<Spanned<String>>,
    #[serde(default)]
    test: Vec<Case>,
}

/// One row of it.
#[derive(Deserialize)]
struct Case {
    name: Spanned<String>,
    agent: Spanned<String>,
    groups: Option<Vec<String>>,
    identity: Option<IdentityCase>,
    image: Option<String>,
    /// Whether its session began inside of another.
    #[serde(default)]
    parent: bool,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    actions: Vec<Spanned<String>>,
    action: Option<Spanned<String>>,
    operation: Option<Spanned<String>>,
    resource: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    /// Patterns of resources that it may touch besides.
    #[serde(default)]
    unknown: Vec<String>,
    #[serde(default)]
    unread: Vec<String>,
    partition: Option<String>,
    region: Option<String>,
    account: Option<String>,
    parameters: Option<toml::Table>,
    #[serde(default)]
    arns: Vec<String>,
    #[serde(default)]
    accounts: Vec<String>,
    request: Option<RequestCase>,
    method: Option<String>,
    host: Option<String>,
    path: Option<String>,
    /// Of a connection that is to be passed on.
    address: Option<Spanned<String>>,
    port: Option<u16>,
    session: Option<String>,
    exe: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    over_budget: Vec<String>,
    at: Option<Spanned<String>>,
    session_age: Option<u32>,
    body_bytes: Option<u64>,
    #[serde(default)]
    retry: bool,
    #[serde(default)]
    approved: bool,
    expect: Spanned<Expected>,
    by: Option<Vec<Spanned<String>>>,
    approvers: Option<Vec<String>>,
    masks: Option<Vec<Spanned<String>>>,
    /// Where what is masked may go.
    unmasks_into: Option<Vec<Spanned<String>>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Ask,
    Deny,
    Permit,
}

impl From<Expected> for Said {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Ask => Self::Ask,
            Expected::Deny => Self::Deny,
            Expected::Permit => Self::Permit,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IdentityCase {
    issuer: String,
    subject: String,
    sponsor: Option<String>,
    display_name: Option<String>,
    groups: Vec<String>,
    claims: BTreeMap<String, String>,
}

/// A request, as `explain` takes it.
#[derive(Deserialize)]
struct RequestCase {
    method: Spanned<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    account: Option<String>,
}

/// What came of one row.
#[derive(Clone, Debug, Serialize)]
pub struct Ran {
    file: PathBuf,
    line: usize,
    name: String,
    pub passed: bool,
    /// Each difference, for people.
    differences: Vec<String>,
}

/// `chaperone policy test`.
pub fn run(config: &Path, path: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let agents = Agents::of(config, path.is_none())?;
    let ran = match path {
        Some(table) if is_table(table) => table_alone(table, &agents)?,
        path => {
            let (path, zone) = policies_at(config, path)?;
            let read = || PolicyVersion::read(&path, &KnownActions);
            let version = read().map_err(|error| ConfigError(error.to_string()))?;
            let ran = beside(&path, version.in_zone(zone), &agents)?;
            if ran.is_empty() {
                return Err(ConfigError(format!(
                    "no table tests beside {}: put them into a file there whose name ends in .test.toml (docs/policies.md)",
                    path.display()
                ))
                .into());
            }
            ran
        }
    };
    let mut out = io::stdout().lock();
    if json {
        ran.iter().try_for_each(|one| json_line(&mut out, one))?;
    } else {
        print(&mut out, &ran, true)?;
    }
    Ok(ExitCode::from(u8::from(ran.iter().any(|one| !one.passed))))
}

fn is_table(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".test.toml"))
}

/// Runs a table by itself: with the policies that it names, or all in its folder.
fn table_alone(path: &Path, agents: &Agents) -> Result<Vec<Ran>, ConfigError> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let table = Text::read(path)?;
    let engine = match table.policies()? {
        Some(engine) => engine,
        None => {
            Engine::new(PolicyVersion::read(folder, &KnownActions).map_err(|error| ConfigError(error.to_string()))?)
        }
    };
    table.run(&engine, agents)
}

/// Runs all tables in a folder of policies, or the one beside a file of them.
pub fn beside(path: &Path, version: PolicyVersion, agents: &Agents) -> Result<Vec<Ran>, ConfigError> {
    let mut tables = Vec::new();
    if path.is_dir() {
        let io = |error: io::Error| ConfigError(format!("looking for tables in {}: {error}", path.display()));
        for entry in fs::read_dir(path).map_err(io)? {
            let file = entry.map_err(io)?.path();
            if is_table(&file) {
                tables.push(file);
            }
        }
        tables.sort();
    } else {
        let table = path.with_extension("test.toml");
        tables.extend(table.exists().then_some(table));
    }
    let engine = Engine::new(version);
    let mut ran = Vec::new();
    for path in tables {
        let table = Text::read(&path)?;
        let own = table.policies()?;
        ran.extend(table.run(own.as_ref().unwrap_or(&engine), agents)?);
    }
    Ok(ran)
}

/// Those that failed.
pub fn failures(ran: &[Ran]) -> Vec<&Ran> {
    ran.iter().filter(|one| !one.passed).collect()
}

/// Prints them for people; those that passed only if `all`.
pub fn print(out: &mut impl Write, ran: &[Ran], all: bool) -> io::Result<()> {
    for one in ran {
        let place = format!("{}:{}", one.file.display(), one.line);
        if !one.passed {
            writeln!(out, "FAIL {place}: {}", clean(&one.name))?;
            one.differences.iter().try_for_each(|text| writeln!(out, "       {}", clean(text)))?;
        } else if all {
            writeln!(out, "ok   {place}: {}", clean(&one.name))?;
        }
    }
    let failed = ran.iter().filter(|one| !one.passed).count();
    writeln!(out, "{} passed, {failed} failed", ran.len() - failed)
}

/// A table's file: what is wrong in it is told with its place.
struct Text {
    path: PathBuf,
    source: String,
    table: Table,
}

impl Text {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let io = |error: io::Error| ConfigError(format!("reading the table {}: {error}", path.display()));
        if fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
            return Err(ConfigError(format!("the table {} is larger than {MAX_BYTES} bytes", path.display())));
        }
        Self::parse(path, fs::read_to_string(path).map_err(io)?)
    }

    fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        let wrong = |at: usize, what: &str| ConfigError(format!("{}: {what}", place(path, &text, at)));
        let toml = |error: toml::de::Error| wrong(error.span().map_or(0, |span| span.start), error.message());
        check_keys(&DeTable::parse(&text).map_err(toml)?, &FILE_KEYS, "").map_err(|(at, what)| wrong(at, &what))?;
        let table = toml::from_str(&text).map_err(toml)?;
        Ok(Self { path: path.to_owned(), table, source: text })
    }

    fn wrong<T>(&self, at: &Spanned<T>, what: &str) -> ConfigError {
        ConfigError(format!("{}: {what}", place(&self.path, &self.source, at.span().start)))
    }

    /// The policies that it names itself.
    fn policies(&self) -> Result<Option<Engine>, ConfigError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if self.table.policies.is_none() && self.table.with.is_none() {
            return Ok(None);
        }
        let Some(names) = &self.table.policies else {
            let with = self.table.with.as_ref();
            let what = "`with` adds to the policies that `policies = [\"….cedar\"]` names, and there is none";
            return Err(with.map_or_else(|| ConfigError(what.into()), |with| self.wrong(with, what)));
        };
        let mut files = Vec::new();
        for name in names {
            let file = folder.join(name.get_ref());
            let text = fs::read_to_string(&file)
                .map_err(|error| self.wrong(name, &format!("reading the policies {}: {error}", file.display())))?;
            files.push((file, text));
        }
        files.extend(self.table.with.as_ref().map(|with| (self.path.join("with"), with.get_ref().clone())));
        let version = PolicyVersion::parse(&files, &KnownActions).map_err(|error| match (error, &self.table.with) {
            // Places in `with` count from its beginning.
            (PolicyError::Invalid(problems), Some(with)) if problems.iter().any(|it| it.file.ends_with("with")) => {
                let texts: Vec<_> = problems.iter().map(|it| it.message.clone()).collect();
                self.wrong(with, &texts.join("; "))
            }
            (error, _) => ConfigError(error.to_string()),
        })?;
        let time_zone = match &self.table.time_zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name.get_ref()).map_err(|_| {
                self.wrong(name, "there is no such time zone; write an IANA name such as Europe/Berlin")
            })?,
        };
        Ok(Some(Engine::new(version.in_zone(time_zone))))
    }

    fn run(&self, engine: &Engine, agents: &Agents) -> Result<Vec<Ran>, ConfigError> {
        let own = self.table.agents.clone().map(|names| Agents { names, ..Agents::default() });
        self.table.test.iter().map(|case| self.one(case, engine, own.as_ref().unwrap_or(agents))).collect()
    }

    fn one(&self, case: &Case, engine: &Engine, agents: &Agents) -> Result<Ran, ConfigError> {
        agents.check(case.agent.get_ref()).map_err(|what| self.wrong(&case.agent, &what))?;
        let session = Session {
            id: SessionId::new(),
            agent: case.agent.get_ref().clone(),
            groups: case
                .groups
                .clone()
                .or_else(|| agents.groups_of.get(case.agent.get_ref()).cloned())
                .unwrap_or_default(),
            cgroup: CgroupId(0),
            cgroup_path: String::new(),
            container: (case.image.is_some() || !case.labels.is_empty()).then(|| Container {
                image: case.image.clone().unwrap_or_default(),
                labels: case.labels.clone(),
                ..Container::default()
            }),
            parent: case.parent.then(SessionId::new),
            started: OffsetDateTime::UNIX_EPOCH,
        };
        let identity = case.identity.as_ref().map(identity);
        let principal = engine.identified(&session, identity.as_ref());
        let at = match &case.at {
            None => OffsetDateTime::UNIX_EPOCH,
            Some(at) => OffsetDateTime::parse(at.get_ref(), &Rfc3339)
                .map_err(|_| self.wrong(at, "not an RFC 3339 time such as 2026-01-31T12:00:00Z"))?,
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (method, host, path) = match &case.request {
            None => (text(&case.method), text(&case.host), text(&case.path)),
            Some(request) => {
                let rest = request.url.split_once("://").map_or("", |(_, rest)| rest);
                let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                let path = path.split('?').next().unwrap_or_default();
                (request.method.get_ref().clone(), host.to_owned(), if path.is_empty() { "/" } else { path }.to_owned())
            }
        };
        let session_id = case.session.clone().unwrap_or_else(|| session.id.to_string());
        let exe = text(&case.exe);
        let facts = CallFacts {
            method: &method,
            host: &host,
            path: &path,
            session: &session_id,
            exe: &exe,
            argv: &case.arguments,
            over_budget: &case.over_budget,
            at: Some(at),
            session_started: Some(at - Duration::seconds(case.session_age.unwrap_or(0).into())),
            body_bytes: case.body_bytes.or_else(|| Some(case.request.as_ref()?.body.len() as u64)).or(Some(0)),
            retry: case.retry,
            unknown: &[],
        };
        if let Some(kind) = self.egress(case)? {
            let connection = Egress {
                kind,
                host: case.host.as_deref().or(case.resource.as_deref()),
                address: self.address(case, kind)?,
                session: &session_id,
                exe: &exe,
                argv: &case.arguments,
                at,
                session_started: at - Duration::seconds(case.session_age.unwrap_or(0).into()),
            };
            let decision = engine.egress(&principal, &connection);
            let is = if decision.verdict == Verdict::Allow { Said::Permit } else { Said::Deny };
            return Ok(self.ran(case, self.compare(case, engine, is, &decision, &[])?));
        }
        let call = self.call(case)?;
        let approval = if case.approved { Approval::Given } else { Approval::None };
        let ruling = engine.rule(&principal, &call, facts, approval);
        let approvers: Vec<String> = match &ruling {
            Ruling::Ask(question) => question.approvers.iter().flat_map(|(_, who)| groups(who)).collect(),
            _ => Vec::new(),
        };
        let mut differences = self.compare(case, engine, Said::of(&ruling), &ruling.decision(), &approvers)?;
        if let Some(wanted) = &case.masks {
            differences.extend(self.compare_masks(wanted, &engine.masks(&principal, &call, facts))?);
        }
        if let Some(wanted) = &case.unmasks_into {
            differences.extend(self.compare_unmasks(wanted, &engine.masks(&principal, &call, facts))?);
        }
        Ok(self.ran(case, differences))
    }

    fn ran(&self, case: &Case, differences: Vec<String>) -> Ran {
        let line = self.source[..case.name.span().start].matches('\n').count() + 1;
        let name = case.name.get_ref().clone();
        Ran { file: self.path.clone(), line, name, passed: differences.is_empty(), differences }
    }

    /// What the connection begins with, if the row is about one that is to be passed on.
    fn egress(&self, case: &Case) -> Result<Option<EgressKind>, ConfigError> {
        let mut named = case.actions.iter().chain(&case.action);
        let kind = named.clone().find_map(|name| EgressKind::of_action(name.get_ref()).map(|kind| (name, kind)));
        match (kind, &case.address) {
            (None, Some(address)) => {
                Err(self.wrong(address, "only egress:TLS, egress:HTTP and egress:TCP have an address"))
            }
            (None, None) => Ok(None),
            (Some((name, _)), _) if named.nth(1).is_some() || case.request.is_some() => {
                Err(self.wrong(name, "a connection is passed on by itself: give no other action, and no `request`"))
            }
            (Some((_, kind)), _) => Ok(Some(kind)),
        }
    }

    /// Where it goes: of an address that isn't given, policies see one that is kept for documentation (RFC 5737).
    fn address(&self, case: &Case, kind: EgressKind) -> Result<SocketAddr, ConfigError> {
        let ip = match &case.address {
            None => IpAddr::from([203, 0, 113, 1]),
            Some(address) => {
                let wrong = |_| self.wrong(address, "not an IP address such as 203.0.113.1");
                address.get_ref().parse().map_err(wrong)?
            }
        };
        Ok(SocketAddr::new(ip, case.port.unwrap_or(if kind == EgressKind::Http { 80 } else { 443 })))
    }

    fn call(&self, case: &Case) -> Result<Call, ConfigError> {
        if let Some(request) = &case.request {
            if case.action.is_some() || !case.actions.is_empty() {
                return Err(
                    self.wrong(&request.method, "give either `request` or `action`: a request has its own actions")
                );
            }
            let headers: Vec<_> = request.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let body = request.body.as_bytes();
            let account = request.account.as_deref().or(case.account.as_deref());
            let wrong = |why: String| self.wrong(&request.method, &format!("the request is refused: {why}"));
            let (host, parts) = explain::checked(request.method.get_ref(), &request.url, &headers, body)
                .map_err(|error| wrong(error.to_string()))?
                .map_err(wrong)?;
            return Catalog::global().read_call(&host, &parts, body, account).map_err(wrong);
        }
        let named: Vec<_> = case.actions.iter().chain(&case.action).collect();
        let Some(first) = named.first() else {
            return Err(self.wrong(&case.name, "it says neither `action` nor `request`: what is done?"));
        };
        let mut actions = Vec::new();
        for name in &named {
            let level = known_level(name.get_ref(), &KnownActions).ok_or_else(|| {
                let meant = suggest_action(name.get_ref(), &KnownActions, &OnceCell::new());
                let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                self.wrong(name, &format!("no action {}{meant}", name.get_ref()))
            })?;
            actions.push(Action { name: name.get_ref().clone().into(), level });
        }
        let (service, operation) = self.operation(case, first)?;
        let mut resources: Vec<String> = case.resources.iter().chain(&case.resource).cloned().collect();
        if resources.is_empty() {
            resources.push("*".into());
        }
        let unknown = case.unknown.iter().map(|pattern| UnknownResources {
            action: None,
            pattern: pattern.clone().into(),
            why: "as the table says".into(),
            alias: false,
        });
        let parameters = case.parameters.as_ref().map(serde_json::to_value).transpose();
        Ok(Call {
            partition: case.partition.clone().unwrap_or_else(|| "aws".into()).into(),
            region: case.region.clone().map(Into::into),
            account: case.account.clone().map(Into::into),
            signing_name: service.clone().into(),
            service: service.into(),
            operation: operation.into(),
            candidates: Vec::new(),
            protocol: Protocol::Json,
            actions,
            resources,
            pairs: Vec::new(),
            unknown: unknown.collect(),
            unread: case.unread.clone(),
            references: References { arns: case.arns.clone(), accounts: case.accounts.clone() },
            parameters: parameters.map_err(|error| self.wrong(&case.name, &error.to_string()))?.unwrap_or_default(),
            looked_up: None,
            payload: Payload::None,
        })
    }

    /// botocore's names of service and operation: as the table says, or as the first action tells.
    fn operation(&self, case: &Case, action: &Spanned<String>) -> Result<(String, String), ConfigError> {
        if let Some(named) = &case.operation {
            let (service, operation) = named
                .get_ref()
                .split_once(':')
                .ok_or_else(|| self.wrong(named, "write it as service:Operation, such as s3:ListObjectsV2"))?;
            if !Catalog::global().has_operation(service, operation) {
                return Err(self.wrong(named, &format!("no operation {service}:{operation}, by botocore's names")));
            }
            return Ok((service.to_owned(), operation.to_owned()));
        }
        let name = action.get_ref();
        let own = name.split_once(':').map_or((name.as_str(), ""), |both| both);
        let found = match Catalog::global().operations_of(name)[..] {
            [only] => only,
            _ => own,
        };
        Ok((found.0.to_owned(), found.1.to_owned()))
    }

    fn compare(
        &self,
        case: &Case,
        engine: &Engine,
        is: Said,
        decision: &Decision,
        approvers: &[String],
    ) -> Result<Vec<String>, ConfigError> {
        let mut differences = Vec::new();
        let wanted = Said::from(*case.expect.get_ref());
        if wanted != is {
            let why = match is {
                Said::Permit if decision.policies.is_empty() => "no policy is about it".to_owned(),
                Said::Permit => format!("by {}", decision.policies.join(", ")),
                Said::Deny | Said::Ask => decision.message.clone(),
            };
            differences.push(format!("expected {}, is {}: {why}", wanted.as_str(), is.as_str()));
        }
        if let Some(by) = &case.by {
            let ids: Vec<&str> = engine.version().ids().collect();
            for id in by {
                if !ids.contains(&id.get_ref().as_str()) {
                    let meant = nearest(id.get_ref(), ids.iter().copied());
                    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
                    return Err(self.wrong(id, &format!("no policy `{}`{meant}", id.get_ref())));
                }
            }
            let mut wanted: Vec<_> = by.iter().map(|id| id.get_ref().clone()).collect();
            wanted.sort();
            if wanted != decision.policies {
                differences.push(format!(
                    "expected by [{}], is by [{}]",
                    wanted.join(", "),
                    decision.policies.join(", ")
                ));
            }
        }
        if let Some(wanted) = &case.approvers {
            let sorted = |all: &[String]| {
                let mut all = all.to_vec();
                all.sort();
                all
            };
            if sorted(wanted) != sorted(approvers) {
                let (wanted, are) = (wanted.join(", "), approvers.join(", "));
                differences.push(format!("expected approvers [{wanted}], are [{are}]"));
            }
        }
        Ok(differences)
    }

    fn compare_masks(&self, wanted: &[Spanned<String>], masks: &Masks) -> Result<Option<String>, ConfigError> {
        let mut names = Vec::new();
        for name in wanted {
            parse_mask(name.get_ref()).map_err(|why| self.wrong(name, &format!("`{}`: {why}", name.get_ref())))?;
            names.push(name.get_ref().clone());
        }
        let mut is: Vec<String> =
            masks.policies.iter().flat_map(|(_, targets)| targets.iter().map(mask_name)).collect();
        is.extend(masks.lifted.then(|| "none".to_owned()));
        Ok(differ("masks", names, is))
    }

    fn compare_unmasks(&self, wanted: &[Spanned<String>], masks: &Masks) -> Result<Option<String>, ConfigError> {
        let mut names = Vec::new();
        for name in wanted {
            let target = UnmaskTarget::read(name.get_ref(), &KnownActions).map_err(|why| self.wrong(name, &why))?;
            names.push(target.to_string());
        }
        let is = masks.unmask.iter().flat_map(|(_, targets)| targets.iter().map(ToString::to_string)).collect();
        Ok(differ("members that values may go into", names, is))
    }
}

/// What differs between two lists, in words.
fn differ(what: &str, mut wanted: Vec<String>, mut is: Vec<String>) -> Option<String> {
    for all in [&mut wanted, &mut is] {
        all.sort();
        all.dedup();
    }
    (wanted != is).then(|| format!("expected {what} [{}], are [{}]", wanted.join(", "), is.join(", ")))
}

fn groups(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(',').map(|group| group.trim().to_owned()).filter(|group| !group.is_empty())
}

fn mask_name(target: &MaskTarget) -> String {
    match target {
        MaskTarget::Credentials => "credentials".into(),
        MaskTarget::Sensitive => "sensitive".into(),
        MaskTarget::Detector(name) | MaskTarget::Path(name) => name.clone(),
    }
}

fn identity(case: &IdentityCase) -> Identity {
    Identity {
        provider: String::new(),
        issuer: case.issuer.clone(),
        subject: case.subject.clone(),
        groups: case.groups.clone(),
        sponsor: case.sponsor.clone(),
        display_name: case.display_name.clone(),
        token_id: String::new(),
        claims: case.claims.clone(),
        expires: OffsetDateTime::UNIX_EPOCH,
    }
}

fn place(path: &Path, text: &str, at: usize) -> String {
    let before = &text[..at.min(text.len())];
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    format!("{}:{}:{column}", path.display(), before.matches('\n').count() + 1)
}

/// Keys that mean nothing, with what was meant. Of tables in tables, too.
fn check_keys(table: &Spanned<DeTable<'_>>, known: &[&str], of: &str) -> Result<(), (usize, String)> {
    for (key, value) in table.get_ref() {
        let name: &str = key.get_ref();
        if !known.contains(&name) {
            let meant = nearest(name, known.iter().copied());
            let meant = meant
                .map_or_else(|| format!("; there are {}", known.join(", ")), |it| format!("; did you mean `{it}`?"));
            return Err((key.span().start, format!("no key `{name}`{of}{meant}")));
        }
        let inner = |value: &Spanned<DeValue<'_>>, known: &[&str], of: &str| match value.get_ref() {
            DeValue::Table(inner) => check_keys(&Spanned::new(value.span(), inner.clone()), known, of),
            _ => Ok(()),
        };
        match (of, name, value.get_ref()) {
            ("", "test", DeValue::Array(rows)) => {
                rows.iter().try_for_each(|row| inner(row, &CASE_KEYS, " of a test"))?;
            }
            (" of a test", "identity", _) => inner(value, &IDENTITY_KEYS, " of an identity")?,
            (" of a test", "request", _) => inner(value, &REQUEST_KEYS, " of a request")?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: &str = r#"
        @id("reads") permit (principal, action in [Action::"Read", Action::"List"], resource);
        @id("writes") permit (principal in Group::"writers", action == Action::"s3:PutObject", resource);
        @id("ask") @approvers("ops, sre") forbid (principal, action == Action::"s3:PutObject", resource)
          unless { context.approved };
        @id("types") permit (principal, action == Action::"ec2:RunInstances", resource)
          when { context.parameters.hasTag("InstanceType") && context.parameters.getTag("InstanceType").contains("t3.nano") };
        @id("hide") @mask("sensitive") permit (principal, action == Action::"s3:GetObject", resource);
        @id("read") @mask("SecretString") @unmask_into("rds:CreateDBInstance.MasterUserPassword")
        permit (principal, action == Action::"secretsmanager:GetSecretValue", resource) when { resource.name like "*db*" };
        @id("not-there") forbid (principal, action in Action::"egress:*", resource)
          when { resource in Resource::"evil.example" || context.port == 80 || context.address.isInRange(ip("10.0.0.0/8")) };
        @id("nights") forbid (principal, action, resource) when { context.hour < 6 && principal.sponsor == "bob" };
    "#;

    fn engine() -> Engine {
        let files = [(PathBuf::from("p.cedar"), POLICIES.to_owned())];
        Engine::new(PolicyVersion::parse(&files, &KnownActions).unwrap())
    }

    fn ran(text: &str) -> Result<Vec<Ran>, String> {
        let agents = Agents { names: vec!["coder".into(), "ci".into()], ..Agents::default() };
        let table = Text::parse(Path::new("p.test.toml"), text.to_owned()).map_err(|error| error.to_string())?;
        table.run(&engine(), &agents).map_err(|error| error.to_string())
    }

    fn case(rest: &str) -> String {
        format!("[[test]]\nname = \"it\"\nagent = \"coder\"\n{rest}\n")
    }

    #[test]
    fn what_is_expected_passes_and_what_is_not_says_why() {
        for passes in [
            "action = \"s3:GetObject\"\nexpect = \"permit\"\nby = [\"reads\"]\nmasks = [\"sensitive\"]",
            "action = \"s3:DeleteObject\"\nexpect = \"deny\"\nby = []",
            "action = \"s3:PutObject\"\ngroups = [\"writers\"]\nexpect = \"ask\"\napprovers = [\"sre\", \"ops\"]",
            "action = \"s3:PutObject\"\ngroups = [\"writers\"]\napproved = true\nexpect = \"permit\"",
            "action = \"ec2:RunInstances\"\nparameters = { InstanceType = \"t3.nano\" }\nexpect = \"permit\"",
            "action = \"ec2:RunInstances\"\nparameters.InstanceType = \"m5.large\"\nexpect = \"deny\"",
            "action = \"s3:GetObject\"\nidentity.sponsor = \"bob\"\nat = \"2026-01-31T03:00:00Z\"\nexpect = \"deny\"\nby = [\"nights\"]",
            "action = \"s3:GetObject\"\nidentity.sponsor = \"bob\"\nat = \"2026-01-31T07:00:00Z\"\nexpect = \"permit\"",
            "request = { method = \"GET\", url = \"https://b.s3.eu-west-1.amazonaws.com/k\" }\nexpect = \"permit\"",
            "action = \"secretsmanager:GetSecretValue\"\nresource = \"arn:aws:secretsmanager:eu-west-1:123456789012:secret:db\"\nexpect = \"permit\"\nmasks = [\"SecretString\"]\nunmasks_into = [\"rds:CreateDBInstance.MasterUserPassword\"]",
            "action = \"secretsmanager:GetSecretValue\"\nresource = \"arn:aws:secretsmanager:eu-west-1:123456789012:secret:api\"\nexpect = \"permit\"\nmasks = []\nunmasks_into = []",
            "request = { method = \"DELETE\", url = \"https://b.s3.eu-west-1.amazonaws.com/k\" }\nexpect = \"deny\"",
            "action = \"egress:TLS\"\nhost = \"api.github.com\"\nexpect = \"permit\"\nby = []",
            "action = \"egress:TLS\"\nresource = \"a.evil.example\"\nexpect = \"deny\"\nby = [\"not-there\"]",
            "action = \"egress:HTTP\"\nhost = \"github.com\"\nexpect = \"deny\"",
            "action = \"egress:TCP\"\naddress = \"10.1.2.3\"\nport = 22\nexpect = \"deny\"\nby = [\"not-there\"]",
        ] {
            let ran = ran(&case(passes)).unwrap();
            assert!(ran[0].passed, "{passes}: {ran:?}");
        }
        let wrong = ran(&case("action = \"s3:GetObject\"\nexpect = \"deny\"\nby = [\"writes\"]\nmasks = [\"github\"]"))
            .unwrap();
        assert_eq!((wrong[0].passed, wrong[0].differences.len(), wrong[0].line), (false, 3, 2), "{wrong:?}");
        assert_eq!(wrong[0].differences[0], "expected deny, is permit: by reads");
    }

    #[test]
    fn what_is_wrong_in_a_table_is_named_with_its_place_and_what_was_meant() {
        let expect = "expect = \"permit\"";
        for (rest, wanted) in [
            (
                format!("action = \"s3:GetObjetc\"\n{expect}"),
                "p.test.toml:4:10: no action s3:GetObjetc; did you mean s3:GetObject?",
            ),
            (
                format!("acton = \"s3:GetObject\"\n{expect}"),
                "p.test.toml:4:1: no key `acton` of a test; did you mean `action`?",
            ),
            (
                format!("action = \"s3:GetObject\"\nby = [\"raeds\"]\n{expect}"),
                "p.test.toml:5:7: no policy `raeds`; did you mean `reads`?",
            ),
            ("action = \"s3:GetObject\"\nexpect = \"allow\"".to_owned(), "p.test.toml:5:10: unknown variant `allow`"),
            (
                format!("action = \"s3:GetObject\"\nidentity.sponsro = \"x\"\n{expect}"),
                "5:10: no key `sponsro` of an identity; did you mean `sponsor`?",
            ),
            (
                format!("operation = \"s3:GetObjects\"\naction = \"s3:GetObject\"\n{expect}"),
                "4:13: no operation s3:GetObjects",
            ),
            (expect.to_owned(), "2:8: it says neither `action` nor `request`"),
            (format!("action = \"s3:GetObject\"\nat = \"noon\"\n{expect}"), "5:6: not an RFC 3339 time"),
            (format!("action = \"s3:GetObject\"\nmasks = [\"a[\"]\n{expect}"), "5:10: `a[`:"),
            (
                format!(
                    "action = \"s3:GetObject\"\nunmasks_into = [\"rds:CreateDBInstance.MasterUsrPassword\"]\n{expect}"
                ),
                "5:17: rds:CreateDBInstance has no member `MasterUsrPassword` in `MasterUsrPassword`; did you mean `MasterUserPassword`?",
            ),
            (
                format!("request = {{ method = \"GET\", url = \"https://example.com/\" }}\n{expect}"),
                "is not a name of AWS",
            ),
            (format!("action = \"egress:TSL\"\n{expect}"), "4:10: no action egress:TSL; did you mean egress:TLS?"),
            (format!("action = \"egress:TLS\"\naddress = \"nowhere\"\n{expect}"), "5:11: not an IP address"),
            (format!("action = \"s3:GetObject\"\naddress = \"10.1.1.1\"\n{expect}"), "5:11: only egress:TLS"),
            (
                format!("actions = [\"egress:TLS\", \"s3:GetObject\"]\n{expect}"),
                "4:12: a connection is passed on by itself",
            ),
            ("action = ".to_owned(), "p.test.toml:4:"),
        ] {
            let error = ran(&case(&rest)).unwrap_err();
            assert!(error.contains(wanted), "{rest}: {error}");
        }
        let error = ran("[[test]]\nname = \"it\"\nagent = \"codre\"\naction = \"s3:GetObject\"\nexpect = \"deny\"")
            .unwrap_err();
        assert_eq!(error, "p.test.toml:3:9: no agent `codre`; did you mean `coder`?");
        let error = ran("[[tests]]\n").unwrap_err();
        assert!(error.ends_with("1:3: no key `tests`; did you mean `test`?"), "{error}");
    }
}
