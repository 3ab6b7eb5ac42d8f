//! What tries to get past approvers, or to have them ask so much that others wait.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    time::{Duration, Instant},
};

use chaperone_system_tests::{Lab, both, script, text, until};
use serde_json::Value;

const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("ask") @approvers("sre") forbid (principal, action in [Action::"s3:DeleteBucket", Action::"s3:PutObject"], resource)
    unless { context.approved };
"#;

/// A lab with more settings of `[approvals]`.
fn start(approvals: &str) -> Lab {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let config = folder.path().join("approvals.toml");
    let groups = "[approvals.groups]\nsre = [\"root\", \"uid:4001\"]\n";
    fs::write(&config, format!("[approvals]\n{approvals}\n{groups}")).unwrap();
    Lab::start_in(folder, &["--aws", "moto", "--config", config.to_str().unwrap()], POLICY, &[])
}

fn deletes(lab: &Lab) -> usize {
    lab.upstream().iter().filter(|request| text(request, "method") == "DELETE").count()
}

/// The questions that are open, once there are so many.
fn asked(lab: &Lab, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    until("the questions", || {
        all = lab.list("approvals list");
        all.len() >= count
    });
    assert_eq!(all.len(), count, "{all:?}");
    all
}

/// The ids that an agent was told to wait for, in order.
fn told(said: &str) -> Vec<&str> {
    said.split("waiting for approval ").skip(1).map(|rest| rest.split(' ').next().unwrap()).collect()
}

/// One session: it makes a call, waits until it is told to go on, and makes others like it.
fn session(lab: &Lab, then: &str) -> std::process::Child {
    let go = lab.dir.join("go").display().to_string();
    lab.spawn_agent(&format!(
        "export AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1; delete() {{ aws s3api delete-bucket \"$@\" 2>&1; }}; \
         delete --bucket doomed; until [ -e {go} ]; do sleep 0.1; done; {then}"
    ))
}

#[test]
fn an_approval_fits_one_call_once() {
    let lab = start("hold = 1");
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://doomed; aws s3 mb s3://precious");
    let agent = session(
        &lab,
        "delete --bucket precious; \
         delete --bucket doomed --expected-bucket-owner 123456789012; \
         AWS_USE_DUALSTACK_ENDPOINT=true delete --bucket doomed; \
         AWS_DEFAULT_REGION=us-east-1 delete --bucket doomed; \
         echo ==1; delete --bucket doomed; echo ==2; delete --bucket doomed; true",
    );
    let id = text(&asked(&lab, 1)[0], "id").to_owned();
    until("that the client is gone", || {
        lab.list("calls").iter().any(|call| text(call, "message").contains("waiting for approval"))
    });
    lab.operator_ok(&format!("chaperone approvals approve {id}"));
    lab.file("go", "");
    let output = both(&agent.wait_with_output().unwrap());
    let [others, last] = output.split("==1").collect::<Vec<_>>()[..] else { panic!("{output}") };
    let ids = told(others);
    assert_eq!(ids.len(), 5, "the parameter, the header, the host and the region are asked for anew: {output}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 5, "{output}");
    let [once, twice] = last.split("==2").collect::<Vec<_>>()[..] else { panic!("{output}") };
    assert!(told(once).is_empty() && !once.contains("error"), "what was approved goes out: {output}");
    assert_eq!(told(twice).len(), 1, "and once: {output}");
    assert!(!ids.contains(&told(twice)[0]), "{output}");
    assert_eq!(deletes(&lab), 1);
}

#[test]
fn two_who_answer_at_once_let_one_call_out() {
    let lab = start("hold = 60\ninterim = 1");
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://doomed");
    let agent = lab.spawn_agent("export AWS_DEFAULT_REGION=eu-west-1; aws s3api delete-bucket --bucket doomed");
    let id = text(&asked(&lab, 1)[0], "id").to_owned();
    let both_answer = format!(
        "exec 3< $(command -v chaperone); setpriv --reuid 4001 --clear-groups /proc/self/fd/3 approvals approve {id} & \
         chaperone approvals approve {id}; first=$?; wait $!; echo codes $first $?"
    );
    let said = both(&lab.operator(&both_answer));
    assert!(said.contains("codes 0 ") && !said.contains("codes 0 0") || said.contains("codes 1 0"), "{said}");
    assert!(said.contains("the question is not pending"), "{said}");
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    assert_eq!(deletes(&lab), 1);
}

#[test]
fn whoever_is_taken_out_of_the_group_has_approved_nothing() {
    let lab = start("hold = 1");
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://doomed");
    let agent = session(&lab, "delete --bucket doomed; true");
    let id = text(&asked(&lab, 1)[0], "id").to_owned();
    until("that the client is gone", || {
        lab.list("calls").iter().any(|call| text(call, "message").contains("waiting for approval"))
    });
    let approve =
        "exec 3< $(command -v chaperone); setpriv --reuid 4001 --clear-groups /proc/self/fd/3 approvals approve";
    lab.operator_ok(&format!("{approve} {id}"));
    let config = lab.dir.join("config.toml");
    let before = fs::read_to_string(&config).unwrap();
    let after: String =
        before.lines().filter(|line| !line.contains("uid:4001")).map(|line| format!("{line}\n")).collect();
    assert_ne!(before, after, "{before}");
    fs::write(&config, after).unwrap();
    lab.operator_ok("chaperone reload");
    lab.file("go", "");
    let output = both(&agent.wait_with_output().unwrap());
    let ids = told(&output);
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (2, 2), "it is asked anew: {output}");
    assert_eq!(deletes(&lab), 0);
    let states: Vec<_> = lab.list("approvals list --all").iter().map(|it| text(it, "state").to_owned()).collect();
    assert_eq!(states, ["superseded", "pending"]);
}

/// The daemon's memory, in MiB.
fn memory(lab: &Lab) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", lab.daemon())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// 32 GB that nobody has approved yet are nowhere; others go on, and one more question is refused.
#[test]
fn a_thousand_large_calls_wait_and_nobody_else_does() {
    const COUNT: usize = 1000;
    let lab = start("hold = 600\ninterim = 5\nopen = 1000\nopen_per_session = 1000");
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://big");
    let other = "export AWS_DEFAULT_REGION=eu-west-1; for i in 1 2 3 4 5; do aws s3api list-buckets > /dev/null; done";
    let (small, began) = (memory(&lab), Instant::now());
    lab.agent_ok(other);
    let alone = began.elapsed();
    let mut agent =
        lab.spawn_agent_with_input(&format!("exec python3 {} {COUNT}", script("many_questions.py").display()));
    let mut said = BufReader::new(agent.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "asked\n", "{}", lab.log());
    until("all questions", || lab.list("approvals list").len() == COUNT);
    let began = Instant::now();
    let listed = lab.operator_ok("chaperone approvals list").lines().count();
    let listing = began.elapsed();
    assert_eq!(listed, COUNT);
    let large = memory(&lab);
    let began = Instant::now();
    lab.agent_ok(other);
    let beside = began.elapsed();
    let more = both(
        &lab.agent("export AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1; aws s3api delete-bucket --bucket big"),
    );
    assert!(more.contains("1000 questions are open, and no more may be"), "{more}");
    println!(
        "memory: {small} MiB, then {large} MiB; the list took {listing:?}; five other commands took {alone:?} alone and \
         {beside:?} beside them"
    );
    assert!(large - small < 512, "{small} MiB, then {large} MiB");
    // Those that are held are held for ten minutes.
    assert!(beside < alone * 3 + Duration::from_secs(10), "{alone:?} alone, {beside:?} beside them");
    writeln!(agent.stdin.as_mut().unwrap(), "look").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "answered 0\n", "nothing was answered, and nothing broke off");
    // One of them is denied, and that one alone.
    let question = lab.list("approvals list").remove(0);
    lab.operator_ok(&format!("chaperone approvals deny {} --reason 'too large'", text(&question, "id")));
    until("its answer", || {
        writeln!(agent.stdin.as_mut().unwrap(), "look").unwrap();
        line.clear();
        said.read_line(&mut line).unwrap();
        line.starts_with("answer ")
    });
    assert!(line.contains("AccessDenied") && line.contains("too large"), "{line}");
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "answered 1\n");
    drop(agent.stdin.take());
    agent.wait().unwrap();
    assert!(!lab.upstream().iter().any(|request| text(request, "path").contains("object")), "nothing went out");
}
