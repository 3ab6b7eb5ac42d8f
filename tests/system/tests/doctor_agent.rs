//! `doctor --agent` tells right from wrong: each runtime that is here, once as it should be and once made wrong.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{collections::BTreeMap, path::Path};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, text};
use serde_json::Value;

/// What doctor says of each runtime, by these options.
fn asked(lab: &Lab, options: &str) -> (bool, BTreeMap<String, Value>) {
    let output = lab.operator(&format!("chaperone doctor --agent coder --json {options}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: BTreeMap<_, _> = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{}\n{}", both(&output), lab.log())))
        .map(|line| (text(&line, "runtime").to_owned(), line))
        .collect();
    assert!(!found.is_empty(), "{}\n{}", both(&output), lab.log());
    (output.status.success(), found)
}

/// The runtimes that must be in there: those of the lab, and those that this machine has.
fn expected(found: &BTreeMap<String, Value>) -> Vec<String> {
    let mut wanted: Vec<String> =
        ["go", "curl", "python3 ssl", "python3 requests", "python3 botocore"].map(String::from).to_vec();
    for (program, runtime) in [("/usr/bin/git", "git"), ("/usr/bin/node", "node https")] {
        if Path::new(program).exists() {
            wanted.push(runtime.into());
        }
    }
    for version in ["aws-cli/1.", "aws-cli/2."] {
        let name = found.keys().find(|name| name.starts_with(version));
        wanted.push(name.cloned().unwrap_or_else(|| panic!("{version} isn't in {found:?}")));
    }
    wanted
}

#[test]
fn each_runtime_is_told_right_and_wrong() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    // The lab's clients, then the system's.
    let path = lab.operator_ok("printf %s \"$PATH\"");
    let java = Path::new("/usr/bin/keytool").exists();
    let mut right = format!("--env PATH={path}");
    if java {
        lab.operator_ok(
            "keytool -importcert -noprompt -trustcacerts -alias chaperone -storepass changeit \\
               -file $CHAPERONE_LAB/state/ca/ca.crt -keystore $CHAPERONE_LAB/java.p12 && chmod 644 $CHAPERONE_LAB/java.p12",
        );
        let options = "-Djavax.net.ssl.trustStore=$CHAPERONE_LAB/java.p12 -Djavax.net.ssl.trustStorePassword=changeit";
        right = format!("{right} --env JAVA_TOOL_OPTIONS=\"{options}\"");
    }
    let (well, found) = asked(&lab, &right);
    for runtime in expected(&found) {
        assert_eq!(found.get(&runtime).map(|it| text(it, "state")), Some("verified"), "{runtime}: {found:#?}");
    }
    let is_java = |name: &str| name.starts_with("java");
    assert!(well || !java, "{found:#?}");
    if java {
        assert!(found.iter().any(|(name, it)| is_java(name) && text(it, "state") != "untrusted"), "{found:#?}");
    }

    // Somebody else's CA alone, in each of the ways that there are.
    // curl and git look into a folder, too, whatever file they are told; curl by its own configuration alone.
    lab.operator_ok(
        "cd $CHAPERONE_LAB && mkdir -m 755 empty curl && \
           printf 'cacert = %s/ca.crt\ncapath = %s/empty\n' $CHAPERONE_LAB $CHAPERONE_LAB > curl/.curlrc",
    );
    let (other, empty) = ("$CHAPERONE_LAB/ca.crt", "$CHAPERONE_LAB/empty");
    let mut wrong = format!(
        "--env PATH={path} --env NODE_EXTRA_CA_CERTS= --env NODE_USE_SYSTEM_CA= --env SSL_CERT_DIR={empty} --env GIT_SSL_CAPATH={empty} --env HOME=$CHAPERONE_LAB/curl"
    );
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO"] {
        wrong = format!("{wrong} --env {name}={other}");
    }
    let (well, found) = asked(&lab, &wrong);
    assert!(!well, "{found:#?}");
    for runtime in expected(&found) {
        assert_eq!(found.get(&runtime).map(|it| text(it, "state")), Some("untrusted"), "{runtime}: {found:#?}");
    }
    assert!(found.iter().all(|(name, it)| !is_java(name) || text(it, "state") != "verified"), "{found:#?}");

    // What was asked is on record, refused, and nothing of it reached AWS.
    let calls = lab.calls();
    assert!(calls.iter().all(|call| text(call, "decision") != "allow"), "{calls:?}");
}

#[test]
fn it_says_who_there_is_and_what_it_needs() {
    let lab = Lab::start_with(&["--aws", "none"], PERMIT_ALL);
    let output = lab.operator("chaperone doctor --agent nobody");
    assert!(!output.status.success() && both(&output).contains("coder"), "{}", both(&output));
    let output = lab.operator("chaperone doctor --agent coder --user no-such-user");
    assert!(both(&output).contains("no user `no-such-user`"), "{}", both(&output));
    // A name that doesn't resolve is no question of trust.
    let output = lab.operator("chaperone doctor --agent coder --env PATH=/nonexistent");
    assert!(both(&output).contains("go "), "{}", both(&output));
}
