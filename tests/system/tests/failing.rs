//! What agents get when a part fails, and that nothing is lost.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

#[path = "../../../userspace/journal/tests/next/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod next;

use std::{collections::HashSet, fs, process::Command};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text, until};
use serde_json::Value;

fn kill(pid: u32, signal: &str) {
    let done = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn killed_under_load_nothing_passes_unrecorded() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let load = script("load.py");
    let mut agents: Vec<_> =
        (0..3).map(|_| lab.spawn_agent(&format!("python3 {} 100000 60", load.display()))).collect();
    until("some load", || lab.upstream().len() > 60);
    kill(lab.daemon(), "KILL");
    // From here on every call fails.
    let output = lab
        .agent("AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1 aws --cli-connect-timeout 5 sts get-caller-identity");
    assert!(!output.status.success(), "{}", both(&output));
    let plain = lab.agent("curl -sS -m 5 https://example.com/");
    assert!(!plain.status.success(), "{}", both(&plain));
    for agent in &mut agents {
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
    lab.restart();
    lab.operator_ok("chaperone verify");
    let calls = lab.calls();
    let recorded: HashSet<&str> = calls.iter().map(|call| text(call, "target")).collect();
    let upstream = lab.upstream();
    let missing: Vec<&Value> = upstream.iter().filter(|seen| !recorded.contains(text(seen, "path"))).collect();
    assert!(missing.is_empty(), "AWS saw what has no intent: {missing:?}");
    assert!(calls.iter().all(|call| !call["outcome"].is_null()), "open calls were closed as interrupted");
    // And it works again.
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity");
}

/// After an update that was taken back: what the next version recorded is kept and counted, and the record goes on.
#[test]
fn a_daemon_goes_on_behind_what_the_next_version_recorded() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity");
    let pid = lab.daemon();
    kill(pid, "TERM");
    until("the end", || {
        !fs::exists(format!("/proc/{pid}")).unwrap()
            || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    let journal = lab.dir.join("journal");
    let mut segment = next::Segment::begin(&journal, &serde_json::json!({ "minor": 77, "written_by": "9.9.9" }));
    segment.event([7; 16], &serde_json::json!({ "event": "call-held" }));
    segment.record(200, 0x84, [8; 16], 0, next::sha256(b"new"), b"new");
    segment.end();

    lab.restart();
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity");
    assert_eq!(lab.calls().len(), 2);
    let verified: Value = serde_json::from_str(&lab.operator_ok("chaperone verify --json")).unwrap();
    let counts = ["clean", "unknown_events", "unknown_records", "unknown_flags"].map(|name| verified[name].clone());
    assert_eq!(counts, [Value::Bool(true), 1.into(), 1.into(), 1.into()], "{verified}");
    let told = lab.operator_ok("chaperone verify");
    assert!(told.contains("1 events that this version doesn't know"), "{told}");

    // What it can't read it refuses, and says what to do.
    let pid = lab.daemon();
    kill(pid, "TERM");
    until("the end", || {
        !fs::exists(format!("/proc/{pid}")).unwrap()
            || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    // A lab's journal is verified at its end.
    let kept = lab.dir.join("journal.kept");
    assert!(Command::new("cp").arg("-a").args([&journal, &kept]).status().unwrap().success());
    next::Segment::begin(&journal, &serde_json::json!({ "requires": ["sealed-heads"], "written_by": "9.9.9" })).end();
    let output = lab.operator("chaperone verify");
    let said = both(&output);
    fs::remove_dir_all(&journal).unwrap();
    fs::rename(&kept, &journal).unwrap();
    assert!(!output.status.success() && said.contains("Chaperone 9.9.9") && said.contains("`sealed-heads`"), "{said}");
}

#[test]
fn a_stopped_daemon_finishes_what_is_under_way() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity");
    let pid = lab.daemon();
    kill(pid, "TERM");
    until("the end", || {
        !fs::exists(format!("/proc/{pid}")).unwrap()
            || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    let output = lab.agent("curl -sS -m 5 https://sts.eu-west-1.amazonaws.com/");
    assert!(!output.status.success(), "{}", both(&output));
    let verified: Value = serde_json::from_str(&lab.operator_ok("chaperone verify --json")).unwrap();
    assert_eq!((&verified["clean"], &verified["open_calls"]), (&Value::Bool(true), &Value::from(0)));
    assert!(verified["checkpoints"].as_u64() > Some(0), "the last checkpoint covers all: {verified}");

    // Taken off, agents are free, and that is in the record.
    let before = verified["events"].as_u64().unwrap();
    lab.operator_ok("chaperone disable");
    let output = lab.agent("curl -ksS -m 5 https://sts.eu-west-1.amazonaws.com/");
    assert!(output.status.success(), "{}", both(&output));
    let verified: Value = serde_json::from_str(&lab.operator_ok("chaperone verify --json")).unwrap();
    assert_eq!((&verified["clean"], verified["events"].as_u64()), (&Value::Bool(true), Some(before + 1)));
    let there = lab.operator_ok("chaperone disable");
    assert!(there.contains("no hooks"), "{there}");
}

#[test]
fn a_policy_that_is_wrong_leaves_the_old_one_in_force() {
    let lab = Lab::start(&["--aws", "moto"]);
    let broken = lab.operator("echo 'permit (principal, action == Action::\"s3:Nope\", resource);' > $CHAPERONE_LAB/policies/z.cedar; chaperone reload");
    assert!(!broken.status.success() && both(&broken).contains("z.cedar:1:"), "{}", both(&broken));
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws s3 ls");
    lab.operator_ok("echo '@id(\"none\") forbid (principal, action, resource);' > $CHAPERONE_LAB/policies/z.cedar; chaperone reload");
    let output = lab.agent("AWS_DEFAULT_REGION=eu-west-1 aws s3 ls");
    assert!(both(&output).contains("none"), "{}", both(&output));
}

/// A call has the policies that were in force when its head had been read, whatever is reloaded before its body is there.
#[test]
fn a_reload_in_the_middle_of_a_call_is_for_the_next_one() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let status = || -> Value { serde_json::from_str(&lab.operator_ok("chaperone status --json")).unwrap() };
    let (go, before) = (lab.dir.join("home/root/go"), status());
    let half = lab.spawn_agent(&format!("python3 {} {}", script("half.py").display(), go.display()));
    until("the middle of the call", || status()["requests"].as_u64() > before["requests"].as_u64());
    lab.operator_ok("echo '@id(\"none\") forbid (principal, action, resource);' > $CHAPERONE_LAB/policies/z.cedar; chaperone reload");
    let after = status();
    assert_ne!(before["policy_version"], after["policy_version"]);
    fs::write(&go, "").unwrap();
    let answered = both(&half.wait_with_output().unwrap());
    assert!(answered.contains("200 OK") && answered.contains("GetCallerIdentityResult"), "{answered}\n{}", lab.log());
    let next = lab.agent("AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity");
    assert!(both(&next).contains("none"), "{}", both(&next));
    let calls = lab.calls();
    let versions: Vec<_> = calls.iter().map(|call| (&call["decision"], &call["policy_version"])).collect();
    let (allow, deny) = (Value::from("allow"), Value::from("deny"));
    assert_eq!(versions, [(&allow, &before["policy_version"]), (&deny, &after["policy_version"])], "{calls:?}");
}

#[test]
fn a_reload_that_would_put_only_a_part_in_force_is_refused() {
    let lab = Lab::start(&["--aws", "moto"]);
    let before = lab.operator_ok("cat $CHAPERONE_CONFIG");
    lab.operator_ok("printf '[commands]\\nmask = [\"CORP-[0-9]+\"]\\n' >> $CHAPERONE_CONFIG");
    let refused = lab.operator("chaperone reload");
    assert!(!refused.status.success() && both(&refused).contains("commands.mask"), "{}", both(&refused));
    lab.operator_ok(&format!("cat > $CHAPERONE_CONFIG <<'C'\n{before}\nC\nchaperone reload"));
}

#[test]
fn a_full_disk_refuses_calls_until_there_is_room() {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let config = folder.path().join("full.toml");
    fs::write(&config, format!("[journal]\ndir = \"{}/journal\"\nsegment_bytes = 8388608\n", small.display())).unwrap();
    // A mount namespace around the lab: its journal is on 48 MB.
    let mount = format!(
        "for m in $(awk '{{print $5}}' /proc/self/mountinfo); do mount --make-private $m 2>/dev/null; done; mount -t tmpfs -o size=48m journal {} && exec \"$@\"",
        small.display()
    );
    let wrapper = ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", &mount, "sh"];
    let lab = Lab::start_in(folder, &["--aws", "s3", "--config", &config.display().to_string()], PERMIT_ALL, &wrapper);
    let aws = "export AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1; cd $HOME;";
    lab.agent_ok(&format!("{aws} aws s3 mb s3://full && head -c 1000000 /dev/urandom > part"));
    let ballast = format!("head -c 100000000 /dev/zero > {}/ballast 2>/dev/null; true", small.display());
    lab.operator_ok(&ballast);
    let mut refused = String::new();
    for _ in 0..60 {
        let output = lab.agent(&format!("{aws} aws s3api put-object --bucket full --key k --body part"));
        if !output.status.success() {
            refused = both(&output);
            break;
        }
    }
    assert!(
        refused.contains("SlowDown") || refused.contains("ServiceUnavailable") || refused.contains("503"),
        "{refused}"
    );
    // Requests that were broken off because their body could not be recorded are no calls.
    let whole = || lab.upstream().iter().filter(|seen| seen["complete"] == true).count();
    let before = whole();
    let again = lab.agent(&format!("{aws} aws s3api put-object --bucket full --key k2 --body part"));
    assert!(!again.status.success(), "{}", both(&again));
    assert_eq!(whole(), before, "what can't be recorded doesn't happen");
    lab.operator_ok(&format!("rm {}/ballast", small.display()));
    until("room again", || {
        lab.agent(&format!("{aws} aws s3api put-object --bucket full --key k3 --body part")).status.success()
    });
    lab.operator_ok("chaperone verify");
}

#[test]
fn clickhouse_away_loses_nothing_and_doubles_nothing() {
    let lab = Lab::start_with(&["--aws", "moto", "--warehouse"], PERMIT_ALL);
    let load = script("load.py");
    let mut agent = lab.spawn_agent(&format!("python3 {} 1500 600", load.display()));
    until("some load", || lab.upstream().len() > 100);
    let warehouse: Value = serde_json::from_str(&fs::read_to_string(lab.dir.join("clickhouse.json")).unwrap()).unwrap();
    let pid = u32::try_from(warehouse["pid"].as_u64().expect("ClickHouse's pid")).unwrap();
    kill(pid, "KILL");
    let then = lab.upstream().len();
    until("calls without ClickHouse", || lab.upstream().len() > then + 200);
    let start = warehouse["start"].as_str().expect("how ClickHouse is started");
    lab.operator_ok(&format!("{start} > $CHAPERONE_LAB/clickhouse-again.log 2>&1 & echo started"));
    assert!(agent.wait().unwrap().success());
    let calls = lab.calls();
    let sum: u64 = calls.iter().map(|call| call["response_bytes"].as_u64().unwrap()).sum();
    let url = text(&warehouse, "url");
    let database = text(&warehouse, "database");
    let query = format!(
        "curl -sS '{url}' --data-binary 'SELECT count(), uniqExact(id), sum(response_bytes) FROM {database}.calls FINAL FORMAT TSV'"
    );
    let wanted = format!("{}\t{}\t{sum}", calls.len(), calls.len());
    until("everything shipped", || String::from_utf8_lossy(&lab.operator(&query).stdout).trim() == wanted);
}
