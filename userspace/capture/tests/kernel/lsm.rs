//! What needs `bpf` among the kernel's LSMs: run where it is so, by `cargo xtask vm-test`.

use chaperone_capture::{Capture, CaptureConfig, Counter, LsmHooks, cgroup_id};

use crate::{
    lab::{Lab, agent},
    sockets::{Kind, made},
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
