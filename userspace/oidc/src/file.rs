//! Files that a token lies in, which nobody but root and configured users can have put there.
//!
//! Kubernetes projects tokens through links, so that links can't be refused as such. Instead the path is walked step by
//! step, from the root, with each folder and link held open: whoever could replace any of it must be trusted.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    fs::File,
    io::Read as _,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat},
};

use crate::{FileError, MAX_TOKEN_BYTES};

/// The most links on the way.
const MAX_LINKS: usize = 40;

/// What a file looked like, for telling whether it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([i64; 6]);

/// A token's file, as it was read.
pub struct TokenFile {
    /// What is in it.
    pub token: String,
    /// What it looked like.
    pub stamp: Stamp,
}

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenFile").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

/// Reads the token at `path`, unless it is as `last` saw it. Besides root, `owners` are trusted to have put it there.
pub fn read(path: &Path, owners: &BTreeSet<u32>, last: Option<Stamp>) -> Result<Option<TokenFile>, FileError> {
    let wrong = |why: String| FileError { path: path.to_owned(), why };
    let (file, about) = walk(path, owners).map_err(wrong)?;
    let stamp = Stamp([
        i64::from_ne_bytes(about.st_dev.to_ne_bytes()),
        i64::from_ne_bytes(about.st_ino.to_ne_bytes()),
        about.st_size,
        about.st_mtime.wrapping_mul(1_000_000_000).wrapping_add(about.st_mtime_nsec),
        about.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(about.st_ctime_nsec),
        i64::from(about.st_uid),
    ]);
    if last == Some(stamp) {
        return Ok(None);
    }
    let mut token = String::new();
    let read = File::from(file).take(MAX_TOKEN_BYTES as u64 + 1).read_to_string(&mut token);
    read.map_err(|error| wrong(format!("reading it: {error}")))?;
    if token.len() > MAX_TOKEN_BYTES {
        return Err(wrong(format!("it has more than {MAX_TOKEN_BYTES} bytes, which no token has")));
    }
    Ok(Some(TokenFile { token, stamp }))
}

/// Opens the file, through folders and links that only trusted users can have made.
fn walk(path: &Path, owners: &BTreeSet<u32>) -> Result<(OwnedFd, FileStat), String> {
    if !path.is_absolute() {
        return Err("give an absolute path".into());
    }
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = || open("/", folder, Mode::empty()).map_err(|error| format!("opening /: {error}"));
    let mut way = vec![root()?];
    let mut steps: VecDeque<OsString> = steps(path)?;
    let (mut links, mut at) = (0, PathBuf::from("/"));
    while let Some(step) = steps.pop_front() {
        let here = way.last().ok_or("BUG: there is no root")?;
        let parent = fstat(here).map_err(|error| format!("looking at {}: {error}", at.display()))?;
        if step == ".." {
            if way.len() > 1 {
                way.pop();
                at.pop();
            }
            continue;
        }
        let name = at.join(&step);
        let entry = openat(here, step.as_os_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|error| format!("opening {}: {error}", name.display()))?;
        let about = fstat(&entry).map_err(|error| format!("looking at {}: {error}", name.display()))?;
        trusted(&about, &name, owners)?;
        // In a folder that others may write to, what trusted users own stays as it is only if it is sticky.
        let open_to_others = parent.st_mode & 0o022 != 0 && parent.st_mode & Mode::S_ISVTX.bits() == 0;
        if open_to_others {
            return Err(format!(
                "others than its owner may write to {}, and so put another file there: take that right away (chmod go-w)",
                at.display()
            ));
        }
        match SFlag::from_bits_truncate(about.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFLNK => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(format!("there are more than {MAX_LINKS} links on the way"));
                }
                let target = readlinkat(here, step.as_os_str())
                    .map_err(|error| format!("reading the link {}: {error}", name.display()))?;
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    (way, at) = (vec![root()?], PathBuf::from("/"));
                }
                for step in self::steps(&target)?.into_iter().rev() {
                    steps.push_front(step);
                }
            }
            SFlag::S_IFDIR if !steps.is_empty() => {
                way.push(entry);
                at = name;
            }
            SFlag::S_IFREG if steps.is_empty() => return last(here, &step, &name, &about),
            _ => return Err(format!("{} is not a file", name.display())),
        }
    }
    Err("it is a folder".into())
}

/// Opens the file itself for reading, and looks whether it is the one that was judged.
fn last(folder: &OwnedFd, step: &OsString, name: &Path, judged: &FileStat) -> Result<(OwnedFd, FileStat), String> {
    if judged.st_mode & 0o022 != 0 {
        return Err("others than its owner may write to it: take that right away (chmod go-w)".into());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = openat(folder, step.as_os_str(), flags, Mode::empty())
        .map_err(|error| format!("opening {}: {error}", name.display()))?;
    let about = fstat(&file).map_err(|error| format!("looking at {}: {error}", name.display()))?;
    let of = |it: &FileStat| (it.st_dev, it.st_ino, it.st_uid, it.st_mode);
    if of(&about) != of(judged) {
        return Err("it was replaced while it was opened: it is tried again".into());
    }
    Ok((file, about))
}

fn trusted(about: &FileStat, name: &Path, owners: &BTreeSet<u32>) -> Result<(), String> {
    let owner = about.st_uid;
    if owner == 0 || owners.contains(&owner) {
        return Ok(());
    }
    Err(format!(
        "{} belongs to uid {owner}, who could be the agent itself: it must be root's, or that of a user in \
         identity.token_owners",
        name.display()
    ))
}

fn steps(path: &Path) -> Result<VecDeque<OsString>, String> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err("there is a NUL in its path".into());
    }
    let named = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    Ok(named.collect())
}
