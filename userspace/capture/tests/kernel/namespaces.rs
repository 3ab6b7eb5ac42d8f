//! Agents in network namespaces of their own: a container's 127.0.0.1 is not the host's.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use chaperone_capture::{Capture, CommandEvent, Commands, Counter, Listeners, netns_cookie};
use nix::sched::{CloneFlags, unshare};

use crate::{
    dial,
    lab::{Lab, accept, agent, loopback_up, outcome},
};

pub fn dial_from_a_new_namespace(to: &str) -> String {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    loopback_up();
    dial(to)
}

/// Does what the daemon does, until a namespace has been opened.
pub fn open_next(capture: &Capture, commands: &mut Commands) -> Listeners {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        for event in commands.read().unwrap() {
            if let CommandEvent::Namespace { pid } = event
                && let Some(listeners) = capture.listen_for(pid).unwrap()
            {
                return listeners;
            }
        }
        assert!(Instant::now() < deadline, "no namespace to listen in");
        commands.wait(Duration::from_millis(100)).unwrap();
    }
}

#[test]
fn the_first_call_from_a_new_namespace_arrives_a_hundred_times_out_of_a_hundred() {
    let lab = Lab::new();
    let (mut capture, home, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let mut opened = Vec::new();
    for number in 0..100 {
        let to = ["203.0.113.7:443", "169.254.169.254:80", "[2001:db8::7]:443"][number % 3];
        let agent = agent(&agents, || dial_from_a_new_namespace(to));
        let listeners = open_next(&capture, &mut commands);
        let stream = accept(if to.starts_with('[') { listeners.v6.as_ref().unwrap() } else { &listeners.v4 });
        let origin = capture.origins().of(&stream).unwrap();
        assert_eq!(origin.destination.0, to.parse::<SocketAddr>().unwrap());
        assert_eq!(origin.netns, listeners.netns);
        assert_ne!(origin.netns, home.netns);
        assert_eq!(netns_cookie(&stream).unwrap(), listeners.netns);
        assert_eq!(origin.process.pid, agent.pid());
        assert_eq!(agent.said(), to);
        opened.push(listeners);
    }
    // Nobody is in there any more: that was so twice, and then it is forgotten.
    assert_eq!(capture.abandoned().unwrap(), []);
    let mut abandoned = capture.abandoned().unwrap();
    abandoned.sort_by_key(|netns| netns.0);
    let mut cookies: Vec<_> = opened.iter().map(|listeners| listeners.netns).collect();
    cookies.sort_by_key(|netns| netns.0);
    assert_eq!(abandoned, cookies);
    drop(opened);
    for netns in cookies {
        capture.forget(netns);
    }
    assert_eq!(capture.abandoned().unwrap(), []);
    assert_eq!(capture.counters().get(Counter::Redirected).unwrap(), 100);
}

#[test]
fn a_second_call_needs_no_second_listener_and_an_inhabited_namespace_is_kept() {
    let lab = Lab::new();
    let (mut capture, _home, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let agent = agent(&agents, || {
        let first = dial_from_a_new_namespace("203.0.113.7:443");
        format!("{first} {}", outcome(TcpStream::connect("203.0.113.8:443")))
    });
    let listeners = open_next(&capture, &mut commands);
    let _streams = [accept(&listeners.v4), accept(&listeners.v4)];
    assert_eq!(capture.listen_for(agent.pid()).unwrap().map(|listeners| listeners.netns), None);
    assert_eq!(capture.abandoned().unwrap(), []);
    assert_eq!(capture.abandoned().unwrap(), []);
    assert_eq!(agent.said(), "203.0.113.7:443 ok");
}

#[test]
fn nobody_in_the_namespace_gets_what_is_meant_for_the_daemon() {
    let lab = Lab::new();
    let (capture, home, agents) = lab.start();
    let daemons = home.v4.local_addr().unwrap();
    let agent = agent(&agents, || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        loopback_up();
        // Somebody in there listens where the daemon does out here.
        let thief = TcpListener::bind(daemons).unwrap();
        thief.set_nonblocking(true).unwrap();
        let dialled = TcpStream::connect_timeout(&"203.0.113.7:443".parse().unwrap(), Duration::from_secs(1));
        format!("{} {}", dialled.unwrap_err().kind(), outcome(thief.accept()))
    });
    assert_eq!(agent.said(), "timed out EAGAIN");
    // And where there is no daemon, nobody waits.
    drop(home);
    let agent = crate::lab::agent(&agents, || dial_from_a_new_namespace("203.0.113.7:443"));
    assert_eq!(agent.said(), "EPERM");
    assert_eq!(capture.counters().get(Counter::NoListener).unwrap(), 1);
}

/// Else whoever connects again and again would fill what commands are told by.
#[test]
fn a_process_that_connects_again_and_again_is_told_of_a_few_times() {
    const CONNECTS: usize = 5_000;
    let lab = Lab::new();
    let (mut capture, _home, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let agent = agent(&agents, || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        loopback_up();
        let begun = Instant::now();
        for _ in 0..CONNECTS {
            drop(crate::lab::begin_handshake());
        }
        begun.elapsed().as_millis().to_string()
    });
    let (mut told, mut took) = (0, None);
    let mut agent = Some(agent);
    while agent.is_some() {
        commands.wait(Duration::from_millis(10)).unwrap();
        let events = commands.read().unwrap();
        if events.is_empty() && told > 0 {
            // It has ended by then, or goes on while nobody reads.
            took = agent.take().map(|agent| agent.said().parse::<usize>().unwrap());
        }
        told += events.iter().filter(|event| matches!(event, CommandEvent::Namespace { .. })).count();
    }
    told += commands.read().unwrap().iter().filter(|it| matches!(it, CommandEvent::Namespace { .. })).count();
    // At its execution, and ten times a second.
    assert!(told <= took.unwrap() / 100 + 3, "{told} in {took:?} ms");
    assert_eq!(capture.counters().get(Counter::CommandLost).unwrap(), 0);
}

/// Whoever owns the namespace can destroy every socket in it (`ss -K`), and take the port.
#[test]
fn a_listener_that_was_destroyed_is_nobodys() {
    let lab = Lab::new();
    let (mut capture, _home, agents) = lab.start();
    let mut commands = capture.take_commands().unwrap();
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let agent = agent(&agents, || {
        let first = dial_from_a_new_namespace("203.0.113.7:443");
        io::Read::read_exact(&mut &there, &mut [0]).unwrap();
        let dialled = TcpStream::connect_timeout(&"203.0.113.8:443".parse().unwrap(), Duration::from_secs(1));
        format!("{first} {}", dialled.unwrap_err().kind())
    });
    let listeners = open_next(&capture, &mut commands);
    let _stream = accept(&listeners.v4);
    // As the kernel does to one that is destroyed: it is closed, and still the daemon's.
    nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&listeners.v4), nix::sys::socket::Shutdown::Both)
        .unwrap();
    io::Write::write_all(&mut &here, b"x").unwrap();
    // It waits for another one.
    assert_eq!(agent.said(), "203.0.113.7:443 timed out");
}
