//! `open(2)` of a device: an agent has none by which packets come into a network that no socket sends.

use aya_ebpf::{helpers::generated::bpf_get_current_task, programs::DeviceContext};
use aya_log_ebpf::warn;
use chaperone_ebpf_abi::Counter;

use crate::{
    connect::{PASS, REFUSE},
    enrolment::{self, Standing},
    kernel::field,
    maps,
};

/// `/dev/net/tun` (Documentation/admin-guide/devices.txt), whatever the name of its node.
const TUN: (u32, u32) = (10, 200);
/// include/uapi/linux/bpf.h: `BPF_DEVCG_DEV_CHAR`, below, and `BPF_DEVCG_ACC_READ` and `_WRITE`, above 16 bits. Making a node
/// opens nothing.
const CHARACTER: u32 = 2;
const OPENS: u32 = (2 | 4) << 16;

/// A device is being opened, or its node made. What is written to a TUN device arrives in the network that it is in, and is
/// passed on from there like somebody else's: a virtual machine's, or whatever a program makes up.
///
/// In a network of a user namespace's own it may be: the way out of there is other processes' sockets, such as pasta's and
/// slirp4netns', which are agents' too. (Where root has given such a network another one, as `lxc-user-nic` does, it isn't.)
#[inline(always)]
pub fn open(ctx: &DeviceContext) -> i32 {
    // SAFETY: fields of the context. Volatile, because the verifier takes whole words only, one by one.
    let (access, major, minor) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.device).access_type),
            core::ptr::read_volatile(&raw const (*ctx.device).major),
            core::ptr::read_volatile(&raw const (*ctx.device).minor),
        )
    };
    if (major, minor) != TUN || access & 0xffff != CHARACTER || access & OPENS == 0 {
        return PASS;
    }
    match enrolment::standing() {
        Standing::Enrolled(enrolled) if is_in_hosts_network() => {
            maps::count(Counter::SocketKind);
            warn!(ctx, "refused: a TUN device for cgroup {}", enrolled.cgroup);
            REFUSE
        }
        Standing::Escaped(counter) if is_in_hosts_network() => {
            maps::count(counter);
            REFUSE
        }
        _ => PASS,
    }
}

/// Whether the current task's network namespace is of the first user namespace: the host's own, or one that root has made,
/// such as a container engine's. Where that can't be read, it is.
#[inline(always)]
fn is_in_hosts_network() -> bool {
    // SAFETY: takes nothing, gives a pointer, as a number.
    let task = unsafe { bpf_get_current_task() };
    let network = field!(field!(task, task_struct_nsproxy as u64), nsproxy_net_ns as u64);
    // That of the first is 0 (kernel/user_namespace.c, `create_user_ns`).
    field!(field!(network, net_user_ns as u64), user_namespace_level as u32) == 0
}
