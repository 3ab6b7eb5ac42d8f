//! What agents share: one that floods the daemon in any way keeps nobody else from it.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::io::{BufRead as _, BufReader};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text};

const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1;";
/// The most that the daemon may ever have held, in KiB.
const MOST_KIB: u64 = 256 << 10;

fn peak(lab: &Lab) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.daemon())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    peak.parse().unwrap()
}

/// Each kind of flood in one session, while another one makes its calls: none of them fails, nor takes seconds.
fn flood(kind: &str) -> Lab {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://load"));
    let mut flood = lab.spawn_agent(&format!("exec python3 {} {kind} 12", script("flood.py").display()));
    let mut said = String::new();
    BufReader::new(flood.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n", "{}", lab.log());
    let victim = lab.agent(&format!("{REGION} python3 {} 1000 6", script("load.py").display()));
    let over = flood.wait().unwrap();
    assert!(victim.status.success(), "{kind}: {}\n{}", both(&victim), lab.log());
    assert!(over.success(), "{kind}");
    let peak = peak(&lab);
    assert!(peak < MOST_KIB, "{kind}: the daemon came to {peak} KiB");
    println!("{kind}: {peak} KiB");
    lab
}

#[test]
fn xml_with_very_many_attributes_keeps_nobody_waiting() {
    flood("attributes");
}

#[test]
fn bodies_that_are_announced_and_do_not_come_keep_nobody_waiting() {
    flood("bodies");
}

#[test]
fn large_heads_over_http2_keep_nobody_waiting() {
    flood("heads");
}

#[test]
fn refused_bodies_keep_nobody_waiting_and_do_not_fill_the_journal() {
    let lab = flood("refusals");
    let calls = lab.calls().into_iter().filter(|call| text(call, "reason") == "foreign-authority");
    let sizes: Vec<_> = calls.map(|call| call["request_bytes"].as_u64().unwrap_or_default()).collect();
    // What was read is in the digest; what is recorded of it is little.
    assert!(sizes.iter().any(|size| *size > 1 << 20), "{sizes:?}");
    let verified = lab.operator_ok("chaperone verify --json");
    let recorded = serde_json::from_str::<serde_json::Value>(&verified).unwrap()["body_bytes"].as_u64().unwrap();
    assert!(recorded < 16 << 20, "{recorded} bytes of bodies are recorded, of {} refused calls", sizes.len());
}

#[test]
fn connections_without_number_keep_nobody_waiting() {
    flood("connections");
}
