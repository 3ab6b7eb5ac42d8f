//! Agents in containers: each in a network namespace of its own, and called by what its engine calls it.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    process::Output,
    sync::{Mutex, PoisonError},
};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, python, script, text, until};

/// How many containers are started, one after the other; more by `CHAPERONE_TEST_STARTS`.
const STARTS: usize = 5;

/// One test at a time: where a rule names containers by what they are, every container of the host is held until it is known
/// whose it is, another test's too.
static ALONE: Mutex<()> = Mutex::new(());

/// podman as it runs on hosts of both cgroup hierarchies: in a mount namespace where there is only version 2, with state of
/// its own. The container has this host's programs, and of `/etc` what a TLS client needs.
const PREPARE: &str = r#"
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
for name in bin lib lib64; do [ -L image/$name ] || ln -s usr/$name image/$name; done
podman="podman --root $CHAPERONE_LAB/podman --runroot /run/podman --storage-driver vfs --cgroup-manager cgroupfs
  --runtime runc --events-backend none"
tar -C image -c . | $podman import --change 'LABEL from=image' - example.com/agents/coder:1 >/dev/null 2>&1
getent hosts sts.eu-west-1.amazonaws.com > hosts
parent=$(sed -n 's|^cgroups = \["\(.*\)/\*"\]|\1|p' $CHAPERONE_CONFIG)
# run NAME PARENT [OPTION …] -- COMMAND …
run() {
  name=$1 under=$2; shift 2; options=
  while [ "$1" != -- ]; do options="$options $1"; shift; done; shift
  $podman run --rm --name $name $options --network none --cgroup-parent=$under \
    --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --pids-limit -1 --env-host --env HOME=/root \
    -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v $CHAPERONE_LAB/hosts:/etc/hosts:ro -v $CHAPERONE_LAB:$CHAPERONE_LAB:ro \
    example.com/agents/coder:1 "$@"
}
"#;

fn lab(config: &str) -> Lab {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let file = folder.path().join("containers.toml");
    fs::write(&file, format!("{config}\n[containers]\npodman = [\"${{LAB}}/podman\"]\n")).unwrap();
    Lab::start_with(&["--aws", "moto", "--config", file.to_str().unwrap()], PERMIT_ALL)
}

fn podman(lab: &Lab, script: &str) -> Output {
    let script = lab.file("containers.sh", &format!("{PREPARE}{script}"));
    lab.operator(&format!("unshare -m --propagation unchanged sh {script}"))
}

#[test]
fn a_containers_calls_are_recorded_with_its_id_image_and_labels_the_first_one_too() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let starts: usize = std::env::var("CHAPERONE_TEST_STARTS").map_or(STARTS, |starts| starts.parse().unwrap());
    let lab = lab("");
    let output = podman(
        &lab,
        &format!(
            "for number in $(seq {starts}); do
               run agent-$number $parent --label number=$number --label team=red -- \\
                 /usr/bin/aws --region eu-west-1 sts get-caller-identity
             done"
        ),
    );
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());

    let calls = lab.calls();
    assert_eq!(calls.len(), starts, "{calls:?}");
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
    println!("{starts} of {starts} starts: the first call captured, recorded with id, image and labels");
    let table = lab.operator_ok("chaperone sessions");
    assert!(table.contains("agent-1 (example.com/agents/coder:1)"), "{table}");
}

#[test]
fn a_container_is_an_agents_by_its_label_and_others_go_unhindered() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = lab("[[agents]]\nname = \"coder\"\ncgroups = [\"${CGROUP}/agents/*\"]\n\
         [[agents]]\nname = \"red\"\nlabels = [\"team=red\"]\n");
    let dial = lab.file("dial.py", &fs::read_to_string(script("dial_itself.py")).unwrap());
    let output = podman(
        &lab,
        &format!(
            "free=${{parent%/agents}}/free
             for number in 1 2 3; do
               run red-$number $free --label team=red -- /usr/bin/aws --region eu-west-1 sts get-caller-identity
               run blue-$number $free --label team=blue -- /usr/bin/python3 {dial}
             done
             # Where the operator puts it comes first.
             run coder-1 $parent --label team=red -- /usr/bin/aws --region eu-west-1 sts get-caller-identity"
        ),
    );
    let said = both(&output);
    assert!(output.status.success(), "{said}\n{}", lab.log());
    println!("{said}");
    assert!(said.matches("free after").count() == 3 && !said.contains("met "), "{said}\n{}", lab.log());

    let sessions = lab.list("sessions");
    let calls = lab.calls();
    let agents: Vec<_> = calls
        .iter()
        .map(|call| {
            let session = sessions.iter().find(|session| session["id"] == call["session"]).unwrap();
            assert_eq!(call["status"].as_u64(), Some(200), "{call}");
            (text(session, "agent"), text(&session["container"], "name"))
        })
        .collect();
    assert_eq!(agents, [("red", "red-1"), ("red", "red-2"), ("red", "red-3"), ("coder", "coder-1")]);
    // Nothing is recorded of the others, nor kept.
    let of_containers = sessions.iter().filter(|session| !session["container"].is_null());
    assert_eq!(of_containers.count(), 4, "{sessions:?}");
    let commands = lab.list("commands");
    assert!(commands.iter().all(|it| !it["argv"].to_string().contains("dial.py")), "{commands:?}");
    let rules = lab.operator_ok("chaperone agents");
    assert!(rules.contains("labels \"team=red\""), "{rules}");

    // One that no engine describes is held, and doctor says so.
    let unknown = lab.operator_ok(&format!(
        "below=$(sed -n 's|^cgroups = \\[\"\\(.*\\)/agents/\\*\"\\]|\\1|p' $CHAPERONE_CONFIG)
         cgroup=$(grep -m 1 ' - cgroup2 ' /proc/self/mountinfo | cut -d ' ' -f 5)$below/free/docker-{}.scope
         mkdir $cgroup
         (echo 0 > $cgroup/cgroup.procs; exec curl -sS -m 20 https://sts.eu-west-1.amazonaws.com/ 2>&1) && echo reached
         chaperone doctor
         rmdir $cgroup",
        "0f".repeat(32)
    ));
    assert!(!unknown.contains("reached") && unknown.contains("it isn't known whose this container is"), "{unknown}");
    assert_eq!(lab.calls().len(), 4);

    // A container outlives the daemon, and is the agent's to the next one.
    let again = lab.file(
        "again.sh",
        &format!(
            "{PREPARE}run red-4 ${{parent%/agents}}/free --label team=red -- /bin/sh -c \
             'while [ ! -e {0}/go ]; do sleep 0.1; done; aws --region eu-west-1 sts get-caller-identity'",
            lab.dir.display()
        ),
    );
    lab.operator_ok(&format!("unshare -m --propagation unchanged sh {again} > $CHAPERONE_LAB/again 2>&1 &"));
    until("the container is there", || lab.operator_ok("chaperone agents --json").matches("/free/libpod-").count() > 0);

    // While there is no daemon nobody knows whose a container is: it waits, and goes on.
    lab.operator_ok("kill -9 $(cat $CHAPERONE_LAB/daemon.pid)");
    let waiting =
        lab.file("wait.sh", &format!("{PREPARE}run late ${{parent%/agents}}/free -- /usr/bin/python3 {dial}"));
    let output = lab.file("late", "");
    lab.operator_ok(&format!("unshare -m --propagation unchanged sh {waiting} > {output} 2>&1 &"));
    let said = || fs::read_to_string(&output).unwrap();
    until("the container dials", || said().contains("met ") || said().contains("free"));
    assert!(said().contains("met EPERM"), "{}", said());
    lab.restart();
    until("the container is free", || said().contains("free after"));
    assert_eq!(lab.calls().len(), 4);
    lab.file("go", "");
    until("the earlier container's call", || lab.calls().len() == 5);
    let session = lab.list("sessions").into_iter().find(|session| session["id"] == lab.calls()[4]["session"]).unwrap();
    assert_eq!((text(&session, "agent"), text(&session["container"], "name")), ("red", "red-4"));
}

/// Asks every metadata service as its SDKs do, and prints whose keys it was given.
const METADATA: &str = r#"
import http.client, json, sys
def ask(host, method, path, headers={}):
    connection = http.client.HTTPConnection(host, 80, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    assert answer.status == 200, (host, path, answer.status, body)
    return body
for host in ["169.254.169.254", "fd00:ec2::254"]:
    token = ask(host, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    path, headers = "/latest/meta-data/iam/security-credentials/", {"X-aws-ec2-metadata-token": token}
    keys = json.loads(ask(host, "GET", path + ask(host, "GET", path, headers), headers))
    print("key", host, keys["AccessKeyId"])
print("key 169.254.170.2", json.loads(ask("169.254.170.2", "GET", "/v2/credentials/5f2d"))["AccessKeyId"])
for host in ["169.254.170.23", "fd00:ec2::23"]:
    keys = json.loads(ask(host, "GET", "/v1/credentials", {"Authorization": "token"}))
    print("key", host, keys["AccessKeyId"])
"#;

#[test]
fn metadata_addresses_are_answered_inside_a_containers_namespace() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = lab("");
    let script = lab.file("metadata.py", METADATA);
    let output = podman(&lab, &format!("run asking $parent -- /usr/bin/python3 {script}"));
    let said = both(&output);
    assert!(output.status.success(), "{said}\n{}", lab.log());
    let said = String::from_utf8_lossy(&output.stdout);
    let keys: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("key ")?.split_once(' ')).collect();
    let hosts: Vec<_> = keys.iter().map(|(host, _)| *host).collect();
    assert_eq!(hosts, ["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"]);
    let real = lab.operator_ok("head -n 1 $CHAPERONE_LAB/secrets/key");
    assert!(keys.iter().all(|(_, key)| key.starts_with("ASIA") && *key != real.trim()), "{keys:?}");
    let connections = lab.connections(5);
    assert!(connections.iter().all(|connection| text(connection, "kind") == "metadata"), "{connections:?}");
}

/// What every program of the image says in an agent's container. The variables are those that name the store, and two for
/// what adds the CA to what it brings along.
const VERIFIED: [&str; 5] = [
    "verified curl",
    "verified python",
    "verified without-variables",
    "verified boto3 123456789012",
    "verified boto3-by-its-own-store 123456789012",
];

#[test]
fn an_image_that_knows_nothing_of_the_ca_trusts_it_in_an_agents_container_alone() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = lab("[[agents]]\nname = \"coder\"\ncgroups = [\"${CGROUP}/agents/*\"]\n\
         [[agents]]\nname = \"red\"\nlabels = [\"team=red\"]\n");
    let started = |rest: &str| {
        let output = podman(
            &lab,
            &format!(
                "free=${{parent%/agents}}/free
                 start() {{
                   image=$1; shift; options=
                   while [ \"$1\" != -- ]; do options=\"$options $1\"; shift; done; shift
                   $podman run --rm $options --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \\
                     --pids-limit -1 --env AWS_DEFAULT_REGION=eu-west-1 --env HOME=/root \\
                     -v $CHAPERONE_LAB/hosts:/etc/hosts:ro example.com/$image:1 \"$@\"
                 }}
                 {rest}"
            ),
        );
        let said = both(&output);
        assert!(output.status.success(), "{said}\n{}", lab.log());
        said
    };
    println!("{}", lab.operator_ok("cat /etc/containers/oci/hooks.d/50-chaperone.json; chaperone trust status"));
    let said = started(&format!(
        "sh {} plain {}
         tar -C plain -c . | $podman import - example.com/plain:1 > /dev/null 2>&1
         # Without any store: neither the system's nor any that a library brings along.
         tar -C plain --exclude=./etc/ssl --exclude=cacert.pem -c . | $podman import - example.com/bare:1 > /dev/null 2>&1
         start plain --cgroup-parent=$free --label team=red -- try",
        script("plain_image.sh").display(),
        python()
    ));
    println!("{said}");
    assert!(VERIFIED.iter().all(|line| said.contains(line)), "{said}");
    // The image's own CA stays beside ours.
    assert!(said.contains("store 2 variables 5"), "{said}");

    let said = started("start bare --cgroup-parent=$parent -- try");
    println!("{said}");
    assert!(VERIFIED.iter().take(4).all(|line| said.contains(line)), "{said}");

    // What the container says of a store is its own to say, and that store has the CA then, too.
    let own = "start plain --cgroup-parent=$free --label team=red \
               --env SSL_CERT_FILE=/usr/local/lib/python3.11/dist-packages/certifi/cacert.pem \
               -- /bin/sh -c 'echo $SSL_CERT_FILE; try'";
    let said = started(own);
    assert!(VERIFIED.iter().all(|line| said.contains(line)) && said.contains("certifi/cacert.pem"), "{said}");

    // Others' containers are of the same image, and are left as it is.
    let said = started(
        "start plain --cgroup-parent=$free --label team=blue -- /bin/sh -c \
         'grep -c BEGIN /etc/ssl/certs/ca-certificates.crt; env; echo /usr/local/share/ca-certificates/* /etc/ssl/certs/*'",
    );
    assert!(said.contains("1\n") && !said.contains("chaperone") && !said.contains("SSL_CERT_FILE"), "{said}");
    let calls = lab.calls_like("--action sts:GetCallerIdentity --decision allow");
    assert_eq!(calls.len(), 5, "{calls:?}");
}
