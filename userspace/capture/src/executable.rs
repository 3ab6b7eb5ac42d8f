//! The file that a process executes: its path, and its digest.
//!
//! An agent chooses the file, and may have made the filesystem that it is on: nothing here waits for one that somebody
//! else's process or machine answers for.

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};
use chaperone_ebpf_abi::{COMMAND_FOUND, CommandStart};
use nix::{
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::Mode,
};

use crate::sys::{self, FileIdentity};

/// Larger files have no digest.
const MAX_BYTES: u64 = 256 << 20;
/// How many digests are remembered.
const MAX_KNOWN: usize = 4096;
/// Filesystems whose files the kernel reads by itself.
const LOCAL: [&str; 16] = [
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "iso9660", "overlay", "ramfs", "rootfs", "squashfs",
    "tmpfs", "vfat", "xfs", "zfs",
];

/// A process that still runs the file.
pub(crate) struct Running {
    process: OwnedFd,
    file: OwnedFd,
    identity: FileIdentity,
    pub(crate) exe: String,
    pub(crate) directory: String,
    /// Its network namespace, as `/proc` names it.
    pub(crate) netns: String,
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
        Some(Self { process, file, identity, exe, directory, netns })
    }

    fn is_local(&self) -> bool {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        is_local(openat(&self.process, "mountinfo", flags, Mode::empty()).ok().map(File::from), self.identity)
    }
}

/// The digests of executables.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    known: HashMap<FileIdentity, Option<[u8; 32]>>,
}

impl Executables {
    pub(crate) fn digest(&mut self, running: &Running) -> Option<[u8; 32]> {
        self.known(running.identity, || if running.is_local() { read(&running.file, running.identity) } else { None })
    }

    /// For a process that is gone: of the file with that name, if it is the very same one.
    pub(crate) fn digest_named(&mut self, name: &str, start: &CommandStart) -> Option<[u8; 32]> {
        if !Path::new(name).is_absolute() {
            return None;
        }
        let file = open(name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let identity = sys::file_identity(file.as_fd()).ok()?;
        if (identity.inode, identity.kernel_device()) != (start.inode, start.device) {
            return None;
        }
        self.known(identity, || {
            if is_local(File::open("/proc/self/mountinfo").ok(), identity) { read(&file, identity) } else { None }
        })
    }

    fn known(&mut self, identity: FileIdentity, read: impl FnOnce() -> Option<[u8; 32]>) -> Option<[u8; 32]> {
        if let Some(known) = self.known.get(&identity) {
            return *known;
        }
        let digest = read();
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(identity, digest);
        digest
    }
}

/// Whether the file is on a local filesystem, by the mounts that its process sees. One that has another root, as in a
/// chroot, may not see its own; then by the filesystem's device among the mounts of the host.
fn is_local(table: Option<File>, identity: FileIdentity) -> bool {
    let device = format!("{}:{}", identity.device().0, identity.device().1);
    let kind = table
        .and_then(|table| kind_of(table, |number, _| number.parse() == Ok(identity.mount)))
        .or_else(|| kind_of(File::open("/proc/1/mountinfo").ok()?, |_, of| of == device));
    kind.is_some_and(|kind| LOCAL.contains(&kind.as_str()))
}

/// The filesystem of the first mount whose number and device are so; proc_pid_mountinfo(5).
fn kind_of(table: File, is_so: impl Fn(&str, &str) -> bool) -> Option<String> {
    let mut text = Vec::new();
    table.take(4 << 20).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (number, _parent, device) = (left.next()?, left.next()?, left.next()?);
        is_so(number, device).then(|| right.split(' ').next().unwrap_or_default().to_owned())
    })
}

fn read(file: &OwnedFd, identity: FileIdentity) -> Option<[u8; 32]> {
    if identity.bytes > MAX_BYTES {
        return None;
    }
    let mut file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?.take(MAX_BYTES + 1);
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => context.update(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    if file.limit() == 0 {
        return None;
    }
    context.finish().as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_files_digest_is_told_for_that_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let name = path.to_str().unwrap();
        let file = open(name, OFlag::O_PATH, Mode::empty()).unwrap();
        let identity = sys::file_identity(file.as_fd()).unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hex = |digest: [u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(read(&file, identity).map(hex).unwrap(), abc);
        // SAFETY: all zeroes is a valid value of integers.
        let mut start: CommandStart = unsafe { std::mem::zeroed() };
        (start.inode, start.device) = (identity.inode, identity.kernel_device());
        let mut executables = Executables::default();
        assert_eq!(executables.digest_named(name, &start).map(hex).unwrap(), abc);
        start.inode += 1;
        assert_eq!(executables.digest_named(name, &start), None);
    }
}
