//! Network namespaces that the daemon hasn't been in yet, such as a new container's. 127.0.0.1 in there is not the host's:
//! the daemon opens a listener inside, on the ports that it has at home. The first connection doesn't wait for that in
//! `connect(2)`, where no hook can: its SYN is dropped, and sent again by TCP when the listener is there.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, bpf_ringbuf_submit},
};
use chaperone_ebpf_abi::{
    AF_INET, AF_INET6, Endpoint, ListenerKey, NAMESPACE_UNKNOWN, NamespaceUnknown, TOLD_NS, Told, V4_MAPPED,
};

use crate::{
    commands, connect,
    maps::{self, HOME, TOLD},
};

/// Until the first SYN is sent again, in jiffies: 50 to 500 ms by the kernel's configuration. It doubles with each.
pub const PATIENCE: u32 = 50;
/// `TCP_SYN_SENT`.
const SYN_SENT: u32 = 2;

/// The port at which the daemon will listen in that namespace, which it is told of; 0 if there is no daemon, or no room to
/// tell it.
#[inline(always)]
pub fn awaited(netns: u64, family: u32) -> u16 {
    let Some(home) = HOME.get(0) else { return 0 };
    if home.netns == 0 || home.netns == netns || maps::listener_port(&ListenerKey::new(home.netns, AF_INET)) == 0 {
        return 0;
    }
    if !is_told(netns) {
        return 0;
    }
    if family == AF_INET { home.v4 } else { home.v6 }
}

/// Tells the daemon of the current process, unless it just was; false if there is no room to.
#[inline(always)]
fn is_told(netns: u64) -> bool {
    // SAFETY: they take nothing and give numbers.
    let (pid, now) = unsafe { ((bpf_get_current_pid_tgid() >> 32) as u32, bpf_ktime_get_boot_ns()) };
    let told = Told { netns, pid, reserved: 0 };
    // SAFETY: the value is read at once.
    if let Some(before) = unsafe { TOLD.get(told) }
        && now - *before < TOLD_NS
    {
        return true;
    }
    // SAFETY: null is checked; the record is written whole before it is submitted.
    unsafe {
        let record = commands::reserve(size_of::<NamespaceUnknown>(), 0).cast::<NamespaceUnknown>();
        if record.is_null() {
            return false;
        }
        (*record).kind = NAMESPACE_UNKNOWN;
        (*record).pid = pid;
        (*record).netns = netns;
        bpf_ringbuf_submit(record.cast(), 0);
    }
    // Without room there, it is only told again.
    let _ = TOLD.insert(told, now, 0);
    true
}

/// Whether this is the SYN of a connection that was pointed at a listener which isn't there yet.
#[inline(always)]
pub fn must_wait(socket: *mut bpf_sock, remote: &Endpoint) -> bool {
    // SAFETY: a field of the socket, which the caller checked not to be null.
    if unsafe { read_volatile(&raw const (*socket).state) } != SYN_SENT {
        return false;
    }
    let Some(home) = HOME.get(0) else { return false };
    if remote.port == 0 || (remote.port != home.v4 && remote.port != home.v6) {
        return false;
    }
    // SAFETY: as above.
    match unsafe { maps::dialled_on(socket) } {
        Some(record) if record.awaited != 0 && connect::same(&record.listener, remote) => {
            let family = if remote.address[2] == V4_MAPPED { AF_INET } else { AF_INET6 };
            // Without the daemon there is nothing to wait for.
            maps::listener_port(&ListenerKey::new(record.netns, family)) == 0
                && maps::listener_port(&ListenerKey::new(home.netns, AF_INET)) != 0
        }
        _ => false,
    }
}
