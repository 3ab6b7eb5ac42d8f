//! The `.deb`, by dpkg-deb.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Release,
    stage::{CONFIGURATION, Tree},
};
use crate::setup;

/// What both formats' scripts do.
pub const ACTIONS: &str = include_str!("../../../packaging/actions.sh");
pub const SUMMARY: &str = "decides, signs and records AI agents' calls to AWS";
pub const DESCRIPTION: &str = "A daemon on the host where AI agents run: it sees every AWS call of any process of an agent,\n\
                               decides by Cedar policies whether it may happen, makes it with credentials that the agent\n\
                               never holds, and records all of it.";
const POSTINST: &str = "case $1 in configure) if [ -z \"$2\" ]; then installed new; else installed again; fi ;; esac\n";
const PRERM: &str = "case $1 in remove) removing ;; esac\n";
const POSTRM: &str = "case $1 in remove) removed ;; purge) purged; removed ;; esac\n";

/// Makes the package and that of its symbols.
pub fn make(release: &Release, tree: &Tree, work: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let Release { version, debian, .. } = release;
    let description = DESCRIPTION.replace('\n', "\n ");
    let common = format!(
        "Version: {version}\nArchitecture: {debian}\nMaintainer: The Chaperone authors <chaperone@localhost>\nSection: admin\n"
    );
    let main = format!(
        "Package: chaperone\n{common}Priority: optional\nDepends: libc6 (>= {}), libgcc-s1\nRecommends: ca-certificates, systemd\n\
         Homepage: {}\nDescription: {SUMMARY}\n {description}\n",
        tree.glibc,
        env!("CARGO_PKG_REPOSITORY")
    );
    let symbols = format!(
        "Package: chaperone-dbgsym\n{common}Priority: optional\nDepends: chaperone (= {version})\n\
         Description: debug symbols of chaperone\n For debuggers, and for names in backtraces.\n"
    );
    let folder = work.join("deb");
    let main_tree = copied(&tree.files, &folder.join("chaperone"))?;
    let control = main_tree.join("DEBIAN");
    fs::create_dir_all(&control).context("making the package's control folder")?;
    let configuration: String = CONFIGURATION.iter().map(|path| format!("/{path}\n")).collect();
    write(&control.join("conffiles"), &configuration, 0o644)?;
    for (name, dispatch) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        write(&control.join(name), &format!("#!/bin/sh\nset -e\n{ACTIONS}\n{dispatch}"), 0o755)?;
    }
    let symbols_tree = copied(&tree.symbols, &folder.join("chaperone-dbgsym"))?;
    fs::create_dir_all(symbols_tree.join("DEBIAN")).context("making the package's control folder")?;
    // Symbols are compressed already, section by section.
    [(main_tree, main, "chaperone", "-Zxz"), (symbols_tree, symbols, "chaperone-dbgsym", "-Znone")]
        .into_iter()
        .map(|(tree, text, name, compression)| {
            write(&tree.join("DEBIAN/control"), &text, 0o644)?;
            sums(&tree)?;
            let package = out.join(format!("{name}_{version}_{debian}.deb"));
            let mut tool = Command::new("dpkg-deb");
            tool.args(["--root-owner-group", compression, "--threads-max=1", "--build"]).arg(&tree).arg(&package);
            setup::run(tool.env("SOURCE_DATE_EPOCH", &release.epoch).stdout(std::process::Stdio::null()))?;
            Ok(package)
        })
        .collect()
}

/// For `dpkg --verify`.
fn sums(tree: &Path) -> Result<()> {
    let listed = "find . -type f ! -path './DEBIAN/*' -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 md5sum > DEBIAN/md5sums && \
                  chmod 0644 DEBIAN/md5sums";
    setup::run(Command::new("sh").args(["-c", listed]).current_dir(tree))
}

fn copied(from: &Path, to: &Path) -> Result<PathBuf> {
    let folder = to.parent().context("BUG: a path without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    setup::run(Command::new("cp").arg("-a").arg(from).arg(to))?;
    Ok(to.to_owned())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("writing {}", path.display()))
}
