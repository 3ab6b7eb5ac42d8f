//! Requests that the real botocore client built and signed (`tests/data/wire.py`), decoded, verified and signed again.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use chaperone_model::{AccessLevel, Call, CgroupId, Session, SessionId};
use chaperone_policy::{ActionCatalog, CallFacts, Engine, PolicyVersion, Principal};
use http::{Request, request::Parts};
use serde::Deserialize;
use serde_json::Value;
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

use crate::{BodyNeed, Catalog, Placeholder, RequestAuth, Signer, VerifyError};

static WIRE: &[u8] = include_bytes!("../tests/data/wire.ndjson.zst");

#[derive(Deserialize)]
struct Line {
    s: String,
    o: String,
    #[serde(default)]
    m: String,
    #[serde(default)]
    u: String,
    #[serde(default)]
    h: Vec<(String, String)>,
    #[serde(default)]
    b: String,
    #[serde(default)]
    p: Value,
    /// How it differs from what botocore does by itself: another protocol, partition, kind of endpoint.
    #[serde(default)]
    v: String,
    /// Why botocore wouldn't build it.
    #[serde(default)]
    not_built: Option<String>,
}

pub(crate) struct Wire {
    pub variant: String,
    pub service: String,
    pub operation: String,
    pub parts: Parts,
    pub body: Vec<u8>,
    pub input: Value,
}

impl Wire {
    fn new(line: Line) -> Self {
        let uri: http::Uri = line.u.parse().unwrap();
        let host = uri.authority().unwrap().as_str().to_ascii_lowercase();
        let target = uri.path_and_query().map_or("/", |t| t.as_str()).to_owned();
        let mut request = Request::builder().method(line.m.as_str()).uri(target).header("host", &host);
        // Botocore adds the field itself where it signs with the CRT.
        for (name, value) in line.h.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            request = request.header(name, value.as_bytes());
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let body = base64(&line.b);
        Self { variant: line.v, service: line.s, operation: line.o, parts, body, input: line.p }
    }

    pub fn now(&self) -> OffsetDateTime {
        let Some(date) = self.parts.headers.get("x-amz-date") else { return OffsetDateTime::UNIX_EPOCH };
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        PrimitiveDateTime::parse(date.to_str().unwrap(), format).unwrap().assume_utc()
    }

    pub fn name(&self) -> String {
        format!("{}:{}", self.service, self.operation)
    }

    fn host(&self) -> &str {
        self.parts.headers["host"].to_str().unwrap()
    }
}

pub(crate) fn placeholder() -> Placeholder {
    Placeholder::fixed(
        "ASIAQWERTYUIOPASDFGH",
        "uC0nZ8wYp3vR5tX7aB9dF1gH2jK4mN6qS8vW0yZ2",
        "chaperone/placeholder-token",
    )
}

pub(crate) fn base64(text: &str) -> Vec<u8> {
    let value =
        |b: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|x| *x == b);
    let mut out = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for digit in text.bytes().filter_map(value) {
        word = word << 6 | u32::try_from(digit).unwrap();
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).unwrap());
        }
    }
    out
}

pub(crate) fn wire() -> Vec<Wire> {
    let mut all = Vec::new();
    for_each_line(|line| {
        if line.not_built.is_none() {
            all.push(Wire::new(line));
        }
    });
    all
}

/// Every request that was built.
pub(crate) fn for_each_wire(mut take: impl FnMut(Wire)) {
    for_each_line(|line| {
        if line.not_built.is_none() {
            take(Wire::new(line));
        }
    });
}

/// The committed requests, or those in the file that `CHAPERONE_WIRE` names (`cargo xtask catalog --prove`).
fn for_each_line(mut take: impl FnMut(Line)) {
    let input: Box<dyn BufRead> = match std::env::var_os("CHAPERONE_WIRE") {
        Some(path) => Box::new(BufReader::new(File::open(path).unwrap())),
        None => Box::new(BufReader::new(zstd::Decoder::new(WIRE).unwrap())),
    };
    for line in input.lines() {
        take(serde_json::from_str(&line.unwrap()).unwrap());
    }
}

/// What was meant and what was read agree, as far as a request can say it.
fn agrees(meant: &Value, read: Option<&Value>) -> bool {
    match (meant, read) {
        (Value::String(text), _) if text == "<time>" => true,
        (Value::Object(meant), None) => meant.is_empty() || meant.values().all(|inner| agrees(inner, None)),
        (Value::Array(meant), None) => meant.is_empty() || meant.iter().all(|inner| agrees(inner, None)),
        (_, None) => false,
        (Value::Object(meant), Some(read)) => meant.iter().all(|(name, inner)| agrees(inner, read.get(name))),
        (Value::Array(meant), Some(Value::Array(read))) => {
            meant.len() == read.len() && meant.iter().zip(read).all(|(m, r)| agrees(m, Some(r)))
        }
        (Value::Array(meant), Some(one)) => meant.len() == 1 && agrees(&meant[0], Some(one)),
        (Value::Number(meant), Some(read)) => read.as_f64().is_some_and(|read| meant.as_f64() == Some(read)),
        (meant, Some(read)) => meant == read,
    }
}

/// What became of a request, the worst last: an operation counts by the worst of its requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Exact,
    /// Other operations are like it on the wire; it is among the candidates.
    Ambiguous,
    Refused,
    /// Taken for another, and a policy that forbids any of its actions denies it all the same.
    Other,
    /// Permitted by a policy that forbids one of its actions, whatever it is taken for.
    Unsafe,
}

/// What IAM checks when a version is named, instead (Service Authorization Reference, "Actions defined by Amazon S3").
const VERSIONED: [(&str, &str); 8] = [
    ("s3:DeleteObject", "s3:DeleteObjectVersion"),
    ("s3:DeleteObjectTagging", "s3:DeleteObjectVersionTagging"),
    ("s3:GetObject", "s3:GetObjectVersion"),
    ("s3:GetObjectAcl", "s3:GetObjectVersionAcl"),
    ("s3:GetObjectAttributes", "s3:GetObjectVersionAttributes"),
    ("s3:GetObjectTagging", "s3:GetObjectVersionTagging"),
    ("s3:PutObjectAcl", "s3:PutObjectVersionAcl"),
    ("s3:PutObjectTagging", "s3:PutObjectVersionTagging"),
];

/// What IAM checks of the actions that may belong to an operation, where the request says which.
fn checked(wire: &Wire, action: &'static str, known: &Known) -> Option<Cow<'static, str>> {
    let (_, name) = action.split_once(':').unwrap();
    if wire.service == "s3" && wire.host().contains("s3express") {
        // Directory buckets' own. In a session IAM checks nothing more; we go on by S3's own names.
        let express = format!("s3express:{name}");
        if known.level(&express).is_some() {
            return Some(express.into());
        }
    }
    if wire.service == "s3" && wire.parts.uri.query().unwrap_or_default().contains("versionId=") {
        return Some(VERSIONED.iter().find(|(of, _)| *of == action).map_or(action, |(_, with)| with).into());
    }
    // All statements that wire.py makes are SELECTs.
    let statement = wire.service == "dynamodb" && action.starts_with("dynamodb:PartiQL");
    (!statement || action == "dynamodb:PartiQLSelect").then_some(action.into())
}

/// The daemon's own policy engine, with policies that permit everything but one action each.
struct Forbidding {
    /// Of one service: requests come service by service.
    engines: HashMap<Cow<'static, str>, (Engine, Principal)>,
    service: String,
    known: Known,
    session: Session,
}

/// IAM's actions.
struct Known(BTreeMap<String, AccessLevel>);

impl ActionCatalog for Known {
    fn level(&self, action: &str) -> Option<AccessLevel> {
        self.0.get(action).copied()
    }
    fn has_prefix(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.split_once(':').is_some_and(|(of, _)| of == prefix))
    }
    fn actions(&self) -> Vec<(String, AccessLevel)> {
        self.0.clone().into_iter().collect()
    }
}

impl Forbidding {
    fn new() -> Self {
        let session = Session {
            id: SessionId::new(),
            agent: "coder".into(),
            groups: Vec::new(),
            cgroup: CgroupId(1),
            cgroup_path: "/agents/coder".into(),
            container: None,
            parent: None,
            started: OffsetDateTime::UNIX_EPOCH,
        };
        let known = Known(Catalog::global().actions());
        Self { engines: HashMap::new(), service: String::new(), known, session }
    }

    /// Those of the operation's own actions that could be forbidden, and the call be permitted all the same.
    fn evaded(&mut self, wire: &Wire, call: &Call) -> Vec<Cow<'static, str>> {
        if self.service != wire.service {
            self.service.clone_from(&wire.service);
            self.engines.clear();
        }
        let catalog = Catalog::global();
        let service = catalog.service(usize::from(catalog.position(&wire.service).unwrap()));
        let own = &service.operation(&wire.operation).unwrap().actions;
        let facts =
            CallFacts { method: "GET", host: "h", path: "/", session: "s", exe: "/bin/aws", ..CallFacts::default() };
        let mut evaded = Vec::new();
        for action in own.iter().filter_map(|action| checked(wire, action.0, &self.known)) {
            let (engine, principal) = self.engines.entry(action.clone()).or_insert_with(|| {
                let text = format!(
                    "permit (principal, action, resource);\n\
                     forbid (principal, action == Action::\"{action}\", resource);"
                );
                let version = PolicyVersion::parse(&[(PathBuf::from("one.cedar"), text)], &self.known).unwrap();
                let engine = Engine::new(version);
                let principal = engine.principal(&self.session);
                (engine, principal)
            });
            if engine.decide(principal, call, facts).is_allowed() {
                evaded.push(action);
            }
        }
        evaded
    }
}

fn outcome(wire: &Wire, forbidding: &mut Forbidding, wrong: &mut Vec<String>, inputs: &mut Vec<String>) -> Outcome {
    let catalog = Catalog::global();
    let authority = RequestAuth::of(&wire.parts);
    let decoded = catalog.host(wire.host()).map(|host| {
        let need = catalog.body_need(&host, &wire.parts);
        let body = (need == BodyNeed::Whole).then_some(&wire.body[..]);
        catalog.decode(&host, &wire.parts, body, &authority, Some("123456789012"))
    });
    let Some(Ok(call)) = decoded else {
        wrong.push(format!("[{}] {} {} {}: {decoded:?}", wire.variant, wire.name(), wire.parts.method, wire.host()));
        return Outcome::Refused;
    };
    let is = format!("{}:{}", call.service, call.operation);
    let evaded = forbidding.evaded(wire, &call);
    if !evaded.is_empty() {
        wrong.push(format!(
            "[{}] {} as {is}, {:?} passes where {evaded:?} is forbidden",
            wire.variant,
            wire.name(),
            call.actions
        ));
        return Outcome::Unsafe;
    }
    if call.candidates.contains(&wire.name()) {
        return Outcome::Ambiguous;
    }
    if is != wire.name() {
        wrong.push(format!("[{}] {} is taken for {is}", wire.variant, wire.name()));
        return Outcome::Other;
    }
    if !call.unread.is_empty() {
        inputs.push(format!("[{}] {}: {:?} unread", wire.variant, wire.name(), call.unread));
    }
    if !agrees(&wire.input, Some(&call.parameters)) {
        inputs.push(format!("[{}] {}: {} read as {}", wire.variant, wire.name(), wire.input, call.parameters));
    }
    Outcome::Exact
}

#[test]
fn what_botocore_builds_is_taken_for_what_it_is() {
    let (mut wrong, mut inputs) = (Vec::new(), Vec::new());
    let mut forbidding = Forbidding::new();
    let mut requests: BTreeMap<String, usize> = BTreeMap::new();
    let mut operations: BTreeMap<(String, String), Option<Outcome>> = BTreeMap::new();
    for_each_line(|line| {
        let variant = if line.v.is_empty() { " as botocore does".to_owned() } else { line.v.clone() };
        let entry = (variant.clone(), format!("{}:{}", line.s, line.o));
        if line.not_built.is_some() {
            operations.entry(entry).or_default();
            return;
        }
        *requests.entry(variant).or_default() += 1;
        let outcome = outcome(&Wire::new(line), &mut forbidding, &mut wrong, &mut inputs);
        let worst = operations.entry(entry).or_default();
        *worst = (*worst).max(Some(outcome));
    });
    let show = |list: &[String]| {
        list.iter().take(400).map(|x| x.chars().take(1200).collect::<String>()).collect::<Vec<_>>().join("\n")
    };
    println!(
        "| variant | requests | operations | exact | ambiguous | refused | wrong, denied | wrong, permitted | not built |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (variant, count) in &requests {
        let of =
            |wanted: Option<Outcome>| operations.iter().filter(|((v, _), o)| v == variant && **o == wanted).count();
        let all = operations.keys().filter(|(v, name)| v == variant && !name.ends_with(":*")).count();
        let row = [Outcome::Exact, Outcome::Ambiguous, Outcome::Refused, Outcome::Other, Outcome::Unsafe]
            .map(|o| of(Some(o)));
        let [exact, ambiguous, refused, other, unsafe_] = row;
        println!(
            "| {} | {count} | {all} | {exact} | {ambiguous} | {refused} | {other} | {unsafe_} | {} |",
            variant.trim(),
            of(None)
        );
    }
    println!("inputs that differ: {}\n{}", inputs.len(), show(&inputs));
    println!("wrong: {}\n{}", wrong.len(), show(&wrong));
    if let Some(path) = std::env::var_os("CHAPERONE_WIRE_AMBIGUOUS") {
        let names =
            operations.iter().filter(|(_, o)| **o == Some(Outcome::Ambiguous)).map(|((v, n), _)| format!("{v} {n}\n"));
        std::fs::write(path, names.collect::<String>()).unwrap();
    }
    assert!(wrong.is_empty() && inputs.is_empty());
}

#[test]
fn botocores_signatures_are_right_and_any_change_makes_them_wrong() {
    use aws_lc_rs::digest;
    let signer = Signer::new();
    let placeholder = placeholder();
    let mut checked = 0;
    for wire in wire() {
        let authority = RequestAuth::of(&wire.parts);
        if !matches!(authority, RequestAuth::Header(_)) {
            continue;
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &wire.body).as_ref());
        let verified = |parts: &Parts, body: &[u8; 32]| {
            signer.verify(parts, &RequestAuth::of(parts), Some(body), &placeholder, wire.now()).map(drop)
        };
        assert_eq!(verified(&wire.parts, &hash), Ok(()), "{} {}", wire.name(), wire.parts.uri);
        checked += 1;

        let mut parts = wire.parts.clone();
        parts.uri = format!("{}x", wire.parts.uri).parse().unwrap();
        assert_eq!(verified(&parts, &hash), Err(VerifyError::Mismatch), "{}", wire.name());
        let mut parts = wire.parts.clone();
        parts.headers.insert("host", "elsewhere.amazonaws.com".parse().unwrap());
        assert_eq!(verified(&parts, &hash), Err(VerifyError::Mismatch), "{}", wire.name());
        let mut parts = wire.parts.clone();
        parts.headers.insert("x-amz-added", "1".parse().unwrap());
        assert_eq!(verified(&parts, &hash), Err(VerifyError::Unsigned("x-amz-added".into())), "{}", wire.name());
    }
    assert!(checked > 500, "only {checked} signed requests in the fixture");
}
