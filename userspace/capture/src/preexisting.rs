//! Connections that were there before their cgroup was enrolled: they made their `connect(2)` past the hooks.

use std::{collections::BTreeSet, fs, io, net::SocketAddr, path::Path};

use chaperone_ebpf_abi::{is_metadata, is_stream_port};
use chaperone_model::CgroupId;

use crate::{
    CaptureError, cgroup, netns,
    sock_diag::{SockDiag, TcpSocket},
};

/// A connection from before the enrolment, to where an agent's connections don't get without the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreexistingConnection {
    /// The agent's end.
    pub local: SocketAddr,
    /// Where it goes.
    pub peer: SocketAddr,
    /// The cgroup that its socket was made in.
    pub cgroup: CgroupId,
    /// Its user id.
    pub uid: u32,
    /// Whether it is gone. If not, the kernel has no `SOCK_DESTROY` (`CONFIG_INET_DIAG_DESTROY`), and the egress hook
    /// drops whatever it sends.
    pub destroyed: bool,
}

/// Destroys them, in this thread's network namespace and in those of the cgroup's processes, and tells of them.
/// `exempt` cgroups, and what is below them, are left alone. `proxies` are captured, too.
pub(crate) fn destroy(
    root: &Path,
    exempt: &BTreeSet<CgroupId>,
    proxies: &BTreeSet<SocketAddr>,
) -> Result<Vec<PreexistingConnection>, CaptureError> {
    let mut cgroups = BTreeSet::new();
    let mut pids = Vec::new();
    walk(root, exempt, &mut cgroups, &mut pids);
    let mut found = Vec::new();
    pids.insert(0, std::process::id());
    for namespace in netns::of_processes(pids).into_values() {
        let here = netns::within(&namespace, || destroy_here(&cgroups, proxies));
        found.extend(here.map_err(CaptureError::system("looking for connections from before the enrolment"))?);
    }
    Ok(found)
}

fn destroy_here(
    cgroups: &BTreeSet<CgroupId>,
    proxies: &BTreeSet<SocketAddr>,
) -> io::Result<Vec<PreexistingConnection>> {
    let diag = SockDiag::open()?;
    let connections = match diag.connections() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(
                "the kernel can't list connections (CONFIG_INET_TCP_DIAG; `modprobe tcp_diag`): those from before an \
                 enrolment are not told, and stay, guarded"
            );
            return Ok(Vec::new());
        }
        connections => connections?,
    };
    let mut found = Vec::new();
    for socket in connections {
        let Some(cgroup) = socket.cgroup.filter(|cgroup| cgroups.contains(cgroup)) else { continue };
        let peer = SocketAddr::new(socket.peer.ip().to_canonical(), socket.peer.port());
        if !is_guarded(&socket) && !proxies.contains(&peer) {
            continue;
        }
        let destroyed = match diag.destroy(&socket) {
            Ok(()) => true,
            // It ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!(peer = %socket.peer, %error, "a connection from before the enrolment stays, guarded");
                false
            }
        };
        let TcpSocket { local, peer, uid, .. } = socket;
        found.push(PreexistingConnection { local, peer, cgroup, uid, destroyed });
    }
    Ok(found)
}

/// What the hooks take for theirs; ebpf/src/connect.rs, `is_guarded_stream`.
fn is_guarded(socket: &TcpSocket) -> bool {
    is_stream_port(socket.peer.port()) || is_metadata(socket.peer.ip())
}

/// The cgroups from `at` down, and their processes. What vanishes meanwhile is left out.
pub(crate) fn walk(at: &Path, exempt: &BTreeSet<CgroupId>, cgroups: &mut BTreeSet<CgroupId>, pids: &mut Vec<u32>) {
    let Ok(id) = cgroup::cgroup_id(at) else { return };
    if exempt.contains(&id) {
        return;
    }
    cgroups.insert(id);
    let listed = fs::read_to_string(at.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), exempt, cgroups, pids);
        }
    }
}
