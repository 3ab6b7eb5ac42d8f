//! Which container a cgroup is, by its name and by podman's own state on the host. Nothing is asked of the container, and
//! what is found describes and never authorises: whoever may start containers names and labels them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use chaperone_model::Container;
use serde::Deserialize;

use crate::bolt;

/// Reads the state of podman's containers.
#[derive(Clone, Debug, Default)]
pub struct Containers {
    storage: Vec<PathBuf>,
}

/// How much of a list of containers is read: some 30,000 of them.
const MAX_LIST: u64 = 16 << 20;
/// How many labels are kept, and how many bytes of a name or value.
const MAX_LABELS: usize = 64;
const MAX_TEXT: usize = 1024;
/// How often podman's database is read before it is given up.
const TRIES: u32 = 3;

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

impl Containers {
    /// By these folders of podman's, such as `/var/lib/containers/storage`.
    pub fn new(storage: Vec<PathBuf>) -> Self {
        Self { storage }
    }

    /// Whether the cgroup at `path` has a container's name, or is in one that has.
    pub fn is_container(path: &str) -> bool {
        container_id(path).is_some()
    }

    /// The container that the cgroup at `path` is, or is in. Nothing but its id if its engine's state isn't there or can't
    /// be read. Reads files: some milliseconds.
    pub fn of(&self, path: &str) -> Option<Container> {
        let id = container_id(path)?;
        let found = self.storage.iter().find_map(|storage| configured(storage, id).or_else(|| stored(storage, id)));
        Some(found.unwrap_or_else(|| Container { id: id.to_owned(), ..Container::default() }))
    }
}

/// podman calls a container's cgroup `libpod-ID`, with systemd as its manager `libpod-ID.scope`. The outermost counts: in
/// its own cgroup, a container's root may make others.
fn container_id(path: &str) -> Option<&str> {
    path.split('/').find_map(|part| {
        let id = part.strip_prefix("libpod-")?;
        let id = id.strip_suffix(".scope").unwrap_or(id);
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    })
}

/// By podman's database, up to version 4; later ones have it in SQLite, of which only the list below is known.
fn configured(storage: &Path, id: &str) -> Option<Container> {
    let file = File::open(storage.join("libpod/bolt_state.db")).ok()?;
    // bbolt writes pages anew and then their root, so that podman's lock isn't needed, which would hold podman up. Only if
    // two changes are made while this reads can it be torn: then it is no JSON.
    let config = (0..TRIES).find_map(|_| {
        let config = bolt::value(&file, &[b"ctr", id.as_bytes()], b"config")?;
        serde_json::from_slice::<Config>(&config).ok()
    })?;
    let labels = config.labels.unwrap_or_default().into_iter().take(MAX_LABELS);
    Some(Container {
        id: id.to_owned(),
        name: cut(config.name),
        image: cut(config.image),
        image_id: cut(config.image_id),
        labels: labels.map(|(name, value)| (cut(name), cut(value))).collect(),
    })
}

/// By the list of the storage that podman and others share, which has no labels.
fn stored(storage: &Path, id: &str) -> Option<Container> {
    let drivers = fs::read_dir(storage).ok()?.flatten().map(|entry| entry.path());
    let folders = drivers.filter(|path| path.to_string_lossy().ends_with("-containers"));
    // Those of `podman run --rm` can be in the second.
    let files =
        folders.flat_map(|folder| ["containers.json", "volatile-containers.json"].map(|name| folder.join(name)));
    files.into_iter().find_map(|path| {
        let mut text = Vec::new();
        File::open(path).ok()?.take(MAX_LIST).read_to_end(&mut text).ok()?;
        let list: Vec<Stored> = serde_json::from_slice(&text).ok()?;
        let found = list.into_iter().find(|stored| stored.id == id)?;
        let metadata: Metadata = serde_json::from_str(&found.metadata).unwrap_or_default();
        Some(Container {
            id: id.to_owned(),
            name: cut(found.names.into_iter().next().unwrap_or_default()),
            image: cut(metadata.image),
            image_id: cut(found.image),
            labels: BTreeMap::new(),
        })
    })
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6a909d5105424117f1b7c8820324fb8852db99fdfa409e3f1d66b91b6f881c92";
    /// As in the tests of `bolt`.
    const DATABASE: &[u8] = include_bytes!("../testdata/podman-4.3.1-bolt_state.db");
    const LIST: &[u8] = include_bytes!("../testdata/podman-4.3.1-containers.json");

    #[test]
    fn a_cgroups_name_tells_the_container() {
        assert!(Containers::is_container(&format!("/agents/libpod-{ID}/x")) && !Containers::is_container("/agents/x"));
        for path in [
            format!("/agents/libpod-{ID}"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/agents/libpod-{ID}/libpod-{}", "0".repeat(64)),
        ] {
            assert_eq!(container_id(&path), Some(ID), "{path}");
        }
        for path in
            ["/agents/a", "/agents/libpod-conmon-1", "/libpod-xyz", &format!("/libpod-{ID}0"), &format!("/{ID}")]
        {
            assert_eq!(container_id(path), None, "{path}");
        }
    }

    #[test]
    fn podmans_state_describes_a_container() {
        let folder = tempfile::tempdir().unwrap();
        let containers = Containers::new(vec!["/nonexistent".into(), folder.path().into()]);
        let of = || containers.of(&format!("/agents/libpod-{ID}/x")).unwrap();
        assert_eq!(of(), Container { id: ID.to_owned(), ..Container::default() });

        fs::create_dir_all(folder.path().join("vfs-containers")).unwrap();
        fs::write(folder.path().join("vfs-containers/containers.json"), LIST).unwrap();
        let listed = of();
        assert_eq!((listed.name.as_str(), listed.image.as_str()), ("named", "example.com/agents/coder:1"));
        assert!(listed.labels.is_empty() && listed.image_id.starts_with("18f5d103"));

        fs::create_dir(folder.path().join("libpod")).unwrap();
        fs::write(folder.path().join("libpod/bolt_state.db"), DATABASE).unwrap();
        let known = of();
        let labels: Vec<_> = known.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("purpose", "x"), ("team", "red")]);
        assert_eq!(Container { labels: BTreeMap::new(), ..known }, listed);

        fs::write(folder.path().join("libpod/bolt_state.db"), &DATABASE[..9000]).unwrap();
        fs::write(folder.path().join("vfs-containers/containers.json"), &LIST[..100]).unwrap();
        assert_eq!(of(), Container { id: ID.to_owned(), ..Container::default() });
    }

    #[test]
    fn texts_are_bounded() {
        assert_eq!(cut("é".repeat(1000)).len(), 1024);
        assert_eq!(cut("é".repeat(10)).len(), 20);
    }
}
