//! WebSockets, by real clients to a real server that takes only what botocore's signer would have signed by the real key.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    io::{BufRead as _, BufReader},
    process::Child,
};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text};
use serde_json::Value;

struct Server {
    lab: Lab,
    child: Child,
}

impl Server {
    fn start(policy: &str) -> Self {
        let lab = Lab::start_with(&["--aws", "s3"], policy);
        let key = lab.dir.join("secrets/key");
        let mut child =
            lab.spawn_operator(&format!("exec python3 {} {}", script("websocket_server.py").display(), key.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { lab, child }
    }

    /// What a client prints, whatever becomes of it.
    fn say(&self, how: &str) -> String {
        both(&self.lab.agent(&format!("python3 {} {how}", script("open_websocket.py").display())))
    }

    /// The newest call to this path.
    fn call(&self, path: &str) -> Value {
        let calls = self.lab.calls();
        let of = |call: &&Value| text(call, "target").split('?').next() == Some(path);
        calls.iter().rfind(of).unwrap_or_else(|| panic!("{path}: {calls:?}\n{}", self.lab.log())).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn websockets_are_signed_again_decided_and_recorded_both_ways() {
    let server = Server::start(PERMIT_ALL);
    for (how, path, operation) in [
        ("query", "/prod", "Invoke"),
        ("header", "/prod", "Invoke"),
        ("query websocket-client", "/prod", "Invoke"),
        ("iot", "/mqtt", "Connect"),
    ] {
        let said = server.say(how);
        assert_eq!(said.matches("same").count(), 4, "{how}: {said}\n{}", server.lab.log());
        if !how.contains("websocket-client") {
            assert!(said.contains("subprotocol mqtt extensions 0"), "{how}: {said}");
        }
        let call = server.call(path);
        assert_eq!((text(&call, "operation"), text(&call, "decision")), (operation, "allow"), "{how}: {call}");
        assert_eq!((text(&call, "outcome"), call["status"].as_u64()), ("completed", Some(101)), "{how}: {call}");
        assert!(call["request_bytes"].as_u64() > Some(70_300), "{call}");
        assert!(call["response_bytes"].as_u64() > Some(70_300), "{call}");
        for direction in ["request", "response"] {
            let body = server.lab.operator(&format!("chaperone show {} --body {direction}", text(&call, "id"))).stdout;
            let body = String::from_utf8_lossy(&body);
            assert!(body.contains("héllo") && body.contains(&"x".repeat(300)), "{how} {direction}: readable");
        }
    }
    let upstream = server.lab.upstream();
    let key = std::fs::read_to_string(server.lab.dir.join("secrets/key")).unwrap();
    let key = key.lines().next().unwrap();
    assert!(upstream.iter().all(|it| text(it, "access_key_id") == key), "{upstream:?}");
}

#[test]
fn messages_of_an_event_stream_are_signed_again_inside() {
    let server = Server::start(PERMIT_ALL);
    let said = server.say("events");
    assert!(said.contains("signed 134\nsigned 20124\nsigned 83"), "{said}\n{}", server.lab.log());
    let said = server.say("events fragments");
    assert!(said.contains("signed 134\nsigned 20124\nsigned 83"), "in pieces: {said}\n{}", server.lab.log());
    assert_eq!(text(&server.call("/stream-transcription-websocket"), "outcome"), "completed");
    let said = server.say("events-unsigned");
    assert_eq!(said.matches("same").count(), 3, "as browsers send them: {said}");
    let said = server.say("events-tampered");
    assert!(said.contains("signed 134") && !said.contains("signed 20124") && said.contains("error"), "{said}");
    let call = server.call("/stream-transcription-websocket");
    assert_eq!(text(&call, "outcome"), "aborted", "{call}");
    assert!(text(&call, "error").contains("signature of a message"), "{call}");
}

#[test]
fn hostile_handshakes_open_nothing() {
    let server = Server::start(PERMIT_ALL);
    for (how, status) in [
        ("secret", "status 403"),
        ("changed", "status 403"),
        ("early", " 501 "),
        ("body", " 501 "),
        ("h2c", " 501 "),
        ("version", " 501 "),
        ("key", " 501 "),
        ("wrong-accept", "status 501"),
        ("refuses", "status 410 gone"),
    ] {
        let said = server.say(how);
        assert!(said.contains(status), "{how}: {said}\n{}", server.lab.log());
        assert!(!said.contains("same"), "{how}: {said}");
    }
    let upstream = server.lab.upstream();
    let asked: Vec<_> = upstream.iter().map(|it| text(it, "path").split('?').next().unwrap()).collect();
    assert_eq!(asked, ["/wrong-accept", "/refuses"], "{upstream:?}");
    assert_eq!(text(&server.call("/refuses"), "outcome"), "completed");
    let wrong = server.call("/wrong-accept");
    assert!(text(&wrong, "error").contains("Sec-WebSocket-Accept"), "{wrong}");
    assert!(server.lab.calls().iter().all(|call| !text(call, "target").contains("X-Amz-Signature=a")));
}

#[test]
fn policies_decide_on_a_websocket_as_on_any_call() {
    let server = Server::start(
        "@id(\"some\") permit (principal, action, resource);\n\
         @id(\"no-topics\") forbid (principal, action == Action::\"iot:Publish\", resource);\n",
    );
    let said = server.say("iot");
    assert!(said.contains("status 403") && said.contains("no-topics"), "{said}\n{}", server.lab.log());
    assert_eq!(text(&server.call("/mqtt"), "decision"), "deny");
    let said = server.say("query");
    assert_eq!(said.matches("same").count(), 4, "{said}\n{}", server.lab.log());
    assert!(server.lab.upstream().iter().all(|it| text(it, "path").starts_with("/prod")));
}
