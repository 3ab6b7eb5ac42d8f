//! Captures the agents' connections: loads, pins and attaches the kernel hooks, enrols cgroups, opens the listeners
//! that the hooks point at, and tells of every accepted connection where it came from.
//!
//! It never speaks TLS and never decides whether a call may happen. It fails closed: a connection whose origin isn't
//! known has none, and while no listener is open, enrolled processes are refused by the kernel, whether the daemon
//! runs or not.

mod arguments;
mod attach;
mod bound_users;
mod bpffs;
mod btf;
mod cgroup;
mod commands;
mod counters;
mod digests;
mod error;
mod executable;
mod fd_store;
mod foreign_programs;
mod hooks;
mod kernel_log;
mod leftovers;
mod listen;
mod maps;
mod mask;
mod missed_exits;
mod namespaces;
mod netns;
mod origin;
mod paths;
mod pending_cgroups;
mod pending_ring;
mod preexisting;
mod process;
mod proxies;
mod rules;
mod running;
mod self_test;
mod sock_diag;
mod sys;

pub use attach::{Capture, CaptureConfig, remove_pins};
pub use cgroup::{cgroup_id, cgroup_path, cgroup_root};
pub use chaperone_ebpf_abi::{ALTERNATE_HTTPS, Counter, METADATA_V4, METADATA_V6, is_metadata};
pub use commands::{CommandEvent, Commands, StartedCommand};
pub use counters::Counters;
pub use digests::{ExecutableDigest, PATIENCE};
pub use error::{CaptureError, OriginError};
pub use fd_store::{Adopted, FdStore, keep_no_longer};
pub use foreign_programs::{ForeignPrograms, Whose, beside, pinned_but_off};
pub use hooks::LsmHooks;
pub use listen::{ListenPorts, Listeners};
pub use mask::{ArgumentMask, RuleError};
pub use netns::NetworkNamespace;
pub use origin::Origins;
pub use pending_ring::PendingCgroups;
pub use preexisting::PreexistingConnection;
pub use rules::{CgroupRules, PendingPatterns, TooManyRules, cgroup_tree};
pub use self_test::Check;
pub use sys::{clock_is_synchronized, netns_cookie, pidfd};
