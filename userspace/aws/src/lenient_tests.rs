//! Every request that botocore builds, changed to name another operation or another resource, decided under a policy
//! that forbids exactly that, and held against a server as lenient as can be: one that takes an operation from wherever
//! it is named, and a resource from any member however it is spelled. Nothing that such a server would do and the policy
//! forbids may pass.
//!
//! The server reads for itself (`Lenient`), by nothing of the decoder's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use chaperone_model::{Call, Protocol};
use http::Uri;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::{
    Catalog,
    catalog::{Operation, Service},
    hostile_wire_tests::{CHANGES, Sent, Subject, body, decode, subject},
    resources_tests::Asked,
    wire_tests::for_each_wire,
};

/// What a change makes a text of that no honest input has.
const DECOY: &str = "decoy-9c1f";
/// The same for an account.
const OTHER_ACCOUNT: &str = "999999999999";

/// What a server could read in a request that reads everything.
struct Lenient {
    operations: BTreeSet<&'static str>,
    texts: BTreeSet<String>,
}

impl Lenient {
    fn read(service: &'static Service, sent: &Sent) -> Self {
        let mut named = Vec::new();
        for (name, value) in &sent.parts.headers {
            if let Ok(value) = value.to_str() {
                named.push((name.as_str().to_owned(), value.to_owned()));
            }
        }
        let target = sent.parts.uri.to_string();
        pairs(target.split_once('?').map_or("", |(_, query)| query), &mut named);
        if let Ok(text) = std::str::from_utf8(&sent.body) {
            pairs(text, &mut named);
            if let Ok(document) = serde_json::from_str::<Value>(text) {
                leaves(&document, "", &mut named);
            }
        }
        let path = target.split('?').next().unwrap_or_default();
        for segment in path.split('/') {
            named.push(("operation".into(), percent_decode_str(segment).decode_utf8_lossy().into_owned()));
        }
        let mut operations = BTreeSet::new();
        for (name, value) in &named {
            let name: String = name.chars().filter(char::is_ascii_alphabetic).collect();
            if matches!(name.to_ascii_lowercase().as_str(), "action" | "operation" | "xamztarget" | "amztarget") {
                let wanted = value.rsplit(['.', '#', '/']).next().unwrap_or_default();
                operations.extend(service.operations.iter().map(|one| one.name).filter(|one| *one == wanted));
            }
        }
        Self { operations, texts: named.into_iter().map(|(_, value)| value).collect() }
    }

    fn names(&self, text: &str) -> bool {
        self.texts.iter().any(|one| one.contains(text))
    }
}

/// `a=b&c=d`, also with semicolons, decoded once and twice.
fn pairs(text: &str, into: &mut Vec<(String, String)>) {
    for pair in text.split(['&', ';']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let once = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let (name, value) = (once(name), once(value));
        into.push((once(&name), once(&value)));
        into.push((name, value));
    }
}

fn leaves(value: &Value, name: &str, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, inner)| leaves(inner, name, into)),
        Value::Array(all) => all.iter().for_each(|inner| leaves(inner, name, into)),
        Value::String(text) => into.push((name.to_owned(), text.clone())),
        _ => {}
    }
}

/// Policies that permit everything but one thing, which requests of one service ask of again and again.
#[derive(Default)]
pub(crate) struct Forbidding {
    service: &'static str,
    engines: HashMap<String, Asked>,
}

impl Forbidding {
    pub fn allows(&mut self, service: &'static str, forbidden: &str, call: &Call) -> bool {
        if self.service != service {
            self.engines.clear();
            self.service = service;
        }
        let engine = self.engines.entry(forbidden.to_owned()).or_insert_with(|| {
            Asked::new(&format!("permit (principal, action, resource); forbid (principal, {forbidden};"))
        });
        engine.allows(call)
    }

    fn allows_action(&mut self, service: &'static str, action: &str, call: &Call) -> bool {
        self.allows(service, &format!("action == Action::\"{action}\", resource)"), call)
    }

    fn allows_resource(&mut self, service: &'static str, pattern: &str, call: &Call) -> bool {
        let pattern = pattern.replace('\\', "\\\\").replace('"', "\\\"");
        self.allows(service, &format!("action, resource) when {{ resource.arn like \"{pattern}\" }}"), call)
    }
}

/// Where a text of the input stands in a request, so that another can be put in its place or beside it.
pub(crate) struct Place {
    /// What it stands under, such as `InstanceId.1` or `TableName`.
    pub name: String,
    pub value: String,
    spot: Spot,
    decoy: &'static str,
}

#[derive(Clone, Copy)]
pub(crate) enum Spot {
    Form,
    Json,
    /// A label of the path, or a value of the query.
    Target,
}

/// Members that name no resource of the call, though their made-up values look like one's name: documents' own ids, which
/// aren't the path's; ids of what is in the resource, whose shape is called as the resource's; a type.
const NO_NAMES: [(&str, &str); 4] = [
    ("amplifyuibuilder", "id"),
    ("connect", "AttributeIds"),
    ("connect", "RecordIds"),
    ("ec2", "TagSpecification.1.ResourceType"),
];

/// The texts at the top of an input (or in a list there) of which the call's resources are made.
pub(crate) fn places(subject: &Subject, sent: &Sent, call: &Call) -> Vec<Place> {
    let Ok(text) = std::str::from_utf8(&sent.body) else { return Vec::new() };
    let mut found = Vec::new();
    let mut found_at = |name: &str, value: &str, spot| {
        let named = |resource: &String| {
            // Of an ARN, its last part says enough.
            let last = value.rsplit([':', '/']).next().unwrap_or(value);
            last.len() > 3 && resource.split([':', '/']).any(|part| part == last)
        };
        if call.resources.iter().any(named) && !NO_NAMES.contains(&(subject.service.name, name)) {
            let is_account = value.len() == 12 && value.bytes().all(|byte| byte.is_ascii_digit());
            let decoy = if is_account { OTHER_ACCOUNT } else { DECOY };
            found.push(Place { name: name.to_owned(), value: value.to_owned(), spot, decoy });
        }
    };
    if subject.is_form() {
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            if !matches!(name, "Action" | "Version") {
                found_at(name, &percent_decode_str(value).decode_utf8_lossy(), Spot::Form);
            }
        }
    } else if matches!(subject.protocol, Protocol::Json | Protocol::RestJson)
        && let Ok(Value::Object(members)) = serde_json::from_str(text)
    {
        for (name, value) in &members {
            for text in crate::resources::texts(Some(value)) {
                found_at(name, text, Spot::Json);
            }
        }
    }
    // S3 takes paths byte for byte, which other tests look after.
    if subject.is_rest() && !subject.service.name.starts_with("s3") {
        let target = sent.parts.uri.to_string();
        for text in target.split(['/', '?', '&']).filter(|text| !text.is_empty()) {
            let (name, value) = text.split_once('=').unwrap_or(("", text));
            found_at(name, &percent_decode_str(value).decode_utf8_lossy(), Spot::Target);
        }
    }
    found
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        let _ = if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            write!(out, "{}", char::from(byte))
        } else {
            write!(out, "%{byte:02X}")
        };
        out
    })
}

/// The request with another text in the place of that one, everywhere it stands under that name.
pub(crate) fn replaced(sent: &Sent, place: &Place, value: &str) -> Option<Sent> {
    if let Spot::Target = place.spot {
        let target = sent.parts.uri.to_string();
        let same = |text: &str| percent_decode_str(text).decode_utf8_lossy() == place.value;
        let pieces = target.split_inclusive(['/', '?', '&', '=']).map(|piece| {
            let text = piece.trim_end_matches(['/', '?', '&', '=']);
            if same(text) { encoded(value) + &piece[text.len()..] } else { piece.to_owned() }
        });
        let mut sent = sent.clone();
        sent.parts.uri = pieces.collect::<String>().parse().ok()?;
        return Some(sent);
    }
    let text = std::str::from_utf8(&sent.body).ok()?;
    match place.spot {
        Spot::Form => {
            let pairs: Vec<String> = text
                .split('&')
                .map(|pair| match pair.split_once('=') {
                    Some((name, _)) if name == place.name => format!("{name}={}", encoded(value)),
                    _ => pair.to_owned(),
                })
                .collect();
            Some(body(sent, pairs.join("&").into_bytes()))
        }
        Spot::Json => {
            let mut document: Value = serde_json::from_str(text).ok()?;
            match document.get_mut(&place.name)? {
                Value::Array(all) => {
                    all.iter_mut().filter(|one| **one == place.value).for_each(|one| *one = value.into());
                }
                one => *one = value.into(),
            }
            Some(body(sent, document.to_string().into_bytes()))
        }
        Spot::Target => None,
    }
}

/// The request with a member more beside that one.
fn beside(sent: &Sent, place: &Place, name: &str, value: &str) -> Option<Sent> {
    let text = std::str::from_utf8(&sent.body).ok()?;
    match place.spot {
        Spot::Form => Some(body(sent, format!("{text}&{name}={}", encoded(value)).into_bytes())),
        Spot::Json => {
            let inner = text.strip_suffix('}')?;
            let list = serde_json::from_str::<Value>(text).ok()?.get(&place.name)?.is_array();
            let (name, value) = (Value::from(name), Value::from(value));
            let value = if list { format!("[{value}]") } else { value.to_string() };
            Some(body(sent, format!("{inner},{name}:{value}}}").into_bytes()))
        }
        Spot::Target => None,
    }
}

fn other_case(name: &str) -> String {
    let mut chars = name.chars();
    let Some(first) = chars.next() else { return String::new() };
    let first = if first.is_uppercase() { first.to_lowercase().to_string() } else { first.to_uppercase().to_string() };
    first + chars.as_str()
}

/// Ways to name a decoy besides what the request names.
pub(crate) type Smuggle = fn(&Sent, &Place) -> Option<Sent>;

pub(crate) const SMUGGLED: [(&str, Smuggle); 12] = [
    ("in another case", |r, p| beside(r, p, &other_case(&p.name), p.decoy)),
    ("in capitals", |r, p| beside(r, p, &p.name.to_uppercase(), p.decoy).filter(|_| p.name.to_uppercase() != p.name)),
    ("twice", |r, p| beside(r, p, &p.name, p.decoy)),
    ("in the place of", |r, p| replaced(r, p, p.decoy)),
    ("as an array", |r, p| beside(r, p, &format!("{}[]", p.name), p.decoy)),
    ("with an index", |r, p| beside(r, p, &format!("{}.7", p.name), p.decoy)),
    ("at another index", |r, p| beside(r, p, &format!("{}.x", p.name.strip_suffix(".1")?), p.decoy)),
    ("after a gap", |r, p| beside(r, p, &format!("{}.19", p.name.strip_suffix(".1")?), p.decoy)),
    ("at index nought", |r, p| beside(r, p, &format!("{}.0", p.name.strip_suffix(".1")?), p.decoy)),
    ("in the list's other style", |r, p| {
        let list = p.name.strip_suffix(".1")?;
        let list = list.strip_suffix(".member").map_or_else(|| format!("{list}.member"), str::to_owned);
        beside(r, p, &format!("{list}.1"), p.decoy)
    }),
    ("in a plural", |r, p| {
        let name = p.name.strip_suffix(".1").map_or_else(|| format!("{}s", p.name), |list| format!("{list}s.1"));
        beside(r, p, &name, p.decoy)
    }),
    ("with a space", |r, p| beside(r, p, &format!(" {}", p.name), p.decoy).filter(|_| matches!(p.spot, Spot::Json))),
];

/// Texts that could mean what the honest one means, or more. The last is the resource's ARN.
pub(crate) type Widen = fn(&str, &str) -> Option<String>;

pub(crate) const WIDER: [(&str, Widen); 16] = [
    ("a star", |_, _| Some("*".into())),
    ("all that begins so", |v, _| Some(format!("{}*", v.get(..v.len().checked_sub(1)?)?))),
    ("all that ends so", |v, _| Some(format!("*{}", v.get(1..)?))),
    ("a question mark", |v, _| Some(format!("{}?", v.get(..v.len().checked_sub(1)?)?))),
    ("a space before", |v, _| Some(format!(" {v}"))),
    ("a space after", |v, _| Some(format!("{v} "))),
    ("a line's end after", |v, _| Some(format!("{v}\n"))),
    ("a byte order mark", |v, _| Some(format!("\u{feff}{v}"))),
    ("a soft hyphen within", |v, _| Some(format!("{}\u{ad}{}", v.get(..1)?, v.get(1..)?))),
    ("its ARN", |v, arn| (v != arn).then(|| arn.to_owned())),
    ("its ARN in capitals", |v, arn| (v != arn).then(|| arn.replacen("arn:", "ARN:", 1))),
    ("its ARN without the partition", |_, arn| Some(arn.splitn(3, ':').nth(2)?.to_owned())),
    ("its account and name", |_, arn| Some(arn.splitn(5, ':').nth(4)?.to_owned())),
    ("its type and name", |v, arn| arn.splitn(6, ':').nth(5).filter(|tail| *tail != v).map(str::to_owned)),
    ("a version after", |v, _| Some(format!("{v}:1"))),
    // A cluster's ARN in the place of the cluster's name, beside its service's name.
    ("the ARN of what it belongs to", |v, arn| {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let is_within =
            [":", "/"].iter().any(|end| parts.get(5).is_some_and(|tail| tail.contains(&format!("{v}{end}"))));
        is_within.then(|| format!("{}:owner/{v}", parts[..5].join(":")))
    }),
];

#[derive(Default)]
struct Row {
    refused: usize,
    denied: usize,
    /// Permitted, and the server would do nothing that is forbidden.
    harmless: usize,
    passed: usize,
}

/// The actions of an operation that it certainly needs, so that forbidding one must deny it.
fn own_actions(operation: &'static Operation) -> impl Iterator<Item = &'static str> {
    // Which of several S3 and DynamoDB need depends on more than the operation.
    operation.actions.iter().map(|action| action.0).take(1)
}

#[test]
fn nothing_that_is_forbidden_is_executed_by_a_lenient_server() {
    let mut table: BTreeMap<String, Row> = BTreeMap::new();
    let mut passed: Vec<String> = Vec::new();
    let mut forbidding = Forbidding::default();
    for_each_wire(|wire| {
        // Other partitions and kinds of endpoints differ in their hosts alone.
        if !wire.variant.is_empty() {
            return;
        }
        let honest = Sent { parts: wire.parts.clone(), body: wire.body.clone() };
        let Some(Ok(call)) = decode(&honest) else { return };
        let Some(subject) = subject(&wire, &call) else { return };
        let service = subject.service;
        let mut note = |name: String, sent: &Sent, verdict: Option<bool>, what: &str| {
            let row = table.entry(name).or_default();
            match verdict {
                None => row.harmless += 1,
                Some(false) => row.denied += 1,
                Some(true) => {
                    row.passed += 1;
                    passed.push(format!(
                        "{what}: {} {} {} {:?}",
                        wire.name(),
                        sent.parts.method,
                        sent.parts.uri,
                        String::from_utf8_lossy(&sent.body[..sent.body.len().min(400)])
                    ));
                }
            }
        };
        let mut refused: BTreeMap<String, usize> = BTreeMap::new();
        for (name, change) in CHANGES {
            let Some(changed) = change(&subject, &honest) else { continue };
            let name = format!("operation: {name}");
            let Some(Ok(call)) = decode(&changed) else {
                *refused.entry(name).or_default() += 1;
                continue;
            };
            let others = Lenient::read(service, &changed).operations;
            let others = others.into_iter().filter(|other| *other != subject.operation.name);
            let actions: Vec<_> = others.filter_map(|other| service.operation(other)).flat_map(own_actions).collect();
            let verdict = (!actions.is_empty())
                .then(|| actions.iter().any(|action| forbidding.allows_action(service.name, action, &call)));
            note(name.clone(), &changed, verdict, &name);
        }
        for place in places(&subject, &honest, &call) {
            for (name, smuggle) in SMUGGLED {
                let Some(changed) = smuggle(&honest, &place) else { continue };
                let name = format!("resource: {name}");
                let Some(Ok(call)) = decode(&changed) else {
                    *refused.entry(name).or_default() += 1;
                    continue;
                };
                assert!(Lenient::read(service, &changed).names(place.decoy), "{name}");
                let allowed = forbidding.allows_resource(service.name, &format!("*{}*", place.decoy), &call);
                note(name.clone(), &changed, Some(allowed), &format!("{name} of {}", place.name));
            }
            let last = place.value.rsplit([':', '/']).next().unwrap_or(&place.value);
            for resource in call.resources.iter().filter(|resource| resource.contains(last)) {
                for (name, widen) in WIDER {
                    let changed = widen(&place.value, resource).and_then(|value| replaced(&honest, &place, &value));
                    let Some(changed) = changed else { continue };
                    // Revisions are a resource each in Batch, Bedrock and ECS, and others have names with colons.
                    if name == "a version after"
                        && ["batch", "bedrock", "bedrock-runtime", "ecs", "logs", "rds"].contains(&service.name)
                    {
                        continue;
                    }
                    let name = format!("name: {name}");
                    let Some(Ok(changed_call)) = decode(&changed) else {
                        *refused.entry(name).or_default() += 1;
                        continue;
                    };
                    let allowed = forbidding.allows_resource(service.name, resource, &changed_call);
                    note(name.clone(), &changed, Some(allowed), &format!("{name} of {}, {resource}", place.name));
                }
            }
        }
        for (name, count) in refused {
            table.entry(name).or_default().refused += count;
        }
    });
    println!("| change | refused | denied | nothing forbidden in it | passed |\n|---|---|---|---|---|");
    for (name, row) in &table {
        println!("| {name} | {} | {} | {} | {} |", row.refused, row.denied, row.harmless, row.passed);
    }
    // One of each kind and operation.
    let mut kinds = BTreeSet::new();
    passed.retain(|one| kinds.insert(one.split(" {").next().unwrap_or_default().split(" /").next().map(str::to_owned)));
    let shown: Vec<_> = passed.iter().take(600).map(String::as_str).collect();
    assert!(passed.is_empty(), "{} passed:\n{}", passed.len(), shown.join("\n"));
    assert_eq!(table.len(), CHANGES.len() + SMUGGLED.len() + WIDER.len(), "every change has been tried");
}

#[test]
fn the_lenient_server_reads_what_others_overlook() {
    let service = Catalog::global().service(usize::from(Catalog::global().position("iam").unwrap()));
    for (target, text) in [
        ("/?%41ction=CreateUser", ""),
        ("/?a=1;ACTION=CreateUser", ""),
        ("/", "Action[]=CreateUser"),
        ("/", "%2541ction=CreateUser"),
        ("/", "{\"operation\":\"CreateUser\"}"),
        ("/x/CreateUser?y", ""),
    ] {
        let mut request = http::Request::new(());
        *request.uri_mut() = target.parse::<Uri>().unwrap();
        let sent = Sent { parts: request.into_parts().0, body: text.as_bytes().to_vec() };
        assert!(Lenient::read(service, &sent).operations.contains("CreateUser"), "{target} {text}");
    }
}
