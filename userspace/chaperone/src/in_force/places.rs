//! Where it is kept what was in force.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::config::{DEFAULT_PATH, Paths};

const FILE: &str = "in-force.json";
/// As it was called when it was the whole configuration.
const FORMER: &str = "in-force.toml";

/// The files, the first of them wherever the configuration's mistakes are: in systemd's `StateDirectory=` for the daemon, or
/// else in the default folder. Who runs a second daemon by a configuration elsewhere has a second file there.
pub fn of(config: &Path, state: Option<&Path>) -> Vec<PathBuf> {
    of_in(env::var_os("STATE_DIRECTORY").and_then(|all| env::split_paths(&all).next()), config, state)
}

fn of_in(systemd: Option<PathBuf>, config: &Path, state: Option<&Path>) -> Vec<PathBuf> {
    let config = absolute(config);
    let fixed = match systemd.filter(|folder| folder.is_absolute()) {
        Some(folder) => folder.join(FILE),
        None if config == Path::new(DEFAULT_PATH) => Paths::default().state.join(FILE),
        None => {
            let name = hex::encode(&digest(&SHA256, config.as_os_str().as_encoded_bytes()).as_ref()[..8]);
            Paths::default().state.join(format!("in-force-{name}.json"))
        }
    };
    let mut places = vec![fixed];
    places.extend(state.map(|state| state.join(FILE)).filter(|place| *place != places[0]));
    places
}

/// The file of versions before, in the same folder.
pub fn former(place: &Path) -> PathBuf {
    place.with_file_name(FORMER)
}

pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The daemon's own folder, as well as that can be told of a configuration that is wrong, or can't be read.
pub fn state_said_by(path: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(path).unwrap_or_default();
    match toml::from_str::<toml::Table>(&text) {
        Ok(table) => {
            let state = table.get("paths").and_then(|paths| paths.get("state"));
            state.and_then(|state| state.as_str()).map(PathBuf::from)
        }
        // The line may be right though another isn't.
        Err(_) => text.lines().find_map(|line| {
            let line: toml::Table = toml::from_str(line).ok()?;
            line.get("state")?.as_str().map(PathBuf::from)
        }),
    }
    .or_else(|| Some(Paths::default().state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_needs_no_configuration() {
        let of = |systemd: Option<&str>, config: &str, state: Option<&str>| {
            let places = of_in(systemd.map(PathBuf::from), Path::new(config), state.map(Path::new));
            places.into_iter().map(|place| place.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(None, DEFAULT_PATH, None), ["/var/lib/chaperone/in-force.json"]);
        assert_eq!(of(None, DEFAULT_PATH, Some("/var/lib/chaperone")), ["/var/lib/chaperone/in-force.json"]);
        let both = ["/var/lib/chaperone/in-force.json", "/srv/own/in-force.json"];
        assert_eq!(of(None, DEFAULT_PATH, Some("/srv/own")), both);
        assert_eq!(of(Some("/var/lib/x"), "/etc/x.toml", None), ["/var/lib/x/in-force.json"]);
        let another = of(None, "/etc/x.toml", Some("/var/lib/chaperone"));
        assert!(another[0].starts_with("/var/lib/chaperone/in-force-") && another.len() == 2, "{another:?}");
        assert_ne!(of(None, "/etc/y.toml", None)[0], another[0]);
    }

    #[test]
    fn the_state_is_found_though_the_rest_is_wrong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let state_of = |text: &str| {
            fs::write(file.path(), text).unwrap();
            state_said_by(file.path()).unwrap()
        };
        assert_eq!(state_of("nonsense = 1\n[paths]\nstate = \"/srv/own\"\n"), Path::new("/srv/own"));
        assert_eq!(state_of("[[agents]\n[paths]\nstate = \"/srv/own\" # ours\n"), Path::new("/srv/own"));
        assert_eq!(state_of("[[agents]\n"), Paths::default().state);
        assert_eq!(state_said_by(Path::new("/nonexistent")), Some(Paths::default().state));
    }
}
