//! What the hooks do on a real kernel. Needs root and eBPF, and fails without.

#![allow(clippy::unwrap_used)] // a test's steps either work or fail it; clippy knows only functions marked #[test]

mod bypasses;
mod commands;
mod guard;
mod lab;
mod lsm;
mod namespaces;
mod rules;
mod self_test;
mod sockets;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use chaperone_capture::{
    Capture, CaptureConfig, CaptureError, Counter, ListenPorts, OriginError, cgroup_id, cgroup_path, netns_cookie,
    remove_pins,
};
use lab::{Lab, accept, agent, outcome, socket};
use socket2::{SockAddr, Socket};

/// Connects, and says what `getpeername` shows or why not.
fn dial(to: &str) -> String {
    match TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(5)) {
        Ok(stream) => stream.peer_addr().unwrap().to_string(),
        Err(error) => outcome::<()>(Err(error)),
    }
}

/// A socket whose SYN is on its way.
fn begin_handshake() -> Socket {
    let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    socket.set_nonblocking(true).unwrap();
    let begun = socket.connect(&SockAddr::from("203.0.113.7:443".parse::<SocketAddr>().unwrap()));
    assert_eq!(outcome(begun), "EINPROGRESS");
    socket
}

/// Has the listener drop every packet, or not any more.
fn deafen(listener: &TcpListener, deaf: bool) {
    // "return 0" in classic BPF: keep nothing of the packet.
    let mut drop_all = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: drop_all.as_mut_ptr() };
    let option = if deaf { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
    // SAFETY: the option's value is a local of the stated size, and the filter outlives the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap(),
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[test]
fn an_enrolled_process_is_redirected_and_its_origin_known() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let origins = capture.origins();
    for to in ["203.0.113.7:443", "203.0.113.7:80", "169.254.169.254:80", "169.254.170.2:51679", "127.0.0.1:443"] {
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
        assert!(!origin.process.argv.is_empty());
        // getpeername shows the original destination.
        assert_eq!(agent.said(), to);
    }
    assert_eq!(capture.counters().get(Counter::Redirected).unwrap(), 5);
}

#[test]
fn ipv6_goes_to_the_ipv6_listener() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    for to in ["[2001:db8::7]:443", "[fd00:ec2::254]:80", "[fd00:ec2::23]:8080", "[::1]:443", "[::1]:80"] {
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

#[test]
fn refusals_reach_the_daemons_log() {
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lab = Lab::new();
    let (mut capture, _listeners, agents) = lab.start();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = runtime.block_on(async {
        capture.forward_log().unwrap().expect("the first call");
        assert!(capture.forward_log().unwrap().is_none());
        let said = agent(&agents, || outcome(UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "127.0.0.1:443")));
        assert_eq!(said.said(), "EPERM");
        tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let seen = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
                if seen.contains('\n') {
                    break seen;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap()
    });
    let expected = format!("chaperone_ebpf: refused: UDP to port 443 from cgroup {}", cgroup_id(&agents).unwrap().0);
    assert!(seen.contains(&expected), "{seen}");
}

#[test]
fn other_processes_and_other_ports_are_not_touched() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let elsewhere = lab.cgroup("elsewhere");
    let https = TcpListener::bind("127.77.0.1:443").unwrap();
    let other = TcpListener::bind("127.77.0.1:8443").unwrap();

    let unenrolled = agent(&elsewhere, || dial("127.77.0.1:443"));
    let stream = accept(&https);
    assert!(matches!(capture.origins().of(&stream), Err(OriginError::Unknown)));
    assert_eq!(unenrolled.said(), "127.77.0.1:443");

    let enrolled = agent(&agents, || dial("127.77.0.1:8443"));
    accept(&other);
    assert_eq!(enrolled.said(), "127.77.0.1:8443");

    capture.withdraw(cgroup_id(&agents).unwrap()).unwrap();
    capture.withdraw(cgroup_id(&agents).unwrap()).unwrap();
    let withdrawn = agent(&agents, || dial("127.77.0.1:443"));
    accept(&https);
    assert_eq!(withdrawn.said(), "127.77.0.1:443");
    assert_eq!(capture.counters().get(Counter::Redirected).unwrap(), 0);
    drop(listeners);
}

#[test]
fn the_nearest_word_counts() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let https = TcpListener::bind("127.77.0.1:443").unwrap();
    let exempt = lab.cgroup("agents/daemon");
    let inner = lab.cgroup("agents/daemon/agent");
    let deep = lab.cgroup(&format!("agents/deep{}", "/x".repeat(40)));
    capture.exempt(cgroup_id(&exempt).unwrap()).unwrap();
    capture.enroll(cgroup_id(&inner).unwrap()).unwrap();
    assert_eq!(capture.enrolled().unwrap().len(), 2);

    let daemon = agent(&exempt, || dial("127.77.0.1:443"));
    accept(&https);
    assert_eq!(daemon.said(), "127.77.0.1:443");
    for (cgroup, by) in [(&inner, &inner), (&deep, &agents)] {
        let redirected = agent(cgroup, || dial("127.77.0.1:443"));
        let origin = capture.origins().of(accept(&listeners.v4)).unwrap();
        assert_eq!(origin.cgroup, cgroup_id(cgroup).unwrap());
        assert_eq!(origin.enrolled, cgroup_id(by).unwrap());
        redirected.said();
    }
    // Where the hooks don't look, nothing can be enrolled.
    let error = capture.enroll(cgroup_id(&deep).unwrap()).unwrap_err().to_string();
    assert!(error.contains("levels deep"), "{error}");
}

#[test]
fn quic_is_refused_at_once() {
    let lab = Lab::new();
    let (capture, _listeners, agents) = lab.start();
    let said = agent(&agents, || {
        let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        let v6 = UdpSocket::bind("[::]:0").unwrap();
        let mut said = Vec::new();
        for (socket, to) in [(&v4, "127.0.0.1:443"), (&v6, "[::1]:443"), (&v6, "[::ffff:127.0.0.1]:443")] {
            said.push(outcome(socket.send_to(b"x", to)));
            said.push(outcome(socket.connect(to)));
        }
        said.push(outcome(v4.send_to(b"x", "127.0.0.1:53")));
        said.join(" ")
    })
    .said();
    assert_eq!(said, "EPERM EPERM EPERM EPERM EPERM EPERM ok");
    assert_eq!(capture.counters().get(Counter::Quic).unwrap(), 6);
}

#[test]
fn without_a_listener_agents_are_refused() {
    let lab = Lab::new();
    let https = TcpListener::bind("127.77.0.1:443").unwrap();
    let agents = lab.cgroup("agents");
    let capture = Capture::attach(&lab.config).unwrap();
    capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
    assert_eq!(agent(&agents, || dial("127.77.0.1:443")).said(), "EPERM");

    let listeners = capture.listen(ListenPorts::default()).unwrap();
    let redirected = agent(&agents, || dial("127.77.0.1:443"));
    accept(&listeners.v4);
    redirected.said();

    // A closed listener is none, though somebody else may listen on its port.
    let port = listeners.v4.local_addr().unwrap();
    drop(listeners);
    let thief = TcpListener::bind(port).unwrap();
    assert_eq!(agent(&agents, || dial("127.77.0.1:443")).said(), "EPERM");
    assert_eq!(agent(&agents, || dial("[2001:db8::7]:443")).said(), "EPERM");
    assert_eq!(capture.counters().get(Counter::NoListener).unwrap(), 3);
    for listener in [&thief, &https] {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn the_hooks_outlive_the_daemon_and_the_next_one_takes_them_over() {
    let lab = Lab::new();
    let https = TcpListener::bind("127.77.0.1:443").unwrap();
    let (capture, listeners, agents) = lab.start();
    let removed = lab.cgroup("removed");
    capture.enroll(cgroup_id(&removed).unwrap()).unwrap();
    drop((capture, listeners));
    fs::remove_dir(removed).unwrap();
    assert_eq!(agent(&agents, || dial("127.77.0.1:443")).said(), "EPERM");

    let capture = Capture::attach(&lab.config).unwrap();
    assert_eq!(capture.enrolled().unwrap(), [cgroup_id(&agents).unwrap()]);
    assert_eq!(agent(&agents, || dial("127.77.0.1:443")).said(), "EPERM");
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    let redirected = agent(&agents, || dial("127.77.0.1:443"));
    let stream = accept(&listeners.v4);
    assert_eq!(capture.origins().of(&stream).unwrap().destination.0.to_string(), "127.77.0.1:443");
    assert_eq!(redirected.said(), "127.77.0.1:443");
    assert_eq!(capture.counters().get(Counter::NoListener).unwrap(), 2);

    capture.detach().unwrap();
    assert!(!lab.config.bpffs.exists());
    let free = agent(&agents, || dial("127.77.0.1:443"));
    accept(&https);
    assert_eq!(free.said(), "127.77.0.1:443");
    assert!(!remove_pins(&lab.config.bpffs).unwrap());
}

#[test]
fn a_restart_can_have_the_same_ports() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let connection = agent(&agents, || dial("203.0.113.7:443"));
    let stream = accept(&listeners.v4);
    let ports = ListenPorts {
        v4: listeners.v4.local_addr().unwrap().port(),
        v6: listeners.v6.as_ref().unwrap().local_addr().unwrap().port(),
    };
    drop((capture, listeners, stream));
    connection.said();
    let capture = Capture::attach(&lab.config).unwrap();
    let listeners = capture.listen(ports).unwrap();
    assert_eq!(listeners.v4.local_addr().unwrap().port(), ports.v4);
}

#[test]
fn the_daemons_own_listener_cannot_be_dialled() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let v4 = listeners.v4.local_addr().unwrap();
    let v6 = listeners.v6.as_ref().unwrap().local_addr().unwrap();
    for to in [
        v4.to_string(),
        format!("0.0.0.0:{}", v4.port()),
        format!("[::ffff:127.0.0.1]:{}", v4.port()),
        v6.to_string(),
        format!("[::]:{}", v6.port()),
    ] {
        assert_eq!(agent(&agents, || dial(&to)).said(), "EPERM", "{to}");
    }
    assert_eq!(capture.counters().get(Counter::ListenerDialled).unwrap(), 5);

    // Who isn't enrolled can, and has no origin.
    let stranger = agent(&lab.cgroup("elsewhere"), || dial(&v4.to_string()));
    let stream = accept(&listeners.v4);
    assert!(matches!(capture.origins().of(&stream), Err(OriginError::Unknown)));
    stranger.said();
}

#[test]
fn a_socket_that_dials_again_has_the_second_destination() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let other = TcpListener::bind("127.77.0.1:8443").unwrap();
    let agent = agent(&agents, || {
        let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let mut seen = Vec::new();
        for to in ["203.0.113.7:443", "203.0.113.8:80", "127.77.0.1:8443"] {
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
    assert_eq!(agent.said(), "203.0.113.7:443 203.0.113.8:80 127.77.0.1:8443");
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

#[test]
fn a_second_daemon_is_told_of_the_first() {
    let lab = Lab::new();
    let (_capture, _listeners, _) = lab.start();
    let error = Capture::attach(&lab.config).unwrap_err();
    assert!(
        matches!(error, CaptureError::AlreadyRunning { pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    assert!(remove_pins(&lab.config.bpffs).is_err());
    // With a folder of its own, it has what it needs.
    let other = CaptureConfig { bpffs: lab.config.bpffs.with_file_name("other"), ..lab.config.clone() };
    Capture::attach(&other).unwrap();
}

#[test]
fn a_failed_start_leaves_nothing() {
    let lab = Lab::new();
    let wrong = CaptureConfig { cgroup_root: Some("/tmp".into()), ..lab.config.clone() };
    let error = Capture::attach(&wrong).unwrap_err().to_string();
    assert!(error.contains("/tmp") && error.contains("cgroup"), "{error}");
    // PENDING without room can't be made: the object doesn't load.
    assert!(matches!(Capture::attach_with(&lab.config, &[("PENDING", 0)]), Err(CaptureError::Load { .. })));
    assert_eq!(fs::read_dir(&lab.config.bpffs).unwrap().count(), 0);
}

#[test]
fn cgroups_have_paths() {
    let lab = Lab::new();
    let root = chaperone_capture::cgroup_root().unwrap();
    let cgroup = lab.cgroup("agents/coder");
    let id = cgroup_id(&cgroup).unwrap();
    let path = cgroup_path(&root, id).unwrap();
    assert_eq!(path, format!("/{}", cgroup.strip_prefix(&root).unwrap().display()));
    assert_eq!(cgroup_path(&root, cgroup_id(&root).unwrap()).unwrap(), "/");
    fs::remove_dir(&cgroup).unwrap();
    assert!(matches!(cgroup_path(&root, id), Err(CaptureError::CgroupGone { .. })));
}

/// A median that was measured, as `cargo xtask bench` reads it.
fn tell_cost(what: &str, how: &str, median: Duration) {
    println!("cost: {what}: {how}: {} ns", median.as_nanos());
}

/// The median of the times that an agent said, in nanoseconds.
fn median_of(said: &str) -> Duration {
    let mut times: Vec<u64> = said.split(' ').map(|time| time.parse().unwrap()).collect();
    times.sort_unstable();
    Duration::from_nanos(times[times.len() / 2])
}

fn times(count: usize, mut act: impl FnMut()) -> String {
    let one = |_| {
        let began = Instant::now();
        act();
        began.elapsed().as_nanos().to_string()
    };
    (0..count).map(one).collect::<Vec<_>>().join(" ")
}

/// Not a check but a measurement: `cargo test --release -p chaperone-capture -- --ignored --nocapture cost`. The times
/// in the hooks are the kernel's own (`BPF_ENABLE_STATS`), which cost some 30 ns a run themselves.
#[test]
#[ignore = "a measurement"]
fn cost_of_the_hooks() {
    // Fewer than a backlog: beyond it SYNs are lost, and the next ones come after a second.
    const CONNECTS: usize = 4_000;
    const REFUSED: &str = "connect(2), refused by the peer";
    const ACCEPTED: &str = "connect(2), accepted";
    let connects = || {
        let to = SockAddr::from("127.77.0.1:443".parse::<SocketAddr>().unwrap());
        let mut sockets = Vec::with_capacity(CONNECTS);
        times(CONNECTS, || {
            let socket = Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 0));
            let _ = socket.connect(&to);
            sockets.push(socket);
        })
    };
    let lab = Lab::new();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 16_384, 16_384).unwrap();
    let agents = lab.cgroup("a/b/agents");
    for _ in 0..3 {
        let measure = |what, how| tell_cost(what, how, median_of(&agent(&agents, connects).said()));
        measure(REFUSED, "no hooks");
        let capture = Capture::attach(&lab.config).unwrap();
        measure(REFUSED, "not enrolled");
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        measure("connect(2), refused by the hooks", "enrolled");
        capture.detach().unwrap();

        let https = TcpListener::bind("127.77.0.1:443").unwrap();
        nix::sys::socket::listen(&https, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
        let accepted = |listener: &TcpListener, how| {
            let agent = agent(&agents, connects);
            (0..CONNECTS).for_each(|_| drop(accept(listener)));
            tell_cost(ACCEPTED, how, median_of(&agent.said()));
        };
        accepted(&https, "no hooks");
        let (capture, listeners, _) = lab.start();
        accepted(&https, "not enrolled");
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        accepted(&listeners.v4, "enrolled");

        let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
        let redirected = agent(&agents, connects);
        let mut lookups = Vec::with_capacity(CONNECTS);
        for _ in 0..CONNECTS {
            let stream = accept(&listeners.v4);
            let began = Instant::now();
            capture.origins().of(&stream).unwrap();
            lookups.push(began.elapsed());
        }
        redirected.said();
        drop(stats);
        lookups.sort_unstable();
        tell_cost("the origin of an accepted connection, with the process's facts", "enrolled", lookups[CONNECTS / 2]);
        tell_hooks(&["connect4", "egress", "handshake", "sock_create"]);
        capture.detach().unwrap();
    }
}

/// How long these hooks took on average, since the kernel began to count.
fn tell_hooks(names: &[&str]) {
    for program in aya::programs::loaded_programs().flatten() {
        if let (Some(name), runs @ 1..) = (program.name_as_str(), program.run_count())
            && names.contains(&name)
        {
            let each = program.run_time() / u32::try_from(runs).unwrap();
            tell_cost(&format!("in the hook {name}"), "enrolled", each);
        }
    }
}
