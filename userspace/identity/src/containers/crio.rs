//! CRI-O's state, in the storage that it shares with podman: the OCI runtime's configuration of each container, whose
//! annotations tell all of it (cri-o's pkg/annotations, `io.kubernetes.cri-o.*`).

use std::collections::BTreeMap;

use chaperone_model::Container;
use serde::Deserialize;

use super::{POD_CONTAINER, POD_NAME, POD_NAMESPACE, POD_UID, state::Folder};

/// Storage drivers with containers.
const DRIVERS: usize = 8;

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

pub(super) fn container(storage: &Folder, id: &str) -> Option<Container> {
    let own = annotations(storage, id)?;
    let of = |annotations: &BTreeMap<String, String>, name: &str| {
        annotations.get(&format!("io.kubernetes.cri-o.{name}")).cloned().unwrap_or_default()
    };
    // podman's are of the same kind, and have none of these.
    own.get("io.kubernetes.cri-o.ContainerID").filter(|stored| *stored == id)?;
    let labels_of = |annotations| -> BTreeMap<String, String> {
        serde_json::from_str(&of(annotations, "Labels")).unwrap_or_default()
    };
    let pod = of(&own, "SandboxID");
    let pod = (pod != id && is_id(&pod)).then(|| annotations(storage, &pod)).flatten();
    let mut labels = pod.as_ref().map(&labels_of).unwrap_or_default();
    labels.extend(labels_of(&own));
    for label in [POD_CONTAINER, POD_NAME, POD_NAMESPACE, POD_UID] {
        labels.extend(own.get(label).map(|value| (label.to_owned(), value.clone())));
    }
    let name = match of(&own, "ContainerType").as_str() {
        "sandbox" => "(sandbox)".to_owned(),
        _ => own.get(POD_CONTAINER).cloned().unwrap_or_default(),
    };
    Some(Container { id: id.to_owned(), name, image: of(&own, "ImageName"), image_id: of(&own, "ImageRef"), labels })
}

/// As Kubernetes' RuntimeClass names it.
pub(super) fn runtime(storage: &Folder, id: &str) -> Option<String> {
    annotations(storage, id)?.remove("io.kubernetes.cri-o.RuntimeHandler")
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn annotations(storage: &Folder, id: &str) -> Option<BTreeMap<String, String>> {
    let drivers = storage.folders(".", DRIVERS * 8).into_iter().filter(|name| name.ends_with("-containers"));
    drivers.take(DRIVERS).find_map(|driver| {
        let text = storage.read(&format!("{driver}/{id}/userdata/config.json"))?;
        serde_json::from_slice::<Spec>(&text).ok()?.annotations
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// Made after cri-o's pkg/annotations and internal/factory/container: the engine itself was not to be had.
    #[test]
    fn crios_state_describes_a_pods_container() {
        let (id, pod) = ("1".repeat(64), "2".repeat(64));
        let storage = tempfile::tempdir().unwrap();
        let write = |id: &str, annotations: serde_json::Value| {
            let folder = storage.path().join("overlay-containers").join(id).join("userdata");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("config.json"), json!({ "annotations": annotations }).to_string()).unwrap();
        };
        let of = |id: &str| container(&Folder::open(storage.path()).unwrap(), id);
        assert_eq!(of(&id), None);
        write(&id, json!({ "io.container.manager": "libpod" }));
        assert_eq!(of(&id), None, "podman's");
        write(
            &id,
            json!({
                "io.kubernetes.cri-o.ContainerID": id,
                "io.kubernetes.cri-o.ContainerType": "container",
                "io.kubernetes.cri-o.SandboxID": pod,
                "io.kubernetes.cri-o.ImageName": "example.com/agents/coder:1",
                "io.kubernetes.cri-o.ImageRef": "18f5d103",
                "io.kubernetes.cri-o.Labels": json!({ POD_CONTAINER: "agent", POD_NAMESPACE: "agents" }).to_string(),
                POD_CONTAINER: "agent",
                POD_NAME: "coder-0",
            }),
        );
        write(
            &pod,
            json!({
                "io.kubernetes.cri-o.ContainerID": pod,
                "io.kubernetes.cri-o.ContainerType": "sandbox",
                "io.kubernetes.cri-o.SandboxID": pod,
                "io.kubernetes.cri-o.Labels": json!({ "app": "coder" }).to_string(),
            }),
        );
        let known = of(&id).unwrap();
        assert_eq!((known.name.as_str(), known.image.as_str()), ("agent", "example.com/agents/coder:1"));
        let labels: Vec<_> = known.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let wanted = [("app", "coder"), (POD_CONTAINER, "agent"), (POD_NAME, "coder-0"), (POD_NAMESPACE, "agents")];
        assert_eq!(labels, wanted);
        assert_eq!(of(&pod).unwrap().name, "(sandbox)");
    }
}
