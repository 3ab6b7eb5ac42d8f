//! Rows "TCP connect to :443/:80", IPv4, IPv6, v4-mapped, Fast Open, MPTCP, `io_uring`.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::null_mut,
    sync::atomic::{AtomicU32, Ordering},
};

use chaperone_capture::{Counter, OriginError, cgroup_id, netns_cookie};
use socket2::{SockAddr, Socket};

use crate::{
    dial,
    lab::{Lab, accept, agent, outcome, socket},
};

#[test]
fn an_enrolled_process_is_redirected_and_its_origin_known() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let origins = capture.origins();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for to in [
        "203.0.113.7:443",
        "203.0.113.7:80",
        "203.0.113.7:8443",
        "169.254.169.254:80",
        "169.254.170.2:51679",
        "127.0.0.1:443",
    ] {
        let agent = agent(&agents, || dial(to));
        let stream = accept(&listeners.v4);
        let origin = origins.of(&stream).unwrap();
        assert_eq!(origin.destination.0, to.parse::<SocketAddr>().unwrap());
        assert_eq!(origin.peer, stream.peer_addr().unwrap());
        assert_eq!(origin.cgroup, cgroup_id(&agents).unwrap());
        assert_eq!(origin.enrolled, origin.cgroup);
        assert_eq!(origin.netns, netns_cookie(&stream).unwrap());
        assert_eq!(origin.process.pid, agent.pid());
        assert_eq!(origin.process.uid, 0);
        assert_eq!(origin.process.exe, std::env::current_exe().unwrap().to_string_lossy());
        let described = runtime.block_on(origins.described(&stream)).unwrap();
        assert_eq!(described.process.argv, std::env::args().collect::<Vec<_>>());
        assert_eq!(origins.of(&stream).unwrap(), described, "they are kept with their command");
        // getpeername shows the original destination.
        assert_eq!(agent.said(), to);
    }
    assert_eq!(capture.counters().get(Counter::Redirected).unwrap(), 6);
}

/// A proxy's port is no other's: it is captured where it is named.
#[test]
fn connections_to_a_proxy_that_is_named_are_redirected() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = proxy.local_addr().unwrap();
    let direct = || {
        let agent = agent(&agents, || dial(&at.to_string()));
        accept(&proxy);
        assert_eq!(agent.said(), at.to_string());
    };
    direct();
    let named = ["203.0.113.9:3128".parse().unwrap(), "[2001:db8::9]:3128".parse().unwrap(), at];
    capture.capture_proxies(&named.into()).unwrap();
    for (to, listener) in [(named[0], &listeners.v4), (named[1], listeners.v6.as_ref().unwrap()), (at, &listeners.v4)] {
        let agent = agent(&agents, || dial(&to.to_string()));
        let stream = accept(listener);
        assert_eq!(capture.origins().of(&stream).unwrap().destination.0, to);
        assert_eq!(agent.said(), to.to_string());
    }
    capture.capture_proxies(&[named[0]].into()).unwrap();
    direct();
    capture.capture_proxies(&[].into()).unwrap();
    direct();
}

#[test]
fn ipv6_goes_to_the_ipv6_listener() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    for to in ["[2001:db8::7]:443", "[fd00:ec2::254]:80", "[fd00:ec2::23]:8080", "[::1]:443", "[::1]:80", "[::1]:8443"]
    {
        let agent = agent(&agents, || dial(to));
        let stream = accept(listeners.v6.as_ref().expect("IPv6 on loopback"));
        let origin = capture.origins().of(&stream).unwrap();
        assert_eq!(origin.destination.0, to.parse::<SocketAddr>().unwrap());
        assert_eq!(origin.peer, stream.peer_addr().unwrap());
        assert_eq!(agent.said(), to);
    }
}

#[test]
fn v4_mapped_addresses_are_unwrapped() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    for (to, meant) in
        [("[::ffff:203.0.113.7]:443", "203.0.113.7:443"), ("[::ffff:169.254.169.254]:8080", "169.254.169.254:8080")]
    {
        let agent = agent(&agents, || dial(to));
        let stream = accept(&listeners.v4);
        let origin = capture.origins().of(&stream).unwrap();
        assert_eq!(origin.destination.0, meant.parse::<SocketAddr>().unwrap());
        assert_eq!(origin.peer, stream.peer_addr().unwrap());
        assert_eq!(agent.said(), to);
    }
}

#[test]
fn fast_open_is_redirected() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let by_sendto = || {
        let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let to = SockAddr::from("203.0.113.7:443".parse::<SocketAddr>().unwrap());
        outcome(socket.send_to_with_flags(b"hello", &to, libc::MSG_FASTOPEN))
    };
    let by_option = || {
        let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let on = 1_i32;
        // SAFETY: the option's value is a local of the stated size.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN_CONNECT,
                (&raw const on).cast(),
                4,
            )
        };
        assert_eq!(set, 0);
        socket.connect(&SockAddr::from("203.0.113.7:443".parse::<SocketAddr>().unwrap())).unwrap();
        outcome((&socket).write_all(b"hello"))
    };
    let runs: [fn() -> String; 2] = [by_sendto, by_option];
    for run in runs {
        let agent = agent(&agents, run);
        let mut stream = accept(&listeners.v4);
        assert_eq!(capture.origins().of(&stream).unwrap().destination.0.to_string(), "203.0.113.7:443");
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        assert_eq!(agent.said(), "ok");
    }
}

/// The hook sees the subflow and not the MPTCP socket, so this is the one kind whose getpeername shows the listener.
#[test]
fn mptcp_is_redirected() {
    const IPPROTO_MPTCP: i32 = 262;
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    for (domain, to) in [
        (libc::AF_INET, "203.0.113.7:443"),
        (libc::AF_INET6, "[2001:db8::7]:443"),
        (libc::AF_INET6, "[::ffff:203.0.113.7]:443"),
    ] {
        for flags in [0, libc::MSG_FASTOPEN] {
            let agent = agent(&agents, || {
                let socket = Socket::from(socket(domain, libc::SOCK_STREAM, IPPROTO_MPTCP));
                let address = SockAddr::from(to.parse::<SocketAddr>().unwrap());
                if flags == 0 {
                    outcome(socket.connect(&address))
                } else {
                    outcome(socket.send_to_with_flags(b"hello", &address, flags))
                }
            });
            let said = agent.said();
            // Kernels before 6.2 have no Fast Open on MPTCP sockets: nothing is sent.
            if flags != 0 && said == "EOPNOTSUPP" {
                continue;
            }
            assert_eq!(said, "ok");
            let v4 = to.contains("203.");
            let stream = accept(if v4 { &listeners.v4 } else { listeners.v6.as_ref().unwrap() });
            let origin = capture.origins().of(&stream).unwrap();
            assert_eq!(origin.destination.0.to_string(), to.replace("[::ffff:203.0.113.7]", "203.0.113.7"));
        }
    }
}

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
fn other_processes_and_other_ports_are_not_touched() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let elsewhere = lab.cgroup("elsewhere");
    let https = TcpListener::bind("127.77.0.1:443").unwrap();
    let other = TcpListener::bind("127.77.0.1:9443").unwrap();

    let unenrolled = agent(&elsewhere, || dial("127.77.0.1:443"));
    let stream = accept(&https);
    assert!(matches!(capture.origins().of(&stream), Err(OriginError::Unknown)));
    assert_eq!(unenrolled.said(), "127.77.0.1:443");

    let enrolled = agent(&agents, || dial("127.77.0.1:9443"));
    accept(&other);
    assert_eq!(enrolled.said(), "127.77.0.1:9443");

    capture.withdraw(cgroup_id(&agents).unwrap()).unwrap();
    capture.withdraw(cgroup_id(&agents).unwrap()).unwrap();
    let withdrawn = agent(&agents, || dial("127.77.0.1:443"));
    accept(&https);
    assert_eq!(withdrawn.said(), "127.77.0.1:443");
    assert_eq!(capture.counters().get(Counter::Redirected).unwrap(), 0);
    drop(listeners);
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
