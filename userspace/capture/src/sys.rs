//! System calls that neither std nor nix nor aya offers.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use chaperone_model::{CgroupId, NetnsCookie};

/// The network namespace of a socket, by `SO_NETNS_COOKIE` (Linux 5.14).
pub fn netns_cookie(socket: impl AsFd) -> io::Result<NetnsCookie> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the pointers are to locals of the stated size, which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(NetnsCookie(cookie)) } else { Err(io::Error::last_os_error()) }
}

/// The inode of a socket's network namespace.
pub(crate) fn netns_inode(socket: impl AsFd) -> io::Result<u64> {
    Ok(netns_of(socket)?.metadata()?.ino())
}

/// A socket's network namespace: `SIOCGSKNS` (Linux 4.10; needs `CAP_NET_ADMIN` there).
pub(crate) fn netns_of(socket: impl AsFd) -> io::Result<File> {
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: takes a descriptor, gives one.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Opens a cgroup's folder by its id, without searching for it. `root` is any descriptor on the cgroup v2 filesystem.
pub(crate) fn open_cgroup(root: BorrowedFd<'_>, id: CgroupId) -> io::Result<OwnedFd> {
    /// `struct file_handle` with room for kernfs's id; fs/kernfs/mount.c, `kernfs_fh_to_dentry`.
    #[repr(C)]
    struct KernfsHandle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        id: [u8; 8],
    }
    /// `FILEID_KERNFS`.
    const KERNFS: libc::c_int = 0xfe;

    let mut handle = KernfsHandle { bytes: 8, kind: KERNFS, id: id.0.to_ne_bytes() };
    // SAFETY: the handle is laid out as the kernel's and says its own length; it outlives the call.
    let fd =
        unsafe { libc::open_by_handle_at(root.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens something pinned: `BPF_OBJ_GET` (Linux 4.4).
pub(crate) fn open_pinned(path: &CStr) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that the command takes.
    #[repr(C)]
    struct ObjGet {
        path: u64,
        fd: u32,
        flags: u32,
    }
    const BPF_OBJ_GET: libc::c_int = 7;

    let mut attr = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the attributes are laid out as the kernel's and outlive the call, as does the path they point to.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw mut attr, size_of::<ObjGet>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::c_int::try_from(fd).expect("BUG: a descriptor is an int")) })
}

/// Attaches a program to a cgroup: `BPF_LINK_CREATE` (Linux 5.7). aya does, and lets nobody pin a link to a device's program.
pub(crate) fn link_to_cgroup(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that the command takes.
    #[repr(C)]
    struct LinkCreate {
        program: i32,
        target: i32,
        attach_type: u32,
        flags: u32,
    }
    const BPF_LINK_CREATE: libc::c_int = 28;

    let mut attr = LinkCreate { program: program.as_raw_fd(), target: cgroup.as_raw_fd(), attach_type, flags: 0 };
    // SAFETY: the attributes are laid out as the kernel's and outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw mut attr, size_of::<LinkCreate>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::c_int::try_from(fd).expect("BUG: a descriptor is an int")) })
}

/// Pins an object there: `BPF_OBJ_PIN` (Linux 4.4).
pub(crate) fn pin(object: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    /// The part of `union bpf_attr` that the command takes.
    #[repr(C)]
    struct ObjPin {
        path: u64,
        fd: u32,
        flags: u32,
    }
    const BPF_OBJ_PIN: libc::c_int = 6;

    let fd = u32::try_from(object.as_raw_fd()).expect("BUG: a descriptor isn't negative");
    let mut attr = ObjPin { path: path.as_ptr() as u64, fd, flags: 0 };
    // SAFETY: the attributes are laid out as the kernel's and outlive the call, as does the path they point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw mut attr, size_of::<ObjPin>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Exchanges the program of an attached link, in one step: `BPF_LINK_UPDATE` (Linux 5.7). aya has it for XDP alone.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    /// The part of `union bpf_attr` that the command takes.
    #[repr(C)]
    struct LinkUpdate {
        link: i32,
        program: i32,
        flags: u32,
        old_program: u32,
    }
    const BPF_LINK_UPDATE: libc::c_int = 29;

    let mut attr = LinkUpdate { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old_program: 0 };
    // SAFETY: the attributes are laid out as the kernel's and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw mut attr, size_of::<LinkUpdate>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The ids of the programs that run for a cgroup, inherited ones too: `BPF_PROG_QUERY` with `BPF_F_QUERY_EFFECTIVE`
/// (Linux 4.15). At most 64.
pub(crate) fn effective_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    /// The part of `union bpf_attr` that the command takes, to its end: kernels from 6.17 on answer in its last field,
    /// whatever size they are told (kernel/bpf/cgroup.c, `__cgroup_bpf_query`), and so over what lies behind a shorter one.
    #[repr(C)]
    struct Query {
        target: i32,
        attach_type: u32,
        flags: u32,
        found_flags: u32,
        ids: u64,
        count: u32,
        reserved: u32,
        attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    const BPF_PROG_QUERY: libc::c_int = 16;
    const EFFECTIVE: u32 = 1;

    let mut ids = [0_u32; 64];
    let mut attr = Query {
        target: cgroup.as_raw_fd(),
        attach_type,
        flags: EFFECTIVE,
        found_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
        reserved: 0,
        attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the attributes are laid out as the kernel's and outlive the call, as do the ids that they point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<Query>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids[..(attr.count as usize).min(ids.len())].to_vec())
}

/// Takes a link's program off, though the link stays: `BPF_LINK_DETACH` (Linux 5.9).
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_LINK_DETACH: libc::c_int = 34;
    let mut attr = link.as_raw_fd();
    // SAFETY: the attribute, the link's descriptor, outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, &raw mut attr, size_of_val(&attr)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How often a program was passed by because it was running on that processor already (Linux 5.12; 0 before).
pub(crate) fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    /// The place of `recursion_misses` in `struct bpf_prog_info`, in words of 8 bytes.
    const MISSES: usize = 26;
    let mut info = [0_u64; MISSES + 1];
    object_info(program, &mut info)?;
    Ok(info[MISSES])
}

/// The id of a link's program.
pub(crate) fn link_program(link: BorrowedFd<'_>) -> io::Result<u32> {
    // `struct bpf_link_info`: the type, the link's id, the program's, and what depends on the type.
    let mut info = [0_u64; 16];
    object_info(link, &mut info)?;
    let bytes = info[1].to_ne_bytes();
    Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// What the kernel tells of a program or a link: `BPF_OBJ_GET_INFO_BY_FD` (Linux 4.13; of links, 5.8). `info` must be all
/// zeroes: the kernel writes what it has, at most so much, and would take pointers for places to write to.
fn object_info(object: BorrowedFd<'_>, info: &mut [u64]) -> io::Result<()> {
    /// The part of `union bpf_attr` that the command takes.
    #[repr(C)]
    struct GetInfo {
        object: i32,
        length: u32,
        info: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

    let length = u32::try_from(size_of_val(info)).expect("BUG: some words");
    let mut attr = GetInfo { object: object.as_raw_fd(), length, info: info.as_mut_ptr() as u64 };
    // SAFETY: the attributes are laid out as the kernel's and outlive the call, as does the array, of the stated length.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<GetInfo>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the kernel's clock is disciplined by somebody, such as an NTP client: adjtimex(2), `STA_UNSYNC`.
pub fn clock_is_synchronized() -> io::Result<bool> {
    // SAFETY: all zeroes is a valid `timex`, which asks for nothing to be changed.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a local that outlives the call.
    if unsafe { libc::adjtimex(&raw mut clock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(clock.status & libc::STA_UNSYNC == 0)
}

/// Which file it is, in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileIdentity {
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    /// The mount's number, as in mountinfo.
    pub(crate) mount: u64,
    device: (u32, u32),
    modified: (i64, u32),
    changed: (i64, u32),
}

impl FileIdentity {
    /// The device's numbers, major and minor.
    pub(crate) const fn device(&self) -> (u32, u32) {
        self.device
    }

    /// The device's number, as the kernel has it inside (include/linux/kdev_t.h).
    pub(crate) const fn kernel_device(&self) -> u32 {
        self.device.0 << 20 | self.device.1
    }
}

/// Which file it is, as far as the kernel knows by itself: a filesystem that another process or machine answers for isn't
/// asked. statx(2) with the mount's number: Linux 5.8.
pub(crate) fn file_identity(file: BorrowedFd<'_>) -> io::Result<FileIdentity> {
    // SAFETY: all zeroes is a valid `statx`.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let wanted = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: the path is a constant, and the result a local that outlives the call.
    let result = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, wanted, &raw mut found) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(FileIdentity {
        inode: found.stx_ino,
        bytes: found.stx_size,
        mount: found.stx_mnt_id,
        device: (found.stx_dev_major, found.stx_dev_minor),
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    })
}

/// A process, held by more than its number, which another one could have later.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: it takes two numbers and gives a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it just now, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
