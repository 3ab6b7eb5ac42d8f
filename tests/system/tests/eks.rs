//! The Kubernetes API of EKS clusters, by what `aws eks update-kubeconfig` writes and `aws eks get-token` makes, to servers that
//! take only tokens which are signed by the real key, and for their own name.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Child,
};

use chaperone_system_tests::{Lab, both, script, text};
use serde_json::Value;

const ADDRESS: &str = "127.98.0.2";
const POLICY: &str = "@id(\"look\") permit (principal, action in [Action::\"Read\", Action::\"List\"], resource);
    @id(\"review\") permit (principal, action == Action::\"k8s:create\", resource)
      when { context.parameters.hasTag(\"resource\") && context.parameters.getTag(\"resource\").contains(\"selfsubjectreviews\") };
    @id(\"not-kube-system\") forbid (principal, action, resource) when { resource.arn like \"*/namespaces/kube-system/*\" };";

struct Clusters {
    lab: Lab,
    child: Child,
}

fn host(letter: &str) -> String {
    format!("{}.gr7.eu-west-1.eks.amazonaws.com", letter.repeat(32))
}

impl Clusters {
    fn start() -> Self {
        let lab = Lab::start_with(&["--aws", "none"], POLICY);
        // The lab's own file, in its own mount.
        let names = ["A", "B", "C", "D"].map(host).join(" ");
        let hosts = format!("127.0.0.1 localhost\n{ADDRESS} eks.eu-west-1.amazonaws.com {names}\n");
        fs::write(lab.dir.join("mounts/etc/hosts"), hosts).unwrap();
        let server = script("eks_server.py");
        let mut child = lab.spawn_operator(&format!("exec python3 {} {ADDRESS} $CHAPERONE_LAB", server.display()));
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self { lab, child }
    }

    fn with_config(&self, script: &str) -> String {
        let config = self.lab.dir.join("kubeconfig");
        format!("export AWS_DEFAULT_REGION=eu-west-1 KUBECONFIG={}; {script}", config.display())
    }

    /// What the client says.
    fn kube(&self, before: &str, arguments: &str) -> String {
        let client = script("kube.py");
        self.lab.agent_ok(&self.with_config(&format!("{before} python3 {} {arguments}", client.display())))
    }

    /// What the servers of this name were asked.
    fn asked(&self, host: &str) -> Vec<Value> {
        let said = fs::read_to_string(self.lab.dir.join("eks.jsonl")).unwrap_or_default();
        let all = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|it| text(it, "host") == host.to_lowercase()).collect()
    }
}

impl Drop for Clusters {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn a_cluster_is_met_by_the_clis_own_kubeconfig_and_token() {
    let clusters = Clusters::start();
    let lab = &clusters.lab;
    for name in ["prod", "other", "broken"] {
        lab.agent_ok(&clusters.with_config(&format!("aws eks update-kubeconfig --name {name}")));
    }
    let said = clusters.kube("", "prod GET '/api/v1/namespaces/default/pods?limit=5'");
    assert!(said.starts_with("200 ") && said.contains("\"cluster\": \"prod\""), "{said}\n{}", lab.log());
    // The token that went there is the real key's, and the agent's own has gone nowhere.
    let key = fs::read_to_string(lab.dir.join("secrets/key")).unwrap();
    let key = key.lines().next().unwrap();
    assert_eq!(clusters.asked(&host("A")).len(), 1);
    let calls = lab.calls_like("--service k8s");
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(
        (text(call, "operation"), text(call, "decision"), &call["actions"][0]),
        ("list", "allow", &"k8s:list".into())
    );
    assert_eq!(call["resources"][0], "arn:aws:eks:eu-west-1:123456789012:cluster/prod/namespaces/default/pods");
    let head = lab.operator_ok(&format!("chaperone show {}", text(call, "id")));
    assert!(!head.contains("k8s-aws-v1.") && !head.contains(key), "{head}");
    // A stream.
    let said = clusters.kube("", "prod GET '/api/v1/namespaces/default/pods?watch=true'");
    assert!(said.contains("web-1") && said.contains("web-2"), "{said}");
    // Who it is there, without the real key's id.
    let said = clusters.kube("", "prod POST /apis/authentication.k8s.io/v1/selfsubjectreviews '{}'");
    assert!(said.starts_with("201 ") && said.contains("accessKeyId") && !said.contains(key), "{said}");
    // Decided by verb, resource and namespace, and refused as Kubernetes refuses.
    for (arguments, action) in [
        ("prod POST /api/v1/namespaces/default/pods '{}'", "k8s:create"),
        ("prod GET /api/v1/namespaces/kube-system/pods", "k8s:list"),
        ("prod GET /api/v1/namespaces/default/secrets", "k8s:readSecret"),
        ("prod GET '/api/v1/namespaces/default/pods/web/exec?command=sh'", "k8s:connect"),
    ] {
        let said = clusters.kube("", arguments);
        let status: Value =
            serde_json::from_str(said.strip_prefix("403 ").unwrap_or_else(|| panic!("{said}"))).unwrap();
        assert_eq!((text(&status, "kind"), text(&status, "reason")), ("Status", "Forbidden"), "{said}");
        assert!(text(&status, "message").contains(action), "{said}");
    }
    assert_eq!(clusters.asked(&host("A")).len(), 3);
    // Its certificate isn't of the authority that EKS says: nothing is sent.
    let said = clusters.kube("", "broken GET /version");
    assert!(said.starts_with("503 "), "{said}");
    assert_eq!(clusters.asked(&host("C")), [Value::Null; 0]);
    assert!(lab.log().contains("nothing was sent"), "{}", lab.log());
}

#[test]
fn a_token_is_for_one_cluster_of_the_own_account() {
    let clusters = Clusters::start();
    let lab = &clusters.lab;
    for name in ["prod", "other"] {
        lab.agent_ok(&clusters.with_config(&format!("aws eks update-kubeconfig --name {name}")));
    }
    // Another daemon knows no cluster, and finds out.
    lab.operator_ok(&format!("kill {}", lab.daemon()));
    lab.restart();
    let said = clusters.kube("", "other GET /version");
    assert!(said.starts_with("200 ") && said.contains("\"cluster\": \"other\""), "{said}\n{}", lab.log());
    assert!(clusters.asked("eks.eu-west-1.amazonaws.com").iter().any(|it| text(it, "path").starts_with("/clusters?")));

    let of_other = "TOKEN=$(aws eks get-token --cluster-name other | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"status\"][\"token\"])')";
    let said = clusters.kube(of_other, "prod GET /version");
    assert!(said.starts_with("401 ") && said.contains("Unauthorized"), "{said}");
    for (token, status) in [("TOKEN=", "403 "), ("TOKEN=a.service.accounts", "401 "), ("TOKEN=k8s-aws-v1.eA", "401 ")] {
        let said = clusters.kube(token, "prod GET /version");
        assert!(said.starts_with(status) && said.contains("\"Status\""), "{token}: {said}");
    }
    assert_eq!(clusters.asked(&host("A")), [Value::Null; 0]);
    // A cluster that EKS doesn't show to these credentials, though its token is for a name of theirs.
    let elsewhere = format!("SERVER=https://{}", host("D"));
    let said = clusters.kube(&elsewhere, "prod GET /version");
    assert!(said.starts_with("403 ") && said.contains("none of the 3 clusters"), "{said}");
    assert_eq!(clusters.asked(&host("D")), [Value::Null; 0]);
    // No WebSocket and no SPDY into a pod.
    let refused = lab.agent(&clusters.with_config(&format!(
        "{of_other}; curl -sS -k -i --http1.1 -H \"Authorization: Bearer $TOKEN\" -H 'Connection: Upgrade' -H 'Upgrade: SPDY/3.1' -X POST \
         'https://{}/api/v1/namespaces/default/pods/web/exec?command=sh'",
        host("B")
    )));
    assert!(both(&refused).contains("501"), "{}", both(&refused));
    assert_eq!(clusters.asked(&host("B")).len(), 1);
}
