//! Every request that botocore builds, changed in each of a list of ways that make it something else to some reader. What
//! becomes of it must be a refusal, or a call that is known not to be read whole; never a whole call.
//!
//! The reader that this is held against is as lenient as can be: it takes the operation from wherever it is named, any
//! method for any other, any type of body for any other, and any member however it is spelled.

use std::collections::BTreeMap;

use chaperone_model::{Call, Protocol};
use http::{HeaderName, HeaderValue, Method, Version, request::Parts};

use crate::{
    BodyNeed, Catalog, DecodeError, RequestAuth,
    catalog::{Location, Operation, Service},
    wire_tests::{Wire, for_each_wire},
};

/// A request, to be changed.
#[derive(Clone)]
pub(crate) struct Sent {
    pub parts: Parts,
    pub body: Vec<u8>,
}

/// What is known of the request before it is changed.
pub(crate) struct Subject {
    pub service: &'static Service,
    pub operation: &'static Operation,
    pub protocol: Protocol,
    /// Another operation of the same service, which the change means to smuggle in.
    decoy: &'static str,
    /// The body is read, not passed on as it is.
    read: bool,
}

impl Subject {
    pub fn is_form(&self) -> bool {
        matches!(self.protocol, Protocol::Query | Protocol::Ec2)
    }

    pub fn is_rest(&self) -> bool {
        matches!(self.protocol, Protocol::RestJson | Protocol::RestXml)
    }

    /// The input takes any name in its query.
    fn takes_any_query(&self) -> bool {
        self.service.structure(self.operation.input).is_some_and(|structure| {
            structure.members.iter().any(|member| {
                member.location() == Location::Query
                    && matches!(self.service.shape(member.1), crate::catalog::Shape::Map { .. })
            })
        })
    }
}

/// One way to change a request; `None` where it isn't one.
pub(crate) type Change = fn(&Subject, &Sent) -> Option<Sent>;

fn set(sent: &Sent, name: &'static str, value: &str) -> Sent {
    let mut sent = sent.clone();
    sent.parts.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    sent
}

fn add(sent: &Sent, name: &'static str, value: &str) -> Sent {
    let mut sent = sent.clone();
    sent.parts.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    sent
}

fn method(sent: &Sent, method: Method) -> Sent {
    let mut sent = sent.clone();
    sent.parts.method = method;
    sent
}

fn target(sent: &Sent, target: &str) -> Option<Sent> {
    let mut sent = sent.clone();
    sent.parts.uri = target.parse().ok()?;
    Some(sent)
}

fn query(sent: &Sent, more: &str) -> Option<Sent> {
    let uri = &sent.parts.uri;
    let query = uri.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&")).unwrap_or_default();
    target(sent, &format!("{}?{query}{more}", uri.path()))
}

pub(crate) fn body(sent: &Sent, body: Vec<u8>) -> Sent {
    let mut sent = set(sent, "content-length", &body.len().to_string());
    sent.body = body;
    sent
}

fn form(subject: &Subject, sent: &Sent, more: &str) -> Option<Sent> {
    subject.is_form().then(|| body(sent, [&sent.body[..], b"&", more.as_bytes()].concat()))
}

/// A member more in a JSON body.
fn member(subject: &Subject, sent: &Sent, more: &str) -> Option<Sent> {
    let json = matches!(subject.protocol, Protocol::Json | Protocol::RestJson) && subject.read;
    let inner = sent.body.strip_suffix(b"}").filter(|_| json && sent.body.starts_with(b"{"))?;
    let comma = if inner == b"{" { "" } else { "," };
    Some(body(sent, [inner, comma.as_bytes(), more.as_bytes(), b"}"].concat()))
}

/// The request with a content type that its body isn't of, where the body is read.
fn typed(subject: &Subject, sent: &Sent, kind: &str) -> Option<Sent> {
    let named = subject.service.structure(subject.operation.input).is_some_and(|structure| {
        structure.members.iter().any(|member| member.wire().eq_ignore_ascii_case("content-type"))
    });
    let same = sent.parts.headers.get("content-type").is_some_and(|it| it == kind);
    (subject.read && !sent.body.is_empty() && !named && !same).then(|| set(sent, "content-type", kind))
}

pub(crate) const CHANGES: [(&str, Change); 48] = [
    ("PUT", |s, r| (!s.is_rest()).then(|| method(r, Method::PUT))),
    ("PATCH", |s, r| (!s.is_rest()).then(|| method(r, Method::PATCH))),
    ("DELETE", |s, r| (!s.is_rest()).then(|| method(r, Method::DELETE))),
    ("OPTIONS", |_, r| Some(method(r, Method::OPTIONS))),
    ("HEAD", |s, r| (!s.is_rest()).then(|| method(r, Method::HEAD))),
    ("GET", |s, r| (!s.is_rest()).then(|| method(r, Method::GET))),
    ("GET over HTTP/2", |s, r| {
        let mut sent = method(r, Method::GET);
        sent.parts.version = Version::HTTP_2;
        (!s.is_rest()).then_some(sent)
    }),
    ("method override", |_, r| Some(set(r, "x-http-method-override", "DELETE"))),
    ("original URL", |_, r| Some(set(r, "x-original-url", "/other"))),
    ("Action in the query", |s, r| query(r, &format!("Action={}", s.decoy)).filter(|_| !s.takes_any_query())),
    ("Operation in the query", |s, r| {
        let literal = s.operation.query_literals.iter().any(|one| one.starts_with("Operation"));
        query(r, &format!("Operation={}", s.decoy)).filter(|_| !s.takes_any_query() && !literal)
    }),
    ("encoded Action in the query", |s, r| query(r, &format!("%41ction={}", s.decoy)).filter(|_| !s.takes_any_query())),
    ("target in the query", |s, r| query(r, "X-Amz-Target=A.B").filter(|_| !s.takes_any_query())),
    ("unknown name in the query", |s, r| query(r, "frobnicate=1").filter(|_| !s.takes_any_query())),
    ("raw semicolon in the query", |s, r| query(r, &format!("a=1;Action={}", s.decoy))),
    ("second target", |s, r| {
        let prefix = s.service.target_prefix.unwrap_or("Other");
        Some(add(r, "x-amz-target", &format!("{prefix}.{}", s.decoy)))
    }),
    ("target with an underscore", |s, r| Some(set(r, "x_amz_target", s.decoy))),
    ("second protocol", |_, r| Some(add(r, "smithy-protocol", "rpc-v2-cbor"))),
    ("unknown protocol", |_, r| Some(set(r, "smithy-protocol", "rpc-v2-json"))),
    ("second content type", |_, r| {
        let first = r.parts.headers.get("content-type").map_or("application/json", |kind| kind.to_str().unwrap());
        Some(add(&set(r, "content-type", first), "content-type", "application/x-www-form-urlencoded"))
    }),
    ("form type", |s, r| (!s.is_form()).then(|| typed(s, r, "application/x-www-form-urlencoded")).flatten()),
    ("multipart type", |s, r| typed(s, r, "multipart/form-data; boundary=x")),
    ("plain text", |s, r| typed(s, r, "text/plain")),
    ("CBOR's type", |s, r| (s.protocol != Protocol::RpcV2Cbor).then(|| typed(s, r, "application/cbor")).flatten()),
    ("UTF-16", |s, r| {
        let kind = r.parts.headers.get("content-type")?.to_str().ok()?.split(';').next()?.to_owned();
        typed(s, r, &format!("{kind}; charset=utf-16"))
    }),
    ("UTF-7", |s, r| {
        let kind = r.parts.headers.get("content-type")?.to_str().ok()?.split(';').next()?.to_owned();
        typed(s, r, &format!("{kind}; charset=utf-7"))
    }),
    ("aws-chunked", |s, r| {
        (s.read && !r.body.is_empty()).then(|| set(r, "x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"))
    }),
    ("called aws-chunked", |s, r| (s.read && !r.body.is_empty()).then(|| set(r, "content-encoding", "aws-chunked"))),
    ("called gzip", |s, r| (s.read && !r.body.is_empty()).then(|| set(r, "content-encoding", "gzip"))),
    ("a body where there is none", |s, r| {
        let none = s.is_rest() && r.body.is_empty() && !super::decode::has_body(s.service, s.operation);
        none.then(|| body(r, format!("Action={}", s.decoy).into_bytes()))
    }),
    ("second slash", |s, r| {
        (s.service.name != "s3").then(|| target(r, &format!("/{}", r.parts.uri.path_and_query()?))).flatten()
    }),
    ("dot segment", |s, r| {
        (s.service.name != "s3").then(|| target(r, &format!("/.{}", r.parts.uri.path_and_query()?))).flatten()
    }),
    ("parent segment", |s, r| {
        (s.service.name != "s3").then(|| target(r, &format!("/x/..{}", r.parts.uri.path_and_query()?))).flatten()
    }),
    ("path without a slash", |_, r| target(r, "*")),
    ("another field of AWS's", |_, r| Some(set(r, "x-amz-frobnicate", "1"))),
    ("form: second Action", |s, r| form(s, r, &format!("Action={}", s.decoy))),
    ("form: action", |s, r| form(s, r, &format!("action={}", s.decoy))),
    ("form: Action[]", |s, r| form(s, r, &format!("Action[]={}", s.decoy))),
    ("form: Action.1", |s, r| form(s, r, &format!("Action.1={}", s.decoy))),
    ("form: twice encoded", |s, r| form(s, r, &format!("%2541ction={}", s.decoy))),
    ("form: semicolon", |s, r| form(s, r, &format!("a=1;Action={}", s.decoy))),
    ("form: SigV2", |s, r| {
        form(s, r, "AWSAccessKeyId=AKIA&Signature=x&SignatureVersion=2").filter(|_| s.service.name != "sdb")
    }),
    ("form: unknown version", |s, r| {
        let text = String::from_utf8(r.body.clone()).ok().filter(|_| s.is_form())?;
        let version = s.service.api_version?;
        Some(body(r, text.replace(&format!("Version={version}"), "Version=1999-01-01").into_bytes()))
    }),
    ("form: unknown member", |s, r| form(s, r, "Frobnicate.1=x")),
    ("form: list with another index", |s, r| {
        // `InstanceId.1=i` once more as `InstanceId.x=i`.
        let text = std::str::from_utf8(&r.body).ok()?;
        let (name, value) = text.split('&').filter_map(|pair| pair.split_once('=')).find(|(n, _)| n.ends_with(".1"))?;
        form(s, r, &format!("{}.x={value}", name.strip_suffix(".1")?))
    }),
    ("JSON: unknown member", |s, r| member(s, r, "\"Frobnicate\":{\"a\":1}")),
    ("JSON: member in another case", |s, r| {
        let value: serde_json::Value = serde_json::from_slice(&r.body).ok()?;
        let name = value.as_object()?.keys().find(|name| name.bytes().any(|b| b.is_ascii_alphabetic()))?;
        let other =
            if name.to_ascii_uppercase() == *name { name.to_ascii_lowercase() } else { name.to_ascii_uppercase() };
        member(s, r, &format!("\"{other}\":{}", value[name]))
    }),
    ("JSON: member twice", |s, r| {
        let value: serde_json::Value = serde_json::from_slice(&r.body).ok()?;
        let name = value.as_object()?.keys().next()?;
        member(s, r, &format!("\"{name}\":null"))
    }),
];

pub(crate) fn decode(sent: &Sent) -> Option<Result<Call, DecodeError>> {
    let catalog = Catalog::global();
    let host = catalog.host(sent.parts.headers["host"].to_str().unwrap())?;
    let body = (catalog.body_need(&host, &sent.parts) == BodyNeed::Whole).then_some(&sent.body[..]);
    Some(catalog.decode(&host, &sent.parts, body, &RequestAuth::of(&sent.parts), Some("123456789012")))
}

pub(crate) fn subject(wire: &Wire, call: &Call) -> Option<Subject> {
    let catalog = Catalog::global();
    let service = catalog.service(usize::from(catalog.position(&call.service)?));
    let operation = service.operation(&call.operation)?;
    let mut decoys = service.operations.iter().map(|one| one.name).filter(|name| *name != operation.name);
    let read = super::decode::has_body(service, operation) && !operation.streams() && !operation.text_body();
    // Parts of an upload are passed on as they come.
    let read = read && operation.name != "CompleteMultipartUpload";
    let searches = operation.method == "GET" && wire.parts.method == Method::POST;
    // A search by POST has its query in the body.
    let read = read || !matches!(call.protocol, Protocol::RestJson | Protocol::RestXml) || searches;
    let decoy = decoys.next().unwrap_or("Other");
    Some(Subject { service, operation, protocol: call.protocol, decoy, read })
}

#[test]
fn no_neighbour_of_an_honest_request_is_taken_for_a_whole_call() {
    let mut passed: Vec<String> = Vec::new();
    let mut table: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for_each_wire(|wire| {
        let honest = Sent { parts: wire.parts.clone(), body: wire.body.clone() };
        let Some(Ok(call)) = decode(&honest) else { return };
        let Some(subject) = subject(&wire, &call) else { return };
        for (name, change) in CHANGES {
            let Some(changed) = change(&subject, &honest) else { continue };
            let row = table.entry(name).or_default();
            match decode(&changed) {
                None | Some(Err(_)) => row[0] += 1,
                Some(Ok(call)) if !call.unread.is_empty() => row[1] += 1,
                Some(Ok(call)) => {
                    row[2] += 1;
                    let is = format!("{}:{}", call.service, call.operation);
                    passed.push(format!(
                        "{name}: {} as {is}: {} {} {:?}",
                        wire.name(),
                        changed.parts.method,
                        changed.parts.uri,
                        String::from_utf8_lossy(&changed.body[..changed.body.len().min(300)])
                    ));
                }
            }
        }
    });
    println!("| change | refused | not whole | taken as whole |\n|---|---|---|---|");
    for (name, [refused, unread, whole]) in &table {
        println!("| {name} | {refused} | {unread} | {whole} |");
    }
    assert_eq!(table.len(), CHANGES.len(), "every change has been tried");
    let shown: Vec<_> = passed.iter().take(60).map(String::as_str).collect();
    assert!(passed.is_empty(), "{} are taken as whole:\n{}", passed.len(), shown.join("\n"));
}
