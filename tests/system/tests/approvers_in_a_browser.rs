//! Approvers sign in at an OpenID provider with a real browser, and answer on the page.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod browser;
mod provider;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command},
};

use browser::Browser;
use chaperone_system_tests::{Lab, both, installed, python, script, secret_file, text, until};
use provider::Provider;
use serde_json::{Value, json};

const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("ask") @approvers("sre") forbid (principal, action in [Action::"s3:DeleteBucket"], resource) unless { context.approved };
"#;
const ORIGIN: &str = "https://127.0.0.1:8443";
const ELSEWHERE: &str = "http://127.0.0.9:8447/";

/// A process of the operator's that says when it is ready, and ends with this.
struct Server {
    child: Child,
    /// What it says later must have somewhere to go.
    _said: BufReader<ChildStdout>,
}

impl Server {
    fn start(lab: &Lab, command: &str, ready: &str) -> Self {
        let mut child = lab.spawn_operator(command);
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(ready) {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "{command} ended");
        }
        Self { child, _said: said }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn asked(lab: &Lab) -> String {
    let mut all = Vec::new();
    until("a question", || {
        all = lab.list("approvals list");
        !all.is_empty()
    });
    assert_eq!(all.len(), 1, "{all:?}");
    text(&all[0], "id").to_owned()
}

#[test]
#[allow(clippy::too_many_lines)] // one browser, one story
fn approvers_sign_in_and_answer_and_nobody_answers_in_their_name() {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir_in("/root").unwrap();
    let at = folder.path().to_owned();
    assert!(Command::new(python()).arg(script("certificate.py")).arg(&at).status().unwrap().success());
    let ci = Provider::new();
    fs::write(at.join("jwks.json"), ci.jwks()).unwrap();
    let groups = |all: Value| fs::write(at.join("groups.json"), all.to_string()).unwrap();
    groups(json!({ "alice": ["ops"], "bob": ["ops"], "mallory": ["dev"] }));
    let secret = secret_file(&at, "client.secret", "a-secret-of-the-client");
    let dir = at.display();
    let config = at.join("approvals.toml");
    fs::write(
        &config,
        format!(
            "[approvals]\nhold = 60\ninterim = 1\n[approvals.groups]\nsre = [\"root\", \"group:corp:ops\", \"group:ci:ops\"]\n\
             [approvals.api]\nlisten = \"127.0.0.1:8443\"\nurl = \"{ORIGIN}\"\ncertificate = \"{dir}/approvals.crt\"\n\
             key = \"{dir}/approvals.key\"\n[approvals.api.sign_in]\nname = \"corp\"\nissuer = \"http://127.0.0.1:8446\"\n\
             insecure_loopback = true\nclient_id = \"chaperone\"\nclient_secret_file = \"{secret}\"\ngroups = \"groups\"\n\
             groups_from = \"userinfo\"\n[[approvals.api.issuers]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\n\
             audiences = [\"chaperone\"]\nalgorithms = [\"ES256\"]\ngroups = \"groups\"\njwks_file = \"{dir}/jwks.json\"\n"
        ),
    )
    .unwrap();
    let config = config.display().to_string();
    let lab = Lab::start_in(folder, &["--aws", "moto", "--config", &config], POLICY, &[]);
    let program = installed("approvals").join("provider.mjs");
    let provider = format!("exec node {} 8446 'a-secret-of-the-client' {dir} {ORIGIN}", program.display());
    let _provider = Server::start(&lab, &provider, "ready");
    let other = format!("cd {}; exec {} -u -m http.server --bind 127.0.0.9 8447", lab.dir.display(), python());
    let _elsewhere = Server::start(&lab, &other, "Serving");
    let mut browser = Browser::start(&lab, ORIGIN);

    // Signed out, there is nothing to see; and who is in no group stays out.
    let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert!(text_of(&browser.act(&json!(["look", "alice"]))).contains("Sign in to see the questions"));
    let refused = browser.act(&json!(["signIn", "mallory"]));
    assert!(text(&refused, "text").contains("you are corp:mallory, and in none of the approvers' groups"), "{refused}");
    assert_eq!(refused["cookies"], json!([]));
    // Nobody is led into a sign-in that they didn't begin.
    let led = browser.act(&json!(["open", "mallory", "/sign-in/callback?code=x&state=y"]));
    assert!(led["status"] == 400 && text(&led, "text").contains("hasn't begun to sign in here"), "{led}");

    // An id that somebody planted before isn't the session's after.
    let name = "__Host-chaperone-session";
    browser.act(&json!(["plant", "alice", name, "planted"]));
    let signed_in = browser.act(&json!(["signIn", "alice"]));
    assert!(text(&signed_in, "text").contains("corp:alice (sre)"), "{signed_in}");
    assert!(text(&signed_in, "text").contains("Nothing waits for you."), "{signed_in}");
    let expected = json!([{ "name": name, "httpOnly": true, "secure": true, "sameSite": "Strict" }]);
    assert_eq!(signed_in["cookies"], expected);
    let id = text_of(&browser.act(&json!(["cookie", "alice", name])));
    assert!(id.len() >= 43 && id != "planted", "{id}");

    // Denied on the page, and boto3 prints why.
    let region = "export AWS_DEFAULT_REGION=eu-west-1; ";
    lab.agent_ok(&format!("{region} aws s3 mb s3://doomed"));
    let boto3 =
        "import boto3; print(boto3.client('s3').delete_bucket(Bucket='doomed')['ResponseMetadata']['HTTPStatusCode'])";
    let delete = format!("{region} cd /usr; exec python3 -c \"{boto3}\"");
    let agent = lab.spawn_agent(&delete);
    let question = asked(&lab);
    let shown = text_of(&browser.act(&json!(["read", "alice", question])));
    for wanted in [
        "coder",
        "delete_bucket(Bucket='doomed')",
        "/usr",
        "s3:DeleteBucket on arn:aws:s3:::doomed",
        "minutes left",
        "1 of sre (policy ask)",
    ] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    assert_eq!(browser.act(&json!(["phone", "alice"]))["wide"], false, "it fits a phone");
    if let Some(pictures) = std::env::var_os("CHAPERONE_TEST_PICTURES") {
        browser.act(&json!(["picture", "alice", format!("{}/approvals.png", pictures.display())]));
    }
    // Another site's page gets nowhere with alice's browser.
    let attack = browser.act(&json!(["attack", "alice", ELSEWHERE, question]));
    assert!(text(&attack, "read").contains("TypeError") && attack["form"] == 403, "{attack}");
    assert!(!text(&attack, "framed").contains("Approvals"), "{attack}");
    assert_eq!(asked(&lab), question, "it is pending");
    let denied = text_of(&browser.act(&json!(["deny", "alice", question, "use the staging bucket"])));
    assert!(denied.contains("Denied by corp:alice: use the staging bucket"), "{denied}");
    let output = both(&agent.wait_with_output().unwrap());
    assert!(
        output.contains("AccessDenied") && output.contains("corp:alice denied it: use the staging bucket"),
        "{output}"
    );

    // Allowed, by somebody who is in the group at that moment, and not by who no longer is.
    let agent = lab.spawn_agent(&delete);
    let question = asked(&lab);
    browser.act(&json!(["signIn", "bob"]));
    groups(json!({ "alice": ["dev"], "bob": ["ops"] }));
    browser.act(&json!(["read", "alice", question]));
    let refused = text_of(&browser.act(&json!(["allow", "alice", question])));
    assert!(refused.contains("there is no such question that you may answer"), "{refused}");
    assert_eq!(asked(&lab), question, "it is pending");
    let allowed = text_of(&browser.act(&json!(["allow", "bob", question])));
    assert!(allowed.contains("Your answer counts"), "{allowed}");
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success() && both(&output).contains("204"), "{}\n{}", both(&output), lab.log());
    let call =
        lab.calls_like("--decision allow").into_iter().find(|call| text(call, "operation") == "DeleteBucket").unwrap();
    assert!(text(&call, "message").contains("approved by corp:bob"), "{call}");

    // A client that is made from the API's own description.
    lab.agent_ok(&format!("{region} aws s3 mb s3://doomed"));
    let agent = lab.spawn_agent(&delete);
    asked(&lab);
    let token = ci.token("robot", 600, &json!({ "groups": ["ops"] }));
    let description = lab.dir.join("openapi.json");
    let served = browser.act(&json!(["open", "bob", "/openapi.json"]));
    fs::write(&description, text(&served, "text")).unwrap();
    let client = installed("approvals").join("client.mjs");
    let said = lab.operator_ok(&format!(
        "exec node {} {ORIGIN} {} {token} {dir}/approvals.crt approveQuestion",
        client.display(),
        description.display()
    ));
    let said: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((&said["me"]["name"], &said["again"]), (&json!("ci:robot"), &json!(409)), "{said}");
    assert!(said["state"] == "approved" || said["state"] == "used", "the call doesn't wait: {said}");
    assert!(agent.wait_with_output().unwrap().status.success(), "{}", lab.log());

    // Signed out, the session is over, also for who kept its id.
    browser.act(&json!(["look", "bob"]));
    let kept = text_of(&browser.act(&json!(["cookie", "bob", name])));
    assert!(text_of(&browser.act(&json!(["signOut", "bob"]))).contains("Sign in"));
    browser.act(&json!(["plant", "eve", name, kept]));
    assert_eq!(browser.act(&json!(["open", "eve", "/api/v1/me"]))["status"], 401);
    // Nobody signs in as often as they like.
    let statuses: Vec<_> = (0..25)
        .map(|_| browser.act(&json!(["open", "eve", "/sign-in/callback?code=x&state=y"]))["status"].clone())
        .collect();
    assert_eq!((&statuses[0], &statuses[24]), (&json!(400), &json!(429)), "{statuses:?}");
    let errors = browser.act(&json!(["errors", "alice"]));
    let ours = errors.as_array().unwrap().iter().filter(|it| !it.to_string().contains("Failed to load resource"));
    assert_eq!(ours.count(), 0, "{errors}");
    assert!(!lab.log().contains("eyJ") && !lab.log().contains("a-secret-of-the-client"), "no token is in the log");
}
