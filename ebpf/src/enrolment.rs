//! Whether the current task or a socket is an agent's, by its cgroup's ancestors.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_skb_ancestor_cgroup_id},
};
use chaperone_ebpf_abi::{EXEMPT, MAX_CGROUP_LEVEL, Stamp};

use crate::maps::ENROLLED;

/// The current task's enrolment; `None` if it is nobody's agent.
#[inline(always)]
pub fn current() -> Option<Stamp> {
    // SAFETY: takes a number, gives a number; 0 beyond the task's own level.
    let enrolled = nearest(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) });
    if enrolled == 0 {
        return None;
    }
    // SAFETY: takes nothing, gives a number.
    Some(Stamp { cgroup: unsafe { bpf_get_current_cgroup_id() }, enrolled })
}

/// What a socket's stamp is worth: nothing, once the cgroup isn't enrolled any more.
#[inline(always)]
pub fn stamped(stamp: &Stamp) -> Option<Stamp> {
    // SAFETY: as in `nearest`.
    let flags = unsafe { ENROLLED.get(stamp.enrolled) }?;
    if *flags & EXEMPT == 0 { Some(*stamp) } else { None }
}

/// Whether the socket of a packet was made below an enrolled cgroup.
#[inline(always)]
pub fn owns(skb: *mut __sk_buff) -> bool {
    // SAFETY: takes the context and a number, gives a number; 0 beyond the socket's level.
    nearest(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) }) != 0
}

/// Of the cgroups on the way from the root to some task's or socket's, given by their level, the enrolled one that
/// counts; 0 if there is none. From the root down, so that what is nearer has the last word, and a tree deeper than
/// the hooks look leads out of nothing.
#[inline(always)]
fn nearest(ancestor: impl Fn(i32) -> u64) -> u64 {
    let mut enrolled = 0;
    for level in 0..=MAX_CGROUP_LEVEL {
        let id = ancestor(level as i32);
        if id == 0 {
            break;
        }
        // SAFETY: the value is read at once; values change by whole words.
        if let Some(flags) = unsafe { ENROLLED.get(id) } {
            enrolled = if *flags & EXEMPT == 0 { id } else { 0 };
        }
    }
    enrolled
}
