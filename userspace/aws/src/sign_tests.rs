//! Signatures against AWS's published vectors and against `aws-sigv4`; and everything that a hostile agent may leave out.

use aws_credential_types::Credentials;
use aws_lc_rs::digest;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode,
    },
    sign::v4,
};
use http::{HeaderValue, Request, request::Parts};
use serde::Deserialize;
use time::{Duration, OffsetDateTime, macros::datetime};

use crate::{
    AwsCredentials, PathRules, Placeholder, RequestAuth, Scope, SignError, Signer, VendedCredentials, VerifyError,
    canonical::{HeaderForm, write_head},
    sign::signature_of,
    wire_tests::{placeholder, wire},
};

/// AWS's SigV4 test suite, as it comes with the crate aws-sigv4 1.6.4 (Apache-2.0), in one file.
static SUITE: &str = include_str!("../tests/data/sigv4-suite.json");

#[derive(Deserialize)]
struct Vector {
    name: String,
    context: Context,
    request: String,
    canonical: String,
    signature: String,
}

#[derive(Deserialize)]
struct Context {
    credentials: Keys,
    normalize: bool,
    region: String,
    service: String,
    #[serde(default)]
    omit_session_token: bool,
}

#[derive(Deserialize)]
struct Keys {
    secret_access_key: String,
    #[serde(default)]
    token: Option<String>,
}

#[test]
fn awss_own_vectors() {
    let vectors: Vec<Vector> = serde_json::from_str(SUITE).unwrap();
    let mut checked = 0;
    for vector in vectors {
        let mut lines = vector.request.lines();
        let mut first = lines.next().unwrap().split(' ');
        let (method, target) = (first.next().unwrap(), first.next().unwrap());
        // Raw UTF-8, raw spaces and folded header fields don't get this far: the HTTP parser refuses them.
        if vector.name.contains("utf8") || vector.name == "get-space-unnormalized" || vector.name.contains("multiline")
        {
            continue;
        }
        let mut request = Request::builder().method(method).uri(target);
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            request = request.header(name, value);
        }
        let payload = vector.canonical.lines().last().unwrap();
        request = request.header("x-amz-date", "20150830T123600Z");
        if let Some(token) = vector.context.credentials.token.as_ref().filter(|_| !vector.context.omit_session_token) {
            request = request.header("x-amz-security-token", token);
        }
        if vector.canonical.contains("x-amz-content-sha256:") {
            request = request.header("x-amz-content-sha256", payload);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let signed = vector.canonical.lines().rev().nth(1).unwrap();
        // The suite encodes once, as S3 does, and normalises, as the others do.
        let rules = if vector.context.normalize && !target.contains('%') { PathRules::Generic } else { PathRules::S3 };
        let mut canonical = Vec::new();
        let form = HeaderForm::default();
        assert!(write_head(&mut canonical, &parts, rules, form, signed.split(';')), "{}", vector.name);
        canonical.extend_from_slice(payload.as_bytes());
        assert_eq!(String::from_utf8_lossy(&canonical), vector.canonical, "{}", vector.name);
        let context = &vector.context;
        let scope = ("20150830", context.region.as_str(), context.service.as_str());
        let signature = signature_of(&context.credentials.secret_access_key, &canonical, "20150830T123600Z", scope);
        assert_eq!(signature, vector.signature, "{}", vector.name);
        checked += 1;
    }
    assert_eq!(checked, 34);
}

fn real() -> AwsCredentials {
    AwsCredentials::new(Credentials::new(
        "AKIAREALREALREALREAL",
        "the real secret",
        Some("real+token/=".into()),
        None,
        "test",
    ))
}

fn sha256(body: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
    hash
}

/// The signature that `aws-sigv4` makes of a request that is signed already, over the same fields.
fn by_aws_sigv4(parts: &Parts, body: &[u8], credentials: &Credentials, scope: &Scope, now: OffsetDateTime) -> String {
    let RequestAuth::Header(header) = RequestAuth::of(parts) else { panic!("not signed") };
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    settings.session_token_mode = aws_sigv4::http_request::SessionTokenMode::Include;
    if PathRules::of_request(&scope.service, parts) == PathRules::S3 {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&scope.region)
        .name(&scope.service)
        .time(now.into())
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let host = parts.headers["host"].to_str().unwrap();
    let uri = format!("https://{host}{}", parts.uri);
    let payload = match parts.headers.get("x-amz-content-sha256").map(|v| v.to_str().unwrap()) {
        Some("UNSIGNED-PAYLOAD") => SignableBody::UnsignedPayload,
        Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => SignableBody::StreamingUnsignedPayloadTrailer,
        Some(hash) => SignableBody::Precomputed(hash.to_owned()),
        None => SignableBody::Bytes(body),
    };
    let skip = ["x-amz-date", "x-amz-security-token"];
    let fields = header.signed_headers.split(';').filter(|name| !skip.contains(name));
    let fields = fields.flat_map(|name| parts.headers.get_all(name).iter().map(move |v| (name, v.to_str().unwrap())));
    let request = SignableRequest::new(parts.method.as_str(), uri, fields, payload).unwrap();
    aws_sigv4::http_request::sign(request, &params).unwrap().signature().to_owned()
}

#[test]
fn our_signatures_are_those_of_aws_sigv4() {
    let signer = Signer::new();
    let credentials = real();
    let now = datetime!(2025-06-01 12:00:01 UTC);
    let mut checked = 0;
    for wire in wire() {
        let RequestAuth::Header(header) = RequestAuth::of(&wire.parts) else { continue };
        let scope = Scope::of(&header);
        let mut parts = wire.parts.clone();
        let hash = sha256(&wire.body);
        signer.sign(&mut parts, Some(&hash), &credentials, &scope, now).unwrap();
        for (name, value) in &parts.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            assert!(!value.contains(placeholder().access_key_id()), "{} {name}", wire.name());
            assert!(!value.contains(placeholder().session_token()), "{} {name}", wire.name());
        }
        let inner = Credentials::new(
            credentials.access_key_id(),
            credentials.secret_access_key(),
            credentials.session_token().map(Into::into),
            None,
            "test",
        );
        let expected = by_aws_sigv4(&parts, &wire.body, &inner, &scope, now);
        let RequestAuth::Header(ours) = RequestAuth::of(&parts) else { panic!("not signed") };
        assert_eq!(hex::encode(ours.signature), expected, "{} {}", wire.name(), wire.parts.uri);
        checked += 1;
    }
    assert!(checked > 500, "only {checked}");
}

const NOW: OffsetDateTime = datetime!(2025-06-01 12:00 UTC);

/// A request that the placeholder signed.
fn signed(uri: &str, fields: &[(&str, &str)], placeholder: &Placeholder) -> Parts {
    let mut request = Request::builder().method("POST").uri(uri).header("host", "dynamodb.us-east-1.amazonaws.com");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).chain(["host"]).collect();
    let mut names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    let blank = "0".repeat(64);
    let dummy = format!(
        "AWS4-HMAC-SHA256 Credential=X/20250601/us-east-1/dynamodb/aws4_request, SignedHeaders={}, Signature={blank}",
        names.join(";")
    );
    let mut parts = request.header("authorization", dummy).body(()).unwrap().into_parts().0;
    let credentials = AwsCredentials::new(Credentials::new(
        placeholder.access_key_id(),
        placeholder.secret_access_key(),
        Some(placeholder.session_token().to_owned()),
        None,
        "test",
    ));
    let scope = Scope { region: "us-east-1".into(), service: "dynamodb".into() };
    Signer::new().sign(&mut parts, Some(&sha256(b"{}")), &credentials, &scope, NOW).unwrap();
    parts
}

fn verify(parts: &Parts, body: &[u8], now: OffsetDateTime) -> Result<(), VerifyError> {
    Signer::new().verify(parts, &RequestAuth::of(parts), Some(&sha256(body)), &placeholder(), now).map(drop)
}

#[test]
fn a_request_by_the_placeholder_is_believed_for_a_quarter_of_an_hour() {
    let parts = signed("/", &[("content-type", "application/x-amz-json-1.0")], &placeholder());
    assert_eq!(verify(&parts, b"{}", NOW), Ok(()));
    assert_eq!(verify(&parts, b"{}", NOW + Duration::minutes(14)), Ok(()));
    let told = |minutes| verify(&parts, b"{}", NOW + Duration::minutes(minutes)).unwrap_err().to_string();
    // The words of AWS's, which SDKs know.
    assert!(told(16).starts_with("Signature expired: "), "{}", told(16));
    assert!(told(-16).starts_with("Signature not yet current: "), "{}", told(-16));
    assert_eq!(verify(&parts, b"{\"x\":1}", NOW), Err(VerifyError::Mismatch), "another body");
    let none = Signer::new().verify(&parts, &RequestAuth::of(&parts), None, &placeholder(), NOW);
    assert_eq!(none, Err(VerifyError::BodyNeeded));
}

#[test]
fn what_is_not_the_sessions_own_is_not_believed() {
    let other = Placeholder::mint(chaperone_model::SessionId::new());
    let parts = signed("/", &[], &other);
    let id = other.access_key_id().to_owned();
    assert_eq!(verify(&parts, b"{}", NOW), Err(VerifyError::ForeignKey { access_key_id: id }));

    let mut parts = signed("/", &[], &placeholder());
    parts.headers.insert("x-amz-security-token", "another".parse().unwrap());
    assert_eq!(verify(&parts, b"{}", NOW), Err(VerifyError::Token));
    parts.headers.remove("x-amz-security-token");
    assert_eq!(verify(&parts, b"{}", NOW), Err(VerifyError::Token));

    let mut parts = signed("/", &[], &placeholder());
    parts.headers.append("x-amz-target", "DynamoDB_20120810.DeleteTable".parse().unwrap());
    assert_eq!(verify(&parts, b"{}", NOW), Err(VerifyError::Unsigned("x-amz-target".into())));

    let mut parts = signed("/", &[("x-amz-target", "DynamoDB_20120810.ListTables")], &placeholder());
    parts.headers.append("x-amz-target", "DynamoDB_20120810.DeleteTable".parse().unwrap());
    assert_eq!(verify(&parts, b"{}", NOW), Err(VerifyError::Mismatch), "a field twice");

    let mut parts = signed("/", &[], &placeholder());
    parts.headers.insert("x-amz-date", "20250601T120001Z".parse().unwrap());
    assert_eq!(verify(&parts, b"{}", NOW), Err(VerifyError::Mismatch));
    parts.headers.insert("x-amz-date", "20250602T120001Z".parse().unwrap());
    assert!(matches!(verify(&parts, b"{}", NOW), Err(VerifyError::Date(_))), "another day than the scope's");
}

#[test]
fn a_declared_hash_must_be_the_bodys() {
    let declared = hex::encode(sha256(b"{}"));
    let parts = signed("/", &[("x-amz-content-sha256", &declared)], &placeholder());
    assert_eq!(verify(&parts, b"{}", NOW), Ok(()));
    assert_eq!(verify(&parts, b"{1}", NOW), Err(VerifyError::BodyMismatch));
}

#[test]
fn shapes_that_are_not_signed_again_are_named() {
    let parts = signed("/", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], &placeholder());
    let scope = Scope { region: "us-east-1".into(), service: "s3".into() };
    for (name, value, what) in [
        (
            "x-amz-content-sha256",
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
            "a body whose chunks are signed by SigV4A",
        ),
        ("x-amz-content-sha256", "STREAMING-NEW", "an x-amz-content-sha256 that SigV4 has not"),
        ("authorization", "Bearer abc", "a bearer token"),
        ("authorization", "AWS AKID:abc", "a Signature Version 2 header"),
        ("authorization", "AWS4-ECDSA-P256-SHA256 Credential=A/2/s3/aws4_request", "a SigV4A signature"),
    ] {
        let mut parts = parts.clone();
        parts.headers.insert(name, value.parse().unwrap());
        let error = Signer::new().sign(&mut parts, None, &real(), &scope, NOW);
        assert_eq!(error, Err(SignError::NotSupported(what)));
    }
    let mut presigned = parts;
    presigned.headers.remove("authorization");
    presigned.uri = "/k?X-Amz-Credential=AKID%2F1&X-Amz-Signature=0".parse().unwrap();
    let error = Signer::new().sign(&mut presigned, None, &real(), &scope, NOW);
    assert_eq!(error, Err(SignError::NotSupported("a presigned query")));
}

#[test]
fn fields_that_change_on_the_way_are_not_signed() {
    let mut parts = signed(
        "/",
        &[("content-length", "2"), ("x-amz-meta-a", "1"), ("content-type", "a/b"), ("te", "trailers")],
        &placeholder(),
    );
    let scope = Scope { region: "us-east-1".into(), service: "dynamodb".into() };
    Signer::new().sign(&mut parts, Some(&sha256(b"{}")), &real(), &scope, NOW).unwrap();
    let RequestAuth::Header(header) = RequestAuth::of(&parts) else { panic!() };
    assert_eq!(header.access_key_id, "AKIAREALREALREALREAL");
    assert_eq!(header.signed_headers, "content-type;host;x-amz-date;x-amz-meta-a;x-amz-security-token");
    assert_eq!(parts.headers["x-amz-security-token"], "real+token/=");
}

#[test]
fn s3_gets_the_hash_that_it_asks_for() {
    let mut parts = signed("/", &[], &placeholder());
    let scope = Scope { region: "us-east-1".into(), service: "s3".into() };
    Signer::new().sign(&mut parts, Some(&sha256(b"{}")), &real(), &scope, NOW).unwrap();
    assert_eq!(parts.headers["x-amz-content-sha256"].to_str().unwrap(), hex::encode(sha256(b"{}")));
}

const EXPRESS: &str = "b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com";

/// S3 Express: `CreateSession` is signed by the session's own key, what follows by what it gave, whose token goes into a
/// field of its own.
#[test]
fn s3_expresss_tokens_have_their_own_field() {
    let scope = Scope { region: "us-east-1".into(), service: "s3express".into() };
    let express = |inner: Credentials| AwsCredentials::new(inner).for_s3_express();
    let keys = VendedCredentials::default();
    let session = chaperone_model::SessionId::new();
    let real = Credentials::new("ASIAEXPRESS", "express secret", Some("express-token".into()), None, "test");
    let vended = keys.issue(session, express(real));
    let placeholder = vended.placeholder();
    let agents = Credentials::new(
        placeholder.access_key_id(),
        placeholder.secret_access_key(),
        Some(placeholder.session_token().to_owned()),
        None,
        "test",
    );
    let mut parts = signed("/k", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], &Placeholder::mint(session));
    Signer::new().sign(&mut parts, None, &express(agents.clone()), &scope, NOW).unwrap();
    let verify = |parts: &Parts| Signer::new().verify(parts, &RequestAuth::of(parts), None, placeholder, NOW).map(drop);
    assert!(parts.headers.contains_key("x-amz-s3session-token") && !parts.headers.contains_key("x-amz-security-token"));
    assert_eq!(verify(&parts), Ok(()));
    Signer::new().sign(&mut parts, None, vended.credentials(), &scope, NOW).unwrap();
    assert_eq!(parts.headers["x-amz-s3session-token"], "express-token");
    assert!(!parts.headers.contains_key("x-amz-security-token"));
    let RequestAuth::Header(header) = RequestAuth::of(&parts) else { panic!("not signed") };
    assert_eq!((header.access_key_id, header.service), ("ASIAEXPRESS", "s3express"));
    assert!(header.signed_headers.contains("x-amz-s3session-token"));

    // Presigned, its token is in the query, by the same name.
    let secret = placeholder.secret_access_key();
    let query = |token: &str| {
        let day = "20250601";
        let credential = format!("{}%2F{day}%2Fus-east-1%2Fs3express%2Faws4_request", placeholder.access_key_id());
        let mut encoded = String::new();
        crate::canonical::write_encoded(&mut encoded, placeholder.session_token().as_bytes());
        let mut members = [
            "X-Amz-Algorithm=AWS4-HMAC-SHA256".to_owned(),
            format!("X-Amz-Credential={credential}"),
            "X-Amz-Date=20250601T120000Z".to_owned(),
            "X-Amz-Expires=60".to_owned(),
            format!("{token}={encoded}"),
            "X-Amz-SignedHeaders=host".to_owned(),
        ];
        members.sort();
        let unsigned = members.join("&");
        let canonical = format!("GET\n/k\n{unsigned}\nhost:{EXPRESS}\n\nhost\nUNSIGNED-PAYLOAD");
        let signature = signature_of(secret, canonical.as_bytes(), "20250601T120000Z", (day, "us-east-1", "s3express"));
        let target = format!("/k?{unsigned}&X-Amz-Signature={signature}");
        Request::builder().uri(target).header("host", EXPRESS).body(()).unwrap().into_parts().0
    };
    let host = crate::Catalog::global().host(EXPRESS).unwrap();
    let now = datetime!(2025-06-01 12:00:30 UTC);
    for (token, expected) in [("X-Amz-S3session-Token", Ok(())), ("X-Amz-Security-Token", Err(VerifyError::Token))] {
        let mut parts = query(token);
        let presigned = crate::Presigned::take(&mut parts, &host, "us-east-1", now).unwrap();
        assert_eq!(presigned.verify(&Signer::new(), None, placeholder, now), expected, "{token}");
        let placed = !parts.headers.contains_key("x-amz-s3session-token");
        assert!(placed && parts.uri.query().is_none(), "nothing of it goes on");
    }

    // In the other field it is not believed.
    let mut elsewhere = signed("/k", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], &Placeholder::mint(session));
    Signer::new().sign(&mut elsewhere, None, &AwsCredentials::new(agents), &scope, NOW).unwrap();
    assert_eq!(verify(&elsewhere), Err(VerifyError::Token));
}

/// By botocore's S3 client: `tests/data/outposts.py`.
#[test]
fn objects_on_outposts_are_signed_by_s3s_rules() {
    #[derive(serde::Deserialize)]
    struct Line {
        method: String,
        url: String,
        headers: std::collections::BTreeMap<String, String>,
    }
    let lines: Vec<Line> = serde_json::from_str(include_str!("../tests/data/outposts.json")).unwrap();
    assert_eq!(lines.len(), 9);
    let placeholder = placeholder();
    for line in lines {
        let uri: http::Uri = line.url.parse().unwrap();
        let target = uri.path();
        let mut request = Request::builder().method(line.method.as_str()).uri(target);
        request = request.header("host", uri.host().unwrap());
        for (name, value) in &line.headers {
            request = request.header(name, value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        let now = time::PrimitiveDateTime::parse(&line.headers["x-amz-date"], format).unwrap().assume_utc();
        let authority = RequestAuth::of(&parts);
        let verified = Signer::new().verify(&parts, &authority, Some(&sha256(b"")), &placeholder, now);
        assert_eq!(verified.map(drop), Ok(()), "{target}");
        let RequestAuth::Header(header) = &authority else { panic!("{target}") };
        let scope = Scope::of(header);
        let real = Credentials::new("AKIAREAL", "secret", None, None, "test");
        let mut ours = parts.clone();
        Signer::new().sign(&mut ours, Some(&sha256(b"")), &AwsCredentials::new(real.clone()), &scope, now).unwrap();
        let field = ours.headers["authorization"].to_str().unwrap();
        let right = by_aws_sigv4(&ours, b"", &real, &scope, now);
        assert!(field.ends_with(&right), "{target}: {field}, and the SDK's signer says {right}");
    }
}

/// The JavaScript SDK's clients for Bedrock, Kinesis and others speak HTTP/2, take `host` out and put `:authority` in
/// (`@aws-sdk/middleware-host-header`), which is then signed by that name.
#[test]
fn a_client_that_speaks_http2_may_sign_the_authority_in_the_hosts_place() {
    const HOST: &str = "bedrock-runtime.us-east-1.amazonaws.com";
    let agents = placeholder();
    let request = |version: http::Version, canonical_authority: &str| {
        let (token, secret) = (agents.session_token(), agents.secret_access_key());
        let (stamp, names) = ("20250601T120000Z", ":authority;x-amz-date;x-amz-security-token");
        let canonical = format!(
            "POST\n/model/m/converse\n\n:authority:{canonical_authority}\nx-amz-date:{stamp}\nx-amz-security-token:{token}\n\n\
             {names}\n{}",
            hex::encode(sha256(b"{}"))
        );
        let signature = signature_of(secret, canonical.as_bytes(), stamp, ("20250601", "us-east-1", "bedrock"));
        let field = format!(
            "AWS4-HMAC-SHA256 Credential={}/20250601/us-east-1/bedrock/aws4_request, SignedHeaders={names}, \
             Signature={signature}",
            agents.access_key_id()
        );
        Request::post(format!("https://{HOST}/model/m/converse"))
            .version(version)
            .header("authorization", field)
            .header("x-amz-date", stamp)
            .header("x-amz-security-token", token)
            .body(())
            .unwrap()
            .into_parts()
            .0
    };
    let now = datetime!(2025-06-01 12:00:30 UTC);
    let verify = |parts: &Parts| {
        Signer::new().verify(parts, &RequestAuth::of(parts), Some(&sha256(b"{}")), &agents, now).map(drop)
    };
    let mut good = request(http::Version::HTTP_2, HOST);
    assert_eq!(verify(&good), Ok(()));
    assert_eq!(verify(&request(http::Version::HTTP_2, "other.amazonaws.com")), Err(VerifyError::Mismatch));
    assert_eq!(verify(&request(http::Version::HTTP_11, HOST)), Err(VerifyError::Unsigned("host".into())));
    // To AWS it goes with `host` signed.
    good.headers.insert("host", HOST.parse().unwrap());
    let scope = Scope { region: "us-east-1".into(), service: "bedrock".into() };
    Signer::new().sign(&mut good, Some(&sha256(b"{}")), &real(), &scope, now).unwrap();
    let RequestAuth::Header(header) = RequestAuth::of(&good) else { panic!("not signed") };
    assert_eq!(header.signed_headers, "host;x-amz-date;x-amz-security-token");
}

/// Values as signers differ in them: what the agent's own signs is believed, and ours is in the same form.
#[test]
fn each_signers_form_of_a_value_is_believed_and_kept() {
    let agents = placeholder();
    let credentials = AwsCredentials::new(Credentials::new(
        agents.access_key_id(),
        agents.secret_access_key(),
        Some(agents.session_token().to_owned()),
        None,
        "test",
    ));
    let scope = Scope { region: "us-east-1".into(), service: "s3".into() };
    let forms = [(false, false), (true, false), (false, true), (true, true)];
    for (keeps_tabs, from_latin1) in forms {
        let form = HeaderForm { keeps_tabs, from_latin1 };
        let mut request = Request::put("/k").header("host", "b.s3.amazonaws.com");
        request = request.header("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        request = request.header("x-amz-meta-a", HeaderValue::from_bytes(b"caf\xe9\t \tau  lait").unwrap());
        request = request.header("authorization", stub());
        let mut parts = request.body(()).unwrap().into_parts().0;
        parts.extensions.insert(form);
        Signer::new().sign(&mut parts, None, &credentials, &scope, NOW).unwrap();
        parts.extensions.clear();
        let verified = Signer::new().verify(&parts, &RequestAuth::of(&parts), None, &agents, NOW);
        assert_eq!(verified, Ok(form));
        parts.headers.insert("x-amz-meta-a", HeaderValue::from_static("another"));
        let verified = Signer::new().verify(&parts, &RequestAuth::of(&parts), None, &agents, NOW);
        assert_eq!(verified, Err(VerifyError::Mismatch));
    }
}

/// An object's metadata is a signed field each.
#[test]
fn as_many_fields_are_signed_as_a_head_has() {
    let names: Vec<String> = (0..180).map(|n| format!("x-amz-meta-{n:03}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let parts = signed("/k", &fields, &placeholder());
    assert_eq!(verify(&parts, b"{}", NOW), Ok(()));
}

fn stub() -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=A/20250601/us-east-1/s3/aws4_request, SignedHeaders=host, Signature={}",
        "0".repeat(64)
    )
}
