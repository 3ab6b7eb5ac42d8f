//! podman's state, in its storage: its database, in bbolt up to version 4 and in SQLite since, and the list of the storage
//! that it shares with others.

use std::{collections::BTreeMap, fmt, fs::File, io::BufReader};

use chaperone_model::Container;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, SeqAccess, Visitor},
};

use super::{bolt, sqlite, state::Folder};

/// How much of a storage is read.
struct Bounds {
    /// Of a list of containers, in bytes; some 500 a container.
    list: u64,
    /// Storage drivers' folders that are looked into.
    drivers: usize,
    /// Of the database, in bytes.
    database: u64,
    /// Of a container's configuration in there, in bytes.
    config: usize,
}

const ROOTS: Bounds = Bounds { list: 16 << 20, drivers: 64, database: u64::MAX, config: 4 << 20 };
/// A user can write there what they like.
const USERS: Bounds = Bounds { list: 1 << 20, drivers: 4, database: 16 << 20, config: 256 << 10 };

/// How many folders of a storage are looked at for those of its drivers.
const MAX_FOLDERS: usize = 64;
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
    #[serde(default, rename = "names", deserialize_with = "first")]
    name: String,
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

fn bounds(storage: &Folder) -> &'static Bounds {
    if storage.is_users() { &USERS } else { &ROOTS }
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
    let bounds = bounds(storage);
    let database = |path| storage.file(path).filter(|file| file.metadata().is_ok_and(|it| it.len() <= bounds.database));
    (0..TRIES).find_map(|_| {
        let old = || bolt::value(&database("libpod/bolt_state.db")?, &[b"ctr", id.as_bytes()], b"config");
        let new = || sqlite::value(&database("db.sql")?, "ContainerConfig", id.as_bytes(), JSON);
        let config = new().or_else(old).filter(|config| config.len() <= bounds.config)?;
        serde_json::from_slice::<Config>(&config).ok()
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
    let bounds = bounds(storage);
    let folders = storage.folders(".", MAX_FOLDERS).into_iter().filter(|name| name.ends_with("-containers"));
    // Those of `podman run --rm` can be in the second.
    let files = folders
        .take(bounds.drivers)
        .flat_map(|folder| ["containers.json", "volatile-containers.json"].map(|name| format!("{folder}/{name}")));
    files.into_iter().find_map(|path| {
        let list = storage.file(&path).filter(|file| file.metadata().is_ok_and(|it| it.len() <= bounds.list))?;
        let found = listed(list, bounds.list, id)?;
        let metadata: Metadata = serde_json::from_str(&found.metadata).unwrap_or_default();
        Some(Container {
            id: id.to_owned(),
            name: found.name,
            image: metadata.image,
            image_id: found.image,
            labels: BTreeMap::new(),
        })
    })
}

/// The container with this id in a list of them, of which no more than one is in memory at a time. Nothing is read past it.
fn listed(list: File, limit: u64, id: &str) -> Option<Stored> {
    let mut found = None;
    let mut list = serde_json::Deserializer::from_reader(BufReader::new(std::io::Read::take(list, limit)));
    // That it ends there is an error, too.
    let _ = Wanted { id, found: &mut found }.deserialize(&mut list);
    found
}

/// Looks for one container.
struct Wanted<'a> {
    id: &'a str,
    found: &'a mut Option<Stored>,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of containers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(stored) = list.next_element::<Stored>()? {
            if stored.id == self.id {
                *self.found = Some(stored);
                return Err(A::Error::custom("found"));
            }
        }
        Ok(())
    }
}

/// The first of a list of texts, or of none; the others aren't kept.
fn first<'de, D: Deserializer<'de>>(list: D) -> Result<String, D::Error> {
    struct First;
    impl<'de> Visitor<'de> for First {
        type Value = String;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of texts")
        }

        fn visit_unit<E>(self) -> Result<String, E> {
            Ok(String::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<String, A::Error> {
            let first = list.next_element::<String>()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first.unwrap_or_default())
        }
    }
    list.deserialize_any(First)
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
    fn of_a_users_storage_less_is_read_than_of_roots() {
        let home = tempfile::tempdir().unwrap();
        let of_root = || container(&Folder::open(home.path()).unwrap(), ID).map(|it| it.name);
        let own = nix::unistd::geteuid().as_raw();
        let of_user = || container(&Folder::open_of(own, home.path(), ".").unwrap(), ID).map(|it| it.name);
        let list = |others: usize| {
            let others = (0..others).map(|number| format!(r#"{{"id":"{number:064}","names":["a","b"]}},"#));
            format!(r#"[{}{{"id":"{ID}","names":["named","again"]}},{{"id":"x"}}]"#, others.collect::<String>())
        };
        fs::create_dir(home.path().join("a-containers")).unwrap();
        let write = |text: String| fs::write(home.path().join("a-containers/containers.json"), text).unwrap();
        write(list(1000));
        assert_eq!((of_root().as_deref(), of_user().as_deref()), (Some("named"), Some("named")));
        write(list(20_000));
        assert_eq!((of_root().as_deref(), of_user()), (Some("named"), None));
        write(format!("{}]", &list(0)[..list(0).len() - 12]));
        assert_eq!(of_user().as_deref(), Some("named"), "nothing is read past it");
        write(format!(r#"[{{"id":"x","names":null}},{{"id":"{ID}"}}]"#));
        assert_eq!(of_user().as_deref(), Some(""));
        for broken in ["{}", "[", "null", "[1]", ""] {
            write(broken.to_owned());
            assert_eq!((of_root(), of_user()), (None, None), "{broken}");
        }
        fs::create_dir(home.path().join("libpod")).unwrap();
        let database = File::create(home.path().join("libpod/bolt_state.db")).unwrap();
        std::io::Write::write_all(&mut &database, DATABASE).unwrap();
        assert_eq!((of_root().as_deref(), of_user().as_deref()), (Some("named"), Some("named")));
        database.set_len(USERS.database + 1).unwrap();
        assert_eq!((of_root().as_deref(), of_user()), (Some("named"), None));
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
