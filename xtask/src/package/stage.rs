//! The tree of files that every package is made of: what it installs, where, and with which mode.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Release, licences, said, sbom};
use crate::{lab::config::DEFAULT_POLICY, place, setup};

/// Configuration: an upgrade asks (Debian) or leaves alone (RPM) what somebody changed.
pub const CONFIGURATION: [&str; 2] = ["etc/chaperone/config.toml", "etc/chaperone/policies/default.cedar"];

/// What is executed.
const PROGRAMS: [&str; 2] = ["usr/bin/chaperone", "usr/libexec/chaperone-oci-runtime"];

/// The files, and the symbols beside them.
#[derive(Debug)]
pub struct Tree {
    /// What the package installs.
    pub files: PathBuf,
    /// What the package of symbols installs.
    pub symbols: PathBuf,
    /// The least version of glibc that has all that the program uses.
    pub glibc: String,
}

/// Makes both trees.
pub fn tree(release: &Release, program: &Path, work: &Path) -> Result<Tree> {
    let (files, symbols) = (work.join("files"), work.join("symbols"));
    let root = place::root();
    let installed = files.join(PROGRAMS[0]);
    let debug = symbols.join("usr/lib/debug/usr/bin/chaperone.debug");
    for path in [&installed, &debug] {
        let folder = path.parent().context("BUG: a path without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    setup::run(
        Command::new("objcopy").args(["--only-keep-debug", "--compress-debug-sections"]).arg(program).arg(&debug),
    )?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    setup::run(Command::new("objcopy").args(["--strip-all", &link]).arg(program).arg(&installed))?;

    let put = |place: &str, bytes: &[u8]| -> Result<()> {
        let path = files.join(place);
        let folder = path.parent().context("BUG: a path without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    };
    let copy = |from: &Path, place: &str| -> Result<()> {
        put(place, &fs::read(from).with_context(|| format!("reading {}", from.display()))?)
    };
    copy(&root.join("systemd/chaperone.service"), "usr/lib/systemd/system/chaperone.service")?;
    copy(&root.join("packaging/config.toml"), CONFIGURATION[0])?;
    put(CONFIGURATION[1], DEFAULT_POLICY.as_bytes())?;
    copy(&root.join("packaging/chaperone-oci-runtime"), PROGRAMS[1])?;
    put(
        "usr/share/chaperone/config.default.toml",
        said(Command::new(program).args(["config", "default"]))?.as_bytes(),
    )?;
    said(Command::new(program).arg("manual").arg(files.join("usr")))?;
    for page in names(&files.join("usr/share/man/man1"))? {
        setup::run(Command::new("gzip").arg("-9n").arg(page))?;
    }
    for name in ["README.md", "ARCHITECTURE.md", "SECURITY.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&root.join(name), &format!("usr/share/doc/chaperone/{name}"))?;
    }
    for page in names(&root.join("docs"))? {
        let name = page.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|_| page.extension().is_some_and(|it| it == "md")) else { continue };
        copy(&page, &format!("usr/share/doc/chaperone/docs/{name}"))?;
    }
    for pack in names(&root.join("policies"))? {
        let name = pack.file_name().and_then(|name| name.to_str()).context("BUG: a pack without a name")?;
        copy(&pack, &format!("usr/share/chaperone/policies/{name}"))?;
    }
    let crates = sbom::crates()?;
    put("usr/share/doc/chaperone/sbom.cdx.json", &sbom::document(&release.version, &crates)?)?;
    put("usr/share/doc/chaperone/THIRD-PARTY-LICENSES", licences::texts(&crates)?.as_bytes())?;
    put("usr/share/doc/chaperone/copyright", licences::COPYRIGHT.as_bytes())?;
    for tree in [&files, &symbols] {
        settle(tree, &release.epoch)?;
    }
    Ok(Tree { glibc: glibc(program)?, files, symbols })
}

/// A folder's entries, sorted.
fn names(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Modes that don't depend on the umask, and one time.
fn settle(path: &Path, epoch: &str) -> Result<()> {
    let is_folder = path.is_dir();
    if is_folder {
        names(path)?.iter().try_for_each(|path| settle(path, epoch))?;
    }
    let mode = if is_folder || PROGRAMS.iter().any(|program| path.ends_with(program)) { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))?;
    setup::run(Command::new("touch").args(["--no-dereference", "--date", &format!("@{epoch}")]).arg(path))
}

/// The newest version among those that the program's symbols name.
fn glibc(program: &Path) -> Result<String> {
    let symbols = said(Command::new("objdump").arg("-T").arg(program))?;
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let text = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
        text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()
    });
    let newest = versions.max().context("the program names no version of glibc: is it linked to another library?")?;
    Ok(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}
