//! What becomes of connections that are not to AWS's API: `docs/destinations.md`, a test a row.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    io::{BufRead as _, BufReader},
    process::Child,
};

use chaperone_system_tests::{Lab, both, script, text};

const POLICY: &str = "@id(\"reads\") permit (principal, action == Action::\"http:GET\", resource);\n";

#[test]
fn applications_on_aws_are_decided_by_method() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    for url in [
        "http://my-lb-1.eu-west-1.elb.amazonaws.com/health",
        "https://my-lb-1.eu-west-1.elb.amazonaws.com/health",
        "http://ec2-203-0-113-25.eu-west-1.compute.amazonaws.com/health",
        "http://my-site.s3-website-eu-west-1.amazonaws.com/health",
        "https://abcdefghij.lambda-url.eu-west-1.on.aws/health",
    ] {
        let host = url.split('/').nth(2).unwrap();
        let said = lab.agent_ok(&format!("curl -sS -H 'Authorization: Bearer of-its-own' {url}"));
        assert!(said.contains(&format!("This is {host}")), "{url}: {said}\n{}", lab.log());
        let sent = lab.upstream();
        let sent = sent.last().unwrap();
        assert_eq!((text(sent, "host"), sent["access_key_id"].is_null()), (host, true), "{sent}");
        let denied = lab.agent_ok(&format!("curl -sS -o /dev/null -w '%{{http_code}}' -d secret=1 {url}"));
        assert_eq!(denied, "403", "{url}");
        let calls = lab.calls();
        let [.., read, written] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((text(read, "decision"), &read["actions"][0]), ("allow", &"http:GET".into()));
        assert_eq!(read["resources"][0], format!("https://{host}/health"));
        assert_eq!((text(written, "decision"), &written["actions"][0]), ("deny", &"http:POST".into()));
    }
}

/// What a key signed is AWS's API, and must be this session's.
#[test]
fn a_signature_at_an_application_is_somebodys_authority() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    let said = lab.agent_ok(
        "curl -sS --aws-sigv4 aws:amz:eu-west-1:lambda --user AKIASOMEBODY:secret https://abcdefghij.lambda-url.eu-west-1.on.aws/",
    );
    assert!(said.contains("not this session's placeholder key"), "{said}");
    assert_eq!(lab.upstream().len(), 0);
}

#[test]
fn other_names_are_passed_on() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    let said = lab.agent_ok("curl -sS -k https://www.example.com/; curl -sS http://www.example.com/");
    assert_eq!(said.matches("This is www.example.com").count(), 2, "{said}");
    assert!(lab.calls().is_empty());
}

/// A device's own certificate must reach the broker, so that nobody between can read what it says. The decision of the policy
/// tools is the same.
#[test]
fn devices_speak_mqtt_by_their_own_certificate_where_that_is_permitted() {
    let broker = |name: &str| format!("{name}-ats.iot.eu-west-1.amazonaws.com");
    let lab = Lab::start_with(
        &["--aws", "moto"],
        &format!(
            "{POLICY} @id(\"the-broker\") permit (principal, action == Action::\"egress:MQTT\", resource == Resource::\"{}\");",
            broker("a1b2")
        ),
    );
    let server = own_server(&lab);
    // The lab's own file, in its own mount.
    let hosts = format!("127.0.0.1 localhost\n127.99.0.1 {} {}\n", broker("a1b2"), broker("c3d4"));
    std::fs::write(lab.dir.join("mounts/etc/hosts"), hosts).unwrap();
    let speak = |name: &str, protocols: &str| {
        let client = format!(
            "import socket, ssl
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.set_alpn_protocols({protocols})
socket = tls.wrap_socket(socket.create_connection((\"{name}\", 443), 20), server_hostname=\"{name}\")
socket.sendall(b\"GET / HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n\\r\\n\")
print(b\"\".join(iter(lambda: socket.recv(4096), b\"\")).decode())"
        );
        both(&lab.agent(&format!("python3 -c '{client}'")))
    };
    for protocol in ["x-amzn-mqtt-ca", "mqtt"] {
        let said = speak(&broker("a1b2"), &format!("[\"{protocol}\"]"));
        assert!(said.contains("own network: a1b2-ats.iot"), "{protocol}: {said}\n{}", lab.log());
        let said = speak(&broker("c3d4"), &format!("[\"{protocol}\"]"));
        assert!(said.contains("ACCESS_DENIED") && !said.contains("own network"), "{protocol}: {said}");
    }
    let said = speak(&broker("a1b2"), "[\"x-amzn-http-ca\"]");
    assert!(said.contains("ACCESS_DENIED"), "{said}");
    // With anything beside it, the server could speak HTTP: opened, as ever, and there is no application at that name.
    let said = speak(&broker("a1b2"), "[\"x-amzn-mqtt-ca\", \"http/1.1\"]");
    assert!(!said.contains("own network"), "{said}");
    let connections = lab.connections(6);
    let kinds: Vec<_> = connections.iter().map(|it| (text(it, "kind"), text(it, "name"))).collect();
    let (a, c) = (broker("a1b2"), broker("c3d4"));
    let (passed, refused) = (("passed", a.as_str()), ("refused", c.as_str()));
    assert_eq!(kinds, [passed, refused, passed, refused, ("refused", a.as_str()), ("inspected", a.as_str())]);
    assert!(text(&connections[1], "error").contains("egress:MQTT on resource: c3d4-ats.iot"), "{}", connections[1]);
    assert!(text(&connections[4], "error").contains("a device's own certificate"), "{}", connections[4]);
    // What the policy tools say of it.
    let (why, other) = (text(&connections[0], "id"), text(&connections[1], "id"));
    let said = lab.operator_ok(&format!("chaperone policy why {why}"));
    assert!(said.contains("egress:MQTT on a1b2-ats.iot") && said.contains("permit the-broker matched"), "{said}");
    let said = lab.operator(&format!("chaperone policy why {other} --json"));
    assert_eq!(said.status.code(), Some(1), "{}", both(&said));
    assert!(both(&said).contains("to permit egress:MQTT on c3d4-ats.iot"), "{}", both(&said));
    let new = lab.file("new.cedar", "@id(\"none\") forbid (principal, action in Action::\"egress:*\", resource);");
    let said = lab.operator(&format!("chaperone policy try {new}"));
    assert!(both(&said).contains("4 connections decided again: 2 as before, 2 would change"), "{}", both(&said));
    end(server);
}

/// A server of the agents' own network, at an address that no name has for the host.
fn own_server(lab: &Lab) -> Child {
    let script = script("own_server.py");
    let mut server = lab.spawn_operator(&format!("exec python3 {} 127.99.0.1 $CHAPERONE_LAB", script.display()));
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    server
}

fn end(mut server: Child) {
    drop(server.stdin.take());
    server.wait().unwrap();
}

/// Runs a script where this name has that address.
fn with_hosts(name: &str, script: &str) -> String {
    // A mount namespace of the operator's making: in a chroot nobody else may make one.
    format!(
        "cat /etc/hosts > $CHAPERONE_LAB/hosts && echo '127.99.0.1 {name}' >> $CHAPERONE_LAB/hosts && \
         unshare -m sh -c 'mount --bind $CHAPERONE_LAB/hosts /etc/hosts && exec chaperone run --agent coder -- sh -c \"{script}\"'"
    )
}

#[test]
fn what_is_passed_on_is_decided_by_name() {
    let lab = Lab::start_with(
        &["--aws", "moto"],
        "@id(\"all\") permit (principal, action, resource);
         @id(\"only-github\") forbid (principal, action in Action::\"egress:*\", resource)
           unless { resource in Resource::\"github.com\" };",
    );
    let said = lab.agent_ok("curl -sS -k https://github.com/; curl -sS http://api.github.com/");
    assert!(said.contains("This is github.com") && said.contains("This is api.github.com"), "{said}");
    let refused = lab.agent("curl -sS -k https://www.example.com/");
    assert!(!refused.status.success() && both(&refused).contains("access denied"), "{}", both(&refused));
    let refused = lab.agent_ok("curl -sS -w '%{http_code}' http://www.example.com/");
    assert!(refused.contains("only-github") && refused.ends_with("403"), "{refused}");
    // AWS is decided call by call.
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity");
    let connections = lab.connections(5);
    let kinds: Vec<_> = connections.iter().map(|it| (text(it, "name"), text(it, "kind"))).collect();
    assert_eq!(kinds[..2], [("github.com", "passed"), ("api.github.com", "passed")]);
    assert_eq!(kinds[2..4], [("www.example.com", "refused"); 2]);
    assert!(text(&connections[2], "error").contains("egress:TLS on resource: www.example.com"), "{}", connections[2]);
    assert!(text(&connections[2], "error").contains("only-github"), "{}", connections[2]);
}

/// By its /etc/hosts here; with a container engine's DNS it is the same to us: the host's resolver has another answer.
#[test]
fn names_of_the_agents_own_network_are_met_there() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    let server = own_server(&lab);
    let name = "db.internal";
    let both_ways = format!("curl -sS -k https://{name}/ && curl -sS http://{name}/");
    let said = lab.operator_ok(&with_hosts(name, &both_ways));
    assert_eq!(said.matches("own network: db.internal").count(), 2, "{said}\n{}", lab.log());
    let connections = lab.connections(2);
    for connection in &connections {
        assert_eq!((text(connection, "kind"), text(connection, "name")), ("passed", name), "{connection}");
        assert!(text(connection, "upstream").starts_with("127.99.0.1:"), "{connection}");
    }
    // A name of AWS's is AWS's, wherever the agent's own network has it.
    let sts = "sts.eu-west-1.amazonaws.com";
    let refused = lab.operator(&with_hosts(sts, &format!("curl -sS -k -m 20 https://{sts}/")));
    assert!(!refused.status.success(), "{}", both(&refused));
    end(server);
}

#[test]
fn addresses_without_a_name_are_met_where_aws_does_not_answer() {
    let lab = Lab::start_with(
        &["--aws", "moto"],
        "@id(\"not-there\") forbid (principal, action in Action::\"egress:*\", resource)
           when { context.host == \"\" && context.port == 8443 };
         @id(\"rest\") permit (principal, action, resource);",
    );
    let server = own_server(&lab);
    let said = lab.agent_ok("curl -sS -k https://127.99.0.1/ && curl -sS http://127.99.0.1/");
    assert_eq!(said.matches("own network: 127.99.0.1").count(), 2, "{said}\n{}", lab.log());
    let refused = lab.agent("curl -sS -k https://127.99.0.1:8443/");
    assert!(!refused.status.success() && both(&refused).contains("access denied"), "{}", both(&refused));
    // With a name that the host doesn't vouch for it is no other place.
    let named = lab.agent("curl -sS -k --resolve github.com:8443:127.99.0.1 https://github.com:8443/");
    assert!(!both(&named).contains("own network"), "{}", both(&named));
    let connections = lab.connections(4);
    let kinds: Vec<_> = connections.iter().map(|it| (text(it, "kind"), text(it, "upstream"))).collect();
    assert_eq!(kinds[..2], [("passed", "127.99.0.1:443"), ("passed", "127.99.0.1:80")]);
    assert_eq!(kinds[2].0, "refused");
    assert!(text(&connections[2], "error").contains("not-there"), "{}", connections[2]);
    assert_eq!(kinds[3], ("passed", "127.77.0.1:8443"), "{}", connections[3]);
    end(server);
}
