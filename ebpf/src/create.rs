//! `socket(2)`: an agent has the kinds of sockets that the other hooks see, and no other; and each is marked as its own.

use aya_ebpf::{
    EbpfContext as _,
    programs::{LsmContext, SockContext},
};
use aya_log_ebpf::warn;
use chaperone_ebpf_abi::{AF_INET, AF_INET6, Counter};

use crate::{
    commands, connect,
    enrolment::{self, Standing},
    maps,
};

const AF_UNIX: i32 = 1;
const AF_NETLINK: i32 = 16;
const AF_ALG: i32 = 38;

pub const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;

const IPPROTO_ICMP: u32 = 1;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;
const IPPROTO_ICMPV6: u32 = 58;
const IPPROTO_MPTCP: u32 = 262;

/// `-EPERM`, as LSM hooks return it.
pub const EPERM: i32 = -1;

/// An IP socket is being made: of TCP, UDP or ICMP echo it may be.
#[inline(always)]
pub fn ip_socket(ctx: &SockContext) -> i32 {
    let enrolled = match enrolment::standing() {
        Standing::Enrolled(stamp) => stamp,
        Standing::Escaped(counter) => {
            maps::count(counter);
            warn!(ctx, "refused: an IP socket for a process outside of enrolled cgroups, {}", enrolment::why(counter));
            return connect::REFUSE;
        }
        Standing::Free => return connect::PASS,
    };
    // SAFETY: fields of the context. Volatile, because the verifier takes whole words only, one by one.
    let (kind, protocol) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.sock).type_),
            core::ptr::read_volatile(&raw const (*ctx.sock).protocol),
        )
    };
    if !is_seen(kind, protocol) {
        maps::count(Counter::SocketKind);
        warn!(ctx, "refused: an IP socket of type {}, protocol {} for cgroup {}", kind, protocol, enrolled.cgroup);
        return connect::REFUSE;
    }
    let mut stamp = enrolled;
    // SAFETY: the context is the socket, and not null.
    if unsafe { maps::stamp(ctx.as_ptr(), &mut stamp) }.is_err() {
        maps::count(Counter::StampFailed);
        warn!(ctx, "refused: no room to mark a socket of cgroup {}", enrolled.cgroup);
        return connect::REFUSE;
    }
    commands::find(&enrolled);
    connect::PASS
}

/// Any socket is being made. What has no network of its own may be: an allow list, for every other family has, or its
/// module's author only didn't think of it yet. The IP families are `ip_socket`'s; SMC's IP protocol number is refused
/// there.
#[inline(always)]
pub fn any_socket(ctx: &LsmContext) -> i32 {
    let family: i32 = ctx.arg(0);
    if family == AF_INET as i32 || family == AF_INET6 as i32 {
        return 0;
    }
    if has_no_network(family) {
        return 0;
    }
    // Those that the kernel makes for itself, though in an agent's system call.
    if ctx.arg::<i32>(3) != 0 {
        return 0;
    }
    match enrolment::standing() {
        Standing::Enrolled(enrolled) => {
            maps::count(Counter::SocketKind);
            warn!(ctx, "refused: a socket of family {} for cgroup {}", family, enrolled.cgroup);
            EPERM
        }
        Standing::Escaped(counter) => {
            maps::count(counter);
            EPERM
        }
        Standing::Free => 0,
    }
}

/// Whether sockets of this family reach nothing but this host's processes and its kernel.
#[inline(always)]
pub fn has_no_network(family: i32) -> bool {
    family == AF_UNIX || family == AF_NETLINK || family == AF_ALG
}

/// Whether `connect` and `sendmsg` hooks see where such a socket sends to. UDP-Lite's `connect` they don't, and who makes
/// raw packets needs neither call; SCTP and DCCP are unknown to them.
#[inline(always)]
fn is_seen(kind: u32, protocol: u32) -> bool {
    match kind {
        SOCK_STREAM => protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP,
        SOCK_DGRAM => protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6,
        _ => false,
    }
}
