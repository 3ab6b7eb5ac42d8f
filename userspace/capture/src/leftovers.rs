//! What a killed process left of its self-test, or of a doctor's hooks, removed by the next one. What lives holds a lock.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::bpffs;

/// Cgroups of self-tests, before the number of their process.
pub(crate) const SELF_TEST: &str = "chaperone-self-test-";
/// Folders of doctors' hooks, likewise; versions before pinned them.
const DOCTOR: &str = "chaperone-doctor-";

/// Removes those whose process is gone. What can't be removed is said, and stays.
pub(crate) fn remove(cgroup_root: &Path, bpffs: &Path) {
    for entry in named(cgroup_root, SELF_TEST) {
        // Its process holds the lock, in whichever pid namespace it has that number.
        let lock = File::open(&entry).map(|folder| (folder.try_lock().is_ok(), folder));
        if let Ok((true, _folder)) = lock {
            tell(&entry, fs::remove_dir(&entry));
        }
    }
    for entry in bpffs.parent().map(|parent| named(parent, DOCTOR)).unwrap_or_default() {
        match bpffs::Folder::existing(&entry) {
            Ok(Some(folder)) => tell(&entry, folder.remove().map_err(io::Error::other)),
            Ok(None) => {}
            Err(error) => tracing::debug!(folder = %entry.display(), %error, "not a leftover"),
        }
    }
}

/// The folders of that name with a number after it, whose process is gone.
fn named(folder: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let gone = |name: &str| {
        let pid = name.strip_prefix(prefix).map(|rest| rest.split('-').next().unwrap_or_default());
        pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    entries.filter(|entry| gone(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

fn tell(what: &Path, removed: io::Result<()>) {
    match removed {
        Ok(()) => tracing::info!(what = %what.display(), "removed what a process that is gone left"),
        Err(error) => {
            tracing::warn!(what = %what.display(), %error, "what a process that is gone left can't be removed");
        }
    }
}
