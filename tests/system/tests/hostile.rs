//! What an agent would try.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::io::{BufRead as _, BufReader};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text};

const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

#[test]
fn somebody_elses_key_is_refused_and_recorded() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let keys =
        "export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY;";
    let output = lab.agent(&format!("{REGION} {keys} aws sts get-caller-identity"));
    assert!(!output.status.success() && both(&output).contains("placeholder"), "{}", both(&output));
    let call = &lab.calls()[0];
    assert_eq!((text(call, "decision"), text(call, "reason")), ("deny", "foreign-authority"));
    assert_eq!(lab.upstream().len(), 0);
}

#[test]
fn a_placeholder_with_another_secret_is_refused() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let output = lab.agent(&format!(
        "{REGION} T=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
         B=http://169.254.169.254/latest/meta-data/iam/security-credentials/
         C=$(curl -sS -H \"X-aws-ec2-metadata-token: $T\" $B$(curl -sS -H \"X-aws-ec2-metadata-token: $T\" $B))
         get() {{ echo \"$C\" | python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' $1; }}
         export AWS_ACCESS_KEY_ID=$(get AccessKeyId) AWS_SESSION_TOKEN=$(get Token) AWS_SECRET_ACCESS_KEY=guessed
         aws sts get-caller-identity"
    ));
    assert!(!output.status.success(), "{}", both(&output));
    assert_eq!(text(&lab.calls()[0], "reason"), "invalid-signature");
    assert_eq!(lab.upstream().len(), 0);
}

/// A placeholder belongs to one session: another agent can't use it.
#[test]
fn another_sessions_placeholder_is_refused() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    lab.agent_ok("python3 - <<'E' > /dev/null
import botocore.utils, json, os
credentials = botocore.utils.InstanceMetadataFetcher().retrieve_iam_role_credentials()
with open(os.environ['CHAPERONE_LAB'] + '/stolen', 'w') as file:
    file.write('export AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s AWS_SESSION_TOKEN=%s\\n' % (credentials['access_key'], credentials['secret_key'], credentials['token']))
E");
    let output = lab.agent(&format!("{REGION} . $CHAPERONE_LAB/stolen; aws sts get-caller-identity"));
    assert!(!output.status.success(), "{}", both(&output));
    assert_eq!(text(&lab.calls()[0], "reason"), "foreign-authority");
}

#[test]
fn names_that_disagree_are_misdirected() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let raw = script("raw.py");
    let answer = lab.agent_ok(&format!(
        "python3 {} s3.eu-west-1.amazonaws.com 'GET / HTTP/1.1\\r\\nHost: sts.eu-west-1.amazonaws.com\\r\\n\\r\\n'",
        raw.display()
    ));
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert_eq!(text(&lab.calls()[0], "decision"), "deny");
    assert_eq!(lab.upstream().len(), 0);
}

/// Requests that two parties could read in two ways: none reaches AWS, each is recorded.
#[test]
fn smuggling_is_refused() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let raw = script("raw.py");
    let host = "Host: s3.eu-west-1.amazonaws.com";
    let shapes = [
        format!(
            "POST / HTTP/1.1\\r\\n{host}\\r\\nContent-Length: 6\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\nG"
        ),
        format!("POST / HTTP/1.1\\r\\n{host}\\r\\nContent-Length: 3\\r\\nContent-Length: 3\\r\\n\\r\\nabc"),
        format!("GET / HTTP/1.1\\r\\n{host}\\r\\n{host}\\r\\n\\r\\n"),
        format!("GET http://example.com/ HTTP/1.1\\r\\n{host}\\r\\n\\r\\n"),
        format!("GET /a#b HTTP/1.1\\r\\n{host}\\r\\n\\r\\n"),
        format!("GET / HTTP/1.1\\r\\n{host}\\r\\nX: a\\r\\n b\\r\\n\\r\\n"),
        format!("POST / HTTP/1.0\\r\\n{host}\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n"),
        "GET / HTTP/1.1\\r\\nHost: user@s3.eu-west-1.amazonaws.com\\r\\n\\r\\n".to_owned(),
        "GET / HTTP/1.1\\r\\nHost: s3.eu-west-1.amazonaws.com:8443\\r\\n\\r\\n".to_owned(),
    ];
    for shape in &shapes {
        let answer = lab.agent_ok(&format!("python3 {} s3.eu-west-1.amazonaws.com '{shape}'", raw.display()));
        assert!(answer.starts_with("HTTP/1.1 400"), "{shape}: {answer}");
    }
    let calls = lab.calls();
    assert_eq!(calls.len(), shapes.len());
    assert!(calls.iter().all(|call| text(call, "decision") == "deny"));
    assert_eq!(lab.upstream().len(), 0);
}

#[test]
fn a_handshake_without_a_name_is_refused_where_aws_answers() {
    let lab = Lab::start(&["--aws", "moto"]);
    let output = lab.agent("curl -sS -k -m 5 https://127.77.0.1/");
    assert!(!output.status.success(), "{}", both(&output));
    let connection = &lab.connections(1)[0];
    assert_eq!(text(connection, "kind"), "refused");
    assert!(text(connection, "error").contains("no server name"), "{connection}");
    // In the clear, too: AWS is known by what it shows on the port beside.
    assert_eq!(lab.agent_ok("curl -sS -o /dev/null -w '%{http_code}' http://127.77.0.1/"), "403");
    assert!(lab.upstream().is_empty());
}

/// A name that isn't AWS's in the handshake, a bucket's address in the connect: it goes where the name is, not where
/// the agent chose.
#[test]
fn a_name_that_lies_is_met_at_its_own_address() {
    let lab = Lab::start(&["--aws", "moto"]);
    lab.agent_ok("curl -sS --cacert $CHAPERONE_LAB/ca.crt --connect-to example.com:443:127.88.0.1:443 https://example.com/ > /dev/null");
    let connection = &lab.connections(1)[0];
    assert_eq!(text(connection, "destination"), "127.88.0.1:443");
    assert_eq!(text(connection, "upstream"), "127.77.0.1:443");
}

/// As in a container without a network: what isn't AWS's is reached from there, not from where the daemon is.
#[test]
fn a_network_namespace_that_leads_nowhere_does_not_lead_to_the_hosts_services() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let mut service = lab.spawn_operator(
        "exec python3 -c 'import select, socket, sys
listener = socket.create_server((\"127.0.0.1\", 80))
print(\"ready\", flush=True)
while select.select([listener, sys.stdin], [], [])[0] == [listener]:
    stream, _ = listener.accept()
    stream.recv(1000)
    stream.sendall(b\"HTTP/1.1 200 OK\\r\\nContent-Length: 10\\r\\nConnection: close\\r\\n\\r\\nthe host s\")
    stream.close()'",
    );
    let mut ready = String::new();
    BufReader::new(service.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    assert_eq!(lab.agent_ok("curl -sS http://localhost/"), "the host s");
    let said = lab.agent_ok(&format!("python3 {}", script("elsewhere.py").display()));
    drop(service.stdin.take());
    service.wait().unwrap();
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said, ["no route: refused", "nobody there: refused", "somebody there: its own"], "{}", lab.log());
    let connections = lab.connections(4);
    let kinds: Vec<_> = connections.iter().map(|it| (text(it, "kind"), text(it, "destination"))).collect();
    let own = "127.0.0.1:80";
    assert_eq!(kinds[0].0, "passed");
    assert_eq!(kinds[1..], [("refused", "192.0.2.1:80"), ("refused", own), ("passed", own)], "{connections:?}");
    assert!(text(&connections[1], "error").contains("there is no way to 192.0.2.1:80"), "{}", connections[1]);
    assert!(text(&connections[2], "error").contains("connecting to localhost"), "{}", connections[2]);
}

/// What is found to be wrong while earlier requests are answered is told of, and recorded for, the request that it is in.
#[test]
fn a_refusal_that_is_found_early_is_its_own_requests() {
    let lab = Lab::start(&["--aws", "moto"]);
    let host = "sqs.eu-west-1.amazonaws.com";
    let good = format!("GET /good HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n").repeat(5);
    let bad = format!(
        "POST /bad HTTP/1.1\\r\\nHost: {host}\\r\\nX-Amz-Target: AmazonSQS.ListQueues\\r\\nContent-Length: +1\\r\\n\\r\\n"
    );
    lab.agent_ok(&format!("python3 {} {host} '{good}{bad}' all", script("raw.py").display()));
    let calls = lab.calls();
    let seen: Vec<_> = calls.iter().map(|call| (text(call, "host"), text(call, "target"))).collect();
    assert_eq!(seen, [[(host, "/good"); 5].as_slice(), &[(host, "/bad")]].concat(), "{calls:?}");
    let refused: Vec<_> = calls.iter().map(|call| call["status"].as_u64()).collect();
    assert_eq!(refused[5], Some(400), "{calls:?}");
    assert!(refused[..5].iter().all(|status| *status != Some(400)), "{calls:?}");
}

#[test]
fn one_agents_connections_keep_nobody_else_out() {
    let folder = tempfile::Builder::new().prefix("chaperone-test-").tempdir().unwrap();
    let limits = folder.path().join("limits.toml");
    std::fs::write(&limits, "[limits]\nconnections = 20\nsession_connections = 10\nhandshake_timeout = 120\n").unwrap();
    let lab = Lab::start_with(&["--aws", "moto", "--config", limits.to_str().unwrap()], PERMIT_ALL);
    let go = lab.dir.join("go");
    let mut greedy =
        lab.spawn_agent(&format!("python3 {} 25 15 {}", script("many_connections.py").display(), go.display()));
    let mut said = String::new();
    BufReader::new(greedy.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "closed 15\n", "{}", lab.log());
    lab.agent_ok(&format!("{REGION} aws sts get-caller-identity"));
    std::fs::write(&go, "").unwrap();
    assert!(greedy.wait().unwrap().success());
    let (limit, metrics) = ("limits.session_connections", lab.operator_ok("curl -sS http://127.0.0.1:9464/metrics"));
    assert!(metrics.contains("connections_over_share_total 15"), "{metrics}");
    let refused = lab.list("connections").into_iter().filter(|it| text(it, "error").contains(limit)).count();
    assert!((1..15).contains(&refused) && lab.log().contains(limit), "{refused}: {}", lab.log());
}

/// Whoever reads its arguments in `/proc` waits for as long as it likes.
#[test]
fn a_process_that_keeps_its_memory_locked_holds_nobody_up() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let (program, go) = (lab.dir.join("keep_lock"), lab.dir.join("go"));
    let mut compiler = std::process::Command::new("cc");
    let compiler = compiler.args(["-pthread", "-Wl,-z,now", "-o"]).args([&program, &script("keep_lock.c")]);
    assert!(compiler.status().unwrap().success());
    let folder = lab.dir.join("fuse");
    let mut keeper = lab.spawn_agent(&format!(
        "mkdir {0}; exec unshare -m {1} {0} 8 {2}",
        folder.display(),
        program.display(),
        go.display()
    ));
    let mut said = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let other = lab.agent(&format!("{REGION} timeout 60 aws sts get-caller-identity"));
    std::fs::write(&go, "").unwrap();
    keeper.wait().unwrap();
    assert_eq!(said, "connected\n", "{}", lab.log());
    assert!(other.status.success(), "{}\n{}", both(&other), lab.log());
    let connections = lab.connections(9);
    let of_keeper = connections.iter().filter(|it| text(it, "exe").ends_with("/keep_lock"));
    let arguments: Vec<_> = of_keeper.map(|it| it["argv"].as_array().unwrap().len()).collect();
    assert_eq!(arguments, [4; 8], "{connections:?}");
}

#[test]
fn quic_is_refused_and_the_listener_answers_nobody() {
    let lab = Lab::start(&["--aws", "moto"]);
    let answer = lab.agent_ok(
        "python3 - <<'E'
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    udp.sendto(b'x', ('127.77.0.1', 443))
    print('sent')
except PermissionError:
    print('refused')
E",
    );
    assert_eq!(answer.trim(), "refused");
    // Whatever port the daemon listens on, dialling it directly gets nothing.
    let pid = lab.daemon();
    let ports = lab.operator_ok(&format!("ss -Hltnp | grep 'pid={pid},' | awk '{{print $4}}' | grep -o '[0-9]*$'"));
    for port in ports.split_whitespace().filter(|port| *port != "9464") {
        let output = lab.agent(&format!("curl -sS -m 5 http://127.0.0.1:{port}/"));
        assert!(!output.status.success(), "{port}: {}", both(&output));
        let output = lab.operator(&format!("curl -sS -m 5 http://127.0.0.1:{port}/"));
        assert!(!output.status.success(), "{port}: {}", both(&output));
    }
}

/// AWS answers there, too, and Amazon Transcribe's WebSockets are there alone.
#[test]
fn port_8443_is_captured() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let host = "sts.eu-west-1.amazonaws.com";
    lab.agent_ok(&format!("{REGION} aws --endpoint-url https://{host}:8443 sts get-caller-identity"));
    let answer = lab.agent_ok(
        "curl -sS -i --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
           https://transcribestreaming.eu-west-1.amazonaws.com:8443/stream-transcription-websocket",
    );
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    let calls = lab.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!((text(&calls[0], "operation"), calls[0]["status"].as_u64()), ("GetCallerIdentity", Some(200)));
    assert_eq!((text(&calls[1], "decision"), text(&calls[1], "reason")), ("deny", "not-supported"));
    let connections = lab.connections(3);
    let dialled = |it: &&serde_json::Value| text(it, "destination") == "127.77.0.1:8443";
    assert_eq!(connections.iter().filter(dialled).count(), 2, "{connections:?}");
    assert_eq!(lab.upstream().len(), 1);
}

/// A body that isn't what was signed is not passed off as signed.
#[test]
fn a_wrong_hash_does_not_become_an_object() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://hash"));
    let output = lab.agent(&format!("python3 {}", script("wrong_hash.py").display()));
    for key in ["lied", "nothing", "word"] {
        assert!(both(&output).contains(&format!("{key} status 4")), "{}", both(&output));
        let output = lab.agent(&format!("{REGION} aws s3api head-object --bucket hash --key {key}"));
        assert!(!output.status.success(), "{}", both(&output));
    }
    // What did reach AWS was never a whole request.
    let upstream = lab.upstream();
    let puts = upstream.iter().filter(|it| text(it, "method") == "PUT" && text(it, "path") != "/");
    assert!(puts.clone().all(|it| it["complete"] == false), "{upstream:?}");
    assert!(puts.count() <= 1, "only the one whose body had to be read: {upstream:?}");
}

/// `inspect` opens a company's own API: recorded whole, decided by method, not signed.
#[test]
fn inspected_names_are_decided_by_method() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("inspect.toml");
    std::fs::write(&config, "[proxy]\ninspect = [\"api.example.com\", \"*.corp.example\"]\n").unwrap();
    let policy = "permit (principal, action == Action::\"http:GET\", resource);\n@id(\"no-posts\") forbid (principal, action == Action::\"http:POST\", resource);\n";
    let lab = Lab::start_with(&["--aws", "moto", "--config", &config.display().to_string()], policy);
    let answer = lab.agent_ok("curl -sS https://api.example.com/v1/things?x=1; curl -sS https://a.corp.example/");
    assert!(answer.contains("api.example.com"), "{answer}");
    let denied = lab.agent_ok("curl -sS -w ' %{http_code}' -d secret=1 https://api.example.com/v1/things");
    assert!(denied.contains("no-posts") && denied.contains("403"), "{denied}");
    let calls = lab.calls();
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0]["actions"][0], "http:GET");
    assert_eq!(calls[0]["resources"][0], "https://api.example.com/v1/things");
}

/// What is hostile past a signature that is right: refused in bounded memory, in the protocol's own shape, recorded.
#[test]
fn hostile_bodies_are_refused_in_their_protocols_own_shape() {
    const JSON: &str = "application/x-amz-json-1.1";
    let cases = [
        ("length too long", 0, ""),
        ("length too short", 403, JSON),
        ("chunks cut off", 0, ""),
        ("a chunk of 2^64", 400, JSON),
        ("100 MB of header fields", 400, JSON),
        ("100 MB in one header field", 400, JSON),
        ("100 MB of trailers", 400, JSON),
        ("100 MB of chunk extensions", 400, JSON),
        ("deep JSON", 403, JSON),
        ("wide JSON", 403, JSON),
        ("a JSON member twice", 403, JSON),
        ("JSON that isn't", 403, JSON),
        ("deep XML", 403, "application/xml"),
        ("large XML", 403, "application/xml"),
        ("an entity bomb", 403, "application/xml"),
        ("deep CBOR", 403, "application/cbor"),
        ("CBOR that promises 2^63 members", 403, "application/cbor"),
        ("the target twice", 403, JSON),
        ("a target and a body of another protocol", 403, JSON),
        ("a query and a body that disagree", 403, "text/xml"),
        ("no such operation", 403, JSON),
        ("a denied upload", 403, "application/xml"),
    ];
    let policy =
        format!("{PERMIT_ALL}@id(\"no-uploads\") forbid (principal, action == Action::\"s3:PutObject\", resource);\n");
    let lab = Lab::start_with(&["--aws", "moto"], &policy);
    let said = lab.agent_ok(&format!("{REGION} python3 {}", script("hostile_input.py").display()));
    let answers: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (answer, (case, status, kind)) in answers.iter().zip(cases) {
        assert_eq!((text(answer, "case"), answer["status"].as_u64()), (case, Some(status)), "{answer}");
        let field = text(answer, "head").lines().find_map(|line| line.strip_prefix("content-type: "));
        assert_eq!(field.unwrap_or_default(), kind, "{answer}");
    }
    assert_eq!(answers.len(), cases.len());
    let calls = lab.calls();
    assert_eq!(calls.len(), cases.len());
    assert!(calls.iter().all(|call| text(call, "decision") == "deny"), "{calls:?}");
    // What was tried is evidence, whole, but for a body that is larger than what is read of it.
    for (answer, call) in answers.iter().zip(&calls) {
        if answer["sha256"].is_string() && text(answer, "case") != "large XML" {
            assert_eq!(answer["sha256"], call["request_sha256"], "{answer} {call}");
        }
    }
    assert_eq!(lab.upstream().len(), 0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.daemon())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    assert!(peak.parse::<u64>().unwrap() < 100_000, "{peak} kB");
}

#[test]
fn the_control_socket_answers_root_alone() {
    let lab = Lab::start(&["--aws", "moto"]);
    let ask = format!(
        "python3 -c 'import socket; link = socket.socket(socket.AF_UNIX); link.connect(\"{}\"); \
         link.sendall(b\"POST /v1/control HTTP/1.1\\r\\nhost: daemon\\r\\ncontent-length: 20\\r\\n\\r\\n{{\\\"request\\\":\\\"status\\\"}}\"); \
         print(link.recv(15))'",
        lab.dir.join("control.sock").display()
    );
    let as_nobody = format!("setpriv --reuid 65534 --regid 65534 --clear-groups {ask}");
    // Past the folders: else it is they that refuse.
    lab.operator_ok("chmod a+rx $CHAPERONE_LAB $CHAPERONE_LAB/..");
    assert_eq!(lab.operator_ok(&ask).trim(), "b'HTTP/1.1 200 OK'");
    let refused = lab.agent(&as_nobody);
    assert!(!refused.status.success() && both(&refused).contains("PermissionError"), "{}", both(&refused));
    // Whatever the file's mode has become.
    lab.operator_ok("chmod 0666 $CHAPERONE_LAB/control.sock");
    let said = both(&lab.agent(&as_nobody));
    let closed = ["b''", "ConnectionResetError", "BrokenPipeError"];
    assert!(closed.iter().any(|word| said.contains(word)), "{said}");
}
