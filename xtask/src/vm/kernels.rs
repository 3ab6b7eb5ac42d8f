//! Debian's kernels, those of other releases too: fetched by a private state of apt's, so that the machine's own sources
//! stay as they are, and unpacked, not installed. Of another architecture, the programs that the machines need, too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{find, text};

/// The releases that have a series; the newest kernels are in backports.
const RELEASES: [(&str, &str); 3] = [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie")];
const BACKPORTS: &str = "trixie-backports";
/// Instead of a series: the newest kernel that there is.
pub const NEWEST: &str = "newest";
/// Those of them that get their newest kernels from the security archive.
const SECURED: [&str; 2] = ["bookworm", "trixie"];
/// What Debian's archive is signed with, all its releases.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel to boot.
pub struct Kernel {
    /// As it was asked for, such as `6.1`.
    pub series: String,
    pub image: PathBuf,
    /// Where its modules are, somewhere below.
    pub unpacked: PathBuf,
}

/// Of Debian's architecture `arch`: the newest of each series; with `update`, also if there is one already.
pub fn fetch(folder: &Path, arch: &'static str, series: &[String], update: bool) -> Result<Vec<Kernel>> {
    let mut apt = None;
    let mut kernels = Vec::new();
    for one in series {
        let place = folder.join("kernels").join(one);
        if update || !place.join("complete").exists() {
            if apt.is_none() {
                apt = Some(Apt::make(folder, arch, series)?);
            }
            apt.as_ref().context("BUG: it was made")?.unpack(one, &place)?;
        }
        let image = find(&place, &|name| name == "vmlinuz" || name.starts_with("vmlinuz-"));
        let image = image.with_context(|| format!("{} has no kernel image", place.display()))?;
        kernels.push(Kernel { series: one.clone(), image, unpacked: place });
    }
    Ok(kernels)
}

/// The numbers in a version, to order by.
pub fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Unpacks packages there, of the release that has the kernels of that series, which needn't be the machine's.
pub fn programs(folder: &Path, arch: &'static str, series: &str, packages: &[&str], place: &Path) -> Result<()> {
    let apt = Apt::make(folder, arch, &[series.to_owned()])?;
    packages.iter().try_for_each(|package| apt.get(package, place))
}

/// A state of apt's of its own.
struct Apt {
    folder: PathBuf,
    arch: &'static str,
}

impl Apt {
    fn make(folder: &Path, arch: &'static str, series: &[String]) -> Result<Self> {
        let apt = Self { folder: folder.join("apt"), arch };
        for name in ["state/lists/partial", "cache/archives/partial", "fetched"] {
            fs::create_dir_all(apt.folder.join(name)).context("making a state for apt")?;
        }
        let mut releases: Vec<_> = series.iter().map(|series| release(series)).collect();
        releases.sort_unstable();
        releases.dedup();
        let secured: Vec<_> = releases.iter().filter(|release| SECURED.contains(release)).collect();
        let secured: Vec<_> = secured.iter().map(|release| format!("{release}-security")).collect();
        let (main, security) = mirrors()?;
        let mut stanzas = stanza(&main, &releases.join(" "), arch);
        if let Some(security) = security.filter(|_| !secured.is_empty()) {
            stanzas.push('\n');
            stanzas.push_str(&stanza(&security, &secured.join(" "), arch));
        }
        let sources = apt.folder.join("debian.sources");
        fs::write(&sources, stanzas).with_context(|| format!("writing {}", sources.display()))?;
        // Whatever else the machine's configuration says, such as a proxy, holds here too.
        let at = |name: &str| apt.folder.join(name).display().to_string();
        let configuration = [
            ("Dir::State", at("state")),
            ("Dir::State::status", "/dev/null".to_owned()),
            ("Dir::Cache", at("cache")),
            ("Dir::Etc::sourcelist", sources.display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::Etc::preferences", "/dev/null".to_owned()),
            ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
            ("APT::Architecture", arch.to_owned()),
            ("APT::Architectures", arch.to_owned()),
            // The target folder is root's.
            ("APT::Sandbox::User", "root".to_owned()),
        ];
        let lines: Vec<_> = configuration.iter().map(|(name, value)| format!("{name} \"{value}\";\n")).collect();
        fs::write(apt.folder.join("apt.conf"), lines.concat()).context("writing apt's configuration")?;
        eprintln!("vm-test: asking for the kernels of {}", releases.join(", "));
        text(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).current_dir(self.folder.join("fetched"));
        command
    }

    /// Unpacks the newest kernel of a series there.
    fn unpack(&self, series: &str, place: &Path) -> Result<()> {
        let names = format!("^linux-.*-cloud-{}$", self.arch);
        let listed = text(self.command("apt-cache").args(["search", "--names-only", &names]))?;
        let names: Vec<_> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
        let wanted = if series == NEWEST { String::new() } else { format!("{series}.") };
        // From 7.0 on, `linux-image-*` is empty: image and modules are packages of their own.
        let versions = names.iter().filter_map(|name| {
            let version = name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-"))?;
            // Others are names of whichever is current.
            (version.starts_with(&wanted) && version.starts_with(|c: char| c.is_ascii_digit())).then_some(version)
        });
        let version = versions.max_by_key(|version| numbers(version)).with_context(|| {
            format!(
                "Debian's {} has no cloud kernel {series} any more: see what it has, and name that",
                release(series)
            )
        })?;
        let parts: Vec<_> = ["linux-binary-", "linux-modules-"].iter().map(|part| format!("{part}{version}")).collect();
        let packages: Vec<_> = if names.contains(&parts[0].as_str()) {
            parts.into_iter().filter(|part| names.contains(&part.as_str())).collect()
        } else {
            vec![format!("linux-image-{version}")]
        };
        eprintln!("vm-test: fetching {}", packages.join(", "));
        if place.exists() {
            fs::remove_dir_all(place).with_context(|| format!("removing {}", place.display()))?;
        }
        fs::create_dir_all(place).with_context(|| format!("making {}", place.display()))?;
        packages.iter().try_for_each(|package| self.get(package, place))?;
        fs::write(place.join("complete"), "").context("marking the kernel as unpacked")
    }

    fn get(&self, package: &str, place: &Path) -> Result<()> {
        text(self.command("apt-get").args(["-qq", "download", package]))?;
        let start = format!("{package}_");
        let deb = find(&self.folder.join("fetched"), &|name| name.starts_with(&start));
        let deb = deb.with_context(|| format!("`apt-get download {package}` left nothing"))?;
        text(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(place))?;
        fs::remove_file(&deb).with_context(|| format!("removing {}", deb.display()))
    }
}

fn release(series: &str) -> &'static str {
    RELEASES.iter().find(|(has, _)| *has == series).map_or(BACKPORTS, |(_, release)| *release)
}

/// As sources.list(5) has it.
fn stanza(uri: &str, suites: &str, arch: &str) -> String {
    format!(
        "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nArchitectures: {arch}\nTargets: Packages\nSigned-By: \
         {KEYRING}\n"
    )
}

/// Where the machine itself gets Debian from, and its security updates.
pub fn mirrors() -> Result<(String, Option<String>)> {
    let os = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let codename = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    let uris = text(Command::new("apt-get").args(["update", "--print-uris"]))?;
    let of = |suite: &str| {
        let index = format!("/dists/{suite}/InRelease'");
        uris.lines().find_map(|line| {
            let uri = line.split(' ').next()?.strip_prefix('\'')?;
            uri.strip_suffix(&index).map(str::to_owned)
        })
    };
    let main = of(codename).with_context(|| {
        format!("apt's sources name no mirror of Debian's {codename}, which kernels could be fetched from")
    })?;
    ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: install debian-archive-keyring");
    Ok((main, of(&format!("{codename}-security"))))
}
