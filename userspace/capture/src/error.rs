//! What can go wrong, each with its remedy.

use std::{io, path::PathBuf};

use chaperone_model::CgroupId;

/// Capturing could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Another daemon holds the folder.
    #[error(
        "{} is in use by another daemon{}; stop that one, or give this one a `bpffs` folder of its own",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    AlreadyRunning {
        /// The folder in the BPF filesystem.
        path: PathBuf,
        /// The other daemon's process id, if it can be told.
        pid: Option<u32>,
    },
    /// A hook could not be attached.
    #[error("attaching the hook `{hook}` at {} failed: {reason}", cgroup.display())]
    Attach {
        /// The hook.
        hook: &'static str,
        /// The cgroup root.
        cgroup: PathBuf,
        /// What aya or the kernel said.
        reason: String,
    },
    /// The BPF filesystem can't be used.
    #[error("using {} as the BPF filesystem's folder failed: {reason}", path.display())]
    Bpffs {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A cgroup can't be used.
    #[error("cgroup {}: {reason}", path.display())]
    Cgroup {
        /// The cgroup's folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// There is no such cgroup.
    #[error("there is no cgroup with the id {}: it was removed, or it is outside of {}", id.0, root.display())]
    CgroupGone {
        /// The id.
        id: CgroupId,
        /// The cgroup root.
        root: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A listener could not be opened.
    #[error("opening a listener on {address} failed; is the port taken by another program?")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The hooks could not be loaded.
    #[error(
        "loading the kernel hooks failed; they need Linux 5.15 with BTF (/sys/kernel/btf/vmlinux), and maps pinned by \
         another version must be removed first (`chaperone disable`): {reason}"
    )]
    Load {
        /// What aya or the verifier said.
        reason: String,
    },
    /// A hook of the LSM could not be loaded or attached.
    #[error(
        "the LSM hook `{hook}` can't be attached; it needs Linux 6.1 with CONFIG_BPF_LSM, booted with `bpf` in its `lsm=` \
         list (see /sys/kernel/security/lsm), or `capture.lsm = \"optional\"` to do without: {reason}"
    )]
    Lsm {
        /// The hook.
        hook: &'static str,
        /// What aya or the kernel said.
        reason: String,
    },
    /// A map of the hooks could not be read or changed.
    #[error("{what} failed")]
    Map {
        /// What was being done.
        what: String,
        /// What the kernel said.
        #[source]
        source: aya::maps::MapError,
    },
    /// There is no cgroup v2 here.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`) or boot with \
         `systemd.unified_cgroup_hierarchy=1`"
    )]
    NoCgroupV2,
    /// Not enough privileges.
    #[error("capturing needs {missing}; run the daemon as root, or by its systemd unit")]
    NotPrivileged {
        /// The capabilities that are missing.
        missing: String,
    },
    /// Something of the system could not be read or changed.
    #[error("{what} failed")]
    System {
        /// What was being done.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl CaptureError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }

    pub(crate) fn map(what: impl Into<String>) -> impl FnOnce(aya::maps::MapError) -> Self {
        let what = what.into();
        |source| Self::Map { what, source }
    }
}

/// An accepted connection has no origin to tell. It must be closed.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The record doesn't fit the socket.
    #[error("BUG: the origin of this connection is of another one")]
    Mismatch,
    /// The hooks can't be asked.
    #[error("looking up the origin of an accepted connection failed")]
    Lookup(#[source] aya::maps::MapError),
    /// The connection was not redirected by the hooks: somebody dialled the listener.
    #[error("the connection was not redirected: a process that isn't enrolled dialled the daemon's listener")]
    Unknown,
}
