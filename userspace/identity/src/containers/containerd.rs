//! containerd's state: its database below `root`, with each container's image and labels, and its running tasks below
//! `state`, whose annotations tell the pod. The kubelet's containers and pods are in the namespace `k8s.io`.
//!
//! containerd writes the database when a container is made and the task's folder before it is started
//! (metadata/containers.go and metadata/buckets.go; core/runtime/v2/bundle.go; annotations in internal/cri/annotations).

use std::collections::BTreeMap;

use chaperone_model::Container;
use serde::Deserialize;

use super::{POD_CONTAINER, POD_NAME, POD_NAMESPACE, POD_UID, bolt, state::Folder};

const DATABASE_PATH: &str = "io.containerd.metadata.v1.bolt/meta.db";
const TASKS: [&str; 2] = ["io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux"];
/// Of clients of containerd's: `k8s.io`, `default`, `moby` …
const MAX_NAMESPACES: usize = 64;

/// The annotations of the OCI runtime's configuration.
#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

pub(super) fn container(folders: &[Folder], id: &str) -> Option<Container> {
    // The namespace is where the task is. A container without one has no cgroup.
    let (namespace, spec) = folders.iter().find_map(|folder| task(folder, id))?;
    let annotations = spec.annotations.unwrap_or_default();
    let annotation = |name: &str| annotations.get(&format!("io.kubernetes.cri.{name}")).cloned();
    let mut labels = BTreeMap::new();
    let pod = annotation("sandbox-id");
    for id in pod.iter().map(String::as_str).filter(|pod| *pod != id).chain([id]) {
        labels.extend(folders.iter().find_map(|folder| stored_labels(folder, &namespace, id)).unwrap_or_default());
    }
    for (name, label) in [
        ("container-name", POD_CONTAINER),
        ("sandbox-name", POD_NAME),
        ("sandbox-namespace", POD_NAMESPACE),
        ("sandbox-uid", POD_UID),
    ] {
        labels.extend(annotation(name).map(|value| (label.to_owned(), value)));
    }
    let image = folders.iter().find_map(|folder| stored_image(folder, &namespace, id));
    // The database has the image's id for the kubelet's containers, and the name is in an annotation.
    let (image, image_id) = match (annotation("image-name"), image) {
        (Some(name), image) => (name, image.unwrap_or_default()),
        (None, image) => (image.unwrap_or_default(), String::new()),
    };
    let name = match annotation("container-type").as_deref() {
        Some("sandbox") => "(sandbox)".to_owned(),
        _ => annotation("container-name").unwrap_or_else(|| labels.get("nerdctl/name").cloned().unwrap_or_default()),
    };
    Some(Container { id: id.to_owned(), name, image, image_id, labels })
}

fn task(folder: &Folder, id: &str) -> Option<(String, Spec)> {
    TASKS.iter().find_map(|tasks| {
        folder.folders(tasks, MAX_NAMESPACES).into_iter().find_map(|namespace| {
            let text = folder.read(&format!("{tasks}/{namespace}/{id}/config.json"))?;
            Some((namespace, serde_json::from_slice(&text).ok()?))
        })
    })
}

fn stored_labels(folder: &Folder, namespace: &str, id: &str) -> Option<BTreeMap<String, String>> {
    let file = folder.file(DATABASE_PATH)?;
    let bucket = [b"v1", namespace.as_bytes(), b"containers", id.as_bytes(), b"labels"];
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    let entries = bolt::entries(&file, &bucket)?;
    Some(entries.into_iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect())
}

fn stored_image(folder: &Folder, namespace: &str, id: &str) -> Option<String> {
    let file = folder.file(DATABASE_PATH)?;
    let image = bolt::value(&file, &[b"v1", namespace.as_bytes(), b"containers", id.as_bytes()], b"image")?;
    String::from_utf8(image).ok()
}

/// The shim's name, such as `io.containerd.runc.v2`, whatever the kubelet calls it.
pub(super) fn runtime(folders: &[Folder], id: &str) -> Option<String> {
    let (namespace, _) = folders.iter().find_map(|folder| task(folder, id))?;
    let bucket = [b"v1", namespace.as_bytes(), b"containers", id.as_bytes(), b"runtime"];
    let name = folders.iter().find_map(|folder| bolt::value(&folder.file(DATABASE_PATH)?, &bucket, b"name"))?;
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Containers, EngineFolders};

    const ID: &str = "1bc7dca9f4d623f3946e6f3013d0879c57dfe326899801afc2fa51c1da8c2402";
    const POD: &str = "3a45ecba13c87ab87d0c339e8b1961e8e3c297057dc7f532007c2424e5d85d76";
    /// Of containerd 1.7.24, Debian 13, told by the CRI (v1) what a kubelet tells it: the pod `coder-0` in `agents` with the
    /// labels `app` and `team`, and in it the container `agent`, of an image with a label of its own.
    const DATABASE: &[u8] = include_bytes!("../../testdata/containerd-1.7.24-meta.db");
    const CONTAINER: &[u8] = include_bytes!("../../testdata/containerd-1.7.24-container.json");
    const SANDBOX: &[u8] = include_bytes!("../../testdata/containerd-1.7.24-sandbox.json");

    #[test]
    fn containerds_state_describes_a_pods_container() {
        let (state, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |id| container(&[Folder::open(state.path()).unwrap(), Folder::open(root.path()).unwrap()], id);
        assert_eq!(of(ID), None);
        for (id, spec) in [(ID, CONTAINER), (POD, SANDBOX)] {
            let task = state.path().join("io.containerd.runtime.v2.task/k8s.io").join(id);
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("config.json"), spec).unwrap();
        }
        let text = |map: &BTreeMap<String, String>| {
            map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let pod = [
            "io.kubernetes.pod.name=coder-0",
            "io.kubernetes.pod.namespace=agents",
            "io.kubernetes.pod.uid=8f3d2d3e-5f0c-4b0a-9a2e-0c6f1f6f2b11",
        ];
        let known = of(ID).unwrap();
        assert_eq!((known.name.as_str(), known.image.as_str()), ("agent", "example.com/agents/coder:1"));
        assert_eq!(text(&known.labels)[1..], pod);

        let database = root.path().join(DATABASE_PATH);
        fs::create_dir_all(database.parent().unwrap()).unwrap();
        fs::write(&database, DATABASE).unwrap();
        let known = of(ID).unwrap();
        let labels = text(&known.labels);
        for wanted in
            pod.into_iter().chain(["app=coder", "team=red", "from=image", "io.kubernetes.container.name=agent"])
        {
            assert!(labels.iter().any(|label| label == wanted), "{wanted}: {labels:?}");
        }
        assert!(known.image_id.starts_with("sha256:") || known.image_id.starts_with("example.com"), "{known:?}");
        assert_eq!(of(POD).unwrap().name, "(sandbox)");

        let run_by = || {
            let containerd =
                EngineFolders { containerd: vec![state.path().into(), root.path().into()], ..EngineFolders::default() };
            let known = Containers::new(containerd).of(&format!("/kubepods/cri-containerd-{ID}.scope")).unwrap();
            Containers::unsupported_runtime(&known).map(str::to_owned)
        };
        assert_eq!(run_by(), None);
        // The same database, had it been made by another shim, whose name is as long.
        let mut other = DATABASE.to_vec();
        let name = b"io.containerd.runc.v2";
        while let Some(at) = other.windows(name.len()).position(|window| window == name) {
            other[at + 14..at + 18].copy_from_slice(b"kata");
        }
        fs::write(&database, other).unwrap();
        assert_eq!(run_by().as_deref(), Some("io.containerd.kata.v2"));
        fs::write(&database, &DATABASE[..20_000]).unwrap();
        assert_eq!(of(ID).unwrap().name, "agent");
    }
}
