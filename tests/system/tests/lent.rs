//! Whose authority calls are made by, and what agents are given instead of it.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text};

const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

/// A lab whose configuration has this in it as well.
fn configured(arguments: &[&str], config: &str) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("more.toml");
    std::fs::write(&file, config).unwrap();
    let mut arguments = arguments.to_vec();
    let file = file.display().to_string();
    arguments.extend(["--config", &file]);
    Lab::start_with(&arguments, PERMIT_ALL)
}

/// What the task roles of ECS and the pod identities of EKS give, by the SDK's own provider.
#[test]
fn containers_get_the_sessions_own_credentials() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let token = lab.file("token", "a.service.account");
    let mut ids = Vec::new();
    for environment in [
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/0d4f".to_owned(),
        format!(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={token}"
        ),
        format!(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI='http://[fd00:ec2::23]/v1/credentials' AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={token}"
        ),
    ] {
        let said = lab.agent_ok(&format!(
            "{REGION} export AWS_EC2_METADATA_DISABLED=true {environment}; aws sts get-caller-identity --query Account; python3 -c '
import botocore.session
print(botocore.session.get_session().get_credentials().access_key)'"
        ));
        assert!(said.contains("123456789012"), "{environment}: {said}");
        ids.push(said.trim().rsplit('\n').next().unwrap().to_owned());
    }
    let upstream = lab.upstream();
    assert_eq!(upstream.len(), 3);
    assert!(upstream.iter().all(|it| !ids.iter().any(|id| id == text(it, "access_key_id"))), "{upstream:?} {ids:?}");
    let refused = lab.agent_ok("curl -sS -w ' %{http_code}' http://169.254.170.23/v1/credentials");
    assert!(refused.ends_with(" 400") && !refused.contains("AccessKeyId"), "{refused}");
}

/// moto knows who it is that asks, by the key that STS gave.
#[test]
fn calls_are_made_by_the_agents_role_and_no_further() {
    let lab = configured(
        &["--aws", "moto"],
        r#"
[[roles]]
groups = ["developers"]
arn = "arn:aws:iam::123456789012:role/agents"
session_name = "{agent}-agent"
source_identity = "{agent}"
tags = { session = "{session}" }
regions = ["eu-west-1", "us-east-1"]
accounts = ["123456789012"]
"#,
    );
    let said = lab.agent_ok(&format!("{REGION} aws sts get-caller-identity; aws s3 mb s3://by-role"));
    assert!(said.contains(":assumed-role/agents/coder-agent"), "{said}");
    let upstream = lab.upstream();
    let ids: Vec<&str> = upstream.iter().map(|it| text(it, "access_key_id")).collect();
    assert_eq!(ids.len(), 3, "AssumeRole, and two calls: {upstream:?}");
    assert!(ids[0] != ids[1] && ids[1] == ids[2], "one role for both: {ids:?}");
    assert!(!said.contains(ids[1]), "{said}");
    for command in [
        "aws ec2 describe-vpcs --region us-west-2",
        "aws sts assume-role --role-arn arn:aws:iam::210987654321:role/other --role-session-name other",
    ] {
        let output = lab.agent(&format!("{REGION} {command}"));
        assert!(!output.status.success() && both(&output).contains("this agent may call"), "{}", both(&output));
    }
    assert_eq!(lab.upstream().len(), 3, "nothing of it reached AWS");
    let refused = lab.calls().iter().filter(|it| text(it, "reason") == "out-of-reach").count();
    assert_eq!(refused, 2);
}

/// What STS refuses, the agent is told, and nothing is signed by anything else.
#[test]
fn without_the_role_nothing_is_signed() {
    // No such STS: with S3 alone in the lab, nobody gives out roles.
    let lab = configured(
        &["--aws", "s3"],
        "[[roles]]\nagents = [\"coder\"]\narn = \"arn:aws:iam::123456789012:role/agents\"\n",
    );
    let output = lab.agent(&format!("{REGION} AWS_MAX_ATTEMPTS=1 aws s3 ls"));
    assert!(!output.status.success() && both(&output).contains("role/agents"), "{}\n{}", both(&output), lab.log());
    assert!(lab.upstream().iter().all(|it| text(it, "host").starts_with("sts.")), "{:?}", lab.upstream());
}

#[test]
fn a_registry_takes_what_stands_for_its_token() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    // The real one isn't on a command line here, since those are recorded.
    let registry = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/";
    let said = lab.agent_ok(&format!(
        "{REGION} P=$(aws ecr get-login-password); echo \"password $P\"
         curl -sS -o /dev/null -w 'unknown %{{http_code}} %header{{www-authenticate}}\\n' {registry}
         curl -sS -u AWS:$P -w ' known %{{http_code}}\\n' {registry}app/tags/list
         printf 'user = AWS:%s-auth-token' 123456789012 | curl -sS -K - -o /dev/null -w 'real %{{http_code}}\\n' {registry}app/tags/list
         curl -sS -u AWS:$P -o /dev/null -w 'elsewhere %{{http_code}}\\n' https://s3.eu-west-1.amazonaws.com/"
    ));
    assert!(said.contains("password chaperone-"), "{said}");
    assert!(said.contains("unknown 401") && said.contains("latest") && said.contains(" known 200"), "{said}");
    assert!(said.contains("real 403") && said.contains("elsewhere 403"), "{said}");
    let call = lab.calls().into_iter().find(|it| it["actions"][0] == "ecr:ListImages").unwrap();
    assert_eq!(call["resources"][0], "arn:aws:ecr:eu-west-1:123456789012:repository/app");
    let real = "123456789012-auth-token";
    let grep = lab.operator(&format!("grep -a -r -l {real} $CHAPERONE_LAB/journal $CHAPERONE_LAB/daemon.log"));
    assert!(!grep.status.success(), "the real one is in no record: {}", both(&grep));
}

/// The other end checks each message by the SDK's own signer, and tells of each how long it was.
#[test]
fn event_streams_are_signed_again_message_by_message() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let script = script("events.py");
    let run = |how: &str| lab.agent_ok(&format!("python3 {} {how} | tr -c '[:print:]\\n' '.'", script.display()));
    let good = run("good");
    assert!(good.contains("status 200 2") && good.contains("{\"messages\":6}"), "{good}\n{}", lab.log());
    for n in 1..6 {
        assert!(good.contains(&format!("{{\"bytes\":{}}}", 8000 * n + 16 + 20)), "{good}");
    }
    let calls = lab.calls();
    let call = calls.iter().find(|it| text(it, "operation") == "InvokeModelWithBidirectionalStream").unwrap();
    assert_eq!((text(call, "decision"), call["status"].as_u64()), ("allow", Some(200)));
    let upstream = lab.upstream();
    assert_eq!(text(upstream.last().unwrap(), "version"), "HTTP/2.0", "both bodies at once need it");
    for how in ["secret", "left-out", "tampered"] {
        let bad = run(how);
        assert!(!bad.contains("\"messages\":"), "{how}: {bad}");
    }
    assert_eq!(lab.upstream().iter().filter(|it| it["complete"] == true).count(), 1, "{:?}", lab.upstream());
}

/// Over HTTP/2 calls would share a window, and the end of a connection.
#[test]
fn what_an_agent_asks_over_http2_goes_on_over_http1() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let said = lab.agent_ok(
        "set -- $(python3 -c 'import boto3; print(*boto3.Session().get_credentials().get_frozen_credentials()[:3])')
         curl -sS --http2 --aws-sigv4 aws:amz:eu-west-1:sts --user \"$1:$2\" -H \"x-amz-security-token: $3\" \
             -d 'Action=GetCallerIdentity&Version=2011-06-15' -w ' by HTTP/%{http_version}' https://sts.eu-west-1.amazonaws.com/",
    );
    assert!(said.contains("<Account>123456789012</Account>") && said.ends_with("by HTTP/2"), "{said}");
    assert_eq!(text(&lab.upstream()[0], "version"), "HTTP/1.1");
    assert!(lab.upstream()[0]["te"].is_null());
    // gRPC's servers want to know that trailers get through.
    lab.agent_ok(
        "set -- $(python3 -c 'import boto3; print(*boto3.Session().get_credentials().get_frozen_credentials()[:3])')
         curl -sS --http2 --aws-sigv4 aws:amz:eu-west-1:vpc-lattice-svcs --user \"$1:$2\" \
             -H \"x-amz-security-token: $3\" -H 'te: trailers' -H 'content-type: application/grpc' -X POST \
             'https://shop-svc-0123456789abcdef0.7d67968.vpc-lattice-svcs.eu-west-1.on.aws/shop.Cart/Add'",
    );
    let upstream = lab.upstream();
    let last = upstream.last().unwrap();
    assert_eq!((text(last, "version"), text(last, "te")), ("HTTP/2.0", "trailers"), "{last}");
}

/// The same outcome as without Chaperone: no key and no query is signed in another way than the verifiers have it.
#[test]
fn keys_and_queries_are_signed_as_verifiers_have_them() {
    for backend in ["s3", "moto"] {
        let run = |lab: &Lab| lab.agent_ok(&format!("python3 {} keys {backend}", script("keys.py").display()));
        let said = run(&Lab::start_with(&["--aws", backend], PERMIT_ALL));
        assert!(said.matches("same same").count() >= 20, "{said}");
        let direct = run(&Lab::start_with(&["--direct", "--aws", backend], ""));
        assert_eq!(said, direct, "{backend}");
        println!("{backend}:\n{said}");
    }
}

/// Model ids with colons, and S3 on Outposts, which isn't signed by S3's rules: by the real botocore, and the SDK's signer
/// says whether what arrives is signed right.
#[test]
fn model_ids_and_outposts_are_signed_as_the_sdk_has_them() {
    let run = |lab: &Lab| lab.agent_ok(&format!("python3 {}", script("models.py").display()));
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let said = run(&lab);
    assert!(said.lines().count() > 20 && said.lines().all(|line| line.contains(" 200 ")), "{said}\n{}", lab.log());
    assert_eq!(said, run(&Lab::start_with(&["--direct", "--aws", "s3"], "")));
}

/// Clients with an API key send it as a bearer token; the session's own becomes a signature, and any other is refused.
#[test]
fn the_sessions_bearer_token_becomes_a_signature() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let said = lab.agent_ok(
        "T=$(python3 -c '
import botocore.session
print(botocore.session.get_session().get_credentials().token)')
         ask() { curl -sS -w ' %{http_code}\\n' -H \"Authorization: Bearer $1\" -d 'Action=GetCallerIdentity&Version=2011-06-15' https://sts.eu-west-1.amazonaws.com/; }
         ask \"$T\"; ask \"${T}x\"",
    );
    assert!(said.contains("<Account>123456789012</Account>") && said.contains(" 200"), "{said}");
    assert!(
        said.contains("a bearer token, which is not this session&apos;s authority") && said.contains(" 403"),
        "{said}"
    );
    let upstream = lab.upstream();
    assert!(upstream.len() == 1 && !upstream[0]["access_key_id"].is_null(), "{upstream:?}");
}
