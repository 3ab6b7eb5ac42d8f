//! Makes the machine ready: packages, the Python environment, the built programs. Quick when all is there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Refusal, place};

/// A package, what it is for, and a file that shows that it is there on machines that aren't Debian.
#[derive(Clone, Copy)]
pub struct Package {
    pub name: &'static str,
    pub why: &'static str,
    pub shows: &'static str,
}

const LAB: [Package; 6] = [
    Package { name: "awscli", why: "AWS CLI v2, as an unmodified client", shows: "/usr/bin/aws" },
    Package { name: "ca-certificates", why: "the system's trust store", shows: "/usr/sbin/update-ca-certificates" },
    Package { name: "curl", why: "the simplest client", shows: "/usr/bin/curl" },
    Package { name: "iproute2", why: "brings loopback up in the lab", shows: "/usr/bin/ip" },
    Package { name: "python3", why: "runs the Python clients, moto and ClickHouse", shows: "/usr/bin/python3" },
    Package { name: "python3-venv", why: "the lab's own Python environment", shows: "/usr/lib/python3.11/ensurepip" },
];

const BENCH: [Package; 6] = [
    Package { name: "curl", why: "carries the large objects", shows: "/usr/bin/curl" },
    Package { name: "iproute2", why: "brings loopback up in the bench's namespace", shows: "/usr/bin/ip" },
    Package { name: "nginx-light", why: "the upstream, and what is compared with", shows: "/usr/sbin/nginx" },
    Package { name: "openssl", why: "makes the upstream's certificate and signs requests", shows: "/usr/bin/openssl" },
    Package { name: "python3-venv", why: "mitmproxy's own environment", shows: "/usr/lib/python3.11/ensurepip" },
    Package { name: "wrk", why: "the load", shows: "/usr/bin/wrk" },
];

const VM: [Package; 6] = [
    Package { name: "binutils", why: "makes the tests' binary smaller", shows: "/usr/bin/strip" },
    Package { name: "busybox-static", why: "the machines' init", shows: "/bin/busybox" },
    Package { name: "cpio", why: "packs the machines' files", shows: "/usr/bin/cpio" },
    Package {
        name: "debian-archive-keyring",
        why: "the keys of the kernels' archive",
        shows: "/usr/share/keyrings/debian-archive-keyring.gpg",
    },
    Package { name: "qemu-system-x86", why: "the machines", shows: "/usr/bin/qemu-system-x86_64" },
    Package { name: "xz-utils", why: "unpacks kernel modules", shows: "/usr/bin/xz" },
];

/// Debian's compiler comes with its library's source, which rustup's stable toolchain doesn't: the library is compiled, too.
const AARCH64: [Package; 7] = [
    Package { name: "g++-aarch64-linux-gnu", why: "compiles C++ for aarch64", shows: "/usr/bin/aarch64-linux-gnu-g++" },
    Package { name: "gcc-aarch64-linux-gnu", why: "links for aarch64", shows: "/usr/bin/aarch64-linux-gnu-gcc" },
    Package {
        name: "libc6-dev-arm64-cross",
        why: "aarch64's C library",
        shows: "/usr/aarch64-linux-gnu/lib/libc.so.6",
    },
    Package { name: "qemu-system-arm", why: "the machine", shows: "/usr/bin/qemu-system-aarch64" },
    Package { name: "qemu-user-static", why: "runs aarch64's programs", shows: "/usr/bin/qemu-aarch64-static" },
    Package {
        name: "rust-web-src",
        why: "the library's source",
        shows: "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
    },
    Package { name: "rustc-web", why: "a compiler of that version", shows: "/usr/bin/rustc" },
];

const DEBIAN: [Package; 4] = [
    Package { name: "binutils", why: "makes the programs smaller", shows: "/usr/bin/strip" },
    Package { name: "e2fsprogs", why: "makes the machine's disk", shows: "/usr/sbin/mke2fs" },
    Package { name: "mmdebstrap", why: "makes the machine's Debian", shows: "/usr/bin/mmdebstrap" },
    Package { name: "qemu-system-x86", why: "the machine", shows: "/usr/bin/qemu-system-x86_64" },
];

const IMAGE: [Package; 7] = [
    Package { name: "binutils", why: "makes the trial's program smaller", shows: "/usr/bin/strip" },
    Package { name: "dosfstools", why: "makes the EFI system partition", shows: "/usr/sbin/mkfs.vfat" },
    Package { name: "fdisk", why: "partitions the image", shows: "/usr/sbin/sfdisk" },
    Package { name: "mmdebstrap", why: "makes the image's Debian", shows: "/usr/bin/mmdebstrap" },
    Package { name: "mtools", why: "fills the EFI system partition", shows: "/usr/bin/mcopy" },
    Package { name: "ovmf", why: "the machine's UEFI", shows: "/usr/share/OVMF/OVMF_CODE_4M.fd" },
    Package { name: "qemu-system-x86", why: "the machine", shows: "/usr/bin/qemu-system-x86_64" },
];

const OPENCODE: [Package; 1] =
    [Package { name: "npm", why: "installs opencode, the coding agent of the demo", shows: "/usr/bin/npm" }];

/// What a lab needs from the machine.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where `chaperone` and `chaperone-fakes` are.
    pub bin: PathBuf,
    /// The Python environment.
    pub venv: PathBuf,
}

/// Installs what is missing and builds the programs.
pub fn lab() -> Result<Ready> {
    root_user()?;
    let target = place::target()?;
    let folder = target.join("lab");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    // Two labs that start at once must not both install.
    let lock = fs::File::create(folder.join(".setup-lock")).context("making the set-up's lock")?;
    lock.lock().context("waiting for another set-up to end")?;
    packages(&LAB)?;
    let venv = folder.join("venv");
    // The one waits for the network, the other for the processors.
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| python(&venv, "requirements.txt", "clients, moto, ClickHouse"));
        let built = build();
        let clients = clients.join().unwrap_or_else(|_| bail!("BUG: the set-up of Python panicked"));
        built.and(clients)
    })?;
    Ok(Ready { bin: folder, venv })
}

/// Installs what the bench needs, and mitmproxy into `mitmproxy` if it is to be measured.
pub fn bench(mitmproxy: Option<&Path>) -> Result<()> {
    root_user()?;
    packages(&BENCH)?;
    mitmproxy.map_or(Ok(()), |venv| python(venv, "bench-requirements.txt", "mitmproxy"))
}

/// Installs what the virtual machines need.
pub fn vm() -> Result<()> {
    root_user()?;
    packages(&VM)
}

/// Installs what building for aarch64 takes, and trying it.
pub fn aarch64() -> Result<()> {
    root_user()?;
    packages(&AARCH64)
}

/// Installs what the virtual machine with a whole Debian needs.
pub fn debian() -> Result<()> {
    root_user()?;
    packages(&DEBIAN)
}

/// Installs what making an image takes, and trying it.
pub fn image() -> Result<()> {
    root_user()?;
    packages(&IMAGE)
}

/// The Python with boto3 in it.
pub fn lab_python() -> Result<PathBuf> {
    let venv = place::target()?.join("lab/venv");
    packages(&[LAB[4], LAB[5]])?;
    python(&venv, "requirements.txt", "clients, moto, ClickHouse")?;
    Ok(venv.join("bin/python"))
}

/// Installs opencode, a real coding agent, into a folder below the target folder, and returns its program.
pub fn opencode() -> Result<PathBuf> {
    root_user()?;
    let folder = place::target()?.join("lab/opencode");
    let program = || {
        let platforms = ["opencode-linux-x64", "opencode-linux-x64-baseline", "opencode-linux-arm64"];
        let programs = platforms.map(|name| folder.join("node_modules").join(name).join("bin/opencode"));
        // The first needs AVX2, so it is asked whether it starts.
        programs.into_iter().find(|program| {
            Command::new(program).arg("--version").env("HOME", &folder).output().is_ok_and(|it| it.status.success())
        })
    };
    let wanted = place::root().join("xtask/npm/opencode");
    let lock = wanted.join("package-lock.json");
    let same = |name: &str| fs::read(wanted.join(name)).ok() == fs::read(folder.join(name)).ok();
    if same("package-lock.json")
        && let Some(program) = program()
    {
        return Ok(program);
    }
    if Command::new("npm").arg("--version").output().is_err() {
        packages(&OPENCODE)?;
    }
    eprintln!("set-up: opencode, a coding agent, into {}: half a minute and 400 MB, once", folder.display());
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(wanted.join(name), folder.join(name)).with_context(|| format!("copying {}", lock.display()))?;
    }
    run(Command::new("npm")
        .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
        .arg(&folder)
        .stdout(Stdio::null()))?;
    program().context("opencode was installed and doesn't start; is this machine x86-64 or aarch64?")
}

/// An error for whoever isn't root.
pub fn root_user() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(Refusal("namespaces, cgroups, eBPF and packages need root: run this as root, or by `sudo -E`".to_owned()))
}

pub fn is_debian_12() -> bool {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| os.lines().any(|there| there.replace('"', "") == line);
    has("ID=debian") && has("VERSION_ID=12")
}

/// Parts of a set-up run beside one another, and apt runs once at a time.
static APT: Mutex<()> = Mutex::new(());

/// Installs those that are missing.
pub fn packages(wanted: &[Package]) -> Result<()> {
    if !is_debian_12() {
        let missing: Vec<_> = wanted
            .iter()
            .filter(|package| !Path::new(package.shows).exists())
            .map(|package| format!("  {} ({}): {}", package.shows, package.name, package.why))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        bail!(Refusal(format!(
            "this is not Debian 12, so nothing is installed by itself; missing are, by file and Debian's package name:\n{}",
            missing.join("\n")
        )));
    }
    let _alone = APT.lock().unwrap_or_else(PoisonError::into_inner);
    let missing: Vec<_> = wanted.iter().filter(|package| !installed(package.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("set-up: installing {}: {}", package.name, package.why);
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
        run(command.stdout(Stdio::null()))
    };
    apt(&["update"])?;
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    apt(&[&["install", "-y", "--no-install-recommends"], names.as_slice()].concat())
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// The environment with exactly what the file of requirements in `xtask/python` says.
pub fn python(venv: &Path, requirements: &str, what: &str) -> Result<()> {
    let requirements = place::root().join("xtask/python").join(requirements);
    let wanted = fs::read(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let mark = venv.join("requirements.txt");
    if fs::read(&mark).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    eprintln!("set-up: a Python environment in {}: {what}; about a minute, once", venv.display());
    if venv.exists() {
        fs::remove_dir_all(venv).with_context(|| format!("removing {}", venv.display()))?;
    }
    // Debian's own, whatever else is first on the path.
    run(plain_python(&mut Command::new("/usr/bin/python3")).args(["-m", "venv"]).arg(venv))?;
    run(plain_python(&mut Command::new(venv.join("bin/python")))
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "-r"])
        .arg(&requirements))?;
    fs::write(&mark, wanted).with_context(|| format!("writing {}", mark.display()))
}

fn plain_python(command: &mut Command) -> &mut Command {
    command.env_remove("PYTHONPATH").env_remove("PYTHONHOME").env_remove("PYTHONUSERBASE")
}

fn build() -> Result<()> {
    let mut command = place::cargo();
    // Always both: alone, each would be built with other features of what they share, and all of it again.
    command.args(["build", "--locked", "--profile", "lab", "-p", "chaperone", "-p", "chaperone-fakes"]);
    if place::target()?.join("lab/chaperone-fakes").exists() {
        command.arg("--quiet");
    } else {
        // What cargo compiles is shown: it is silent for too long otherwise.
        eprintln!("set-up: building the daemon and the fakes: some minutes, once");
    }
    run(&mut command)
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("starting `{name}`"))?;
    ensure!(status.success(), "`{name}` ended with {status}; what it said is above");
    Ok(())
}
