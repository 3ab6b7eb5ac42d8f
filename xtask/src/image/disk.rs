//! A disk of a tree: GPT, an EFI system partition with systemd-boot and the kernel, and the root.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::Architecture;
use crate::vm;

const MIB: u64 = 1 << 20;
/// The EFI system partition: three kernels and their initrds.
const ESP: u64 = 256;
/// What the root has free besides a tenth.
const FREE: u64 = 300;
/// What kernel-install names the entries by, here and in the image.
const TOKEN: &str = "chaperone";

pub fn make(folder: &Path, root: &Path, architecture: &Architecture, out: &Path) -> Result<()> {
    let (esp_id, root_id) = (uuid()?, uuid()?);
    let used = vm::text(Command::new("du").args(["-sm", "--apparent-size"]).arg(root))?;
    let used: u64 = used.split_whitespace().next().and_then(|word| word.parse().ok()).context("du said no size")?;
    let size = used + used / 5 + FREE;
    let cmdline = format!(
        "root=PARTUUID={root_id} rw rootwait console=tty0 console={} nvme_core.io_timeout=4294967295 \
         lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor,bpf",
        architecture.console
    );
    let write = |place: &str, text: &str| -> Result<()> {
        let path = root.join(place);
        fs::create_dir_all(path.parent().context("BUG: a path without a folder")?)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("etc/kernel/cmdline", &format!("{cmdline}\n"))?;
    write(
        "etc/fstab",
        &format!(
            "PARTUUID={root_id} / ext4 defaults,x-systemd.growfs 0 1\nPARTUUID={esp_id} /efi vfat umask=0077,nofail 0 2\n"
        ),
    )?;
    write("usr/lib/chaperone-image/size-mib", &format!("{size}\n"))?;
    fs::create_dir_all(root.join("efi")).context("making /efi")?;

    println!("image: a disk of {} MiB", ESP + size + 2);
    let part = out.with_extension("part");
    let disk = File::create(&part).with_context(|| format!("writing {}", part.display()))?;
    disk.set_len((ESP + size + 2) * MIB).context("sizing the disk")?;
    drop(disk);
    partitions(&part, architecture, &esp_id, &root_id, size)?;
    let esp = esp(folder, root, architecture, &cmdline)?;
    let mut disk = File::options().write(true).open(&part).context("opening the disk")?;
    disk.seek(SeekFrom::Start(MIB))?;
    std::io::copy(&mut File::open(&esp)?, &mut disk).context("copying the EFI system partition")?;
    let offset = (1 + ESP) * MIB;
    vm::text(
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-L", "root", "-m", "1", "-E", &format!("offset={offset}"), "-d"])
            .arg(root)
            .arg(&part)
            .arg(format!("{}k", size * 1024)),
    )?;
    fs::rename(&part, out).with_context(|| format!("putting {} in place", out.display()))?;
    let there = vm::text(Command::new("du").arg("-m").arg(out))?;
    println!(
        "image: {}: {used} MiB of files, {} MiB of the disk's {} written",
        out.display(),
        there.split_whitespace().next().unwrap_or("?"),
        ESP + size + 2
    );
    Ok(())
}

fn partitions(disk: &Path, architecture: &Architecture, esp_id: &str, root_id: &str, size: u64) -> Result<()> {
    let script = format!(
        "label: gpt\nstart=1MiB, size={ESP}MiB, type=U, uuid={esp_id}, name=esp\n\
         size={size}MiB, type={}, uuid={root_id}, name=root\n",
        architecture.root
    );
    let mut tool = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(disk)
        .stdin(Stdio::piped())
        .spawn()
        .context("starting sfdisk")?;
    tool.stdin.take().context("BUG: its input is piped")?.write_all(script.as_bytes()).context("telling sfdisk")?;
    ensure!(tool.wait()?.success(), "sfdisk failed: what it said is above");
    Ok(())
}

/// As `bootctl install` and `kernel-install add` leave it, so that they go on from there.
fn esp(folder: &Path, root: &Path, architecture: &Architecture, cmdline: &str) -> Result<PathBuf> {
    let tree = folder.join("esp");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let kernel =
        vm::find(&root.join("boot"), &|name| name.starts_with("vmlinuz-")).context("the image has no kernel")?;
    let name = kernel.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let version = name.strip_prefix("vmlinuz-").context("BUG: it was found by that")?;
    let loader = root.join("usr/lib/systemd/boot/efi").join(architecture.loader);
    let folder_of_kernel = format!("{TOKEN}/{version}");
    for place in ["EFI/BOOT", "EFI/systemd", "loader/entries", &folder_of_kernel] {
        fs::create_dir_all(tree.join(place)).context("making the EFI system partition's folders")?;
    }
    for place in [format!("EFI/BOOT/{}", architecture.boot), format!("EFI/systemd/{}", architecture.installed)] {
        fs::copy(&loader, tree.join(place)).with_context(|| format!("copying {}", loader.display()))?;
    }
    fs::copy(&kernel, tree.join(&folder_of_kernel).join("linux")).context("copying the kernel")?;
    fs::write(tree.join("loader/loader.conf"), "timeout 0\neditor no\n").context("configuring the boot loader")?;
    fs::write(
        tree.join(format!("loader/entries/{TOKEN}-{version}.conf")),
        format!(
            "title Debian GNU/Linux 13 with Chaperone\nversion {version}\nsort-key debian\noptions {cmdline}\n\
             linux /{folder_of_kernel}/linux\n"
        ),
    )
    .context("writing the boot loader's entry")?;
    let image = folder.join("esp.img");
    File::create(&image)?.set_len(ESP * MIB)?;
    vm::text(Command::new("mkfs.vfat").args(["-F", "32", "-n", "ESP"]).arg(&image))?;
    for entry in fs::read_dir(&tree)? {
        vm::text(Command::new("mcopy").args(["-s", "-i"]).arg(&image).arg(entry?.path()).arg("::/"))?;
    }
    Ok(image)
}

fn uuid() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid").context("asking the kernel for an id")?.trim().to_owned())
}
