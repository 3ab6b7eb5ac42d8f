//! Rows "dialling the daemon's listener directly" and "daemon stopped, killed or crashed".

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    time::Duration,
};

use chaperone_capture::{
    Capture, CaptureConfig, CaptureError, Counter, ListenPorts, OriginError, cgroup_id, remove_pins,
};

use crate::{
    dial,
    lab::{Lab, accept, agent, outcome},
};

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

/// An agent that waits for the daemon's end to have its port: the hooks point at the daemon's sockets, not at a port.
#[test]
fn who_takes_the_daemons_port_while_it_is_down_gets_nothing_and_keeps_nobody_out() {
    let lab = Lab::new();
    let (capture, listeners, agents) = lab.start();
    let port = listeners.v4.local_addr().unwrap();
    drop((capture, listeners));
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let thief = agent(&agents, || {
        let thief = TcpListener::bind(port).unwrap();
        (&there).write_all(b"x").unwrap();
        (&there).read_exact(&mut [0]).unwrap();
        thief.set_nonblocking(true).unwrap();
        outcome(thief.accept())
    });
    (&here).read_exact(&mut [0]).unwrap();
    assert_eq!(agent(&agents, || dial("203.0.113.7:443")).said(), "EPERM");
    // In the next daemon's time, too.
    let capture = Capture::attach(&lab.config).unwrap();
    assert_eq!(agent(&agents, || dial("203.0.113.7:443")).said(), "EPERM");
    let listeners = capture.listen(ListenPorts::default()).unwrap();
    assert_ne!(listeners.v4.local_addr().unwrap(), port);
    let served = agent(&agents, || dial("203.0.113.7:443"));
    let origin = capture.origins().of(accept(&listeners.v4)).unwrap();
    assert_eq!(origin.destination.0.to_string(), "203.0.113.7:443");
    assert_eq!(served.said(), "203.0.113.7:443");
    (&here).write_all(b"x").unwrap();
    assert_eq!(thief.said(), "EAGAIN");
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
        tokio::time::timeout(Duration::from_mins(1), async {
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
