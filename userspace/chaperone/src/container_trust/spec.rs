//! A container's configuration (OCI runtime specification): whose it is, where its files are, and what its programs are
//! told of the CA.

use std::path::Path;

use anyhow::Context as _;
use chaperone_authority::{CaCertificate, Merged, Trust, trust_below};
use serde_json::Value;

use crate::config::Config;

/// Programs that read these replace what they bring by what the variable names, which is the image's own store.
const BUNDLE: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"];
/// Programs that read these add it to what they bring.
const ADDED: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Others that may name a store, which is then the container's choice.
const OTHERS: [&str; 6] =
    ["AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "CARGO_HTTP_CAINFO", "NIX_SSL_CERT_FILE"];
/// By which engines of the CRI's say that it is the pod's own, which has no program but one that waits.
const KINDS: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
/// Where hosts have their stores.
const HOSTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

/// Has an agent's container trust the CA. Gives nothing if it is nobody's, and else whether `spec` was changed, and what
/// didn't go well.
pub fn adjust(spec: &mut Value, bundle: &Path, config: &Path) -> anyhow::Result<Option<(bool, Vec<String>)>> {
    let config = Config::read(config)?;
    let Some(agent) = agent(spec, &config)? else { return Ok(None) };
    let root = spec["root"]["path"].as_str().context("the container's configuration names no root")?;
    let root = bundle.join(root);
    let ca = CaCertificate::read(&config.ca().join("ca.crt"))?;
    let host = Trust::of_host().ok().map(|trust| trust.bundle().to_owned());
    let host = host.or_else(|| HOSTS.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned));
    let host = host.unwrap_or_else(|| HOSTS[0].to_owned());
    let named: Vec<_> =
        BUNDLE.iter().chain(&ADDED).chain(&OTHERS).filter_map(|name| variable(spec, name)).map(str::to_owned).collect();
    let merged = trust_below(&root, &ca, Path::new(&host), &named)?;
    let changed = tell(spec, &merged);
    let failed = merged.failed.iter();
    let said =
        failed.map(|(path, why)| format!("agent `{agent}`, {}: {path} doesn't know the CA: {why}", root.display()));
    Ok(Some((changed, said.collect())))
}

/// The agent that it will be one of.
fn agent(spec: &Value, config: &Config) -> anyhow::Result<Option<String>> {
    if KINDS.iter().any(|kind| spec["annotations"][kind] == "sandbox") {
        return Ok(None);
    }
    let Some(path) = spec["linux"]["cgroupsPath"].as_str().and_then(cgroup) else { return Ok(None) };
    let (agents, _) = config.known_agents()?;
    if let Some((agent, _)) = agents.of(&path) {
        return Ok(Some(agent.name.clone()));
    }
    if !agents.hold_containers() {
        return Ok(None);
    }
    let Some(described) = config.containers.containers().described(&path) else { return Ok(None) };
    Ok(agents.of_container(&described)?.map(|agent| agent.name.clone()))
}

/// The cgroup that a runtime makes of `cgroupsPath`: a path, or by systemd `slice:prefix:name`.
fn cgroup(path: &str) -> Option<String> {
    let Some((slice, rest)) = path.split_once(':') else {
        return Some(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
    };
    let (prefix, name) = rest.split_once(':')?;
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let stem = slice.strip_suffix(".slice")?;
    // `a-b.slice` is in `a.slice`; `-.slice` is the root.
    let dashes = stem.match_indices('-').map(|(at, _)| at).filter(|at| *at > 0);
    let folders = dashes.chain([stem.len()]).map(|end| format!("/{}.slice", &stem[..end]));
    let folder: String = if stem == "-" { String::new() } else { folders.collect() };
    Some(if name.strip_suffix(".slice").is_some() {
        format!("{folder}/{name}")
    } else if prefix.is_empty() {
        format!("{folder}/{name}.scope")
    } else {
        format!("{folder}/{prefix}-{name}.scope")
    })
}

fn variable<'a>(spec: &'a Value, name: &str) -> Option<&'a str> {
    let all = spec["process"]["env"].as_array()?;
    all.iter().rev().filter_map(Value::as_str).find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Sets what isn't set, where what it names isn't hidden by a mount.
fn tell(spec: &mut Value, merged: &Merged) -> bool {
    let mounts = spec["mounts"].as_array().cloned().unwrap_or_default();
    let hidden = |path: &str| {
        let destinations = mounts.iter().filter_map(|mount| mount["destination"].as_str());
        destinations.into_iter().any(|destination| Path::new(path).starts_with(destination))
    };
    let bundle = BUNDLE.iter().zip(std::iter::repeat(merged.bundle.as_deref()));
    let added = ADDED.iter().zip(std::iter::repeat(merged.anchor.as_deref()));
    let wanted: Vec<_> = bundle
        .chain(added)
        .filter_map(|(name, path)| Some((*name, path?)))
        .filter(|(name, path)| variable(spec, name).is_none() && !hidden(path))
        .map(|(name, path)| Value::from(format!("{name}={path}")))
        .collect();
    let Some(process) = spec["process"].as_object_mut() else { return false };
    let Some(all) = process.entry("env").or_insert_with(|| Value::Array(Vec::new())).as_array_mut() else {
        return false;
    };
    all.extend(wanted.iter().cloned());
    !wanted.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_containers_cgroup_is_told_as_runtimes_make_it() {
        for (path, expected) in [
            ("/agents/libpod-1", "/agents/libpod-1"),
            ("agents/1", "/agents/1"),
            ("machine.slice:libpod:1", "/machine.slice/libpod-1.scope"),
            (":docker:1", "/system.slice/docker-1.scope"),
            ("-.slice:docker:1", "/docker-1.scope"),
            (
                "kubepods-besteffort-pod1_2.slice:cri-containerd:1",
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/cri-containerd-1.scope",
            ),
            ("user.slice::1", "/user.slice/1.scope"),
            ("user.slice::a.slice", "/user.slice/a.slice"),
        ] {
            assert_eq!(cgroup(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!((cgroup("a:b"), cgroup("a:b:c")), (None, None));
    }

    #[test]
    fn variables_are_added_and_never_replaced() {
        let merged = Merged {
            bundle: Some("/etc/ssl/certs/ca-certificates.crt".into()),
            anchor: Some("/usr/local/share/ca-certificates/chaperone.crt".into()),
            ..Merged::default()
        };
        let mut spec = json!({ "process": { "env": ["PATH=/bin", "SSL_CERT_FILE=/own.pem"] },
                               "mounts": [{ "destination": "/proc" }, { "destination": "/usr" }] });
        assert!(tell(&mut spec, &merged));
        let expected = json!([
            "PATH=/bin",
            "SSL_CERT_FILE=/own.pem",
            "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=/etc/ssl/certs/ca-certificates.crt",
        ]);
        assert_eq!(spec["process"]["env"], expected);
        assert!(!tell(&mut spec, &merged));
        // Without any, and without a process, as `runc` has it when only a namespace is made.
        let mut spec = json!({ "process": {} });
        assert!(tell(&mut spec, &merged) && spec["process"]["env"].as_array().unwrap().len() == 5);
        assert!(!tell(&mut json!({}), &merged));
    }
}
