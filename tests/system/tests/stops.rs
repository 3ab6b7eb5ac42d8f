//! An operator stops an agent.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use chaperone_system_tests::{Lab, both, text, until};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

const POLICY: &str = r#"@id("all") permit (principal, action, resource);"#;
const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

/// Eight threads that call all the time, and one that uploads for a minute; each says why it ended.
const BUSY: &str = "import boto3, io, threading, time
class Slow(io.RawIOBase):
    at = 0
    def seekable(self): return True
    def readable(self): return True
    def tell(self): return self.at
    def seek(self, to, whence=0):
        self.at = to if whence == 0 else (6 << 20) + to if whence == 2 else self.at + to
        return self.at
    def read(self, n=-1):
        time.sleep(0.1)
        n = min(65536, (6 << 20) - self.at)
        self.at += n
        return bytes(n)
s3 = boto3.client('s3')
s3.create_bucket(Bucket='busy-bucket', CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'})
def call():
    try:
        while True: boto3.session.Session().client('s3').list_buckets()
    except Exception as error: print('call:', error, flush=True)
def upload():
    try: print('uploaded', s3.put_object(Bucket='busy-bucket', Key='slow', Body=Slow()))
    except Exception as error: print('upload:', error, flush=True)
all = [threading.Thread(target=call) for _ in range(8)] + [threading.Thread(target=upload)]
for one in all: one.start()
for one in all: one.join()
";

fn time_of(request: &serde_json::Value) -> OffsetDateTime {
    OffsetDateTime::parse(text(request, "time"), &Rfc3339).unwrap()
}

#[test]
fn a_stopped_agent_makes_no_call_until_it_is_resumed() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    let script = lab.file("busy.py", BUSY);
    let agent = lab.spawn_agent(&format!("{REGION} exec python3 {script}"));
    until("calls, and an upload under way", || {
        let gets = lab.upstream().iter().filter(|request| text(request, "method") == "GET").count();
        gets > 20 && lab.list("calls").iter().any(|call| text(call, "operation") == "PutObject")
    });
    let said = lab.operator_ok("chaperone stop coder --reason 'it is too eager'");
    let stopped = OffsetDateTime::now_utc();
    assert!(said.contains("the agent `coder` is stopped, with "), "{said}");
    let output = both(&agent.wait_with_output().unwrap());
    assert!(output.contains("is stopped by an operator (\"it is too eager\")"), "{output}");
    assert!(output.contains("upload:") && !output.contains("uploaded"), "{output}");
    // Nothing later than a tenth of a second after, and what was under way was cut off.
    until("the upload's end", || {
        lab.upstream().iter().any(|request| text(request, "method") == "PUT" && text(request, "path").contains("slow"))
    });
    for request in lab.upstream() {
        assert!(time_of(&request) <= stopped + Duration::milliseconds(100), "{request} after {stopped}");
        if text(&request, "path").contains("slow") {
            assert_eq!(request["complete"], false, "{request}");
        }
    }
    let before = lab.upstream().len();
    let refused = lab.calls_like("--decision deny");
    assert!(!refused.is_empty() && refused.iter().all(|call| text(call, "reason") == "stopped"), "{refused:?}");
    assert!(lab.operator_ok("chaperone status").contains("the agent `coder` by root (it is too eager)"));

    // Not after a restart either.
    let daemon = lab.daemon();
    lab.operator_ok(&format!("kill {daemon}"));
    until("the daemon's end", || {
        !std::fs::read_to_string(format!("/proc/{daemon}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
    lab.restart();
    let output = both(&lab.agent(&format!("{REGION} aws s3api list-buckets")));
    assert!(output.contains("AccessDenied") && output.contains("is stopped by an operator"), "{output}");
    assert_eq!(lab.upstream().len(), before);

    let unknown = lab.operator("chaperone resume nobody");
    assert!(!unknown.status.success() && both(&unknown).contains("these are: coder"), "{}", both(&unknown));
    assert!(lab.operator_ok("chaperone resume coder").contains("the agent `coder` goes on"));
    lab.agent_ok(&format!("{REGION} aws s3api list-buckets"));
    let unknown = lab.operator("chaperone stop codr");
    assert!(!unknown.status.success() && both(&unknown).contains("the agents are: coder"), "{}", both(&unknown));
}

#[test]
fn a_stopped_session_is_ended_with_its_processes() {
    let lab = Lab::start_with(&["--aws", "moto"], POLICY);
    let agent = lab.spawn_agent(&format!("{REGION} aws s3api list-buckets; sleep 1000 & sleep 1000"));
    until("a call", || !lab.list("calls").is_empty());
    let session = text(&lab.list("calls")[0], "session").to_owned();
    let said = lab.operator_ok(&format!("chaperone --json stop {session} --kill"));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (said["sessions"].as_array().unwrap().len(), said["killed"].as_array().unwrap().len()),
        (1, 1),
        "{said}"
    );
    assert!(!agent.wait_with_output().unwrap().status.success());
}
