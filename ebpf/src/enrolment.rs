//! Whether the current task is an agent's, by its cgroup's ancestors.

use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id};
use chaperone_ebpf_abi::{EXEMPT, MAX_CGROUP_LEVEL};

use crate::maps::ENROLLED;

/// An enrolled task.
pub struct Enrolled {
    /// Its cgroup.
    pub cgroup: u64,
    /// The nearest enrolled cgroup: that one or an ancestor.
    pub by: u64,
}

/// The current task's enrolment; `None` if it is nobody's agent. From the root down, so that what is nearer to the task
/// has the last word, and a tree deeper than the hooks look leads out of nothing.
#[inline(always)]
pub fn current() -> Option<Enrolled> {
    let mut by = 0;
    for level in 0..=MAX_CGROUP_LEVEL {
        // SAFETY: takes a number, gives a number; 0 beyond the task's own level.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if id == 0 {
            break;
        }
        // SAFETY: the value is read at once; values change by whole words.
        if let Some(flags) = unsafe { ENROLLED.get(id) } {
            by = if *flags & EXEMPT == 0 { id } else { 0 };
        }
    }
    if by == 0 {
        return None;
    }
    // SAFETY: takes nothing, gives a number.
    Some(Enrolled { cgroup: unsafe { bpf_get_current_cgroup_id() }, by })
}
