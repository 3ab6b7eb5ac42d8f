//! Calls that wait for a person.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::fs;

use chaperone_system_tests::{Lab, both, text, until};
use serde_json::Value;

const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("ask") @approvers("sre") forbid (principal, action in [Action::"s3:DeleteBucket", Action::"sqs:PurgeQueue"], resource)
    unless { context.approved };
@id("two") @approvers("sre, security") @approvals_needed("2")
forbid (principal, action == Action::"iam:DeleteUser", resource) unless { context.approved };
"#;
const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

/// A lab whose daemon holds calls for so many seconds. The approvers are root and two users without a name.
fn start(hold: u32) -> Lab {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let config = folder.path().join("approvals.toml");
    let groups = "sre = [\"root\", \"uid:4001\"]\nsecurity = [\"uid:4002\"]";
    fs::write(&config, format!("[approvals]\nhold = {hold}\ninterim = 1\n[approvals.groups]\n{groups}\n")).unwrap();
    Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[])
}

/// The questions that are open, once there is one.
fn asked(lab: &Lab) -> Value {
    let mut all = Vec::new();
    until("a question", || {
        all = lab.list("approvals list");
        !all.is_empty()
    });
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// How often moto was asked for that operation by form or path.
fn sent(lab: &Lab, method: &str) -> usize {
    lab.upstream().iter().filter(|request| text(request, "method") == method).count()
}

/// A command as that user, who is no agent.
fn as_user(lab: &Lab, user: u32, command: &str) -> std::process::Output {
    lab.operator(&format!("chmod a+x . 2>/dev/null; setpriv --reuid {user} --clear-groups {command}"))
}

#[test]
fn a_call_waits_for_a_person_and_goes_out_once() {
    let lab = start(3);
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://doomed"));
    let agent = lab.spawn_agent(&format!("{REGION} cd /usr; aws s3api delete-bucket --bucket doomed"));
    let question = asked(&lab);
    let id = text(&question, "id").to_owned();
    // Whoever is asked sees what it is about.
    let shown = lab.operator_ok(&format!("chaperone approvals show {id}"));
    for wanted in ["s3:DeleteBucket on arn:aws:s3:::doomed", "delete-bucket --bucket doomed", "1 of sre (policy ask)"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    // It has been held, told to come again, and come.
    until("a retry", || {
        let held = |call: &&Value| text(call, "message").contains("waiting for approval");
        lab.list("calls").iter().filter(held).count() >= 2
    });
    assert_eq!(sent(&lab, "DELETE"), 0);
    lab.operator_ok(&format!("chaperone approvals approve {id}"));
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());
    assert_eq!(sent(&lab, "DELETE"), 1);
    let calls = lab.calls();
    let done: Vec<_> = calls
        .iter()
        .filter(|call| text(call, "decision") == "allow" && text(call, "operation") == "DeleteBucket")
        .collect();
    assert_eq!(done.len(), 1, "{calls:?}");
    assert!(text(done[0], "message").contains(&format!("approved by root ({id})")), "{}", done[0]);
    let all = lab.list("approvals list --all");
    assert_eq!((all.len(), text(&all[0], "state")), (1, "used"));
    // The same command once more asks anew, and no is an answer that the agent reads.
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://doomed"));
    let agent = lab.spawn_agent(&format!("{REGION} aws s3api delete-bucket --bucket doomed"));
    let again = asked(&lab);
    assert_ne!(text(&again, "id"), id);
    lab.operator_ok(&format!("chaperone approvals deny {} --reason 'it is in use'", text(&again, "id")));
    let output = both(&agent.wait_with_output().unwrap());
    assert!(output.contains("AccessDenied") && output.contains("root denied it: it is in use"), "{output}");
    assert_eq!(sent(&lab, "DELETE"), 1);
}

/// A client that gives up after two seconds without a byte waits for much longer than that, and asks once.
#[test]
fn interim_answers_keep_a_client_waiting_past_its_read_timeout() {
    let lab = start(60);
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://doomed"));
    let client = "import boto3, botocore.config
config = botocore.config.Config(read_timeout=2, retries={'total_max_attempts': 1})
print(boto3.client('s3', config=config).delete_bucket(Bucket='doomed')['ResponseMetadata']['HTTPStatusCode'])";
    let agent = lab.spawn_agent(&format!("{REGION} exec python3 -c \"{client}\""));
    let question = asked(&lab);
    let asked_at = question["at"].as_u64().unwrap();
    until("six seconds after the question", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_millis() > u128::from(asked_at + 6_000)
    });
    lab.operator_ok(&format!("chaperone approvals approve {}", text(&question, "id")));
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success() && both(&output).contains("204"), "{}\n{}", both(&output), lab.log());
    assert_eq!(lab.calls().iter().filter(|call| text(call, "operation") == "DeleteBucket").count(), 1);
}

#[test]
fn who_may_approve_is_said_by_the_kernel_and_the_configuration() {
    let lab = start(60);
    lab.agent_ok(&format!("{REGION} aws iam create-user --user-name eve"));
    let agent = lab.spawn_agent(&format!("{REGION} aws iam delete-user --user-name eve"));
    let id = text(&asked(&lab), "id").to_owned();
    let program = lab.operator_ok("command -v chaperone");
    let config = lab.operator_ok("printenv CHAPERONE_CONFIG");
    let approve = format!("{} --config {} approvals approve {id}", program.trim(), config.trim());
    // Somebody, and an agent.
    let nobody = as_user(&lab, 4003, &approve);
    assert!(!nobody.status.success() && both(&nobody).contains("may not answer it"), "{}", both(&nobody));
    assert!(both(&as_user(&lab, 4003, "chaperone approvals list")).contains("no questions"));
    let own = lab.agent(&approve);
    assert!(!own.status.success() && both(&own).contains("agents approve nothing"), "{}", both(&own));
    // One of two, who doesn't count twice; and another.
    assert!(both(&as_user(&lab, 4002, &approve)).contains("others must approve it, too"));
    let twice = as_user(&lab, 4002, &approve);
    assert!(!twice.status.success() && both(&twice).contains("has approved it already"), "{}", both(&twice));
    assert!(both(&as_user(&lab, 4001, &approve)).contains("approved"));
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());
    let call =
        lab.calls_like("--decision allow").into_iter().find(|call| text(call, "operation") == "DeleteUser").unwrap();
    assert!(text(&call, "message").contains("approved by uid:4002, uid:4001"), "{call}");
}

/// Questions outlive the daemon, and an approval fits its call alone.
#[test]
fn a_question_survives_a_restart_and_its_approval_fits_nothing_else() {
    let lab = start(1);
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://doomed; aws s3 mb s3://precious"));
    let tries = "i=0; until AWS_MAX_ATTEMPTS=1 aws s3api delete-bucket --bucket doomed; do i=$((i+1)); [ $i -lt 60 ] || exit 1; done";
    let agent = lab.spawn_agent(&format!("{REGION} {tries}"));
    let id = text(&asked(&lab), "id").to_owned();
    let daemon = lab.daemon();
    lab.operator_ok(&format!("kill -9 {daemon}"));
    until("the daemon's end", || {
        !fs::read_to_string(format!("/proc/{daemon}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
    lab.restart();
    assert_eq!(text(&asked(&lab), "id"), id);
    lab.operator_ok(&format!("chaperone approvals approve {id}"));
    // Another call of another session's is another question.
    let other = lab.agent(&format!("{REGION} AWS_MAX_ATTEMPTS=1 aws s3api delete-bucket --bucket precious"));
    assert!(both(&other).contains("waiting for approval"), "{}", both(&other));
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());
    assert_eq!(sent(&lab, "DELETE"), 1);
    let all = lab.list("approvals list --all");
    assert_eq!((all.len(), text(&all[0], "state"), text(&all[1], "state")), (2, "used", "pending"), "{all:?}");
}
