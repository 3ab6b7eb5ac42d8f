//! Reading an engine's files: bounded, and never anything but a file of the folder.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
};

/// A container's description is smaller by far.
const MAX_FILE: u64 = 4 << 20;

/// Whether this process may open files in the way that is safe here.
pub(super) fn usable() -> io::Result<()> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    let root = File::open("/")?;
    openat2(&root, ".", how).map(drop).map_err(io::Error::from)
}

/// A folder of an engine's.
#[derive(Debug)]
pub(super) struct Folder {
    descriptor: OwnedFd,
    /// How what is in there may be reached.
    resolve: ResolveFlag,
    owner: Option<u32>,
}

impl Folder {
    /// One that root alone can change, or the engine that root runs.
    pub(super) fn open(path: impl AsRef<Path>) -> Option<Self> {
        // As on the way there, symbolic links inside are root's. They are followed no further than the folder.
        Self::with(path.as_ref(), ResolveFlag::RESOLVE_BENEATH, None)
    }

    /// One that this user can change, from root's folder on: nothing that the user links or mounts there is followed, and
    /// files are the user's own.
    pub(super) fn open_of(user: u32, home: &Path, path: &str) -> Option<Self> {
        let strict = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let home = Self::with(home, strict, Some(user))?;
        let folder = home.at(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Some(Self { descriptor: folder, ..home })
    }

    fn with(path: &Path, resolve: ResolveFlag, owner: Option<u32>) -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptor = open(path, flags, Mode::empty()).ok()?;
        Some(Self { descriptor, resolve, owner })
    }

    fn at(&self, path: &str, flags: OFlag) -> Option<OwnedFd> {
        openat2(&self.descriptor, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(self.resolve)).ok()
    }

    /// Whether it is one that a user can change.
    pub(super) fn is_users(&self) -> bool {
        self.owner.is_some()
    }

    /// That file, opened. Whatever else is there, such as a pipe, which would never end, is nothing.
    pub(super) fn file(&self, path: &str) -> Option<File> {
        let file = File::from(self.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
        let metadata = file.metadata().ok()?;
        let owned = self.owner.is_none_or(|owner| metadata.uid() == owner);
        (metadata.is_file() && !metadata.file_type().is_fifo() && owned).then_some(file)
    }

    /// What is in that file, if it is no more than a description can be.
    pub(super) fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.read_up_to(path, MAX_FILE)
    }

    /// What is in that file, if it is no longer than this.
    pub(super) fn read_up_to(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(path)?.take(limit + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= limit).then_some(bytes)
    }

    /// The names of the folders in the one at `path`, `limit` at most.
    pub(super) fn folders(&self, path: &str, limit: usize) -> Vec<String> {
        let Some(folder) = self.at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) else { return Vec::new() };
        // By its descriptor, so that it is the one that was looked at.
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let folders = entries
            .into_iter()
            .flatten()
            .flatten()
            .take(limit * 8)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.filter_map(|entry| entry.file_name().into_string().ok()).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn only_bounded_files_of_the_folder_are_read() {
        let around = tempfile::tempdir().unwrap();
        let root = around.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(around.path().join("secret"), "secret").unwrap();
        fs::write(root.join("sub/file"), "text").unwrap();
        symlink("sub/file", root.join("inside")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        let big = File::create(root.join("big")).unwrap();
        big.set_len(MAX_FILE + 1).unwrap();
        let folder = Folder::open(&root).unwrap();
        assert_eq!(folder.read("sub/file").as_deref(), Some(&b"text"[..]));
        assert_eq!(folder.read("inside").as_deref(), Some(&b"text"[..]));
        assert_eq!(folder.read_up_to("sub/file", 3), None);
        for name in ["outside", "absolute", "pipe", "big", "../secret", "/etc/passwd", "sub", "none"] {
            assert_eq!(folder.read(name), None, "{name}");
        }
        assert_eq!(folder.folders(".", 10), ["sub"]);
        // A user's: no link at all, and nobody else's file.
        let own = nix::unistd::geteuid().as_raw();
        let folder = Folder::open_of(own, around.path(), "root").unwrap();
        assert_eq!(folder.read("sub/file").as_deref(), Some(&b"text"[..]));
        assert_eq!(folder.read("inside"), None);
        symlink("root", around.path().join("link")).unwrap();
        assert!(Folder::open_of(own, around.path(), "link").is_none());
        assert_eq!(Folder::open_of(own + 1, around.path(), "root").unwrap().read("sub/file"), None);
    }
}
