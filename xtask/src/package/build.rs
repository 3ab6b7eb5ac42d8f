//! The program that packages carry, without the build's paths and times in it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{place, setup};

/// For what C compilers write of the time. Not the commit's: build scripts look at it, and each commit would have the C
/// libraries, and all that is above them, compiled again.
const EPOCH: &str = "946684800";

/// Builds it from the sources in `root`.
pub fn program(root: &Path, target: &Path) -> Result<PathBuf> {
    println!(
        "package: building the release in {}: a quarter of an hour on two cores, the first time",
        target.display()
    );
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let registry = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    let places = [
        format!("{}=/usr/src/chaperone", root.display()),
        format!("{}=/usr/src/registry", registry.display()),
        format!("{}=/usr/src/target", target.display()),
    ];
    // rustc's last that fits holds, as compilers of C have it.
    let rust: Vec<_> = places.iter().map(|it| format!("--remap-path-prefix={it}")).collect();
    let c = places.iter().map(|it| format!("-ffile-prefix-map={it}")).collect::<Vec<_>>().join(" ");
    let mut cargo = place::cargo();
    cargo.current_dir(root).args(["build", "--locked", "--profile", "packaged", "-p", "chaperone"]);
    cargo.env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "0").env("SOURCE_DATE_EPOCH", EPOCH);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}")).env("CFLAGS", &c).env("CXXFLAGS", &c);
    setup::run(&mut cargo)?;
    Ok(target.join("packaged/chaperone"))
}

/// Builds it a second time, of the same commit's sources in another folder, and compares.
pub fn again(first: &Path, folder: &Path) -> Result<()> {
    let copy = folder.join("again/elsewhere");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))?;
    }
    setup::run(Command::new("git").args(["clone", "--quiet"]).arg(place::root()).arg(&copy))?;
    let target = folder.join("again/target");
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| format!("removing {}", target.display()))?;
    }
    let second = program(&copy, &target)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    ensure!(
        read(first)? == read(&second)?,
        "two builds of the same commit differ: {} and {} (is all committed? `diffoscope` tells what is different)",
        first.display(),
        second.display()
    );
    println!("package: two builds in two folders are the same, byte for byte");
    Ok(())
}
