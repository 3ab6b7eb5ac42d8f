//! Cgroups that appear and go: those whose path a rule names are enrolled before anybody can be in them, and forgotten when
//! the last thing that was in them is gone. Those that may be an agent's by what only the daemon can find out, such as a
//! container's labels, are enrolled until it has: nobody in them can be faster.

use core::mem::offset_of;

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel_str, bpf_ringbuf_output},
    programs::RawTracePointContext,
};
use chaperone_ebpf_abi::{CGROUP_NAMED, CgroupNamed, Counter, EXEMPT, HELD, MAX_CGROUP_LEVEL, MAX_CGROUP_PATH};

use crate::{
    kernel::{field, offset},
    maps::{
        self, COMMAND_EVENTS, COMMANDS_READ, COMMANDS_WRITTEN, ENROLLED, HELD_EVENTS, PATH, RULES, RULES_START, UNENROLLED,
    },
};

/// Leaves what is there as it is.
const BPF_NOEXIST: u64 = 1;

/// A cgroup was made; the arguments are `(struct cgroup *, const char *path)`. It isn't visible yet (kernel/cgroup/cgroup.c,
/// `cgroup_mkdir`, before `kernfs_activate`), so that nothing can be in it.
#[inline(always)]
pub fn made(ctx: &RawTracePointContext) -> i32 {
    let (cgroup, path): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let (Some(id), Some(buffer)) = (id(cgroup), PATH.get_ptr_mut(0)) else { return 0 };
    // SAFETY: the map's value, which is this processor's own: cgroups are made one at a time, under the kernel's
    // `cgroup_mutex`.
    let buffer = unsafe { &mut *buffer };
    // SAFETY: as many bytes as there is room for.
    let length = unsafe {
        bpf_probe_read_kernel_str(buffer.path.as_mut_ptr().cast(), MAX_CGROUP_PATH as u32, path as *const _)
    };
    let flags = if length > 1 { named(&buffer.path) } else { 0 };
    if flags == 0 {
        // A part of an enrolled one, and perhaps a session of its own: the daemon may come too late to see its path.
        let above = enrolled_above(cgroup);
        if above != 0 {
            tell(buffer, id, above, length);
        }
        return 0;
    }
    if ENROLLED.insert(id, flags, BPF_NOEXIST).is_err() {
        if enrolled_above(cgroup) == 0 {
            refuse_from(id);
        }
        maps::count(Counter::Unenrolled);
        return 0;
    }
    tell(buffer, id, enrolled_above(cgroup), length);
    if flags & HELD != 0 {
        let map = core::ptr::from_ref(&HELD_EVENTS).cast_mut().cast();
        // Without room, the daemon comes across it later.
        // SAFETY: takes the map, and as many bytes as a local has.
        let _ = unsafe { bpf_ringbuf_output(map, (&raw const id).cast_mut().cast(), size_of::<u64>() as u64, 0) };
    }
    0
}

/// Tells of a cgroup by its path, of that length.
#[inline(always)]
fn tell(buffer: &mut CgroupNamed, id: u64, above: u64, length: i64) {
    (buffer.kind, buffer.reserved, buffer.id, buffer.above) = (CGROUP_NAMED, 0, id, above);
    let map = core::ptr::from_ref(&COMMAND_EVENTS).cast_mut().cast();
    // In a form that the verifier sees the bound of.
    let size = offset_of!(CgroupNamed, path) as u64 + (length as u64 & (MAX_CGROUP_PATH as u64 - 1));
    if !maps::take_share(above, size) {
        return;
    }
    // Without room, commands are lost, too, and that is told.
    // SAFETY: takes the map, and no more bytes than the map's value has.
    let _ = unsafe { bpf_ringbuf_output(map, core::ptr::from_mut(buffer).cast(), size, 0) };
}

/// The nearest cgroup above this one that anything is said of, if it is enrolled; else 0.
#[inline(always)]
fn enrolled_above(cgroup: u64) -> u64 {
    let mut at = cgroup;
    for _ in 0..MAX_CGROUP_LEVEL {
        let parent = field!(at + offset!(cgroup_self), cgroup_subsys_state_parent as u64);
        if parent == 0 {
            return 0;
        }
        at = parent - offset!(cgroup_self);
        let id = field!(field!(at, cgroup_kn as u64), kernfs_node_id as u64);
        // SAFETY: read at once.
        if let Some(flags) = unsafe { ENROLLED.get(id) } {
            return if *flags & EXEMPT == 0 { id } else { 0 };
        }
    }
    0
}

/// From this cgroup on, nobody knows whose a cgroup is that isn't enrolled: their processes get nowhere, until the daemon has
/// made room and looked. Cgroups are made one at a time.
#[inline(always)]
fn refuse_from(id: u64) {
    if let Some(first) = UNENROLLED.get_ptr_mut(0) {
        // SAFETY: the map's value. Only this hook writes another number than 0.
        unsafe {
            if *first == 0 {
                *first = id;
            }
        }
    }
}

/// The last reference to a cgroup is gone, sockets' too; the first argument is it. Ids are never given again.
#[inline(always)]
pub fn released(ctx: &RawTracePointContext) -> i32 {
    if let Some(id) = id(ctx.arg(0)) {
        let _ = ENROLLED.remove(id);
        let _ = COMMANDS_WRITTEN.remove(id);
        let _ = COMMANDS_READ.remove(id);
    }
    0
}

/// The id of a cgroup of the v2 hierarchy, whose number is 0. Those of v1 have ids of their own, which are other cgroups'
/// here.
#[inline(always)]
fn id(cgroup: u64) -> Option<u64> {
    if field!(field!(cgroup, cgroup_root as u64), cgroup_root_hierarchy_id as u32) != 0 {
        return None;
    }
    Some(field!(field!(cgroup, cgroup_kn as u64), kernfs_node_id as u64))
}

/// What the rules say of this path: flags for `ENROLLED`, or 0.
#[inline(always)]
fn named(path: &[u8; MAX_CGROUP_PATH]) -> u32 {
    let Some(start) = RULES_START.get(0) else { return 0 };
    let mut state = *start;
    if state == 0 {
        return 0;
    }
    for byte in path {
        if *byte == 0 {
            break;
        }
        let Some(row) = RULES.get(state) else { return 0 };
        state = u32::from(row.next[usize::from(*byte)]);
        if state == 0 {
            return 0;
        }
    }
    match RULES.get(state) {
        Some(row) => row.enrols,
        None => 0,
    }
}
