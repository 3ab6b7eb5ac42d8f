//! Agents in containers: each in a network namespace of its own, and called by what its engine calls it.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::fs;

use chaperone_system_tests::{Lab, PERMIT_ALL, both, text};

/// How many containers are started, one after the other.
const STARTS: usize = 5;

/// podman as it runs on hosts of both cgroup hierarchies: in a mount namespace where there is only version 2, with state of
/// its own. The container has this host's programs, and of `/etc` what a TLS client needs.
const SCRIPT: &str = r#"
set -e
# In a chroot, `/` is no mount: then a bind mount of it becomes one, which runc needs.
if ! cut -d ' ' -f 5 /proc/self/mountinfo | grep -qx /; then
  mkdir -p $CHAPERONE_LAB/root; mount --rbind / $CHAPERONE_LAB/root; exec chroot $CHAPERONE_LAB/root sh $0
fi
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run
cd $CHAPERONE_LAB
mkdir -p image/usr image/etc/ssl image/proc image/sys image/dev image/tmp image/root
for name in bin lib lib64; do ln -s usr/$name image/$name; done
podman="podman --root $CHAPERONE_LAB/podman --runroot /run/podman --storage-driver vfs --cgroup-manager cgroupfs
  --runtime runc --events-backend none"
tar -C image -c . | $podman import --change 'LABEL from=image' - example.com/agents/coder:1 >/dev/null 2>&1
getent hosts sts.eu-west-1.amazonaws.com > hosts
parent=$(sed -n 's|^cgroups = \["\(.*\)/\*"\]|\1|p' $CHAPERONE_CONFIG)
for number in $(seq $STARTS); do
  $podman run --rm --name agent-$number --label number=$number --label team=red --network none --cgroup-parent=$parent \
    --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --pids-limit -1 --env-host --env HOME=/root \
    -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v $CHAPERONE_LAB/hosts:/etc/hosts:ro \
    example.com/agents/coder:1 /usr/bin/aws --region eu-west-1 sts get-caller-identity
done
"#;

#[test]
fn a_containers_calls_are_recorded_with_its_id_image_and_labels_the_first_one_too() {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let config = folder.path().join("containers.toml");
    fs::write(&config, "[containers]\npodman = [\"${LAB}/podman\"]\n").unwrap();
    let lab = Lab::start_with(&["--aws", "moto", "--config", config.to_str().unwrap()], PERMIT_ALL);
    let script = lab.file("containers.sh", SCRIPT);
    let output = lab.operator(&format!("STARTS={STARTS} unshare -m --propagation unchanged sh {script}"));
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());

    let calls = lab.calls();
    assert_eq!(calls.len(), STARTS, "{calls:?}");
    let sessions = lab.list("sessions");
    for (number, call) in (1..).zip(&calls) {
        assert_eq!((text(call, "operation"), call["status"].as_u64()), ("GetCallerIdentity", Some(200)), "{call}");
        let session = sessions.iter().find(|session| session["id"] == call["session"]).unwrap();
        let container = &session["container"];
        assert_eq!(text(container, "name"), format!("agent-{number}"), "{session}");
        assert_eq!(text(container, "image"), "example.com/agents/coder:1", "{session}");
        let labels = serde_json::json!({ "from": "image", "number": number.to_string(), "team": "red" });
        assert_eq!(container["labels"], labels, "{session}");
        let id = text(container, "id");
        assert!(id.len() == 64 && text(session, "cgroup").ends_with(id), "{session}");
    }
    let table = lab.operator_ok("chaperone sessions");
    assert!(table.contains("agent-1 (example.com/agents/coder:1)"), "{table}");
}
