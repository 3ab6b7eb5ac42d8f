//! The image, tried: booted as it is, under UEFI, with a metadata address and an S3 on its own loopback.
//!
//! What tries it isn't in the image: it is on a second disk, and its units come by SMBIOS, as systemd's credentials.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{place, vm};

pub struct Trial<'a> {
    pub folder: &'a Path,
    pub image: &'a Path,
    pub package: &'a Path,
    pub fakes: &'a Path,
    pub timeout: u32,
}

const FIRMWARE: (&str, &str) = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd");
/// Units of the trial's, and what starts each.
const UNITS: [(&str, &str); 3] =
    [("standin", "sysinit.target"), ("early", "multi-user.target"), ("trial", "multi-user.target")];
const END: &str = "end";
/// The image's disk is made larger by this, so that the root has something to grow into.
const LARGER: u64 = 1 << 30;

/// Boots it, passes on what it says, and fails if anything wasn't so.
pub fn run(trial: &Trial<'_>) -> Result<()> {
    let payload = payload(trial)?;
    let variables = trial.folder.join("efi-variables.fd");
    fs::copy(FIRMWARE.1, &variables).with_context(|| format!("copying {}", FIRMWARE.1))?;
    let disk = trial.folder.join("trial.raw");
    vm::text(Command::new("cp").arg("--sparse=always").arg(trial.image).arg(&disk))?;
    let file = File::options().write(true).open(&disk)?;
    file.set_len(file.metadata()?.len() + LARGER).context("making the disk larger")?;
    let console = trial.folder.join("console.log");

    let mut qemu = Command::new("timeout");
    qemu.arg(trial.timeout.to_string()).args(["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi"]);
    // QEMU's `cmpxchg16b` isn't atomic across threads in all versions.
    qemu.args(["-cpu", "max,-cx16", "-m", "2048", "-smp", "2", "-nodefaults", "-display", "none"]);
    qemu.arg("-drive").arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", FIRMWARE.0));
    qemu.arg("-drive").arg(format!("if=pflash,format=raw,unit=1,file={}", variables.display()));
    for (id, file) in [("disk", &disk), ("payload", &payload)] {
        qemu.arg("-drive").arg(format!("if=none,id={id},file={},format=raw", file.display()));
        qemu.arg("-device").arg(format!("nvme,drive={id},serial={id}"));
    }
    // A network that reaches nothing.
    qemu.args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"]);
    qemu.args(["-device", "virtio-rng-pci"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    for (name, by) in UNITS {
        let unit = place::root().join(format!("ami/test/{name}.service"));
        let text = fs::read(&unit).with_context(|| format!("reading {}", unit.display()))?;
        let credential = |name: &str, text: &[u8]| {
            format!("type=11,value=io.systemd.credential.binary:{name}={}", STANDARD.encode(text))
        };
        qemu.arg("-smbios").arg(credential(&format!("systemd.extra-unit.{name}.service"), &text));
        let wants = format!("[Unit]\nWants={name}.service\n");
        qemu.arg("-smbios").arg(credential(&format!("systemd.unit-dropin.{by}~{name}"), wants.as_bytes()));
    }
    println!("image: booting it three times without KVM: some ten minutes");
    let mut machine = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running qemu")?;
    let mut since = Instant::now();
    let (mut proved, mut failed, mut ended) = (0, 0, false);
    for line in BufReader::new(machine.stdout.take().context("BUG: its output is piped")?).split(b'\n') {
        let line = line.context("reading what the machine says")?;
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        let (kind, _) = line.split_once(": ").unwrap_or((&line, ""));
        match kind {
            "ok" => proved += 1,
            "FAILED" => failed += 1,
            "up" => println!("image: {:.0} s from power-on or reboot to the first line", since.elapsed().as_secs_f32()),
            "reboot" => since = Instant::now(),
            END => ended = true,
            "captured" => {}
            // The firmware speaks on every port.
            _ if !line.starts_with("| ") => continue,
            _ => {}
        }
        println!("{line}");
    }
    let status = machine.wait().context("waiting for qemu")?;
    ensure!(ended, "the machine ended ({status}) before the trial did; its console: {}", console.display());
    let said = fs::read(&console).with_context(|| format!("reading {}", console.display()))?;
    let said = String::from_utf8_lossy(&said);
    let told = said.contains("user data:15: ") && said.contains("regoin");
    println!("{}: the mistake in the user data is on the console", if told { "ok" } else { "FAILED" });
    ensure!(failed == 0 && told, "{failed} of {} were not so; its console: {}", failed + proved, console.display());
    ensure!(proved > 0, "nothing was tried");
    fs::remove_file(&disk).context("removing the disk of the trial")
}

/// The second disk.
fn payload(trial: &Trial<'_>) -> Result<std::path::PathBuf> {
    let tree = trial.folder.join("payload");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    }
    fs::create_dir_all(&tree).with_context(|| format!("making {}", tree.display()))?;
    for name in ["standin.sh", "run.sh", "imds.py", "role.py", "user-data.toml"] {
        let from = place::root().join("ami/test").join(name);
        fs::copy(&from, tree.join(name)).with_context(|| format!("copying {}", from.display()))?;
    }
    fs::write(tree.join("call.py"), include_str!("../../vm/call.py")).context("writing the trial's client")?;
    vm::text(Command::new("strip").arg("-o").arg(tree.join("chaperone-fakes")).arg(trial.fakes))?;
    // The same package by a newer version.
    let unpacked = trial.folder.join("next");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    vm::text(Command::new("dpkg-deb").arg("-R").arg(trial.package).arg(&unpacked))?;
    let control = unpacked.join("DEBIAN/control");
    let text = fs::read_to_string(&control).context("reading the package's control file")?;
    let newer: Vec<_> = text
        .lines()
        .map(|line| if line.starts_with("Version: ") { format!("{line}+next\n") } else { format!("{line}\n") })
        .collect();
    fs::write(&control, newer.concat()).context("writing the package's control file")?;
    vm::text(Command::new("dpkg-deb").args(["-Zgzip", "-z1", "-b"]).arg(&unpacked).arg(tree.join("next.deb")))?;
    let image = trial.folder.join("payload.img");
    File::create(&image)?.set_len(192 << 20)?;
    vm::text(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-L", "payload", "-d"]).arg(&tree).arg(&image))?;
    Ok(image)
}
