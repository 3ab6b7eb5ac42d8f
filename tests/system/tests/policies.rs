//! Policies that are tried on what an agent did, learnt from it, and explained by it.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use chaperone_system_tests::{Lab, both, installed, text};
use serde_json::{Value, json};

const POLICY: &str = "@id(\"all\") permit (principal, action, resource);";
const WORK: &str = "export AWS_DEFAULT_REGION=eu-west-1; set -e; cd $(mktemp -d); echo x > file
    aws s3api head-bucket --bucket data 2> /dev/null || aws s3api create-bucket --bucket data --create-bucket-configuration LocationConstraint=eu-west-1
    aws s3api put-object --bucket data --key 'in/a 1' --body file
    aws s3api get-object --bucket data --key 'in/a 1' out
    aws sqs create-queue --queue-name jobs; aws sqs list-queues; aws ec2 describe-instances; aws sts get-caller-identity";

/// What IAM says, by a simulator: `(action, resource, whether it is allowed)`.
fn simulate(policy: &Value, requests: &[(String, String)]) -> Vec<(String, String, bool)> {
    let requests: Vec<_> =
        requests.iter().map(|(action, resource)| json!({ "action": action, "resource": resource })).collect();
    let mut node = Command::new("node")
        .arg(installed("iam").join("simulate.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = json!({ "policy": policy, "requests": requests }).to_string();
    node.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(value["errors"].is_null(), "{value}");
        (text(&value, "action").to_owned(), text(&value, "resource").to_owned(), text(&value, "result") == "Allowed")
    };
    String::from_utf8(output.stdout).unwrap().lines().map(line).collect()
}

#[test]
fn what_an_agent_did_is_tried_explained_and_learnt_and_then_is_all_that_it_can_do() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    lab.agent_ok(WORK);
    let calls = lab.calls();
    let mut sessions: Vec<_> = calls.iter().map(|call| text(call, "session")).collect();
    sessions.sort_unstable();
    sessions.dedup();
    let sessions = sessions.join(" ");

    // Tried: what only reads goes on, the rest would be refused.
    let reads = lab.file(
        "reads.cedar",
        "@id(\"reads\") permit (principal, action in [Action::\"Read\", Action::\"List\"], resource);",
    );
    let tried = lab.operator(&format!("chaperone policy try {reads} --since 1h --json"));
    assert_eq!(tried.status.code(), Some(1), "{}", both(&tried));
    let lines: Vec<Value> =
        String::from_utf8(tried.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let change = |action: &str| lines.iter().find(|line| text(line, "action") == action);
    let put = change("s3:PutObject").unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!((text(put, "from"), text(put, "to"), text(put, "agent")), ("permit", "deny", "coder"));
    assert!(change("s3:GetObject").is_none(), "{lines:#?}");
    let sum = lines.last().unwrap();
    assert_eq!((sum["calls"].as_u64(), sum["unsaid"].as_u64()), (Some(calls.len() as u64), Some(0)), "{lines:#?}");
    let same = lab.operator("chaperone policy try \"$(dirname $CHAPERONE_CONFIG)/policies\" --since 1h");
    assert!(same.status.success(), "{}", both(&same));

    // Explained.
    let example = put["examples"][0].as_str().unwrap();
    let why = lab.operator(&format!("chaperone policy why {example} --policies {reads}"));
    let told = both(&why);
    assert_eq!(why.status.code(), Some(1), "{told}");
    assert!(
        told.contains("to permit s3:PutObject on arn:aws:s3:::data/in/a 1: `reads`, by another action in its scope"),
        "{told}"
    );
    assert!(lab.operator_ok(&format!("chaperone policy why {example}")).contains("permit all matched"));

    // Learnt, for IAM: what was done is allowed by its own rules, and nothing beside it.
    let document = lab.operator_ok(&format!("chaperone policy learn {sessions} --iam"));
    let document: Value = serde_json::from_str(&document).unwrap();
    let did: Vec<_> = calls
        .iter()
        .filter(|call| call["actions"].as_array().is_some_and(|actions| actions.len() == 1))
        .flat_map(|call| {
            let resources = call["resources"].as_array().unwrap().iter();
            resources.map(|resource| {
                (call["actions"][0].as_str().unwrap().to_owned(), resource.as_str().unwrap().to_owned())
            })
        })
        .collect();
    assert!(did.len() > 5, "{did:?}");
    for (action, resource, allowed) in simulate(&document, &did) {
        assert!(allowed, "{action} on {resource}: {document:#}");
    }
    let others = [
        ("s3:PutObject", "arn:aws:s3:::data/in/b"),
        ("s3:DeleteObject", "arn:aws:s3:::data/in/a 1"),
        ("sqs:DeleteQueue", "arn:aws:sqs:eu-west-1:123456789012:jobs"),
        ("ec2:TerminateInstances", "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0"),
        ("iam:CreateUser", "arn:aws:iam::123456789012:user/eve"),
    ];
    let others: Vec<_> =
        others.iter().map(|(action, resource)| ((*action).to_owned(), (*resource).to_owned())).collect();
    for (action, resource, allowed) in simulate(&document, &others) {
        assert!(!allowed, "{action} on {resource}: {document:#}");
    }

    // Learnt, for Chaperone: it decides the same calls in the same way, then it is put in force, and they are made again.
    let learnt = lab.operator_ok(&format!("chaperone policy learn {sessions}"));
    let learnt = lab.file("learnt.cedar", &learnt);
    let same = lab.operator(&format!("chaperone policy try {learnt} --since 1h"));
    assert!(same.status.success(), "{}", both(&same));
    lab.operator_ok(&format!(
        "folder=$(dirname $CHAPERONE_CONFIG)/policies; rm $folder/*.cedar; cp {learnt} $folder; chaperone policy check; chaperone reload"
    ));
    lab.agent_ok(WORK);
    let refused =
        both(&lab.agent("export AWS_DEFAULT_REGION=eu-west-1; aws s3api delete-object --bucket data --key 'in/a 1'"));
    assert!(refused.contains("no Chaperone policy allows it"), "{refused}");
    let refused = both(&lab.agent("export AWS_DEFAULT_REGION=eu-west-1; aws sqs create-queue --queue-name other"));
    assert!(refused.contains("no Chaperone policy allows it"), "{refused}");
    drop(fs::remove_file(learnt));
}
