//! Which container a cgroup is, by its name and by its engine's own state on the host. Nothing is asked of the container or
//! of the engine, and what is found describes and never authorises: whoever may start containers names and labels them.
//!
//! Every engine writes down what a container is before it makes its cgroup, so that all of it is there from the first
//! process on. Files are read bounded, and those in folders that aren't root's with nothing in them believed.

mod bolt;
mod containerd;
mod crio;
mod docker;
mod kubelet;
mod name;
mod podman;
mod rootless;
mod runtime;
mod sqlite;
mod state;

use std::{collections::BTreeMap, path::PathBuf};

use chaperone_model::Container;

use self::{name::ContainerName, state::Folder};

/// Where engines keep what they know of their containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineFolders {
    /// podman's storage and CRI-O's, `graphroot` and `runroot` in storage.conf.
    pub podman: Vec<PathBuf>,
    /// Docker's `data-root`.
    pub docker: Vec<PathBuf>,
    /// containerd's `state` and `root`.
    pub containerd: Vec<PathBuf>,
    /// The kubelet's `--root-dir`.
    pub kubelet: Vec<PathBuf>,
    /// Whether podman's storage in a user's home describes the containers of that user.
    pub rootless: bool,
}

/// Reads the state of containers' engines.
#[derive(Clone, Debug, Default)]
pub struct Containers {
    folders: EngineFolders,
}

/// How many labels are told, and how many bytes of a name or value.
const MAX_LABELS: usize = 64;
const MAX_TEXT: usize = 1024;

/// Labels with this before them are the daemon's own.
pub(crate) const OWN: &str = "io.chaperone.";
/// On a container that its user's files describe: whose word it is.
const WORD_OF: &str = "io.chaperone.word-of";
/// On a container whose runtime makes a network that the hooks don't see: that runtime's name.
const UNSUPPORTED: &str = "io.chaperone.unsupported-runtime";
/// The kubelet's labels of a pod's containers, and one of the same kind for what it has no label for.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_CONTAINER: &str = "io.kubernetes.container.name";
const POD_SERVICE_ACCOUNT: &str = "io.kubernetes.pod.service-account";

impl Containers {
    /// By the state in these folders.
    pub fn new(folders: EngineFolders) -> Self {
        Self { folders }
    }

    /// Whether engines' files can be read at all: a sandbox may forbid openat2(2), without which none is.
    pub fn usable() -> std::io::Result<()> {
        state::usable()
    }

    /// Whether the cgroup at `path` has a container's name, or is in one that has.
    pub fn is_container(path: &str) -> bool {
        ContainerName::of(path).is_some()
    }

    /// Whether it is a container of a user's own service manager.
    pub fn is_users(path: &str) -> bool {
        ContainerName::of(path).is_some_and(|name| name.user.is_some())
    }

    /// The container's own cgroup, if the one at `path` is that or is in it.
    pub fn cgroup(path: &str) -> Option<&str> {
        ContainerName::of(path).map(|name| name.cgroup)
    }

    /// The cgroups of containers of engines that root runs, as a regular expression for a whole path.
    pub fn pattern() -> String {
        let prefixes = name::PREFIXES.map(|prefix| prefix.replace('-', r"\x2d")).join("|");
        format!(r"(?:/[^/]+)*/(?:{prefixes})[0-9a-f]{{64}}(?:\x2escope)?")
    }

    /// The cgroups in which users make containers' cgroups of their own, likewise.
    pub fn users_pattern() -> &'static str {
        "(?:/[^/]+)*/user@[^/]*"
    }

    /// The container that the cgroup at `path` is, or is in. Nothing but its id if its engine's state isn't there or can't
    /// be read. Reads files: some milliseconds.
    pub fn of(&self, path: &str) -> Option<Container> {
        Self::told(path, self.described(path))
    }

    /// … by what [`described`](Self::described) says of it: as much as is recorded.
    pub fn told(path: &str, described: Option<Container>) -> Option<Container> {
        let id = ContainerName::of(path)?.id;
        Some(described.map_or_else(|| Container { id: id.to_owned(), ..Container::default() }, told))
    }

    /// As [`of`](Self::of), whole; nothing if no engine's state describes it.
    pub fn described(&self, path: &str) -> Option<Container> {
        let name = ContainerName::of(path)?;
        let mut found = match name.user {
            Some(user) => self.folders.rootless.then(|| rootless::container(user, name.id)).flatten()?,
            None => self.by_root(name.id)?,
        };
        name.id.clone_into(&mut found.id);
        // Images and pods have labels, too, and anybody makes those. The kubelet has no label for an account.
        found.labels.retain(|name, _| !name.starts_with(OWN) && name != POD_SERVICE_ACCOUNT);
        if let Some(runtime) = self.runtime(&name).filter(|runtime| runtime::is_unsupported(runtime)) {
            found.labels.insert(UNSUPPORTED.to_owned(), runtime);
        }
        if let Some(user) = name.user {
            found.labels.insert(WORD_OF.to_owned(), format!("uid {user}"));
        }
        if let Some(pod) = name.pod {
            if let Some(namespace) = found.labels.get(POD_NAMESPACE) {
                let mut folders = self.folders.kubelet.iter().filter_map(Folder::open);
                let account = folders.find_map(|folder| kubelet::service_account(&folder, &pod, namespace));
                found.labels.extend(account.map(|account| (POD_SERVICE_ACCOUNT.to_owned(), account)));
            }
            found.labels.insert(POD_UID.to_owned(), pod);
        }
        Some(found)
    }

    /// The name of its runtime, if a container that is described can't be captured because of it.
    pub fn unsupported_runtime(container: &Container) -> Option<&str> {
        container.labels.get(UNSUPPORTED).map(String::as_str)
    }

    /// What the container is run by, as its engine names it.
    fn runtime(&self, name: &ContainerName<'_>) -> Option<String> {
        if let Some(user) = name.user {
            return rootless::runtime(user, name.id);
        }
        let open = |folders: &[PathBuf]| folders.iter().filter_map(Folder::open).collect::<Vec<_>>();
        let found = open(&self.folders.docker).iter().find_map(|folder| docker::runtime(folder, name.id));
        found.or_else(|| containerd::runtime(&open(&self.folders.containerd), name.id)).or_else(|| {
            let folders = open(&self.folders.podman);
            folders
                .iter()
                .find_map(|folder| crio::runtime(folder, name.id).or_else(|| podman::runtime(folder, name.id)))
        })
    }

    /// By the engines that root runs.
    fn by_root(&self, id: &str) -> Option<Container> {
        let open = |folders: &[PathBuf]| folders.iter().filter_map(Folder::open).collect::<Vec<_>>();
        let found = open(&self.folders.docker).iter().find_map(|folder| docker::container(folder, id));
        let found = found.or_else(|| containerd::container(&open(&self.folders.containerd), id));
        found.or_else(|| {
            let folders = open(&self.folders.podman);
            folders.iter().find_map(|folder| crio::container(folder, id).or_else(|| podman::container(folder, id)))
        })
    }
}

/// As much as is recorded. What the daemon and the kubelet say of it comes first.
fn told(container: Container) -> Container {
    let (first, rest): (BTreeMap<_, _>, _) =
        container.labels.into_iter().partition(|(name, _)| name.starts_with(OWN) || name.starts_with("io.kubernetes."));
    let labels = first.into_iter().chain(rest).take(MAX_LABELS);
    Container {
        id: container.id,
        name: cut(container.name),
        image: cut(container.image),
        image_id: cut(container.image_id),
        labels: labels.map(|(name, value)| (cut(name), cut(value))).collect(),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "6a909d5105424117f1b7c8820324fb8852db99fdfa409e3f1d66b91b6f881c92";
    const LIST: &[u8] = include_bytes!("../../testdata/podman-4.3.1-containers.json");

    #[test]
    fn a_container_without_a_description_has_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let podman = vec!["/nonexistent".into(), folder.path().into()];
        let containers = Containers::new(EngineFolders { podman, ..EngineFolders::default() });
        let path = format!("/agents/libpod-{ID}/x");
        let unknown = Container { id: ID.to_owned(), ..Container::default() };
        assert_eq!((containers.described(&path), containers.of(&path)), (None, Some(unknown)));
        fs::create_dir(folder.path().join("vfs-containers")).unwrap();
        fs::write(folder.path().join("vfs-containers/containers.json"), LIST).unwrap();
        assert_eq!(containers.of(&path).unwrap().name, "named");
        assert_eq!(containers.of("/agents/x"), None);
        // Root's storage says nothing of a user's container.
        assert_eq!(containers.described(&format!("/user.slice/user@1000.service/libpod-{ID}")), None);
    }

    #[test]
    fn what_the_daemon_says_of_a_container_is_not_an_images_to_say() {
        let folder = tempfile::tempdir().unwrap();
        let uid = "8f3d2d3e";
        let config = serde_json::json!({
            "ID": ID, "Config": { "Labels": { "io.chaperone.word-of": "uid 0", "io.kubernetes.pod.uid": "forged", "a": "b",
                                               "io.kubernetes.pod.service-account": "kube-system/admin" } }
        });
        fs::create_dir_all(folder.path().join("containers").join(ID)).unwrap();
        fs::write(folder.path().join("containers").join(ID).join("config.v2.json"), config.to_string()).unwrap();
        let containers =
            Containers::new(EngineFolders { docker: vec![folder.path().into()], ..EngineFolders::default() });
        let labels = containers.of(&format!("/kubepods/pod{uid}/{ID}")).unwrap().labels;
        let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("a", "b"), (POD_UID, uid)]);
    }

    #[test]
    fn texts_and_labels_are_bounded() {
        assert_eq!(cut("é".repeat(1000)).len(), 1024);
        assert_eq!(cut("é".repeat(10)).len(), 20);
        let labels = (0..100).map(|number| (format!("a{number}"), String::new()));
        let labels = labels.chain([(POD_NAME.to_owned(), "coder-0".to_owned())]).collect();
        let told = told(Container { labels, ..Container::default() });
        assert!(told.labels.len() == MAX_LABELS && told.labels.contains_key(POD_NAME));
    }
}
