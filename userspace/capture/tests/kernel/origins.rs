//! Rows "`getpeername`", "`SO_ORIGINAL_DST`-style lookups, source port reuse": origins are never mixed up, and nothing is left.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
};

use chaperone_capture::{Counter, OriginError, cgroup_id};
use socket2::{SockAddr, Socket};

use crate::{
    dial,
    lab::{Lab, accept, accept_in_time, agent, begin_handshake, count, deafen, socket},
};

#[test]
fn a_socket_that_dials_again_has_the_second_destination() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let other = TcpListener::bind("127.77.0.1:9443").unwrap();
    let agent = agent(&agents, || {
        let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let mut seen = Vec::new();
        for to in ["203.0.113.7:443", "203.0.113.8:80", "127.77.0.1:9443"] {
            socket.connect(&SockAddr::from(to.parse::<SocketAddr>().unwrap())).unwrap();
            seen.push(socket.peer_addr().unwrap().as_socket().unwrap().to_string());
            // SAFETY: all zeroes is AF_UNSPEC: disconnects.
            unsafe {
                let none: libc::sockaddr = std::mem::zeroed();
                assert_eq!(libc::connect(socket.as_raw_fd(), &raw const none, 16), 0);
            }
        }
        seen.join(" ")
    });
    let first = accept(&listeners.v4);
    assert_eq!(capture.origins().of(&first).unwrap().destination.0.to_string(), "203.0.113.7:443");
    let second = accept(&listeners.v4);
    assert_eq!(capture.origins().of(&second).unwrap().destination.0.to_string(), "203.0.113.8:80");
    let third = accept(&other);
    assert!(matches!(capture.origins().of(&third), Err(OriginError::Unknown)));
    assert_eq!(agent.said(), "203.0.113.7:443 203.0.113.8:80 127.77.0.1:9443");
}

#[test]
fn nothing_is_left_of_closed_and_failed_connections() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let many = agent(&agents, || {
        (0..50).map(|_| dial("203.0.113.7:443")).filter(|seen| seen.contains(':')).count().to_string()
    });
    let streams: Vec<_> = (0..50).map(|_| accept(&listeners.v4)).collect();
    assert_eq!(many.said(), "50");
    // The agent is gone; its connections' origins are still known.
    assert!(streams.iter().all(|stream| capture.origins().of(stream).is_ok()));
    assert_eq!(capture.pending().unwrap(), 0);

    // A handshake that doesn't end, and then its socket goes.
    deafen(&listeners.v4, true);
    let (open, close) = std::os::unix::net::UnixStream::pair().unwrap();
    let refused = agent(&agents, || {
        let socket = begin_handshake();
        (&open).write_all(b"x").unwrap();
        (&open).read_exact(&mut [0]).unwrap();
        drop(socket);
        "gone".to_owned()
    });
    (&close).read_exact(&mut [0]).unwrap();
    assert_eq!(capture.pending().unwrap(), 1);
    (&close).write_all(b"x").unwrap();
    assert_eq!(refused.said(), "gone");
    drop(streams);
    assert_eq!(capture.pending().unwrap(), 0);
}

/// Few source ports and many connections: every tuple comes again and again, with another destination each time.
#[test]
fn a_source_port_that_is_used_again_has_the_new_connections_origin() {
    let connections = u32::try_from(count(60_000)).unwrap();
    let lab = Lab::new();
    // 32 ports, none of which waits to be used again: the client resets its connections.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40031").unwrap();
    let (capture, listeners, agents) = lab.start();
    let client = agent(&agents, || {
        let (mut number, mut refused) = (0, 0);
        while number < connections {
            let [_, _, c, d] = number.to_be_bytes();
            let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
            socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            let to = SocketAddr::from(([198, 18, c, d], 443));
            match socket.connect(&to.into()) {
                // The SYN met the socket that had the port before, while the other side's close(2) was still in it: the
                // kernel answers those that wait there behind a reset with one of their own.
                Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) && refused < connections / 60 => {
                    refused += 1;
                }
                Err(error) => return format!("{number}: {error}"),
                Ok(()) => {
                    // The answer, so that there is one connection at a time.
                    let mut answer = [std::mem::MaybeUninit::new(0)];
                    let _ = socket.recv(&mut answer);
                    number += 1;
                }
            }
        }
        "all".to_owned()
    });
    let mut ports = std::collections::BTreeSet::new();
    for number in 0..connections {
        let Some(stream) = accept_in_time(&listeners.v4) else {
            let counted = Counter::ALL.map(|it| (it, capture.counters().get(it).unwrap()));
            panic!("connection {number} doesn't come: {counted:?}; the client: {}", client.said());
        };
        let origin = capture.origins().of(&stream).unwrap();
        let [_, _, c, d] = number.to_be_bytes();
        assert_eq!(origin.destination.0, SocketAddr::from(([198, 18, c, d], 443)));
        ports.insert(origin.peer.port());
    }
    assert_eq!(client.said(), "all");
    assert!(ports.len() <= 32, "{} ports", ports.len());
    assert_eq!(capture.pending().unwrap(), 0);
    assert_eq!(capture.counters().get(Counter::OriginLost).unwrap(), 0);
}

#[test]
fn a_thousand_short_lived_cgroups_each_have_their_own_connection() {
    let cgroups = count(1_000);
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let maker = agent(&agents, || {
        let to = SockAddr::from("203.0.113.7:443".parse::<SocketAddr>().unwrap());
        let back = agents.join("cgroup.procs");
        for number in 0..cgroups {
            let cgroup = agents.join(format!("run-{number}"));
            std::fs::create_dir(&cgroup).unwrap();
            let id = cgroup_id(&cgroup).unwrap().0;
            std::fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
            let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
            if let Err(error) = socket.connect(&to) {
                return format!("{number}: {error}");
            }
            socket.send(&id.to_ne_bytes()).unwrap();
            std::fs::write(&back, "0").unwrap();
            std::fs::remove_dir(&cgroup).unwrap();
        }
        "all".to_owned()
    });
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..cgroups {
        let mut stream = accept(&listeners.v4);
        let mut id = [0; 8];
        io::Read::read_exact(&mut stream, &mut id).unwrap();
        let origin = capture.origins().of(&stream).unwrap();
        assert_eq!(origin.cgroup.0, u64::from_ne_bytes(id));
        assert_eq!(origin.enrolled, cgroup_id(&agents).unwrap());
        seen.insert(origin.cgroup);
    }
    assert_eq!(maker.said(), "all");
    assert_eq!(seen.len(), cgroups);
    assert_eq!(capture.pending().unwrap(), 0);
    assert_eq!(capture.enrolled().unwrap().len(), 1);
}
