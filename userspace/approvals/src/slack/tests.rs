use std::os::unix::fs::PermissionsExt as _;

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_tungstenite::{accept_async, tungstenite};

use super::*;
use crate::{Messages, fixture::Desk};

/// Plays Slack: notes what is called, and answers as Slack does.
#[derive(Clone)]
struct Workspace {
    called: mpsc::UnboundedSender<(String, Value)>,
    socket: String,
    revoked: Arc<std::sync::atomic::AtomicBool>,
}

async fn method(
    State(workspace): State<Workspace>,
    axum::extract::Path(method): axum::extract::Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Json<Value> {
    let token = if method == "apps.connections.open" { "Bearer xapp-1" } else { "Bearer xoxb-1" };
    if headers["authorization"] != token || workspace.revoked.load(std::sync::atomic::Ordering::SeqCst) {
        return Json(json!({ "ok": false, "error": "token_revoked" }));
    }
    let _ = workspace.called.send((method, body));
    Json(json!({ "ok": true, "channel": "C1", "ts": "1.1", "url": workspace.socket }))
}

struct Site {
    slack: Arc<Slack>,
    desk: Arc<Desk>,
    workspace: Workspace,
    calls: mpsc::UnboundedReceiver<(String, Value)>,
    socket: TcpListener,
    folder: tempfile::TempDir,
}

const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

async fn site() -> Site {
    // What is trusted to hold secrets is no folder that everybody can write to.
    let folder = tempfile::Builder::new().tempdir_in("/root").unwrap();
    for (name, secret) in [("bot", "xoxb-1"), ("app", "xapp-1"), ("signing", SECRET)] {
        let path = folder.path().join(name);
        fs::write(&path, secret).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (called, calls) = mpsc::unbounded_channel();
    let url = format!("ws://{}/link?ticket=1", socket.local_addr().unwrap());
    let workspace = Workspace { called, socket: url, revoked: Arc::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = folder.path().display();
    let section = format!(
        "team = \"T1\"\nchannel = \"C1\"\ntoken_file = \"{at}/bot\"\nsigning_secret_file = \"{at}/signing\"\n\
         app_token_file = \"{at}/app\"\napi = \"http://{}/api\"\ninsecure_loopback = true\n\
         [people]\nU1 = \"alice\"\nU2 = \"bob\"\n",
        listener.local_addr().unwrap()
    );
    let router = Router::new().route("/api/{method}", post(method)).with_state(workspace.clone());
    tokio::spawn(async { axum::serve(listener, router).await });
    let section: SlackSection = toml::from_str(&section).unwrap();
    section.check().unwrap();
    let desk = Desk::new(&[("sre", &["alice"])]);
    let slack = Slack::new(section, folder.path()).unwrap();
    Site { slack, desk, workspace, calls, socket, folder }
}

impl Site {
    async fn called(&mut self, wanted: &str) -> Value {
        let (method, body) = self.calls.recv().await.unwrap();
        assert_eq!(method, wanted, "{body}");
        body
    }

    /// Until the question is in that state.
    async fn state(&self, number: usize, wanted: &str) {
        let mut changes = self.desk.changes();
        while self.desk.questions()[number].state.as_str() != wanted {
            changes.changed().await.unwrap();
        }
    }
}

fn pressed(user: &str, team: &str, action: &str, id: &str) -> Value {
    json!({ "type": "block_actions", "user": { "id": user, "team_id": team }, "channel": { "id": "C1" },
        "trigger_id": "1.2.3", "actions": [{ "action_id": action, "value": id }] })
}

/// As Slack posts it, signed at that time.
fn posted(payload: &Value, secret: &str, moment: i64) -> (HeaderMap, Vec<u8>) {
    let form: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let digest = hmac::sign(&key, format!("v0:{moment}:{form}").as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut headers = HeaderMap::new();
    headers.insert("x-slack-signature", format!("v0={hex}").parse().unwrap());
    headers.insert("x-slack-request-timestamp", moment.to_string().parse().unwrap());
    (headers, form.into_bytes())
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[tokio::test]
async fn a_question_is_posted_answered_and_updated() {
    let mut site = site().await;
    let receivers: Vec<Box<dyn Receiver>> = vec![Box::new(site.slack.clone())];
    let messages = Messages::open(&site.folder.path().join("messages"), receivers, site.desk.clone()).unwrap();
    tokio::spawn(messages.run());
    let id = site.desk.ask("sre", 1, None);
    let post = site.called("chat.postMessage").await;
    assert_eq!((&post["channel"], &post["blocks"][4]["elements"][0]["value"]), (&json!("C1"), &json!(id.to_string())));
    let backend: Arc<dyn Backend> = site.desk.clone();
    // No is asked for a reason, which comes by itself.
    let (headers, body) = posted(&pressed("U1", "T1", "deny", &id.to_string()), SECRET, now());
    site.slack.callback(&backend, &headers, &body).unwrap();
    let view = site.called("views.open").await;
    assert_eq!((&view["trigger_id"], &view["view"]["private_metadata"]), (&json!("1.2.3"), &json!(id.to_string())));
    let submitted = json!({ "type": "view_submission", "user": { "id": "U1", "team_id": "T1" }, "view": {
        "callback_id": "deny", "private_metadata": id.to_string(),
        "state": { "values": { "reason": { "reason": { "value": "in use" } } } } } });
    let (headers, body) = posted(&submitted, SECRET, now());
    site.slack.callback(&backend, &headers, &body).unwrap();
    let update = site.called("chat.update").await;
    assert_eq!(
        (&update["ts"], &update["blocks"][3]["text"]["text"]),
        (&json!("1.1"), &json!("Denied by alice: in use"))
    );
    assert!(update["blocks"].as_array().unwrap().iter().all(|block| block["type"] != "actions"), "{update}");
    let approver = site.desk.answers.lock()[0].clone();
    assert_eq!(
        (&*approver.by, approver.issuer.as_deref(), approver.subject.as_deref()),
        ("slack", Some("slack:T1"), Some("U1"))
    );
}

#[tokio::test]
async fn what_is_told_late_hides_nothing() {
    let mut site = site().await;
    let id = site.desk.ask("sre", 1, None);
    let message = |kind: &str| Message {
        heading: serde_json::from_value(json!({ "id": format!("m_{kind}"), "kind": kind, "approval": id, "session":
            site.desk.questions()[0].asked.session, "at": 1, "attempts": 0, "next": 0, "dead": false, "last": "" }))
        .unwrap(),
        body: json!({ "data": { "id": id, "agent": "coder" } }).to_string(),
    };
    let [used, approved, asked] = ["used", "approved", "asked"].map(message);
    site.slack.tell(&approved).await.unwrap();
    site.called("chat.postMessage").await;
    assert_eq!(site.slack.tell(&asked).await.unwrap(), "1.1 says more already", "it would have its buttons again");
    site.slack.tell(&used).await.unwrap();
    site.called("chat.update").await;
    assert_eq!(site.slack.tell(&approved).await.unwrap(), "1.1 says more already");
}

#[tokio::test]
async fn what_is_forged_old_repeated_or_somebody_elses_does_nothing() {
    let mut site = site().await;
    let id = site.desk.ask("sre", 1, None).to_string();
    let backend: Arc<dyn Backend> = site.desk.clone();
    let good = pressed("U1", "T1", "approve", &id);
    for (secret, moment) in [("another secret", now()), (SECRET, now() - 301), (SECRET, now() + 400), (SECRET, 0)] {
        let (headers, body) = posted(&good, secret, moment);
        assert!(site.slack.callback(&backend, &headers, &body).is_err());
    }
    let (headers, mut body) = posted(&pressed("U2", "T1", "approve", &id), SECRET, now());
    body.extend_from_slice(b"&x=1");
    assert!(site.slack.callback(&backend, &headers, &body).is_err());
    assert!(site.slack.callback(&backend, &HeaderMap::new(), &body).is_err());
    // Signed, and of people who may not: told to them alone.
    let other = site.desk.ask("security", 2, None).to_string();
    for (payload, why) in [
        (pressed("U2", "T1", "approve", &id), "no such question that you may answer"),
        (pressed("U1", "T1", "approve", &other), "no such question that you may answer"),
        (pressed("U9", "T1", "approve", &id), "nobody knows who U9 is"),
        (pressed("U1", "T2", "approve", &id), "another workspace"),
    ] {
        let (headers, body) = posted(&payload, SECRET, now());
        site.slack.callback(&backend, &headers, &body).unwrap();
        let told = site.called("chat.postEphemeral").await;
        assert!(told["text"].as_str().unwrap().contains(why), "{told}");
    }
    assert!(site.desk.questions().iter().all(|asking| asking.state.as_str() == "pending"));
    let (headers, body) = posted(&good, SECRET, now());
    site.slack.callback(&backend, &headers, &body).unwrap();
    site.state(0, "approved").await;
    assert_eq!(site.slack.callback(&backend, &headers, &body), Err("this came before"));
}

#[tokio::test]
async fn buttons_come_over_a_connection_of_our_own() {
    let site = site().await;
    let id = site.desk.ask("sre", 1, None).to_string();
    tokio::spawn(site.slack.clone().listen(site.desk.clone()));
    let envelope = |number: u32, payload: &Value| {
        let text = json!({ "type": "interactive", "envelope_id": number.to_string(), "payload": payload });
        tungstenite::Message::text(text.to_string())
    };
    // The first connection is to be opened anew; the second carries an answer, twice.
    let (stream, _) = site.socket.accept().await.unwrap();
    let mut first = accept_async(stream).await.unwrap();
    first.send(tungstenite::Message::text(json!({ "type": "disconnect" }).to_string())).await.unwrap();
    let (stream, _) = site.socket.accept().await.unwrap();
    let mut second = accept_async(stream).await.unwrap();
    second.send(tungstenite::Message::text(json!({ "type": "hello" }).to_string())).await.unwrap();
    for _ in 0..2 {
        second.send(envelope(7, &pressed("U1", "T1", "approve", &id))).await.unwrap();
        let heard = second.next().await.unwrap().unwrap().into_text().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&heard).unwrap(), json!({ "envelope_id": "7" }));
    }
    site.state(0, "approved").await;
    assert_eq!(site.desk.answers.lock().len(), 1);
    assert_eq!(Receiver::trouble(&site.slack), None);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_visible_trouble() {
    let site = site().await;
    site.workspace.revoked.store(true, std::sync::atomic::Ordering::SeqCst);
    let receivers: Vec<Box<dyn Receiver>> = vec![Box::new(site.slack.clone())];
    let messages = Messages::open(&site.folder.path().join("messages"), receivers, site.desk.clone()).unwrap();
    tokio::spawn(messages.clone().run());
    site.desk.ask("sre", 1, None);
    while messages.status()[0].failed == 0 {
        tokio::task::yield_now().await;
    }
    let status = messages.status().remove(0);
    let trouble = status.trouble.unwrap();
    assert!(trouble.contains("token_revoked") && trouble.contains("put a valid token"), "{trouble}");
    // Where buttons come from, too, and before it is tried again.
    tokio::spawn(site.slack.clone().listen(site.desk.clone()));
    while Receiver::trouble(&site.slack).is_none_or(|why| !why.contains("apps.connections.open: Slack refuses")) {
        tokio::task::yield_now().await;
    }
    assert_eq!((status.waiting, status.dead), (1, 0), "it is tried again");
}
