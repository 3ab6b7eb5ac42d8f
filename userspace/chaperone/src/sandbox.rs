//! What the process must be and may not do.

use std::fs;

use anyhow::Context;
use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
};

use crate::config::ConfigError;

/// The hooks, the cgroups and the journal need root.
pub fn require_root() -> Result<(), ConfigError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(ConfigError(
        "the daemon must be started as root: it loads eBPF hooks (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN) and reads any \
         process's cgroup; use `systemctl start chaperone` or sudo"
            .into(),
    ))
}

/// Real credentials and agents' bodies pass through this process: nobody may dump or trace it.
pub fn keep_secrets_out_of_dumps() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("forbidding core dumps")?;
    keep_untraceable()
}

/// The same for a process whose children are none of that: what they execute isn't held by it.
pub fn keep_untraceable() -> anyhow::Result<()> {
    prctl::set_dumpable(false).context("making the process undumpable")
}

/// The cgroup v2 that this process is in, such as `/system.slice/chaperone.service`.
pub fn own_cgroup() -> anyhow::Result<String> {
    cgroup_of("/proc/self/cgroup")
        .context("reading /proc/self/cgroup")?
        .ok_or_else(|| ConfigError("this process is in no cgroup v2: mount cgroup2 (systemd does)".into()).into())
}

/// The cgroup v2 of a process, by its file in `/proc`.
pub fn cgroup_of(file: &str) -> std::io::Result<Option<String>> {
    let text = fs::read_to_string(file)?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned))
}
