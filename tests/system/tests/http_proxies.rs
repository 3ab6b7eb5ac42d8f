//! Where there is an enterprise's HTTP proxy: one that agents dial, and one that the daemon goes by.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Child,
};

use chaperone_system_tests::{Lab, both, script, text};

const ADDRESS: &str = "127.98.0.1:3128";
const POLICY: &str = "@id(\"all\") permit (principal, action, resource);
    @id(\"not-there\") forbid (principal, action in Action::\"egress:*\", resource in Resource::\"forbidden.example\");";

fn lab(config: &str) -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("more.toml");
    fs::write(&file, config).unwrap();
    Lab::start_with(&["--aws", "moto", "--config", &file.display().to_string()], POLICY)
}

fn proxy(lab: &Lab) -> Child {
    let command = format!("exec python3 {} {ADDRESS} $CHAPERONE_LAB/proxy.log", script("http_proxy.py").display());
    let mut proxy = lab.spawn_operator(&command);
    let mut ready = String::new();
    BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    proxy
}

fn end(mut proxy: Child) {
    drop(proxy.stdin.take());
    proxy.wait().unwrap();
}

/// What the proxy was asked for.
fn asked(lab: &Lab) -> Vec<String> {
    let text = fs::read_to_string(lab.dir.join("proxy.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_agents_ask_their_proxy_for_is_judged_as_if_they_went_there() {
    let lab = lab(&format!("[capture]\nproxies = [\"{ADDRESS}\"]\n"));
    let proxy = proxy(&lab);
    let by = format!("http://me:secret@{ADDRESS}");
    // AWS: decoded, decided, signed, and reached as always.
    let said = lab.agent_ok(&format!(
        "export AWS_DEFAULT_REGION=eu-west-1 HTTPS_PROXY={by} HTTP_PROXY={by}; aws sts get-caller-identity && aws s3 ls"
    ));
    assert!(said.contains("Account"), "{said}");
    assert_eq!(lab.calls().len(), 2);
    assert_eq!(lab.upstream().len(), 2);
    assert_eq!(asked(&lab), [""; 0]);
    // Others: by the proxy, with the agent's own credentials for it.
    let said = lab.agent_ok(&format!(
        "curl -sS -k -x {by} https://www.example.com/ && curl -sS -x {by} http://www.example.com/ && \
         curl -sS -x {by} -d hello http://www.example.com/"
    ));
    assert_eq!(said.matches("This is www.example.com").count(), 3, "{said}\n{}", lab.log());
    let by_name = ["GET http://www.example.com/ HTTP/1.1", "POST http://www.example.com/ HTTP/1.1"];
    let seen = asked(&lab);
    assert!(
        seen.iter().all(|line| line == "CONNECT www.example.com:443 HTTP/1.1" || by_name.contains(&&**line)),
        "{seen:?}"
    );
    assert!(by_name.iter().all(|line| seen.iter().any(|seen| seen == line)), "{seen:?}");
    let bodies = lab.upstream();
    assert_eq!(text(bodies.last().unwrap(), "method"), "POST");
    // Refused: by policy, in both forms; an AWS name behind another one; AWS without a name.
    let before = asked(&lab);
    let refused = lab.agent(&format!("curl -sS -k -x {by} https://forbidden.example/"));
    assert!(!refused.status.success() && both(&refused).contains("access denied"), "{}", both(&refused));
    let refused = lab.agent_ok(&format!("curl -sS -w '%{{http_code}}' -x {by} http://forbidden.example/"));
    assert!(refused.contains("not-there") && refused.ends_with("403"), "{refused}");
    let sts = "sts.eu-west-1.amazonaws.com:443";
    for hidden in [
        format!("curl -sS -k -m 20 -x {by} --connect-to www.example.com:443:{sts} https://www.example.com/"),
        format!("curl -sS -k -m 20 -x {by} https://127.77.0.1/"),
    ] {
        let refused = lab.agent(&hidden);
        assert!(!refused.status.success(), "{hidden}: {}", both(&refused));
    }
    let new = asked(&lab).split_off(before.len());
    assert!(new.iter().all(|line| !line.contains("amazonaws")), "{new:?}");
    assert_eq!(lab.calls().len(), 2);
    assert_eq!(lab.upstream().len(), bodies.len(), "{:?}", lab.upstream());
    let connections = lab.list("connections");
    assert!(connections.iter().any(|it| text(it, "destination") == ADDRESS && text(it, "name") == "www.example.com"));
    end(proxy);
}

#[test]
fn the_daemon_goes_by_a_proxy_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("proxy");
    fs::write(&credentials, "me:secret\n").unwrap();
    let lab = lab(&format!(
        "[upstream.proxy]\nurl = \"http://{ADDRESS}\"\ncredentials_file = \"{}\"\nno_proxy = [\"internal.example\"]\n",
        credentials.display()
    ));
    let proxy = proxy(&lab);
    lab.agent_ok("AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity");
    let said = lab.agent_ok("curl -sS -k https://www.example.com/ && curl -sS -k https://a.internal.example/");
    assert!(said.contains("This is www.example.com") && said.contains("This is a.internal.example"), "{said}");
    assert_eq!(
        asked(&lab),
        ["CONNECT sts.eu-west-1.amazonaws.com:443 HTTP/1.1", "CONNECT www.example.com:443 HTTP/1.1"],
        "{}",
        lab.log()
    );
    assert_eq!(lab.calls().len(), 1);
    // Without the right credentials nothing goes on, and nothing by another way.
    fs::write(&credentials, "me:wrong\n").unwrap();
    let failed = lab.agent("curl -sS -k https://github.com/");
    assert!(!failed.status.success(), "{}", both(&failed));
    let connection = lab.connections(4).pop().unwrap();
    assert!(text(&connection, "error").contains("wants other credentials"), "{connection}");
    end(proxy);
}
