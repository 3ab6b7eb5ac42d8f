//! The kubelet's folder on the host: whose service account a pod has, by the token that it is given
//! (kubernetes' plugin/pkg/admission/serviceaccount/admission.go and pkg/volume/projected).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::state::Folder;

/// How many projected volumes of a pod are looked at.
const MAX_VOLUMES: usize = 64;
/// A token's claims are some hundred bytes.
const MAX_TOKEN: u64 = 16 << 10;

/// RFC 7519, section 4.1.2; Kubernetes says `system:serviceaccount:<namespace>:<name>` there.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

/// `<namespace>/<name>`. The token isn't verified: the kubelet wrote it, in a folder that is root's. Pods without one, or
/// with one in another place, have an account that isn't known here.
pub(super) fn service_account(kubelet: &Folder, pod: &str) -> Option<String> {
    let volumes = format!("pods/{pod}/volumes/kubernetes.io~projected");
    let volumes = kubelet.folders(&volumes, MAX_VOLUMES).into_iter().map(|name| format!("{volumes}/{name}/token"));
    volumes.into_iter().find_map(|path| account(&kubelet.read_up_to(&path, MAX_TOKEN)?))
}

fn account(token: &[u8]) -> Option<String> {
    let claims = token.trim_ascii().split(|byte| *byte == b'.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let (namespace, name) = claims.sub.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some(format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn the_projected_token_names_the_account() {
        // As the kubelet's AtomicWriter lays it out (pkg/volume/util/atomic_writer.go).
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("pods/8f3d/volumes/kubernetes.io~projected/kube-api-access-x7k2p");
        fs::create_dir_all(volume.join("..2026_11_21")).unwrap();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://k","sub":"system:serviceaccount:agents:coder"}"#);
        fs::write(volume.join("..2026_11_21/token"), format!("eyJhbGciOiJSUzI1NiJ9.{claims}.c2ln")).unwrap();
        symlink("..2026_11_21", volume.join("..data")).unwrap();
        symlink("..data/token", volume.join("token")).unwrap();
        let kubelet = Folder::open(root.path()).unwrap();
        assert_eq!(service_account(&kubelet, "8f3d").as_deref(), Some("agents/coder"));
        assert_eq!(service_account(&kubelet, "8f3e"), None);
        for token in ["", "a.b.c", "..", "a.e30.c", "a.eyJzdWIiOiJ4In0.c"] {
            assert_eq!(account(token.as_bytes()), None, "{token}");
        }
    }
}
