//! Real clients do real work unchanged: in an enrolled cgroup, with no credentials, and with the same outcome as without
//! Chaperone. `docs/clients.md` has the table.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::{collections::BTreeMap, path::Path};

use chaperone_system_tests::{Lab, PERMIT_ALL, client, installed, text};

/// Runs the script captured and not, and holds both outcomes side by side. `operations` must be among what was recorded.
fn the_same(script: &str, operations: &[&str]) -> String {
    let script = format!("set -e; mkdir -p $HOME/work; cd $HOME/work; {script}");
    let (with, without) = (outcome(&script, false), outcome(&script, true));
    println!("{}", with.printed);
    assert_eq!(with.printed, without.printed, "what the client printed: with Chaperone, and without");
    assert_eq!(with.upstream, without.upstream, "what AWS was asked: with Chaperone, and without");
    for operation in operations {
        assert!(with.recorded.contains_key(*operation), "{operation} isn't in the record: {:?}", with.recorded);
    }
    with.printed
}

struct Outcome {
    printed: String,
    /// How many requests of each method came to each host.
    upstream: BTreeMap<String, usize>,
    /// How many calls of each operation are in the journal.
    recorded: BTreeMap<String, usize>,
}

fn outcome(script: &str, direct: bool) -> Outcome {
    let lab = if direct {
        Lab::start(&["--aws", "both", "--direct"])
    } else {
        Lab::start_with(&["--aws", "both"], PERMIT_ALL)
    };
    let printed = lab.agent_ok(script);
    let mut upstream = BTreeMap::new();
    let mut sent = lab.upstream();
    // Some look for newer versions of themselves elsewhere.
    sent.retain(|request| text(request, "host").ends_with(".amazonaws.com"));
    for request in &sent {
        *upstream.entry(format!("{} {}", text(request, "method"), text(request, "host"))).or_default() += 1;
    }
    let mut recorded = BTreeMap::new();
    if !direct {
        let calls = lab.calls();
        for call in &calls {
            assert_eq!(text(call, "decision"), "allow", "{call}");
            *recorded.entry(text(call, "operation").to_owned()).or_default() += 1;
        }
        assert_eq!(calls.len(), sent.len(), "each call is recorded, and nothing else came to AWS");
    }
    Outcome { printed, upstream, recorded }
}

fn path(of: &Path) -> String {
    of.display().to_string()
}

const PARTS: [&str; 4] = ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "GetObject"];

#[test]
fn boto3() {
    let script = format!("python3 {} by-boto3", path(&client("with_boto3.py")));
    let more =
        ["HeadBucket", "ListObjectsV2", "DeleteObjects", "BatchWriteItem", "Scan", "ReceiveMessage", "CreateVpc"];
    the_same(&script, &[&PARTS[..], &more].concat());
}

#[test]
fn aws_cli_1() {
    let script = format!("sh {} aws by-cli-1", path(&client("cli.sh")));
    the_same(&script, &[&PARTS[..], &["CopyObject", "DeleteObject", "PutMetricData", "CreateUser"]].concat());
}

#[test]
fn aws_cli_2() {
    let script = format!("sh {} /usr/bin/aws by-cli-2", path(&client("cli.sh")));
    the_same(&script, &[&PARTS[..], &["CopyObject", "DeleteObject", "PutMetricData", "CreateUser"]].concat());
}

#[test]
fn rclone() {
    let script = format!("sh {} by-rclone", path(&client("rclone.sh")));
    the_same(&script, &[&PARTS[..], &["ListObjectsV2", "DeleteObject"]].concat());
}

#[test]
fn s3cmd() {
    let script = format!("sh {} by-s3cmd", path(&client("s3cmd.sh")));
    the_same(&script, &[&PARTS[..], &["PutObject", "DeleteObject"]].concat());
}

#[test]
fn javascript_sdk_3() {
    let script = format!("AWS_REGION=eu-west-1 node {} by-js", path(&installed("js").join("work.mjs")));
    the_same(&script, &[&PARTS[..], &["PutItem", "Scan", "ReceiveMessage"]].concat());
}

/// Models, and whatever else speaks HTTP/2 or event streams by default. The other end checks each signature.
#[test]
fn javascript_sdk_3_over_http2_and_in_streams() {
    let script = format!("AWS_REGION=eu-west-1 node {}", path(&installed("js").join("streams.mjs")));
    let models = ["Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"];
    let streams = ["InvokeModelWithBidirectionalStream", "SubscribeToShard", "StartStreamTranscription"];
    let said = the_same(&script, &[&models[..], &streams, &["StartConversation", "SynthesizeSpeech"]].concat());
    let failed: Vec<_> = said.lines().filter(|line| line.contains("failed:") && !line.contains("NotFound")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[cfg(feature = "all-clients")]
#[test]
fn go_sdk_2() {
    let script = format!("AWS_REGION=eu-west-1 {} by-go", path(&installed("go").join("client")));
    the_same(&script, &[&PARTS[..], &["PutItem", "Scan", "ReceiveMessage"]].concat());
}

#[cfg(feature = "all-clients")]
#[test]
fn java_sdk_2_by_its_three_http_clients() {
    let script = format!("sh {} {} by-java", path(&client("java.sh")), path(&installed("java")));
    the_same(&script, &["PutObject", "GetObject", "ListObjectsV2", "PutItem", "Scan"]);
}

#[cfg(feature = "all-clients")]
#[test]
fn ansible() {
    let [run, playbook] = [client("ansible.sh"), client("ansible.yml")];
    let script = format!("sh {} {} {}", path(&run), path(&installed("ansible")), path(&playbook));
    the_same(&script, &["GetCallerIdentity", "CreateBucket", "CreateVpc", "CreateRole", "PutObject", "GetObject"]);
}

#[cfg(feature = "all-clients")]
#[test]
fn rust_sdk() {
    let script = format!("AWS_REGION=eu-west-1 {} by-rust", path(&installed("rust").join("client")));
    the_same(&script, &[&PARTS[..], &["PutItem", "Scan", "ReceiveMessage"]].concat());
}

#[cfg(feature = "all-clients")]
#[test]
fn cdk() {
    let script = format!("sh {} {}", path(&client("cdk.sh")), path(&installed("cdk")));
    let wanted = ["GetCallerIdentity", "CreateChangeSet", "ExecuteChangeSet", "CreateStack", "DeleteStack"];
    the_same(&script, &[&wanted[..], &["DescribeStackEvents", "GetTemplate"]].concat());
}

/// An agent's own loop, shell tool and processes; what its model says is in a script.
#[cfg(feature = "all-clients")]
fn coding_agent(name: &str) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/demo/model.py");
    let [run, commands, agent, model] =
        [client("agent.sh"), client("agent-commands.sh"), installed(name), model].map(|it| path(&it));
    let script = format!("sh {run} {name} {agent} {model} {commands}");
    the_same(&script, &["GetCallerIdentity", "CreateBucket", "PutObject", "GetObject", "CreateTable", "PutItem"]);
}

/// By the session's token in the place of Bedrock's API key, and by certificates that they don't bring.
#[cfg(feature = "all-clients")]
#[test]
fn the_sdks_of_openai_and_anthropic_at_bedrock() {
    let lab = Lab::start_with(&["--aws", "both"], PERMIT_ALL);
    let python = installed("model-sdks").join("bin/python");
    let said = lab.agent_ok(&format!("{} {}", path(&python), path(&client("model-sdks.py"))));
    for line in [
        "httpx 403",
        "openai mantle hello",
        "openai runtime hello",
        "responses hello",
        "models ['m']",
        "anthropic hello",
    ] {
        assert!(said.lines().any(|it| it == line), "{line}: {said}");
    }
    assert!(said.contains("another key failed: PermissionDeniedError"), "{said}");
    let upstream = lab.upstream();
    assert_eq!(upstream.len(), 5, "{upstream:#?}");
    assert!(upstream.iter().all(|it| !it["access_key_id"].is_null()), "each goes on signed: {upstream:#?}");
}

#[cfg(feature = "all-clients")]
#[test]
fn opencode() {
    coding_agent("opencode");
}

#[cfg(feature = "all-clients")]
#[test]
fn mini_swe_agent() {
    coding_agent("mini-swe-agent");
}
