//! Containers of agents trust the CA without their images being changed: what an engine calls before it starts one.
//!
//! As a hook of podman's, which hands the container's configuration through it; as one of CRI-O's, which tells where that
//! is; or in the place of the OCI runtime, for Docker and containerd, which it then becomes. Whatever fails here, the
//! container starts: an agent that doesn't trust the CA is refused nothing but its own calls. The system's log says why.

mod spec;

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixDatagram,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::config::{Config, ConfigError};

/// A container's configuration is smaller by far.
const MAX_SPEC: u64 = 16 << 20;
/// Where runtimes are, whatever the engine's own path is.
const FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];
const RUNTIMES: [&str; 2] = ["runc", "crun"];
/// Options of runtimes that take a word of their own.
const WITH_VALUE: [&str; 6] = ["--log", "--log-format", "--root", "--criu", "--rootless", "--cgroup-manager"];

/// On standard input there is either a container's configuration, which is printed as it is to be, or its state.
pub fn hook(config: &Path) -> anyhow::Result<ExitCode> {
    let mut given = Vec::new();
    io::stdin().take(MAX_SPEC + 1).read_to_end(&mut given).context("reading what the engine says")?;
    if given.len() as u64 > MAX_SPEC {
        bail!(ConfigError(format!("the container's configuration is longer than {MAX_SPEC} bytes")));
    }
    let parsed: Option<Value> = serde_json::from_slice(&given).ok();
    if let Some(bundle) = parsed.as_ref().and_then(|state| state["bundle"].as_str()) {
        let bundle = Path::new(bundle);
        told(read_spec(bundle).and_then(|mut spec| spec::adjust(&mut spec, bundle, config)));
        return Ok(ExitCode::SUCCESS);
    }
    let changed = parsed.and_then(|mut spec| {
        let changed = told(spec::adjust(&mut spec, Path::new("/"), config));
        changed.then(|| serde_json::to_vec(&spec).ok())?
    });
    io::stdout().write_all(changed.as_deref().unwrap_or(&given)).context("handing the container's configuration on")?;
    Ok(ExitCode::SUCCESS)
}

/// Adjusts what a container is made of, if one is to be made, and becomes the runtime.
pub fn runtime(config: &Path, arguments: &[String]) -> anyhow::Result<ExitCode> {
    if let Some(bundle) = bundle(arguments) {
        told(read_spec(&bundle).and_then(|mut spec| {
            let changed = spec::adjust(&mut spec, &bundle, config)?;
            if changed.as_ref().is_some_and(|(changed, _)| *changed) {
                write_spec(&bundle, &spec)?;
            }
            Ok(changed)
        }));
    }
    let configured = Config::read(config).ok().and_then(|config| config.containers.runtime);
    let runtime = match configured {
        Some(runtime) => runtime,
        None => found().context("neither runc nor crun is here: name the OCI runtime by `containers.runtime`")?,
    };
    let error = Command::new(&runtime).args(arguments).exec();
    Err(error).with_context(|| format!("becoming the OCI runtime {}", runtime.display()))
}

/// The folder of the container that is to be made, if one is.
fn bundle(arguments: &[String]) -> Option<PathBuf> {
    let mut words = arguments.iter().map(String::as_str);
    loop {
        let word = words.next()?;
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            if !matches!(word, "create" | "run") {
                return None;
            }
            break;
        }
    }
    while let Some(word) = words.next() {
        if matches!(word, "-b" | "--bundle") {
            return words.next().map(PathBuf::from);
        }
        if let Some(folder) = word.strip_prefix("--bundle=").or_else(|| word.strip_prefix("-b=")) {
            return Some(folder.into());
        }
    }
    env::current_dir().ok()
}

fn found() -> Option<PathBuf> {
    let own = env::current_exe().ok();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).chain(FOLDERS.map(PathBuf::from)).collect();
    let candidates = RUNTIMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let mut real = candidates.filter(|program| program.is_absolute() && fs::canonicalize(program).ok() != own);
    real.find(|program| program.is_file())
}

fn read_spec(bundle: &Path) -> anyhow::Result<Value> {
    let path = bundle.join("config.json");
    let mut text = Vec::new();
    let file = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    file.take(MAX_SPEC).read_to_end(&mut text).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}

/// Whole or not at all, as the one before was.
fn write_spec(bundle: &Path, spec: &Value) -> anyhow::Result<()> {
    let (path, temporary) = (bundle.join("config.json"), bundle.join("config.json.chaperone"));
    let write = || {
        let there = fs::metadata(&path)?;
        fs::write(&temporary, serde_json::to_vec(spec)?)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(there.mode() & 0o777))?;
        std::os::unix::fs::chown(&temporary, Some(there.uid()), Some(there.gid()))?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Whether the configuration is another now. What there is to say goes to the system's log: standard error is the
/// container's own.
fn told(adjusted: anyhow::Result<Option<(bool, Vec<String>)>>) -> bool {
    let (changed, said) = match adjusted {
        Ok(None) => return false,
        Ok(Some((changed, said))) => (changed, said),
        Err(error) => (false, vec![format!("a container may not trust the CA: {error:#}")]),
    };
    if let Ok(log) = UnixDatagram::unbound() {
        for line in said {
            // A daemon's warning, by RFC 3164.
            let line = crate::output::clean(&line);
            let _ = log.send_to(format!("<28>chaperone[{}]: {line}", std::process::id()).as_bytes(), "/dev/log");
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_found_among_a_runtimes_options() {
        for (line, expected) in [
            ("--root /run/docker --log /l --log-format json create --bundle /b --pid-file /p id", Some("/b")),
            ("--systemd-cgroup --log=/l run -b /b id", Some("/b")),
            ("--root create --debug create --bundle=/b create", Some("/b")),
            ("--root /r start --bundle /b id", None),
            ("--root /r delete create", None),
            ("--log create", None),
            ("--version", None),
            ("", None),
        ] {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(bundle(&words).as_deref(), expected.map(Path::new), "{line}");
        }
        assert_eq!(bundle(&["create".to_owned(), "id".to_owned()]), env::current_dir().ok());
    }
}
