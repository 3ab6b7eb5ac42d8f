//! Every shape of signature that clients make: checked by the placeholder, made again by the real key.

#![allow(clippy::unwrap_used)] // a test that can't go on fails

use chaperone_system_tests::{Lab, PERMIT_ALL, both, script, text};

const REGION: &str = "export AWS_DEFAULT_REGION=eu-west-1; ";

/// s3s-fs checks each chunk's signature by the real key, so what it takes was signed again.
#[test]
fn signed_chunks_are_checked_and_signed_again() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    lab.agent_ok(&format!("{REGION} aws s3 mb s3://chunks"));
    let script = script("signed_chunks.py");
    // The whole body is recorded, with the framing that it came in, also of what is refused in its middle.
    let recorded_whole = |how: &str, said: &str| {
        let calls = lab.calls_like("--service s3");
        let key = format!("arn:aws:s3:::chunks/{how}");
        let put = |it: &&serde_json::Value| text(it, "operation") == "PutObject" && it["resources"][0] == key.as_str();
        let call = calls.into_iter().find(|it| put(&it)).unwrap_or_else(|| panic!("{how} has no call"));
        let wire = said.split(" wire ").nth(1).unwrap().split(' ').next();
        let show = format!("chaperone show {} --body request-framed | sha256sum", text(&call, "id"));
        assert_eq!(lab.operator_ok(&show).split(' ').next(), wire, "{how}");
        call
    };
    for how in ["plain", "trailer"] {
        let put = lab.agent_ok(&format!("python3 {} chunks {how} {how}", script.display()));
        assert!(put.starts_with("status 200"), "{how}: {put}\n{}", lab.log());
        let sha = put.trim().rsplit(' ').next().unwrap();
        let got = lab.agent_ok(&format!("{REGION} aws s3 cp s3://chunks/{how} - | sha256sum"));
        assert_eq!(got.split(' ').next(), Some(sha), "the object is what was sent");
        let call = recorded_whole(how, &put);
        assert_eq!(text(&call, "request_sha256"), sha, "the recorded digest is the payload's");
    }
    let whole = lab.upstream().iter().filter(|it| text(it, "method") == "PUT" && it["status"] == 200).count();
    for how in ["plain-tampered", "trailer-tampered", "plain-secret", "trailer-secret", "plain-large"] {
        let output = lab.agent(&format!("python3 {} chunks {how} {how}", script.display()));
        assert!(both(&output).contains("status 4"), "{how}: {}", both(&output));
        if !how.ends_with("large") {
            recorded_whole(how, &both(&output));
        }
        let output = lab.agent(&format!("{REGION} aws s3api head-object --bucket chunks --key {how}"));
        assert!(!output.status.success(), "{how}: {}", both(&output));
    }
    let upstream = lab.upstream();
    let after = upstream.iter().filter(|it| text(it, "method") == "PUT" && it["status"] == 200).count();
    assert_eq!(whole, after, "S3 took none of them: {upstream:?}");
}

/// boto3 presigns by version 2 unless told otherwise. s3s-fs checks what becomes of it.
#[test]
fn presigned_urls_of_the_session_work_and_others_are_foreign() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let script = script("presigned.py");
    let seen = lab.agent_ok(&format!(
        "{REGION} aws s3 mb s3://presigned >/dev/null; python3 {} presigned $CHAPERONE_LAB/urls",
        script.display()
    ));
    for version in ["s3", "s3v4"] {
        for line in ["put 200", &format!("get 200 text of {version}"), "late 403", "other key 403"] {
            assert!(
                seen.contains(&format!("{version} {line}\n").replace("200\n", "200")),
                "{line}: {seen}\n{}",
                lab.log()
            );
        }
    }
    let calls = lab.calls();
    let reasons: Vec<&str> =
        calls.iter().map(|it| text(it, "reason")).filter(|it| *it == "invalid-signature").collect();
    assert_eq!(reasons.len(), 4, "{calls:?}");
    let get = calls.iter().find(|it| text(it, "operation") == "GetObject" && text(it, "decision") == "allow").unwrap();
    assert!(get["resources"].to_string().contains("arn:aws:s3:::presigned/a b+c"), "{get}");
    let reached = lab.upstream().len();
    assert!(lab.upstream().iter().all(|it| !text(it, "path").to_lowercase().contains("signature=")));

    // Another session's URL, and one by a key that is nobody's here.
    let output = lab.agent_ok(
        "while read -r url; do curl -sS -o /dev/null -w '%{http_code} ' \"$url\"; done < $CHAPERONE_LAB/urls",
    );
    assert_eq!(output, "403 403 ");
    let foreign = "https://s3.eu-west-1.amazonaws.com/presigned/k?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=c2ln&Expires=99999999999";
    assert_eq!(lab.agent_ok(&format!("curl -sS -o /dev/null -w '%{{http_code}}' '{foreign}'")), "403");
    let calls = lab.calls();
    assert_eq!(calls.iter().filter(|it| text(it, "reason") == "foreign-authority").count(), 3);
    assert_eq!(lab.upstream().len(), reached, "none of it reached S3");
}

/// s3s-fs checks the policy, its signature by the real key, and the form against it.
#[test]
fn post_forms_are_signed_again_and_keep_their_conditions() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let script = script("post_form.py");
    let said = lab.agent_ok(&format!("{REGION} aws s3 mb s3://forms >/dev/null; python3 {} forms", script.display()));
    for version in ["s3", "s3v4"] {
        for line in ["posted 204", "got True", "too long 4", "other key 4", "changed 403", "kept 1"] {
            assert!(said.contains(&format!("{version} {line}")), "{line}: {said}\n{}", lab.log());
        }
    }
    let calls = lab.calls();
    let call = calls.iter().find(|it| text(it, "operation") == "PostObject" && it["status"] == 204).unwrap();
    assert_eq!(
        (&call["actions"][0], &call["resources"][0]),
        (&"s3:PutObject".into(), &"arn:aws:s3:::forms/a b+c".into())
    );
    let changed = calls.iter().filter(|it| text(it, "reason") == "invalid-signature").count();
    assert_eq!(changed, 2, "{calls:?}");
}

#[test]
fn roles_are_chained_and_the_agent_holds_nothing_real() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let said = lab.agent_ok(&format!("python3 {}", script("role_chain.py").display()));
    assert!(said.contains("assumed-role/two/chain") && said.contains("buckets ['chained']"), "{said}");
    assert!(said.contains("wrong secret") && said.contains("SignatureDoesNotMatch"), "{said}");
    let given: Vec<Vec<&str>> =
        said.lines().filter(|line| line.starts_with("given")).map(|line| line.split(' ').collect()).collect();
    assert_eq!(given.len(), 2, "{said}");
    let upstream = lab.upstream();
    let mut ids: Vec<&str> = upstream.iter().map(|it| text(it, "access_key_id")).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3, "the daemon's key and two roles': {ids:?}");
    let raw = std::fs::read_to_string(lab.dir.join("upstream.jsonl")).unwrap();
    for one in &given {
        assert!(!raw.contains(one[1]), "a placeholder reached AWS");
        let recorded = lab.operator(&format!("grep -a -r -l {} $CHAPERONE_LAB/journal", one[1]));
        assert!(recorded.status.success(), "what the agent was given is in the record");
    }
    for real in ids {
        assert!(!said.contains(real), "the agent saw {real}");
        let grep = lab.operator(&format!("grep -a -r -l {real} $CHAPERONE_LAB/journal $CHAPERONE_LAB/daemon.log"));
        assert!(!grep.status.success(), "{}", both(&grep));
    }
    let calls = lab.calls_like("--service sts");
    assert!(calls.iter().any(|it| text(it, "operation") == "AssumeRole" && it["status"] == 200), "{calls:?}");
}

/// What can't be signed again is refused by its name, and nothing of it reaches AWS.
#[test]
fn what_is_not_signed_again_is_named() {
    let lab = Lab::start_with(&["--aws", "s3"], PERMIT_ALL);
    let ask = |arguments: &str| lab.agent_ok(&format!("curl -sS {arguments}"));
    let bucket = "https://b.s3.eu-west-1.amazonaws.com/";
    for (arguments, named) in [
        (format!("-F key=k -F policy=e30= -F file=x {bucket}"), "POST form"),
        (format!("-F key=k -F file=x {bucket}"), "without a policy"),
        (format!("-H 'Authorization: Bearer abc' {bucket}"), "a bearer token"),
        (format!("-u user:password {bucket}"), "an authorization scheme"),
        (format!("-T /etc/hostname {bucket}k"), "no authorization"),
        (format!("-X DELETE {bucket}k"), "no authorization"),
    ] {
        let said = ask(&arguments);
        assert!(said.contains("<Error>") && said.contains(named), "{arguments}: {said}");
    }
    assert!(lab.calls().iter().all(|it| text(it, "decision") == "deny"));
    assert_eq!(lab.upstream().len(), 0);
}

#[test]
fn what_needs_no_signature_goes_without_one() {
    let lab = Lab::start_with(&["--aws", "moto"], PERMIT_ALL);
    let said = lab.agent_ok(
        "python3 - <<'E'
import boto3
from botocore import UNSIGNED
from botocore.config import Config
unsigned = Config(signature_version=UNSIGNED)
region = {'region_name': 'eu-west-1'}
boto3.client('s3', **region).create_bucket(Bucket='public', ACL='public-read', CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'})
answer = boto3.client('sts', config=unsigned, **region).assume_role_with_web_identity(
    RoleArn='arn:aws:iam::123456789012:role/web', RoleSessionName='web', WebIdentityToken='token-of-somebody')
given = answer['Credentials']
print('given', given['AccessKeyId'])
keys = dict(aws_access_key_id=given['AccessKeyId'], aws_secret_access_key=given['SecretAccessKey'], aws_session_token=given['SessionToken'])
print(boto3.client('sts', **region, **keys).get_caller_identity()['Arn'])
s3 = boto3.client('s3', config=unsigned, **region)
def tried(name, call):
    try:
        call()
        print(name, 'done')
    except Exception as error:
        print(name, error)
tried('list', lambda: s3.list_objects_v2(Bucket='public'))
tried('put', lambda: s3.put_object(Bucket='public', Key='k', Body=b'x'))
tried('who', lambda: boto3.client('sts', config=unsigned, **region).get_caller_identity())
E",
    );
    assert!(said.contains(":assumed-role/web/web"), "{said}");
    let upstream = lab.upstream();
    let unsigned: Vec<_> = upstream.iter().filter(|it| it["access_key_id"].is_null()).collect();
    assert_eq!(unsigned.len(), 2, "the role's and the list: {unsigned:?}");
    let given = said.lines().find_map(|line| line.strip_prefix("given ")).unwrap();
    assert!(upstream.iter().all(|it| text(it, "access_key_id") != given));
    let calls = lab.calls();
    let of = |name: &str| calls.iter().find(|it| text(it, "operation") == name).unwrap();
    assert_eq!(text(of("ListObjectsV2"), "decision"), "allow");
    for refused in ["PutObject", "GetCallerIdentity"] {
        let call = calls.iter().find(|it| text(it, "operation") == refused && text(it, "decision") == "deny").unwrap();
        assert_eq!(text(call, "reason"), "not-supported", "{call}");
    }
}

/// As `docker pull` reads a layer: the registry answers where in S3 it is, by a URL that is signed by its own key.
#[test]
fn urls_that_aws_gave_to_the_session_are_read_and_no_others() {
    let lab = Lab::start_with(&["--aws", "both"], PERMIT_ALL);
    let bucket = "prod-eu-west-1-starport-layer-bucket";
    std::fs::create_dir_all(lab.dir.join("s3").join(bucket)).unwrap();
    std::fs::write(lab.dir.join("s3").join(bucket).join("0a1b"), "a layer").unwrap();
    let layer = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/app/blobs/sha256:0a1b";
    let login = format!(
        "{REGION} aws ecr create-repository --repository-name app >/dev/null; \
         key=$(aws ecr get-login-password); asked() {{ curl -sS -m 30 -w ' status %{{http_code}}\\n' \"$@\"; }};"
    );
    let said = lab.agent_ok(&format!(
        "{login} asked -L -u AWS:$key {layer}; \
         url=$(curl -sS -u AWS:$key -o /dev/null -w '%{{redirect_url}}' {layer}); echo \"$url\" > /tmp/url; \
         asked -H 'Range: bytes=2-' \"$url\"; asked -H 'x-amz-acl: public-read' -H 'Cookie: told=1' \"$url\"; \
         for other in \"$url&x=1\" \"$(echo \"$url\" | sed s/0a1b/0a1c/)\" \"$(echo \"$url\" | sed s/X-Amz-Expires=300/X-Amz-Expires=301/)\"; \
         do asked -o /dev/null \"$other\"; done; asked -o /dev/null -X POST -d x \"$url\"; asked -o /dev/null -X PUT -d x \"$url\"; \
         asked -o /dev/null -X GET -d x \"$url\"; asked -o /dev/null -X DELETE \"$url\""
    ));
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    assert_eq!(lines[..3], ["a layer status 200", "layer status 206", "a layer status 200"], "{said}\n{}", lab.log());
    assert_eq!(lines[3..], ["status 403"; 7], "{said}\n{}", lab.log());
    let other = lab.agent_ok("curl -sS -m 30 -o /dev/null -w 'status %{http_code}' \"$(cat /tmp/url)\"");
    assert_eq!(other, "status 403", "another session's");
    let upstream = lab.upstream();
    let read: Vec<_> = upstream.iter().filter(|it| text(it, "host").starts_with(bucket)).collect();
    assert_eq!(read.len(), 3, "{read:?}");
    let calls = lab.calls();
    let reads = |it: &&serde_json::Value| text(it, "operation") == "GetObject" && text(it, "decision") == "allow";
    let of_layer = calls.iter().find(|it| text(it, "operation") == "GetDownloadUrlForLayer").unwrap();
    for call in calls.iter().filter(reads) {
        assert_eq!(call["resources"][0], format!("arn:aws:s3:::{bucket}/0a1b"));
        let shown = lab.operator_ok(&format!("chaperone show {} --json", text(call, "id")));
        assert!(shown.contains("ecr:GetDownloadUrlForLayer"), "{shown}");
    }
    let shown = lab.operator_ok(&format!("chaperone show {} --json", text(of_layer, "id")));
    assert!(shown.contains("X-Amz-Signature=<redacted>"), "{shown}");
    assert_eq!(calls.iter().filter(|it| text(it, "reason") == "foreign-authority").count(), 8, "{calls:?}");
}
