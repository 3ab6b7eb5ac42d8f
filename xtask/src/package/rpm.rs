//! The `.rpm`, by rpmbuild.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Release,
    deb::{ACTIONS, DESCRIPTION, SUMMARY},
    said,
    stage::{CONFIGURATION, Tree},
};

/// Nothing that says where or when it was built, and nothing done to the files.
const MACROS: [(&str, &str); 10] = [
    ("_binary_payload", "w9.zstdio"),
    ("_build_id_links", "none"),
    ("_buildhost", "reproducible"),
    ("__brp_strip", "%{nil}"),
    ("__os_install_post", "%{nil}"),
    ("clamp_mtime_to_source_date_epoch", "1"),
    ("debug_package", "%{nil}"),
    ("source_date_epoch_from_changelog", "0"),
    ("use_source_date_epoch_as_buildtime", "1"),
    ("_build_name_fmt", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"),
];

/// Makes the package and that of its symbols.
pub fn make(release: &Release, tree: &Tree, work: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let Release { version, arch, epoch, .. } = release;
    let folder = work.join("rpm");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let spec = folder.join("chaperone.spec");
    fs::write(&spec, text(release, tree)?).with_context(|| format!("writing {}", spec.display()))?;
    let mut tool = Command::new("rpmbuild");
    tool.arg("-bb").args(["--target", &format!("{arch}-linux")]);
    tool.arg("--define").arg(format!("_topdir {}", folder.display()));
    tool.arg("--define").arg(format!("_rpmdir {}", out.display()));
    for (name, value) in MACROS {
        tool.arg("--define").arg(format!("{name} {value}"));
    }
    let output =
        tool.arg(&spec).env("SOURCE_DATE_EPOCH", epoch).stdin(Stdio::null()).output().context("starting `rpmbuild`")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`rpmbuild` ended with {}: {}", output.status, why.trim());
    Ok(["chaperone", "chaperone-debuginfo"].map(|name| out.join(format!("{name}-{version}-1.{arch}.rpm"))).into())
}

fn text(release: &Release, tree: &Tree) -> Result<String> {
    let list = |tree: &Path, configuration: bool| -> Result<String> {
        let files = said(Command::new("find").arg(tree).args(["-type", "f", "-printf", "/%P\\n"]))?;
        let mut files: Vec<_> = files.lines().collect();
        files.sort_unstable();
        let mut lines = String::new();
        for file in files {
            let kind = match file.trim_start_matches('/') {
                name if configuration && CONFIGURATION.contains(&name) => "%config(noreplace) ",
                name if name.starts_with("usr/share/doc/") => "%doc ",
                _ => "",
            };
            // A string takes everything.
            let _ = writeln!(lines, "{kind}{file}");
        }
        Ok(lines)
    };
    // In scriptlets, too, `%` begins a macro.
    let actions = ACTIONS.replace('%', "%%");
    Ok(format!(
        "Name: chaperone\nVersion: {version}\nRelease: 1\nSummary: {SUMMARY}\nLicense: Apache-2.0 OR MIT\nURL: {url}\n\
         AutoReqProv: no\nRequires: glibc >= {glibc}, libgcc\nRequires(post): /bin/sh\nRequires(preun): /bin/sh\n\
         Requires(postun): /bin/sh\n\n%description\n{DESCRIPTION}\n\n\
         %package debuginfo\nSummary: debug symbols of chaperone\nAutoReqProv: no\nRequires: chaperone = {version}\n\n\
         %description debuginfo\nFor debuggers, and for names in backtraces.\n\n\
         %install\ncp -a {files}/. {symbols}/. %{{buildroot}}/\n\n\
         %post\n{actions}\nif [ \"$1\" = 1 ]; then installed new; else installed again; fi\n\n\
         %preun\n{actions}\nif [ \"$1\" = 0 ]; then removing; fi\n\n\
         %postun\n{actions}\nif [ \"$1\" = 0 ]; then removed; fi\n\n\
         %files\n%defattr(-,root,root,-)\n{installed}%dir /etc/chaperone\n%dir /etc/chaperone/policies\n\n\
         %files debuginfo\n%defattr(-,root,root,-)\n{debug}",
        version = release.version,
        url = env!("CARGO_PKG_REPOSITORY"),
        glibc = tree.glibc,
        files = tree.files.display(),
        symbols = tree.symbols.display(),
        installed = list(&tree.files, true)?,
        debug = list(&tree.symbols, false)?,
    ))
}
