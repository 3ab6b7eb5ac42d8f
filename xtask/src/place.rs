//! Where things are: the workspace, its target folder, what is built into it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statvfs::statvfs,
};

/// The workspace's folder. Not by the environment: tests run this, and have a `CARGO_MANIFEST_DIR` of their own.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// cargo, as it runs this.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The target folder, wherever the environment or a configuration of cargo's puts it.
pub fn target() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("starting `cargo metadata`")?;
    ensure!(output.status.success(), "`cargo metadata` ended with {}", output.status);
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("reading `cargo metadata`")?;
    let target = metadata["target_directory"].as_str().context("`cargo metadata` names no target directory")?;
    Ok(PathBuf::from(target))
}

/// An error if a folder's file system has less than `gigabytes` free: said before anything fails half-way for it.
pub fn room(folder: &Path, gigabytes: u64, what: &str) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let state = statvfs(there).with_context(|| format!("reading the free space of {}", there.display()))?;
    let free = state.blocks_available() * state.fragment_size() / 1_000_000_000;
    ensure!(
        free >= gigabytes,
        "{} has {free} GB free, and {what} takes {gigabytes} GB: free some space, or name another place by \
         CARGO_TARGET_DIR (what is built) or TMPDIR (labs)",
        there.display()
    );
    Ok(())
}

/// Makes the mounts of this (new) mount namespace private, so that what is mounted from here on is seen by nobody else.
///
/// In a chroot the root is no mount, and each mount that can be seen is made private by itself.
pub fn private_mounts() -> Result<()> {
    const NONE: Option<&str> = None;
    match mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE) {
        Err(Errno::EINVAL) => {}
        other => return other.context("making the mounts private"),
    }
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    for point in table.lines().filter_map(|line| line.split(' ').nth(4)) {
        match mount(NONE, point, NONE, MsFlags::MS_PRIVATE, NONE) {
            // Hidden below another one, or gone: out of reach, and so out of the way.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("making the mount {point} private")),
        }
    }
    Ok(())
}
