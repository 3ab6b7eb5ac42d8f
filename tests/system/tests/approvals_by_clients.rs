//! Clients that nothing is configured for, whose calls wait for a person: approved, denied, killed, and with a daemon that is
//! killed meanwhile. Each call goes out exactly once or not at all, and the record says which. `docs/clients.md` has the table.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use chaperone_system_tests::{Lab, both, installed, text, until};
use serde_json::Value;

const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("ask") @approvers("sre") forbid (principal, action in [Action::"s3:DeleteBucket"], resource) unless { context.approved };
"#;

/// A lab as it comes, but for how often interim answers are sent, so that there is more than one in a few seconds.
fn start(more: &str) -> Lab {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let config = folder.path().join("approvals.toml");
    fs::write(&config, format!("[approvals]\n{more}\n[approvals.groups]\nsre = [\"root\"]\n")).unwrap();
    Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[])
}

/// The question that is open, once there is one.
fn asked(lab: &Lab) -> Value {
    let mut all = Vec::new();
    until("a question", || {
        all = lab.list("approvals list");
        all.retain(|one| text(one, "state") == "pending");
        !all.is_empty()
    });
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn answer(lab: &Lab, question: &Value, how: &str) {
    lab.operator_ok(&format!("chaperone approvals {} {}", how.replace("ID", text(question, "id")), ""));
}

/// How often that bucket's end was asked for at AWS.
fn sent(lab: &Lab, bucket: &str) -> usize {
    let is = |it: &&Value| {
        text(it, "method") == "DELETE" && format!("{}{}", text(it, "host"), text(it, "path")).contains(bucket)
    };
    lab.upstream().iter().filter(is).count()
}

/// How often the record says that it was let out.
fn recorded(lab: &Lab, bucket: &str) -> usize {
    let calls = lab.calls_like("--decision allow");
    let is = |it: &&Value| text(it, "operation") == "DeleteBucket" && it["resources"].to_string().contains(bucket);
    calls.iter().filter(is).count()
}

/// Until the question is so old.
fn after(question: &Value, seconds: u64) {
    let asked_at = question["at"].as_u64().unwrap();
    until("some seconds after the question", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_millis() > u128::from(asked_at + seconds * 1000)
    });
}

/// Takes a client, by a command that deletes the bucket `$1` and prints what went wrong, through what may happen.
fn waits(client: &str) {
    let lab = start("interim = 1");
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; for name in approved denied killed restarted; do aws s3 mb s3://by-$name; done");
    let run = |bucket: &str| {
        format!(
            "export AWS_DEFAULT_REGION=eu-west-1 AWS_REGION=eu-west-1; delete() {{ {client}; }}; delete by-{bucket}"
        )
    };

    let agent = lab.spawn_agent(&run("approved"));
    let question = asked(&lab);
    after(&question, 5);
    answer(&lab, &question, "approve ID");
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());
    assert_eq!((sent(&lab, "by-approved"), recorded(&lab, "by-approved")), (1, 1));

    let agent = lab.spawn_agent(&run("denied"));
    answer(&lab, &asked(&lab), "deny ID --reason 'it is in use'");
    let output = agent.wait_with_output().unwrap();
    assert!(!output.status.success() && both(&output).contains("root denied it: it is in use"), "{}", both(&output));
    assert_eq!((sent(&lab, "by-denied"), recorded(&lab, "by-denied")), (0, 0));

    // Killed with all that it started, while it waits; approved when nobody is there any more.
    let agent = lab.spawn_agent(&run("killed"));
    let question = asked(&lab);
    let session = text(&question, "session").to_owned();
    let status: Value = serde_json::from_str(&lab.operator_ok("chaperone status --json")).unwrap();
    let all = status["sessions"].as_array().unwrap().clone();
    let cgroup = all.iter().find(|it| text(it, "id") == session).map(|it| text(it, "cgroup_path").to_owned()).unwrap();
    lab.operator_ok(&format!("echo 1 > $(findmnt -n -t cgroup2 -o TARGET | tail -1){cgroup}/cgroup.kill"));
    agent.wait_with_output().unwrap();
    answer(&lab, &question, "approve ID");
    assert_eq!((sent(&lab, "by-killed"), recorded(&lab, "by-killed")), (0, 0));

    let agent = lab.spawn_agent(&run("restarted"));
    let question = asked(&lab);
    let daemon = lab.daemon();
    lab.operator_ok(&format!("kill -9 {daemon}"));
    until("the daemon's end", || {
        !fs::read_to_string(format!("/proc/{daemon}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
    lab.restart();
    answer(&lab, &question, "approve ID");
    let output = agent.wait_with_output().unwrap();
    // How long a client tries again is its own affair: it goes out once if it came back in time, or not at all.
    let times = usize::from(output.status.success());
    println!("daemon killed while it waits: {}", both(&output));
    assert_eq!((sent(&lab, "by-restarted"), recorded(&lab, "by-restarted")), (times, times), "{}", both(&output));
}

#[test]
fn aws_cli_1() {
    waits("aws s3api delete-bucket --bucket $1");
}

#[test]
fn aws_cli_2() {
    waits("/usr/bin/aws s3api delete-bucket --bucket $1");
}

const BOTO3: &str = "python3 -c 'import boto3, sys; boto3.client(\"s3\").delete_bucket(Bucket=sys.argv[1])' $1";

#[test]
fn boto3() {
    waits(BOTO3);
}

fn javascript() -> String {
    format!(
        "cd {} && node --input-type=module -e 'import {{ S3Client, DeleteBucketCommand }} from \"@aws-sdk/client-s3\"; \
         await new S3Client({{}}).send(new DeleteBucketCommand({{ Bucket: process.argv[1] }}))' $1",
        installed("js").display()
    )
}

#[test]
fn javascript_sdk_3() {
    waits(&javascript());
}

#[cfg(feature = "all-clients")]
#[test]
fn go_sdk_2_waits() {
    waits(&format!("{} $1 delete", installed("go").join("client").display()));
}

#[cfg(feature = "all-clients")]
#[test]
fn java_sdk_2_waits_by_its_three_http_clients() {
    let script = chaperone_system_tests::client("java.sh");
    for how in ["apache", "netty", "crt"] {
        waits(&format!("cd && sh {} {} $1 {how}", script.display(), installed("java").display()));
    }
}

#[cfg(feature = "all-clients")]
#[test]
fn rust_sdk_waits() {
    waits(&format!("{} $1 delete", installed("rust").join("client").display()));
}

/// What takes minutes: a person who answers after 100 seconds, when clients' read timeouts are over, and after 4 minutes, across
/// retries; and nobody, within the shortest time that a question may be open.
#[cfg(feature = "all-clients")]
#[test]
fn people_take_minutes() {
    for (client, name) in [(BOTO3.to_owned(), "boto3"), (javascript(), "javascript")] {
        let lab = start("expires = 60");
        for (bucket, seconds) in [("by-second", 100), ("by-minute", 240)] {
            lab.agent_ok(&format!("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://{bucket}"));
            // After their own retries the same command is run again, as the error says.
            let script = format!(
                "export AWS_DEFAULT_REGION=eu-west-1 AWS_REGION=eu-west-1; delete() {{ {client}; }}; i=0; \
                 until (delete {bucket}); do i=$((i+1)); [ $i -lt 9 ] || exit 1; done; echo again $i"
            );
            let agent = lab.spawn_agent(&script);
            let question = asked(&lab);
            let asked_at = question["at"].as_u64().unwrap();
            // Longer than `until` waits for anything.
            let answered_at = UNIX_EPOCH + std::time::Duration::from_millis(asked_at + seconds * 1000);
            while let Some(left) = answered_at.duration_since(SystemTime::now()).ok().filter(|left| !left.is_zero()) {
                std::thread::park_timeout(left);
            }
            answer(&lab, &question, "approve ID");
            let output = agent.wait_with_output().unwrap();
            assert!(output.status.success(), "{name}: {}\n{}", both(&output), lab.log());
            println!("{name}, after {seconds} s: {}", both(&output));
            assert_eq!((sent(&lab, bucket), recorded(&lab, bucket)), (1, 1), "{name}");
        }
    }
    let lab = start("hold = 90\ninterim = 1\nexpires = 1");
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://by-nobody");
    let output = both(&lab.agent("export AWS_DEFAULT_REGION=eu-west-1; aws s3api delete-bucket --bucket by-nobody"));
    assert!(output.contains("AccessDenied") && output.contains("nobody answered in time"), "{output}");
    assert_eq!((sent(&lab, "by-nobody"), recorded(&lab, "by-nobody")), (0, 0));
}
