//! `[paths]`: folders and sockets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// Folders and sockets.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// The daemon's own folder; the CA is in `ca/` below it.
    pub state: PathBuf,
    /// The control socket.
    pub control: PathBuf,
    /// The approvers' socket, which any user may connect to.
    pub approvals: PathBuf,
    /// The socket where `identity.registrars` register sessions, which any user may connect to.
    pub registrations: PathBuf,
    /// The daemon's folder in the BPF filesystem.
    pub bpffs: PathBuf,
}
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state: "/var/lib/chaperone".into(),
            control: "/run/chaperone/control.sock".into(),
            approvals: "/run/chaperone/approvals.sock".into(),
            registrations: "/run/chaperone/register.sock".into(),
            bpffs: "/sys/fs/bpf/chaperone".into(),
        }
    }
}

impl Paths {
    /// The CA's folder.
    pub fn ca(&self) -> PathBuf {
        self.state.join("ca")
    }
}
