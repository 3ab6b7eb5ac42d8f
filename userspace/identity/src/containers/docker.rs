//! Docker's state: `containers/<id>/config.v2.json` below its `data-root`, written when a container is made
//! (moby's daemon/container.go, `newContainer` and `CheckpointTo`).

use std::collections::BTreeMap;

use chaperone_model::Container;
use serde::Deserialize;

use super::state::Folder;

/// moby's container/container.go, as much as is told.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, rename = "Name")]
    name: String,
    #[serde(default, rename = "Image")]
    image_id: String,
    #[serde(default, rename = "Config")]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default, rename = "Image")]
    image: String,
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

pub(super) fn container(folder: &Folder, id: &str) -> Option<Container> {
    let text = folder.read(&format!("containers/{id}/config.v2.json"))?;
    let stored: Stored = serde_json::from_slice(&text).ok().filter(|stored: &Stored| stored.id == id)?;
    Some(Container {
        id: stored.id,
        name: stored.name.trim_start_matches('/').to_owned(),
        image: stored.config.image,
        image_id: stored.image_id,
        labels: stored.config.labels.unwrap_or_default(),
    })
}

/// moby's api/types/container/hostconfig.go.
#[derive(Deserialize)]
struct HostConfig {
    #[serde(default, rename = "Runtime")]
    runtime: String,
}

/// By `hostconfig.json` beside it, which is written with it. The name is the daemon's configuration's, or that of a shim of
/// containerd's.
pub(super) fn runtime(folder: &Folder, id: &str) -> Option<String> {
    let text = folder.read(&format!("containers/{id}/hostconfig.json"))?;
    serde_json::from_slice(&text).ok().map(|config: HostConfig| config.runtime)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "f6da6f7709449181f16b197a0f759ef8960005c07075db56f484427f5ab430d5";
    /// Of Docker 26.1.5, Debian 13: `docker run -d --name named --label team=red --label purpose=x --network none
    /// example.com/agents/coder:1 /bin/busybox sleep 1000`, the image with a label of its own.
    const CONFIG: &[u8] = include_bytes!("../../testdata/docker-26.1.5-config.v2.json");

    #[test]
    fn dockers_state_describes_a_container() {
        let folder = tempfile::tempdir().unwrap();
        let of = || container(&Folder::open(folder.path()).unwrap(), ID);
        assert_eq!(of(), None);
        let file = folder.path().join("containers").join(ID).join("config.v2.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, CONFIG).unwrap();
        let known = of().unwrap();
        assert_eq!((known.name.as_str(), known.image.as_str()), ("named", "example.com/agents/coder:1"));
        assert!(known.image_id.starts_with("sha256:68733c69"));
        let labels: Vec<_> = known.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("from", "image"), ("purpose", "x"), ("team", "red")]);
        // As much of it as is read; whole ones are in the whole-system tests.
        for (host_config, wanted) in [(r#"{"Runtime":"runc"}"#, Some("runc")), ("{}", Some("")), ("{", None)] {
            fs::write(file.with_file_name("hostconfig.json"), host_config).unwrap();
            assert_eq!(runtime(&Folder::open(folder.path()).unwrap(), ID).as_deref(), wanted, "{host_config}");
        }
        for length in [0, 1, CONFIG.len() - 2] {
            fs::write(&file, &CONFIG[..length]).unwrap();
            assert_eq!(of(), None, "{length}");
        }
    }
}
