//! `sock_ops`: carrying the origin from the agent's socket to the one that the daemon accepts.
//!
//! The two sockets share nothing but their tuple, and that only from the SYN to the end of the handshake. So the record
//! waits in `PENDING` for that time, and then moves into the accepted socket's own storage: a tuple that is used again
//! later, by another agent, can't be taken for this one.

use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::warn;
use chaperone_ebpf_abi::{AF_INET, Counter, Endpoint, LOOPBACK_V4, LOOPBACK_V6, Tuple, V4_MAPPED};

use crate::{
    maps::{self, PENDING},
    namespaces,
};

/// `BPF_SOCK_OPS_TIMEOUT_INIT`: how long to wait until a SYN is sent again; asked for either side.
pub const SYN_TIMEOUT: u32 = 1;
/// `BPF_SOCK_OPS_TCP_CONNECT_CB`: just before the SYN is sent.
pub const CONNECTING: u32 = 3;
/// `BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB`: the accepted socket is made.
pub const ACCEPTED: u32 = 5;
/// `BPF_SOCK_OPS_STATE_CB`: only on sockets that asked for it.
pub const STATE: u32 = 10;

/// `BPF_SOCK_OPS_STATE_CB_FLAG`.
const STATE_FLAG: u32 = 4;
/// `BPF_TCP_CLOSE`.
const TCP_CLOSE: u32 = 7;

/// The agent's socket is about to send its SYN: its port is known now.
#[inline(always)]
pub fn connecting(ctx: &SockOpsContext) {
    let Some(record) = maps::dialled(ctx) else { return };
    // A socket that was disconnected and dialled something else keeps its old record.
    if record.listener.port != remote_port(ctx) {
        return;
    }
    // Asked by what we pointed it at, not by the socket's family: an AF_INET6 socket may carry IPv4, and its
    // IPv6 fields are filled in only later.
    if record.listener.address[2] == V4_MAPPED {
        if ctx.remote_ip4() != LOOPBACK_V4 {
            return;
        }
        record.source = Endpoint::v4(ctx.local_ip4(), ctx.local_port() as u16);
    } else {
        record.source = Endpoint::v6(local_ip6(ctx), ctx.local_port() as u16);
    }
    // A map's key must lie on the stack.
    let tuple = record.tuple();
    let copy = *record;
    if PENDING.insert(tuple, copy, 0).is_err() {
        maps::count(Counter::PendingFull);
        warn!(ctx, "no room for the origin of a connection of cgroup {}: it will be closed", record.cgroup);
        return;
    }
    // So that the entry goes with the socket if the handshake fails. If this can't be asked for, the entry stays until
    // the tuple is used again, and full maps refuse.
    let _ = ctx.set_cb_flags((ctx.cb_flags() | STATE_FLAG) as i32);
}

/// The agent's socket is about to send its SYN: where it has to wait for a listener, it waits a shorter time.
#[inline(always)]
pub fn syn_timeout(ctx: &SockOpsContext) {
    let Some(record) = maps::dialled(ctx) else { return };
    if record.awaited != 0 {
        ctx.set_reply(namespaces::PATIENCE);
    }
}

/// The agent's socket changed its state.
#[inline(always)]
pub fn state_changed(ctx: &SockOpsContext) {
    if ctx.arg(1) != TCP_CLOSE {
        return;
    }
    let Some(record) = maps::dialled(ctx) else { return };
    let tuple = record.tuple();
    // SAFETY: the value is only compared.
    if let Some(pending) = unsafe { PENDING.get(tuple) }
        && pending.socket == record.socket
    {
        let _ = PENDING.remove(tuple);
    }
}

/// A handshake is over and its socket is made, on any listener of the host.
#[inline(always)]
pub fn accepted(ctx: &SockOpsContext) {
    let port = ctx.local_port() as u16;
    let (source, destination) = if ctx.family() == AF_INET {
        if ctx.local_ip4() != LOOPBACK_V4 {
            return;
        }
        (Endpoint::v4(ctx.remote_ip4(), remote_port(ctx)), Endpoint::v4(LOOPBACK_V4, port))
    } else {
        let local = local_ip6(ctx);
        if local[0] != 0 || local[1] != 0 || local[2] != 0 || local[3] != LOOPBACK_V6[3] {
            return;
        }
        (Endpoint::v6(remote_ip6(ctx), remote_port(ctx)), Endpoint::v6(LOOPBACK_V6, port))
    };
    let tuple = Tuple { netns: maps::netns_cookie(ctx), source, destination };
    // SAFETY: copied at once. Should the slot be freed and filled again meanwhile, the copy is of another tuple.
    let Some(mut record) = (unsafe { PENDING.get(tuple) }).copied() else { return };
    let _ = PENDING.remove(tuple);
    if record.source.port != source.port
        || record.source.address[3] != source.address[3]
        || record.netns != tuple.netns
        || maps::give_origin(ctx, &mut record).is_err()
    {
        maps::count(Counter::OriginLost);
        warn!(ctx, "the origin of a connection of cgroup {} is lost: it will be closed", record.cgroup);
    }
}

/// Of the socket's peer, in host order. The context has it in network order, in the upper half on little-endian hosts.
#[inline(always)]
fn remote_port(ctx: &SockOpsContext) -> u16 {
    u32::from_be(ctx.remote_port()) as u16
}

#[inline(always)]
fn local_ip6(ctx: &SockOpsContext) -> [u32; 4] {
    // SAFETY: fields of the context. Volatile, because the verifier takes whole words only, one by one.
    unsafe {
        let words = &raw const (*ctx.ops).local_ip6;
        [
            core::ptr::read_volatile(&raw const (*words)[0]),
            core::ptr::read_volatile(&raw const (*words)[1]),
            core::ptr::read_volatile(&raw const (*words)[2]),
            core::ptr::read_volatile(&raw const (*words)[3]),
        ]
    }
}

#[inline(always)]
fn remote_ip6(ctx: &SockOpsContext) -> [u32; 4] {
    // SAFETY: as in `local_ip6`.
    unsafe {
        let words = &raw const (*ctx.ops).remote_ip6;
        [
            core::ptr::read_volatile(&raw const (*words)[0]),
            core::ptr::read_volatile(&raw const (*words)[1]),
            core::ptr::read_volatile(&raw const (*words)[2]),
            core::ptr::read_volatile(&raw const (*words)[3]),
        ]
    }
}
