//! Approvers in Slack, whose workspace a script plays in the lab's own network.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdout, Command},
};

use chaperone_system_tests::{Lab, both, python, script, secret_file, text, until};
use serde_json::{Value, json};

const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("ask") @approvers("sre") forbid (principal, action in [Action::"s3:DeleteBucket"], resource) unless { context.approved };
"#;
const AGENT: &str = "export AWS_DEFAULT_REGION=eu-west-1; aws s3api delete-bucket --bucket doomed";
/// Nobody has a token here: the public key of RFC 7517's first example.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","alg":"ES256","use":"sig",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// A lab whose approvers are in Slack, which isn't there yet.
fn start() -> Lab {
    // What is trusted to hold secrets is no folder that everybody can write to.
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir_in("/root").unwrap();
    let at = folder.path();
    assert!(Command::new(python()).arg(script("certificate.py")).arg(at).status().unwrap().success());
    fs::write(at.join("jwks.json"), KEYS).unwrap();
    let [bot, app, signing] =
        [("bot", "xoxb-1"), ("app", "xapp-1"), ("signing", SECRET)].map(|(name, secret)| secret_file(at, name, secret));
    let config = format!(
        "[approvals]\nhold = 5\ninterim = 1\n[approvals.groups]\nsre = [\"alice\"]\n[approvals.api]\nlisten = \
         \"127.0.0.1:8443\"\nurl = \"https://127.0.0.1:8443\"\ncertificate = \"{0}/approvals.crt\"\nkey = \
         \"{0}/approvals.key\"\n[[approvals.api.issuers]]\nname = \"corp\"\nissuer = \"https://ci.example.com\"\naudiences = \
         [\"chaperone\"]\nalgorithms = [\"ES256\"]\njwks_file = \"{0}/jwks.json\"\n[approvals.slack]\nteam = \"T1\"\nchannel = \
         \"C1\"\ntoken_file = \"{bot}\"\napp_token_file = \"{app}\"\nsigning_secret_file = \"{signing}\"\napi = \
         \"http://127.0.0.1:8090/api\"\ninsecure_loopback = true\n[approvals.slack.people]\nU1 = \"alice\"\nU2 = \"bob\"\n",
        at.display()
    );
    let path = at.join("slack.toml");
    fs::write(&path, config).unwrap();
    let path = path.display().to_string();
    Lab::start_in(folder, &["--aws", "moto", "--config", &path], POLICY, &[])
}

struct Workspace {
    child: Child,
    said: BufReader<ChildStdout>,
    certificate: String,
}

impl Workspace {
    fn start(lab: &Lab) -> Self {
        let mut child = lab.spawn_operator(&format!("exec {} {} 8090 8091", python(), script("slack.py").display()));
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let certificate = lab.dir.parent().unwrap().join("approvals.crt").display().to_string();
        Self { child, said, certificate }
    }

    fn act(&mut self, what: &Value) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "{what}: the workspace ended");
        serde_json::from_str(&line).unwrap()
    }

    /// The last call of that method after so many, once there is one.
    fn called(&mut self, method: &str, after: usize) -> Value {
        let mut found = Value::Null;
        until(method, || {
            let all = self.act(&json!(["calls"]));
            let last = all.as_array().unwrap().iter().skip(after).rfind(|call| call[0] == method).cloned();
            found = last.map_or(Value::Null, |call| call[1].clone());
            !found.is_null()
        });
        found
    }

    fn count(&mut self) -> usize {
        self.act(&json!(["calls"])).as_array().unwrap().len()
    }

    /// Posts what somebody pressed; gives the status.
    fn post(&mut self, payload: &Value, secret: &str, age: i64) -> u64 {
        let url = "https://127.0.0.1:8443/slack/interactions";
        let certificate = self.certificate.clone();
        self.act(&json!(["post", url, certificate, payload, secret, age]))[0].as_u64().unwrap()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn pressed(user: &str, action: &str, id: &Value) -> Value {
    json!({ "type": "block_actions", "user": { "id": user, "team_id": "T1" }, "channel": { "id": "C1" },
        "trigger_id": "1.2.3", "actions": [{ "action_id": action, "value": id }] })
}

fn deletes(lab: &Lab) -> usize {
    lab.upstream().iter().filter(|request| text(request, "method") == "DELETE").count()
}

/// The message's paragraph that says how the question stands.
fn state(message: &Value) -> String {
    message["blocks"][3]["text"]["text"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn people_answer_in_slack_and_a_token_that_is_taken_back_is_seen() {
    let lab = start();
    // It comes later than the daemon, which tries again.
    let mut slack = Workspace::start(&lab);
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://doomed");

    // Over the connection that the daemon opens: once, however often it is told.
    let agent = lab.spawn_agent(AGENT);
    let post = slack.called("chat.postMessage", 0);
    assert!(state(&post).contains("Waits for 1 of sre (policy ask)"), "{post}");
    let id = post["blocks"][4]["elements"][0]["value"].clone();
    let yes = pressed("U1", "approve", &id);
    for _ in 0..2 {
        assert_eq!(slack.act(&json!(["press", yes, "e1"])), json!({ "envelope_id": "e1" }));
    }
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());
    assert_eq!(deletes(&lab), 1);
    until("the message's update", || state(&slack.called("chat.update", 0)).contains("the call went out"));
    let call = lab.calls_like("--decision allow").into_iter().find(|it| text(it, "operation") == "DeleteBucket");
    assert!(text(&call.unwrap(), "message").contains("approved by alice"));

    // By requests: what is forged, old or of somebody else does nothing; what is Slack's does it once.
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://doomed");
    let before = slack.count();
    let agent = lab.spawn_agent(AGENT);
    let id = slack.called("chat.postMessage", before)["blocks"][4]["elements"][0]["value"].clone();
    let yes = pressed("U1", "approve", &id);
    assert_eq!(slack.post(&yes, "another secret", 0), 401);
    assert_eq!(slack.post(&yes, SECRET, 301), 401);
    assert_eq!(slack.post(&yes, SECRET, -301), 401);
    assert_eq!(slack.post(&pressed("U9", "approve", &id), SECRET, 0), 200);
    assert!(text(&slack.called("chat.postEphemeral", before), "text").contains("nobody knows who U9 is"));
    let between = slack.count();
    assert_eq!(slack.post(&pressed("U2", "approve", &id), SECRET, 0), 200);
    assert!(text(&slack.called("chat.postEphemeral", between), "text").contains("no such question"));
    assert_eq!(slack.post(&pressed("U1", "deny", &id), SECRET, 0), 200);
    let view = slack.called("views.open", before)["view"].clone();
    let no = json!({ "type": "view_submission", "user": { "id": "U1", "team_id": "T1" }, "view": {
        "callback_id": view["callback_id"], "private_metadata": view["private_metadata"],
        "state": { "values": { "reason": { "reason": { "value": "it is in use" } } } } } });
    assert_eq!(slack.post(&no, SECRET, 0), 200);
    assert_eq!(slack.act(&json!(["again"]))[0], 401, "the same once more");
    let output = both(&agent.wait_with_output().unwrap());
    assert!(output.contains("AccessDenied") && output.contains("alice denied it: it is in use"), "{output}");
    assert_eq!(deletes(&lab), 1);

    // The workspace takes the token back.
    slack.act(&json!(["drop"]));
    let waiting = lab.agent(&format!("export AWS_MAX_ATTEMPTS=1; {AGENT} --expected-bucket-owner 123456789012"));
    assert!(both(&waiting).contains("waiting for approval"), "{}", both(&waiting));
    until("trouble in `status` and the metrics", || {
        let status = lab.operator_ok("chaperone status --json");
        let metrics = lab.operator_ok("curl -sS http://127.0.0.1:9464/metrics");
        status.contains("token_revoked")
            && status.contains("put a valid token")
            && metrics.contains("chaperone_approval_messages_trouble{receiver=\"slack\"} 1")
    });
    assert_eq!(deletes(&lab), 1);
}
