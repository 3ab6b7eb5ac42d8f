//! The image's files: Debian, Chaperone's package, and what is in `ami/files`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Architecture;
use crate::{place, vm};

/// Run in the tree, with its own programs: what packages do at their installation, and no more.
const INSTALL: &str = "
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
dpkg -i /chaperone.deb
rm /chaperone.deb
useradd --create-home --shell /bin/bash --uid 1000 --comment 'looks after the instance' admin
useradd --create-home --shell /bin/bash --uid 2000 --comment 'an agent' agent
passwd --quiet --lock root
apt-get clean
";
/// … once the image's own files are there.
const ENABLE: &str = "
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
systemctl --quiet enable chaperone chaperone-provision nftables systemd-networkd unattended-upgrades
systemctl --quiet disable systemd-networkd-wait-online netavark-firewalld-reload netavark-dhcp-proxy.socket
";

/// Makes the tree; Debian's part of it is kept for the next time.
pub fn make(folder: &Path, architecture: &Architecture, package: &Path) -> Result<PathBuf> {
    let debian = debian(folder, architecture)?;
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    println!("image: installing {}", package.display());
    vm::text(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&debian).arg(&root))?;
    fs::copy(package, root.join("chaperone.deb")).with_context(|| format!("reading {}", package.display()))?;
    vm::text(Command::new("chroot").arg(&root).args(["/bin/sh", "-c", INSTALL]))?;
    for policy in fs::read_dir(root.join("etc/chaperone/policies")).context("the package has no policies")? {
        fs::remove_file(policy?.path()).context("removing the package's policies")?;
    }
    overlay(&place::root().join("ami/files"), &root)?;
    vm::text(Command::new("chroot").arg(&root).args(["/bin/sh", "-c", ENABLE]))?;
    fs::set_permissions(root.join("etc/sudoers.d/admin"), fs::Permissions::from_mode(0o440))?;
    unique(&root)?;
    let sources = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: trixie trixie-updates\nComponents: main\n\
                   Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                   Types: deb\nURIs: http://deb.debian.org/debian-security\nSuites: trixie-security\nComponents: main\n\
                   Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
    fs::write(root.join("etc/apt/sources.list"), "").context("emptying the image's sources")?;
    fs::write(root.join("etc/apt/sources.list.d/debian.sources"), sources).context("writing the image's sources")?;
    Ok(root)
}

fn debian(folder: &Path, architecture: &Architecture) -> Result<PathBuf> {
    let root = folder.join("debian");
    let made = folder.join("debian.made");
    let listed = place::root().join("ami/packages.txt");
    let listed = fs::read_to_string(&listed).with_context(|| format!("reading {}", listed.display()))?;
    let mut packages: Vec<_> = listed.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    packages.push(format!("linux-image-cloud-{}", architecture.debian));
    packages.push("debian-archive-keyring".into());
    let wanted = packages.join(",");
    if fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return Ok(root);
    }
    println!("image: making a Debian 13 in {}: some minutes, 650 MB, once", root.display());
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    let (main, security) = vm::mirrors()?;
    let mut tool = Command::new("mmdebstrap");
    // The kernel has its disk's driver built in: no initrd, which takes a minute to make and seconds to boot.
    tool.env("INITRD", "No").args(["--mode=root", "--variant=minbase", "--quiet"]).arg(format!("--include={wanted}"));
    tool.arg("trixie").arg(&root).arg(format!("deb {main} trixie main"));
    if let Some(security) = security {
        tool.arg(format!("deb {security} trixie-security main"));
    }
    vm::text(&mut tool)?;
    fs::write(&made, wanted).with_context(|| format!("writing {}", made.display()))?;
    Ok(root)
}

/// Copies the files over the tree, root's and readable.
fn overlay(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
            overlay(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("writing {}", to.display()))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// Takes away what each instance must have of its own, and what says where the image was made.
fn unique(root: &Path) -> Result<()> {
    let ssh = root.join("etc/ssh");
    for entry in fs::read_dir(&ssh).context("the image has no SSH")? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    fs::write(root.join("etc/machine-id"), "").context("emptying the machine's id")?;
    fs::write(root.join("etc/hostname"), "chaperone\n").context("naming the machine")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost ip6-localhost\n").context("writing hosts")?;
    for gone in ["var/lib/chaperone", "var/lib/systemd/random-seed", "var/lib/dbus/machine-id", "root/.bash_history"] {
        let path = root.join(gone);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        ensure!(removed.is_ok() || !path.exists(), "{} can't be removed", path.display());
    }
    Ok(())
}
