//! What needs `bpf` among the kernel's LSMs: run where it is so, by `cargo xtask vm-test`.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
};

use chaperone_capture::{Capture, CaptureConfig, Counter, LsmHooks, cgroup_id};

use crate::{
    lab::{Lab, accept, agent, outcome, socket},
    sockets::{Kind, made, pass, receive},
};

const AF_RDS: i32 = 21;
const AF_TIPC: i32 = 30;
const AF_KCM: i32 = 41;
const AF_SMC: i32 = 43;
const AF_XDP: i32 = 44;

impl Lab {
    /// As [`start`](Lab::start), with every hook.
    fn start_whole(&self) -> (Capture, std::path::PathBuf) {
        let capture = Capture::attach(&CaptureConfig { lsm: LsmHooks::Required, ..self.config.clone() }).unwrap();
        assert!(capture.missing_hooks().is_empty());
        let agents = self.cgroup("agents");
        capture.enroll(cgroup_id(&agents).unwrap()).unwrap();
        (capture, agents)
    }
}

#[test]
#[ignore = "needs the BPF LSM"]
fn packet_xdp_vsock_and_smc_sockets_are_refused_in_an_enrolled_cgroup_only() {
    const REFUSED: [Kind; 12] = [
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
        (libc::AF_PACKET, libc::SOCK_DGRAM, 0),
        (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        (libc::AF_VSOCK, libc::SOCK_SEQPACKET, 0),
        (AF_XDP, libc::SOCK_RAW, 0),
        (AF_SMC, libc::SOCK_STREAM, 0),
        (AF_SMC, libc::SOCK_STREAM, 1),
        (AF_RDS, libc::SOCK_SEQPACKET, 0),
        (AF_TIPC, libc::SOCK_STREAM, 0),
        (AF_KCM, libc::SOCK_DGRAM, 0),
        (libc::AF_BLUETOOTH, libc::SOCK_RAW, 0),
        (libc::AF_CAN, libc::SOCK_RAW, 1),
    ];
    let lab = Lab::new();
    let (capture, agents) = lab.start_whole();
    assert_eq!(agent(&agents, || made(&REFUSED)).said(), ["EPERM"; 12].join(" "));
    assert_eq!(capture.counters().get(Counter::SocketKind).unwrap(), 12);
    assert_eq!(agent(&lab.cgroup("elsewhere"), || made(&REFUSED[..1])).said(), "ok");
}

#[test]
#[ignore = "needs the BPF LSM"]
fn a_connected_socket_handed_over_from_outside_is_guarded_from_its_first_byte() {
    let lab = Lab::new();
    let (capture, agents) = lab.start_whole();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let (outside, inside) = UnixDatagram::pair().unwrap();
    let _helper = agent(&lab.cgroup("elsewhere"), || {
        pass(&outside, &TcpStream::connect("127.77.0.1:443").unwrap());
        "passed".to_owned()
    });
    let mut served = accept(&server);
    let said = agent(&agents, || {
        let handed = socket2::Socket::from(receive(&inside));
        let first = outcome((&handed).write_all(b"GET / HTTP/1.1"));
        // The packet is dropped before the call returns.
        format!("{first} {}", outcome(handed.send(b"again")))
    });
    assert_eq!(said.said(), "ok ok");
    assert!(capture.counters().get(Counter::Guarded).unwrap() > 0);
    assert_eq!(capture.counters().get(Counter::HandedOver).unwrap(), 1);
    served.set_nonblocking(true).unwrap();
    assert_eq!(served.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
#[ignore = "needs the BPF LSM"]
fn a_connected_mptcp_socket_handed_over_from_outside_is_refused() {
    let lab = Lab::new();
    let (_capture, agents) = lab.start_whole();
    let server = TcpListener::bind("127.77.0.1:443").unwrap();
    let (outside, inside) = UnixDatagram::pair().unwrap();
    let _helper = agent(&lab.cgroup("elsewhere"), || {
        let mptcp = socket2::Socket::from(socket(libc::AF_INET, libc::SOCK_STREAM, 262));
        mptcp.connect(&"127.77.0.1:443".parse::<SocketAddr>().unwrap().into()).unwrap();
        pass(&outside, &mptcp);
        "passed".to_owned()
    });
    let _served = accept(&server);
    let said = agent(&agents, || outcome(socket2::Socket::from(receive(&inside)).send(b"x")));
    assert_eq!(said.said(), "EPERM");
}

/// As gVisor's runtime hands one to the process that a container's programs run in.
#[test]
#[ignore = "needs the BPF LSM"]
fn a_packet_socket_handed_over_from_outside_is_refused() {
    let lab = Lab::new();
    let (capture, agents) = lab.start_whole();
    let send = |socket: &socket2::Socket| outcome(socket.send(b"x"));
    let elsewhere = lab.cgroup("elsewhere");
    let (outside, inside) = UnixDatagram::pair().unwrap();
    let helper = agent(&elsewhere, || {
        let packets = socket2::Socket::from(socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0));
        pass(&outside, &packets);
        send(&packets)
    });
    // Nobody said where to.
    assert_eq!(helper.said(), "ENXIO");
    assert_eq!(agent(&agents, || send(&socket2::Socket::from(receive(&inside)))).said(), "EPERM");
    assert_eq!(capture.counters().get(Counter::HandedOver).unwrap(), 1);
}
