//! Row "daemon stopped, killed or crashed": while somebody keeps its listeners, agents' connections wait for the next one.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use chaperone_capture::{Adopted, Capture, Counter, FdStore, ListenPorts, Listeners, OriginError};

use crate::{
    dial,
    lab::{Agent, Lab, accept, agent, loopback_up, outcome},
    namespaces::{dial_from_a_new_namespace, open_next},
};

/// As the service manager keeps them.
fn kept(listeners: &Listeners) -> Vec<OwnedFd> {
    let sockets = std::iter::once(&listeners.v4).chain(&listeners.v6);
    sockets.map(|listener| listener.as_fd().try_clone_to_owned().unwrap()).collect()
}

/// An agent that is there before the daemon, whose lock and sockets it would have, too, and dials when it is told.
fn dialler(lab: &Lab, to: &'static str) -> (UnixStream, Agent) {
    let (here, there) = UnixStream::pair().unwrap();
    let agent = agent(&lab.cgroup("agents"), || {
        (&there).read_exact(&mut [0]).unwrap();
        let said = dial(to);
        (&there).write_all(b"x").unwrap();
        said
    });
    (here, agent)
}

/// Tells it, and waits until it has.
fn go(cue: &UnixStream) {
    let mut cue = cue;
    cue.write_all(b"x").unwrap();
    cue.read_exact(&mut [0]).unwrap();
}

#[test]
fn connections_wait_in_a_kept_listener_and_the_next_daemon_knows_their_origins() {
    let lab = Lab::new();
    let [before, v4, v6] = ["203.0.113.6:443", "203.0.113.7:443", "[2001:db8::7]:80"].map(|to| dialler(&lab, to));
    let (capture, listeners, agents) = lab.start();
    go(&before.0);
    let sockets = kept(&listeners);
    let port = listeners.v4.local_addr().unwrap();
    drop((capture, listeners));
    // The kernel needs no daemon for a handshake.
    go(&v4.0);
    go(&v6.0);
    for thief in [port.to_string(), format!("0.0.0.0:{}", port.port())] {
        assert_eq!(agent(&agents, || outcome(TcpListener::bind(&thief))).said(), "EADDRINUSE");
    }

    let mut capture = Capture::attach(&lab.config).unwrap();
    let commands = capture.take_commands().unwrap();
    let checks = capture.self_test().unwrap();
    assert!(checks.iter().all(|check| check.result.is_ok()), "{checks:?}");
    drop(commands);
    let during = agent(&agents, || dial("203.0.113.8:443"));
    let Adopted { home, others, closed } = capture.adopt(FdStore::from(sockets), ListenPorts::default()).unwrap();
    assert!(others.is_empty() && closed.is_empty(), "{others:?} {closed:?}");
    let listeners = home.unwrap();
    assert_eq!(listeners.v4.local_addr().unwrap(), port);
    let v6_listener = listeners.v6.as_ref().unwrap();
    let expected = [
        (&listeners.v4, before.1, "203.0.113.6:443"),
        (&listeners.v4, v4.1, "203.0.113.7:443"),
        (v6_listener, v6.1, "[2001:db8::7]:80"),
        (&listeners.v4, during, "203.0.113.8:443"),
    ];
    for (listener, agent, to) in &expected {
        let origin = capture.origins().of(accept(listener)).unwrap();
        assert_eq!((origin.destination.0.to_string().as_str(), origin.process.pid), (*to, agent.pid()));
    }
    // The last one first: it has the ends of the others' pipes.
    for (_, agent, to) in expected.into_iter().rev() {
        assert_eq!(agent.said(), to);
    }
    let after = agent(&agents, || dial("203.0.113.9:443"));
    assert_eq!(capture.origins().of(accept(&listeners.v4)).unwrap().destination.0.to_string(), "203.0.113.9:443");
    after.said();
    assert_eq!(capture.counters().get(Counter::NoListener).unwrap(), 0);
    assert_eq!(capture.pending().unwrap(), 0);

    // Once nobody keeps them, agents are refused.
    drop((capture, listeners));
    assert_eq!(agent(&agents, || dial("203.0.113.7:443")).said(), "EPERM");
}

#[test]
fn what_waits_in_a_kept_listener_that_is_closed_is_refused() {
    let lab = Lab::new();
    let (here, there) = UnixStream::pair().unwrap();
    // Made before the listeners, which it would have, too.
    let waiting = agent(&lab.cgroup("agents"), || {
        (&there).read_exact(&mut [0]).unwrap();
        let mut stream = TcpStream::connect("203.0.113.7:443").unwrap();
        (&there).write_all(b"x").unwrap();
        outcome(stream.read(&mut [0]))
    });
    let (capture, listeners, agents) = lab.start();
    let sockets = kept(&listeners);
    drop((capture, listeners));
    (&here).write_all(b"x").unwrap();
    (&here).read_exact(&mut [0]).unwrap();
    drop(sockets);
    assert_eq!(waiting.said(), "ECONNRESET");
    assert_eq!(agent(&agents, || dial("203.0.113.7:443")).said(), "EPERM");
}

#[test]
fn listeners_in_other_namespaces_are_kept_too() {
    let lab = Lab::new();
    let (here, there) = UnixStream::pair().unwrap();
    let agent = agent(&lab.cgroup("agents"), || {
        (&there).read_exact(&mut [0]).unwrap();
        let first = dial_from_a_new_namespace("203.0.113.7:443");
        (&there).write_all(b"x").unwrap();
        (&there).read_exact(&mut [0]).unwrap();
        let second = dial("203.0.113.8:443");
        (&there).write_all(b"x").unwrap();
        format!("{first} {second}")
    });
    let (mut capture, home, _) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    (&here).write_all(b"x").unwrap();
    let inside = open_next(&capture, &mut commands);
    accept(&inside.v4);
    (&here).read_exact(&mut [0]).unwrap();
    let netns = inside.netns;
    let sockets = kept(&home).into_iter().chain(kept(&inside)).collect::<Vec<_>>();
    drop((commands, capture, home, inside));
    go(&here);

    let capture = Capture::attach(&lab.config).unwrap();
    let Adopted { home, others, closed } = capture.adopt(FdStore::from(sockets), ListenPorts::default()).unwrap();
    assert!(home.is_some() && closed.is_empty(), "{closed:?}");
    let [inside] = &others[..] else { panic!("{others:?}") };
    assert_eq!(inside.netns, netns);
    let origin = capture.origins().of(accept(&inside.v4)).unwrap();
    assert_eq!((origin.destination.0.to_string().as_str(), origin.netns), ("203.0.113.8:443", netns));
    // It is known, and forgotten when nobody is in there any more.
    assert_eq!(capture.listen_for(agent.pid()).unwrap().map(|listeners| listeners.netns), None);
    assert_eq!(capture.abandoned().unwrap(), []);
    assert_eq!(agent.said(), "203.0.113.7:443 203.0.113.8:443");
    assert_eq!(capture.abandoned().unwrap(), []);
    assert_eq!(capture.abandoned().unwrap(), [netns]);
}

#[test]
fn what_was_kept_and_cant_be_explained_is_closed() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let port = listeners.v4.local_addr().unwrap().port();
    // In somebody's namespace where the daemon doesn't listen, at the right port.
    let elsewhere = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        loopback_up();
        OwnedFd::from(TcpListener::bind(("127.0.0.1", port)).unwrap())
    });
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = TcpStream::connect(other.local_addr().unwrap()).unwrap();
    let (pipe, _) = io::pipe().unwrap();
    let strange: Vec<OwnedFd> = vec![
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        TcpListener::bind("0.0.0.0:0").unwrap().into(),
        other.into(),
        connection.into(),
        pipe.into(),
        elsewhere.join().unwrap(),
    ];
    let ours = kept(&listeners);
    drop(capture);
    let capture = Capture::attach(&lab.config).unwrap();
    let Adopted { home, others, closed } = capture.adopt(FdStore::from(strange), ListenPorts::default()).unwrap();
    assert!(home.is_none() && others.is_empty());
    assert_eq!(closed.len(), 6, "{closed:?}");
    for (why, wanted) in
        closed.iter().zip(["not a listening", "0.0.0.0", "point", "not a listening", "not a l", "point"])
    {
        assert!(why.contains(wanted), "{closed:?}");
    }
    // Nor is what the configuration doesn't want any more, or a half.
    let moved = ListenPorts { v4: 1, v6: 0 };
    let adopted = capture.adopt(FdStore::from(ours), moved).unwrap();
    assert!(adopted.home.is_none() && adopted.closed[0].contains("configuration"), "{adopted:?}");
    drop(listeners);
    // What waited in them has no origin that anybody could ask for, and new ones take their place.
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    let served = agent(&agents, || dial("203.0.113.7:443"));
    capture.origins().of(accept(&listeners.v4)).unwrap();
    served.said();
    // Who has the listener's port in the lab's own namespace and isn't an agent has no origin, as ever.
    let stranger = agent(&lab.cgroup("elsewhere"), || dial(&listeners.v4.local_addr().unwrap().to_string()));
    assert!(matches!(capture.origins().of(accept(&listeners.v4)), Err(OriginError::Unknown)));
    stranger.said();
}
