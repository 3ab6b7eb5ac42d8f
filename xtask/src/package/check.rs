//! The packages, tried: the same bytes from a second run, and their whole life in a fresh Debian's tree.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Release, make};
use crate::setup;

/// Run in namespaces of its own; says `ok: …` or `FAILED: …` of each thing.
const SCRIPT: &str = include_str!("../../../packaging/check.sh");

pub fn run(release: &Release, program: &Path, folder: &Path, packages: &[PathBuf]) -> Result<()> {
    let again = make(release, program, &folder.join("check/again-work"), &folder.join("check/again"))?;
    for (one, other) in packages.iter().zip(&again) {
        let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        ensure!(
            read(one)? == read(other)?,
            "{} and {} differ: something says when or where",
            one.display(),
            other.display()
        );
    }
    println!("ok: made a second time in another folder, each package has the same bytes");
    let next = Release { version: format!("{}+next", release.version), ..release.clone() };
    let upgrade = make(&next, program, &folder.join("check/next-work"), &folder.join("check/next"))?;
    let tree = folder.join("check/debian");
    if !tree.join("complete").exists() {
        println!("package: making a tree of Debian 12: a minute, once");
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
        }
        let mut tool = Command::new("mmdebstrap");
        tool.args(["--quiet", "--mode=root", "--variant=minbase", "--include=ca-certificates", "bookworm"]).arg(&tree);
        setup::run(tool.arg("/etc/apt/sources.list.d/debian.sources"))?;
        fs::write(tree.join("complete"), "").context("marking the tree as complete")?;
    }
    let mut shell = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--net", "sh", "-s"])
        .arg(&tree)
        .args([&packages[0], &upgrade[0], &packages[2], &upgrade[2]])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting `unshare`")?;
    let mut input = shell.stdin.take().context("BUG: no standard input")?;
    input.write_all(SCRIPT.as_bytes()).context("telling the shell what to do")?;
    drop(input);
    let output = shell.wait_with_output().context("waiting for the check")?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    let failed = said.lines().filter(|line| line.starts_with("FAILED: ")).count();
    ensure!(
        output.status.success() && failed == 0 && said.lines().last() == Some("end"),
        "{failed} things weren't so; what was said is above"
    );
    Ok(())
}
