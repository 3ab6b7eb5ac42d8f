//! `cargo xtask vm-test`: the kernel tests on other kernels, Debian's, each in a virtual machine without acceleration.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{place, setup};

#[derive(Args, Debug)]
pub struct Options {
    /// Debian's kernel of this series; may be given many times.
    #[arg(long = "kernel", value_name = "SERIES", default_values = ["6.1", "6.12"])]
    kernels: Vec<String>,
    /// Seconds that a machine may take.
    #[arg(long, default_value_t = 1800)]
    timeout: u32,
    /// Arguments of the tests' binary, such as a part of a test's name.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Programs that the tests start as agents, and what brings them about.
const PROGRAMS: [&str; 7] =
    ["/bin/bash", "/bin/cat", "/bin/echo", "/bin/false", "/bin/sleep", "/bin/true", "/usr/bin/sha256sum"];
/// Modules that are not built in; without them, connections from before an enrolment can't be found.
const MODULES: [&str; 2] = ["inet_diag", "tcp_diag"];

/// Runs them all; an error if a test fails on any.
pub fn run(options: &Options) -> Result<()> {
    setup::vm()?;
    let folder = place::target()?.join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let tests = tests()?;
    let mut failed = Vec::new();
    for series in &options.kernels {
        let kernel = kernel(&folder, series)?;
        let initramfs = initramfs(&folder, &kernel, &tests, &options.arguments)?;
        let said = boot(&kernel.image, &initramfs, options.timeout)?;
        let log = folder.join(format!("{series}.log"));
        fs::write(&log, &said).with_context(|| format!("writing {}", log.display()))?;
        let line =
            |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_default().trim().to_owned();
        for test in said.lines().filter(|line| line.starts_with("test ") && line.contains(" ... FAILED")) {
            println!("{series}: {}", test.trim());
        }
        let result = line("test result:");
        println!("{}: {result}; all that was said: {}", line("KERNEL"), log.display());
        if !result.starts_with("test result: ok") {
            failed.push(series.as_str());
        }
    }
    ensure!(failed.is_empty(), "the kernel tests failed on {}", failed.join(", "));
    Ok(())
}

/// The kernel tests' binary.
fn tests() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "-p", "chaperone-capture", "--test", "kernel", "--no-run", "--message-format=json"]);
    let output = cargo.current_dir(place::root()).stderr(Stdio::inherit()).output().context("building the tests")?;
    ensure!(output.status.success(), "the kernel tests don't build");
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.context("cargo didn't say where the tests are")
}

struct Kernel {
    image: PathBuf,
    unpacked: PathBuf,
}

/// Debian's newest of that series, fetched and unpacked, not installed.
fn kernel(folder: &Path, series: &str) -> Result<Kernel> {
    let listed = text(Command::new("apt-cache").args(["search", "--names-only", "^linux-image-.*-cloud-amd64$"]))?;
    let wanted = format!("linux-image-{series}.");
    let mut packages: Vec<_> =
        listed.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with(&wanted)).collect();
    packages.sort_by_key(|name| numbers(name));
    let package = packages.pop().with_context(|| {
        format!("apt knows no cloud kernel {series}; run `apt-get update`, or add the Debian release that has it")
    })?;
    let unpacked = folder.join(package);
    if !unpacked.exists() {
        let fetched = folder.join("fetched");
        fs::create_dir_all(&fetched).context("making a folder for packages")?;
        println!("vm-test: fetching {package}");
        text(Command::new("apt-get").args(["download", package]).current_dir(&fetched))?;
        let deb = fs::read_dir(&fetched)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
            })
            .context("apt-get downloaded nothing")?;
        text(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
    }
    let image = find(&unpacked.join("boot"), &|name| name.starts_with("vmlinuz-"))?;
    Ok(Kernel { image, unpacked })
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The tests, what they start, and an init that runs them and switches the machine off.
fn initramfs(folder: &Path, kernel: &Kernel, tests: &Path, arguments: &[String]) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).context("removing the last root")?;
    }
    for name in ["dev", "proc", "sys", "tmp", "bin", "usr/bin"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = Path::new("/bin/busybox");
    fs::copy(busybox, root.join("bin/busybox")).context("copying busybox")?;
    fs::copy(tests, root.join("test")).context("copying the tests")?;
    text(Command::new("strip").arg(root.join("test")))?;
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS.map(Path::new).into_iter().chain([tests]) {
        if program != tests {
            fs::copy(program, below(&root, program)).with_context(|| format!("copying {}", program.display()))?;
        }
        let needs = text(Command::new("ldd").arg(program))?;
        let paths = needs.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(PathBuf::from));
    }
    for library in libraries {
        let to = below(&root, &library);
        fs::create_dir_all(to.parent().context("a library has a folder")?)?;
        fs::copy(&library, to).with_context(|| format!("copying {}", library.display()))?;
    }
    std::os::unix::fs::symlink("bash", root.join("bin/sh"))?;
    let mut load = String::new();
    for module in MODULES {
        let found = find(&kernel.unpacked.join("lib/modules"), &|name| name.starts_with(&format!("{module}.ko")))?;
        let to = root.join(format!("{module}.ko"));
        if found.extension().is_some_and(|extension| extension == "xz") {
            let output = Command::new("xz").arg("-dc").arg(&found).output().context("running xz")?;
            fs::write(&to, output.stdout)?;
        } else {
            fs::copy(&found, to)?;
        }
        load.extend(["/bin/busybox insmod /", module, ".ko\n"]);
    }
    let arguments = arguments.join(" ");
    let init = format!(
        "#!/bin/busybox sh
export PATH=/bin:/usr/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t cgroup2 none /sys/fs/cgroup
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox mount -t securityfs security /sys/kernel/security
{load}/bin/busybox ip link set lo up
echo \"KERNEL $(/bin/busybox uname -r), LSMs $(cat /sys/kernel/security/lsm)\"
/test {arguments} --include-ignored --skip cost --test-threads=1 2>&1
/bin/busybox poweroff -f
"
    );
    let path = root.join("init");
    fs::write(&path, init)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let archive = folder.join("init.cpio.gz");
    let pack = format!("find . | cpio --quiet -o -H newc | gzip -1 > '{}'", archive.display());
    text(Command::new("sh").args(["-c", &pack]).current_dir(&root))?;
    Ok(archive)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn boot(image: &Path, initramfs: &Path, timeout: u32) -> Result<String> {
    let mut qemu = Command::new("timeout");
    qemu.arg(timeout.to_string()).args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    qemu.args(["-m", "1024", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).args(["-append", "console=ttyS0 panic=-1 quiet"]);
    let output = qemu.stdin(Stdio::null()).output().context("running qemu")?;
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    if !output.status.success() && !said.contains("test result:") {
        bail!("the machine didn't end in {timeout} s, or not well: {}", said.lines().last().unwrap_or_default());
    }
    Ok(said)
}

fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<PathBuf> {
    fn look(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let found = if is_folder {
                look(&entry.path(), wanted)
            } else {
                wanted(&entry.file_name().to_string_lossy()).then(|| entry.path())
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
    look(folder, wanted).with_context(|| format!("{} has not what is looked for", folder.display()))
}

/// What a program prints; an error if it fails.
fn text(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {name}"))?;
    ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
