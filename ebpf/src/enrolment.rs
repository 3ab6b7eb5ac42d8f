//! Whether the current task or a socket is an agent's, by its cgroup's ancestors.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_uid_gid, bpf_get_socket_uid,
        bpf_skb_ancestor_cgroup_id,
    },
};
use chaperone_ebpf_abi::{Counter, EXEMPT, MAX_CGROUP_LEVEL, Stamp};

use crate::maps::{ENROLLED, UNENROLLED, is_bound};

/// Whose a task is.
pub enum Standing {
    /// An agent's.
    Enrolled(Stamp),
    /// Outside of every enrolled cgroup, and yet an agent's, or perhaps one's: a bound user's, or in a cgroup that there
    /// was no room to enrol. It gets nowhere; that is counted as this.
    Escaped(Counter),
    /// Somebody else's, or the daemon's.
    Free,
}

/// The current task's standing.
#[inline(always)]
pub fn standing() -> Standing {
    // SAFETY: takes a number, gives a number; 0 beyond the task's own level.
    let enrolled = nearest(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) });
    if enrolled == NOBODY || enrolled == PERHAPS {
        // Chosen before it is known to be needed: else the compiler copies a register that it hasn't set, and the verifier
        // objects.
        let counter = if enrolled == PERHAPS { Counter::PerhapsAgents } else { Counter::BoundUser };
        // SAFETY: takes nothing, gives a number: the user id in the first user namespace.
        let escaped = enrolled == PERHAPS || is_bound(unsafe { bpf_get_current_uid_gid() } as u32);
        return if escaped { Standing::Escaped(counter) } else { Standing::Free };
    }
    if enrolled == EXEMPTED {
        return Standing::Free;
    }
    // SAFETY: takes nothing, gives a number.
    Standing::Enrolled(Stamp { cgroup: unsafe { bpf_get_current_cgroup_id() }, enrolled })
}

/// The current task's enrolment; `None` if it isn't in an enrolled cgroup.
#[inline(always)]
pub fn current() -> Option<Stamp> {
    match standing() {
        Standing::Enrolled(stamp) => Some(stamp),
        Standing::Escaped(_) | Standing::Free => None,
    }
}

/// Why a process outside of enrolled cgroups is refused, by what that is counted as.
#[inline(always)]
pub fn why(counter: Counter) -> &'static str {
    match counter {
        Counter::PerhapsAgents => "in one that appeared when no more could be enrolled",
        _ => "of a bound user",
    }
}

/// What a socket's stamp is worth: nothing, once the cgroup isn't enrolled any more.
#[inline(always)]
pub fn stamped(stamp: &Stamp) -> Option<Stamp> {
    // SAFETY: as in `nearest`.
    let flags = unsafe { ENROLLED.get(stamp.enrolled) }?;
    if *flags & EXEMPT == 0 { Some(*stamp) } else { None }
}

/// Whether the socket of a packet was made below an enrolled cgroup, or belongs to a bound user.
#[inline(always)]
pub fn owns(skb: *mut __sk_buff) -> bool {
    // SAFETY: takes the context and a number, gives a number; 0 beyond the socket's level.
    match nearest(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) }) {
        // SAFETY: takes the context, gives a number: the user id in the network namespace's user namespace.
        NOBODY => is_bound(unsafe { bpf_get_socket_uid(skb) }),
        EXEMPTED => false,
        // `PERHAPS` too.
        _ => true,
    }
}

/// What `nearest` gives where no cgroup is enrolled, or exempt. No cgroup has this id.
const NOBODY: u64 = 0;
/// What `nearest` gives where an exempt cgroup has the last word. No cgroup has this id.
const EXEMPTED: u64 = u64::MAX;
/// What `nearest` gives where no cgroup is enrolled, or exempt, and one of them appeared when no more could be. No cgroup has
/// this id.
const PERHAPS: u64 = u64::MAX - 1;

/// Of the cgroups on the way from the root to some task's or socket's, given by their level, the enrolled one that
/// counts, or `EXEMPTED`, `PERHAPS` or `NOBODY`. From the root down, so that what is nearer has the last word, and a tree deeper than
/// the hooks look leads out of nothing.
#[inline(always)]
fn nearest(ancestor: impl Fn(i32) -> u64) -> u64 {
    let (mut enrolled, mut last) = (NOBODY, 0);
    for level in 0..=MAX_CGROUP_LEVEL {
        let id = ancestor(level as i32);
        if id == 0 {
            break;
        }
        last = id;
        // SAFETY: the value is read at once; values change by whole words.
        if let Some(flags) = unsafe { ENROLLED.get(id) } {
            enrolled = if *flags & EXEMPT == 0 { id } else { EXEMPTED };
        }
    }
    // Ids only grow (fs/kernfs/dir.c, `__kernfs_new_node`), and a cgroup is younger than those above it.
    if enrolled == NOBODY
        && let Some(first) = UNENROLLED.get(0)
        && *first != 0
        && last >= *first
    {
        return PERHAPS;
    }
    enrolled
}
