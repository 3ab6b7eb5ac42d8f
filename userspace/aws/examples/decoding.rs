//! How long decoding, checking and signing take: `cargo run --release -p chaperone-aws --example decoding`.

use std::{hint::black_box, time::Instant};

use aws_credential_types::Credentials;
use aws_lc_rs::digest;
use chaperone_aws::{AwsCredentials, Catalog, Placeholder, RequestAuth, Scope, Signer};
use chaperone_model::SessionId;
use http::{Request, request::Parts};
use time::OffsetDateTime;

/// The daemon's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let before = resident();
    let started = Instant::now();
    let catalog = Catalog::global();
    println!("catalog read in {:.1} ms, {} KiB resident", started.elapsed().as_secs_f64() * 1e3, resident() - before);

    let pad = "x".repeat(800);
    let item = format!(
        "{{\"TableName\":\"Music\",\"Item\":{{\"Artist\":{{\"S\":\"a\"}},\"Song\":{{\"S\":\"b\"}},\"Text\":{{\"S\":\"{pad}\"}}}}}}"
    );
    let form = format!("Action=RunInstances&Version=2016-11-15&ImageId=ami-1&MinCount=1&MaxCount=1&UserData={pad}");
    let json = "application/x-amz-json-1.0";
    let cases = [
        (
            "dynamodb PutItem, 1 KiB JSON",
            "dynamodb.us-east-1.amazonaws.com",
            "POST",
            "/",
            vec![("content-type", json), ("x-amz-target", "DynamoDB_20120810.PutItem")],
            item,
            "dynamodb",
        ),
        (
            "s3 GetObject",
            "my-bucket.s3.us-east-1.amazonaws.com",
            "GET",
            "/folder/some-object.txt",
            vec![("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")],
            String::new(),
            "s3",
        ),
        (
            "s3 PutObject, unsigned trailer",
            "my-bucket.s3.us-east-1.amazonaws.com",
            "PUT",
            "/folder/some-object.txt?x-id=PutObject",
            vec![
                ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
                ("x-amz-decoded-content-length", "1024"),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
                ("content-encoding", "aws-chunked"),
            ],
            String::new(),
            "s3",
        ),
        (
            "ec2 RunInstances, 1 KiB form",
            "ec2.us-east-1.amazonaws.com",
            "POST",
            "/",
            vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
            form,
            "ec2",
        ),
        (
            "lambda Invoke",
            "lambda.us-east-1.amazonaws.com",
            "POST",
            "/2015-03-31/functions/my-function/invocations",
            vec![("content-type", "application/json")],
            pad.clone(),
            "lambda",
        ),
    ];
    let placeholder = Placeholder::mint(SessionId::new());
    let ours = AwsCredentials::new(Credentials::new(
        placeholder.access_key_id(),
        placeholder.secret_access_key(),
        Some(placeholder.session_token().to_owned()),
        None,
        "measure",
    ));
    let real = AwsCredentials::new(Credentials::new("AKIAEXAMPLE", "secret", Some("t".repeat(600)), None, "measure"));
    let signer = Signer::new();
    for (name, host, method, target, fields, body, service) in cases {
        let mut request = Request::builder().method(method).uri(target).header("host", host);
        let mut names = vec!["host"];
        for (name, value) in &fields {
            request = request.header(*name, *value);
            names.push(name);
        }
        names.sort_unstable();
        let dummy = format!(
            "AWS4-HMAC-SHA256 Credential=X/20250601/us-east-1/{service}/aws4_request, SignedHeaders={}, Signature={}",
            names.join(";"),
            "0".repeat(64)
        );
        let mut parts = request.header("authorization", dummy).body(()).expect("a request").into_parts().0;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
        let scope = Scope { region: "us-east-1".into(), service: service.into() };
        let now = OffsetDateTime::now_utc();
        signer.sign(&mut parts, Some(&sha256), &ours, &scope, now).expect("signed");

        let started = Instant::now();
        let found = catalog.host(host).expect("AWS's");
        let first = decode(&parts, host, &body);
        println!(
            "{name}: {} {:?} (first: {:.0} µs, {} KiB resident so far)",
            first.operation,
            found.region,
            started.elapsed().as_secs_f64() * 1e6,
            resident() - before
        );
        time("  host", || {
            black_box(catalog.host(host));
        });
        time("  body_need", || {
            black_box(catalog.body_need(&found, &parts));
        });
        time("  authority + decode", || {
            let authority = RequestAuth::of(&parts);
            black_box(catalog.decode(&found, &parts, Some(body.as_bytes()), &authority, Some("123456789012"))).ok();
        });
        let clone = time("  (clone of the head)", || {
            black_box(parts.clone());
        });
        time("  verify", || {
            let authority = RequestAuth::of(&parts);
            signer.verify(&parts, &authority, Some(&sha256), &placeholder, now).expect("verified");
        });
        let both = time("  clone + sign", || {
            let mut parts = parts.clone();
            signer.sign(&mut parts, Some(&sha256), &real, &scope, now).expect("signed");
        });
        println!("  sign                     {:8.2} µs", both - clone);
    }
}

fn decode(parts: &Parts, host: &str, body: &str) -> chaperone_model::Call {
    let found = Catalog::global().host(host).expect("AWS's");
    Catalog::global().decode(&found, parts, Some(body.as_bytes()), &RequestAuth::of(parts), None).expect("decoded")
}

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

fn time(name: &str, mut work: impl FnMut()) -> f64 {
    const ROUNDS: u32 = 20_000;
    for _ in 0..ROUNDS / 10 {
        work();
    }
    let started = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    let each = started.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!("{name:24} {each:8.2} µs");
    each
}
