//! Which members of an operation's answer are secrets, or marked sensitive: what botocore's models and the reviewed
//! list (`data/sensitive-overrides.tsv`) say, compiled by `cargo xtask sensitive`.
//!
//! A service's graph is read when the service is first asked about, and shared by its operations from then on.

use std::sync::{LazyLock, OnceLock};

use chaperone_masking::{Kind, Selector, SelectorBuilder, SelectorError};
use foldhash::HashMap;
use serde::Deserialize;

use crate::catalog::{frames, text};

/// A line of JSON for the head, and one for each service that has any: zstd frames, as the catalog's are.
static DATA: &[u8] = include_bytes!("../data/sensitive.ndjson.zst");
/// What findings by the models are called.
const RULE: &str = "sensitive";

/// What is to be masked in one operation's answer.
#[derive(Clone, Debug)]
pub struct SensitiveMembers {
    /// Members that open something, which are masked unless told otherwise.
    pub secrets: Option<Selector>,
    /// These, and all that the models mark as sensitive besides.
    pub all: Option<Selector>,
    /// The body is no structure, and as a whole is marked.
    pub body: Option<Sensitivity>,
    /// Fields of the head, in lower case.
    pub headers: &'static [(&'static str, Sensitivity)],
}

/// How much of a secret something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensitivity {
    /// It opens something.
    Secret,
    /// The models mark it: names, addresses, texts.
    Marked,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
struct RawHead {
    services: Vec<&'static str>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
struct RawService {
    o: HashMap<&'static str, RawOperation>,
    g: Vec<RawNode>,
    r: Vec<&'static str>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
struct RawOperation {
    #[serde(default)]
    j: Option<i64>,
    #[serde(default)]
    x: Option<i64>,
    #[serde(default)]
    h: HashMap<&'static str, u8>,
    #[serde(default)]
    c: u8,
}

#[derive(Deserialize)]
struct RawNode {
    #[serde(default)]
    m: HashMap<&'static str, i64>,
    #[serde(default)]
    a: Option<i64>,
    #[serde(default)]
    s: Option<&'static str>,
}

struct Service {
    operations: HashMap<&'static str, Operation>,
    /// Operations whose answers' bodies are whatever somebody put there.
    raw: Vec<&'static str>,
    secrets: Selector,
    all: Selector,
}

struct Operation {
    json: Option<i64>,
    xml: Option<i64>,
    has_secrets: bool,
    headers: Vec<(&'static str, Sensitivity)>,
}

struct Table {
    names: Vec<&'static str>,
    lines: Vec<&'static [u8]>,
    services: Vec<OnceLock<Service>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut frames = frames(DATA).into_iter();
    let head: &'static str = text(frames.next().unwrap_or_default()).leak();
    let head: RawHead = serde_json::from_str(head).expect("BUG: the head of the sensitive members");
    let lines: Vec<_> = frames.collect();
    assert_eq!(lines.len(), head.services.len(), "BUG: the sensitive members have a line for each service");
    Table { services: lines.iter().map(|_| OnceLock::new()).collect(), names: head.services, lines }
});

impl SensitiveMembers {
    /// Those of an operation, by names on the wire: in XML, or in JSON and CBOR. `None` if there are none.
    pub fn of(service: &str, operation: &str, xml: bool) -> Option<Self> {
        let service = Service::of(service)?;
        let operation = service.operations.get(operation)?;
        let root = if xml { operation.xml } else { operation.json };
        let (mut secrets, mut all, mut body) = (None, None, None);
        match root.map(|root| (root, u32::try_from(root))) {
            Some((_, Ok(root))) => {
                secrets = operation.has_secrets.then(|| service.secrets.rooted(root));
                all = Some(service.all.rooted(root));
            }
            Some((leaf, Err(_))) => body = Some(Leaf::of(leaf).sensitivity),
            None => {}
        }
        Some(Self { secrets, all, body, headers: &operation.headers })
    }
}

/// Whether an operation's answer is bytes or a text of whatever sort, such as an object's.
pub fn has_raw_answer(service: &str, operation: &str) -> bool {
    Service::of(service).is_some_and(|service| service.raw.binary_search(&operation).is_ok())
}

/// A leaf as it is written: a negative number.
struct Leaf {
    kind: Kind,
    sensitivity: Sensitivity,
    spared: bool,
}

impl Leaf {
    fn of(code: i64) -> Self {
        let code = -code - 1;
        let kind = match code % 5 {
            0 => Kind::Text,
            1 => Kind::Blob,
            2 => Kind::Timestamp,
            3 => Kind::Boolean,
            _ => Kind::Number,
        };
        let sensitivity = if code / 5 % 2 == 0 { Sensitivity::Secret } else { Sensitivity::Marked };
        Self { kind, sensitivity, spared: code >= 10 }
    }
}

impl Service {
    fn of(name: &str) -> Option<&'static Self> {
        let position = TABLE.names.binary_search(&name).ok()?;
        Some(TABLE.services[position].get_or_init(|| Self::read(TABLE.lines[position])))
    }

    fn read(line: &'static [u8]) -> Self {
        let line: &'static str = text(line).leak();
        let raw: RawService = serde_json::from_str(line).expect("BUG: a service of the sensitive members");
        let graph = |all| selector(&raw.g, all).expect("BUG: a service has a million sensitive members");
        let (secrets, all) = (graph(false), graph(true));
        let sensitivity = |it: u8| if it == 0 { Sensitivity::Secret } else { Sensitivity::Marked };
        let operations = raw.o.into_iter().map(|(name, it)| {
            let headers = it.h.into_iter().map(|(name, how)| (name, sensitivity(how))).collect();
            (name, Operation { json: it.j, xml: it.x, has_secrets: it.c != 0, headers })
        });
        Self { operations: operations.collect(), raw: raw.r, secrets, all }
    }
}

/// A service's graph, with all leaves or the secrets alone. Nodes keep their positions.
fn selector(nodes: &[RawNode], all: bool) -> Result<Selector, SelectorError> {
    let mut builder = SelectorBuilder::default();
    for _ in 1..nodes.len() {
        builder.node()?;
    }
    let mut leaves: HashMap<i64, u32> = HashMap::default();
    for (position, node) in nodes.iter().enumerate() {
        let from = u32::try_from(position).map_err(|_| SelectorError::TooMany)?;
        let mut resolve = |builder: &mut SelectorBuilder, to: i64| -> Result<Option<u32>, SelectorError> {
            if let Ok(to) = u32::try_from(to) {
                return Ok(Some(to));
            }
            let leaf = Leaf::of(to);
            if leaf.sensitivity == Sensitivity::Marked && !all {
                return Ok(None);
            }
            if let Some(known) = leaves.get(&to) {
                return Ok(Some(*known));
            }
            let at = builder.node()?;
            builder.mask(at, RULE, leaf.kind);
            if leaf.spared {
                builder.spared(at);
            }
            leaves.insert(to, at);
            Ok(Some(at))
        };
        for (name, to) in &node.m {
            if let Some(to) = resolve(&mut builder, *to)? {
                builder.member(from, name, to);
            }
        }
        if let Some(to) = node.a
            && let Some(to) = resolve(&mut builder, to)?
        {
            builder.any(from, to);
        }
        if let Some((member, texts)) = node.s.and_then(|it| it.split_once('=')) {
            builder.spares(from, member, &texts.split('|').collect::<Vec<_>>());
        }
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chaperone_masking::{Fixed, Format, Masker, Rules};

    use super::*;
    use crate::Catalog;

    fn mask(service: &str, operation: &str, all: bool, body: &str) -> String {
        let xml = body.starts_with('<');
        let members = SensitiveMembers::of(service, operation, xml).unwrap();
        let selected = if all { members.all } else { members.secrets };
        let selectors = selected.into_iter().map(std::sync::Arc::new).collect();
        let format = if xml { Format::Xml } else { Format::Json };
        let mut masker = Masker::new(format, Rules { selectors, ..Rules::default() }, Box::new(Fixed));
        let mut out = Vec::new();
        masker.push(&Bytes::copy_from_slice(body.as_bytes()), &mut out).unwrap();
        masker.finish(&mut out).unwrap();
        String::from_utf8(out.concat()).unwrap()
    }

    #[test]
    fn what_the_issue_names_is_masked_and_its_neighbours_stay() {
        for (service, operation, body) in [
            ("secretsmanager", "GetSecretValue", r#"{"Name":"n","SecretString":"S","VersionId":"v"}"#),
            (
                "secretsmanager",
                "BatchGetSecretValue",
                r#"{"SecretValues":[{"Name":"n","SecretString":"S"}],"NextToken":"t"}"#,
            ),
            ("ssm", "GetParameter", r#"{"Parameter":{"Name":"n","Type":"SecureString","Value":"S"}}"#),
            ("ssm", "GetParametersByPath", r#"{"Parameters":[{"Type":"SecureString","Value":"S"}],"NextToken":"t"}"#),
            (
                "lambda",
                "GetFunctionConfiguration",
                r#"{"FunctionName":"f","Environment":{"Variables":{"A":"S","B":"S"}}}"#,
            ),
            (
                "lambda",
                "GetFunction",
                r#"{"Configuration":{"Environment":{"Variables":{"A":"S"}}},"Code":{"Location":"https://x"}}"#,
            ),
            ("lambda", "ListFunctions", r#"{"Functions":[{"Environment":{"Variables":{"A":"S"}}}],"NextMarker":"m"}"#),
            (
                "ecs",
                "DescribeTaskDefinition",
                r#"{"taskDefinition":{"containerDefinitions":[{"image":"i","environment":[{"name":"A","value":"S"}]}]}}"#,
            ),
            (
                "codebuild",
                "BatchGetProjects",
                r#"{"projects":[{"environment":{"environmentVariables":[{"name":"a","type":"PLAINTEXT","value":"S"},{"type":"SECRETS_MANAGER","name":"b","value":"path"}]}}]}"#,
            ),
            ("apigateway", "GetApiKeys", r#"{"item":[{"id":"i","value":"S"}]}"#),
            ("apigateway", "GetApiKey", r#"{"id":"i","value":"S"}"#),
            (
                "iot",
                "CreateKeysAndCertificate",
                r#"{"certificatePem":"c","keyPair":{"PublicKey":"p","PrivateKey":"S"}}"#,
            ),
            ("glue", "GetConnection", r#"{"Connection":{"Name":"n","ConnectionProperties":{"PASSWORD":"S"}}}"#),
            (
                "batch",
                "DescribeJobDefinitions",
                r#"{"jobDefinitions":[{"containerProperties":{"environment":[{"name":"n","value":"S"}]}}]}"#,
            ),
            (
                "iam",
                "CreateAccessKey",
                "<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey><AccessKeyId>AKIA</AccessKeyId><SecretAccessKey>S</SecretAccessKey></AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>",
            ),
            (
                "ec2",
                "DescribeInstanceAttribute",
                "<R><instanceId>i</instanceId><userData><value>S</value></userData></R>",
            ),
            (
                "ec2",
                "DescribeLaunchTemplateVersions",
                "<R><launchTemplateVersionSet><item><launchTemplateData><userData>S</userData></launchTemplateData></item></launchTemplateVersionSet></R>",
            ),
            ("ec2", "CreateKeyPair", "<R><keyName>n</keyName><keyMaterial>S</keyMaterial></R>"),
            ("redshift", "GetClusterCredentials", "<A><B><DbUser>u</DbUser><DbPassword>S</DbPassword></B></A>"),
        ] {
            let expected = body.replace("\"S\"", "\"chaperone-masked\"").replace(">S<", ">chaperone-masked<");
            assert_ne!(expected, body);
            // User data is base64 in base64.
            let out = mask(service, operation, false, body);
            assert_eq!(out, expected, "{service}:{operation}");
        }
    }

    #[test]
    fn ordinary_answers_stay() {
        for (service, operation, body) in [
            ("ssm", "GetParameter", r#"{"Parameter":{"Name":"n","Type":"String","Value":"v"}}"#),
            ("secretsmanager", "ListSecrets", r#"{"SecretList":[{"Name":"n","Description":"d"}],"NextToken":"t"}"#),
            ("kms", "Decrypt", r#"{"KeyId":"k","Plaintext":"cGxhaW4="}"#),
            ("secretsmanager", "GetRandomPassword", r#"{"RandomPassword":"p"}"#),
            ("organizations", "ListAccounts", r#"{"Accounts":[{"Name":"n","Email":"e@x"}],"NextToken":"t"}"#),
        ] {
            if SensitiveMembers::of(service, operation, false).is_some() {
                assert_eq!(mask(service, operation, false, body), body, "{service}:{operation}");
            }
        }
        let accounts = mask("organizations", "ListAccounts", true, r#"{"Accounts":[{"Name":"n","Status":"ACTIVE"}]}"#);
        assert_eq!(accounts, r#"{"Accounts":[{"Name":"chaperone-masked","Status":"ACTIVE"}]}"#);
        assert!(SensitiveMembers::of("dynamodb", "GetItem", false).is_none_or(|it| it.secrets.is_none()));
        assert!(has_raw_answer("s3", "GetObject") && has_raw_answer("lambda", "Invoke"));
        assert!(!has_raw_answer("s3", "ListObjectsV2"));
        assert!(SensitiveMembers::of("nobody", "Nothing", false).is_none());
    }

    #[test]
    fn every_service_reads_and_its_operations_are_the_catalogs() {
        let catalog = Catalog::global();
        let (mut operations, mut secretive) = (0, 0);
        for name in &TABLE.names {
            let position = catalog.position(name).unwrap();
            let _ = SensitiveMembers::of(name, "", false);
            let at = TABLE.names.binary_search(name).unwrap();
            for (operation, it) in &TABLE.services[at].get().unwrap().operations {
                assert!(catalog.service(usize::from(position)).operation(operation).is_some(), "{name}:{operation}");
                operations += 1;
                secretive += usize::from(it.has_secrets);
            }
        }
        assert!(operations >= 2000 && secretive >= 450, "{operations} operations, {secretive} with secrets");
    }
}
