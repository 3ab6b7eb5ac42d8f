//! `[containers]`: where containers are described.

use std::path::PathBuf;

use chaperone_identity::{Containers, EngineFolders};
use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// Where containers are described.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersSection {
    /// podman's and CRI-O's storage: `graphroot` and `runroot` in storage.conf.
    pub podman: Vec<PathBuf>,
    /// Docker's `data-root`.
    pub docker: Vec<PathBuf>,
    /// containerd's `state` and `root`.
    pub containerd: Vec<PathBuf>,
    /// The kubelet's `--root-dir`.
    pub kubelet: Vec<PathBuf>,
    /// Whether the storage in a user's home describes the containers of that user's own podman.
    pub rootless: bool,
    /// The OCI runtime that `chaperone-oci-runtime` hands containers on to, once an agent's trusts the CA: runc or crun,
    /// whichever is there, if it isn't named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<PathBuf>,
}
}

impl Default for ContainersSection {
    fn default() -> Self {
        Self {
            podman: vec!["/var/lib/containers/storage".into(), "/run/containers/storage".into()],
            docker: vec!["/var/lib/docker".into()],
            containerd: vec!["/run/containerd".into(), "/var/lib/containerd".into()],
            kubelet: vec!["/var/lib/kubelet".into()],
            rootless: true,
            runtime: None,
        }
    }
}

impl ContainersSection {
    /// Those that read them.
    pub fn containers(&self) -> Containers {
        let Self { podman, docker, containerd, kubelet, rootless, runtime: _ } = self.clone();
        Containers::new(EngineFolders { podman, docker, containerd, kubelet, rootless })
    }
}
