//! The kernel hooks: they point the agents' connections at the daemon and carry each one's origin to the socket that
//! the daemon accepts. They never decide policy. What can't be looked up, kept or redirected is refused and counted.
//!
//! All but the LSM's are attached at the root of cgroup v2; all ask themselves, by the task's or the socket's cgroup,
//! whether to act. Together they need Linux 5.15, the LSM hooks 6.1 with `bpf` among its LSMs.

#![no_std]
#![no_main]

mod appearance;
mod commands;
mod connect;
mod create;
mod devices;
mod enrolment;
mod guard;
mod handshake;
mod kernel;
mod maps;
mod namespaces;

use aya_ebpf::{
    macros::{cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, lsm, raw_tracepoint, sock_ops},
    programs::{
        DeviceContext, LsmContext, RawTracePointContext, SkBuffContext, SockAddrContext, SockContext, SockOpsContext,
    },
};
use connect::{PASS, REFUSE, Verdict};

/// `connect(2)` on an AF_INET socket, TCP Fast Open included.
///
/// Minimum kernel: 5.8 (`bpf_sk_storage_get` here and lookups in socket maps; ancestor cgroup ids and the network
/// namespace's cookie came with 5.7).
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    match connect::connect(&ctx, &connect::v4(&ctx)) {
        Verdict::Pass => PASS,
        Verdict::Refuse => REFUSE,
        Verdict::Redirect(listener) => {
            connect::set_v4(&ctx, &listener);
            PASS
        }
    }
}

/// `connect(2)` on an AF_INET6 socket. One to a v4-mapped address goes to the IPv4 listener, by its v4-mapped address.
///
/// Minimum kernel: 5.8, as `connect4`.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    match connect::connect(&ctx, &connect::v6(&ctx)) {
        Verdict::Pass => PASS,
        Verdict::Refuse => REFUSE,
        Verdict::Redirect(listener) => {
            connect::set_v6(&ctx, &listener);
            PASS
        }
    }
}

/// `sendmsg(2)` with an IPv4 address on an unconnected UDP socket.
///
/// Minimum kernel: 5.7 (`bpf_get_current_ancestor_cgroup_id`).
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    connect::datagram(&ctx, &connect::v4(&ctx))
}

/// `sendmsg(2)` with an IPv6 address on an unconnected UDP socket.
///
/// Minimum kernel: 5.7, as `sendmsg4`.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    connect::datagram(&ctx, &connect::v6(&ctx))
}

/// `getpeername(2)` on an AF_INET socket: shows the original destination. Not on MPTCP sockets: `connect` is seen on their
/// first subflow, which can't be found from here.
///
/// Minimum kernel: 5.8.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(original) = connect::shown_peer(&ctx, &connect::v4(&ctx)) {
        connect::set_v4(&ctx, &original);
    }
    PASS
}

/// `getpeername(2)` on an AF_INET6 socket: shows the original destination.
///
/// Minimum kernel: 5.8.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(original) = connect::shown_peer(&ctx, &connect::v6(&ctx)) {
        connect::set_v6(&ctx, &original);
    }
    PASS
}

/// `socket(2)` for IPv4 and IPv6: refuses agents what the other hooks don't see, and marks the rest.
///
/// Minimum kernel: 5.9 (`bpf_sk_storage_get` here).
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    create::ip_socket(&ctx)
}

/// `socket(2)` for all families: refuses agents those that have a network past IP, such as packet and vsock.
///
/// Minimum kernel: 5.10 (`bpf_get_current_ancestor_cgroup_id` here), with `bpf` among its LSMs.
#[lsm(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    create::any_socket(&ctx)
}

/// `open(2)` of a device: refuses agents TUN devices, whose packets are no socket's.
///
/// Minimum kernel: 6.1 (`bpf_get_current_ancestor_cgroup_id` here).
#[cgroup_device]
pub fn device(ctx: DeviceContext) -> i32 {
    devices::open(&ctx)
}

/// Packets that leave a socket: drops what an agent's sends past the redirection.
///
/// Minimum kernel: 5.8 (`bpf_sk_storage_get` here; ancestor cgroup ids came with 4.19). Before 5.15, a socket could lose
/// its cgroup to `net_cls` or `net_prio` of cgroup v1.
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    guard::egress(&ctx)
}

/// `sendmsg(2)`, `write(2)` and the like, `io_uring`'s too, on any socket: marks what an agent was handed. On kernels
/// before 6.5, `sendfile(2)` and `splice(2)` to a socket don't pass here.
///
/// Minimum kernel: 5.11 (`bpf_sk_storage_get` here), with `bpf` among its LSMs.
#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    guard::used(&ctx)
}

/// TCP's events: the SYN, the end of the handshake, the end of the socket.
///
/// Minimum kernel: 5.15 (`bpf_get_netns_cookie` here).
#[sock_ops]
pub fn handshake(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        handshake::SYN_TIMEOUT => handshake::syn_timeout(&ctx),
        handshake::CONNECTING => handshake::connecting(&ctx),
        handshake::ACCEPTED => handshake::accepted(&ctx),
        handshake::STATE => handshake::state_changed(&ctx),
        _ => {}
    }
    // 1 leaves the reply to other programs; without one it is 0: the kernel's own values.
    1
}

/// A cgroup was made, and nobody can see it yet.
///
/// Minimum kernel: 5.5 (`bpf_probe_read_kernel_str`, and cgroups' ids in `kernfs_node`).
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_made(ctx: RawTracePointContext) -> i32 {
    appearance::made(&ctx)
}

/// Nothing refers to a removed cgroup any more.
///
/// Minimum kernel: 5.5, as `cgroup_made`.
#[raw_tracepoint(tracepoint = "cgroup_release")]
pub fn cgroup_released(ctx: RawTracePointContext) -> i32 {
    appearance::released(&ctx)
}

/// `execve(2)` has succeeded: an agent's command begins.
///
/// Minimum kernel: 5.8 (ring buffers).
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn command_began(ctx: RawTracePointContext) -> i32 {
    commands::began(&ctx)
}

/// A process or thread has been made: a process inherits its parent's command.
///
/// Minimum kernel: 5.5 (`bpf_probe_read_kernel`).
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn command_forked(ctx: RawTracePointContext) -> i32 {
    commands::forked(&ctx)
}

/// A thread ends, and perhaps its process and a command with it.
///
/// Minimum kernel: 5.8, as `command_began`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn command_ended(ctx: RawTracePointContext) -> i32 {
    commands::ended(&ctx)
}

// From Linux 7.0 on, a task can lose the processor within a tracepoint's program; what another task does there meanwhile
// passes that program by (kernel/trace/bpf_trace.c, `__bpf_trace_run`). So there are two of each: what one has seen, the
// other finds done, and what both miss is counted by the kernel.

/// As [`command_began`].
///
/// Minimum kernel: 5.8.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn again_began(ctx: RawTracePointContext) -> i32 {
    commands::began(&ctx)
}

/// As [`command_forked`].
///
/// Minimum kernel: 5.5.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn again_forked(ctx: RawTracePointContext) -> i32 {
    commands::forked(&ctx)
}

/// As [`command_ended`].
///
/// Minimum kernel: 5.8.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn again_ended(ctx: RawTracePointContext) -> i32 {
    commands::ended(&ctx)
}

/// The hooks are compiled without a way to panic; the language wants the function all the same.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel gives GPL-only helpers to programs under this licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
