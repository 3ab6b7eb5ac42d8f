//! Where a redirected connection came from, as the kernel saw it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::CommandId;

/// A cgroup v2 id: the inode of its folder in the unified hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupId(pub u64);

/// A network namespace, by the kernel's `SO_NETNS_COOKIE` (never reused while the machine is up).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetnsCookie(pub u64);

/// A socket, by the kernel's `SO_COOKIE` (never reused while the machine is up).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketCookie(pub u64);

/// The address that the agent's process asked `connect(2)` for, before the hook pointed it at the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OriginalDst(pub SocketAddr);

/// What `/proc` told of the connecting process when its connection was accepted. An agent can change its own
/// arguments and executable's name, so these describe and never authorise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Process id in the daemon's pid namespace.
    pub pid: u32,
    /// User id, as the kernel hook saw it.
    pub uid: u32,
    /// Path of the executable; empty if the process was gone.
    pub exe: String,
    /// Arguments, bounded to 64 of 4 KiB in all; empty if the process was gone.
    pub argv: Vec<String>,
    /// The command that the process was in the middle of when it connected, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
}

/// The origin of one accepted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where the process wanted to go.
    pub destination: OriginalDst,
    /// The process's own address and port.
    pub peer: SocketAddr,
    /// The cgroup of the connecting process.
    pub cgroup: CgroupId,
    /// The enrolled cgroup that it is below (or the same).
    pub enrolled: CgroupId,
    /// The network namespace of the socket.
    pub netns: NetnsCookie,
    /// The socket.
    pub socket: SocketCookie,
    /// The connecting process.
    pub process: ProcessFacts,
}
