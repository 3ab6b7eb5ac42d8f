//! Row "map full, lookup failed in a hook".

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use chaperone_capture::{
    Capture, CaptureError, CgroupRules, Counter, ListenPorts, Listeners, OriginError, PendingPatterns, cgroup_id,
    cgroup_root,
};

use crate::{
    dial,
    lab::{Agent, Lab, accept, agent, begin_handshake, deafen},
};

#[test]
fn handshakes_that_never_end_keep_nobody_else_out() {
    let lab = Lab::new();
    let agents = lab.cgroup("agents");
    // Each processor has some of the room to itself.
    let room = 64;
    let capture = Capture::attach_with(&lab.config, &[("PENDING", room)]).unwrap();
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
    deafen(&listeners.v4, true);
    let (open, close) = std::os::unix::net::UnixStream::pair().unwrap();
    let held = agent(&agents, || {
        let sockets: Vec<_> = (0..room * 4).map(|_| begin_handshake()).collect();
        (&open).write_all(b"x").unwrap();
        (&open).read_exact(&mut [0]).unwrap();
        drop(sockets);
        "gone".to_owned()
    });
    (&close).read_exact(&mut [0]).unwrap();
    deafen(&listeners.v4, false);
    for _ in 0..20 {
        let agent = agent(&agents, || dial("203.0.113.8:443"));
        // Handshakes that were only late end, too, some of them without an origin.
        let origin = loop {
            let stream = accept(&listeners.v4);
            match capture.origins().of(&stream) {
                Ok(origin) if origin.destination.0.to_string() == "203.0.113.8:443" => break origin,
                Ok(_) | Err(OriginError::Unknown) => {}
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(origin.cgroup, cgroup_id(&agents).unwrap());
        assert_eq!(agent.said(), "203.0.113.8:443");
    }
    assert_eq!(capture.counters().get(Counter::PendingFull).unwrap(), 0);
    (&close).write_all(b"x").unwrap();
    assert_eq!(held.said(), "gone");
}

/// With room for so many cgroups. When there is none left, every cgroup of the host that appears is refused: so these hooks
/// see no further than the lab's own, and leave other tests' and labs' on this machine alone.
fn attach(lab: &Lab, room: u32) -> Capture {
    Capture::attach_at(&lab.config, &[("ENROLLED", room)], Some(&lab.cgroup)).unwrap()
}

/// Listens within these hooks' sight: what accepts belongs to the cgroup in which it began to listen.
fn listen(lab: &Lab, capture: &Capture) -> Listeners {
    let enter = |cgroup: &Path| fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    enter(&lab.cgroup("daemon"));
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    enter(&cgroup_root().unwrap().join(own));
    listeners
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

/// A cgroup outside of the lab's.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn new(lab: &Lab) -> Self {
        let path = lab.cgroup.with_extension("elsewhere");
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn when_no_more_cgroups_can_be_enrolled_those_that_appear_are_refused_until_there_is_room() {
    let lab = Lab::new();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let older = lab.cgroup("older");
    let capture = attach(&lab, 2);
    let listeners = listen(&lab, &capture);
    capture.enroll_by(&rules(&lab)).unwrap();
    let reach = |from: &Path| reach(from, &capture, &listeners.v4, &server);

    let [one, two, three] = ["agent-1", "agent-2", "agent-3"].map(|name| lab.cgroup(name));
    assert_eq!(capture.counters().get(Counter::Unenrolled).unwrap(), 1);
    assert!(capture.is_full().unwrap());
    assert_eq!([&one, &two, &three].map(|cgroup| reach(cgroup)), ["redirected", "redirected", "refused"]);
    assert_eq!(capture.counters().get(Counter::PerhapsAgents).unwrap(), 1);
    // Those of the rest of the host are out of these hooks' sight.
    let others = Elsewhere::new(&lab);
    assert_eq!(reach(&others.0), "free");
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
    let capture = attach(&lab, 1);
    let listeners = listen(&lab, &capture);
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
    let capture = attach(&lab, 1);
    capture.enroll_by(&rules(&lab)).unwrap();
    let [_one, two] = ["agent-1", "agent-2"].map(|name| lab.cgroup(name));
    drop(capture);
    assert_eq!(agent(&two, || dial("127.77.0.1:443")).said(), "EPERM");
    let capture = attach(&lab, 1);
    assert!(capture.is_full().unwrap());
    // It can't enrol what it has to.
    let error = capture.enroll_by(&rules(&lab)).unwrap_err().to_string();
    assert!(error.contains("at most"), "{error}");
    assert_eq!(agent(&two, || dial("127.77.0.1:443")).said(), "EPERM");
}

/// Containers are held until somebody knows whose they are, and take up room until then.
#[test]
fn what_there_was_no_room_to_hold_is_refused_and_decided_on_when_there_is_room() {
    let lab = Lab::new();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let capture = attach(&lab, 2);
    let listeners = listen(&lab, &capture);
    let name = lab.cgroup.file_name().unwrap().to_str().unwrap().replace('-', r"\x2d");
    let held = format!(r"/{name}(?:/[^/]+)*/c\x2d[0-9]+");
    let held = PendingPatterns { held: &held, never_below: "/nowhere" };
    let rules = CgroupRules::with_held(&[], Some(held)).unwrap();
    capture.enroll_by(&rules).unwrap();
    let reach = |from: &Path| reach(from, &capture, &listeners.v4, &server);

    let [one, two, three, four] = ["c-1", "c-2", "c-3", "c-4"].map(|name| lab.cgroup(name));
    let id = |cgroup: &Path| cgroup_id(cgroup).unwrap();
    assert_eq!(capture.held().unwrap().len(), 2);
    assert!(capture.is_full().unwrap());
    assert_eq!(
        [&one, &two, &three, &four].map(|cgroup| reach(cgroup)),
        ["redirected", "redirected", "refused", "refused"]
    );

    // As the daemon does again and again: what there is no room for can't be held, and nothing is free for that.
    let hold = |cgroups: &[&PathBuf]| {
        capture.enroll_by_and(&rules, || {
            let mut earlier = Vec::new();
            for cgroup in cgroups {
                earlier.extend(capture.hold(id(cgroup))?);
            }
            Ok::<_, CaptureError>(earlier)
        })
    };
    assert!(hold(&[&three, &four]).unwrap_err().to_string().contains("at most"));
    // One is an agent's, and one nobody's: that is room for one, which isn't enough.
    capture.confirm(id(&one)).unwrap();
    capture.release(id(&two)).unwrap();
    assert!(hold(&[&three, &four]).unwrap_err().to_string().contains("at most"));
    assert!(capture.is_full().unwrap());
    assert_eq!(
        [&one, &two, &three, &four].map(|cgroup| reach(cgroup)),
        ["redirected", "free", "redirected", "refused"]
    );

    // The agent's goes, and its room is the last one's.
    fs::remove_dir(&one).unwrap();
    capture.withdraw_removed().unwrap();
    assert_eq!(hold(&[&four]).unwrap(), []);
    assert!(!capture.is_full().unwrap());
    let held: BTreeSet<_> = capture.held().unwrap().into_iter().collect();
    assert_eq!(held, [id(&three), id(&four)].into());
    capture.release(id(&three)).unwrap();
    capture.confirm(id(&four)).unwrap();
    let later = lab.cgroup("later");
    assert_eq!([&two, &three, &four, &later].map(|cgroup| reach(cgroup)), ["free", "free", "redirected", "free"]);
}
