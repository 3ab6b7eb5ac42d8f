//! The agents' commands: what each process executed, and how it ended.
//!
//! A command is one successful `execve(2)`; the processes that it forks are part of it until they execute something
//! themselves. Its id is made here, so that a connection can name it before anybody has heard of it. What isn't known of
//! a process costs its connections the name of their command, and nothing else.

use core::ptr::read_volatile;

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_uid_gid, bpf_get_prandom_u32,
        bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_ringbuf_reserve, bpf_ringbuf_submit,
    },
    programs::RawTracePointContext,
};
use chaperone_ebpf_abi::{
    COMMAND_ENDED, COMMAND_FOUND, COMMAND_STARTED, Command, CommandEnd, CommandStart, Counter, FEW_ARGUMENTS,
    MAX_ARGUMENTS, MAX_FILE_NAME, NO_COMMAND, Stamp,
};

use crate::{
    enrolment,
    kernel::field,
    maps::{self, COMMAND_EVENTS, COMMANDS},
};

/// What to add to the time since boot for that since 1970, in nanoseconds; set by the daemon, too.
#[unsafe(no_mangle)]
static BOOTED_NS: u64 = 0;

/// `execve(2)`; the arguments are `(struct task_struct *, pid_t old_pid, struct linux_binprm *)`, the task the current one.
#[inline(always)]
pub fn began(ctx: &RawTracePointContext) -> i32 {
    let (task, binprm): (u64, u64) = (ctx.arg(0), ctx.arg(2));
    let pid = current_process();
    // SAFETY: read at once.
    let before = unsafe { COMMANDS.get(pid) }.copied();
    let Some(enrolled) = enrolment::current() else {
        if before.is_some() {
            let _ = COMMANDS.remove(pid);
        }
        return 0;
    };
    let execution = field!(task, task_struct_self_exec_id as u64);
    let (mut parent, mut replaces) = (NO_COMMAND, 0);
    if let Some(before) = before {
        if before.owner == pid && before.execution == execution {
            // Seen already, by the hook that this one is put in the place of.
            return 0;
        }
        parent = before.id;
        replaces = u32::from(before.owner == pid);
    }
    // SAFETY: takes nothing, gives a number.
    let at_ns = unsafe { bpf_ktime_get_boot_ns() };
    let id = new_id(at_ns);
    let mm = field!(task, task_struct_mm as u64);
    let arguments = field!(mm, mm_struct_arg_start as u64);
    let total = field!(mm, mm_struct_arg_end as u64).saturating_sub(arguments);
    let inode = field!(field!(binprm, linux_binprm_file as u64), file_f_inode as u64);
    let start = Start {
        id,
        parent,
        at_ns,
        enrolled: &enrolled,
        inode: field!(inode, inode_i_ino as u64),
        device: field!(field!(inode, inode_i_sb as u64), super_block_s_dev as u32),
        pid,
        parent_pid: field!(field!(task, task_struct_real_parent as u64), task_struct_tgid as u32),
        total: if total > u64::from(u32::MAX) { u32::MAX } else { total as u32 },
        replaces,
        file_name: field!(binprm, linux_binprm_filename as u64),
        arguments,
    };
    let told = if total <= FEW_ARGUMENTS as u64 {
        tell_start::<FEW_ARGUMENTS>(&start)
    } else {
        tell_start::<MAX_ARGUMENTS>(&start)
    };
    let command = Command { id, execution, owner: pid, untold: u32::from(!told) };
    if COMMANDS.insert(pid, command, 0).is_err() {
        maps::count(Counter::CommandUnkept);
    }
    0
}

/// A task was made; the arguments are `(struct task_struct *parent, struct task_struct *child)`, the parent the current.
#[inline(always)]
pub fn forked(ctx: &RawTracePointContext) -> i32 {
    // SAFETY: copied at once.
    let Some(command) = (unsafe { COMMANDS.get(current_process()) }).copied() else { return 0 };
    let child: u64 = ctx.arg(1);
    let process = field!(child, task_struct_tgid as u32);
    if process != field!(child, task_struct_pid as u32) {
        // A thread.
        return 0;
    }
    if COMMANDS.insert(process, command, 0).is_err() {
        maps::count(Counter::CommandUnkept);
    }
    0
}

/// A task ends; the first argument is it, the current one.
#[inline(always)]
pub fn ended(ctx: &RawTracePointContext) -> i32 {
    let pid = current_process();
    // SAFETY: copied at once.
    let Some(command) = (unsafe { COMMANDS.get(pid) }).copied() else { return 0 };
    let task: u64 = ctx.arg(0);
    // kernel/exit.c, `do_exit`: the count of the process's threads that live is lowered before.
    if field!(field!(task, task_struct_signal as u64), signal_struct_live as u32) != 0 {
        return 0;
    }
    let _ = COMMANDS.remove(pid);
    if command.owner != pid {
        return 0;
    }
    if command.untold != 0 {
        maps::count(Counter::CommandLost);
        return 0;
    }
    let status = field!(task, task_struct_exit_code as u32);
    // SAFETY: null is checked; the record is written whole before it is submitted.
    unsafe {
        // Out of no share: there are no more of them than beginnings.
        let record = reserve(size_of::<CommandEnd>(), 0).cast::<CommandEnd>();
        if record.is_null() {
            return 0;
        }
        *record = CommandEnd { kind: COMMAND_ENDED, status, id: command.id, at_ns: bpf_ktime_get_boot_ns() };
        bpf_ringbuf_submit(record.cast(), 0);
    }
    0
}

/// The current process's command.
#[inline(always)]
pub fn current() -> [u8; 16] {
    // SAFETY: copied at once.
    unsafe { COMMANDS.get(current_process()) }.map_or(NO_COMMAND, |command| command.id)
}

/// An agent's process is about to have a connection. If nobody saw its command begin, it begins now.
#[inline(always)]
pub fn find(enrolled: &Stamp) {
    let pid = current_process();
    // SAFETY: only asked whether it is there.
    if unsafe { COMMANDS.get(pid) }.is_some() {
        return;
    }
    // SAFETY: takes nothing, gives a number.
    let (at_ns, task) = unsafe { (bpf_ktime_get_boot_ns(), bpf_get_current_task()) };
    let id = new_id(at_ns);
    let execution = field!(task, task_struct_self_exec_id as u64);
    // Told or not, the connection names it, and its end is told.
    if COMMANDS.insert(pid, Command { id, execution, owner: pid, untold: 0 }, 0).is_err() {
        maps::count(Counter::CommandUnkept);
        return;
    }
    let parent_pid = field!(field!(task, task_struct_real_parent as u64), task_struct_tgid as u32);
    // SAFETY: null is checked; the record is written whole before it is submitted.
    unsafe {
        let record = reserve(size_of::<CommandStart>(), enrolled.enrolled).cast::<CommandStart>();
        if !record.is_null() {
            (*record).kind = COMMAND_FOUND;
            (*record).arguments = 0;
            (*record).id = id;
            (*record).parent = NO_COMMAND;
            (*record).at_ns = at_ns;
            (*record).cgroup = enrolled.cgroup;
            (*record).enrolled = enrolled.enrolled;
            (*record).inode = 0;
            (*record).device = 0;
            (*record).pid = pid;
            (*record).parent_pid = parent_pid;
            (*record).uid = bpf_get_current_uid_gid() as u32;
            (*record).arguments_total = 0;
            (*record).replaces = 0;
            (*record).file_name = [0; MAX_FILE_NAME];
            bpf_ringbuf_submit(record.cast(), 0);
        }
    }
}

struct Start<'a> {
    id: [u8; 16],
    parent: [u8; 16],
    at_ns: u64,
    enrolled: &'a Stamp,
    inode: u64,
    device: u32,
    pid: u32,
    parent_pid: u32,
    total: u32,
    replaces: u32,
    /// In the kernel.
    file_name: u64,
    /// In the process, which has just been given them, so that their pages are there.
    arguments: u64,
}

/// False if there was no room.
#[inline(always)]
fn tell_start<const ROOM: usize>(start: &Start<'_>) -> bool {
    // SAFETY: null is checked; the head is written whole before it is submitted, and of the arguments as much is told as
    // was written.
    unsafe {
        let begin = reserve(size_of::<CommandStart>() + ROOM, start.enrolled.enrolled);
        if begin.is_null() {
            return false;
        }
        let record = begin.cast::<CommandStart>();
        (*record).kind = COMMAND_STARTED;
        (*record).id = start.id;
        (*record).parent = start.parent;
        (*record).at_ns = start.at_ns;
        (*record).cgroup = start.enrolled.cgroup;
        (*record).enrolled = start.enrolled.enrolled;
        (*record).inode = start.inode;
        (*record).device = start.device;
        (*record).pid = start.pid;
        (*record).parent_pid = start.parent_pid;
        (*record).uid = bpf_get_current_uid_gid() as u32;
        (*record).arguments_total = start.total;
        (*record).replaces = start.replaces;
        (*record).file_name = [0; MAX_FILE_NAME];
        let name = (&raw mut (*record).file_name).cast();
        bpf_probe_read_kernel_str(name, MAX_FILE_NAME as u32, start.file_name as *const _);
        let wanted = if start.total > ROOM as u32 { ROOM as u32 } else { start.total };
        let room = begin.add(size_of::<CommandStart>()).cast();
        let read = bpf_probe_read_user(room, wanted, start.arguments as *const _);
        (*record).arguments = if read == 0 { wanted } else { 0 };
        bpf_ringbuf_submit(begin.cast(), 0);
    }
    true
}

/// Room for a record from the share of this enrolled cgroup; null, and counted, if there is none.
///
/// # Safety
///
/// What is not null must be written and submitted.
#[inline(always)]
pub unsafe fn reserve(size: usize, enrolled: u64) -> *mut u8 {
    if !maps::take_share(enrolled, size as u64) {
        maps::count(Counter::CommandLost);
        return core::ptr::null_mut();
    }
    // SAFETY: takes the map and numbers.
    let room = unsafe { bpf_ringbuf_reserve(core::ptr::from_ref(&COMMAND_EVENTS).cast_mut().cast(), size as u64, 0) };
    if room.is_null() {
        maps::count(Counter::CommandLost);
    }
    room.cast()
}

#[inline(always)]
fn current_process() -> u32 {
    // SAFETY: takes nothing, gives a number.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// A UUIDv7 (RFC 9562, section 5.7) of that time.
#[inline(always)]
fn new_id(at_ns: u64) -> [u8; 16] {
    // SAFETY: a word of our own; helpers that take nothing and give a number.
    let (booted, a, b, c) = unsafe {
        (read_volatile(&raw const BOOTED_NS), bpf_get_prandom_u32(), bpf_get_prandom_u32(), bpf_get_prandom_u32())
    };
    let milliseconds = (at_ns + booted) / 1_000_000;
    let high = (milliseconds << 16) | 0x7000 | u64::from(a & 0xfff);
    let low = (u64::from(b) << 32 | u64::from(c)) & (u64::MAX >> 2) | 1 << 63;
    let (high, low) = (high.to_be_bytes(), low.to_be_bytes());
    [
        high[0], high[1], high[2], high[3], high[4], high[5], high[6], high[7], low[0], low[1], low[2], low[3], low[4],
        low[5], low[6], low[7],
    ]
}
