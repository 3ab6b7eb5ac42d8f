//! Rows "raw sockets, SCTP, DCCP" and "the socket was created there"; AF_PACKET and its like are in `lsm`.

use std::{
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
};

use chaperone_capture::{Counter, cgroup_id};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use socket2::{SockAddr, Socket};

use crate::lab::{Lab, accept, agent, outcome, socket};

const IPPROTO_DCCP: i32 = 33;
const IPPROTO_L2TP: i32 = 115;
const IPPROTO_SMC: i32 = 256;
const IPPROTO_MPTCP: i32 = 262;

/// Domain, type and protocol.
pub type Kind = (i32, i32, i32);

/// What `socket(2)` says of each.
pub fn made(kinds: &[Kind]) -> String {
    let make = |(domain, kind, protocol): &Kind| {
        // SAFETY: takes numbers, gives a descriptor that is ours, or an error.
        outcome(unsafe {
            match libc::socket(*domain, *kind | libc::SOCK_CLOEXEC, *protocol) {
                fd @ 0.. => Ok(OwnedFd::from_raw_fd(fd)),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    };
    kinds.iter().map(make).collect::<Vec<_>>().join(" ")
}

#[test]
fn raw_sockets_and_other_transports_are_refused_in_an_enrolled_cgroup_only() {
    const REFUSED: [Kind; 5] = [
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_UDP),
        (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
    ];
    // A kernel without the protocol has nothing to refuse.
    const REFUSED_OR_UNKNOWN: [Kind; 7] = [
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        (libc::AF_INET6, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
        (libc::AF_INET, libc::SOCK_DCCP, IPPROTO_DCCP),
        (libc::AF_INET, libc::SOCK_DGRAM, IPPROTO_L2TP),
        (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SMC),
    ];
    const USUAL: [Kind; 9] = [
        (libc::AF_INET, libc::SOCK_STREAM, 0),
        (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
        (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP),
        (libc::AF_INET, libc::SOCK_DGRAM, 0),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        (libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_GENERIC),
    ];

    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let refused = |kinds: &'static [Kind]| agent(&agents, || made(kinds)).said();
    assert_eq!(refused(&REFUSED), ["EPERM"; 5].join(" "));
    assert_eq!(capture.counters().get(Counter::SocketKind).unwrap(), 5);
    let said = refused(&REFUSED_OR_UNKNOWN);
    assert!(said.split(' ').all(|said| ["EPERM", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"].contains(&said)), "{said}");
    assert_eq!(refused(&USUAL), ["ok"; 9].join(" "));

    let elsewhere = lab.cgroup("elsewhere");
    assert_eq!(agent(&elsewhere, || made(&REFUSED)).said(), ["ok"; 5].join(" "));
    assert_eq!(agent(&elsewhere, || made(&USUAL)).said(), ["ok"; 9].join(" "));
}

/// By SCM_RIGHTS.
pub fn pass(through: &UnixDatagram, handed: &impl std::os::fd::AsRawFd) {
    let iov = [std::io::IoSlice::new(b"x")];
    let fds = [handed.as_raw_fd()];
    sendmsg::<()>(through.as_raw_fd(), &iov, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None).unwrap();
}

/// By SCM_RIGHTS.
pub fn receive(through: &UnixDatagram) -> OwnedFd {
    let mut byte = [0];
    let mut iov = [std::io::IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([i32; 1]);
    let got = recvmsg::<()>(through.as_raw_fd(), &mut iov, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let Some(ControlMessageOwned::ScmRights(fds)) = got.cmsgs().unwrap().next() else { panic!("no descriptor came") };
    // SAFETY: the kernel just gave us this descriptor.
    unsafe { OwnedFd::from_raw_fd(fds[0]) }
}

#[test]
fn a_socket_created_in_an_enrolled_cgroup_is_redirected_wherever_it_dials() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let elsewhere = lab.cgroup("elsewhere");
    let https: SockAddr = "127.77.0.1:443".parse::<SocketAddr>().unwrap().into();

    // Handed to a process outside, which dials.
    let (inside, outside) = UnixDatagram::pair().unwrap();
    let maker = agent(&agents, || {
        pass(&inside, &socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        "made".to_owned()
    });
    let dialler = agent(&elsewhere, || outcome(Socket::from(receive(&outside)).connect(&https)));
    let stream = accept(&listeners.v4);
    let origin = capture.origins().of(&stream).unwrap();
    assert_eq!(origin.cgroup, cgroup_id(&agents).unwrap());
    assert_eq!(origin.enrolled, origin.cgroup);
    assert_eq!(origin.process.pid, dialler.pid());
    // The later one first: it holds a copy of what ends the earlier one.
    assert_eq!(dialler.said(), "ok");
    assert_eq!(maker.said(), "made");

    // Taken along by a process that left.
    let left = agent(&agents, || {
        let tcp = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        std::fs::write(elsewhere.join("cgroup.procs"), "0").unwrap();
        format!("{} {}", outcome(tcp.connect(&https)), outcome(udp.send_to(b"x", "127.0.0.1:443")))
    });
    let stream = accept(&listeners.v4);
    assert_eq!(capture.origins().of(&stream).unwrap().cgroup, cgroup_id(&agents).unwrap());
    assert_eq!(left.said(), "ok EPERM");

    // Once its cgroup isn't enrolled any more, it is anybody's.
    let (asked, answer) = UnixDatagram::pair().unwrap();
    let freed = agent(&agents, || {
        let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        answer.send(b"x").unwrap();
        answer.recv(&mut [0]).unwrap();
        outcome(socket.connect(&https))
    });
    asked.recv(&mut [0]).unwrap();
    capture.withdraw(cgroup_id(&agents).unwrap()).unwrap();
    asked.send(b"x").unwrap();
    assert_eq!(freed.said(), "ECONNREFUSED");
}
