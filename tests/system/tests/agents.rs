//! Unmodified clients do their work, and all of it is seen.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{fs, process::Command};

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text, until};

const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

#[test]
fn an_unmodified_client_is_captured_decided_signed_and_recorded() {
    let lab = Lab::start(&["--aws", "moto"]);
    let identity = lab.agent_ok(&format!("{REGION} aws sts get-caller-identity"));
    assert!(identity.contains("123456789012"), "{identity}");
    let call = &lab.calls()[0];
    assert_eq!((text(call, "service"), text(call, "operation")), ("sts", "GetCallerIdentity"));
    assert_eq!(call["actions"][0], "sts:GetCallerIdentity");
    assert_eq!((text(call, "decision"), call["status"].as_u64()), ("allow", Some(200)));
    assert_eq!((text(call, "region"), text(call, "account")), ("eu-west-1", "123456789012"));
    assert!(call["argv"].as_array().unwrap().iter().any(|it| it == "get-caller-identity"), "{call}");
    assert!(text(call, "exe").contains("python"), "{call}");
    let shown = lab.operator_ok(&format!("chaperone show {}", text(call, "id")));
    assert!(shown.contains("Action=GetCallerIdentity") && shown.contains("GetCallerIdentityResult"), "{shown}");
    // What it was is also what AWS got.
    let upstream = lab.upstream();
    assert_eq!(upstream.len(), 1);
    assert_eq!(text(&upstream[0], "body_sha256"), text(call, "request_sha256"));
}

/// Which command deleted the bucket: by the call's own word, not by a pid that others have by now.
#[test]
fn every_command_is_recorded_and_a_call_names_the_one_that_made_it() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    lab.agent_ok(&format!(
        "{REGION} cd /usr; aws s3 mb s3://doomed; mysql --password=hunter2 2>/dev/null; /bin/echo --password hunter2; \
         aws s3 rb s3://doomed; /bin/sh -c 'exit 3'; /bin/true"
    ));
    let mut commands = Vec::new();
    until("every command's end", || {
        commands = lab.list("commands");
        commands.iter().any(|it| it["argv"][0] == "/bin/true") && commands.iter().all(|it| !it["ended"].is_null())
    });
    let deleted = lab.calls().into_iter().find(|call| text(call, "operation") == "DeleteBucket").unwrap();
    let by_id = |id: &serde_json::Value| commands.iter().find(|command| command["id"] == *id).unwrap();
    let command = by_id(&deleted["command"]);
    assert!(
        command["argv"].as_array().unwrap().ends_with(&["s3".into(), "rb".into(), "s3://doomed".into()]),
        "{command}"
    );
    assert_eq!((&command["pid"], &command["session"]), (&deleted["pid"], &deleted["session"]));
    assert_eq!((text(command, "directory"), &command["exit"]["code"]), ("/usr", &0.into()));
    assert_eq!(text(command, "exe_sha256").len(), 64);
    // The shell that ran it.
    let shell = by_id(&command["parent"]);
    assert_eq!((&shell["argv"][1], &shell["pid"]), (&"-c".into(), &command["parent_pid"]));
    let of = |name: &str| commands.iter().find(|command| command["argv"][0] == name).unwrap();
    assert_eq!(of("/bin/sh")["exit"]["code"], 3);
    assert_eq!(of("/bin/echo")["argv"][2], "<masked>");
    assert!(!serde_json::to_string(&commands).unwrap().contains("hunter2"));
    assert!(lab.connections(2).iter().all(|connection| connection["command"].is_string()));
    // For people, too.
    let table = lab.operator_ok("chaperone commands");
    assert!(table.contains("s3 rb s3://doomed"), "{table}");
}

#[test]
fn a_denial_is_an_ordinary_error_in_every_protocol() {
    let lab = Lab::start(&["--aws", "moto"]);
    for (command, code) in [
        ("aws s3api create-bucket --bucket b", "AccessDenied"),
        ("aws dynamodb delete-table --table-name t", "AccessDeniedException"),
        ("aws sqs create-queue --queue-name q", "AccessDeniedException"),
        ("aws sns create-topic --name t", "AccessDenied"),
        ("aws ec2 create-vpc --cidr-block 10.0.0.0/16", "UnauthorizedOperation"),
        ("aws lambda delete-function --function-name f", "AccessDeniedException"),
        ("aws iam create-user --user-name u", "AccessDenied"),
        ("aws secretsmanager get-secret-value --secret-id s", "AccessDeniedException"),
        ("aws route53 create-hosted-zone --name x.org --caller-reference 1", "AccessDenied"),
    ] {
        let output = lab.agent(&format!("{REGION} {command}"));
        let said = both(&output);
        assert!(!output.status.success() && said.contains(&format!("({code})")), "{command}: {said}");
        assert!(said.contains("is not authorized to perform"), "{command}: {said}");
    }
    assert!(lab.calls().iter().all(|call| text(call, "decision") == "deny"));
    assert_eq!(lab.upstream().len(), 0, "nothing of it reached AWS");
    let named = lab.calls_like("--action secretsmanager:*");
    assert_eq!(named[0]["policies"][0], "default-no-secrets");
}

/// 200 MB up and down through both CLIs and boto3: identical, recorded whole, and the daemon stays small.
#[test]
fn large_objects_come_back_identical() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let python = script("large_object.py");
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://large && head -c 200000000 /dev/urandom > $HOME/object"));
    let python = format!("python3 {} large boto3 object back", python.display());
    for (name, up, down) in [
        ("v1", "aws s3 cp object s3://large/v1", "aws s3 cp s3://large/v1 back"),
        ("v2", "/usr/bin/aws s3 cp object s3://large/v2", "/usr/bin/aws s3 cp s3://large/v2 back"),
        ("boto3", python.as_str(), "true"),
    ] {
        let script =
            format!("{REGION} cd $HOME && rm -f back && {up} >/dev/null && {down} >/dev/null && cmp object back");
        lab.agent_ok(&script);
        let resident = fs::read_to_string(format!("/proc/{}/status", lab.daemon())).unwrap();
        let peak = resident.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        println!("{name}: peak {} MB", peak / 1024);
        assert!(peak < 100 * 1024, "the daemon's resident memory after {name}: {peak} kB");
    }
    // What was recorded is what the client sent and what the fake got.
    let calls = lab.calls();
    let sent: u64 = calls
        .iter()
        .filter(|call| ["PutObject", "UploadPart"].contains(&text(call, "operation")))
        .map(|call| call["request_bytes"].as_u64().unwrap())
        .sum();
    let got: u64 = calls
        .iter()
        .filter(|call| text(call, "operation") == "GetObject")
        .map(|call| call["response_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!((sent, got), (600_000_000, 600_000_000));
    for call in calls.iter().filter(|call| text(call, "operation") == "UploadPart").take(5) {
        let sha = lab.operator_ok(&format!("chaperone show {} --body request | sha256sum", text(call, "id")));
        assert_eq!(sha.split(' ').next(), Some(text(call, "recorded_request_sha256")));
        let sha = lab.operator_ok(&format!("chaperone show {} --body request-framed | sha256sum", text(call, "id")));
        let seen = lab.upstream().into_iter().any(|seen| Some(text(&seen, "body_sha256")) == sha.split(' ').next());
        assert!(seen, "the fake got another body than was recorded: {call}");
    }
    // One object in one piece: its own digest is the recorded one.
    lab.agent_ok(&format!("{REGION} cd $HOME && head -c 5000000 object > small && aws s3api put-object --bucket large --key small --body small && aws s3api get-object --bucket large --key small out && cmp small out"));
    let sha = lab.agent_ok("cd $HOME && sha256sum < small");
    let sha = sha.split(' ').next().unwrap();
    let calls = lab.calls_like("--service s3");
    let of = |operation: &str| calls.iter().rev().find(|call| text(call, "operation") == operation).unwrap();
    assert_eq!(text(of("PutObject"), "request_sha256"), sha);
    assert_eq!(text(of("GetObject"), "response_sha256"), sha);
}

#[test]
fn the_agent_never_holds_a_real_key_and_aws_never_sees_a_placeholder() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let seen = lab.agent_ok(&format!(
        "{REGION} env; aws s3 ls; aws sts get-caller-identity >/dev/null
         T=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
         R=$(curl -sS -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/meta-data/iam/security-credentials/)
         curl -sS -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/meta-data/iam/security-credentials/$R"
    ));
    let placeholder = seen.split("\"AccessKeyId\"").nth(1).and_then(|rest| rest.split('"').nth(1)).expect("a key id");
    let upstream = lab.upstream();
    assert!(upstream.len() >= 2);
    let real = text(&upstream[0], "access_key_id").to_owned();
    assert!(!real.is_empty() && real != placeholder);
    let raw = fs::read_to_string(lab.dir.join("upstream.jsonl")).unwrap();
    assert!(!raw.contains(placeholder), "the fake got a placeholder");
    assert!(upstream.iter().all(|it| text(it, "access_key_id") == real));
    assert!(!seen.contains(&real), "the agent could read the real key");
    // An agent that is an ordinary user can't read it from the daemon's files or memory.
    let pid = lab.daemon();
    // The commands are recorded, too: they must not have the key in their arguments.
    let (first, rest) = real.split_at(1);
    let read = lab.agent(&format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'cat /proc/{pid}/environ /proc/{pid}/mem {}/* 2>/dev/null' | grep -a -c '[{first}]{rest}'",
        lab.dir.display()
    ));
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "0", "{}", both(&read));
    // Nor is it in the recording or the log.
    let grep = lab.operator(&format!("grep -a -r -l {real} $CHAPERONE_LAB/journal $CHAPERONE_LAB/daemon.log"));
    assert!(!grep.status.success(), "{}", both(&grep));
}

#[test]
fn whoever_is_not_enrolled_is_not_touched() {
    let lab = Lab::start(&["--aws", "moto"]);
    let script = "curl -sS -o /dev/null -w '%{http_code} %{remote_ip}' --capath /var/empty --cacert $CHAPERONE_LAB/ca.crt --capath /dev/null https://sts.eu-west-1.amazonaws.com/";
    let seen = lab.operator_ok(script);
    assert!(seen.contains("127.77.0.1"), "{seen}");
    assert_eq!(lab.calls().len(), 0);
    assert_eq!(lab.list("connections").len(), 0);
    // The very same in an agent meets the daemon's CA and is recorded.
    let output = lab.agent(script);
    assert!(!output.status.success(), "{}", both(&output));
    assert_eq!(lab.connections(1).len(), 1);
}

#[test]
fn what_is_not_aws_is_passed_on_unopened() {
    let lab = Lab::start(&["--aws", "moto"]);
    // The fakes' own CA, not ours: nobody opened it.
    lab.agent_ok("curl -sS --cacert $CHAPERONE_LAB/ca.crt https://example.com/ > /dev/null");
    let connections = lab.connections(1);
    assert_eq!((text(&connections[0], "kind"), text(&connections[0], "name")), ("passed", "example.com"));
    assert!(connections[0]["sent_bytes"].as_u64() > Some(100), "{}", connections[0]);
    assert_eq!(lab.calls().len(), 0);
}

#[test]
fn a_session_is_an_agent_in_a_cgroup() {
    let lab = Lab::start(&["--aws", "moto"]);
    lab.operator_ok("chaperone run --agent coder -- /bin/sh -c 'AWS_DEFAULT_REGION=eu-west-1 aws sts get-caller-identity && AWS_DEFAULT_REGION=eu-west-1 aws s3 ls'");
    let mut sessions = Vec::new();
    until("the session's end", || {
        sessions = lab.list("sessions");
        sessions.last().is_some_and(|session| session["ended"].is_string())
    });
    let session = sessions.last().unwrap();
    assert_eq!((text(session, "agent"), session["calls"].as_u64()), ("coder", Some(2)));
    assert!(session["ended"].is_string(), "its cgroup is empty: {session}");
    let code = lab.operator("chaperone run -- sh -c 'exit 7'");
    assert_eq!(code.status.code(), Some(7));
}

#[test]
fn verify_names_the_record_of_one_flipped_bit() {
    let lab = Lab::start(&["--aws", "moto"]);
    lab.agent_ok(&format!("{REGION} aws s3 ls"));
    lab.operator_ok("chaperone verify && cp -r $CHAPERONE_LAB/journal $CHAPERONE_LAB/copy");
    let segment = fs::read_dir(lab.dir.join("copy"))
        .unwrap()
        .filter_map(Result::ok)
        .map(|it| it.path())
        .filter(|path| path.extension().is_some_and(|it| it == "seg" || it == "segment"))
        .min()
        .expect("a segment");
    let mut bytes = fs::read(&segment).unwrap();
    for place in [bytes.len() / 2, 5000, 700] {
        bytes[place] ^= 4;
        fs::write(&segment, &bytes).unwrap();
        let output = lab.operator("chaperone verify --dir $CHAPERONE_LAB/copy --json");
        assert_eq!(output.status.code(), Some(1), "{place}: {}", both(&output));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(!found["wrong"].is_null() && found["clean"] == false, "{place}: {found}");
        bytes[place] ^= 4;
    }
}

#[test]
fn metrics_and_status_tell_what_happened() {
    let lab = Lab::start(&["--aws", "moto"]);
    lab.agent_ok(&format!("{REGION} aws s3 ls"));
    let listen = lab.operator_ok("grep -A1 '^\\[metrics\\]' $CHAPERONE_CONFIG | tail -1 | cut -d'\"' -f2");
    let metrics = lab.operator_ok(&format!("curl -sS http://{}/metrics", listen.trim()));
    assert!(
        metrics.contains("chaperone_requests_total 1.0") || metrics.contains("chaperone_requests_total 1\n"),
        "{metrics}"
    );
    let labels = "decision=\"allow\",outcome=\"completed\",status=\"2xx\"";
    let is_counted = |line: &str| line.starts_with("chaperone_calls_total{") && line.contains("service=\"s3\"");
    assert!(metrics.lines().any(|line| is_counted(line) && line.contains(labels)), "{metrics}");
    let status: serde_json::Value = serde_json::from_str(&lab.operator_ok("chaperone status --json")).unwrap();
    assert_eq!(status["requests"], 1);
    lab.operator_ok("chaperone doctor");
}

/// `lab --direct` is the same without Chaperone: what works there works with it.
#[test]
fn the_direct_lab_is_the_control() {
    let output = Command::new(chaperone_system_tests::xtask())
        .args(["lab", "--direct", "--aws", "moto", "--", "sh", "-c"])
        .arg(format!("{REGION} aws sts get-caller-identity"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", both(&output));
}

/// A container's 127.0.0.1 is not the host's: the daemon listens inside, from the first connection on.
#[test]
fn an_agent_in_a_network_namespace_of_its_own_is_captured_like_any_other() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    // The lab's resolver is outside: the name goes along in a file.
    let inside = "ip link set lo up; mount --bind $HOME/hosts /etc/hosts; aws sts get-caller-identity";
    let script = format!(
        "{REGION} host=sts.eu-west-1.amazonaws.com; getent hosts $host > $HOME/hosts; \
         for number in 1 2 3; do unshare -n -m --propagation unchanged sh -c '{inside}' || exit; done"
    );
    let said = lab.agent_ok(&script);
    assert_eq!(said.matches("\"Account\": \"123456789012\"").count(), 3, "{said}");
    let calls = lab.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls.iter().all(|call| text(call, "decision") == "allow" && call["status"] == 200), "{calls:?}");
    until("the daemon leaves namespaces that nobody is in", || {
        lab.log().matches("no agent is in this network namespace any more").count() == 3
    });
}
