//! Finding the cgroup v2 hierarchy, and going between a cgroup's id and its path.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use chaperone_model::CgroupId;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{CaptureError, sys};

/// Where cgroup v2 is mounted, by `/proc/self/mountinfo`: `/sys/fs/cgroup` on most hosts, `/sys/fs/cgroup/unified` on
/// hybrid ones.
pub fn cgroup_root() -> Result<PathBuf, CaptureError> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(CaptureError::system("reading /proc/self/mountinfo"))?;
    cgroup2_mount(&mounts).ok_or(CaptureError::NoCgroupV2)
}

/// The last mount of the whole hierarchy wins, since it covers those before it; see proc_pid_mountinfo(5).
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    let mut fallback = None;
    for line in mountinfo.lines().rev() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        if right.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut fields = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let point = PathBuf::from(unescape(point));
        if root == "/" {
            return Some(point);
        }
        fallback.get_or_insert(point);
    }
    fallback
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The id of the cgroup with this folder.
pub fn cgroup_id(path: impl AsRef<Path>) -> Result<CgroupId, CaptureError> {
    let path = path.as_ref();
    let here = |reason: String| CaptureError::Cgroup { path: path.to_owned(), reason };
    let folder = File::open(path).map_err(|error| here(error.to_string()))?;
    let kind = nix::sys::statfs::fstatfs(&folder).map_err(|error| here(error.to_string()))?;
    if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(here("not a folder of the cgroup v2 hierarchy".to_owned()));
    }
    // kernfs: on 64-bit machines the inode number is the id (include/linux/kernfs.h, `kernfs_ino`).
    Ok(CgroupId(folder.metadata().map_err(|error| here(error.to_string()))?.ino()))
}

/// The path of a cgroup below `root`, such as `/agents/coder`; `/` for the root itself. It is asked of the kernel by a
/// file handle, so it costs the same in a tree of any size.
pub fn cgroup_path(root: &Path, id: CgroupId) -> Result<String, CaptureError> {
    let gone = |source| CaptureError::CgroupGone { id, root: root.to_owned(), source };
    let mount = File::open(root).map_err(gone)?;
    let folder = sys::open_cgroup(mount.as_fd(), id).map_err(gone)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).map_err(gone)?;
    let below = path
        .strip_prefix(root)
        .map_err(|_| gone(std::io::Error::other(format!("{} is not below it", path.display()))))?;
    let text = String::from_utf8_lossy(below.as_os_str().as_bytes());
    // The kernel marks a removed folder so; a living one of that name has " (deleted)" in its own name.
    if text.ends_with(" (deleted)") && !path.exists() {
        return Err(gone(std::io::Error::from_raw_os_error(libc::ENOENT)));
    }
    Ok(format!("/{text}"))
}

/// How deep below the root a cgroup is; the root is 0.
pub(crate) fn level(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

/// Whether `path` is on a cgroup v2 filesystem.
pub(crate) fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|kind| kind.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_hosts_hierarchy_is_found() {
        assert_eq!(cgroup2_mount(HYBRID), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_mount_over_it_wins_and_a_part_does_not() {
        let covered = format!("{HYBRID}90 31 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n");
        assert_eq!(cgroup2_mount(&covered), Some(PathBuf::from("/sys/fs/cgroup")));
        let part = format!("{HYBRID}90 31 0:38 /agents /mnt/a\\040b rw - cgroup2 none rw\n");
        assert_eq!(cgroup2_mount(&part), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let part_alone = "90 31 0:38 /agents /mnt/a\\040b rw - cgroup2 none rw\n";
        assert_eq!(cgroup2_mount(part_alone), Some(PathBuf::from("/mnt/a b")));
    }

    #[test]
    fn no_hierarchy_is_none() {
        assert_eq!(cgroup2_mount("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\nnonsense\n"), None);
    }

    #[test]
    fn an_ordinary_folder_is_no_cgroup() {
        let error = cgroup_id("/tmp").unwrap_err().to_string();
        assert!(error.contains("cgroup v2"), "{error}");
    }

    #[test]
    fn levels_count_from_the_root() {
        assert_eq!(level("/"), 0);
        assert_eq!(level("/agents/coder"), 2);
    }
}
