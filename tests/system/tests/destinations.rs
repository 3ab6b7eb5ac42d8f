//! What becomes of connections that are not to AWS's API: `docs/destinations.md`, a test a row.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use chaperone_system_tests::{Lab, text};

const POLICY: &str = "@id(\"reads\") permit (principal, action == Action::\"http:GET\", resource);\n";

#[test]
fn applications_on_aws_are_decided_by_method() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    for url in [
        "http://my-lb-1.eu-west-1.elb.amazonaws.com/health",
        "https://my-lb-1.eu-west-1.elb.amazonaws.com/health",
        "http://ec2-203-0-113-25.eu-west-1.compute.amazonaws.com/health",
        "http://my-site.s3-website-eu-west-1.amazonaws.com/health",
        "https://abcdefghij.lambda-url.eu-west-1.on.aws/health",
    ] {
        let host = url.split('/').nth(2).unwrap();
        let said = lab.agent_ok(&format!("curl -sS -H 'Authorization: Bearer of-its-own' {url}"));
        assert!(said.contains(&format!("This is {host}")), "{url}: {said}\n{}", lab.log());
        let sent = lab.upstream();
        let sent = sent.last().unwrap();
        assert_eq!((text(sent, "host"), sent["access_key_id"].is_null()), (host, true), "{sent}");
        let denied = lab.agent_ok(&format!("curl -sS -o /dev/null -w '%{{http_code}}' -d secret=1 {url}"));
        assert_eq!(denied, "403", "{url}");
        let calls = lab.calls();
        let [.., read, written] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((text(read, "decision"), &read["actions"][0]), ("allow", &"http:GET".into()));
        assert_eq!(read["resources"][0], format!("https://{host}/health"));
        assert_eq!((text(written, "decision"), &written["actions"][0]), ("deny", &"http:POST".into()));
    }
}

/// What a key signed is AWS's API, and must be this session's.
#[test]
fn a_signature_at_an_application_is_somebodys_authority() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    let said = lab.agent_ok(
        "curl -sS --aws-sigv4 aws:amz:eu-west-1:lambda --user AKIASOMEBODY:secret https://abcdefghij.lambda-url.eu-west-1.on.aws/",
    );
    assert!(said.contains("not this session's placeholder key"), "{said}");
    assert_eq!(lab.upstream().len(), 0);
}

#[test]
fn other_names_are_passed_on() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    let said = lab.agent_ok("curl -sS -k https://www.example.com/; curl -sS http://www.example.com/");
    assert_eq!(said.matches("This is www.example.com").count(), 2, "{said}");
    assert!(lab.calls().is_empty());
}
