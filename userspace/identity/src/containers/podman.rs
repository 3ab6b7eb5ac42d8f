//! podman's state, in its storage: its database, in bbolt up to version 4 and in SQLite since, and the list of the storage
//! that it shares with others.

use std::collections::BTreeMap;

use chaperone_model::Container;
use serde::Deserialize;

use super::{bolt, sqlite, state::Folder};

/// How much of a list of containers is read: some 30,000 of them.
const MAX_LIST: u64 = 16 << 20;
/// How many storage drivers' folders are looked into.
const MAX_DRIVERS: usize = 64;
/// How often podman's database is read before it is given up.
const TRIES: u32 = 3;
/// In SQLite's `ContainerConfig`: `ID, Name, PodID, JSON` (libpod/sqlite_state_internal.go).
const JSON: usize = 3;

/// podman's libpod/container_config.go, as much as is told.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "rootfsImageName")]
    image: String,
    #[serde(default, rename = "rootfsImageID")]
    image_id: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    runtime: String,
}

/// containers/storage's containers.go.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    metadata: String,
}

/// … in its `metadata`, which podman writes.
#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "image-name")]
    image: String,
}

pub(super) fn container(storage: &Folder, id: &str) -> Option<Container> {
    configured(storage, id).or_else(|| stored(storage, id))
}

/// A name of containers.conf's, or a path.
pub(super) fn runtime(storage: &Folder, id: &str) -> Option<String> {
    config(storage, id).map(|config| config.runtime)
}

/// By podman's database.
fn config(storage: &Folder, id: &str) -> Option<Config> {
    // bbolt writes pages anew and then their root, and SQLite only at the end of a change, so that podman's lock isn't
    // needed, which would hold podman up. Only if two changes are made while this reads can it be torn: then it is no JSON.
    (0..TRIES).find_map(|_| {
        let old = || bolt::value(&storage.file("libpod/bolt_state.db")?, &[b"ctr", id.as_bytes()], b"config");
        let new = || sqlite::value(&storage.file("db.sql")?, "ContainerConfig", id.as_bytes(), JSON);
        serde_json::from_slice::<Config>(&new().or_else(old)?).ok()
    })
}

fn configured(storage: &Folder, id: &str) -> Option<Container> {
    let config = config(storage, id)?;
    Some(Container {
        id: id.to_owned(),
        name: config.name,
        image: config.image,
        image_id: config.image_id,
        labels: config.labels.unwrap_or_default(),
    })
}

/// By the list of the storage that podman and others share, which has no labels.
fn stored(storage: &Folder, id: &str) -> Option<Container> {
    let folders = storage.folders(".", MAX_DRIVERS).into_iter().filter(|name| name.ends_with("-containers"));
    // Those of `podman run --rm` can be in the second.
    let files = folders
        .flat_map(|folder| ["containers.json", "volatile-containers.json"].map(|name| format!("{folder}/{name}")));
    files.into_iter().find_map(|path| {
        let list: Vec<Stored> = serde_json::from_slice(&storage.read_up_to(&path, MAX_LIST)?).ok()?;
        let found = list.into_iter().find(|stored| stored.id == id)?;
        let metadata: Metadata = serde_json::from_str(&found.metadata).unwrap_or_default();
        Some(Container {
            id: id.to_owned(),
            name: found.names.into_iter().next().unwrap_or_default(),
            image: metadata.image,
            image_id: found.image,
            labels: BTreeMap::new(),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "6a909d5105424117f1b7c8820324fb8852db99fdfa409e3f1d66b91b6f881c92";
    /// As in the tests of `bolt`.
    const DATABASE: &[u8] = include_bytes!("../../testdata/podman-4.3.1-bolt_state.db");
    const LIST: &[u8] = include_bytes!("../../testdata/podman-4.3.1-containers.json");
    /// As in the tests of `sqlite`.
    const NEW_ID: &str = "2ab72a5209c9348d5f19b9c1353d5d95dc33bce665dd84795beee912e6ea061d";
    const NEW_DATABASE: &[u8] = include_bytes!("../../testdata/podman-5.4.2-db.sql");

    #[test]
    fn podmans_state_describes_a_container() {
        let folder = tempfile::tempdir().unwrap();
        let of = || container(&Folder::open(folder.path()).unwrap(), ID);
        assert_eq!(of(), None);

        fs::create_dir_all(folder.path().join("vfs-containers")).unwrap();
        fs::write(folder.path().join("vfs-containers/containers.json"), LIST).unwrap();
        let listed = of().unwrap();
        assert_eq!((listed.name.as_str(), listed.image.as_str()), ("named", "example.com/agents/coder:1"));
        assert!(listed.labels.is_empty() && listed.image_id.starts_with("18f5d103"));

        fs::create_dir(folder.path().join("libpod")).unwrap();
        fs::write(folder.path().join("libpod/bolt_state.db"), DATABASE).unwrap();
        let known = of().unwrap();
        let labels: Vec<_> = known.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("purpose", "x"), ("team", "red")]);
        assert_eq!(Container { labels: BTreeMap::new(), ..known }, listed);
        assert_eq!(runtime(&Folder::open(folder.path()).unwrap(), ID).as_deref(), Some("runc"));

        fs::write(folder.path().join("libpod/bolt_state.db"), &DATABASE[..9000]).unwrap();
        fs::write(folder.path().join("vfs-containers/containers.json"), &LIST[..100]).unwrap();
        assert_eq!(of(), None);
    }

    #[test]
    fn so_does_that_of_version_5() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("db.sql"), NEW_DATABASE).unwrap();
        let known = container(&Folder::open(folder.path()).unwrap(), NEW_ID).unwrap();
        assert_eq!((known.name.as_str(), known.image.as_str()), ("named", "example.com/agents/coder:1"));
        let labels: Vec<_> = known.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("from", "image"), ("purpose", "x"), ("team", "red")]);
    }
}
