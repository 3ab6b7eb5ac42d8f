//! Agents in containers of Docker's, and in pods as a kubelet has containerd make them.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    sync::{Mutex, PoisonError},
};

use chaperone_system_tests::{Lab, PERMIT_ALL, installed, python, script, text, until};
use serde_json::{Value, json};

/// One test at a time, as in `containers.rs`.
static ALONE: Mutex<()> = Mutex::new(());

/// What is enrolled is told by labels alone.
const CONFIG: &str = r#"
[[agents]]
name = "red"
labels = ["team=red"]
[containers]
docker = ["${LAB}/docker"]
containerd = ["${LAB}/containerd-state", "${LAB}/containerd"]
kubelet = ["${LAB}/kubelet"]
runtime = "${LAB}/runc"
"#;

/// In the engines' mount namespace; `free` is a cgroup that no rule names.
const INSIDE: &str = r"
set -e
export PATH=$ENGINES/usr/bin:$ENGINES/usr/sbin:$PATH
free=$(sed -n 's|^cgroups = \[\x22\(.*\)/agents/\*\x22\]|\1|p' $CHAPERONE_CONFIG)/free
# run NAME [OPTION …] -- COMMAND …
run() {
  name=$1; shift; options=
  while [ $1 != -- ]; do options=$options\ $1; shift; done; shift
  program=$1; shift
  docker run --name $name $options --network none --cgroup-parent $free --entrypoint $program \
    -e AWS_DEFAULT_REGION=eu-west-1 -e HOME=/root -e REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    -v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v $CHAPERONE_LAB/hosts:/etc/hosts:ro -v $CHAPERONE_LAB:$CHAPERONE_LAB:ro \
    example.com/agents/coder:1 $@
}
";

struct Engines {
    lab: Lab,
    _alone: std::sync::MutexGuard<'static, ()>,
}

impl Engines {
    fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("engines.toml");
        // The lab's own agent stays, whose rule tells the scripts where its cgroups are.
        let own = "[[agents]]\nname = \"coder\"\ncgroups = [\"${CGROUP}/agents/*\"]\n";
        fs::write(&file, format!("{own}{CONFIG}")).unwrap();
        let lab = Lab::start_with(&["--aws", "moto", "--config", file.to_str().unwrap()], PERMIT_ALL);
        let (start, engines) = (script("engines.sh"), installed("engines"));
        lab.operator_ok(&format!(
            "unshare -m --propagation unchanged sh {} {} > $CHAPERONE_LAB/engines.log 2>&1 || {{
               tail -n 20 $CHAPERONE_LAB/engines.log $CHAPERONE_LAB/*d.log; exit 1; }}",
            start.display(),
            engines.display()
        ));
        Self { lab, _alone: alone }
    }

    /// Runs a script beside the engines, which must succeed.
    fn inside(&self, script: &str) -> String {
        let script = self.lab.file("inside.sh", &format!("ENGINES={}{INSIDE}{script}", installed("engines").display()));
        self.lab.operator_ok(&format!("nsenter -t $(cat $CHAPERONE_LAB/engines.pid) -m -r -w sh {script} 2>&1"))
    }

    /// Asks containerd for something, as a kubelet does.
    fn cri(&self, method: &str, request: &Value) -> Value {
        let request = self.lab.file("request.json", &request.to_string());
        let said = self.inside(&format!(
            "python3 {} /run/containerd/containerd.sock {method} \"$(cat {request})\"",
            script("cri.py").display()
        ));
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{method}: {said}"))
    }

    /// The session of a call.
    fn session_of(&self, call: &Value) -> Value {
        assert_eq!(call["status"].as_u64(), Some(200), "{call}");
        self.lab.list("sessions").into_iter().find(|session| session["id"] == call["session"]).unwrap()
    }

    /// How many file descriptors the daemon has, listeners in namespaces among them, and how many sessions are open.
    fn held(&self) -> (usize, usize) {
        let status: Value = serde_json::from_str(&self.lab.operator_ok("chaperone status --json")).unwrap();
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.lab.daemon())).unwrap().count();
        (descriptors, status["sessions"].as_array().unwrap().len())
    }
}

#[test]
fn a_docker_container_is_an_agents_by_its_label_from_its_first_call_until_it_is_removed() {
    let engines = Engines::start();
    let lab = &engines.lab;
    let dial = lab.file("dial.py", &fs::read_to_string(script("dial_itself.py")).unwrap());
    let said = engines.inside(&format!(
        "for number in 1 2 3; do
           run red-$number --rm --label team=red -- /usr/bin/aws s3api list-buckets
           run blue-$number --rm --label team=blue -- /usr/bin/python3 {dial}
         done"
    ));
    println!("{said}");
    assert!(said.matches("free after").count() == 3 && !said.contains("met "), "{said}\n{}", lab.log());
    let calls = lab.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    for (number, call) in (1..).zip(&calls) {
        let (session, container) = (engines.session_of(call), &engines.session_of(call)["container"]);
        assert_eq!((text(call, "operation"), text(&session, "agent")), ("ListBuckets", "red"), "{call}");
        assert_eq!(text(container, "name"), format!("red-{number}"));
        assert_eq!(text(container, "image"), "example.com/agents/coder:1");
        assert!(text(container, "image_id").starts_with("sha256:"), "{container}");
        assert_eq!(container["labels"], json!({ "from": "image", "team": "red" }));
        assert!(text(&session, "cgroup").ends_with(&format!("/free/{}", text(container, "id"))), "{session}");
    }

    // What is executed in a container that runs already is the container's.
    until("the end of the containers' sessions", || engines.held().1 == 0);
    let before = engines.held().0;
    engines.inside("run stays -d --label team=red -- /usr/bin/sleep 100000");
    engines.inside("docker exec stays /usr/bin/aws sts get-caller-identity");
    let call = lab.calls().pop().unwrap();
    let session = engines.session_of(&call);
    assert_eq!((text(&call, "operation"), text(&session["container"], "name")), ("GetCallerIdentity", "stays"));
    let commands = lab.list("commands");
    let command = commands.iter().find(|command| command["id"] == call["command"]).unwrap();
    assert_eq!(text(command, "session"), text(&session, "id"));
    assert!(command["argv"].to_string().contains("get-caller-identity"), "{command}");
    assert!(commands.iter().all(|it| !it["argv"].to_string().contains("dial.py")), "{commands:?}");

    engines.inside("docker rm -f stays");
    until("the container's listeners and session are gone", || engines.held() <= (before, 0));

    // A runtime of gVisor's name, as far as Docker knows.
    engines.inside("run sandboxed -d --runtime runsc --label team=red -- /usr/bin/sleep 100000");
    let doctor = lab.operator("chaperone doctor");
    let said = String::from_utf8_lossy(&doctor.stdout);
    let line = said.lines().find(|line| line.contains("can't be captured")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("FAIL") && line.contains("agent `red`, runsc") && !doctor.status.success(), "{said}");
    until("the log names it, too", || lab.log().contains("its runtime has a network of its own"));
    engines.inside("docker rm -f sandboxed");

    println!("docker {}", engines.inside("docker version --format '{{.Server.Version}}'").trim());
}

const POD_UID: &str = "8f3d2d3e-5f0c-4b0a-9a2e-0c6f1f6f2b11";

#[test]
fn a_pods_containers_are_an_agents_by_the_pods_label() {
    let engines = Engines::start();
    let lab = &engines.lab;
    // As the kubelet lays it out. The claims: {"sub":"system:serviceaccount:agents:coder","kubernetes.io":{"namespace":
    // "agents","pod":{"name":"coder-0","uid":POD_UID},"serviceaccount":{"name":"coder","uid":"14ee3fa4-…"}}}.
    let token = concat!(
        "e30.",
        "eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YWdlbnRzOmNvZGVyIiwia3ViZXJuZXRlcy5pbyI6eyJuYW1lc3BhY2Ui",
        "OiJhZ2VudHMiLCJwb2QiOnsibmFtZSI6ImNvZGVyLTAiLCJ1aWQiOiI4ZjNkMmQzZS01ZjBjLTRiMGEtOWEyZS0wYzZmMWY2",
        "ZjJiMTEifSwic2VydmljZWFjY291bnQiOnsibmFtZSI6ImNvZGVyIiwidWlkIjoiMTRlZTNmYTQtYTdlMi00MjBmLTlmOWEt",
        "ZGJjNDUwN2MzNzk4In19fQ",
        ".e30"
    );
    let volume = lab.dir.join(format!("kubelet/pods/{POD_UID}/volumes/kubernetes.io~projected/kube-api-access-x7k2p"));
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("token"), token).unwrap();
    let parent = engines.inside(&format!("mkdir -p /sys/fs/cgroup$free/kubepods/besteffort/pod{POD_UID}; echo $free"));
    let parent = format!("{}/kubepods/besteffort/pod{POD_UID}", parent.trim());

    let pod_labels = |team: &str| {
        json!({ "team": team, "io.kubernetes.pod.name": "coder-0", "io.kubernetes.pod.namespace": "agents",
                "io.kubernetes.pod.uid": POD_UID })
    };
    let mount = |path: &str, from: &str| json!({ "container_path": path, "host_path": from, "readonly": true });
    let lab_dir = lab.dir.to_str().unwrap();
    let before = engines.held().0;
    let start = |team: &str, name: &str, command: &[&str]| {
        let sandbox = json!({
            "metadata": { "name": name, "uid": POD_UID, "namespace": "agents" },
            "hostname": name, "log_directory": format!("{lab_dir}/pods"), "labels": pod_labels(team),
            "linux": { "cgroup_parent": parent },
        });
        let pod = engines.cri("RunPodSandbox", &json!({ "config": sandbox }));
        let container = json!({
            "metadata": { "name": "agent" }, "image": { "image": "example.com/agents/coder:1" }, "command": command,
            "envs": [{ "key": "AWS_DEFAULT_REGION", "value": "eu-west-1" }, { "key": "HOME", "value": "/root" },
                     { "key": "REQUESTS_CA_BUNDLE", "value": "/etc/ssl/certs/ca-certificates.crt" }],
            "mounts": [mount("/usr", "/usr"), mount("/etc/ssl", "/etc/ssl"), mount(lab_dir, lab_dir),
                       mount("/etc/hosts", &format!("{lab_dir}/hosts"))],
            "labels": { "io.kubernetes.container.name": "agent", "io.kubernetes.pod.name": "coder-0",
                        "io.kubernetes.pod.namespace": "agents", "io.kubernetes.pod.uid": POD_UID },
            "log_path": format!("{name}.log"),
        });
        let made = engines.cri(
            "CreateContainer",
            &json!({ "pod_sandbox_id": pod["pod_sandbox_id"], "config": container, "sandbox_config": sandbox }),
        );
        engines.cri("StartContainer", &made);
        (pod, text(&made, "container_id").to_owned())
    };
    let log = |name: &str| fs::read_to_string(lab.dir.join(format!("pods/{name}.log"))).unwrap_or_default();

    let dial = lab.file("dial.py", &fs::read_to_string(script("dial_itself.py")).unwrap());
    let (blue, _) = start("blue", "blue-0", &["/usr/bin/python3", &dial]);
    until("the other pod's container is free", || log("blue-0").contains("free after"));
    assert!(!log("blue-0").contains("met "), "{}", log("blue-0"));

    let (pod, container) =
        start("red", "coder-0", &["/bin/sh", "-c", "/usr/bin/aws s3api list-buckets; exec sleep 100000"]);
    until("the pod's first call", || log("coder-0").contains("Buckets"));
    let executed = engines.cri(
        "ExecSync",
        &json!({ "container_id": container, "cmd": ["/usr/bin/aws", "sts", "get-caller-identity"], "timeout": 60 }),
    );
    assert!(text(&executed, "stdout").contains("123456789012"), "{executed}\n{}", lab.log());
    let calls = lab.calls();
    let operations: Vec<_> = calls.iter().map(|call| text(call, "operation")).collect();
    assert_eq!(operations, ["ListBuckets", "GetCallerIdentity"]);
    let session = engines.session_of(&calls[0]);
    assert_eq!((&calls[1]["session"], text(&session, "agent")), (&session["id"], "red"));
    let known = &session["container"];
    assert_eq!((text(known, "id"), text(known, "name")), (container.as_str(), "agent"));
    assert_eq!(text(known, "image"), "example.com/agents/coder:1");
    let mut labels = pod_labels("red");
    labels["from"] = "image".into();
    labels["io.cri-containerd.kind"] = "container".into();
    labels["io.kubernetes.container.name"] = "agent".into();
    labels["io.kubernetes.pod.service-account"] = "agents/coder".into();
    assert_eq!(known["labels"], labels);
    assert!(text(&session, "cgroup").ends_with(&format!("/pod{POD_UID}/{container}")), "{session}");

    for pod in [blue, pod] {
        engines.cri("StopPodSandbox", &pod);
        engines.cri("RemovePodSandbox", &pod);
    }
    until("the pod's listeners and session are gone", || engines.held() <= (before, 0));
    println!("{}", engines.inside("ctr version | grep -m 1 Version"));
}

/// What the image's programs say where they trust the CA.
const VERIFIED: [&str; 5] = [
    "verified curl",
    "verified python",
    "verified without-variables",
    "verified boto3 123456789012",
    "verified boto3-by-its-own-store 123456789012",
];

#[test]
fn an_image_that_knows_nothing_of_the_ca_trusts_it_in_docker_and_in_a_pod() {
    let engines = Engines::start();
    let lab = &engines.lab;
    let said = engines.inside(&format!(
        "cd $CHAPERONE_LAB; sh {} plain {}
         tar -C plain -c . | docker import - example.com/plain:1
         docker save example.com/plain:1 | ctr --namespace k8s.io images import --snapshotter native -
         plain() {{
           docker run --rm --network none --cgroup-parent $free $2 --label team=$1 -e AWS_DEFAULT_REGION=eu-west-1 -e HOME=/root \
             -v $CHAPERONE_LAB/hosts:/etc/hosts:ro example.com/plain:1 $3 $4
         }}
         plain red '' try; echo; plain red --read-only try
         plain blue '' cat /usr/local/share/ca-certificates/chaperone.crt 2>&1 | grep 'No such file'",
        script("plain_image.sh").display(),
        python()
    ));
    println!("{said}");
    // A root that is read-only for the container, too; another's is as the image has it.
    assert!(VERIFIED.iter().all(|line| said.matches(line).count() == 2), "{said}");
    assert!(said.matches("store 2 variables 5").count() == 2, "{said}");

    let uid = POD_UID;
    let lab_dir = lab.dir.to_str().unwrap();
    let parent = engines.inside(&format!("mkdir -p /sys/fs/cgroup$free/kubepods/besteffort/pod{uid}; echo $free"));
    let parent = format!("{}/kubepods/besteffort/pod{uid}", parent.trim());
    let labels = json!({ "team": "red", "io.kubernetes.pod.name": "coder-0", "io.kubernetes.pod.namespace": "agents",
                         "io.kubernetes.pod.uid": uid });
    let sandbox = json!({
        "metadata": { "name": "coder-0", "uid": uid, "namespace": "agents" }, "hostname": "coder-0",
        "log_directory": format!("{lab_dir}/pods"), "labels": labels, "linux": { "cgroup_parent": parent },
    });
    let pod = engines.cri("RunPodSandbox", &json!({ "config": sandbox }));
    let container = json!({
        "metadata": { "name": "agent" }, "image": { "image": "example.com/plain:1" }, "command": ["/usr/bin/try"],
        "envs": [{ "key": "AWS_DEFAULT_REGION", "value": "eu-west-1" }, { "key": "HOME", "value": "/root" }],
        "mounts": [{ "container_path": "/etc/hosts", "host_path": format!("{lab_dir}/hosts"), "readonly": true }],
        "labels": { "io.kubernetes.container.name": "agent", "io.kubernetes.pod.name": "coder-0",
                    "io.kubernetes.pod.namespace": "agents", "io.kubernetes.pod.uid": uid },
        "log_path": "plain.log",
    });
    let request = json!({ "pod_sandbox_id": pod["pod_sandbox_id"], "config": container, "sandbox_config": sandbox });
    engines.cri("StartContainer", &engines.cri("CreateContainer", &request));
    let log = || fs::read_to_string(lab.dir.join("pods/plain.log")).unwrap_or_default();
    until("the pod's programs are done", || log().contains(" variables "));
    println!("{}", log());
    assert!(VERIFIED.iter().all(|line| log().contains(line)) && log().contains("store 2 variables 5"), "{}", log());
    engines.cri("StopPodSandbox", &pod);
    engines.cri("RemovePodSandbox", &pod);
}
