//! Approvers who aren't on the host: over HTTPS, with a token; and who is told what becomes of questions.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod provider;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command},
};

use chaperone_system_tests::{Lab, both, python, script, secret_file, text, until};
use provider::Provider;
use serde_json::{Value, json};

const POLICY: &str = r#"
@id("all") permit (principal, action, resource);
@id("ask") @approvers("sre") forbid (principal, action in [Action::"s3:DeleteBucket"], resource) unless { context.approved };
@id("two") @approvers("staff") @approvals_needed("2")
forbid (principal, action in [Action::"s3:PutBucketPolicy"], resource) unless { context.approved };
@id("other") @approvers("security") forbid (principal, action in [Action::"sqs:PurgeQueue"], resource) unless { context.approved };
"#;
const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ORIGIN: &str = "https://127.0.0.1:8443";

/// A lab that approvers reach over HTTPS with tokens of `provider`.
fn start(provider: &Provider, webhooks: &[(&str, u16)]) -> Lab {
    // What is trusted to hold secrets is no folder that everybody can write to.
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir_in("/root").unwrap();
    let at = folder.path();
    let made = Command::new(python()).arg(script("certificate.py")).arg(at).status().unwrap();
    assert!(made.success());
    fs::write(at.join("jwks.json"), provider.jwks()).unwrap();
    let file = secret_file(at, "webhook.secret", SECRET);
    let mut config = format!(
        "[approvals]\nhold = 60\ninterim = 1\n[approvals.groups]\nsre = [\"group:corp:ops\"]\nsecurity = [\"group:corp:sec\"]\n\
         staff = [\"group:corp:ops\", \"root\", \"uid:4001\"]\n\
         [approvals.api]\nlisten = \"127.0.0.1:8443\"\nurl = \"{ORIGIN}\"\ncertificate = \"{0}/approvals.crt\"\n\
         key = \"{0}/approvals.key\"\n[[approvals.api.issuers]]\nname = \"corp\"\nissuer = \"https://ci.example.com\"\n\
         audiences = [\"chaperone\"]\nalgorithms = [\"ES256\"]\ngroups = \"groups\"\njwks_file = \"{0}/jwks.json\"\n",
        at.display()
    );
    config.extend(webhooks.iter().map(|(name, port)| {
        format!(
            "[[approvals.webhooks]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/{name}\"\nsecret_file = \"{file}\"\n\
             insecure_loopback = true\n"
        )
    }));
    let path = at.join("approvals.toml");
    fs::write(&path, config).unwrap();
    let path = path.display().to_string();
    Lab::start_in(folder, &["--aws", "moto", "--config", &path], POLICY, &[])
}

/// What the API answers somebody with that token: the status and the document.
fn ask(lab: &Lab, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let certificate = lab.dir.parent().unwrap().join("approvals.crt");
    let command = format!(
        "import json, ssl, sys, urllib.request, urllib.error
context = ssl.create_default_context(cafile='{}')
headers = {{'authorization': 'Bearer {token}', 'content-type': 'application/json'}}
body = None if '{method}' == 'GET' else sys.argv[1].encode()
request = urllib.request.Request('{ORIGIN}{path}', body, headers, method='{method}')
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({{}}), urllib.request.HTTPSHandler(context=context)).open(request)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, json.load(answer)]))",
        certificate.display()
    );
    let file = lab.file("ask.py", &command);
    let said = lab.operator_ok(&format!("{} {file} '{body}'", python()));
    let all: Value = serde_json::from_str(&said).unwrap();
    (u16::try_from(all[0].as_u64().unwrap()).unwrap(), all[1].clone())
}

/// The questions that the bearer of that token may answer, once there is one.
fn asked(lab: &Lab, token: &str) -> Value {
    let mut all = Value::Null;
    until("a question", || {
        all = ask(lab, token, "GET", "/api/v1/questions", &json!({})).1["questions"].clone();
        all.as_array().is_some_and(|all| !all.is_empty())
    });
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    all[0].clone()
}

fn token(provider: &Provider, who: &str, group: &str) -> String {
    provider.token(who, 600, &json!({ "groups": [group], "sponsor": null }))
}

/// Receives webhooks in the lab.
struct Receiver(Child);

impl Receiver {
    fn start(lab: &Lab, port: u16) -> Self {
        let file = lab.dir.join("webhooks.jsonl");
        let command =
            format!("exec {} {} {port} {SECRET} {}", python(), script("webhooks.py").display(), file.display());
        let mut child = lab.spawn_operator(&command);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        Self(child)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What that webhook was told, in order.
fn told(lab: &Lab, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(lab.dir.join("webhooks.jsonl")).unwrap_or_default();
    let all = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let all = all.map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|one| one["path"] == format!("/{name}")).collect()
}

fn types(all: &[Value]) -> Vec<&str> {
    all.iter().map(|one| text(one, "type")).collect()
}

/// Who says yes on the host and over HTTPS may be one person.
#[test]
fn nobody_is_two_people() {
    let provider = Provider::new();
    let lab = start(&provider, &[]);
    let ops = token(&provider, "robot", "ops");
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://open"));
    let agent = lab.spawn_agent(&format!("{REGION} aws s3api put-bucket-policy --bucket open --policy '{{}}'"));
    let id = text(&asked(&lab, &ops), "id").to_owned();
    let path = format!("/api/v1/questions/{id}/approve");
    let (status, said) = ask(&lab, &ops, "POST", &path, &json!({}));
    assert_eq!((status, &said["state"]), (200, &json!("pending")), "{said}");
    // Root may well be whoever has that token.
    let said = lab.operator_ok(&format!("chaperone approvals approve {id}"));
    assert!(said.contains("others must approve it, too"), "{said}");
    assert!(!lab.upstream().iter().any(|request| text(request, "path").contains("policy")));
    // Two users of the host are two people. (The lab is in a folder that root alone may enter.)
    let said = lab.operator_ok(&format!(
        "exec 3< $(command -v chaperone); setpriv --reuid 4001 --clear-groups --inh-caps +dac_read_search \
         --ambient-caps +dac_read_search /proc/self/fd/3 approvals approve {id}"
    ));
    assert!(said.contains("approved"), "{said}");
    agent.wait_with_output().unwrap();
    let all = lab.list("approvals list --all");
    assert_eq!(text(&all[0], "state"), "used", "{all:?}");
}

#[test]
fn who_has_a_token_answers_over_https_and_the_agent_reads_why() {
    let provider = Provider::new();
    let lab = start(&provider, &[]);
    let (ops, sec) = (token(&provider, "robot", "ops"), token(&provider, "guard", "sec"));
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://doomed"));
    let agent = lab.spawn_agent(&format!("{REGION} cd /usr; exec aws s3api delete-bucket --bucket doomed"));
    let question = asked(&lab, &ops);
    let path = format!("/api/v1/questions/{}", text(&question, "id"));
    assert_eq!(question["needs"], json!([{ "action": "s3:DeleteBucket", "resource": "arn:aws:s3:::doomed" }]));
    let about = &question["about"];
    assert!(about["command"].to_string().contains("delete-bucket") && about["directory"] == "/usr", "{question}");
    assert_eq!((&about["parameters"]["Bucket"], &question["before"]["used"]), (&json!("doomed"), &json!(0)));
    // Others don't even learn that it is there, and neither does an agent reach it.
    assert_eq!(ask(&lab, &sec, "GET", &path, &json!({})).0, 404);
    assert_eq!(ask(&lab, &sec, "POST", &format!("{path}/approve"), &json!({})).0, 404);
    let forged = token(&Provider::new(), "robot", "ops");
    assert_eq!(ask(&lab, &forged, "POST", &format!("{path}/approve"), &json!({})).0, 401);
    let (status, denied) = ask(&lab, &ops, "POST", &format!("{path}/deny"), &json!({ "reason": "it is in use" }));
    assert_eq!((status, &denied["state"]), (200, &json!("denied")));
    let output = both(&agent.wait_with_output().unwrap());
    assert!(output.contains("AccessDenied") && output.contains("corp:robot denied it: it is in use"), "{output}");
    // The reload takes the group's members away while a question is open: then nobody there may answer.
    let agent = lab.spawn_agent(&format!("{REGION} exec aws s3api delete-bucket --bucket doomed"));
    let question = asked(&lab, &ops);
    let path = format!("/api/v1/questions/{}", text(&question, "id"));
    assert_eq!(question["before"]["denied"], 1);
    let (status, approved) = ask(&lab, &ops, "POST", &format!("{path}/approve"), &json!({ "reason": "planned" }));
    assert_eq!((status, &approved["votes"][0]["by"]), (200, &json!("corp:robot")));
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", both(&output), lab.log());
    let again = ask(&lab, &ops, "POST", &format!("{path}/approve"), &json!({}));
    assert_eq!((again.0, &again.1["code"]), (409, &json!("not-pending")));
    let used = ask(&lab, &ops, "GET", &path, &json!({})).1;
    assert_eq!(used["state"], "used", "{used}");
    let description = ask(&lab, &ops, "GET", "/openapi.json", &json!({})).1;
    assert_eq!(description["openapi"].as_str().map(|it| &it[..3]), Some("3.1"));
    assert!(!lab.log().contains("eyJ"), "no token is in the log");
}

#[test]
fn webhooks_are_told_signed_and_again_and_one_that_hangs_delays_nobody() {
    let provider = Provider::new();
    let lab = start(&provider, &[("good", 8444), ("flaky", 8444), ("hung", 8444), ("gone", 8444), ("away", 8445)]);
    let receiver = Receiver::start(&lab, 8444);
    let ops = token(&provider, "robot", "ops");
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://doomed"));
    let agent = lab.spawn_agent(&format!("{REGION} exec aws s3api delete-bucket --bucket doomed"));
    let question = asked(&lab, &ops);
    let path = format!("/api/v1/questions/{}", text(&question, "id"));
    assert_eq!(ask(&lab, &ops, "POST", &format!("{path}/approve"), &json!({})).0, 200);
    assert!(agent.wait_with_output().unwrap().status.success(), "{}", lab.log());
    let all = ["approval.asked", "approval.approved", "approval.used"];
    until("the messages", || types(&told(&lab, "good")) == all);
    // Twice each, as each was refused once.
    until("the messages that were refused once", || told(&lab, "flaky").len() == 6);
    for one in told(&lab, "good").iter().chain(&told(&lab, "flaky")) {
        assert!(one["valid"] == true && one["data"]["id"] == question["id"], "{one}");
    }
    let waiting = |to: &str| {
        let all = lab.list("approvals deliveries");
        all.into_iter().filter(|one| text(one, "to") == to).collect::<Vec<_>>()
    };
    until("the first message to who wants no more", || {
        waiting("gone").iter().filter(|one| one["dead"] == true).count() == 3
    });
    assert!(waiting("good").is_empty());
    assert_eq!((waiting("hung").len(), waiting("away").len()), (3, 3));
    let status: Value = serde_json::from_str(&lab.operator_ok("chaperone status --json")).unwrap();
    let away = status["approvals"]["receivers"].as_array().unwrap().iter().find(|it| it["name"] == "away").unwrap();
    assert!(away["waiting"] == 3 && away["trouble"].as_str().unwrap().contains("refused"), "{status}");
    // They survive the daemon, and whoever comes back gets them.
    let daemon = lab.daemon();
    lab.operator_ok(&format!("kill -9 {daemon}"));
    until("the daemon's end", || {
        !fs::read_to_string(format!("/proc/{daemon}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
    let back = Receiver::start(&lab, 8445);
    lab.restart();
    assert_eq!((waiting("hung").len(), waiting("gone").len()), (3, 3));
    until("the messages to who was away", || types(&told(&lab, "away")) == all);
    assert_eq!(types(&told(&lab, "good")), all, "nothing was told twice");
    assert!(lab.operator_ok("chaperone approvals deliveries --resend all").contains('3'));
    until("the messages sent once more", || told(&lab, "gone").len() >= 4);
    drop((receiver, back));
    assert!(!lab.log().contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "no secret is in the log");
    lab.operator_ok("chaperone verify");
}
