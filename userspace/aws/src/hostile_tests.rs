//! Hostile input, a table for each reader. (Request lines, heads and chunks are read, and tried, in the proxy's `strict`.)

use std::fmt::Write as _;

use crate::{
    Catalog, DecodeError,
    decode_tests::{Ask, decode, json},
};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn xml(target: &str, body: &[u8]) -> Result<chaperone_model::Call, DecodeError> {
    let method = if target.contains("?delete") { "POST" } else { "PUT" };
    let host = "b.s3.eu-west-1.amazonaws.com";
    decode(&Ask { method, host, target, fields: &[], body, scope: "eu-west-1/s3" })
}

fn cbor(body: &[u8]) -> Result<chaperone_model::Call, DecodeError> {
    decode(&Ask {
        method: "POST",
        host: "monitoring.eu-west-1.amazonaws.com",
        target: "/service/GraniteServiceVersion20100801/operation/PutMetricData",
        fields: &[("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")],
        body,
        scope: "eu-west-1/monitoring",
    })
}

fn form(body: &[u8]) -> Result<chaperone_model::Call, DecodeError> {
    let host = "ec2.eu-west-1.amazonaws.com";
    decode(&Ask { method: "POST", host, target: "/", fields: &[FORM], body, scope: "eu-west-1/ec2" })
}

#[test]
fn hosts() {
    let long = format!("{}.s3.amazonaws.com", "a.".repeat(200));
    let labels = format!("{}amazonaws.com", "a.".repeat(100));
    for (name, is_aws) in [
        ("", false),
        (".", false),
        ("..", false),
        (&long, false),
        (&labels, true),
        ("amazonaws.com.", true),
        ("s3.amazonaws.com.evil.example", false),
        ("s3.amazonaws.com\0.evil.example", false),
        ("evil.example/s3.amazonaws.com", true), // never a plain DNS name, which the data path asks for first
        ("s3.amazonaws.com:443", false),
        ("xn--s3-amazonaws.com", false),
        ("s3.аmazonaws.com", false), // a Cyrillic letter
        ("vpce-.vpce.amazonaws.com", true),
        (".s3.amazonaws.com", true),
    ] {
        assert_eq!(Catalog::global().host(name).is_some(), is_aws, "{name:?}");
    }
    // A bucket's name can't imitate an endpoint.
    for name in ["dynamodb.us-east-1.s3.us-west-2.amazonaws.com", "s3-control.s3.us-west-2.amazonaws.com"] {
        assert!(Catalog::global().host(name).unwrap().is_s3(), "{name}");
    }
}

#[test]
fn json_bodies() {
    let deep = "[".repeat(100_000);
    let deep_known = format!("{{\"Item\":{}", "{\"a\":{\"M\":".repeat(5_000));
    let bad: [&[u8]; 17] = [
        b"{\"TableName\":\"a\",\"Unknown\":\"\xff\"}",
        b"{\"TableName\":\"a\",\"TableName\":\"b\"}",
        b"{\"TableName\":\"a\",\"\\u0054ableName\":\"b\"}",
        b"{\"TableName\":\"a\"} {}",
        b"{\"TableName\":\"a\"",
        b"{'TableName':'a'}",
        b"{\"TableName\":\"a\",}",
        b"{\"TableName\":\"\xff\"}",
        b"{\"TableName\":\"\\ud800\"}",
        b"{\"TableName\":\"a\0\"}",
        b"\xef\xbb\xbf{}",
        b"{\"TableName\":01}",
        b"{\"TableName\":NaN}",
        b"{\"TableName\":1e999999}",
        b"\"text\"",
        deep.as_bytes(),
        deep_known.as_bytes(),
    ];
    for body in bad {
        let host = "dynamodb.eu-west-1.amazonaws.com";
        let fields = [("x-amz-target", "DynamoDB_20120810.PutItem")];
        let ask = Ask { method: "POST", host, target: "/", fields: &fields, body, scope: "eu-west-1/dynamodb" };
        let result = decode(&ask);
        assert!(result.is_err(), "{:?}: {result:?}", String::from_utf8_lossy(&body[..body.len().min(60)]));
    }
    let mut wide = String::from("{\"TableName\":\"T\",\"Item\":{");
    for i in 0..100_000 {
        let _ = write!(wide, "\"k{i}\":{{\"S\":\"v\"}},");
    }
    wide.push_str("\"z\":{\"S\":\"v\"}}}");
    let call = json("dynamodb", "DynamoDB_20120810.PutItem", &wide).unwrap();
    assert_eq!(call.parameters["$truncated"], true);
    assert!(call.parameters.to_string().len() < 1 << 20);
}

#[test]
fn xml_bodies() {
    let deep = "<a>".repeat(100_000);
    let bomb =
        "<!DOCTYPE l [<!ENTITY a \"xxxx\"><!ENTITY b \"&a;&a;&a;\">]><Delete><Object><Key>&b;</Key></Object></Delete>";
    let external = "<!DOCTYPE l SYSTEM \"file:///etc/passwd\"><Delete><Object><Key>k</Key></Object></Delete>";
    let bad: [&[u8]; 17] = [
        b"<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        b"<Delete><Object Key=\"a\"><Key>b</Key></Object></Delete>",
        b"<Delete><Object><Key>a</Key><x:Key>b</x:Key></Object></Delete>",
        b"<Delete><Object><Key>&unknown;</Key></Object></Delete>",
        b"<Delete><Object><Key>&#xd800;</Key></Object></Delete>",
        b"<Delete><Object><Key>a</Object></Key></Delete>",
        b"<Delete><Object><Key>a</Key></Object>",
        b"<Delete><Object a=\"1\" a=\"2\"><Key>a</Key></Object></Delete>",
        b"<Delete></Delete><Delete></Delete>",
        b"<Delete><Object><Key>\xff</Key></Object></Delete>",
        b"\xff\xfe<\0D\0e\0l\0",
        b"",
        b"\0",
        b"text",
        deep.as_bytes(),
        bomb.as_bytes(),
        external.as_bytes(),
    ];
    for body in bad {
        let result = xml("/?delete", body);
        assert!(result.is_err(), "{:?}: {result:?}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }
    let twice = b"<PublicAccessBlockConfiguration><BlockPublicAcls>TRUE</BlockPublicAcls>\
                  <BlockPublicAcls>FALSE</BlockPublicAcls></PublicAccessBlockConfiguration>";
    assert!(matches!(xml("/?publicAccessBlock", twice), Err(DecodeError::Contradiction(_))));
}

#[test]
fn cbor_bodies() {
    let deep = [b"\xa1\x6aMetricData".as_slice(), &vec![0x81; 100_000]].concat();
    let tags = [b"\xa1\x69Namespace".as_slice(), &vec![0xc1; 100_000]].concat();
    let bad: [&[u8]; 14] = [
        b"\xa1",
        b"\xa1\x69Names",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x61a\x61b", // a map of 2^64 - 1
        b"\xa1\x6aMetricData\x9b\xff\xff\xff\xff\xff\xff\xff\xff", // a list of as many
        b"\xa1\x69Namespace\x7b\x00\x00\x00\x7f\xff\xff\xff\xff", // a text of half a terabyte
        b"\xa1\x69Namespace\x62\xff\xfe",
        b"\xa2\x69Namespace\x61A\x69Namespace\x61B",
        b"\xa1\x69Namespace\x61A\x00",
        b"\xa1\x69Namespace\x7f\x41A\xff", // bytes in a text's chunks
        b"\xa1\x69Namespace\x7f\x7f\x61A\xff\xff",
        b"\xa1\x69Namespace\x1c",
        b"\xbf\x69Namespace\x61A",
        &deep,
        &tags,
    ];
    for body in bad {
        assert!(cbor(body).is_err(), "{:02x?}", &body[..body.len().min(24)]);
    }
}

#[test]
fn forms() {
    let many = (0..30_000).fold(String::from("Action=DescribeInstances"), |mut body, i| {
        let _ = write!(body, "&InstanceId.{i}=i-{i}");
        body
    });
    let bad: [&[u8]; 11] = [
        b"Action=DescribeInstances&Action=TerminateInstances",
        b"Action=DescribeInstances&%41ction=TerminateInstances",
        b"Action=TerminateInstances&InstanceId.1=a&InstanceId.01=b",
        b"Action=TerminateInstances&InstanceId.1=a&InstanceId.%31=b",
        b"Action=DescribeInstances\xff",
        b"Action=DescribeInstances%00",
        b"Action=",
        b"",
        b"&&&&",
        b"action=DescribeInstances",
        many.as_bytes(),
    ];
    for body in bad {
        let result = form(body);
        assert!(result.is_err(), "{:?}: {result:?}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }
    let name = format!("Action=DescribeInstances&{}=1", "a.".repeat(100_000));
    assert!(form(name.as_bytes()).is_ok(), "a deep name that means nothing is left out");
}

#[test]
fn what_names_the_operation_or_the_object_may_come_once() {
    let host = "b.s3.eu-west-1.amazonaws.com";
    let scope = "eu-west-1/s3";
    let ask = Ask { method: "DELETE", host, target: "/k?versionId=&versionId=1", fields: &[], body: b"", scope };
    let contradiction =
        |ask: &Ask<'_>| assert!(matches!(decode(ask), Err(DecodeError::Contradiction(_))), "{}", ask.target);
    contradiction(&ask);
    contradiction(&Ask { target: "/k?versionId=1&version%49d=2", ..ask });
    let sources = [("x-amz-copy-source", "/a/b"), ("x-amz-copy-source", "/secret/b")];
    contradiction(&Ask { method: "PUT", target: "/k", fields: &sources, ..ask });
    let host = "sqs.eu-west-1.amazonaws.com";
    let sqs = Ask { method: "POST", host, target: "/", fields: &[], body: b"{}", scope: "eu-west-1/sqs" };
    contradiction(&Ask {
        fields: &[("x-amz-target", "AmazonSQS.ListQueues"), ("X-AMZ-TARGET", "AmazonSQS.ListQueues")],
        ..sqs
    });
    let both = [FORM, ("x-amz-target", "AmazonSQS.ListQueues")];
    contradiction(&Ask { fields: &both, body: b"Action=PurgeQueue&QueueUrl=u", ..sqs });
    contradiction(&Ask { fields: &both[1..], target: "/?Action=PurgeQueue", ..sqs });
}
