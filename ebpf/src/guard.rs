//! What leaves an agent's sockets: the last place to stop what came past every other hook.
//!
//! A connection that was there before its cgroup was enrolled, or that was handed over, has made its `connect` long ago.
//! Whose a packet is says its socket: by its stamp, or by the cgroup it was made in. Not the current task: packets leave
//! in interrupts, too, on top of anybody.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes, bpf_skc_to_tcp_sock},
    programs::{LsmContext, SkBuffContext},
};
use chaperone_ebpf_abi::{AF_INET, AF_INET6, Counter, Endpoint};

use crate::{
    connect::{self, PASS, REFUSE},
    create::{self, EPERM, IPPROTO_TCP, IPPROTO_UDP, SOCK_RAW, SOCK_STREAM},
    enrolment, maps, namespaces,
};

/// Decides on a packet that leaves a socket.
#[inline(always)]
pub fn egress(ctx: &SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: a field of the context; null is checked before the helper sees it.
    let socket = unsafe {
        let any = (*skb).__bindgen_anon_2.sk;
        if any.is_null() {
            return PASS;
        }
        bpf_sk_fullsock(any)
    };
    if socket.is_null() {
        return PASS;
    }
    // SAFETY: fields of the socket, which is not null.
    let (kind, protocol) =
        unsafe { (read_volatile(&raw const (*socket).type_), read_volatile(&raw const (*socket).protocol)) };
    if kind == SOCK_RAW {
        // It writes its own headers.
        return stop_agents(skb, socket);
    }
    if protocol == IPPROTO_TCP {
        let Some(remote) = remote(socket) else { return stop_agents(skb, socket) };
        if namespaces::must_wait(socket, &remote) {
            return REFUSE;
        }
        // By the socket, and by the packet: who may change the network that he is in can have addresses rewritten there.
        let passes = |to: &Endpoint| !connect::is_guarded_stream(to) || maps::is_redirected(socket, to);
        if passes(&remote) && destination(skb, IPPROTO_TCP).is_some_and(|to| connect::same(&to, &remote) || passes(&to)) {
            return PASS;
        }
        return if is_reset(skb) { PASS } else { stop_agents(skb, socket) };
    }
    if protocol == IPPROTO_UDP {
        // The packet's and not the socket's: a connected socket can send elsewhere.
        return match destination(skb, IPPROTO_UDP) {
            Some(to) if !connect::is_guarded_datagram(&to) => PASS,
            _ => stop_agents(skb, socket),
        };
    }
    // ICMP echo; all else agents can't make, and others may.
    PASS
}

/// Whether a TCP packet is a reset, which carries nothing, and tells the peer of a connection that was destroyed.
#[inline(always)]
fn is_reset(skb: *mut __sk_buff) -> bool {
    const FLAGS_AT: u32 = 13;
    const RST: u8 = 4;
    let mut byte = [0_u8; 1];
    if load(skb, 0, &mut byte).is_none() {
        return false;
    }
    let head = if byte[0] >> 4 == 4 {
        u32::from(byte[0] & 0xf) * 4
    } else {
        // With extension headers (anybody may set a routing header), the flags are somewhere else.
        if load(skb, 6, &mut byte).is_none() || u32::from(byte[0]) != IPPROTO_TCP {
            return false;
        }
        40
    };
    load(skb, head + FLAGS_AT, &mut byte).is_some() && byte[0] & RST != 0
}

/// Drops the packet if its socket is an agent's.
#[inline(always)]
fn stop_agents(skb: *mut __sk_buff, socket: *mut bpf_sock) -> i32 {
    // SAFETY: the caller checked that it isn't null.
    let stamped = unsafe { maps::stamp_on(socket.cast()) }.and_then(enrolment::stamped).is_some();
    if !stamped && !enrolment::owns(skb) {
        return PASS;
    }
    maps::count(Counter::Guarded);
    REFUSE
}

/// Where a connected socket's packets go.
#[inline(always)]
fn remote(socket: *mut bpf_sock) -> Option<Endpoint> {
    // SAFETY: fields of the socket, which the caller checked not to be null. Volatile and all of them, because the
    // verifier takes them one by one and knows no sums of this pointer, which a choice among them is compiled to.
    let (family, port, v4, v6) = unsafe {
        (
            read_volatile(&raw const (*socket).family),
            read_volatile(&raw const (*socket).dst_port),
            read_volatile(&raw const (*socket).dst_ip4),
            [
                read_volatile(&raw const (*socket).dst_ip6[0]),
                read_volatile(&raw const (*socket).dst_ip6[1]),
                read_volatile(&raw const (*socket).dst_ip6[2]),
                read_volatile(&raw const (*socket).dst_ip6[3]),
            ],
        )
    };
    match family {
        AF_INET => Some(Endpoint::v4(v4, u16::from_be(port))),
        AF_INET6 => Some(Endpoint::v6(v6, u16::from_be(port))),
        _ => None,
    }
}

/// Where a packet goes, by its headers, before it is cut into fragments; `None` if it is of another protocol, or has
/// extension headers, which no client sends.
#[inline(always)]
fn destination(skb: *mut __sk_buff, protocol: u32) -> Option<Endpoint> {
    // Both transports' ports lie in their first four bytes: the shortest packets are longer than what is loaded here.
    let mut head = [0_u8; 24];
    load(skb, 0, &mut head)?;
    if head[0] >> 4 == 4 {
        if u32::from(head[9]) != protocol {
            return None;
        }
        let mut port = [head[22], head[23]];
        if head[0] & 0xf != 5 {
            load(skb, u32::from(head[0] & 0xf) * 4 + 2, &mut port)?;
        }
        let address = u32::from_ne_bytes([head[16], head[17], head[18], head[19]]);
        return Some(Endpoint::v4(address, u16::from_be_bytes(port)));
    }
    let mut head = [0_u8; 44];
    load(skb, 0, &mut head)?;
    if u32::from(head[6]) != protocol {
        return None;
    }
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    Some(Endpoint::v6([word(24), word(28), word(32), word(36)], u16::from_be_bytes([head[42], head[43]])))
}

#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, offset: u32, into: &mut [u8; N]) -> Option<()> {
    // SAFETY: the helper writes N bytes into a local of N bytes, or fails.
    let loaded = unsafe { bpf_skb_load_bytes(skb.cast(), offset, into.as_mut_ptr().cast(), N as u32) };
    if loaded == 0 { Some(()) } else { None }
}

/// `struct socket`'s `type`; include/linux/net.h.
const SOCKET_TYPE: usize = 4;
/// `struct socket`'s `sk`; include/linux/net.h. The verifier knows the types: at another offset than this kernel's, the
/// program wouldn't load.
const SOCKET_SK: usize = 24;
/// `struct sock_common`'s `skc_family`; include/net/sock.h.
const SOCK_FAMILY: usize = 16;

/// An agent uses a socket of another family: what it can't make it can't use either. gVisor's network, for one, is a packet
/// socket that its runtime makes outside of the container's cgroup.
#[inline(always)]
fn used_elsewhere(family: u32) -> i32 {
    if create::has_no_network(family as i32) || enrolment::current().is_none() {
        return 0;
    }
    maps::count(Counter::HandedOver);
    EPERM
}

/// An agent uses a socket that isn't marked as one's: it was handed over, or made before the task was enrolled. It is
/// marked, and from then on guarded like its own.
#[inline(always)]
pub fn used(ctx: &LsmContext) -> i32 {
    let socket: *const u8 = ctx.arg(0);
    // SAFETY: the hook's first argument is a `struct socket`; the kernel checks both loads.
    let sk = unsafe { *socket.add(SOCKET_SK).cast::<*const u8>() };
    if sk.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let family = u32::from(unsafe { read_volatile(sk.add(SOCK_FAMILY).cast::<u16>()) });
    if family != AF_INET && family != AF_INET6 {
        return used_elsewhere(family);
    }
    let sk = sk.cast_mut();
    // SAFETY: not null.
    if unsafe { maps::stamp_on(sk.cast()) }.is_some() {
        return 0;
    }
    let Some(mut stamp) = enrolment::current() else { return 0 };
    // SAFETY: as above.
    let kind = u32::from(unsafe { read_volatile(socket.add(SOCKET_TYPE).cast::<u16>()) });
    // A stream that isn't TCP is MPTCP. Its subflows can't be reached from here, so it couldn't be guarded.
    // SAFETY: not null.
    if kind == SOCK_STREAM && unsafe { bpf_skc_to_tcp_sock(sk.cast()) }.is_null() {
        maps::count(Counter::HandedOver);
        return EPERM;
    }
    // SAFETY: not null.
    if unsafe { maps::stamp(sk.cast(), &mut stamp) }.is_err() {
        maps::count(Counter::StampFailed);
        return EPERM;
    }
    maps::count(Counter::HandedOver);
    0
}
