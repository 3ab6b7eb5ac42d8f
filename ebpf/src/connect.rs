//! `connect(2)`, `sendmsg(2)` and `getpeername(2)`: pointing connections at the daemon, and not showing it.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_get_socket_cookie,
        bpf_ktime_get_boot_ns,
    },
    programs::SockAddrContext,
};
use aya_log_ebpf::warn;
use chaperone_ebpf_abi::{
    AF_INET, AF_INET6, Counter, Endpoint, LOOPBACK_V4, LOOPBACK_V6, ListenerKey, OriginRecord, V4_MAPPED,
    is_datagram_port, is_stream_port,
};

use crate::{
    commands,
    enrolment::{self, Standing},
    maps, namespaces,
};

/// The system call goes on.
pub const PASS: i32 = 1;
/// The system call fails with `EPERM`.
pub const REFUSE: i32 = 0;

const SOCK_DGRAM: u32 = 2;

const DNS: u16 = 53;

/// The ABI's addresses as the kernel has them: words in network order.
const METADATA_V4: [u32; 3] = {
    let [imds, ecs, eks] = chaperone_ebpf_abi::METADATA_V4;
    [words_v4(imds), words_v4(ecs), words_v4(eks)]
};
const METADATA_V6: [[u32; 4]; 2] = {
    let [imds, eks] = chaperone_ebpf_abi::METADATA_V6;
    [words_v6(imds), words_v6(eks)]
};
/// The hook compares all but the last word once.
const _: () = {
    let [[a, b, c, _], [x, y, z, _]] = METADATA_V6;
    assert!(a == x && b == y && c == z);
};

const fn words_v4(address: core::net::Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

const fn words_v6(address: core::net::Ipv6Addr) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h] = address.segments();
    [pair(a, b), pair(c, d), pair(e, f), pair(g, h)]
}

const fn pair(high: u16, low: u16) -> u32 {
    ((high as u32) << 16 | low as u32).to_be()
}

/// The address in the context of an IPv4 hook.
#[inline(always)]
pub fn v4(ctx: &SockAddrContext) -> Endpoint {
    // SAFETY: fields of the context. Volatile, because the verifier takes whole words only, one by one.
    let address = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_ip4) };
    Endpoint::v4(address, port(ctx))
}

/// The address in the context of an IPv6 hook.
#[inline(always)]
pub fn v6(ctx: &SockAddrContext) -> Endpoint {
    // SAFETY: as in `v4`.
    let address = unsafe {
        let words = &raw const (*ctx.sock_addr).user_ip6;
        [
            core::ptr::read_volatile(&raw const (*words)[0]),
            core::ptr::read_volatile(&raw const (*words)[1]),
            core::ptr::read_volatile(&raw const (*words)[2]),
            core::ptr::read_volatile(&raw const (*words)[3]),
        ]
    };
    Endpoint::v6(address, port(ctx))
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: as in `v4`; the port lies in the first two bytes, in network order.
    u16::from_be(unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_port) } as u16)
}

/// Writes the address of an IPv4 hook's context.
#[inline(always)]
pub fn set_v4(ctx: &SockAddrContext, endpoint: &Endpoint) {
    // SAFETY: as in `v4`.
    unsafe {
        core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_ip4, endpoint.address[3]);
        core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(endpoint.port.to_be()));
    }
}

/// Writes the address of an IPv6 hook's context.
#[inline(always)]
pub fn set_v6(ctx: &SockAddrContext, endpoint: &Endpoint) {
    // SAFETY: as in `v4`.
    unsafe {
        let words = &raw mut (*ctx.sock_addr).user_ip6;
        core::ptr::write_volatile(&raw mut (*words)[0], endpoint.address[0]);
        core::ptr::write_volatile(&raw mut (*words)[1], endpoint.address[1]);
        core::ptr::write_volatile(&raw mut (*words)[2], endpoint.address[2]);
        core::ptr::write_volatile(&raw mut (*words)[3], endpoint.address[3]);
        core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(endpoint.port.to_be()));
    }
}

/// What a `connect` hook does.
pub enum Verdict {
    /// Nothing: not an agent, or not a destination of ours.
    Pass,
    /// `EPERM`.
    Refuse,
    /// To the daemon, there.
    Redirect(Endpoint),
}

/// Decides on a `connect(2)` to `target`.
#[inline(always)]
pub fn connect(ctx: &SockAddrContext, target: &Endpoint) -> Verdict {
    // SAFETY: a field of the context.
    if unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).type_) } == SOCK_DGRAM {
        return if datagram(ctx, target) == PASS { Verdict::Pass } else { Verdict::Refuse };
    }
    // Everything that isn't a datagram counts as a stream: TCP's protocol number is not the only one (MPTCP).
    let wanted = is_guarded_stream(target);
    // The cheap questions first: most connections of a host end here.
    if !wanted && !is_own_host(target) {
        return Verdict::Pass;
    }
    let enrolled = match standing(ctx) {
        Standing::Enrolled(stamp) => stamp,
        Standing::Escaped(counter) if wanted => {
            refuse_escaped(ctx, target, counter);
            return Verdict::Refuse;
        }
        Standing::Escaped(_) | Standing::Free => return Verdict::Pass,
    };
    // SAFETY: the helper takes this context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if !wanted {
        let v4 = maps::listener_port(&ListenerKey::new(netns, AF_INET));
        let v6 = maps::listener_port(&ListenerKey::new(netns, AF_INET6));
        if target.port == 0 || (v4 != target.port && v6 != target.port) {
            return Verdict::Pass;
        }
        maps::count(Counter::ListenerDialled);
        warn!(ctx, "refused: cgroup {} dialled the daemon's own listener", enrolled.cgroup);
        return Verdict::Refuse;
    }

    let mapped = is_mapped(&target.address);
    let family = if mapped { AF_INET } else { AF_INET6 };
    let mut port = maps::listener_port(&ListenerKey::new(netns, family));
    let mut awaited = 0;
    if port == 0 {
        port = namespaces::awaited(netns, family);
        awaited = 1;
    }
    if port == 0 {
        maps::count(Counter::NoListener);
        warn!(
            ctx,
            "refused: no listener in network namespace {} for a connection of cgroup {} to port {}",
            netns,
            enrolled.cgroup,
            target.port
        );
        return Verdict::Refuse;
    }
    let listener = if mapped { Endpoint::v4(LOOPBACK_V4, port) } else { Endpoint::v6(LOOPBACK_V6, port) };
    // SAFETY: helpers that take this context or nothing, and give numbers.
    let mut record = unsafe {
        OriginRecord {
            netns,
            cgroup: enrolled.cgroup,
            enrolled: enrolled.enrolled,
            socket: bpf_get_socket_cookie(ctx.as_ptr()),
            connected_ns: bpf_ktime_get_boot_ns(),
            original: *target,
            source: Endpoint::v6([0; 4], 0),
            listener,
            pid: (bpf_get_current_pid_tgid() >> 32) as u32,
            uid: bpf_get_current_uid_gid() as u32,
            command: commands::current(),
            awaited,
            reserved: 0,
        }
    };
    if maps::keep(ctx, &mut record).is_err() {
        maps::count(Counter::StorageFailed);
        warn!(ctx, "refused: no room for the origin of a connection of cgroup {}", enrolled.cgroup);
        return Verdict::Refuse;
    }
    maps::count(Counter::Redirected);
    Verdict::Redirect(listener)
}

/// Decides on a datagram (or a datagram socket's `connect(2)`) to `target`.
#[inline(always)]
pub fn datagram(ctx: &SockAddrContext, target: &Endpoint) -> i32 {
    if !is_guarded_datagram(target) {
        return PASS;
    }
    match standing(ctx) {
        Standing::Enrolled(enrolled) => {
            maps::count(Counter::Quic);
            warn!(ctx, "refused: UDP to port {} from cgroup {}", target.port, enrolled.cgroup);
        }
        Standing::Escaped(counter) => refuse_escaped(ctx, target, counter),
        Standing::Free => return PASS,
    }
    REFUSE
}

/// Where an agent's connections don't get without the daemon.
#[inline(always)]
pub fn is_guarded_stream(target: &Endpoint) -> bool {
    is_stream_port(target.port) || is_metadata(target) || maps::is_proxy(target)
}

/// Where an agent's datagrams don't get: HTTP/3, DNS over QUIC, and the metadata services but for the resolvers that some
/// clouds have at the same address.
#[inline(always)]
pub fn is_guarded_datagram(target: &Endpoint) -> bool {
    is_datagram_port(target.port) || (target.port != DNS && is_metadata(target))
}

/// Whose the call is: the task's, or if that is in no enrolled cgroup, the socket's.
#[inline(always)]
fn standing(ctx: &SockAddrContext) -> Standing {
    match enrolment::standing() {
        Standing::Enrolled(stamp) => Standing::Enrolled(stamp),
        task => match maps::stamp_of(ctx).and_then(enrolment::stamped) {
            Some(stamp) => Standing::Enrolled(stamp),
            None => task,
        },
    }
}

/// Such a process has no sockets of its own making: it had this one from before its user was bound, was handed it, or was
/// moved into its cgroup.
#[inline(always)]
fn refuse_escaped(ctx: &SockAddrContext, target: &Endpoint, counter: Counter) {
    maps::count(counter);
    warn!(ctx, "refused: port {} for a process outside of enrolled cgroups, {}", target.port, enrolment::why(counter));
}

/// The destination to show as the peer, when `peer` is the daemon in its stead.
#[inline(always)]
pub fn shown_peer(ctx: &SockAddrContext, peer: &Endpoint) -> Option<Endpoint> {
    let record = maps::kept(ctx)?;
    // A socket that was disconnected and dialled something else keeps its old record.
    if same(&record.listener, peer) { Some(record.original) } else { None }
}

/// Whether two endpoints are one.
#[inline(always)]
pub fn same(a: &Endpoint, b: &Endpoint) -> bool {
    a.port == b.port
        && a.address[0] == b.address[0]
        && a.address[1] == b.address[1]
        && a.address[2] == b.address[2]
        && a.address[3] == b.address[3]
}

#[inline(always)]
fn is_mapped(address: &[u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == V4_MAPPED
}

#[inline(always)]
fn is_metadata(target: &Endpoint) -> bool {
    let [a, b, c, d] = target.address;
    if is_mapped(&target.address) {
        return d == METADATA_V4[0] || d == METADATA_V4[1] || d == METADATA_V4[2];
    }
    let [imds, eks] = METADATA_V6;
    a == imds[0] && b == imds[1] && c == imds[2] && (d == imds[3] || d == eks[3])
}

/// The addresses by which a listener on 127.0.0.1 or `::1` can be reached; the unspecified ones mean loopback.
#[inline(always)]
fn is_own_host(target: &Endpoint) -> bool {
    let [a, b, c, d] = target.address;
    if is_mapped(&target.address) {
        return d == LOOPBACK_V4 || d == 0;
    }
    a == 0 && b == 0 && c == 0 && (d == LOOPBACK_V6[3] || d == 0)
}
