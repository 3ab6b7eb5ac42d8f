//! The daemon's folder in the BPF filesystem: made, locked, removed.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::CaptureError;

/// The folder, locked for as long as this lives. The lock goes with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder, makes it if need be, mounts the BPF filesystem above it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |reason: String| CaptureError::Bpffs { path: path.to_owned(), reason };
        let parent = path.parent().filter(|parent| parent.is_absolute()).ok_or_else(|| {
            failed("it must be an absolute path below a folder, such as /sys/fs/bpf/chaperone".to_owned())
        })?;
        if !is_bpffs(parent) {
            mount_bpffs(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error.to_string())),
            _ => {}
        }
        Self::lock(path)
    }

    /// Opens the folder if it is there.
    pub(crate) fn existing(path: &Path) -> Result<Option<Self>, CaptureError> {
        if path.exists() { Self::lock(path).map(Some) } else { Ok(None) }
    }

    fn lock(path: &Path) -> Result<Self, CaptureError> {
        let what = |error: io::Error| CaptureError::Bpffs { path: path.to_owned(), reason: error.to_string() };
        let folder = File::open(path).map_err(what)?;
        if !is_bpffs(path) {
            return Err(CaptureError::Bpffs {
                path: path.to_owned(),
                reason: "it is not on a BPF filesystem; name a folder below /sys/fs/bpf".to_owned(),
            });
        }
        // A BPF filesystem holds no ordinary files, but flock(2) takes a folder as well.
        match folder.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: folder }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(CaptureError::AlreadyRunning { path: path.to_owned(), pid: lock_holder(&folder) })
            }
            Err(fs::TryLockError::Error(error)) => Err(what(error)),
        }
    }

    /// Where the link of a hook is pinned.
    pub(crate) fn link(&self, hook: &str) -> PathBuf {
        self.path.join(format!("link_{hook}"))
    }

    /// Where a map is pinned.
    pub(crate) fn map(&self, map: &str) -> PathBuf {
        self.path.join(format!("map_{map}"))
    }

    /// Whether a process holds the lock of the folder, as far as it can be told without taking it.
    pub(crate) fn is_locked(path: &Path) -> bool {
        let Ok(found) = fs::metadata(path) else { return false };
        fs::read_to_string("/proc/locks").is_ok_and(|locks| holder_in(&locks, &lock_name(&found)).is_some())
    }

    /// Removes everything in it: the hooks are detached, enrolments forgotten.
    pub(crate) fn remove(self) -> Result<(), CaptureError> {
        let failed = |error: io::Error| CaptureError::Bpffs { path: self.path.clone(), reason: error.to_string() };
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        fs::remove_dir(&self.path).map_err(failed)
    }
}

pub(crate) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|kind| kind.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_bpffs(at: &Path) -> Result<(), String> {
    let mut entries = fs::read_dir(at).map_err(|error| format!("{}: {error}; make that folder first", at.display()))?;
    if entries.next().is_some() {
        return Err(format!("{} is not a BPF filesystem, and not empty to mount one on", at.display()));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), at, Some("bpf"), flags, Some("mode=700"))
        .map_err(|error| format!("`mount -t bpf bpf {}`: {error}", at.display()))
}

/// Who holds the lock on this file, by `/proc/locks`. 0 there means a process of another pid namespace.
fn lock_holder(file: &File) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, &lock_name(&file.metadata().ok()?)).filter(|pid| *pid != 0)
}

/// As `/proc/locks` names a file.
fn lock_name(file: &fs::Metadata) -> String {
    format!("{:02x}:{:02x}:{}", libc::major(file.dev()), libc::minor(file.dev()), file.ino())
}

fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, pid, at, ..] if *at == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:19:99 0 EOF\n2: FLOCK  ADVISORY  WRITE 1234 00:19:99 0 EOF\n";
        assert_eq!(holder_in(locks, "00:19:99"), Some(1234));
        assert_eq!(holder_in(locks, "00:19:9"), None);
    }

    #[test]
    fn a_folder_that_is_not_empty_is_not_mounted_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = Folder::open(&folder.path().join("chaperone")).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }
}
