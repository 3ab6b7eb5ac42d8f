use chaperone_model::Payload;
use serde_json::Value;

use super::*;
use crate::decode_tests::{Ask, decode};

const MARK: &str = "chaperone-masked-0123456789abcdef";
/// It needs an escape in every format.
const VALUE: &str = "p\"\\w<&>'+/=% ü\t]]>";

struct Wire {
    host: &'static str,
    target: &'static str,
    method: &'static str,
    scope: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")];

fn post(host: &'static str, scope: &'static str, fields: &'static [(&'static str, &'static str)]) -> Wire {
    Wire { host, target: "/", method: "POST", scope, fields }
}

fn call(wire: &Wire, body: &[u8]) -> Call {
    let Wire { host, target, method, scope, fields } = *wire;
    decode(&Ask { method, host, target, fields, body, scope }).unwrap()
}

/// Replaces what is found, and reads the body as the service does.
fn replaced(wire: &Wire, body: &[u8], value: &str) -> (Vec<String>, Value, Vec<u8>) {
    let texts = Catalog::global().placed_texts(&call(wire, body), body, &|text| text == MARK);
    let paths = texts.iter().map(|text| text.path.clone()).collect();
    let with: Vec<_> = texts.into_iter().map(|text| (text, value.as_bytes())).collect();
    let out = PlacedText::replace(body, &with).to_vec();
    let read = call(wire, &out);
    assert_eq!(read.unread, Vec::<String>::new(), "{}", String::from_utf8_lossy(&out));
    assert_ne!(read.payload, Payload::None);
    (paths, read.parameters, out)
}

fn at<'v>(parameters: &'v Value, pointer: &str) -> &'v str {
    parameters.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {parameters}"))
}

#[test]
fn a_text_is_replaced_in_every_protocol_and_the_rest_stays() {
    let rds = post("rds.eu-west-1.amazonaws.com", "eu-west-1/rds", FORM);
    let body = format!(
        "Action=CreateDBInstance&Version=2014-10-31&DBInstanceIdentifier=d&MasterUsername={MARK}x&MasterUserPassword={MARK}\
         &DBInstanceClass=c&Engine=mysql&Tags.Tag.1.Key=k&Tags.Tag.1.Value={MARK}"
    );
    let (paths, read, _) = replaced(&rds, body.as_bytes(), VALUE);
    assert_eq!(paths, ["MasterUserPassword", "Tags[].Value"]);
    assert_eq!((at(&read, "/MasterUserPassword"), at(&read, "/Tags/0/Value")), (VALUE, VALUE));
    assert_eq!(at(&read, "/MasterUsername"), format!("{MARK}x"), "a part of a text is none");

    let stack = post("cloudformation.eu-west-1.amazonaws.com", "eu-west-1/cloudformation", FORM);
    let body = format!(
        "Action=CreateStack&Version=2010-05-15&StackName=s&Parameters.member.1.ParameterKey=P&Parameters.member.1.ParameterValue={MARK}"
    );
    let (paths, read, _) = replaced(&stack, body.as_bytes(), VALUE);
    assert_eq!(paths, ["Parameters[].ParameterValue"]);
    assert_eq!(at(&read, "/Parameters/0/ParameterValue"), VALUE);

    let ec2 = post("ec2.eu-west-1.amazonaws.com", "eu-west-1/ec2", FORM);
    let body = format!("Action=CreateTags&Version=2016-11-15&ResourceId.1=i-1&Tag.1.Key=k&Tag.1.Value={MARK}");
    let (paths, read, _) = replaced(&ec2, body.as_bytes(), VALUE);
    assert_eq!(paths, ["Tags[].Value"]);
    assert_eq!(at(&read, "/Tags/0/Value"), VALUE);

    let ecs = post(
        "ecs.eu-west-1.amazonaws.com",
        "eu-west-1/ecs",
        &[
            ("x-amz-target", "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition"),
            ("content-type", "application/x-amz-json-1.1"),
        ],
    );
    let body = format!(
        " {{\"family\" : \"f\\\"{MARK}\", \"containerDefinitions\": [ {{\"name\":\"c\",\"cpu\":-1,\"essential\":true, \"environment\":[{{\"name\":\"A\",\"value\":\"{MARK}\"}},{{\"name\":\"B\",\"value\":\"\\u0063{}\"}}]}}] }} ",
        &MARK[1..]
    );
    let (paths, read, out) = replaced(&ecs, body.as_bytes(), VALUE);
    assert_eq!(paths, ["containerDefinitions[].environment[].value"]);
    assert_eq!(at(&read, "/containerDefinitions/0/environment/0/value"), VALUE);
    // What is written in another way goes on as it is.
    assert_eq!(at(&read, "/containerDefinitions/0/environment/1/value"), MARK);
    assert!(out.starts_with(b" {\"family\" : \"f\\\"chaperone"));

    let lambda = Wire {
        host: "lambda.eu-west-1.amazonaws.com",
        target: "/2015-03-31/functions/f/configuration",
        method: "PUT",
        scope: "eu-west-1/lambda",
        fields: &[("content-type", "application/json")],
    };
    let body = format!("{{\"Environment\":{{\"Variables\":{{\"PW\":\"{MARK}\",\"a.b\":\"{MARK}\"}}}}}}");
    let (paths, read, _) = replaced(&lambda, body.as_bytes(), VALUE);
    assert_eq!(paths, ["Environment.Variables.PW"]);
    assert_eq!(at(&read, "/Environment/Variables/PW"), VALUE);

    let route53 = Wire {
        host: "route53.amazonaws.com",
        target: "/2013-04-01/hostedzone/Z1/rrset/",
        method: "POST",
        scope: "us-east-1/route53",
        fields: &[("content-type", "application/xml")],
    };
    let record = "<ResourceRecord><Value>";
    let body = format!(
        "<?xml version=\"1.0\"?>\n<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeBatch><Comment>x{MARK}</Comment><Changes><Change><Action>UPSERT</Action><ResourceRecordSet><Name>n.example.com</Name><Type>TXT</Type><TTL>5</TTL><ResourceRecords>{record}a</Value></ResourceRecord>{record}{MARK}</Value></ResourceRecord></ResourceRecords></ResourceRecordSet></Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
    );
    let (paths, read, _) = replaced(&route53, body.as_bytes(), "p\"\\w<&>'+/=% ü]]>");
    assert_eq!(paths, ["ChangeBatch.Changes[].ResourceRecordSet.ResourceRecords[].Value"]);
    let pointer = "/ChangeBatch/Changes/0/ResourceRecordSet/ResourceRecords/1/Value";
    assert_eq!(at(&read, pointer), "p\"\\w<&>'+/=% ü]]>");

    let cbor = Wire {
        host: "monitoring.eu-west-1.amazonaws.com",
        target: "/service/GraniteServiceVersion20100801/operation/PutMetricAlarm",
        method: "POST",
        scope: "eu-west-1/monitoring",
        fields: &[("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")],
    };
    let long = "ü".repeat(40_000);
    for value in [VALUE, "short", &long] {
        let mut body = vec![0xbf];
        let text = |text: &str, body: &mut Vec<u8>| cbor::write(text.as_bytes(), body);
        for (key, value) in [("AlarmName", "n"), ("AlarmDescription", MARK), ("MetricName", "m")] {
            text(key, &mut body);
            text(value, &mut body);
        }
        text("EvaluationPeriods", &mut body);
        body.push(1);
        text("Tags", &mut body);
        body.extend([0x81, 0xa2]);
        for part in ["Key", "k", "Value", MARK] {
            text(part, &mut body);
        }
        body.push(0xff);
        let wire = &cbor;
        let texts = Catalog::global().placed_texts(&call(wire, &body), &body, &|text| text == MARK);
        let paths: Vec<_> = texts.iter().map(|text| text.path.as_str()).collect();
        assert_eq!(paths, ["AlarmDescription", "Tags[].Value"]);
        let with: Vec<_> = texts.into_iter().map(|text| (text, value.as_bytes())).collect();
        let out = PlacedText::replace(&body, &with);
        let read: ciborium::Value = ciborium::from_reader(&out[..]).unwrap();
        let found = read.as_map().unwrap().iter().find(|it| it.0.as_text() == Some("AlarmDescription")).unwrap();
        assert_eq!(found.1.as_text(), Some(value));
    }
}

#[test]
fn what_is_no_text_of_the_model_is_left() {
    let wire = post(
        "secretsmanager.eu-west-1.amazonaws.com",
        "eu-west-1/secretsmanager",
        &[("x-amz-target", "secretsmanager.PutSecretValue"), ("content-type", "application/x-amz-json-1.1")],
    );
    for body in [
        format!("{{\"SecretId\":\"s\",\"SecretBinary\":\"{MARK}\"}}"),
        format!("{{\"SecretId\":\"s\",\"VersionStages\":{{\"SecretString\":\"{MARK}\"}}}}"),
        format!("{{\"SecretId\":\"s\",\"Other\":\"{MARK}\"}}"),
        format!("{{\"SecretId\":\"s\",\"{MARK}\":\"x\"}}"),
        format!("{{\"SecretId\":\"s\",\"SecretString\":\"{MARK} \"}}"),
        format!("{{\"SecretId\":\"s\",\"SecretString\":[\"{MARK}\"]}}"),
    ] {
        let Ok(call) = decode(&Ask {
            method: "POST",
            host: wire.host,
            target: "/",
            fields: wire.fields,
            body: body.as_bytes(),
            scope: wire.scope,
        }) else {
            continue;
        };
        let texts = Catalog::global().placed_texts(&call, body.as_bytes(), &|text| text == MARK);
        assert!(texts.is_empty(), "{body}: {texts:?}");
    }
}

/// Whatever the bytes are, reading them ends, and places are within them.
#[test]
fn what_cannot_be_read_has_no_texts() {
    let wire = post(
        "ecs.eu-west-1.amazonaws.com",
        "eu-west-1/ecs",
        &[
            ("x-amz-target", "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition"),
            ("content-type", "application/x-amz-json-1.1"),
        ],
    );
    let good = format!("{{\"family\":\"{MARK}\",\"tags\":[{{\"key\":\"k\",\"value\":\"{MARK}\"}}]}}");
    let call = call(&wire, good.as_bytes());
    for protocol in [Protocol::Json, Protocol::Query, Protocol::Ec2, Protocol::RestXml, Protocol::RpcV2Cbor] {
        let call = Call { protocol, ..call.clone() };
        let deep = [b"[".repeat(100_000), b"<a>".repeat(100_000), vec![0x81; 100_000], vec![0x9f; 100_000]];
        let cut = (0..good.len()).map(|end| good.as_bytes()[..end].to_vec());
        let bytes = (0..=255_u8).map(|byte| vec![byte, 0xff, byte, b'"', byte]);
        for body in cut.chain(deep).chain(bytes) {
            for text in Catalog::global().placed_texts(&call, &body, &|_| true) {
                assert!(text.range.end <= body.len());
            }
        }
    }
}

#[test]
fn members_are_known_or_told_what_is_wrong_with_them() {
    let of = |action: &str, path: &str| Catalog::global().text_member(action, path);
    assert_eq!(
        of("rds:CreateDBInstance", "MasterUserPassword").unwrap(),
        [("neptune", "CreateDBInstance"), ("rds", "CreateDBInstance")]
    );
    for (action, path) in [
        ("ssm:PutParameter", "Value"),
        ("ecs:RegisterTaskDefinition", "containerDefinitions[].environment[].value"),
        ("lambda:UpdateFunctionConfiguration", "Environment.Variables.DB_PASSWORD"),
        ("cloudfront:CreateDistribution", "DistributionConfig.Origins.Items[].CustomHeaders.Items[].HeaderValue"),
        ("elasticache:CreateReplicationGroup", "AuthToken"),
        ("redshift:CreateCluster", "MasterUserPassword"),
    ] {
        assert!(of(action, path).is_ok(), "{action}.{path}: {:?}", of(action, path));
    }
    assert_eq!(of("rds:CreateNothing", "X"), Err(NoTextMember::Action));
    let Err(NoTextMember::Unknown(name, known)) = of("rds:CreateDBInstance", "MasterPassword") else { panic!() };
    assert!(name == "MasterPassword" && known.contains(&"MasterUserPassword"));
    for (action, path) in [
        ("rds:CreateDBInstance", "AllocatedStorage"),
        ("rds:CreateDBInstance", "Tags"),
        ("rds:CreateDBInstance", "Tags.Value"),
        ("rds:CreateDBInstance", "MasterUserPassword[]"),
        ("secretsmanager:PutSecretValue", "SecretBinary"),
        ("s3:PutObject", "Body"),
        ("s3:PutObject", "StorageClass"),
        ("lambda:UpdateFunctionConfiguration", "FunctionName"),
        ("sqs:SendMessage", "MessageAttributes"),
    ] {
        assert!(matches!(of(action, path), Err(NoTextMember::Unfit(_))), "{action}.{path}: {:?}", of(action, path));
    }
}
