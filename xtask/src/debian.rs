//! What takes a whole host with systemd: a virtual machine of Debian's, with Chaperone installed as the README says.
//! `cargo xtask vm-rootless`: a user's own containers, by podman without root. `cargo xtask vm-systemd`: the service.
//! `cargo xtask vm-gvisor`: containers with a kernel of their own.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{place, setup, vm};

#[derive(Args, Debug)]
pub struct Options {
    /// Debian's release: trixie has systemd 257, bookworm 252 (whose podman has no pasta).
    #[arg(long, default_value = "trixie")]
    release: String,
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
/// What is tried in the machine. It says so in lines that begin with `ok: ` or `FAILED: `, and at last `end`.
pub struct Scenario {
    /// Of its command.
    name: &'static str,
    /// Run by root once the machine is up, again after each `systemctl reboot`.
    script: &'static str,
    /// The first words of what it says.
    begins: &'static str,
    /// Packages of Debian 12 that are unpacked beside it, whatever the machine's release.
    unpacked: &'static [&'static str],
}

pub const ROOTLESS: Scenario =
    Scenario { name: "vm-rootless", script: include_str!("../vm/rootless.sh"), begins: "podman ", unpacked: &[] };
pub const SYSTEMD: Scenario =
    Scenario { name: "vm-systemd", script: include_str!("../vm/systemd.sh"), begins: "systemd ", unpacked: &[] };
pub const GVISOR: Scenario =
    Scenario { name: "vm-gvisor", script: include_str!("../vm/gvisor.sh"), begins: "gVisor ", unpacked: &["runsc"] };
/// What both begin with: the installation.
const INSTALL: &str = include_str!("../vm/install.sh");
const CALL: &str = include_str!("../vm/call.py");
const UNIT: &str = "\
[Unit]
After=basic.target dbus.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/payload/run.sh > /dev/ttyS0 2>&1; [ -e /payload/again ] || systemctl poweroff -f -f'
TimeoutStartSec=infinity
";
/// The scripts' last line.
const END: &str = "end";
/// QEMU's `cmpxchg16b`, which the kernel's allocator uses, isn't atomic across threads in all versions.
const CPU: &str = "max,-cx16";

/// Boots the machine, and says what was so. An error if anything wasn't.
pub fn run(scenario: &Scenario, options: &Options) -> Result<()> {
    setup::debian()?;
    let programs = setup::lab()?.bin;
    let folder = place::target()?.join("vm").join(&options.release);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let root = debian(&folder, &options.release)?;
    let image = image(&folder, &root, &programs, scenario)?;
    let log = folder.join(format!("{}.log", scenario.name));
    let told = boot(&kernel(&root)?, &image, options.timeout, scenario, &log)?;
    let failed = told.iter().filter(|line| line.starts_with("FAILED: ")).count();
    let proved = told.iter().filter(|line| line.starts_with("ok: ")).count();
    let ended = told.last().is_some_and(|line| line == END);
    ensure!(ended, "the machine ended before the script did; all that was said: {}", log.display());
    ensure!(failed == 0 && proved > 0, "{failed} of {} were not so", failed + proved);
    Ok(())
}

/// A whole Debian, made once.
fn debian(folder: &Path, release: &str) -> Result<PathBuf> {
    let root = folder.join("root");
    let made = folder.join("made");
    let wanted = PACKAGES.join(",");
    if fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return Ok(root);
    }
    println!("making a Debian {release}: two minutes, 700 MB, once");
    let _ = fs::remove_dir_all(&root);
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--mode=root", "--variant=minbase", "--quiet"]).arg(format!("--include={wanted}"));
    // The kernel has its disk's driver built in: no initrd, which takes a minute to make.
    mmdebstrap.env("INITRD", "No");
    vm::text(mmdebstrap.arg(release).arg(&root).arg(vm::mirror()?))?;
    fs::write(&made, wanted).with_context(|| format!("writing {}", made.display()))?;
    Ok(root)
}

/// … with the programs and the script in it, as a disk.
fn image(folder: &Path, root: &Path, programs: &Path, scenario: &Scenario) -> Result<PathBuf> {
    let payload = root.join("payload");
    fs::create_dir_all(&payload).with_context(|| format!("making {}", payload.display()))?;
    for name in ["chaperone", "chaperone-fakes"] {
        vm::text(Command::new("strip").arg("-o").arg(payload.join(name)).arg(programs.join(name)))?;
    }
    for package in scenario.unpacked {
        let unpacked = place::target()?.join("vm/unpacked").join(package);
        if !unpacked.exists() {
            let fetched = unpacked.with_extension("part");
            fs::create_dir_all(&fetched).with_context(|| format!("making {}", fetched.display()))?;
            vm::programs(&place::target()?.join("vm"), "amd64", "6.1", &[package], &fetched)?;
            fs::rename(&fetched, &unpacked).with_context(|| format!("keeping {}", unpacked.display()))?;
        }
        vm::text(Command::new("cp").arg("-a").arg(unpacked.join(".")).arg(&payload))?;
    }
    for (name, text) in [
        ("run.sh", scenario.script),
        ("install.sh", INSTALL),
        ("call.py", CALL),
        ("chaperone.service", &fs::read_to_string(place::root().join("systemd/chaperone.service"))?),
    ] {
        let path = payload.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
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

/// What the script says, passed on as it comes; what the machine says is in the log.
fn boot(kernel: &Path, image: &Path, timeout: u32, scenario: &Scenario, log: &Path) -> Result<Vec<String>> {
    let mut qemu = Command::new("timeout");
    qemu.arg(timeout.to_string()).args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU]);
    qemu.args(["-m", "2048", "-smp", "2", "-nodefaults", "-display", "none", "-serial", "stdio"]);
    qemu.arg("-drive").arg(format!("if=none,id=disk,file={},format=raw,snapshot=on", image.display()));
    qemu.args(["-device", "nvme,drive=disk,serial=root"]).arg("-kernel").arg(kernel);
    qemu.args(["-append", "console=ttyS0 quiet root=/dev/nvme0n1 rw rootwait systemd.show_status=0"]);
    let mut machine = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running qemu")?;
    let mut kept = File::create(log).with_context(|| format!("writing {}", log.display()))?;
    let mut told: Vec<String> = Vec::new();
    for line in BufReader::new(machine.stdout.take().context("BUG: its output is piped")?).split(b'\n') {
        let line = line.context("reading what the machine says")?;
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        writeln!(kept, "{line}").with_context(|| format!("writing {}", log.display()))?;
        // The rest is the kernel's, the terminal's and, before its first line, the firmware's.
        let begun = !told.is_empty() || line.starts_with(scenario.begins);
        let is_script = !line.is_empty() && !line.starts_with(['[', '\x1b']);
        if begun && is_script && told.last().is_none_or(|last| last != END) {
            println!("{line}");
            told.push(line);
        }
    }
    let status = machine.wait().context("waiting for qemu")?;
    ensure!(
        status.success() || told.last().is_some_and(|last| last == END),
        "the machine didn't end in {timeout} s, or not well; all that was said: {}",
        log.display()
    );
    Ok(told)
}
