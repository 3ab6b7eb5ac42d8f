//! Cgroups that come and go.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{collections::BTreeMap, fs};

use chaperone_system_tests::{Lab, PERMIT_ALL, script, text, until};

/// How many cgroups; more by `CHAPERONE_TEST_CGROUPS`.
const CGROUPS: usize = 200;

/// What the daemon holds: file descriptors, objects in the BPF file system, and resident memory in kB.
fn held(lab: &Lab) -> (usize, usize, u64) {
    let pid = lab.daemon();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let pinned = lab.operator_ok("find /sys/fs/bpf -type f | wc -l");
    (
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        pinned.trim().parse().unwrap(),
        resident.trim().trim_end_matches(" kB").parse().unwrap(),
    )
}

/// Each runs one command and is removed: most are gone before anybody in the daemon has heard of them.
#[test]
fn a_command_names_its_session_and_agent_though_its_cgroup_is_gone_at_once() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    lab.operator_ok(&format!(
        "below=$(sed -n 's|^cgroups = \\[\"\\(.*\\)/\\*\"\\]|\\1|p' $CHAPERONE_CONFIG)
         root=$(grep -m 1 ' - cgroup2 ' /proc/self/mountinfo | cut -d ' ' -f 5)
         for number in $(seq {CGROUPS}); do
             cgroup=$root$below/e-$number
             mkdir $cgroup
             sh -c \"echo 0 > $cgroup/cgroup.procs; exec /bin/echo e-$number\"
             rmdir $cgroup
         done"
    ));
    let mut commands = Vec::new();
    until("the end of every command", || {
        commands = lab.list("commands");
        commands.retain(|command| command["argv"][0] == "/bin/echo");
        commands.len() == CGROUPS && commands.iter().all(|command| !command["ended"].is_null())
    });
    let sessions = || -> BTreeMap<String, serde_json::Value> {
        lab.list("sessions").into_iter().map(|session| (text(&session, "id").to_owned(), session)).collect()
    };
    until("the end of every session", || sessions().values().all(|session| session["ended"].is_string()));
    let sessions = sessions();
    for command in &commands {
        let session = sessions.get(text(command, "session")).unwrap_or_else(|| panic!("of no session: {command}"));
        let name = command["argv"][1].as_str().unwrap();
        assert!(text(session, "cgroup").ends_with(&format!("/agents/{name}")), "{command}: {session}");
        assert_eq!(text(session, "agent"), "coder", "{session}");
    }
    let ours = sessions.values().filter(|session| text(session, "cgroup").contains("/agents/e-"));
    assert_eq!(ours.count(), CGROUPS, "one for each");
}

#[test]
fn short_lived_cgroups_each_have_their_own_session_and_leave_nothing() {
    let cgroups: usize = std::env::var("CHAPERONE_TEST_CGROUPS").map_or(CGROUPS, |count| count.parse().unwrap());
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let script = script("churn.py");
    let churn = |from: usize, to: usize| {
        let said = lab.operator_ok(&format!(
            "below=$(sed -n 's|^cgroups = \\[\"\\(.*\\)/\\*\"\\]|\\1|p' $CHAPERONE_CONFIG)
             root=$(grep -m 1 ' - cgroup2 ' /proc/self/mountinfo | cut -d ' ' -f 5)
             python3 {} {from} {to} $root$below",
            script.display()
        ));
        println!("{}", said.trim());
        until("the end of every session and connection", || {
            let status = lab.operator_ok("chaperone status --json");
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["sessions"].as_array().unwrap().is_empty() && status["connections"] == 0
        });
    };
    // What is made once and stays, such as buffers and threads, is made by these.
    let before = {
        churn(0, cgroups / 4);
        held(&lab)
    };
    churn(cgroups / 4, cgroups);

    let sessions: BTreeMap<_, _> = lab
        .list("sessions")
        .into_iter()
        .map(|session| (text(&session, "id").to_owned(), text(&session, "cgroup").to_owned()))
        .collect();
    let calls = lab.calls();
    let mut numbers: Vec<usize> = calls
        .iter()
        .map(|call| {
            let bucket = text(call, "host").split('.').next().unwrap();
            assert!(sessions[text(call, "session")].ends_with(&format!("/agents/{bucket}")), "{call}");
            bucket.strip_prefix("c-").unwrap().parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..cgroups).collect::<Vec<_>>());

    // A connection's descriptors go a moment after its end.
    let after = || held(&lab);
    until("nothing is held any more", || after().0 <= before.0);
    let after = after();
    println!("{cgroups} cgroups: descriptors, pins, resident kB: {before:?}, then {after:?}");
    assert_eq!(after.1, before.1, "pinned objects");
    assert!(after.2 < before.2 + 16 * 1024, "resident memory grew from {} to {} kB", before.2, after.2);
}
