//! A stop ends what is under way, whatever carries it.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Child,
    time::{SystemTime, UNIX_EPOCH},
};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text, until};

/// The latest that anything may come after `stop` has said that it is done, in seconds.
const LATEST: f64 = 0.1;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Starts a server that notes when pieces come.
fn server(lab: &Lab, command: &str) -> Child {
    let mut child = lab.spawn_operator(&format!("exec python3 {command}"));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// When pieces came.
fn ticks(lab: &Lab) -> Vec<f64> {
    let text = fs::read_to_string(lab.dir.join("ticks")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| line.trim().parse().unwrap()).collect()
}

/// Stops an agent that sends and sends, and looks when the last of it came.
fn is_cut_off(lab: &Lab, mut server: Child, how: &str) {
    let agent = lab.spawn_agent(&format!("exec python3 {} {how} 2>&1", script("ticks.py").display()));
    until("that pieces come", || ticks(lab).len() > 50);
    lab.operator_ok("chaperone stop coder --reason 'enough'");
    let stopped = now();
    let said = both(&agent.wait_with_output().unwrap());
    assert!(said.contains("ended"), "{said}\n{}", lab.log());
    let last = *ticks(lab).last().unwrap();
    assert!(last <= stopped + LATEST, "the last came {} s after the stop", last - stopped);
    // What would begin anew isn't let either.
    let before = ticks(lab).len();
    let again = lab.agent(&format!("exec python3 {} {how} 2>&1", script("ticks.py").display()));
    assert!(!both(&again).is_empty());
    assert_eq!(ticks(lab).len(), before, "{}", both(&again));
    drop(server.stdin.take());
    server.wait().unwrap();
}

#[test]
fn a_websocket_is_cut_off() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let (key, file) = (lab.dir.join("secrets/key"), lab.dir.join("ticks"));
    let command = format!("{} {} {}", script("websocket_server.py").display(), key.display(), file.display());
    let server = server(&lab, &command);
    is_cut_off(&lab, server, "websocket");
    let call = lab.calls().into_iter().find(|call| text(call, "target").starts_with("/timed")).unwrap();
    assert_eq!((text(&call, "decision"), text(&call, "outcome")), ("allow", "aborted"), "{call}");
}

#[test]
fn a_connection_that_is_passed_on_is_cut_off() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let command = format!("{} serve {}", script("ticks.py").display(), lab.dir.join("ticks").display());
    let server = server(&lab, &command);
    is_cut_off(&lab, server, "send");
    assert_eq!(text(&lab.connections(1)[0], "kind"), "passed");
}

#[test]
fn streams_over_http2_are_cut_off() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    lab.agent_ok("export AWS_DEFAULT_REGION=eu-west-1; aws s3 mb s3://busy-bucket");
    let agent = lab.spawn_agent(
        "set -- $(python3 -c 'import boto3; print(*boto3.Session().get_credentials().get_frozen_credentials()[:3])')
         cd && head -c 20000000 /dev/zero > zeros
         curl -sS --http2 --limit-rate 100k --aws-sigv4 aws:amz:eu-west-1:s3 --user \"$1:$2\" -H \"x-amz-security-token: $3\" \
             -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -T zeros -w ' by HTTP/%{http_version} %{http_code}' \
             https://s3.eu-west-1.amazonaws.com/busy-bucket/slow 2>&1",
    );
    until("an upload under way", || lab.list("calls").iter().any(|call| text(call, "operation") == "PutObject"));
    lab.operator_ok("chaperone stop coder --reason 'enough'");
    let said = both(&agent.wait_with_output().unwrap());
    assert!(said.contains("by HTTP/2"), "{said}\n{}", lab.log());
    assert!(!said.contains(" 200"), "{said}");
    until("the upload's end", || lab.upstream().iter().any(|request| text(request, "path").contains("slow")));
    let upload = lab.upstream().into_iter().find(|request| text(request, "path").contains("slow")).unwrap();
    assert_eq!(upload["complete"], false, "{upload}");
    let call = lab.calls().into_iter().find(|call| text(call, "operation") == "PutObject").unwrap();
    assert_eq!((text(&call, "decision"), text(&call, "outcome")), ("allow", "aborted"), "{call}");
}
