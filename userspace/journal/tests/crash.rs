//! A writer that is killed, and a filesystem that is full: both in a process of their own, which is this test binary
//! started again.

#![allow(clippy::unwrap_used)] // a test

#[path = "../src/samples.rs"]
#[allow(dead_code, unreachable_pub)]
mod samples;

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use chaperone_journal::{CallFilter, Calls, Journal, JournalConfig, JournalError, VerifyOptions, verify};
use chaperone_model::{CallId, Direction, OutcomeStatus, SessionId};

const CHILD_DIR: &str = "CHAPERONE_JOURNAL_TEST_DIR";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { segment_bytes: 1 << 20, checkpoint_records: 50, ..JournalConfig::new(dir) }
}

/// Runs in the child: eight tasks make calls for ever and print the id of each whose intent is acknowledged.
#[test]
#[ignore = "the child of `a_killed_writer_loses_nothing_that_it_acknowledged`"]
fn child_that_writes_until_killed() {
    let dir = std::env::var(CHILD_DIR).unwrap();
    runtime().block_on(async {
        let (journal, _) = Journal::open(config(Path::new(&dir))).unwrap();
        let session = SessionId::new();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..8u8 {
            let journal = journal.clone();
            tasks.spawn(async move {
                loop {
                    let call = CallId::new();
                    // Half of them only have to survive the daemon.
                    journal.append(&samples::intent(call, session), n % 2 == 0).await.unwrap();
                    std::io::stdout().write_all(format!("ack {call}\n").as_bytes()).unwrap();
                    let mut body = journal.body(call, Direction::Response);
                    std::future::poll_fn(|cx| body.poll_ready(cx)).await.unwrap();
                    body.push(Bytes::from(vec![n; 20_000])).unwrap();
                    let digest = body.finish();
                    journal.append_now(&samples::outcome(call, session, None, Some(digest))).unwrap();
                }
            });
        }
        tasks.join_next().await.unwrap().unwrap(); // they only end by failing
    });
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashSet::new();
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "child_that_writes_until_killed"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..300 * round {
            let line = lines.next().expect("the child ended early").unwrap();
            if let Some((_, id)) = line.split_once("ack ") {
                acknowledged.insert(id.parse::<CallId>().unwrap());
            }
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            // The pipe's last line may be cut off.
            if let Some(id) = line.split_once("ack ").and_then(|(_, id)| id.parse::<CallId>().ok()) {
                acknowledged.insert(id);
            }
        }
    }
    let (journal, _) = Journal::open(config(dir.path())).unwrap();
    runtime().block_on(journal.close()).unwrap();
    let verification = verify(dir.path(), &VerifyOptions::default(), |_, _| {}).unwrap();
    assert!(verification.is_clean(), "{:?}", verification.wrong);
    assert_eq!(verification.open_calls, 0);

    let mut calls = Calls::scan(dir.path(), CallFilter::default()).unwrap();
    let (mut recorded, mut interrupted) = (HashSet::new(), 0);
    while let Some(row) = calls.next_row().unwrap() {
        assert!(recorded.insert(row.id), "{} twice", row.id);
        interrupted += usize::from(row.outcome == Some(OutcomeStatus::Interrupted));
    }
    let lost: Vec<_> = acknowledged.difference(&recorded).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    // Outcomes of the last milliseconds before each kill were not written yet; no others are missing.
    assert!(interrupted < recorded.len() / 4, "{interrupted} of {}", recorded.len());
}

/// Runs in the child, in a mount namespace of its own, with the journal on a tmpfs of 4 MiB.
#[test]
#[ignore = "the child of `a_full_filesystem_refuses_calls_until_there_is_room`"]
fn child_on_a_small_filesystem() {
    let mount = std::env::var(CHILD_DIR).unwrap();
    let mount = Path::new(&mount);
    let ballast = mount.join("ballast");
    std::fs::write(&ballast, vec![1; 1800 << 10]).unwrap();
    runtime().block_on(async {
        let (journal, _) = Journal::open(config(&mount.join("journal"))).unwrap();
        let session = SessionId::new();
        let mut open = Vec::new();
        let mut calls = 0;
        let error = loop {
            let call = CallId::new();
            if let Err(error) = journal.append(&samples::intent(call, session), calls % 2 == 0).await {
                break error;
            }
            calls += 1;
            let mut body = journal.body(call, Direction::Response);
            let pushed = body.push(Bytes::from(vec![1; 9000]));
            let outcome = samples::outcome(call, session, None, Some(body.finish()));
            if pushed.is_err() {
                open.push(outcome);
                continue;
            }
            journal.append_now(&outcome).unwrap();
        };
        assert!(matches!(error, JournalError::Full { .. }), "{error}");
        assert!(calls > 50);
        for outcome in open {
            journal.append(&outcome, true).await.unwrap();
        }
        assert!(journal.trouble().is_some());

        std::fs::remove_file(ballast).unwrap();
        let call = loop {
            let call = CallId::new();
            match journal.append(&samples::intent(call, session), true).await {
                Ok(()) => break call,
                Err(error) => assert!(matches!(error, JournalError::Full { .. }), "{error}"),
            }
            tokio::task::yield_now().await;
        };
        journal.append(&samples::outcome(call, session, None, None), true).await.unwrap();
        journal.close().await.unwrap();
    });
    let verification = verify(&mount.join("journal"), &VerifyOptions::default(), |_, _| {}).unwrap();
    assert!(verification.is_clean() && verification.open_calls == 0, "{verification:?}");
}

#[test]
fn a_full_filesystem_refuses_calls_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"for m in $(awk '{print $5}' /proc/self/mountinfo); do mount --make-private $m 2>/dev/null; done
        mount -t tmpfs -o size=4m none "$1" && exec timeout 60 "$2" --ignored --exact child_on_a_small_filesystem"#;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "unchanged", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_DIR, dir.path())
        .output()
        .expect("`unshare` of util-linux is needed");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "(root is needed) {text}\n{errors}");
}
