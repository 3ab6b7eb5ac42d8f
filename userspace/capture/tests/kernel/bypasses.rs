//! The remaining rows: `io_uring`, source ports that are used again, UDP/443 in every way, many short-lived cgroups.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::null_mut,
    sync::atomic::{AtomicU32, Ordering},
};

use chaperone_capture::{Counter, cgroup_id};
use socket2::{SockAddr, Socket};

use crate::lab::{Lab, accept, accept_in_time, agent, outcome, socket};

/// include/uapi/linux/io_uring.h: as much as one connect takes.
mod uring {
    pub const SETUP_SQPOLL: u32 = 2;
    pub const OP_CONNECT: u8 = 16;
    pub const ENTER_GETEVENTS: u32 = 1;
    pub const ENTER_SQ_WAKEUP: u32 = 2;
    pub const OFF_SQES: i64 = 0x1000_0000;

    #[repr(C)]
    #[derive(Default)]
    pub struct Params {
        pub entries: [u32; 2],
        pub flags: u32,
        pub sq_thread_cpu: u32,
        pub sq_thread_idle: u32,
        pub features: u32,
        pub wq_fd: u32,
        pub resv: [u32; 3],
        /// head, tail, ring mask, ring entries, flags, dropped, array, resv
        pub sq: [u32; 8],
        pub sq_addr: u64,
        /// head, tail, ring mask, ring entries, overflow, cqes, flags, resv
        pub cq: [u32; 8],
        pub cq_addr: u64,
    }
}

/// `connect(2)` by an `io_uring`, with or without a kernel thread that polls its submissions.
#[allow(clippy::cast_ptr_alignment)] // the kernel's offsets are aligned
fn connect_by_uring(to: SocketAddr, setup: u32) -> String {
    let connecting = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    let address = SockAddr::from(to);
    let mut params = uring::Params { flags: setup, sq_thread_idle: 1000, ..Default::default() };
    // SAFETY: the system calls get locals that outlive them; the mapped rings are of the sizes and laid out as the kernel
    // says in `params`, and are written before the tail is published.
    let result = unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 4, &raw mut params);
        if fd < 0 {
            return format!("io_uring_setup: {}", io::Error::last_os_error());
        }
        let ring = OwnedFd::from_raw_fd(i32::try_from(fd).unwrap());
        let map = |length: usize, offset: i64| {
            let mapped = libc::mmap(
                null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                offset,
            );
            assert_ne!(mapped, libc::MAP_FAILED);
            mapped.cast::<u8>()
        };
        // One mapping has both rings (Linux 5.4, IORING_FEAT_SINGLE_MMAP).
        let rings = map(4096, 0);
        let entry = map(64, uring::OFF_SQES);
        let at = |offset: u32| &*rings.add(offset as usize).cast::<AtomicU32>();
        *entry = uring::OP_CONNECT;
        entry.add(4).cast::<i32>().write(connecting.as_raw_fd());
        entry.add(8).cast::<u64>().write(u64::from(address.len()));
        entry.add(16).cast::<u64>().write(address.as_ptr() as u64);
        at(params.sq[6]).store(0, Ordering::Relaxed);
        at(params.sq[1]).store(1, Ordering::Release);
        let flags = uring::ENTER_GETEVENTS | if setup == 0 { 0 } else { uring::ENTER_SQ_WAKEUP };
        if libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, flags, null_mut::<u8>(), 0) < 0 {
            return format!("io_uring_enter: {}", io::Error::last_os_error());
        }
        assert_eq!(at(params.cq[1]).load(Ordering::Acquire), 1);
        rings.add(params.cq[5] as usize + 8).cast::<i32>().read()
    };
    match result {
        0 => connecting.peer_addr().unwrap().as_socket().unwrap().to_string(),
        error => outcome::<()>(Err(io::Error::from_raw_os_error(-error))),
    }
}

#[test]
fn io_uring_connect_is_redirected_with_and_without_sqpoll() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let to: SocketAddr = "203.0.113.7:443".parse().unwrap();
    for setup in [0, uring::SETUP_SQPOLL] {
        let dialler = agent(&agents, || connect_by_uring(to, setup));
        let stream = accept(&listeners.v4);
        let origin = capture.origins().of(&stream).unwrap();
        assert_eq!(origin.destination.0, to);
        assert_eq!(origin.cgroup, cgroup_id(&agents).unwrap());
        assert_eq!(origin.process.pid, dialler.pid());
        assert_eq!(dialler.said(), to.to_string());
    }
}

#[test]
fn udp_443_is_refused_connected_or_not_and_by_every_call() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let said = agent(&agents, || {
        let unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        elsewhere.connect("127.77.0.1:9").unwrap();
        let https = SockAddr::from("127.77.0.1:443".parse::<SocketAddr>().unwrap());
        let by_msg = |socket: &UdpSocket| {
            let socket = Socket::from(socket.try_clone().unwrap());
            outcome(socket.send_to_vectored(&[io::IoSlice::new(b"x")], &https))
        };
        [
            outcome(unconnected.send_to(b"x", "127.77.0.1:443")),
            by_msg(&unconnected),
            // Connected to somewhere else.
            outcome(elsewhere.send_to(b"x", "127.77.0.1:443")),
            by_msg(&elsewhere),
            outcome(elsewhere.connect("127.77.0.1:443")),
        ]
        .join(" ")
    });
    assert_eq!(said.said(), ["EPERM"; 5].join(" "));
    assert_eq!(capture.counters().get(Counter::Quic).unwrap(), 5);
}

/// Few source ports and many connections: every tuple comes again and again, with another destination each time. More of
/// them by `CHAPERONE_TEST_CONNECTIONS`.
#[test]
fn a_source_port_that_is_used_again_has_the_new_connections_origin() {
    let connections: u32 = std::env::var("CHAPERONE_TEST_CONNECTIONS").map_or(6_000, |count| count.parse().unwrap());
    // As many as there are destinations: 198.18.0.0/16.
    assert!(connections <= 65_536);
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
    println!("{connections} connections from {} ports: every origin is its own connection's", ports.len());
}

#[test]
fn a_thousand_short_lived_cgroups_each_have_their_own_connection() {
    const CGROUPS: usize = 1_000;
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let maker = agent(&agents, || {
        let to = SockAddr::from("203.0.113.7:443".parse::<SocketAddr>().unwrap());
        let back = agents.join("cgroup.procs");
        for number in 0..CGROUPS {
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
    for _ in 0..CGROUPS {
        let mut stream = accept(&listeners.v4);
        let mut id = [0; 8];
        io::Read::read_exact(&mut stream, &mut id).unwrap();
        let origin = capture.origins().of(&stream).unwrap();
        assert_eq!(origin.cgroup.0, u64::from_ne_bytes(id));
        assert_eq!(origin.enrolled, cgroup_id(&agents).unwrap());
        seen.insert(origin.cgroup);
    }
    assert_eq!(maker.said(), "all");
    assert_eq!(seen.len(), CGROUPS);
    assert_eq!(capture.pending().unwrap(), 0);
    assert_eq!(capture.enrolled().unwrap().len(), 1);
}

/// What an agent left running outside is nobody's; what it listens on inside is not the daemon's business.
#[test]
fn an_agents_own_server_on_port_443_answers_others() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let server = agent(&agents, || {
        let listener = TcpListener::bind("127.77.0.1:443").unwrap();
        io::Write::write_all(&mut &there, b"x").unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        outcome(io::Write::write_all(&mut stream, b"hello"))
    });
    io::Read::read_exact(&mut &here, &mut [0]).unwrap();
    let mut client = std::net::TcpStream::connect("127.77.0.1:443").unwrap();
    let mut hello = [0; 5];
    io::Read::read_exact(&mut client, &mut hello).unwrap();
    assert_eq!((&hello, server.said().as_str()), (b"hello", "ok"));
    assert_eq!(capture.counters().get(Counter::Guarded).unwrap(), 0);
}

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
