//! Requests that the real botocore client built and signed (`tests/data/wire.py`), decoded, verified and signed again.

use http::{Request, request::Parts};
use serde::Deserialize;
use serde_json::Value;
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

use crate::{Authority, BodyNeed, Catalog, Placeholder, Signer, VerifyError};

static WIRE: &[u8] = include_bytes!("../tests/data/wire.ndjson.zst");

#[derive(Deserialize)]
struct Line {
    s: String,
    o: String,
    m: String,
    u: String,
    h: Vec<(String, String)>,
    b: String,
    p: Value,
}

pub(crate) struct Wire {
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
        for (name, value) in &line.h {
            request = request.header(name, value.as_bytes());
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Self { service: line.s, operation: line.o, parts, body: base64(&line.b), input: line.p }
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

fn base64(text: &str) -> Vec<u8> {
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
    let text = match std::env::var_os("CHAPERONE_WIRE") {
        Some(path) => std::fs::read(path).unwrap(),
        None => zstd::decode_all(WIRE).unwrap(),
    };
    let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Wire::new(serde_json::from_slice(line).unwrap())).collect()
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

#[test]
fn what_botocore_builds_is_taken_for_what_it_is() {
    let (mut wrong, mut ambiguous, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
    let all = wire();
    for wire in &all {
        let authority = Authority::of(&wire.parts);
        let decoded = Catalog::global().host(wire.host()).map(|host| {
            let need = Catalog::global().body_need(&host, &wire.parts);
            let body = (need == BodyNeed::Whole).then_some(&wire.body[..]);
            Catalog::global().decode(&host, &wire.parts, body, &authority, Some("123456789012"))
        });
        match decoded {
            Some(Ok(call)) => {
                let is = format!("{}:{}", call.service, call.operation);
                if call.candidates.contains(&wire.name()) {
                    ambiguous.push(wire.name());
                } else if is != wire.name() {
                    wrong.push(format!("{} is taken for {is}", wire.name()));
                } else if !agrees(&wire.input, Some(&call.parameters)) {
                    inputs.push(format!("{}: {} read as {}", wire.name(), wire.input, call.parameters));
                }
            }
            other => wrong.push(format!("{} {} {}: {other:?}", wire.name(), wire.parts.method, wire.host())),
        }
    }
    let show = |list: &[String]| {
        list.iter().take(400).map(|x| x.chars().take(1200).collect::<String>()).collect::<Vec<_>>().join("\n")
    };
    println!("{} requests; ambiguous: {}", all.len(), ambiguous.len());
    println!("ambiguous:\n{}", show(&ambiguous));
    println!("inputs that differ: {}\n{}", inputs.len(), show(&inputs));
    println!("wrong: {}\n{}", wrong.len(), show(&wrong));
    assert!(wrong.is_empty() && inputs.is_empty());
}

#[test]
fn botocores_signatures_are_right_and_any_change_makes_them_wrong() {
    use aws_lc_rs::digest;
    let signer = Signer::new();
    let placeholder = placeholder();
    let mut checked = 0;
    for wire in wire() {
        let authority = Authority::of(&wire.parts);
        if !matches!(authority, Authority::Header(_)) {
            continue;
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &wire.body).as_ref());
        let verified = |parts: &Parts, body: &[u8; 32]| {
            signer.verify(parts, &Authority::of(parts), Some(body), &placeholder, wire.now())
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
