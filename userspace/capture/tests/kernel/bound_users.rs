//! Row "leaving the cgroup".

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use chaperone_capture::{Counter, cgroup_id};
use socket2::Socket;

use crate::lab::{Lab, accept, agent, outcome, socket};

#[test]
fn a_bound_user_gets_nowhere_outside_of_enrolled_cgroups() {
    const USER: u32 = 54_321;
    let become_user = || nix::unistd::setuid(USER.into()).unwrap();
    let kinds = || {
        let made = [(libc::AF_INET, libc::SOCK_STREAM, 0), (libc::AF_INET6, libc::SOCK_DGRAM, 0)];
        crate::sockets::made(&made)
    };
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let elsewhere = lab.cgroup("elsewhere");
    let exempt = lab.cgroup("exempt");
    capture.exempt(cgroup_id(&exempt).unwrap()).unwrap();
    capture.bind_users(&[USER, 99].into()).unwrap();
    let to: SocketAddr = "127.77.0.1:443".parse().unwrap();
    let _https = TcpListener::bind(to).unwrap();

    let escaped = agent(&elsewhere, || {
        // Sockets from before it was that user.
        let tcp = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        become_user();
        format!("{} {} {}", kinds(), outcome(tcp.connect(&to.into())), outcome(udp.send_to(b"x", to)))
    });
    assert_eq!(escaped.said(), "EPERM EPERM EPERM EPERM");
    assert_eq!(capture.counters().get(Counter::BoundUser).unwrap(), 4);

    // Another user, outside; the same one in an exempt cgroup and in an enrolled one.
    assert_eq!(agent(&elsewhere, kinds).said(), "ok ok");
    let user = |cgroup| {
        agent(cgroup, || {
            become_user();
            kinds()
        })
    };
    assert_eq!(user(&exempt).said(), "ok ok");
    assert_eq!(user(&agents).said(), "ok ok");
    let redirected = agent(&agents, || {
        become_user();
        outcome(std::net::TcpStream::connect(to))
    });
    let origin = capture.origins().of(accept(&listeners.v4)).unwrap();
    assert_eq!(origin.process.uid, USER);
    assert_eq!(redirected.said(), "ok");

    capture.bind_users(&[99].into()).unwrap();
    assert_eq!(user(&elsewhere).said(), "ok ok");
}

/// Whoever is in a user namespace of the user's making can be any of them.
#[test]
fn a_bound_users_subordinate_ids_are_bound_too() {
    const USER: u32 = 54_323;
    const FIRST: u32 = 2_000_000_000;
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let elsewhere = lab.cgroup("elsewhere");
    let become_one = |id: u32, cgroup| {
        agent(cgroup, move || {
            nix::unistd::setuid(id.into()).unwrap();
            crate::sockets::made(&[(libc::AF_INET, libc::SOCK_STREAM, 0)])
        })
        .said()
    };
    let subordinate = format!("{USER}:{FIRST}:65537\n1:{}:10\n", FIRST + 65_537);
    capture.bind_users_with(&[USER].into(), &subordinate).unwrap();
    let of = |id| become_one(id, &elsewhere);
    assert_eq!([USER, FIRST, FIRST + 999, FIRST + 65_536].map(of), ["EPERM"; 4]);
    assert_eq!([FIRST - 1, FIRST + 65_537].map(of), ["ok"; 2], "others'");
    assert_eq!(become_one(FIRST, &agents), "ok", "in an enrolled cgroup it is an agent");
    capture.bind_users_with(&[USER].into(), "").unwrap();
    assert_eq!([USER, FIRST + 999].map(of), ["EPERM", "ok"]);
}

/// A user's own connection from before it was bound: the socket is the user's, wherever it was made.
#[test]
fn a_bound_users_earlier_connections_are_guarded() {
    const USER: u32 = 54_322;
    let lab = Lab::new();
    let (capture, _listeners, _) = lab.start();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let earlier = agent(&lab.cgroup("elsewhere"), || {
        nix::unistd::setuid(USER.into()).unwrap();
        let mut stream = std::net::TcpStream::connect("127.77.0.1:443").unwrap();
        io::Write::write_all(&mut &there, b"x").unwrap();
        io::Read::read_exact(&mut &there, &mut [0]).unwrap();
        outcome(io::Write::write_all(&mut stream, b"secret"))
    });
    let mut served = accept(&server);
    io::Read::read_exact(&mut &here, &mut [0]).unwrap();
    capture.bind_users(&[USER].into()).unwrap();
    io::Write::write_all(&mut &here, b"x").unwrap();
    assert_eq!(earlier.said(), "ok");
    assert!(capture.counters().get(Counter::Guarded).unwrap() > 0);
    served.set_nonblocking(true).unwrap();
    assert_eq!(io::Read::read(&mut served, &mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}
