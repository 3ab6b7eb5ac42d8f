//! `cargo xtask bpf`: builds the kernel side, reproducibly, or checks that the committed object is what its sources make.
//!
//! The kernel side needs a compiler with the source of `core`. rustup's nightly has one if its `rust-src` is installed;
//! Debian's `rustc-web` always has. What is missing is installed on Debian, and named elsewhere.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

const TARGET: &str = "bpfel-unknown-none";
const BPF_LINKER: &str = "0.13.0";
/// The LLVM that the linker is built with. It must be at least the compiler's.
const LLVM: u32 = 22;
/// What Debian has of it all, `rustc-web` and `rust-web-src` from its security archive.
const DEBIAN_PACKAGES: [&str; 6] =
    ["rustc-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];

/// `ebpf/chaperone.bpf.toml`: what the committed object was made of, and with what.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// SHA-256 of `ebpf/chaperone.bpf.o`.
    object_sha256: String,
    /// SHA-256 over the names, lengths and contents of the sources and manifests.
    sources_sha256: String,
    toolchain: Versions,
}

/// What another machine must have to get the same bytes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versions {
    bpf_linker: String,
    cargo: String,
    llvm: String,
    rustc: String,
}

/// Builds `ebpf/chaperone.bpf.o` and describes it in `ebpf/chaperone.bpf.toml`. With `check`, changes nothing: builds
/// with the toolchain that the description names, and fails unless the bytes are those that are committed.
pub fn build(root: &Path, check: bool) -> Result<()> {
    let root = &root.canonicalize().with_context(|| format!("looking for {}", root.display()))?;
    let object = root.join("ebpf/chaperone.bpf.o");
    let description = root.join("ebpf/chaperone.bpf.toml");
    let sources_sha256 = sources_digest(root)?;
    if !check {
        let toolchain = Toolchain::find(&target_folder(root), None)?;
        let bytes = compile(root, &toolchain)?;
        let manifest = Manifest { object_sha256: sha256(&bytes)?, sources_sha256, toolchain: toolchain.versions };
        write(&object, &bytes)?;
        write(&description, describe(&manifest)?.as_bytes())?;
        println!("bpf: {} bytes in {}", bytes.len(), object.display());
        return Ok(());
    }

    let text = fs::read_to_string(&description)
        .with_context(|| format!("reading {}; make it by `cargo xtask bpf`", description.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| format!("parsing {}", description.display()))?;
    let committed = fs::read(&object).with_context(|| format!("reading {}", object.display()))?;
    ensure!(
        sha256(&committed)? == manifest.object_sha256,
        "{} is not the object that {} describes; run `cargo xtask bpf` and commit both",
        object.display(),
        description.display()
    );
    ensure!(
        sources_sha256 == manifest.sources_sha256,
        "the sources in ebpf/ changed after {} was built; run `cargo xtask bpf` and commit what it makes",
        object.display()
    );
    let toolchain = Toolchain::find(&target_folder(root), Some(&manifest.toolchain))?;
    let bytes = compile(root, &toolchain)?;
    if bytes != committed {
        let rebuilt = target_folder(root).join("bpf/rebuilt.bpf.o");
        write(&rebuilt, &bytes)?;
        let at = bytes.iter().zip(&committed).position(|(a, b)| a != b).unwrap_or(bytes.len().min(committed.len()));
        bail!(
            "{} differs from what its sources make, first at byte {at} ({} bytes, rebuilt {}); compare it with {}, and \
             don't trust it until the difference is understood",
            object.display(),
            committed.len(),
            bytes.len(),
            rebuilt.display()
        );
    }
    println!("bpf: {} is what its sources make, byte for byte", object.display());
    Ok(())
}

/// A compiler with the source of `core`, and a linker that fits.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    linker: PathBuf,
    objcopy: PathBuf,
    versions: Versions,
}

impl Toolchain {
    /// Finds one, or installs it. With `wanted`, it must be of those versions.
    fn find(target: &Path, wanted: Option<&Versions>) -> Result<Self> {
        let compilers = || [nightly(), debian()].into_iter().flatten();
        let suits = |compiler: &Compiler| wanted.is_none_or(|wanted| compiler.version == wanted.rustc);
        let mut found = compilers().find(suits);
        let objcopy = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin/llvm-objcopy"));
        if found.is_none() || !objcopy.exists() {
            install_packages(wanted)?;
            found = compilers().find(suits);
        }
        let Some(compiler) = found else {
            let wanted = wanted.map_or("a rustc with rust-src", |wanted| wanted.rustc.as_str());
            let have: Vec<_> = compilers().map(|compiler| compiler.version).collect();
            bail!(
                "the object was built with {wanted}; here is only {}: install that version, or build the object anew by \
                 `cargo xtask bpf` and commit it",
                if have.is_empty() { "none that has its library's source".to_owned() } else { have.join(", ") }
            );
        };
        ensure!(
            compiler.llvm_major <= LLVM,
            "{} uses LLVM {}, newer than bpf-linker's {LLVM}; remove that nightly's rust-src to have Debian's compiler used",
            compiler.version,
            compiler.llvm_major
        );
        let linker = linker(target)?;
        let versions = Versions {
            bpf_linker: format!("{BPF_LINKER} with LLVM {LLVM}"),
            cargo: first_line(Command::new(&compiler.cargo).arg("--version"))?,
            llvm: first_line(Command::new(&objcopy).arg("--version").stderr(Stdio::null()))
                .map(|_| compiler.llvm.clone())?,
            rustc: compiler.version,
        };
        if let Some(wanted) = wanted
            && *wanted != versions
        {
            println!("bpf: note: the object was built with {wanted:?}, and is compared with one by {versions:?}");
        }
        println!("bpf: building with {} (LLVM {}), {}", versions.rustc, versions.llvm, versions.cargo);
        Ok(Self { cargo: compiler.cargo, rustc: compiler.rustc, sysroot: compiler.sysroot, linker, objcopy, versions })
    }
}

struct Compiler {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    version: String,
    llvm: String,
    llvm_major: u32,
}

impl Compiler {
    /// `None` if it isn't there or lacks the library's source.
    fn at(rustc: &Path, cargo: &Path) -> Option<Self> {
        let sysroot = PathBuf::from(first_line(Command::new(rustc).args(["--print", "sysroot"])).ok()?);
        if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
            return None;
        }
        let verbose = output(Command::new(rustc).arg("-vV")).ok()?;
        let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.to_owned();
        Some(Self {
            cargo: cargo.to_owned(),
            rustc: rustc.to_owned(),
            sysroot,
            version: verbose.lines().next()?.to_owned(),
            llvm_major: llvm.split('.').next()?.parse().ok()?,
            llvm,
        })
    }
}

fn nightly() -> Option<Compiler> {
    let sysroot = first_line(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"])).ok()?;
    let bin = Path::new(&sysroot).join("bin");
    Compiler::at(&bin.join("rustc"), &bin.join("cargo"))
}

/// Debian's compiler comes without cargo: rustup's drives it.
fn debian() -> Option<Compiler> {
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    Compiler::at(Path::new("/usr/bin/rustc"), &cargo)
}

fn install_packages(wanted: Option<&Versions>) -> Result<()> {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let packages = DEBIAN_PACKAGES.join(" ");
    if !os.lines().any(|line| line == "ID=debian") {
        bail!(
            "building the kernel side needs {} and LLVM {LLVM} with its headers (llvm-config, llvm-objcopy below \
             /usr/lib/llvm-{LLVM}); on Debian 12 that is `apt-get install {packages}`",
            wanted.map_or("rustup's nightly with rust-src", |wanted| wanted.rustc.as_str()),
        );
    }
    println!("bpf: installing {packages}: a compiler with the source of core, and the LLVM that bpf-linker needs");
    run(apt().arg("update").arg("-qq"))?;
    run(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(DEBIAN_PACKAGES))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The linker of the right version from the path, or else from `target/tools`, built there if need be.
fn linker(target: &Path) -> Result<PathBuf> {
    let tools = target.join("tools");
    let own = tools.join("bin/bpf-linker");
    let fits = |path: &Path| {
        first_line(Command::new(path).arg("--version"))
            .is_ok_and(|version| version == format!("bpf-linker {BPF_LINKER}"))
    };
    let on_path = env::var_os("PATH").unwrap_or_default();
    let candidates = env::split_paths(&on_path).map(|folder| folder.join("bpf-linker"));
    if let Some(linker) = std::iter::once(own.clone()).chain(candidates).find(|path| path.exists() && fits(path)) {
        return Ok(linker);
    }
    println!("bpf: installing bpf-linker {BPF_LINKER} into {}: about two minutes, once", tools.display());
    let llvm = format!("/usr/lib/llvm-{LLVM}");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    clean(&mut command)
        .current_dir("/")
        .args(["install", "--quiet", "--locked", "bpf-linker", "--version", BPF_LINKER, "--no-default-features"])
        .args(["--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(&tools)
        // Its own search for LLVM ends at an empty /usr/lib64.
        .env("LLVM_PREFIX", &llvm)
        .env("LLVM_SYS_221_PREFIX", &llvm)
        .env("CARGO_TARGET_DIR", target.join("tools/build"));
    run(&mut command)?;
    Ok(own)
}

/// Compiles, and takes out what only debuggers read: it is eight times the rest.
fn compile(root: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let target = target_folder(root).join("bpf");
    let cargo = |subcommand: &str| {
        let mut command = Command::new(&toolchain.cargo);
        clean(&mut command)
            // Away from the workspace: cargo takes its configuration from the folders above the current one.
            .current_dir("/")
            .arg(subcommand)
            .arg("--quiet")
            .arg("--locked")
            .arg("--manifest-path")
            .arg(root.join("ebpf/Cargo.toml"))
            .env("RUSTC", &toolchain.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &target);
        command
    };
    // First, so that the folders of the registry are there to be remapped.
    run(&mut cargo("fetch"))?;

    let mut flags: Vec<OsString> = ["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Clink-arg=--btf"]
        .into_iter()
        .map(OsString::from)
        .collect();
    flags.push(joined("-Clinker=", &toolchain.linker, ""));
    // rustc takes the last that matches, so the nearer folders come after those that hold them.
    for (folder, name) in remapped(root, &target, &toolchain.sysroot)? {
        flags.push(joined("--remap-path-prefix=", &folder, &format!("={name}")));
    }
    run(cargo("build")
        .args(["--release", "-Zbuild-std=core", "--target", TARGET])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f"))))?;

    let linked = target.join(TARGET).join("release/chaperone");
    let stripped = target.join("chaperone.bpf.o");
    run(Command::new(&toolchain.objcopy).arg("--strip-debug").arg(&linked).arg(&stripped))?;
    fs::read(&stripped).with_context(|| format!("reading {}", stripped.display()))
}

/// Folders that differ between machines and the names that stand for them in the object.
fn remapped(root: &Path, target: &Path, sysroot: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = env::var_os("CARGO_HOME").map_or_else(
        || env::home_dir().map(|home| home.join(".cargo")).context("neither CARGO_HOME nor HOME is set"),
        |home| Ok(PathBuf::from(home)),
    )?;
    let mut folders = vec![
        (root.to_owned(), "/chaperone"),
        (target.to_owned(), "/target"),
        (sysroot.join("lib/rustlib/src/rust"), "/rust"),
    ];
    let registries = home.join("registry/src");
    if let Ok(entries) = fs::read_dir(&registries) {
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {}", registries.display()))?;
            folders.push((entry.path(), "/registry"));
        }
    }
    Ok(folders)
}

fn joined(before: &str, path: &Path, after: &str) -> OsString {
    let mut text = OsString::from(before);
    text.push(path);
    text.push(after);
    text
}

/// Takes away what would change the object from the environment; registries and proxies stay.
fn clean(command: &mut Command) -> &mut Command {
    const PREFIXES: [&str; 6] =
        ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_", "CARGO_PKG_", "RUSTC"];
    const NAMES: [&str; 6] = [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "RUSTFLAGS",
        "SOURCE_DATE_EPOCH",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if NAMES.contains(&text.as_ref()) || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

fn target_folder(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// Everything that the object is made of and that is in the repository.
fn sources_digest(root: &Path) -> Result<String> {
    let mut files: Vec<_> =
        ["ebpf/Cargo.lock", "ebpf/Cargo.toml", "ebpf/abi/Cargo.toml"].into_iter().map(PathBuf::from).collect();
    for folder in ["ebpf/abi/src", "ebpf/src"] {
        let entries = fs::read_dir(root.join(folder)).with_context(|| format!("listing {folder}"))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {folder}"))?;
            ensure!(
                entry.path().extension() == Some(OsStr::new("rs")),
                "{} is no Rust source; nothing else belongs into {folder}",
                entry.path().display()
            );
            files.push(Path::new(folder).join(entry.file_name()));
        }
    }
    files.sort();
    let mut text = Vec::new();
    for file in files {
        let content = fs::read(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        text.extend_from_slice(format!("{} {}\n", file.display(), content.len()).as_bytes());
        text.extend_from_slice(&content);
    }
    sha256(&text)
}

fn describe(manifest: &Manifest) -> Result<String> {
    let body = toml::to_string(manifest).context("BUG: the description can't be written as TOML")?;
    Ok(format!("# Written by `cargo xtask bpf`; `cargo xtask test` builds again and compares.\n{body}"))
}

/// By coreutils' sha256sum, which spares this crate a cryptography library.
fn sha256(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting sha256sum (coreutils)")?;
    let mut input = child.stdin.take().context("BUG: sha256sum has no input")?;
    input.write_all(bytes).context("writing to sha256sum")?;
    drop(input);
    let output = child.wait_with_output().context("waiting for sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split(' ').next() {
        Some(digest) if output.status.success() && digest.len() == 64 => Ok(digest.to_owned()),
        _ => bail!("sha256sum ended with {}", output.status),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", name(command)))?;
    ensure!(status.success(), "{} ended with {status}", name(command));
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output().with_context(|| format!("starting {}", name(command)))?;
    ensure!(output.status.success(), "{} ended with {}", name(command), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn first_line(command: &mut Command) -> Result<String> {
    Ok(output(command)?.lines().next().unwrap_or_default().trim().to_owned())
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    format!("`{}`", words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b"").unwrap(), empty);
    }

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let versions =
            Versions { bpf_linker: "1".to_owned(), cargo: "2".to_owned(), llvm: "3".to_owned(), rustc: "4".to_owned() };
        let manifest = Manifest { object_sha256: "a".to_owned(), sources_sha256: "b".to_owned(), toolchain: versions };
        assert_eq!(toml::from_str::<Manifest>(&describe(&manifest).unwrap()).unwrap(), manifest);
        assert!(toml::from_str::<Manifest>("surprise = 1").is_err());
    }
}
