//! The file that a process executes: which one it is, and where.
//!
//! An agent chooses the file, and may have made the filesystem that it is on: nothing here waits for one that somebody
//! else's process or machine answers for. What is in the file is read elsewhere (digests.rs).

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use chaperone_ebpf_abi::{COMMAND_FOUND, CommandStart};
use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat},
    sys::stat::Mode,
};

use crate::sys::{self, FileIdentity};

/// Filesystems whose files the kernel reads by itself. Of these, who isn't root can mount `overlay`, `ramfs` and `tmpfs`, in
/// a user namespace; and the layers of an overlay may be anything.
const LOCAL: [&str; 16] = [
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "iso9660", OVERLAY, "ramfs", "rootfs", "squashfs",
    "tmpfs", "vfat", "xfs", "zfs",
];
const OVERLAY: &str = "overlay";

/// `RESOLVE_CACHED` (Linux 5.12): names are looked up in the kernel's memory alone, and no filesystem is asked.
const CACHED: ResolveFlag = ResolveFlag::from_bits_retain(0x20);

/// A process that still runs the file.
pub(crate) struct Running {
    pub(crate) executable: Executable,
    pub(crate) exe: String,
    pub(crate) directory: String,
    /// Its network namespace, as `/proc` names it.
    pub(crate) netns: String,
}

/// The file that was executed, without having been opened.
#[derive(Debug)]
pub(crate) struct Executable {
    file: OwnedFd,
    pub(crate) identity: FileIdentity,
    /// Below `/proc`; `None` if it is gone.
    process: Option<OwnedFd>,
}

impl Running {
    /// `None` if the process is gone, or runs something else by now.
    pub(crate) fn open(start: &CommandStart) -> Option<Self> {
        let path = format!("/proc/{}", start.pid);
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let process = open(path.as_str(), flags | OFlag::O_DIRECTORY, Mode::empty()).ok()?;
        let file = openat(&process, "exe", flags, Mode::empty()).ok()?;
        let identity = sys::file_identity(file.as_fd()).ok()?;
        // The device isn't compared: overlay and btrfs show another one than they have.
        if start.kind != COMMAND_FOUND && identity.inode != start.inode {
            return None;
        }
        let text = |link: &str| readlinkat(&process, link).ok().map(|path| path.to_string_lossy().into_owned());
        let (exe, directory) = (text("exe")?, text("cwd").unwrap_or_default());
        let netns = text("ns/net").unwrap_or_default();
        Some(Self { executable: Executable { file, identity, process: Some(process) }, exe, directory, netns })
    }
}

impl Executable {
    /// For a process that is gone: the file with that name, if it is the very same one. It was executed a moment ago, so
    /// that the kernel has its name in memory.
    pub(crate) fn named(name: &str, start: &CommandStart) -> Option<Self> {
        if !Path::new(name).is_absolute() {
            return None;
        }
        let how =
            OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(CACHED | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = openat2(AT_FDCWD, name, how).ok()?;
        let identity = sys::file_identity(file.as_fd()).ok()?;
        let is_same = (identity.inode, identity.kernel_device()) == (start.inode, start.device);
        is_same.then_some(Self { file, identity, process: None })
    }

    /// The mounts that its process sees, to be asked for while it is there.
    pub(crate) fn mounts(&self) -> Option<File> {
        let Some(process) = &self.process else { return File::open("/proc/self/mountinfo").ok() };
        openat(process, "mountinfo", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(File::from)
    }

    /// Opens it for reading, without waiting for whoever holds a lease on it (fcntl(2)). Whether it is still the same can be
    /// told by its identity.
    pub(crate) fn open(&self) -> Option<File> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        open(path.as_str(), flags, Mode::empty()).ok().map(File::from)
    }

    /// Whether it is on a local filesystem, by the mounts that its process sees. One that has another root, as in a chroot,
    /// may not see its own; then by the filesystem's device among the mounts of the host.
    pub(crate) fn is_local(&self, mounts: Option<File>) -> bool {
        let found = mounts
            .and_then(|mounts| find(mounts, |mount| mount.number.parse() == Ok(self.identity.mount)))
            .or_else(|| on_host(&format!("{}:{}", self.identity.device().0, self.identity.device().1)));
        found.is_some_and(|(kind, device)| match kind.as_str() {
            // Of a container whose engine is root's, or the host's own. A layer of one that somebody mounted in a namespace
            // of their own may be a filesystem that never answers.
            OVERLAY => on_host(&device).is_some_and(|(kind, _)| kind == OVERLAY),
            kind => LOCAL.contains(&kind),
        })
    }
}

/// A line of mountinfo; proc_pid_mountinfo(5).
struct Mount<'a> {
    number: &'a str,
    device: &'a str,
    kind: &'a str,
}

/// The kind and the device of the host's first mount of that device.
fn on_host(device: &str) -> Option<(String, String)> {
    ["/proc/1/mountinfo", "/proc/self/mountinfo"]
        .iter()
        .find_map(|table| find(File::open(table).ok()?, |mount| mount.device == device))
}

/// … of the first mount that is so.
fn find(table: File, is_so: impl Fn(&Mount<'_>) -> bool) -> Option<(String, String)> {
    let mut text = Vec::new();
    table.take(4 << 20).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (number, _parent, device) = (left.next()?, left.next()?, left.next()?);
        let mount = Mount { number, device, kind: right.split(' ').next().unwrap_or_default() };
        is_so(&mount).then(|| (mount.kind.to_owned(), mount.device.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_is_that_of_the_file_that_was_executed_or_of_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let name = path.to_str().unwrap();
        let file = open(name, OFlag::O_PATH, Mode::empty()).unwrap();
        let identity = sys::file_identity(file.as_fd()).unwrap();
        // SAFETY: all zeroes is a valid value of integers.
        let mut start: CommandStart = unsafe { std::mem::zeroed() };
        (start.inode, start.device) = (identity.inode, identity.kernel_device());
        let found = Executable::named(name, &start).unwrap();
        assert_eq!(found.identity, identity);
        assert!(found.is_local(found.mounts()));
        assert!(found.open().is_some());
        assert!(Executable::named("abc", &start).is_none());
        start.inode += 1;
        assert!(Executable::named(name, &start).is_none());
    }
}
