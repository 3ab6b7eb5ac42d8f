//! A virtual machine that boots a kernel, runs the tests and switches itself off.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{LOG, Options, find, kernels::Kernel, table::Run, text};

/// Programs that the tests start as agents.
const PROGRAMS: [&str; 7] =
    ["/bin/bash", "/bin/cat", "/bin/echo", "/bin/false", "/bin/sleep", "/bin/true", "/usr/bin/sha256sum"];
/// What QEMU plays.
#[derive(Debug)]
pub struct Hardware {
    qemu: &'static [&'static str],
    /// Where the kernel speaks, and where the tests do: two ports where there are two, so that the kernel doesn't speak in
    /// the middle of a test's line.
    console: &'static str,
    tests: &'static str,
}

pub const X86_64: Hardware = Hardware {
    // With `cmpxchg16b`: without it, kernels from 7.0 on give hooks no storage on sockets (mm/slub.c, `kmalloc_nolock`), and
    // all of an agent's sockets are refused.
    qemu: &["qemu-system-x86_64", "-cpu", "max"],
    console: "ttyS0",
    tests: "ttyS1",
};
/// The cores of AWS's Graviton2. QEMU's `max` computes pointer authentication, which takes most of the time.
pub const AARCH64: Hardware = Hardware {
    qemu: &["qemu-system-aarch64", "-machine", "virt", "-cpu", "neoverse-n1"],
    console: "ttyAMA0",
    tests: "ttyAMA0",
};
/// Modules that are not built in; without them, connections from before an enrolment can't be found.
const MODULES: [&str; 2] = ["inet_diag", "tcp_diag"];

/// Boots it, and gives what the tests said. What the kernel said is in the log beside.
pub fn run(folder: &Path, kernel: &Kernel, base: &Path, options: &Options) -> Result<Run> {
    let initramfs = initramfs(folder, kernel, base, options)?;
    let log = |end: &str| folder.join(format!("{}{end}", kernel.series));
    let (console, tests) = (log(".console.log"), log(LOG));
    let mut qemu = Command::new("timeout");
    let hardware = options.hardware();
    qemu.arg(options.timeout.to_string()).args(hardware.qemu).args(["-accel", "tcg"]);
    // One processor: with several, which are threads of QEMU's, newer kernels die in code that they have just patched.
    qemu.args(["-m", "1024", "-smp", "1", "-nodefaults", "-display", "none", "-no-reboot"]);
    let ports = if hardware.console == hardware.tests { &[&tests][..] } else { &[&console, &tests] };
    for file in ports {
        qemu.arg("-serial").arg(format!("file:{}", file.display()));
    }
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&initramfs);
    // Of a machine that gets little of the processors, the kernel thinks that its timer is broken.
    qemu.arg("-append").arg(format!("console={} panic=-1 quiet no_timer_check", hardware.console));
    let status = qemu.stdin(Stdio::null()).stdout(Stdio::null()).status().context("running qemu")?;
    let said = fs::read(&tests).with_context(|| format!("reading {}", tests.display()))?;
    let place = format!("its console: {}, its tests: {}", console.display(), tests.display());
    let run = Run::of_log(&String::from_utf8_lossy(&said));
    let run = run.with_context(|| format!("the machine didn't boot ({status}); {place}"))?;
    ensure!(run.has_ended(), "the tests didn't come to an end in {} s ({status}); {place}", options.timeout);
    Ok(run)
}

/// What is the same for all kernels: the tests, and what they start.
pub fn base(folder: &Path, tests: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).context("removing the last root")?;
    }
    for name in ["dev", "proc", "sys", "tmp", "bin", "usr/bin"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("copying busybox")?;
    fs::copy(tests, root.join("test")).context("copying the tests")?;
    text(Command::new("strip").arg(root.join("test")))?;
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS.map(Path::new).into_iter().chain([tests]) {
        if program != tests {
            fs::copy(program, below(&root, program)).with_context(|| format!("copying {}", program.display()))?;
        }
        let needs = text(Command::new("ldd").arg(program))?;
        libraries.extend(needs.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    for library in libraries {
        let to = below(&root, &library);
        fs::create_dir_all(to.parent().context("a library has a folder")?)?;
        fs::copy(&library, to).with_context(|| format!("copying {}", library.display()))?;
    }
    std::os::unix::fs::symlink("bash", root.join("bin/sh"))?;
    let archive = folder.join("base.cpio");
    pack(&root, &archive)?;
    Ok(archive)
}

/// The base, and on top of it a kernel's modules and an init that runs the tests and switches the machine off: the kernel
/// unpacks one archive after the other (Documentation/driver-api/early-userspace/buffer-format.rst).
fn initramfs(folder: &Path, kernel: &Kernel, base: &Path, options: &Options) -> Result<PathBuf> {
    let own = folder.join(format!("root-{}", kernel.series));
    if own.exists() {
        fs::remove_dir_all(&own).context("removing the last modules")?;
    }
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    let mut load = String::new();
    for module in MODULES {
        let found = find(&kernel.unpacked, &|name| name.starts_with(&format!("{module}.ko")))
            .with_context(|| format!("the kernel {} has no module {module}", kernel.series))?;
        let to = own.join(format!("{module}.ko"));
        if found.extension().is_some_and(|extension| extension == "xz") {
            let output = Command::new("xz").arg("-dc").arg(&found).output().context("running xz")?;
            ensure!(output.status.success(), "unpacking {}", found.display());
            fs::write(&to, output.stdout)?;
        } else {
            fs::copy(&found, to)?;
        }
        load.extend(["/bin/busybox insmod /", module, ".ko\n"]);
    }
    let (arguments, count, port) = (options.arguments.join(" "), options.count, options.hardware().tests);
    let init = format!(
        "#!/bin/busybox sh
export PATH=/bin:/usr/bin CHAPERONE_TEST_COUNT={count}
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t cgroup2 none /sys/fs/cgroup
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox mount -t securityfs security /sys/kernel/security
{load}/bin/busybox ip link set lo up
exec > /dev/{port} 2>&1
echo \"KERNEL $(/bin/busybox uname -r) $(/bin/busybox uname -v)\"
echo \"LSMs $(cat /sys/kernel/security/lsm)\"
/test {arguments} --include-ignored --skip cost --test-threads=1
/bin/busybox poweroff -f
"
    );
    let path = own.join("init");
    fs::write(&path, init)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let archive = folder.join(format!("{}.cpio", kernel.series));
    pack(&own, &archive)?;
    let mut both = fs::read(base).with_context(|| format!("reading {}", base.display()))?;
    both.extend(fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?);
    fs::write(&archive, both).with_context(|| format!("writing {}", archive.display()))?;
    Ok(archive)
}

/// As [`base`], of another architecture's programs, which are unpacked in `root`.
pub fn foreign_base(folder: &Path, root: &Path, tests: &Path, strip: &str) -> Result<PathBuf> {
    for name in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["bin", "lib", "sbin"] {
        let link = root.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(format!("usr/{name}"), link)?;
        }
    }
    let shell = root.join("bin/sh");
    if !shell.exists() {
        std::os::unix::fs::symlink("bash", shell)?;
    }
    text(Command::new(strip).arg("-o").arg(root.join("test")).arg(tests))?;
    let archive = folder.join("base.cpio");
    pack(root, &archive)?;
    Ok(archive)
}

fn pack(root: &Path, archive: &Path) -> Result<()> {
    let pack = format!("find . | cpio --quiet -o -H newc > '{}'", archive.display());
    text(Command::new("sh").args(["-c", &pack]).current_dir(root)).map(|_| ())
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
