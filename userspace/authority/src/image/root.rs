//! Files below an image's root, which whoever made the image has laid out. Links lead as they will for the container's own
//! programs, from its root on, and never out of it, nor through a mount.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat, renameat},
    sys::stat::{Mode, fchmod, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};

/// How many links a path may lead through, as the kernel has it.
const LINKS: usize = 40;
/// How many entries of a folder a pattern looks at, and how many paths it may stand for.
const ENTRIES: usize = 512;
const PATHS: usize = 128;

/// A container's root folder.
#[derive(Debug)]
pub(super) struct Root {
    descriptor: OwnedFd,
    name: String,
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    folder: OwnedFd,
    name: String,
    /// From the root on, without links.
    pub(super) path: String,
    /// What is there, if that is a regular file.
    file: Option<OwnedFd>,
    /// Whether nothing is there.
    pub(super) is_free: bool,
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let descriptor = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let name = name_of(&descriptor)?;
        if name == "/" {
            return Err(io::Error::other("it is the host's own root"));
        }
        Ok(Self { descriptor, name })
    }

    /// A folder, wherever links lead in the root.
    fn folder(&self, path: &str) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let path = if path.is_empty() { "/" } else { path };
        openat2(&self.descriptor, path, OpenHow::new().flags(flags).resolve(resolve))
    }

    pub(super) fn has_folder(&self, path: &str) -> bool {
        self.folder(path).is_ok()
    }

    /// Where this path leads, if its folder is there.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let (folder, name) = path.rsplit_once('/')?;
            if matches!(name, "" | "." | "..") {
                return None;
            }
            let folder = self.folder(folder).ok()?;
            let way = name_of(&folder).ok()?;
            let way = way.strip_prefix(&self.name)?.to_owned();
            match readlinkat(&folder, name) {
                Ok(target) => {
                    let target = target.into_string().ok()?;
                    path = if target.starts_with('/') { target } else { format!("{way}/{target}") };
                }
                Err(error) => {
                    let (name, path) = (name.to_owned(), format!("{way}/{name}"));
                    let file = regular(&folder, &name);
                    return Some(Place { folder, name, path, file, is_free: error == Errno::ENOENT });
                }
            }
        }
        None
    }

    /// Makes a folder, and those on the way to it, as their parents' owner.
    pub(super) fn make_folder(&self, path: &str) -> io::Result<()> {
        let mut way = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = self.folder(&way)?;
            way = format!("{way}/{part}");
            if self.folder(&way).is_ok() {
                continue;
            }
            mkdirat(&parent, part, Mode::from_bits_truncate(0o755))?;
            let owner = File::from(parent).metadata()?;
            let made = File::from(self.folder(&way)?);
            // By its descriptor: `O_PATH` can't be chowned, and nothing else can be there.
            std::os::unix::fs::chown(proc_path(&made), Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }

    /// The paths that a pattern stands for, in which `*` is any characters of one folder's name.
    pub(super) fn expand(&self, pattern: &str) -> Vec<String> {
        let mut paths = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let Some((before, after)) = part.split_once('*') else {
                paths = paths.iter().map(|path| format!("{path}/{part}")).collect();
                continue;
            };
            let matching = |name: &String| {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            };
            let found = paths.iter().flat_map(|path| {
                self.folders(path).into_iter().filter(matching).map(move |name| format!("{path}/{name}"))
            });
            paths = found.take(PATHS).collect();
        }
        paths
    }

    /// The names of the folders in that one, and of what links to one.
    fn folders(&self, path: &str) -> Vec<String> {
        let Ok(folder) = self.folder(path) else { return Vec::new() };
        let Ok(entries) = fs::read_dir(proc_path(&folder)) else { return Vec::new() };
        let entries = entries.flatten().take(ENTRIES);
        let mut names: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

impl Place {
    pub(super) fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// What is in the file, if it is no longer than this.
    pub(super) fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("it is no file"))?;
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY).open(proc_path(file))?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Puts a file there whole or not at all: with the mode and owner of the one before, or else readable for everybody.
    /// Other names of the one before keep what they have.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = format!(".{}.chaperone", self.name);
        let (owner, mode) = match &self.file {
            Some(file) => {
                let there = fs::metadata(proc_path(file))?;
                (there.clone(), there.mode() & 0o777)
            }
            None => (fs::metadata(proc_path(&self.folder))?, 0o644),
        };
        let _ = unlinkat(&self.folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.folder, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let written = file.write_all(bytes).and_then(|()| {
            fchown(&file, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))?;
            fchmod(&file, Mode::from_bits_truncate(mode))?;
            Ok(renameat(&self.folder, temporary.as_str(), &self.folder, self.name.as_str())?)
        });
        if written.is_err() {
            let _ = unlinkat(&self.folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }
}

/// What is there, opened only as far as to tell what it is: to open a device or a pipe could do something, or wait.
fn regular(folder: &OwnedFd, name: &str) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = openat(folder, name, flags, Mode::empty()).ok()?;
    fs::metadata(proc_path(&found)).is_ok_and(|metadata| metadata.is_file()).then_some(found)
}

fn proc_path(descriptor: &impl std::os::fd::AsRawFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// Where a folder is, as the kernel names it.
fn name_of(folder: &OwnedFd) -> io::Result<String> {
    let name = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
    name.into_os_string().into_string().map_err(|_| io::Error::other("its path is no UTF-8"))
}
