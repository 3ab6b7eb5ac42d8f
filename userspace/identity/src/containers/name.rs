//! What the name of a cgroup says of a container.

/// A container's cgroup, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerName<'a> {
    /// 64 hexadecimal digits.
    pub(super) id: &'a str,
    /// The container's own cgroup, which the path leads to or into.
    pub(super) cgroup: &'a str,
    /// The pod's uid, if the kubelet made the cgroup.
    pub(super) pod: Option<String>,
    /// The user whose own service manager or engine it is of.
    pub(super) user: Option<u32>,
}

/// What engines put before the id: podman, podman with `--cgroups=split` as Quadlet has it, Docker, containerd's CRI and
/// CRI-O with systemd, nerdctl. Docker's and containerd's cgroupfs drivers put nothing.
pub(crate) const PREFIXES: [&str; 7] =
    ["libpod-", "libpod-payload-", "docker-", "cri-containerd-", "crio-", "nerdctl-", ""];

impl<'a> ContainerName<'a> {
    /// The outermost counts: in its own cgroup, a container's root may make others.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let (mut end, mut pod, mut user) = (0, None, None);
        for part in path.strip_prefix('/')?.split('/') {
            end += 1 + part.len();
            if let Some(id) = id(part) {
                return Some(Self { id, cgroup: &path[..end], pod, user });
            }
            user = user.or_else(|| user_of(part));
            pod = pod.or_else(|| pod_of(part));
        }
        None
    }
}

fn id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    PREFIXES.iter().find_map(|prefix| {
        let id = part.strip_prefix(prefix)?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))).then_some(id)
    })
}

/// `kubepods-besteffort-pod<uid>.slice` with `_` for `-` by systemd, `pod<uid>` by cgroupfs (the kubelet's
/// pkg/kubelet/cm/pod_container_manager_linux.go and cgroup_manager_linux.go).
fn pod_of(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.strip_prefix("kubepods-")?.rsplit('-').next()?.strip_prefix("pod")?.replace('_', "-"),
        None => part.strip_prefix("pod")?.to_owned(),
    };
    let fits = uid.len() <= 64 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (fits && uid.bytes().any(|byte| byte.is_ascii_hexdigit())).then_some(uid)
}

/// `user@<uid>.service`, by systemd.
fn user_of(part: &str) -> Option<u32> {
    part.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroups_name_tells_the_container() {
        let id = "6a909d5105424117f1b7c8820324fb8852db99fdfa409e3f1d66b91b6f881c92";
        for (path, cgroup) in [
            (format!("/agents/libpod-{id}"), format!("/agents/libpod-{id}")),
            (format!("/machine.slice/libpod-{id}.scope/container"), format!("/machine.slice/libpod-{id}.scope")),
            (format!("/agents/libpod-{id}/libpod-{}", "0".repeat(64)), format!("/agents/libpod-{id}")),
            (
                format!("/system.slice/a.service/libpod-payload-{id}/x"),
                format!("/system.slice/a.service/libpod-payload-{id}"),
            ),
            (format!("/system.slice/docker-{id}.scope"), format!("/system.slice/docker-{id}.scope")),
            (format!("/docker/{id}/x"), format!("/docker/{id}")),
        ] {
            let name = ContainerName::of(&path).unwrap();
            assert_eq!((name.id, name.cgroup, name.pod, name.user), (id, cgroup.as_str(), None, None), "{path}");
        }
        for path in [
            "",
            "/agents/a",
            "/agents/libpod-conmon-1",
            "/libpod-xyz",
            &format!("/libpod-{id}0"),
            &format!("/machine.slice/libpod-conmon-{id}.scope"),
            &format!("/libpod-{}", id.to_uppercase()),
        ] {
            assert_eq!(ContainerName::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_pods_cgroup_tells_its_uid_and_a_users_the_user() {
        let id = "0".repeat(64);
        let uid = "8f3d2d3e-5f0c-4b0a-9a2e-0c6f1f6f2b11";
        for path in [
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-containerd-{id}.scope",
                uid.replace('-', "_")
            ),
            format!("/kubepods.slice/kubepods-pod{}.slice/crio-{id}.scope/container", uid.replace('-', "_")),
            format!("/kubepods/burstable/pod{uid}/{id}"),
        ] {
            assert_eq!(ContainerName::of(&path).unwrap().pod.as_deref(), Some(uid), "{path}");
        }
        assert_eq!(ContainerName::of(&format!("/podman/libpod-{id}")).unwrap().pod, None);
        assert_eq!(ContainerName::of(&format!("/pod../{id}")).unwrap().pod, None);
        let path = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope");
        assert_eq!(ContainerName::of(&path).unwrap().user, Some(1000));
    }
}
