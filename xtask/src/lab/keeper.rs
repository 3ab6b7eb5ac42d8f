//! The process that holds a lab's namespaces: it makes them, starts the services, and ends the lab if its starter is
//! gone without having kept it.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::setsid,
};

use super::{folder::Lab, services, tell};
use crate::{place, setup::run as must};

/// Runs until the lab ends. What goes wrong before it is ready is told on stdout.
pub fn run(dir: &Path) -> Result<()> {
    let lab = Lab::open(dir)?;
    if let Err(error) = start(&lab) {
        return tell(&format!("{error:#}"));
    }
    fs::write(lab.dir.join("keeper.pid"), std::process::id().to_string()).context("writing keeper.pid")?;
    tell("ready")?;
    if lab.kept {
        // `lab down` kills it.
        loop {
            std::thread::park();
        }
    }
    // Nothing ever comes: this ends when the starter does, in whatever way.
    let _ = std::io::stdin().read(&mut [0]);
    let root = lab.cgroup.parent().context("BUG: the lab's cgroup has no parent")?;
    fs::write(root.join("cgroup.procs"), "0").context("leaving the lab's cgroup")?;
    lab.down(false)
}

fn start(lab: &Lab) -> Result<()> {
    // The terminal's signals are for the command.
    setsid().context("starting a session of processes")?;
    fs::write(lab.cgroup.join("services/cgroup.procs"), "0").context("moving into the lab's cgroup")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("making namespaces")?;
    must(Command::new("/usr/bin/env").args(["ip", "link", "set", "lo", "up"]).stdin(Stdio::null()))
        .context("bringing loopback up")?;
    mounts(lab)?;
    services::start(lab)
}

/// The lab's own /etc, trust store and BPF file system: what is done to them is not done to the machine's.
fn mounts(lab: &Lab) -> Result<()> {
    const NONE: Option<&str> = None;
    place::private_mounts()?;
    for (folder, copy) in [("/etc", "etc"), ("/usr/local/share/ca-certificates", "ca-certificates")] {
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        let copy = lab.dir.join("mounts").join(copy);
        fs::create_dir_all(&copy).with_context(|| format!("making {}", copy.display()))?;
        must(Command::new("cp").arg("-a").arg(format!("{folder}/.")).arg(&copy).stdin(Stdio::null()))
            .with_context(|| format!("copying {folder}"))?;
        mount(Some(&copy), folder, NONE, MsFlags::MS_BIND, NONE).with_context(|| format!("mounting over {folder}"))?;
    }
    for (name, text) in [
        ("resolv.conf", "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n"),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"),
    ] {
        let path = Path::new("/etc").join(name);
        // It may be a link to somewhere outside of the copy, or a mount that came along.
        let own = lab.dir.join("mounts").join(name);
        fs::write(&own, text).with_context(|| format!("writing {}", own.display()))?;
        let copied = lab.dir.join("mounts/etc").join(name);
        let _ = fs::remove_file(&copied);
        fs::write(&copied, text).with_context(|| format!("writing {}", path.display()))?;
    }
    fs::create_dir_all("/sys/fs/bpf").ok();
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .context("mounting the BPF file system")
}
