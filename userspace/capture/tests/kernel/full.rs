//! Row "map full, lookup failed in a hook".

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
};

use chaperone_capture::{Capture, CgroupRules, Counter, ListenPorts, OriginError, cgroup_id};

use crate::{
    dial,
    lab::{Agent, Lab, accept, agent, begin_handshake, deafen},
};

#[test]
fn full_maps_give_no_service_and_are_counted() {
    let lab = Lab::new();
    let agents = lab.cgroup("agents");
    let capture = Capture::attach_with(&lab.config, &[("PENDING", 1)]).unwrap();
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
    // One handshake that doesn't end takes the only place.
    deafen(&listeners.v4, true);
    let (open, close) = std::os::unix::net::UnixStream::pair().unwrap();
    let held = agent(&agents, || {
        let socket = begin_handshake();
        (&open).write_all(b"x").unwrap();
        (&open).read_exact(&mut [0]).unwrap();
        drop(socket);
        "gone".to_owned()
    });
    (&close).read_exact(&mut [0]).unwrap();
    deafen(&listeners.v4, false);
    let agent = agent(&agents, || dial("203.0.113.7:443"));
    let stream = accept(&listeners.v4);
    assert!(matches!(capture.origins().of(&stream), Err(OriginError::Unknown)));
    agent.said();
    assert_eq!(capture.counters().get(Counter::PendingFull).unwrap(), 1);
    (&close).write_all(b"x").unwrap();
    assert_eq!(held.said(), "gone");
}

/// Two patterns: `agent-*` by itself, and `agents/*`, which is enrolled whole.
fn rules(lab: &Lab) -> CgroupRules {
    let name = lab.cgroup.file_name().unwrap().to_str().unwrap().replace('-', r"\x2d");
    let of = |rest: &str| format!("/{name}/{rest}");
    CgroupRules::new(&[of(r"agent\x2d[^/]*"), of("agents"), of("agents/[^/]*")]).unwrap()
}

/// Dials from there; `server` is who is met without the daemon.
fn reach(from: &Path, capture: &Capture, daemon: &TcpListener, server: &TcpListener) -> &'static str {
    let agent: Agent = agent(from, || dial("127.77.0.1:443"));
    for listener in [daemon, server] {
        listener.set_nonblocking(true).unwrap();
    }
    // The connection is there, or refused, before it is told.
    let said = agent.said();
    let accepted = |listener: &TcpListener| -> Option<TcpStream> { listener.accept().ok().map(|(stream, _)| stream) };
    match (accepted(daemon), accepted(server)) {
        (Some(stream), None) => {
            assert_eq!(capture.origins().of(&stream).unwrap().cgroup, cgroup_id(from).unwrap());
            "redirected"
        }
        (None, Some(_)) => "free",
        (None, None) => {
            assert_eq!(said, "EPERM");
            "refused"
        }
        (Some(_), Some(_)) => panic!("it came twice"),
    }
}

#[test]
fn when_no_more_cgroups_can_be_enrolled_those_that_appear_are_refused_until_there_is_room() {
    let lab = Lab::new();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let older = lab.cgroup("older");
    let capture = Capture::attach_with(&lab.config, &[("ENROLLED", 2)]).unwrap();
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    capture.enroll_by(&rules(&lab)).unwrap();
    let reach = |from: &Path| reach(from, &capture, &listeners.v4, &server);

    let [one, two, three] = ["agent-1", "agent-2", "agent-3"].map(|name| lab.cgroup(name));
    assert_eq!(capture.counters().get(Counter::Unenrolled).unwrap(), 1);
    assert!(capture.is_full().unwrap());
    assert_eq!([&one, &two, &three].map(|cgroup| reach(cgroup)), ["redirected", "redirected", "refused"]);
    assert_eq!(capture.counters().get(Counter::PerhapsAgents).unwrap(), 1);
    // Nobody knows which of the later ones are agents'. The older ones are others'.
    let [later, below] = ["later", "older/later"].map(|name| lab.cgroup(name));
    assert_eq!([&later, &below, &older].map(|cgroup| reach(cgroup)), ["refused", "refused", "free"]);

    // A place is made, and that is all that it takes; also for the next daemon.
    fs::remove_dir(&one).unwrap();
    capture.withdraw_removed().unwrap();
    assert_eq!(reach(&later), "refused");
    capture.enroll_by(&rules(&lab)).unwrap();
    assert!(!capture.is_full().unwrap());
    assert_eq!(
        [&two, &three, &later, &below].map(|cgroup| reach(cgroup)),
        ["redirected", "redirected", "free", "free"]
    );
}

#[test]
fn below_an_enrolled_cgroup_there_is_always_room() {
    let lab = Lab::new();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let agents = lab.cgroup("agents");
    let capture = Capture::attach_with(&lab.config, &[("ENROLLED", 1)]).unwrap();
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    capture.enroll_by(&rules(&lab)).unwrap();
    let (inner, later) = (lab.cgroup("agents/job/1"), lab.cgroup("later"));
    assert_eq!(capture.counters().get(Counter::Unenrolled).unwrap(), 1);
    assert!(!capture.is_full().unwrap());
    let reach = |from: &Path| reach(from, &capture, &listeners.v4, &server);
    assert_eq!([&agents, &inner, &later].map(|cgroup| reach(cgroup)), ["redirected", "redirected", "free"]);
}

#[test]
fn what_appeared_when_no_more_could_be_enrolled_is_refused_while_no_daemon_runs_and_by_the_next() {
    let lab = Lab::new();
    let _server = TcpListener::bind("127.77.0.1:443").unwrap();
    let capture = Capture::attach_with(&lab.config, &[("ENROLLED", 1)]).unwrap();
    capture.enroll_by(&rules(&lab)).unwrap();
    let [_one, two] = ["agent-1", "agent-2"].map(|name| lab.cgroup(name));
    drop(capture);
    assert_eq!(agent(&two, || dial("127.77.0.1:443")).said(), "EPERM");
    let capture = Capture::attach_with(&lab.config, &[("ENROLLED", 1)]).unwrap();
    assert!(capture.is_full().unwrap());
    // It can't enrol what it has to.
    let error = capture.enroll_by(&rules(&lab)).unwrap_err().to_string();
    assert!(error.contains("at most"), "{error}");
    assert_eq!(agent(&two, || dial("127.77.0.1:443")).said(), "EPERM");
}
