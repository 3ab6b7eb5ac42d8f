//! Docker and containerd for the whole-system tests: unpacked, not installed, since their packages start them and change
//! the machine's firewall.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    setup::{Package, is_debian_12, packages},
    vm::{find, text},
};

/// Docker, containerd, and what they load that a small Debian hasn't.
const UNPACKED: [&str; 3] = ["containerd", "docker.io", "libdevmapper1.02.1"];

/// Elsewhere they are taken from where they are.
const INSTALLED: [Package; 2] = [
    Package { name: "containerd", why: "pods, as a kubelet has them made", shows: "/usr/bin/containerd" },
    Package { name: "docker.io", why: "agents in Docker's containers", shows: "/usr/sbin/dockerd" },
];

/// Puts them below that folder, as the packages have them below the root.
pub fn install(folder: &Path) -> Result<()> {
    if !is_debian_12() {
        packages(&INSTALLED)?;
        return fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()));
    }
    let versions = text(Command::new("apt-cache").arg("policy").args(UNPACKED))?;
    let candidates: Vec<_> = versions.lines().filter(|line| line.trim_start().starts_with("Candidate:")).collect();
    let (wanted, mark) = (candidates.join("\n"), folder.join("versions"));
    if fs::read_to_string(&mark).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    eprintln!("set-up: Docker and containerd, into {}: seconds, 300 MB, once", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let fetched = folder.join("fetched");
    fs::create_dir_all(&fetched).with_context(|| format!("making {}", fetched.display()))?;
    // Its own user can't write into root's folder.
    let as_root = ["-qq", "-o", "APT::Sandbox::User=root", "download"];
    text(Command::new("apt-get").args(as_root).args(UNPACKED).current_dir(&fetched))?;
    for package in UNPACKED {
        let package = package_file(&fetched, package)?;
        text(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))?;
    }
    fs::remove_dir_all(&fetched).with_context(|| format!("removing {}", fetched.display()))?;
    fs::write(&mark, wanted).with_context(|| format!("writing {}", mark.display()))
}

fn package_file(fetched: &Path, package: &str) -> Result<PathBuf> {
    let start = format!("{package}_");
    find(fetched, &|name| name.starts_with(&start))
        .with_context(|| format!("`apt-get download {package}` left nothing"))
}
