//! `cargo xtask vm-rootless`: a user's own containers, by podman without root, captured; in a virtual machine of Debian 13,
//! since they need systemd, user namespaces and a whole host.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{place, setup, vm};

#[derive(Args, Debug)]
pub struct Options {
    /// Seconds that the machine may take.
    #[arg(long, default_value_t = 1200)]
    timeout: u32,
}

/// What the machine has.
const PACKAGES: [&str; 20] = [
    "awscli",
    "ca-certificates",
    "crun",
    "curl",
    "dbus-user-session",
    "fuse-overlayfs",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "netavark",
    "nftables",
    "passt",
    "podman",
    "procps",
    "python3",
    "slirp4netns",
    "systemd-sysv",
    "uidmap",
    "util-linux",
];
const SCRIPT: &str = include_str!("../vm/rootless.sh");
const UNIT: &str = "\
[Unit]
After=basic.target dbus.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/payload/run.sh > /dev/ttyS0 2>&1; systemctl poweroff -f -f'
TimeoutStartSec=infinity
";
/// QEMU's `cmpxchg16b`, which the kernel's allocator uses, isn't atomic across threads in all versions.
const CPU: &str = "max,-cx16";

/// Boots the machine, and says what was so. An error if anything wasn't.
pub fn run(options: &Options) -> Result<()> {
    setup::rootless()?;
    let programs = setup::lab()?.bin;
    let folder = place::target()?.join("vm/rootless");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let root = debian(&folder)?;
    let image = image(&folder, &root, &programs)?;
    let said = boot(&kernel(&root)?, &image, options.timeout)?;
    let log = folder.join("log");
    fs::write(&log, &said).with_context(|| format!("writing {}", log.display()))?;
    // Before its first line, the kernel's and the terminal's.
    let told = said.find("podman ").map_or("", |at| &said[at..]);
    let told: Vec<_> = told.lines().map(str::trim).take_while(|line| !line.starts_with('[')).collect();
    println!("{}", told.join("\n"));
    let proved = told.iter().filter(|line| line.starts_with("ok: ")).count();
    let failed = told.iter().filter(|line| line.starts_with("FAILED: ")).count();
    ensure!(told.contains(&"end"), "the machine ended before the script did; all that was said: {}", log.display());
    ensure!(failed == 0 && proved > 0, "{failed} of {} were not so", failed + proved);
    Ok(())
}

/// A whole Debian, made once.
fn debian(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    let made = folder.join("made");
    let wanted = PACKAGES.join(",");
    if fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return Ok(root);
    }
    println!("vm-rootless: making a Debian 13: two minutes, 700 MB, once");
    let _ = fs::remove_dir_all(&root);
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--mode=root", "--variant=minbase", "--quiet"]).arg(format!("--include={wanted}"));
    // The kernel has its disk's driver built in: no initrd, which takes a minute to make.
    mmdebstrap.env("INITRD", "No");
    vm::text(mmdebstrap.arg("trixie").arg(&root).arg(vm::mirror()?))?;
    fs::write(&made, wanted).with_context(|| format!("writing {}", made.display()))?;
    Ok(root)
}

/// … with the programs and the script in it, as a disk.
fn image(folder: &Path, root: &Path, programs: &Path) -> Result<PathBuf> {
    let payload = root.join("payload");
    fs::create_dir_all(&payload).with_context(|| format!("making {}", payload.display()))?;
    for name in ["chaperone", "chaperone-fakes"] {
        vm::text(Command::new("strip").arg("-o").arg(payload.join(name)).arg(programs.join(name)))?;
    }
    let script = payload.join("run.sh");
    fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let units = root.join("etc/systemd/system");
    fs::write(units.join("payload.service"), UNIT).context("writing the unit")?;
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    for (to, link) in
        [("../payload.service", wants.join("payload.service")), ("/dev/null", units.join("serial-getty@ttyS0.service"))]
    {
        let _ = fs::remove_file(&link);
        symlink(to, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    let image = folder.join("disk.img");
    let _ = fs::remove_file(&image);
    vm::text(Command::new("truncate").args(["-s", "4G"]).arg(&image))?;
    vm::text(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(root).arg(&image))?;
    Ok(image)
}

fn kernel(root: &Path) -> Result<PathBuf> {
    let boot = root.join("boot");
    vm::find(&boot, &|name| name.starts_with("vmlinuz-")).with_context(|| format!("{} has no kernel", boot.display()))
}

fn boot(kernel: &Path, image: &Path, timeout: u32) -> Result<String> {
    let mut qemu = Command::new("timeout");
    qemu.arg(timeout.to_string()).args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU]);
    qemu.args(["-m", "2048", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    qemu.arg("-drive").arg(format!("if=none,id=disk,file={},format=raw,snapshot=on", image.display()));
    qemu.args(["-device", "nvme,drive=disk,serial=root"]).arg("-kernel").arg(kernel);
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet root=/dev/nvme0n1 rw rootwait systemd.show_status=0"]);
    let output = qemu.stdin(Stdio::null()).output().context("running qemu")?;
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    if !output.status.success() && !said.contains("\nend") {
        bail!("the machine didn't end in {timeout} s, or not well: {}", said.lines().last().unwrap_or_default());
    }
    Ok(said)
}
