//! `cargo xtask image`: a disk with Debian and Chaperone that becomes an AMI, made without loop devices and mounts, and
//! tried whole: booted under UEFI, set up by user data, with an agent's recorded call, refused where it must be.

mod boot;
mod disk;
mod publish;
mod tree;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{Refusal, package, place, setup};

/// Arguments of `cargo xtask image`.
#[derive(Args, Debug)]
pub struct Options {
    /// Install this .deb instead of making one.
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
    /// Where the image goes; `image/chaperone-ARCH.raw` in the target folder, if not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Take the image that is there.
    #[arg(long, conflicts_with = "package")]
    keep: bool,
    /// Don't boot it.
    #[arg(long)]
    no_boot: bool,
    /// Seconds that the three boots may take.
    #[arg(long, default_value_t = 1800)]
    timeout: u32,
    /// The program that plays AWS, instead of building it.
    #[arg(long, value_name = "FILE")]
    fakes: Option<PathBuf>,
    /// Tell what makes an AMI of the image that is there; with `--yes`, do it.
    #[arg(long)]
    publish: bool,
    #[command(flatten)]
    ami: publish::Ami,
}

/// What differs between the architectures.
#[derive(Clone, Copy, Debug)]
struct Architecture {
    /// EC2's name, and everybody's.
    name: &'static str,
    /// Debian's.
    debian: &'static str,
    /// The boot loader, as Debian's package has it, and where firmware looks for it.
    loader: &'static str,
    boot: &'static str,
    installed: &'static str,
    /// The type of its root partition, in the Discoverable Partitions Specification.
    root: &'static str,
    console: &'static str,
}

const X86_64: Architecture = Architecture {
    name: "x86_64",
    debian: "amd64",
    loader: "systemd-bootx64.efi.signed",
    boot: "BOOTX64.EFI",
    installed: "systemd-bootx64.efi",
    root: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    console: "ttyS0,115200n8",
};
const AARCH64: Architecture = Architecture {
    name: "arm64",
    debian: "arm64",
    loader: "systemd-bootaa64.efi.signed",
    boot: "BOOTAA64.EFI",
    installed: "systemd-bootaa64.efi",
    root: "b921b045-1df0-41c3-af44-4c6f280d3fae",
    console: "ttyS0,115200n8",
};

/// Builds the image, boots it, and does what else was asked.
pub fn run(options: &Options) -> Result<()> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => &X86_64,
        "aarch64" => &AARCH64,
        other => anyhow::bail!(Refusal(format!("images are for x86-64 and aarch64, and this is {other}"))),
    };
    let folder = place::target()?.join("image");
    let out = options.out.clone().unwrap_or_else(|| folder.join(format!("chaperone-{}.raw", architecture.name)));
    if options.publish {
        return publish::run(&out, architecture, &options.ami);
    }
    setup::image()?;
    place::room(&folder, 6, "an image with what it is made of")?;
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let package = match &options.package {
        Some(package) => package.clone(),
        None if options.keep => place::target()?.join("package").join(package::deb_name()?),
        None => package::deb()?,
    };
    if !options.keep {
        let root = tree::make(&folder, architecture, &package)?;
        disk::make(&folder, &root, architecture, &out)?;
    }
    if options.no_boot {
        return Ok(());
    }
    let fakes = match &options.fakes {
        Some(fakes) => fakes.clone(),
        None => setup::lab()?.bin.join("chaperone-fakes"),
    };
    boot::run(&boot::Trial { folder: &folder, image: &out, package: &package, fakes: &fakes, timeout: options.timeout })
}
