//! The kubelet's folder on the host: whose service account a pod has, by the token that it is given
//! (kubernetes' plugin/pkg/admission/serviceaccount/admission.go and pkg/volume/projected).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::state::Folder;

/// How many projected volumes of a pod are looked at.
const MAX_VOLUMES: usize = 64;
/// A token's claims are some hundred bytes.
const MAX_TOKEN: u64 = 16 << 10;

/// What a token that is bound to a pod says (kubernetes' pkg/serviceaccount/claims.go, `privateClaims`).
#[derive(Deserialize)]
struct Claims {
    /// RFC 7519, section 4.1.2; `system:serviceaccount:<namespace>:<name>`.
    sub: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

#[derive(Deserialize)]
struct Bound {
    namespace: String,
    pod: Pod,
    serviceaccount: Account,
}

#[derive(Deserialize)]
struct Pod {
    uid: String,
}

#[derive(Deserialize)]
struct Account {
    name: String,
}

/// `<namespace>/<name>`, of the pod with this uid in this namespace. The token isn't verified: the kubelet wrote it, in a
/// folder that is root's. A ConfigMap's file can have the same name, however, and the content that its writer likes: what
/// isn't bound to this very pod is none, and where two of a pod's are of different accounts, neither is believed. Pods
/// without one, or with one in another place, have an account that isn't known here.
pub(super) fn service_account(kubelet: &Folder, pod: &str, namespace: &str) -> Option<String> {
    let volumes = format!("pods/{pod}/volumes/kubernetes.io~projected");
    let volumes = kubelet.folders(&volumes, MAX_VOLUMES).into_iter().map(|name| format!("{volumes}/{name}/token"));
    let mut accounts = volumes.filter_map(|path| account(&kubelet.read_up_to(&path, MAX_TOKEN)?, pod, namespace));
    let first = accounts.next()?;
    accounts.all(|other| other == first).then_some(first)
}

fn account(token: &[u8], pod: &str, namespace: &str) -> Option<String> {
    let claims = token.trim_ascii().split(|byte| *byte == b'.').nth(1)?;
    let Claims { sub, bound } = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let account = format!("{namespace}/{}", bound.serviceaccount.name);
    let is_of_pod = bound.pod.uid == pod && bound.namespace == namespace;
    (is_of_pod && sub == format!("system:serviceaccount:{namespace}:{}", bound.serviceaccount.name)).then_some(account)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn the_projected_token_names_the_account() {
        // As the kubelet's AtomicWriter lays it out (pkg/volume/util/atomic_writer.go).
        let root = tempfile::tempdir().unwrap();
        let token = |pod: &str, namespace: &str, name: &str| {
            let claims = serde_json::json!({
                "iss": "https://k", "sub": format!("system:serviceaccount:{namespace}:{name}"),
                "kubernetes.io": {
                    "namespace": namespace,
                    "pod": { "name": "coder-0", "uid": pod },
                    "serviceaccount": { "name": name, "uid": "14a7d3a5" },
                },
            });
            format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
        };
        let volume = root.path().join("pods/8f3d/volumes/kubernetes.io~projected/kube-api-access-x7k2p");
        fs::create_dir_all(volume.join("..2026_11_21")).unwrap();
        fs::write(volume.join("..2026_11_21/token"), token("8f3d", "agents", "coder")).unwrap();
        symlink("..2026_11_21", volume.join("..data")).unwrap();
        symlink("..data/token", volume.join("token")).unwrap();
        let kubelet = Folder::open(root.path()).unwrap();
        let of = |pod: &str, namespace: &str| service_account(&kubelet, pod, namespace);
        assert_eq!(of("8f3d", "agents").as_deref(), Some("agents/coder"));
        assert_eq!((of("8f3d", "others"), of("8f3e", "agents")), (None, None));
        // A ConfigMap's, of another pod or without one, of another namespace, in two minds.
        let other = root.path().join("pods/8f3d/volumes/kubernetes.io~projected/a");
        fs::create_dir_all(&other).unwrap();
        let unbound = URL_SAFE_NO_PAD.encode(r#"{"sub":"system:serviceaccount:agents:admin"}"#);
        let torn = token("8f3d", "agents", "admin").replace("Mi", "");
        let forged =
            [token("8f3e", "agents", "admin"), token("8f3d", "others", "admin"), format!("a.{unbound}.c"), torn];
        for token in forged.iter().map(String::as_str).chain(["", "a.b.c", "..", "a.e30.c"]) {
            fs::write(other.join("token"), token).unwrap();
            assert_eq!(of("8f3d", "agents").as_deref(), Some("agents/coder"), "{token}");
        }
        let claims = |sub: &str| {
            let bound =
                r#""kubernetes.io":{"namespace":"agents","pod":{"uid":"8f3d"},"serviceaccount":{"name":"coder"}}"#;
            format!("a.{}.c", URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{sub}",{bound}}}"#)))
        };
        assert_eq!(account(claims("system:serviceaccount:agents:admin").as_bytes(), "8f3d", "agents"), None);
        assert!(account(claims("system:serviceaccount:agents:coder").as_bytes(), "8f3d", "agents").is_some());
        // One that is this pod's by all that it says, and says another account.
        fs::write(other.join("token"), token("8f3d", "agents", "admin")).unwrap();
        assert_eq!(of("8f3d", "agents"), None);
    }
}
