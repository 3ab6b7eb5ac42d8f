//! The types that the kernel hooks and the daemon exchange through maps, laid out as C would.
//!
//! Nothing here allocates, reads or decides. Every type is plain old data without implicit padding, so that any bytes
//! the kernel hands over are a valid value and no uninitialised byte ever reaches a map.

#![no_std]
#![forbid(unsafe_code)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many levels of the cgroup tree below its root the hooks look at, the root being level 0. A cgroup that is
/// enrolled must not be deeper; the processes may be.
pub const MAX_CGROUP_LEVEL: u32 = 31;

/// In `ENROLLED`: the cgroup and everything below it is redirected.
pub const ENROLLED: u32 = 1;
/// In `ENROLLED`: the cgroup and everything below it is left alone, though a farther ancestor is enrolled.
pub const EXEMPT: u32 = 2;
/// In `ENROLLED`, beside `ENROLLED`: whether it is an agent's isn't known yet. Until the daemon has found out it is treated
/// as one's.
pub const HELD: u32 = 4;

/// The TCP ports at which AWS is reached, and so an agent's connections don't get without the daemon. Plain HTTP is sent to
/// the first of them in its stead.
pub const STREAM_PORTS: [u16; 3] = [443, 80, ALTERNATE_HTTPS];

/// Amazon Transcribe's port for WebSockets.
pub const ALTERNATE_HTTPS: u16 = 8443;

/// The UDP ports that are refused to agents: HTTP/3's, and DNS over QUIC's.
pub const DATAGRAM_PORTS: [u16; 4] = [443, 80, ALTERNATE_HTTPS, 853];

/// The addresses of instance metadata (IMDS), and of the credentials of ECS's containers and of EKS's pods, in this order.
pub const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(169, 254, 170, 2), Ipv4Addr::new(169, 254, 170, 23)];

/// The addresses of instance metadata and of the credentials of EKS's pods, in this order; they differ in the last two
/// bytes alone.
pub const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)];

/// Whether it is one of [`METADATA_V4`], also where it is mapped into IPv6, or of [`METADATA_V6`].
pub fn is_metadata(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => METADATA_V4.contains(&address),
        IpAddr::V6(address) => METADATA_V6.contains(&address),
    }
}

/// Whether it is one of [`STREAM_PORTS`].
pub const fn is_stream_port(port: u16) -> bool {
    is_among(port, &STREAM_PORTS)
}

/// Whether it is one of [`DATAGRAM_PORTS`].
pub const fn is_datagram_port(port: u16) -> bool {
    is_among(port, &DATAGRAM_PORTS)
}

/// A loop of a constant length, which the compiler unrolls: the hooks have nothing to panic with.
const fn is_among<const N: usize>(port: u16, ports: &[u16; N]) -> bool {
    let mut at = 0;
    while at < N {
        if ports[at] == port {
            return true;
        }
        at += 1;
    }
    false
}

/// How many proxies' addresses there can be.
pub const MAX_PROXIES: usize = 256;

/// How many cgroups can be enrolled or exempt at once.
pub const MAX_ENROLLED: usize = 65_536;

/// How many states `RULES` has room for. The first leads nowhere; the others are two halves, of which one is in use.
pub const MAX_RULE_STATES: usize = 2048;
/// How many bytes of a cgroup's path are looked at, with the zero at its end: as many as the kernel gives to tracepoints
/// (kernel/cgroup/cgroup-internal.h, `TRACE_CGROUP_PATH_LEN`).
pub const MAX_CGROUP_PATH: usize = 1024;

/// In `RULES`: a state of the automaton that reads the paths of cgroups as they appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RuleState {
    /// By the next byte, the next state; 0 if no path goes on so.
    pub next: [u16; 256],
    /// What a cgroup whose path ends here gets in `ENROLLED`; 0 if nothing.
    pub enrols: u32,
}

/// The key of `LISTENERS`: which of the daemon's listening sockets to point a connection at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerKey {
    /// The network namespace, by its cookie.
    pub netns: u64,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// Zero.
    pub reserved: u32,
}

impl ListenerKey {
    /// The key for one family in one network namespace.
    pub const fn new(netns: u64, family: u32) -> Self {
        Self { netns, family, reserved: 0 }
    }
}

/// `AF_INET`.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;

/// An address and a port. IPv4 is kept v4-mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// The four words of the IPv6 address as they lie in memory: network byte order.
    pub address: [u32; 4],
    /// Host byte order.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

impl Endpoint {
    /// An IPv4 endpoint; `address` as it lies in memory (network byte order), `port` in host order.
    pub const fn v4(address: u32, port: u16) -> Self {
        Self { address: [0, 0, V4_MAPPED, address], port, reserved: [0; 3] }
    }

    /// An IPv6 endpoint; `address` as it lies in memory (network byte order), `port` in host order.
    pub const fn v6(address: [u32; 4], port: u16) -> Self {
        Self { address, port, reserved: [0; 3] }
    }
}

/// The third word of a v4-mapped address, `::ffff:0:0/96`, as it lies in memory.
pub const V4_MAPPED: u32 = 0xffff_u32.to_be();
/// 127.0.0.1 as it lies in memory.
pub const LOOPBACK_V4: u32 = 0x7f00_0001_u32.to_be();
/// `::1` as it lies in memory.
pub const LOOPBACK_V6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// The key of `PENDING`: one handshake with a listener of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tuple {
    /// The network namespace, by its cookie.
    pub netns: u64,
    /// The agent's end.
    pub source: Endpoint,
    /// The daemon's end.
    pub destination: Endpoint,
}

/// What the hooks know of one redirected connection. It is made at `connect(2)` on the agent's socket and ends up on
/// the daemon's accepted socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OriginRecord {
    /// The network namespace of the agent's socket, by its cookie.
    pub netns: u64,
    /// The cgroup of the connecting process.
    pub cgroup: u64,
    /// The enrolled cgroup: that one or an ancestor.
    pub enrolled: u64,
    /// The cookie of the agent's socket.
    pub socket: u64,
    /// Nanoseconds since boot (`CLOCK_BOOTTIME`, as `/proc/PID/stat` counts) at the call of `connect(2)`.
    pub connected_ns: u64,
    /// Where the process wanted to go.
    pub original: Endpoint,
    /// The agent's end. Zero until the SYN is about to be sent.
    pub source: Endpoint,
    /// The daemon's end, which the connection was pointed at.
    pub listener: Endpoint,
    /// Process (thread group) id in the first pid namespace.
    pub pid: u32,
    /// User id in the first user namespace.
    pub uid: u32,
    /// The command that the process is in the middle of; [`NO_COMMAND`] if that isn't known.
    pub command: [u8; 16],
    /// 1: the daemon had no listener in that namespace yet.
    pub awaited: u32,
    /// Zero.
    pub reserved: u32,
}

impl OriginRecord {
    /// The key of this connection's handshake.
    pub const fn tuple(&self) -> Tuple {
        Tuple { netns: self.netns, source: self.source, destination: self.listener }
    }
}

/// Whose a socket is: kept with it from its creation on, or from its first use by an agent that was handed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Stamp {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// The enrolled cgroup: that one or an ancestor. The stamp holds for as long as that one is enrolled.
    pub enrolled: u64,
}

/// A command's id that is none.
pub const NO_COMMAND: [u8; 16] = [0; 16];

/// In `COMMANDS`, by process id: the command that the process is in the middle of. Children inherit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Command {
    /// Its id, a UUIDv7 that the hooks make.
    pub id: [u8; 16],
    /// `self_exec_id` of the task: which of its process's executions it is.
    pub execution: u64,
    /// The process that executed it; a child's entry says its ancestor here.
    pub owner: u32,
    /// Not zero: its beginning was not told, and neither is its end.
    pub untold: u32,
}

/// How much of `COMMAND_EVENTS` an enrolled cgroup may fill with what nobody has read yet, in bytes: a quarter.
pub const MAX_UNREAD_COMMANDS: u64 = 1 << 20;

/// An execution: [`CommandStart`], then arguments.
pub const COMMAND_STARTED: u32 = 1;
/// [`CommandEnd`].
pub const COMMAND_ENDED: u32 = 2;
/// [`CommandStart`] of a process that made a socket, and whose execution nobody saw: it is older than the enrolment, or
/// than its place in the cgroup.
pub const COMMAND_FOUND: u32 = 3;

/// [`NamespaceUnknown`].
pub const NAMESPACE_UNKNOWN: u32 = 4;

/// A record in `COMMAND_EVENTS`: an agent connects in a network namespace in which the daemon has no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamespaceUnknown {
    /// [`NAMESPACE_UNKNOWN`].
    pub kind: u32,
    /// The process, which connects at this moment.
    pub pid: u32,
    /// The network namespace, by its cookie.
    pub netns: u64,
}

/// The key of `TOLD`: a process that the daemon was told of by a [`NamespaceUnknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Told {
    /// The network namespace, by its cookie.
    pub netns: u64,
    /// The process.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

/// How long the daemon isn't told again of the same process in the same namespace, in nanoseconds.
pub const TOLD_NS: u64 = 100_000_000;

/// [`CgroupNamed`]. (5 was one without `above`.)
pub const CGROUP_NAMED: u32 = 6;

/// A record in `COMMAND_EVENTS`: a cgroup appeared, and is enrolled or held because of its path, or is below one that is
/// enrolled. It is told before anything is executed there, and is all that is left of the path when the cgroup is gone. It ends
/// where the path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CgroupNamed {
    /// [`CGROUP_NAMED`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// The cgroup.
    pub id: u64,
    /// The nearest enrolled cgroup above it, whose share of the buffer this is told from; 0 if there is none.
    pub above: u64,
    /// Its path below the root of the hierarchy, up to the first zero.
    pub path: [u8; MAX_CGROUP_PATH],
}

/// Where the daemon lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Home {
    /// Its own network namespace, by its cookie; 0 while it has no listener.
    pub netns: u64,
    /// The port of its IPv4 listener there, and so in every other namespace.
    pub v4: u16,
    /// … of its IPv6 listener; 0 if it has none.
    pub v6: u16,
    /// Zero.
    pub reserved: u32,
}

/// How many bytes of a command's arguments are kept.
pub const MAX_ARGUMENTS: usize = 4096;
/// … in a record of the smaller size.
pub const FEW_ARGUMENTS: usize = 384;
/// How many bytes of the name that was executed are kept, with the zero at its end.
pub const MAX_FILE_NAME: usize = 256;

/// The head of a record in `COMMAND_EVENTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CommandStart {
    /// [`COMMAND_STARTED`] or [`COMMAND_FOUND`].
    pub kind: u32,
    /// How many bytes of arguments follow, zeroes between them.
    pub arguments: u32,
    /// The command.
    pub id: [u8; 16],
    /// The command that executed it, or that this process was before; or [`NO_COMMAND`].
    pub parent: [u8; 16],
    /// Nanoseconds since boot.
    pub at_ns: u64,
    /// The process's cgroup.
    pub cgroup: u64,
    /// The enrolled cgroup: that one or an ancestor.
    pub enrolled: u64,
    /// The executed file's inode number.
    pub inode: u64,
    /// … on this device, in the kernel's own numbering: major above the lower 20 bits.
    pub device: u32,
    /// Process id in the first pid namespace.
    pub pid: u32,
    /// The parent process's.
    pub parent_pid: u32,
    /// User id in the first user namespace.
    pub uid: u32,
    /// How many bytes of arguments there were.
    pub arguments_total: u32,
    /// 1: the process itself was `parent` before, which so ended.
    pub replaces: u32,
    /// The name that was executed, as it was given.
    pub file_name: [u8; MAX_FILE_NAME],
}

/// A record in `COMMAND_EVENTS`: the last thread of the process that executed a command is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CommandEnd {
    /// [`COMMAND_ENDED`].
    pub kind: u32,
    /// As `wait(2)` tells it.
    pub status: u32,
    /// The command.
    pub id: [u8; 16],
    /// Nanoseconds since boot.
    pub at_ns: u64,
}

/// Where fields lie in the structs of the kernel that runs, in bytes, by its BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // the kernel's own names
pub struct Offsets {
    pub task_struct_pid: u32,
    pub task_struct_tgid: u32,
    pub task_struct_real_parent: u32,
    pub task_struct_exit_code: u32,
    pub task_struct_signal: u32,
    pub task_struct_mm: u32,
    pub task_struct_self_exec_id: u32,
    pub signal_struct_live: u32,
    pub mm_struct_arg_start: u32,
    pub mm_struct_arg_end: u32,
    pub linux_binprm_filename: u32,
    pub linux_binprm_file: u32,
    pub file_f_inode: u32,
    pub inode_i_ino: u32,
    pub inode_i_sb: u32,
    pub super_block_s_dev: u32,
    pub cgroup_kn: u32,
    pub cgroup_self: u32,
    pub cgroup_subsys_state_parent: u32,
    pub cgroup_root: u32,
    pub cgroup_root_hierarchy_id: u32,
    pub kernfs_node_id: u32,
    pub task_struct_nsproxy: u32,
    pub nsproxy_net_ns: u32,
    pub net_user_ns: u32,
    pub user_namespace_level: u32,
}

/// What the hooks count, per CPU; the index into `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// A connection was pointed at the daemon.
    Redirected = 0,
    /// Refused: the daemon has no listener in the network namespace (it is down, or it is somebody else's namespace).
    NoListener = 1,
    /// Refused: an enrolled process dialled the daemon's listener itself.
    ListenerDialled = 2,
    /// Refused: UDP to a port of QUIC's, so that clients fall back to TCP, or to a metadata address.
    Quic = 3,
    /// Refused: the origin could not be kept with the socket.
    StorageFailed = 4,
    /// The handshake's origin could not be kept in `PENDING`: the daemon closes that connection.
    PendingFull = 5,
    /// The accepted socket could not be given its origin: the daemon closes that connection.
    OriginLost = 6,
    /// Refused: a socket of a kind whose packets go past the other hooks (raw, packet, vsock, SMC, SCTP, …), or a TUN device.
    SocketKind = 7,
    /// Refused: a socket of an agent's could not be marked as one.
    StampFailed = 8,
    /// Dropped: a packet of an agent's that came past the redirection.
    Guarded = 9,
    /// An agent used a socket that it was handed, or had from before its enrolment: it is guarded from then on, or refused,
    /// if it can't be.
    HandedOver = 10,
    /// Refused: a process of a bound user outside of every enrolled cgroup.
    BoundUser = 11,
    /// A command's beginning or end could not be told, because nobody made room for it (`COMMAND_EVENTS` is full).
    CommandLost = 12,
    /// A command could not be kept with its process (`COMMANDS` is full): its connections don't name it.
    CommandUnkept = 13,
    /// A cgroup that a rule names appeared, and could not be enrolled (`ENROLLED` is full). Below an enrolled one, it is
    /// captured as a part of that; else its processes are refused, as are those of all cgroups that appear after it, for
    /// nobody knows any more which of them are agents'.
    Unenrolled = 14,
    /// Refused: a process of a cgroup that may be an agent's, because it appeared when `ENROLLED` was full, or later.
    PerhapsAgents = 15,
}

impl Counter {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 16] = [
        Self::Redirected,
        Self::NoListener,
        Self::ListenerDialled,
        Self::Quic,
        Self::StorageFailed,
        Self::PendingFull,
        Self::OriginLost,
        Self::SocketKind,
        Self::StampFailed,
        Self::Guarded,
        Self::HandedOver,
        Self::BoundUser,
        Self::CommandLost,
        Self::CommandUnkept,
        Self::Unenrolled,
        Self::PerhapsAgents,
    ];

    /// The name used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::NoListener => "no_listener",
            Self::ListenerDialled => "listener_dialled",
            Self::Quic => "quic",
            Self::StorageFailed => "storage_failed",
            Self::PendingFull => "pending_full",
            Self::OriginLost => "origin_lost",
            Self::SocketKind => "socket_kind",
            Self::StampFailed => "stamp_failed",
            Self::Guarded => "guarded",
            Self::HandedOver => "handed_over",
            Self::BoundUser => "bound_user",
            Self::CommandLost => "command_lost",
            Self::CommandUnkept => "command_unkept",
            Self::Unenrolled => "unenrolled",
            Self::PerhapsAgents => "perhaps_agents",
        }
    }
}

// The kernel compares keys byte by byte: a hole between fields would hold stack garbage.
const _: () = assert!(size_of::<ListenerKey>() == 16);
const _: () = assert!(size_of::<Told>() == 16);
const _: () = assert!(size_of::<Endpoint>() == 24);
const _: () = assert!(size_of::<Tuple>() == 56);
const _: () = assert!(size_of::<OriginRecord>() == 144);
const _: () = assert!(size_of::<Stamp>() == 16);
const _: () = assert!(size_of::<Command>() == 32);
const _: () = assert!(size_of::<CommandStart>() == 352);
const _: () = assert!(size_of::<CommandEnd>() == 32);
const _: () = assert!(size_of::<CgroupNamed>() == 1048);
const _: () = assert!(size_of::<RuleState>() == 516);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_listed_by_their_indices() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }

    #[test]
    fn addresses_lie_in_network_byte_order() {
        let endpoint = Endpoint::v4(LOOPBACK_V4, 443);
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(endpoint.address) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
    }
}
