use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, header::ETAG};

use super::*;
use crate::{body::transform::Transforms, masking::OnError};

const SECRET: &str = r#"{"Name":"n","SecretString":"hunter2"}"#;
const GITHUB: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";

fn call(service: &str, operation: &str, protocol: &str) -> Call {
    serde_json::from_value(serde_json::json!({
        "partition": "aws",
        "region": null,
        "account": null,
        "service": service,
        "signing_name": service,
        "operation": operation,
        "protocol": protocol,
        "actions": [],
        "resources": [],
        "payload": "none",
    }))
    .unwrap()
}

fn policy(targets: &[MaskTarget]) -> Masks {
    Masks { policies: vec![("p".to_owned(), Arc::new(targets.to_vec()))], ..Masks::default() }
}

struct Got {
    body: String,
    head: response::Parts,
    masked: Vec<Masked>,
}

fn answer(
    call: &Call,
    masks: Masks,
    settings: MaskingSettings,
    fields: &[(&'static str, &str)],
    status: u16,
    body: &[u8],
) -> Result<Got, String> {
    run(&Placeholders::new(), call, masks, settings, fields, status, body)
}

/// An answer to a session that had others before.
fn answer_of(session: &Placeholders, call: &Call, fields: &[(&'static str, &str)], body: &[u8]) -> Result<Got, String> {
    run(session, call, Masks::default(), MaskingSettings::default(), fields, 200, body)
}

fn run(
    session: &Placeholders,
    call: &Call,
    masks: Masks,
    settings: MaskingSettings,
    fields: &[(&'static str, &str)],
    status: u16,
    body: &[u8],
) -> Result<Got, String> {
    let log = MaskedLog::default();
    let mut transforms = Transforms::default();
    let settings = Arc::new(settings);
    let mut request = http::Request::post("/").body(()).unwrap().into_parts().0;
    for (name, value) in fields.iter().filter_map(|(name, value)| Some((name.strip_prefix("?")?, value))) {
        if name == "query" {
            request.uri = format!("/{value}").parse().unwrap();
            continue;
        }
        request.headers.insert(name, value.parse().unwrap());
        request.method = if is_head_object(call) { Method::HEAD } else { Method::GET };
    }
    let fields = fields.iter().filter(|(name, _)| !name.starts_with('?'));
    transforms.add(MaskedAnswer::of(call, masks, &settings, session, &mut request, &log, false));
    let mut head = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
    for (name, value) in fields {
        head.headers.insert(*name, value.parse().unwrap());
    }
    head.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(body.len()));
    transforms.fields(&mut head);
    let mode = transforms.head(&mut head);
    let mut out = Vec::new();
    for part in body.chunks(7) {
        let part = Bytes::copy_from_slice(part);
        if mode == Mode::Untouched {
            out.push(part);
        } else {
            transforms.push(part, &mut out).map_err(|error| error.to_string())?;
        }
    }
    if mode != Mode::Untouched {
        transforms.finish(&mut out).map_err(|error| error.to_string())?;
    }
    if mode == Mode::Whole {
        transforms.settle(&mut head);
    }
    let masked = log.lock().clone();
    Ok(Got { body: String::from_utf8_lossy(&out.concat()).into_owned(), head, masked })
}

fn default(call: &Call, fields: &[(&'static str, &str)], body: &[u8]) -> Result<Got, String> {
    answer(call, Masks::default(), MaskingSettings::default(), fields, 200, body)
}

fn get_secret() -> Call {
    call("secretsmanager", "GetSecretValue", "json")
}

const JSON: (&str, &str) = ("content-type", "application/x-amz-json-1.1");

#[test]
fn secrets_are_masked_and_what_the_head_says_of_the_body_goes() {
    let got = default(&get_secret(), &[JSON, ("x-amz-crc32", "1"), ("etag", "x")], SECRET.as_bytes()).unwrap();
    assert!(got.body.starts_with(r#"{"Name":"n","SecretString":"chaperone-masked-"#), "{}", got.body);
    assert!(!got.body.contains("hunter2"));
    assert_eq!(got.masked, [Masked { rule: "sensitive".into(), path: "SecretString".into(), count: 1 }]);
    for name in ["x-amz-crc32", "etag", "content-length"] {
        assert!(!got.head.headers.contains_key(name), "{name}");
    }
    // Nothing to mask: nothing is changed.
    let clean = r#"{"Name":"n"}"#;
    let got = default(&get_secret(), &[JSON, ("x-amz-crc32", "1"), ("x-amz-checksum-crc32", "y")], clean.as_bytes());
    let got = got.unwrap();
    assert_eq!((got.body.as_str(), got.masked.len()), (clean, 0));
    for (name, value) in [("x-amz-crc32", "1"), ("x-amz-checksum-crc32", "y"), ("content-length", "12")] {
        assert_eq!(got.head.headers[name], value);
    }
    // A server that doesn't say that it is JSON.
    let got = default(&get_secret(), &[("content-type", "text/html")], SECRET.as_bytes()).unwrap();
    assert!(!got.body.contains("hunter2"));
    // Detectors in what no model marks.
    let body = format!(r#"{{"Description":"use {GITHUB}"}}"#);
    let got = default(&call("ecs", "DescribeServices", "json"), &[JSON], body.as_bytes()).unwrap();
    assert_eq!(got.masked, [Masked { rule: "github".into(), path: "Description".into(), count: 1 }]);
}

#[test]
fn data_is_looked_through_where_a_policy_says_so() {
    let object = call("s3", "GetObject", "rest-xml");
    let body = format!("key = {GITHUB}\n");
    assert_eq!(default(&object, &[], body.as_bytes()).unwrap().body, body);
    let masks = || policy(&[MaskTarget::Credentials]);
    let got = answer(&object, masks(), MaskingSettings::default(), &[("etag", "x")], 200, body.as_bytes()).unwrap();
    assert!(got.body.starts_with("key = chaperone-masked-") && got.body.len() == body.len(), "{}", got.body);
    assert_eq!(got.head.headers[ETAG], "x-masked");
    let refused = answer(&object, masks(), MaskingSettings::default(), &[], 206, body.as_bytes());
    assert!(refused.err().unwrap().contains("whole object"));
    let path = policy(&[MaskTarget::Path("Items[].pin.S".into())]);
    let items = br#"{"Items":[{"pin":{"S":"1234"},"id":{"S":"1"}}]}"#;
    let query = call("dynamodb", "Query", "json");
    let got = answer(&query, path, MaskingSettings::default(), &[JSON], 200, items).unwrap();
    assert!(got.body.ends_with(r#""},"id":{"S":"1"}}]}"#) && !got.body.contains("1234"), "{}", got.body);
    assert_eq!(got.masked[0].rule, "p");
}

/// Heads, parts and the whole say the same of an object.
#[test]
fn an_object_is_the_same_in_its_parts_and_its_head() {
    let object = call("s3", "GetObject", "rest-xml");
    let text = format!("{}key = {GITHUB}\n{}", "a".repeat(50), "b".repeat(50));
    let of = |call: &Call, targets: &[MaskTarget], fields: &[(&'static str, &str)], status, body: &str| {
        run(&Placeholders::new(), call, policy(targets), MaskingSettings::default(), fields, status, body.as_bytes())
    };
    let credentials = [MaskTarget::Credentials];
    let head = call("s3", "HeadObject", "rest-xml");
    let length = text.len().to_string();
    let said = of(
        &head,
        &credentials,
        &[("?x", ""), ("etag", "\"x\""), ("content-length", &length), ("x-amz-checksum-crc32", "A")],
        200,
        "",
    )
    .unwrap();
    assert!(said.head.headers[ETAG] == "\"x-masked\"" && said.head.headers[CONTENT_LENGTH] == *length);
    assert_eq!(said.head.headers.len(), 2);
    let whole = of(&object, &credentials, &[("?x", ""), ("etag", "\"x\"")], 200, &text).unwrap();
    assert!(whole.head.headers[ETAG] == "\"x-masked\"" && whole.body.len() == text.len());
    // A part that begins and ends within the secret has nothing of it.
    let (from, to) = (60, 70);
    let range = format!("bytes={from}-{to}");
    let answered = format!("bytes 0-{}/{}", text.len() - 1, text.len());
    let part = of(&object, &credentials, &[("?range", &range), ("content-range", &answered)], 206, &text).unwrap();
    assert_eq!(part.head.headers["content-range"], format!("bytes {from}-{to}/{}", text.len()).as_str());
    assert!(part.body.len() == 11 && !text.contains(&part.body) && part.body.contains('-'), "{}", part.body);
    // What can't be read in parts is refused; and where its length isn't known, nothing is said of it.
    let json = ("content-type", "application/json");
    let refused =
        of(&object, &credentials, &[("?range", "bytes=0-1"), json, ("content-range", "bytes 0-1/9")], 206, "{}");
    assert!(refused.err().unwrap().contains("whole object"));
    let path = [MaskTarget::Path("a".into())];
    let refused = of(&object, &path, &[("?range", "bytes=0-1"), ("content-range", "bytes 0-1/9")], 206, "ab");
    assert!(refused.err().unwrap().contains("whole object"));
    let said = of(&head, &path, &[("?x", ""), json, ("content-length", "9")], 200, "").unwrap();
    assert!(!said.head.headers.contains_key(CONTENT_LENGTH));
    // Nothing is masked by this one in an object: it is AWS's.
    let said =
        of(&head, &[MaskTarget::Sensitive], &[("?x", ""), ("etag", "x"), ("content-length", "9")], 200, "").unwrap();
    assert!(said.head.headers[ETAG] == "x" && said.head.headers[CONTENT_LENGTH] == "9");
}

#[test]
fn what_is_lifted_or_replaced_elsewhere_stays() {
    let lifted = Masks { lifted: true, ..Masks::default() };
    let got = answer(&get_secret(), lifted, MaskingSettings::default(), &[JSON], 200, SECRET.as_bytes()).unwrap();
    assert_eq!(got.body, SECRET);
    let off = MaskingSettings::new(false, OnError::Refuse, None, Vec::new()).unwrap();
    assert_eq!(answer(&get_secret(), Masks::default(), off, &[JSON], 200, SECRET.as_bytes()).unwrap().body, SECRET);
    let sts = "<A><B><Credentials><SecretAccessKey>x</SecretAccessKey></Credentials></B></A>";
    assert_eq!(default(&call("sts", "AssumeRole", "query"), &[], sts.as_bytes()).unwrap().body, sts);
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_answers_are_read_within_bounds() {
    let packed = gzip(SECRET.as_bytes());
    let zstd = zstd::encode_all(SECRET.as_bytes(), 3).unwrap();
    for (encoding, body) in [("gzip", &packed), ("zstd", &zstd)] {
        let got = default(&get_secret(), &[JSON, ("content-encoding", encoding)], body).unwrap();
        assert!(got.body.contains("chaperone-masked-") && !got.body.contains("hunter2"));
        assert!(!got.head.headers.contains_key(CONTENT_ENCODING));
    }
    let bomb = gzip(&vec![b' '; 32 << 20]);
    for (encoding, body) in [
        ("gzip", &packed[..packed.len() - 1]),
        ("gzip", &packed[..4]),
        ("gzip", SECRET.as_bytes()),
        ("zstd", SECRET.as_bytes()),
        ("br", SECRET.as_bytes()),
        ("gzip, gzip", &packed[..]),
        ("gzip", &bomb[..]),
    ] {
        assert!(default(&get_secret(), &[JSON, ("content-encoding", encoding)], body).is_err(), "{encoding}");
    }
}

#[test]
fn what_cant_be_read_is_refused_or_masked_as_a_whole() {
    let broken = &SECRET.as_bytes()[..SECRET.len() - 1];
    assert!(default(&get_secret(), &[JSON], broken).err().unwrap().contains("JSON"));
    let settings = MaskingSettings::new(true, OnError::MaskAll, None, Vec::new()).unwrap();
    let got = answer(&get_secret(), Masks::default(), settings, &[JSON], 200, broken).unwrap();
    assert_eq!(got.body, "{}");
}

#[test]
fn placeholders_are_a_sessions_own_and_one_secrets() {
    let of = |session: &Placeholders, call: &Call, path: &str| {
        use chaperone_masking::{Secret, Vault as _};
        session.of(call).placeholder(Secret { kind: Kind::Text, rule: "r", path, value: Some(b"v") })
    };
    let (one, other) = (Placeholders::new(), Placeholders::new());
    let mut secret = get_secret();
    let first = of(&one, &secret, "a");
    assert_eq!(first, of(&one.clone(), &secret, "a"));
    assert_ne!(first, of(&one, &secret, "b"));
    assert_ne!(first, of(&other, &secret, "a"));
    // Whoever stores a guess elsewhere and reads it can't tell that it is the same value.
    secret.resources = vec!["arn:aws:secretsmanager:eu-west-1:123456789012:secret:own".into()];
    assert_ne!(first, of(&one, &secret, "a"));
}

/// What a session was not shown must not come back to it in another answer.
#[test]
fn what_was_masked_is_looked_for_in_later_answers() {
    let session = Placeholders::new();
    let secret = r#"{"SecretString":"correct-horse-battery"}"#;
    let got = answer_of(&session, &get_secret(), &[JSON], secret.as_bytes()).unwrap();
    let placeholder = &got.body[r#"{"SecretString":""#.len()..got.body.len() - 2];
    assert!(placeholder.starts_with("chaperone-masked-"), "{placeholder}");
    for (call, fields, body) in [
        (
            call("ssm", "GetParameter", "json"),
            &[JSON][..],
            r#"{"Parameter":{"Type":"String","Value":"correct-horse-battery"}}"#,
        ),
        (call("dynamodb", "GetItem", "json"), &[JSON], r#"{"Item":{"a":{"S":"x correct-horse-battery"}}}"#),
        (call("sts", "AssumeRole", "query"), &[], "<A><B><Arn>r/correct-horse-battery</Arn></B></A>"),
        (
            call("rds", "CreateDBInstance", "query"),
            &[],
            "<E><Error><Message>correct-horse-battery is bad</Message></Error></E>",
        ),
        (
            call("sqs", "ReceiveMessage", "json"),
            &[JSON],
            r#"{"Messages":[{"Body":"{\"p\":\"correct-horse-battery\"}"}]}"#,
        ),
    ] {
        let got = answer_of(&session, &call, fields, body.as_bytes()).unwrap();
        assert_eq!(got.body, body.replace("correct-horse-battery", placeholder));
        assert_eq!(got.masked[0].rule, "echo");
        // Another session was never kept from it.
        let other = answer_of(&Placeholders::new(), &call, fields, body.as_bytes()).unwrap();
        assert_eq!(other.body, body);
    }
    // What is stored streams as it is long, and the head stays.
    let object = call("s3", "GetObject", "rest-xml");
    let got = answer_of(&session, &object, &[("etag", "e")], b"p=correct-horse-battery;").unwrap();
    assert_eq!(got.body, format!("p={};", &placeholder[..21]));
    assert!(got.head.headers[ETAG] == "e" && got.head.headers[CONTENT_LENGTH] == "24");
    let packed = gzip(b"p=correct-horse-battery;");
    let got = answer_of(&session, &object, &[("content-encoding", "gzip")], &packed).unwrap();
    assert_eq!(got.head.headers[CONTENT_ENCODING], "gzip");
}

/// What answers say of themselves is looked through as their bodies are, and what is recorded of it is masked.
#[test]
fn heads_are_masked_by_name_and_by_what_they_hold() {
    let object = call("s3", "GetObject", "rest-xml");
    let token = format!("t {GITHUB}");
    let fields = [("x-amz-meta-note", &*token), ("location", "https://u:hunter22@h/"), ("x-amz-meta-pin", "1234")];
    let got = default(&object, &fields, b"x").unwrap();
    assert_eq!(got.head.headers["x-amz-meta-note"], token, "nobody has asked for it");
    let masks = || policy(&[MaskTarget::Credentials, MaskTarget::Path("X-Amz-Meta-Pin".into())]);
    for (call, status, body) in
        [(&object, 200, "{}"), (&call("s3", "HeadObject", "rest-xml"), 200, ""), (&object, 404, "<Error/>")]
    {
        let mut fields = fields.to_vec();
        fields
            .extend([("?x", ""), ("content-type", if status == 404 { "application/xml" } else { "application/json" })]);
        let got = answer(call, masks(), MaskingSettings::default(), &fields, status, body.as_bytes()).unwrap();
        let of = |name: &str| got.head.headers[name].to_str().unwrap();
        assert!(of("x-amz-meta-note").starts_with("t chaperone-masked-"), "{}", of("x-amz-meta-note"));
        assert!(of("location").starts_with("https://u:chaperone-masked-") && of("location").ends_with("@h/"));
        assert!(of("x-amz-meta-pin").starts_with("chaperone-masked-"));
        let paths: Vec<&str> = got.masked.iter().map(|it| &*it.path).collect();
        assert_eq!(paths.len(), 3, "{paths:?}");
        assert!(paths.contains(&"location") && got.masked.iter().any(|it| it.rule == "github"));
    }
    // A function's log is base64 in the head.
    let invoke = call("lambda", "Invoke", "rest-json");
    let log = STANDARD.encode(format!("START {GITHUB}\n"));
    let masks = policy(&[MaskTarget::Credentials]);
    let got = answer(&invoke, masks, MaskingSettings::default(), &[("x-amz-log-result", &log)], 200, b"1").unwrap();
    let log = STANDARD.decode(&got.head.headers["x-amz-log-result"]).unwrap();
    assert!(log.starts_with(b"START chaperone-masked-") && log.ends_with(b"\n"));
    // Structured answers are looked through by default, and so are their errors, whatever those say that they are.
    let ecs = call("ecs", "DescribeServices", "json");
    for (status, kind, body) in [
        (200, JSON, format!("{{\"a\":\"{GITHUB}\"}}")),
        (400, JSON, format!("{{\"message\":\"{GITHUB}\"}}")),
        (400, ("content-type", "text/plain"), format!("no {GITHUB}.")),
        (503, ("x-none", ""), format!("<html>{GITHUB}")),
        (200, ("content-type", "application/octet-stream"), format!("{{\"{GITHUB}\":1}}")),
    ] {
        let fields = [kind, ("x-amzn-errormessage", &*token)];
        let got = answer(&ecs, Masks::default(), MaskingSettings::default(), &fields, status, body.as_bytes()).unwrap();
        assert!(!got.body.contains(GITHUB) && got.body.contains("chaperone-masked-"), "{status}: {}", got.body);
        assert!(!got.head.headers["x-amzn-errormessage"].to_str().unwrap().contains(GITHUB));
    }
    // What the head alone had leaves the body, and what is said of it, as they are.
    let fields = [JSON, ("x-amz-crc32", "1"), ("x-note", &*token)];
    let got = default(&ecs, &fields, b"{}").unwrap();
    assert!(got.head.headers["x-amz-crc32"] == "1" && got.masked.len() == 1);
}

#[test]
fn trailers_say_nothing_of_a_body_that_was_masked() {
    let (placeholders, log) = (Placeholders::new(), MaskedLog::default());
    let mut request = http::Request::get("/").body(()).unwrap().into_parts().0;
    let ecs = call("ecs", "DescribeServices", "json");
    let settings = Arc::new(MaskingSettings::default());
    let mut transforms = Transforms::default();
    transforms.add(MaskedAnswer::of(&ecs, Masks::default(), &settings, &placeholders, &mut request, &log, false));
    let mut head = http::Response::new(()).into_parts().0;
    assert_eq!(transforms.head(&mut head), Mode::Streaming);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-amz-checksum-sha256", HeaderValue::from_static("x"));
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("grpc-message", GITHUB.parse().unwrap());
    transforms.trailers(&mut trailers);
    assert!(trailers.len() == 2 && trailers["grpc-status"] == "0");
    assert!(trailers["grpc-message"].to_str().unwrap().starts_with("chaperone-masked-"));
}

/// What an agent can have said of an object doesn't change how it is read.
#[test]
fn an_object_is_read_as_what_it_is() {
    let object = call("s3", "GetObject", "rest-xml");
    let masks = |targets: &[MaskTarget], fields: &[(&'static str, &str)], body: &[u8]| {
        answer(&object, policy(targets), MaskingSettings::default(), fields, 200, body)
    };
    let credentials = [MaskTarget::Credentials];
    for query in [
        "?response-content-encoding=identity",
        "?x=1&response%2Dcontent-encoding=",
        "?response-content-type=text/plain&x",
    ] {
        let refused = masks(&credentials, &[("?query", query)], GITHUB.as_bytes());
        assert!(refused.err().unwrap().contains("without response-content-type"), "{query}");
    }
    assert!(masks(&credentials, &[("?query", "?response-content-disposition=x")], b"x").is_ok());
    // A path can't be followed in what isn't structured, whatever it says that it is.
    let path = [MaskTarget::Path("pin".into())];
    let body = br#"{"pin":"1234"}"#;
    for kind in ["text/plain", "binary/octet-stream", "application/json", "image/png"] {
        let got = masks(&path, &[("content-type", kind)], body).unwrap();
        assert!(!got.body.contains("1234"), "{kind}: {}", got.body);
        let refused = masks(&path, &[("content-type", kind)], b"pin=1234");
        assert!(refused.err().unwrap().contains("JSON"), "{kind}");
    }
}

#[test]
fn every_coding_of_a_body_is_known_or_it_is_refused() {
    let packed = gzip(SECRET.as_bytes());
    let twice = gzip(&packed);
    let of = |codings: &[&str], body: &[u8]| {
        let (placeholders, log) = (Placeholders::new(), MaskedLog::default());
        let mut request = http::Request::post("/").body(()).unwrap().into_parts().0;
        let settings = Arc::new(MaskingSettings::default());
        let mut transforms = Transforms::default();
        let secret = get_secret();
        transforms.add(MaskedAnswer::of(
            &secret,
            Masks::default(),
            &settings,
            &placeholders,
            &mut request,
            &log,
            false,
        ));
        let mut head = http::Response::new(()).into_parts().0;
        for coding in codings {
            head.headers.append(CONTENT_ENCODING, coding.parse().unwrap());
        }
        transforms.head(&mut head);
        let mut out = Vec::new();
        transforms.push(Bytes::copy_from_slice(body), &mut out).map_err(|error| error.to_string())?;
        transforms.finish(&mut out).map_err(|error| error.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&out.concat()).into_owned())
    };
    for (codings, body) in [
        (&["gzip"][..], &packed[..]),
        (&["GZip"], &packed),
        (&["identity", "gzip"], &packed),
        (&["identity, x-gzip"], &packed),
        (&["identity"], SECRET.as_bytes()),
        (&[], SECRET.as_bytes()),
    ] {
        let got = of(codings, body).unwrap_or_else(|why| panic!("{codings:?}: {why}"));
        assert!(got.contains("chaperone-masked-") && !got.contains("hunter2"), "{codings:?}: {got}");
    }
    for (codings, body) in [
        (&["gzip, gzip"][..], &twice[..]),
        (&["gzip", "gzip"], &twice),
        (&["gzip"], &twice),
        (&["identity", "br"], SECRET.as_bytes()),
        (&["deflate"], &packed),
        (&["compress"], &packed),
        (&["gzip;q=1"], &packed),
        (&["identity"], &packed),
        (&[], &packed),
    ] {
        assert!(of(codings, body).is_err(), "{codings:?}");
    }
}

/// Ten million bytes in one text, bytes that aren't UTF-8, and a body that decodes to much more than it has.
#[test]
fn large_and_broken_answers_are_masked_or_refused() {
    let long = format!("{{\"SecretString\":\"{}\",\"Name\":\"n\"}}", "a".repeat(10 << 20));
    let got = default(&get_secret(), &[JSON], long.as_bytes()).unwrap();
    assert!(got.body.len() < 100 && got.body.ends_with(",\"Name\":\"n\"}"), "{} bytes", got.body.len());
    let bomb = zstd::encode_all(&vec![b' '; 64 << 20][..], 19).unwrap();
    let refused = default(&get_secret(), &[JSON, ("content-encoding", "zstd")], &bomb);
    assert!(refused.err().unwrap().contains("decode to"));
    // Smithy's "empty_message", which no JSON is: of Transcribe's streams, which botocore's models leave out.
    let empty = b"\0\0\0\x10\0\0\0\0\x05\xc2\x48\xeb\x7d\x98\xc8\xff";
    let stream = call("transcribe-streaming", "StartStreamTranscription", "rest-json");
    assert!(default(&stream, &[("content-type", "application/vnd.amazon.eventstream")], empty).is_ok());
    // No event stream is what is asked for here.
    let got = default(&get_secret(), &[("content-type", "application/vnd.amazon.eventstream")], SECRET.as_bytes());
    assert!(!got.unwrap().body.contains("hunter2"));
    let utf16: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let ec2 = call("ec2", "DescribeInstanceAttribute", "ec2");
    for (call, kind, body) in [
        (&get_secret(), "application/x-amz-json-1.1", &utf16[..]),
        (&get_secret(), "application/x-amz-json-1.1", b"{\"SecretString\":\"\xff\"}"),
        (&get_secret(), "application/xml", SECRET.as_bytes()),
        (&get_secret(), "application/cbor", SECRET.as_bytes()),
        (&ec2, "text/xml", b"<!DOCTYPE a [<!ENTITY s \"x\">]><a>&s;</a>"),
        (&ec2, "text/xml", b"<a>&s;</a>"),
        (&ec2, "application/json", b"<a/>"),
    ] {
        let refused = default(call, &[("content-type", kind)], body);
        let why = refused.err().unwrap_or_else(|| panic!("{kind}: {}", String::from_utf8_lossy(body)));
        assert!(why.contains("can't be read for masking"), "{why}");
    }
}
