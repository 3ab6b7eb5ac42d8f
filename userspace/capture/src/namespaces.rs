//! Listeners inside of the network namespaces that agents' processes are in, such as containers': there, 127.0.0.1 isn't
//! the host's.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
};

use chaperone_ebpf_abi::Home;
use chaperone_model::NetnsCookie;

use crate::{
    Capture, CaptureError, ListenPorts, Listeners,
    listen::{self, Other, Place},
    maps::HomeRecord,
    netns, preexisting,
};

impl Capture {
    /// Opens the listeners in the calling thread's network namespace, which is the daemon's home from then on, and has the
    /// hooks point at them, and no more at those of an earlier call there. In other namespaces the daemon will be expected
    /// on the same ports.
    pub fn listen(&self, ports: ListenPorts) -> Result<Listeners, CaptureError> {
        let listeners = self.listen_here(ports)?;
        let failed = CaptureError::system;
        let port = |listener: &std::net::TcpListener| listener.local_addr().map(|address| address.port());
        let v4 = port(&listeners.v4).map_err(failed("asking for a listener's port"))?;
        let v6 = listeners.v6.as_ref().map(port).transpose().map_err(failed("asking for a listener's port"))?;
        let inode = fs::metadata("/proc/thread-self/ns/net").map_err(failed("asking for the network namespace"))?.ino();
        let mut namespaces = self.namespaces.lock();
        namespaces.home = Some((inode, ListenPorts { v4, v6: v6.unwrap_or_default() }));
        let home = Home { netns: listeners.netns.0, v4, v6: v6.unwrap_or_default(), reserved: 0 };
        self.home
            .lock()
            .set(0, HomeRecord(home), 0)
            .map_err(CaptureError::map("telling the hooks where the daemon listens"))?;
        Ok(listeners)
    }

    /// As [`listen`](Self::listen), of no consequence for other namespaces.
    pub(crate) fn listen_here(&self, ports: ListenPorts) -> Result<Listeners, CaptureError> {
        listen::listen(&mut self.listeners.lock(), ports, Place::Home)
    }

    /// Listens in the network namespace that this process is in. `None` if the daemon does already, or the process is gone.
    /// To be called when [`CommandEvent::Namespace`](crate::CommandEvent::Namespace) says so.
    pub fn listen_for(&self, pid: u32) -> Result<Option<Listeners>, CaptureError> {
        let failed = CaptureError::system;
        let mut namespaces = self.namespaces.lock();
        let Some((home, ports)) = namespaces.home else { return Ok(None) };
        let Ok(namespace) = File::open(format!("/proc/{pid}/ns/net")) else { return Ok(None) };
        let inode = namespace.metadata().map_err(failed("asking for a process's network namespace"))?.ino();
        if inode == home || namespaces.others.contains_key(&inode) {
            return Ok(None);
        }
        let opened = netns::within(&namespace, || {
            listen::listen(&mut self.listeners.lock(), ports, Place::Elsewhere).map_err(io::Error::other)
        });
        let listeners =
            opened.map_err(CaptureError::system(format!("listening in the network namespace of process {pid}")))?;
        namespaces.others.insert(inode, Other { cookie: listeners.netns, is_empty: false });
        Ok(Some(listeners))
    }

    /// The namespaces in which no agent's process was, this time and the last time that this was asked. Their listeners,
    /// which keep them alive, are to be closed, and then [`forget`](Self::forget) told.
    pub fn abandoned(&self) -> Result<Vec<NetnsCookie>, CaptureError> {
        let exempt = self.exempted()?;
        let (mut cgroups, mut pids) = (BTreeSet::new(), Vec::new());
        for id in self.enrolled()? {
            if let Ok(path) = crate::cgroup_path(self.cgroup_root(), id) {
                let folder = self.cgroup_root().join(path.trim_start_matches('/'));
                preexisting::walk(&folder, &exempt, &mut cgroups, &mut pids);
            }
        }
        let inhabited = netns::of_processes(pids);
        let mut abandoned = Vec::new();
        for (inode, other) in &mut self.namespaces.lock().others {
            let is_empty = !inhabited.contains_key(inode);
            if is_empty && other.is_empty {
                abandoned.push(other.cookie);
            }
            other.is_empty = is_empty;
        }
        Ok(abandoned)
    }

    /// The listeners in this namespace are closed.
    pub fn forget(&self, netns: NetnsCookie) {
        self.namespaces.lock().others.retain(|_, other| other.cookie != netns);
    }
}
