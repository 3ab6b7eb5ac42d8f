//! Cgroups that are enrolled by their path when they appear.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use chaperone_capture::{Capture, CgroupRules, CommandEvent, ListenPorts, PendingPatterns, cgroup_id, cgroup_root};
use nix::mount::{MsFlags, mount};

use crate::{
    dial,
    lab::{Lab, accept, agent, count},
};

/// Names the lab's `agent-*.service`, at any depth below slices.
fn rules(lab: &Lab) -> CgroupRules {
    let name = lab.cgroup.file_name().unwrap().to_str().unwrap().replace('-', r"\x2d");
    CgroupRules::new(&[format!(r"/{name}(?:/[^/]*\x2eslice)*/agent\x2d[^/]*\x2eservice")]).unwrap()
}

fn is_enrolled(capture: &Capture, cgroup: &Path) -> bool {
    capture.enrolled().unwrap().contains(&cgroup_id(cgroup).unwrap())
}

#[test]
fn what_a_rule_names_is_enrolled_when_it_appears_and_nothing_else() {
    let lab = Lab::new();
    let there = lab.cgroup("agent-0.service/deeper");
    let capture = Capture::attach(&lab.config).unwrap();
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    assert_eq!(capture.enroll_by(&rules(&lab)).unwrap(), []);
    assert_eq!(capture.enrolled().unwrap(), [cgroup_id(there.parent().unwrap()).unwrap()]);

    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    for (name, captured) in [
        ("agent-1.service", true),
        ("a.slice/a-b.slice/agent-2.service", true),
        ("agent-1.service/below", true),
        ("other.service", false),
        ("other.service/agent-3.service", false),
        ("agent-4.services", false),
    ] {
        let cgroup = lab.cgroup(name);
        let agent = agent(&cgroup, || dial("127.77.0.1:443"));
        let stream = accept(if captured { &listeners.v4 } else { &server });
        assert_eq!(agent.said(), "127.77.0.1:443", "{name}");
        if captured {
            assert_eq!(capture.origins().of(&stream).unwrap().cgroup, cgroup_id(&cgroup).unwrap(), "{name}");
        }
    }
    assert_eq!(capture.enrolled().unwrap().len(), 3);
}

#[test]
fn a_command_is_told_with_its_cgroups_path_though_the_cgroup_is_gone() {
    let lab = Lab::new();
    let mut capture = Capture::attach(&lab.config).unwrap();
    assert_eq!(capture.enroll_by(&rules(&lab)).unwrap(), []);
    let mut commands = capture.take_commands().unwrap();
    let mut wanted = Vec::new();
    for number in 0..count(20) {
        // Every other one is below one that is enrolled, and not named by a rule itself.
        let below = if number % 2 == 0 { "" } else { "/job" };
        let own = lab.cgroup(&format!("agent-{number}.service"));
        let cgroup = lab.cgroup(&format!("agent-{number}.service{below}"));
        let procs = cgroup.join("cgroup.procs");
        let mut command = Command::new("/bin/true");
        // SAFETY: one write to a file; the test's other threads hold no lock that this takes.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
        assert!(command.status().unwrap().success());
        let path = format!("/{}", cgroup.strip_prefix(cgroup_root().unwrap()).unwrap().display());
        wanted.push((cgroup_id(&own).unwrap(), cgroup_id(&cgroup).unwrap(), Some(path)));
        fs::remove_dir(&cgroup).unwrap();
        if cgroup != own {
            fs::remove_dir(&own).unwrap();
        }
    }
    let mut told = Vec::new();
    while told.len() < wanted.len() {
        let events = commands.read().unwrap();
        told.extend(events.into_iter().filter_map(|event| match event {
            CommandEvent::Started(started) => Some((started.enrolled, started.cgroup, started.path)),
            _ => None,
        }));
        commands.wait(Duration::from_millis(100)).unwrap();
    }
    assert_eq!(told, wanted);
}

#[test]
fn what_appears_while_no_daemon_runs_is_refused() {
    let lab = Lab::new();
    let capture = Capture::attach(&lab.config).unwrap();
    capture.listen(ListenPorts::default()).unwrap();
    capture.enroll_by(&rules(&lab)).unwrap();
    drop(capture);
    let _server = TcpListener::bind("127.77.0.1:443").unwrap();
    let cgroup = lab.cgroup("agent-1.service");
    assert_eq!(agent(&cgroup, || dial("127.77.0.1:443")).said(), "EPERM");
    // The next daemon's rules are put in the place of these.
    let capture = Capture::attach(&lab.config).unwrap();
    assert!(is_enrolled(&capture, &cgroup));
    let name = lab.cgroup.file_name().unwrap().to_str().unwrap().replace('-', r"\x2d");
    capture.enroll_by(&CgroupRules::new(&[format!("/{name}/job[^/]*")]).unwrap()).unwrap();
    assert!(!is_enrolled(&capture, &cgroup));
    assert!(!is_enrolled(&capture, &lab.cgroup("agent-2.service")));
    assert!(is_enrolled(&capture, &lab.cgroup("job1")));
    for rules in [rules(&lab), CgroupRules::default()] {
        capture.enroll_by(&rules).unwrap();
        assert_eq!(is_enrolled(&capture, &lab.cgroup("agent-2.service")), rules != CgroupRules::default());
    }
    assert_eq!(capture.enrolled().unwrap(), []);
}

/// As fast as they can be made: none is missed, and none is remembered for longer than it lives.
#[test]
fn a_thousand_cgroups_come_and_go() {
    let lab = Lab::new();
    let capture = Capture::attach(&lab.config).unwrap();
    capture.enroll_by(&rules(&lab)).unwrap();
    for number in 0..count(1000) {
        let cgroup = lab.cgroup(&format!("agent-{number}.service"));
        assert!(number % 100 != 0 || is_enrolled(&capture, &cgroup));
        fs::remove_dir(cgroup).unwrap();
    }
    let begun = Instant::now();
    while !capture.enrolled().unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_mins(2), "{:?}", capture.enrolled());
        std::thread::yield_now();
    }
}

/// Cgroups of v1 have the same names, and ids that are other cgroups' in v2.
#[test]
fn version_1_is_left_alone() {
    let lab = Lab::new();
    let capture = Capture::attach(&lab.config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let name = lab.cgroup.file_name().unwrap().to_str().unwrap();
    capture.enroll_by(&rules(&lab)).unwrap();
    let options = format!("none,name={name}");
    mount(Some("none"), folder.path(), Some("cgroup"), MsFlags::empty(), Some(options.as_str())).unwrap();
    let cgroup = folder.path().join(name).join("agent-1.service");
    fs::create_dir_all(&cgroup).unwrap();
    assert_eq!(capture.enrolled().unwrap(), []);
    let enrolled = lab.cgroup("agent-1.service");
    fs::remove_dir(&cgroup).unwrap();
    fs::remove_dir(cgroup.parent().unwrap()).unwrap();
    nix::mount::umount(folder.path()).unwrap();
    assert!(is_enrolled(&capture, &enrolled));
}

/// A held one's first connection is captured, if it is confirmed then, and goes by itself once it is released.
#[test]
fn what_is_held_is_captured_until_it_is_released() {
    let lab = Lab::new();
    let mut capture = Capture::attach(&lab.config).unwrap();
    let mut appearing = capture.take_held().unwrap();
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    let name = lab.cgroup.file_name().unwrap().to_str().unwrap().replace('-', r"\x2d");
    let held = format!(r"/{name}(?:/[^/]+)*/c\x2d[0-9]+");
    let held = PendingPatterns { held: &held, never_below: "/nowhere" };
    let rules = CgroupRules::with_held(&[format!("/{name}/named")], Some(held)).unwrap();
    // One that is there isn't held: it has been free until now.
    let there = lab.cgroup("c-0");
    capture.enroll_by(&rules).unwrap();
    assert!(!is_enrolled(&capture, &there));

    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let cgroup = lab.cgroup("deep/c-1");
    lab.cgroup("deep/c-1/c-2");
    lab.cgroup("named/c-3");
    let id = cgroup_id(&cgroup).unwrap();
    let mut appeared = Vec::new();
    while appeared.is_empty() {
        appeared = appearing.read(Duration::from_secs(1)).unwrap();
    }
    assert_eq!((appeared, capture.held().unwrap()), (vec![id], vec![id]));
    let undecided = agent(&cgroup, || dial("127.77.0.1:443"));
    let stream = accept(&listeners.v4);
    assert_eq!(undecided.said(), "127.77.0.1:443");
    assert_eq!(capture.origins().of(&stream).unwrap().enrolled, id);

    // Another set of rules in the place of these, as at a start, leaves it held.
    capture.enroll_by(&rules).unwrap();
    assert_eq!(capture.held().unwrap(), [id]);
    capture.release(id).unwrap();
    assert_eq!(capture.held().unwrap(), []);
    let free = agent(&cgroup, || dial("127.77.0.1:443"));
    accept(&server);
    assert_eq!(free.said(), "127.77.0.1:443");
    // Nothing is confirmed or released that isn't held.
    capture.confirm(id).unwrap();
    assert!(!is_enrolled(&capture, &cgroup));

    let cgroup = lab.cgroup("c-4");
    let id = cgroup_id(&cgroup).unwrap();
    capture.confirm(id).unwrap();
    capture.release(id).unwrap();
    assert!(is_enrolled(&capture, &cgroup) && capture.held().unwrap().is_empty());
    let confirmed = agent(&cgroup, || dial("127.77.0.1:443"));
    accept(&listeners.v4);
    assert_eq!(confirmed.said(), "127.77.0.1:443");
}
