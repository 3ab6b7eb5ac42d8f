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
