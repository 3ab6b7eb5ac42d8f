//! How much an agent may do.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::fs;

use chaperone_system_tests::{Lab, both, text, until};

const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("many") forbid (principal, action == Action::"s3:DeleteObject", resource) when { context.over_budget.contains("deletes") };
"#;
const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

fn start(budgets: &str) -> Lab {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let config = folder.path().join("budgets.toml");
    fs::write(&config, budgets).unwrap();
    Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[])
}

/// 32 threads, each of which calls until it is told that it is enough, whatever else happens in between.
const MANY: &str = "import boto3, botocore, threading, time
config = botocore.config.Config(retries={'total_max_attempts': 1}, connect_timeout=5, read_timeout=20)
made = [boto3.session.Session().client('s3', config=config) for _ in range(32)]
def call(s3):
    while True:
        try: s3.list_buckets()
        except botocore.exceptions.ClientError as error:
            if 'budget' in str(error): return print(error, flush=True)
        except Exception: time.sleep(0.2)
all = [threading.Thread(target=call, args=[one]) for one in made]
for one in all: one.start()
for one in all: one.join()
";

#[test]
fn a_hundred_calls_are_a_hundred_over_many_connections_and_a_killed_daemon() {
    let lab = start("[[budgets]]\nname = \"calls\"\ncount = \"calls\"\nlimit = 100\nwindow = 86400\n");
    let script = lab.file("many.py", MANY);
    let agent = lab.spawn_agent(&format!("{REGION} exec python3 {script}"));
    until("thirty calls", || lab.upstream().len() > 30);
    let daemon = lab.daemon();
    lab.operator_ok(&format!("kill -9 {daemon}"));
    until("the daemon's end", || {
        !fs::read_to_string(format!("/proc/{daemon}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
    lab.restart();
    let output = agent.wait_with_output().unwrap();
    let told = both(&output);
    assert!(output.status.success(), "{told}\n{}", lab.log());
    assert_eq!(told.matches("the budget `calls` of `coder` is used up (100 calls in 1 days)").count(), 32, "{told}");
    let permitted = lab.calls_like("--decision allow").len();
    let sent = lab.upstream().len();
    assert_eq!(permitted, 100, "{sent} were sent");
    // What was recorded and not yet sent when the daemon was killed is at most one of each thread.
    assert!((68..=100).contains(&sent), "{sent}");
    assert!(lab.operator_ok("chaperone status").contains("calls of coder: 100 of 100"));
}

#[test]
fn policies_see_a_budget_and_others_stop_the_agent() {
    let lab = start(
        "[[budgets]]\nname = \"deletes\"\ncount = \"calls\"\nactions = [\"s3:DeleteObject*\"]\nlimit = 1\nover = \"policy\"\n\
         [[budgets]]\nname = \"buckets\"\ncount = \"resources\"\nactions = [\"s3:CreateBucket\"]\nlimit = 2\nover = \"stop\"\n",
    );
    lab.agent_ok(&format!(
        "{REGION} aws s3 mb s3://one; aws s3 mb s3://two; aws s3api delete-object --bucket one --key a"
    ));
    let again = both(&lab.agent(&format!("{REGION} aws s3api delete-object --bucket one --key b")));
    assert!(again.contains("explicit deny in the Chaperone policy many"), "{again}");
    lab.agent_ok(&format!("{REGION} aws s3api list-buckets"));
    let third = both(&lab.agent(&format!("{REGION} aws s3 mb s3://three")));
    assert!(third.contains("the budget `buckets` of `coder` is used up"), "{third}");
    let stopped = both(&lab.agent(&format!("{REGION} aws s3api list-buckets")));
    assert!(stopped.contains("is stopped by its budget"), "{stopped}");
    let reasons: Vec<_> =
        lab.calls_like("--decision deny").iter().map(|call| text(call, "reason").to_owned()).collect();
    assert!(
        ["forbidden", "over-budget", "stopped"].iter().all(|one| reasons.iter().any(|it| it == one)),
        "{reasons:?}"
    );
    lab.operator_ok("chaperone resume coder");
    lab.agent_ok(&format!("{REGION} aws s3api list-buckets"));
}
