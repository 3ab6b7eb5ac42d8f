//! `cargo xtask package`: a `.deb` and an `.rpm` of one tree of files, by the distributions' own tools (dpkg-deb,
//! rpmbuild), and beside each a package with the symbols.
//!
//! The same sources make the same bytes: paths are written over, times are the last commit's, and nothing says where or
//! when it was built. It packages for the architecture that it runs on.

mod build;
mod check;
mod deb;
mod licences;
mod rpm;
mod sbom;
mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{place, setup};

/// Arguments of `cargo xtask package`.
#[derive(Args, Debug)]
pub struct Options {
    /// Package this program instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the packages go; `package` in the target folder, if not given.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Install, upgrade, remove and purge them in a fresh Debian's tree, and compare what two runs make.
    #[arg(long)]
    check: bool,
    /// Build everything a second time, from a copy in another folder, and compare: takes as long as the first build.
    #[arg(long, conflicts_with = "binary")]
    twice: bool,
}

/// Most that an installed program may have.
const MOST: u64 = 40_000_000;

const TOOLS: [setup::Package; 5] = [
    setup::Package { name: "binutils", why: "takes symbols out of the program", shows: "/usr/bin/objcopy" },
    setup::Package { name: "dpkg", why: "makes the .deb", shows: "/usr/bin/dpkg-deb" },
    setup::Package { name: "file", why: "rpmbuild asks it what files are", shows: "/usr/bin/file" },
    setup::Package { name: "mmdebstrap", why: "makes the tree where packages are tried", shows: "/usr/bin/mmdebstrap" },
    setup::Package { name: "rpm", why: "makes the .rpm", shows: "/usr/bin/rpmbuild" },
];

/// What all packages of one run have in common.
#[derive(Clone, Debug)]
struct Release {
    version: String,
    /// The last commit's time, in seconds since 1970.
    epoch: String,
    /// Debian's name of the architecture, and that of everybody else.
    debian: &'static str,
    arch: &'static str,
}

/// Builds, packages, and does what else was asked.
pub fn run(options: &Options) -> Result<()> {
    setup::packages(&TOOLS)?;
    let target = place::target()?;
    let folder = target.join("package");
    let out = options.out.clone().unwrap_or_else(|| folder.clone());
    let release = release()?;
    let program = match &options.binary {
        Some(program) => program.clone(),
        None => build::program(&place::root(), &folder.join("build"))?,
    };
    if options.twice {
        build::again(&program, &folder)?;
    }
    let packages = make(&release, &program, &folder.join("work"), &out)?;
    for package in &packages {
        let size = fs::metadata(package).with_context(|| format!("reading {}", package.display()))?.len();
        println!("{} ({:.1} MB)", package.display(), megabytes(size));
    }
    if options.check { check::run(&release, &program, &folder, &packages) } else { Ok(()) }
}

/// Builds, and makes the `.deb`: gives its path.
pub fn deb() -> Result<PathBuf> {
    setup::packages(&TOOLS)?;
    let folder = place::target()?.join("package");
    let release = release()?;
    let program = build::program(&place::root(), &folder.join("build"))?;
    make(&release, &program, &folder.join("work"), &folder)?;
    Ok(folder.join(deb_name()?))
}

/// What the `.deb` is called.
pub fn deb_name() -> Result<String> {
    let Release { version, debian, .. } = release()?;
    Ok(format!("chaperone_{version}_{debian}.deb"))
}

/// The packages of this program: two for each format.
fn make(release: &Release, program: &Path, work: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    if work.exists() {
        fs::remove_dir_all(work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let tree = stage::tree(release, program, work)?;
    let installed = fs::metadata(tree.files.join("usr/bin/chaperone")).context("reading the staged program")?.len();
    ensure!(
        installed <= MOST,
        "the program has {:.1} MB, and at most {:.0} are wanted: what grew?",
        megabytes(installed),
        megabytes(MOST)
    );
    let mut packages = deb::make(release, &tree, work, out)?;
    packages.extend(rpm::make(release, &tree, work, out)?);
    Ok(packages)
}

fn release() -> Result<Release> {
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => epoch,
        Err(_) => said(Command::new("git").current_dir(place::root()).args(["log", "-1", "--format=%ct"]))?,
    };
    let (debian, arch) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "x86_64"),
        "aarch64" => ("arm64", "aarch64"),
        other => anyhow::bail!(crate::Refusal(format!("packages are for x86-64 and aarch64, and this is {other}"))),
    };
    Ok(Release { version: env!("CARGO_PKG_VERSION").to_owned(), epoch: epoch.trim().to_owned(), debian, arch })
}

/// What a program that must succeed says on standard output.
fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting `{name}`"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{name}` ended with {}: {}", output.status, why.trim());
    String::from_utf8(output.stdout).with_context(|| format!("reading what `{name}` said"))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
