//! Row "a connection made before enrolment", and the egress hook as the backstop of all rows.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
};

use chaperone_capture::{Capture, Counter, ListenPorts, PreexistingConnection, cgroup_id};

use crate::lab::{Lab, accept, agent, outcome};

/// An agent's end of a rendezvous: says that it is ready, waits to be let go on.
fn meet(mut at: &UnixStream) {
    at.write_all(b"x").unwrap();
    at.read_exact(&mut [0]).unwrap();
}

fn arrived(mut at: &UnixStream) {
    at.read_exact(&mut [0]).unwrap();
}

fn go_on(mut at: &UnixStream) {
    at.write_all(b"x").unwrap();
}

#[test]
fn a_connection_made_before_enrolment_is_destroyed_and_told() {
    let lab = Lab::new();
    let capture = Capture::attach(&lab.config).unwrap();
    let _listeners = capture.listen(ListenPorts::default()).unwrap();
    let agents = lab.cgroup("agents");
    let below = lab.cgroup("agents/below");
    let exempt = lab.cgroup("agents/daemon");
    capture.exempt(cgroup_id(&exempt).unwrap()).unwrap();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let other = TcpListener::bind("127.77.0.1:9443").unwrap();

    let (here, there) = UnixStream::pair().unwrap();
    let talk = |to: &'static [&'static str]| {
        let mut streams: Vec<_> = to.iter().map(|to| TcpStream::connect(to).unwrap()).collect();
        let locals: Vec<_> = streams.iter().map(|stream| stream.local_addr().unwrap().to_string()).collect();
        meet(&there);
        let said: Vec<_> = streams.iter_mut().map(|stream| outcome(stream.read(&mut [0]))).collect();
        format!("{} {}", locals[0], said.join(" "))
    };
    let enrolled = agent(&below, || talk(&["127.77.0.1:443", "127.77.0.1:9443"]));
    let (mut destroyed, mut kept) = (accept(&server), accept(&other));
    arrived(&here);
    let daemon = agent(&exempt, || talk(&["127.77.0.1:443"]));
    let mut spared = accept(&server);
    arrived(&here);

    let told = capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    let PreexistingConnection { local, peer, cgroup, uid, destroyed: gone } = &told[0];
    assert_eq!((peer.to_string().as_str(), *uid, *gone), ("127.77.0.1:443", 0, true));
    assert_eq!(*cgroup, cgroup_id(&below).unwrap());
    assert_eq!(destroyed.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    kept.write_all(b"x").unwrap();
    spared.write_all(b"x").unwrap();
    go_on(&here);
    go_on(&here);
    assert!(daemon.said().ends_with(" ok"));
    assert_eq!(enrolled.said(), format!("{local} ECONNABORTED ok"));
    // A second time there is nothing to tell.
    assert!(capture.enroll(cgroup_id(&agents).unwrap()).unwrap().is_empty());
}

#[test]
fn a_connection_in_the_cgroups_own_network_namespace_is_destroyed_too() {
    let lab = Lab::new();
    let capture = Capture::attach(&lab.config).unwrap();
    let agents = lab.cgroup("agents");
    let (here, there) = UnixStream::pair().unwrap();
    let contained = agent(&agents, || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        crate::lab::loopback_up();
        let server = TcpListener::bind("127.77.0.1:443").unwrap();
        let mut client = TcpStream::connect("127.77.0.1:443").unwrap();
        let _served = server.accept().unwrap();
        meet(&there);
        outcome(client.read(&mut [0]))
    });
    arrived(&here);
    let told = capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    go_on(&here);
    assert_eq!(contained.said(), "ECONNABORTED");
}

#[test]
fn what_could_not_be_destroyed_gets_nothing_out() {
    let lab = Lab::new();
    let capture = Capture::attach(&lab.config).unwrap();
    let agents = lab.cgroup("agents");
    for (at, udp) in [("127.77.0.1:443", "127.77.0.1:443"), ("[::1]:80", "[::1]:853")] {
        let server = TcpListener::bind(at).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let earlier = agent(&agents, || {
            let mut stream = TcpStream::connect(at).unwrap();
            let datagrams = UdpSocket::bind(if at.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
            datagrams.connect(udp).unwrap();
            meet(&there);
            let said = format!("{} {}", outcome(stream.write_all(b"secret")), outcome(datagrams.send(b"secret")));
            meet(&there);
            said
        });
        let mut served = accept(&server);
        arrived(&here);
        let guarded = || capture.counters().get(Counter::Guarded).unwrap();
        let before = guarded();
        capture.enroll_only(cgroup_id(&agents).unwrap()).unwrap();
        go_on(&here);
        arrived(&here);
        // Both were sent, and dropped.
        assert!(guarded() >= before + 2, "{} {before}", guarded());
        served.set_nonblocking(true).unwrap();
        assert_eq!(served.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // Nothing but the hook held it: without, TCP sends it again.
        capture.withdraw(cgroup_id(&agents).unwrap()).unwrap();
        served.set_nonblocking(false).unwrap();
        let mut secret = [0; 6];
        served.read_exact(&mut secret).unwrap();
        assert_eq!(&secret, b"secret");
        go_on(&here);
        assert_eq!(earlier.said(), "ok EPERM");
    }
}

#[test]
fn others_packets_and_an_agents_to_other_ports_are_not_touched() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let elsewhere = lab.cgroup("elsewhere");
    let server = UdpSocket::bind("127.77.0.1:443").unwrap();
    let resolver = UdpSocket::bind("127.77.0.1:53").unwrap();
    let send = |to: &'static str| outcome(UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", to));
    assert_eq!(agent(&elsewhere, || send("127.77.0.1:443")).said(), "ok");
    server.recv(&mut [0]).unwrap();
    assert_eq!(agent(&agents, || send("127.77.0.1:53")).said(), "ok");
    resolver.recv(&mut [0]).unwrap();
    assert_eq!(capture.counters().get(Counter::Guarded).unwrap(), 0);
}
