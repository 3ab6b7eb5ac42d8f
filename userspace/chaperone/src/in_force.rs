//! The configuration that was in force last, kept beside the CA. After a boot the kernel knows of no agent: a daemon that
//! can't start then, for a mistake in its configuration or a full disk, has the hooks refuse those of before all the same.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use chaperone_capture::{Capture, CaptureConfig, CaptureError};

use crate::{
    config::{Config, Paths},
    daemon, enrolment,
};

const FILE: &str = "in-force.toml";

/// Keeps it, whole or not at all.
pub fn remember(config: &Config) -> io::Result<()> {
    let path = config.paths.state.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|before| before == config.text()) {
        return Ok(());
    }
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(config.text().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)
}

/// The hooks were taken off on purpose: nobody is to be refused any more.
pub fn forget(config: &Config) -> io::Result<()> {
    match fs::remove_file(config.paths.state.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// For a daemon that failed before its agents were enrolled: has the hooks refuse those that were in force before. Says what
/// it did; who calls has an error of its own to tell.
pub fn hold(path: &Path) {
    let file = state(path).join(FILE);
    // Nothing was ever in force, or it was taken off. Where it can't be looked at, this isn't root.
    if !file.exists() {
        return;
    }
    match hold_by(&file) {
        Ok(()) => tracing::warn!(
            by = %file.display(),
            "the daemon can't start: until it does, the hooks refuse the agents of the configuration that was in force last"
        ),
        // It serves them.
        Err(error) if matches!(error.downcast_ref(), Some(CaptureError::AlreadyRunning { .. })) => {}
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            by = %file.display(),
            "the daemon can't start, and the agents of the configuration that was in force last can't be refused either: \
             unless the hooks are still on, what they do now goes unseen"
        ),
    }
}

fn hold_by(file: &Path) -> anyhow::Result<()> {
    let config = Config::read(file)?;
    let agents = config.agents()?;
    let capture = CaptureConfig {
        bpffs: config.paths.bpffs.clone(),
        cgroup_root: None,
        lsm: config.capture.lsm.into(),
        mask: std::sync::Arc::new(config.mask()?),
    };
    let capture = Capture::attach(&capture)?;
    daemon::exempt_self(&capture)?;
    enrolment::enroll(&capture, &config, &agents).context("enrolling them")
}

/// The daemon's own folder, as well as that can be told of a configuration that is wrong, or can't be read.
fn state(path: &Path) -> PathBuf {
    let text = fs::read_to_string(path).unwrap_or_default();
    let said = match toml::from_str::<toml::Table>(&text) {
        Ok(table) => {
            let state = table.get("paths").and_then(|paths| paths.get("state"));
            state.and_then(|state| state.as_str()).map(PathBuf::from)
        }
        // The line may be right though another isn't.
        Err(_) => text.lines().find_map(|line| {
            let line: toml::Table = toml::from_str(line).ok()?;
            line.get("state")?.as_str().map(PathBuf::from)
        }),
    };
    // systemd's StateDirectory=.
    let systemd = || std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    said.or_else(systemd).unwrap_or_else(|| Paths::default().state)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_kept_for_root_alone_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let text = format!(
            "[[agents]]\nname = \"coder\"\ncgroups = [\"/agents/*\"]\n[paths]\nstate = \"{}\"\n",
            folder.path().display()
        );
        fs::write(&path, &text).unwrap();
        let config = Config::read(&path).unwrap();
        remember(&config).unwrap();
        remember(&config).unwrap();
        let kept = folder.path().join(FILE);
        assert_eq!(fs::read_to_string(&kept).unwrap(), text);
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
        forget(&config).unwrap();
        forget(&config).unwrap();
        assert!(!kept.exists());
    }

    #[test]
    fn the_state_is_found_though_the_rest_is_wrong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let state_of = |text: &str| {
            fs::write(file.path(), text).unwrap();
            state(file.path())
        };
        assert_eq!(state_of("nonsense = 1\n[paths]\nstate = \"/srv/own\"\n"), Path::new("/srv/own"));
        assert_eq!(state_of("[[agents]\n[paths]\nstate = \"/srv/own\" # ours\n"), Path::new("/srv/own"));
        assert_eq!(state_of("[[agents]\n"), Paths::default().state);
        assert_eq!(state(Path::new("/nonexistent")), Paths::default().state);
    }
}
