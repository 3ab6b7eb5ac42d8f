//! The daemon and the kernel tests for aarch64, built here, and run in a virtual machine of that architecture.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Options, kernels, machine, table::Run, tests, text};
use crate::{place, setup};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const DEBIAN: &str = "arm64";
/// Debian 13's.
const SERIES: &str = "6.12";
/// What the tests start as agents, with the libraries that it needs.
const PROGRAMS: [&str; 15] = [
    "bash",
    "busybox-static",
    "coreutils",
    "libacl1",
    "libattr1",
    "libc6",
    "libcap2",
    "libgcc-s1",
    "libgmp10",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3t64",
    "libtinfo6",
    "libzstd1",
    "zlib1g",
];

/// Builds both, asks the daemon's program a few things, boots the machine; gives what the tests said.
pub fn run(folder: &Path, options: &Options) -> Result<Run> {
    setup::aarch64()?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    daemon(folder)?;
    let library = ["-Z", "build-std=std,panic_unwind,test", "--target", TARGET];
    let tests = tests(&mut cargo(folder), &library)?;
    let kernels = kernels::fetch(folder, DEBIAN, &[SERIES.to_owned()], options.update)?;
    let kernel = kernels.first().context("BUG: one kernel was asked for")?;
    let root = folder.join("programs");
    if !root.join("complete").exists() {
        kernels::programs(folder, DEBIAN, SERIES, &PROGRAMS, &root)?;
        fs::remove_dir_all(root.join("usr/share")).context("removing the programs' documentation")?;
        fs::write(root.join("complete"), "").context("marking the programs as unpacked")?;
    }
    let base = machine::foreign_base(folder, &root, &tests, "aarch64-linux-gnu-strip")?;
    machine::run(folder, kernel, &base, options)
}

/// The daemon's program, built, and run as far as it needs no kernel of its own.
fn daemon(folder: &Path) -> Result<()> {
    println!("vm-test: building the daemon for {TARGET}: some ten minutes the first time");
    let library = ["-Z", "build-std=std,panic_unwind", "--target", TARGET];
    setup::run(cargo(folder).args(["build", "--locked", "--quiet", "-p", "chaperone"]).args(library))?;
    let program = folder.join("target").join(TARGET).join("debug/chaperone");
    let ask = |words: &[&str]| {
        let mut command = Command::new("qemu-aarch64-static");
        command.args(["-L", "/usr/aarch64-linux-gnu"]).arg(&program).args(words).stdin(Stdio::null());
        text(&mut command)
    };
    print!("vm-test: for aarch64: {}", ask(&["--version"])?);
    let said = ask(&["explain", "--json", "GET", "https://s3.eu-west-1.amazonaws.com/bucket/key"])?;
    ensure!(said.contains("\"GetObject\""), "the program for aarch64 took a GetObject for: {said}");
    Ok(())
}

/// rustup's cargo, and Debian's compiler, which has the source of the library that rustup has no build of here.
fn cargo(folder: &Path) -> Command {
    let mut cargo = place::cargo();
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    cargo.env("CARGO_TARGET_DIR", folder.join("target"));
    cargo
}
