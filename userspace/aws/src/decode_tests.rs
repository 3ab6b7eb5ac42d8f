//! What calls need: actions and resources by hand-made requests; and requests that mean to be taken for something else.

use std::fmt::Write as _;

use chaperone_model::{AccessLevel, Call, Protocol};
use http::{Request, request::Parts};

use crate::{BodyNeed, Catalog, DecodeError, RequestAuth};

pub(crate) struct Ask<'a> {
    pub method: &'a str,
    pub host: &'a str,
    pub target: &'a str,
    pub fields: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
    /// Region and signing name; empty: unsigned.
    pub scope: &'a str,
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

pub(crate) fn parts(ask: &Ask<'_>) -> Parts {
    let mut request = Request::builder().method(ask.method).uri(ask.target).header("host", ask.host);
    for (name, value) in ask.fields {
        request = request.header(*name, *value);
    }
    if !ask.scope.is_empty() {
        let zeros = "0".repeat(64);
        let value = format!(
            "AWS4-HMAC-SHA256 Credential=ASIAX/20250601/{}/aws4_request, SignedHeaders=host, Signature={zeros}",
            ask.scope
        );
        request = request.header("authorization", value);
    }
    request.body(()).unwrap().into_parts().0
}

pub(crate) fn decode(ask: &Ask<'_>) -> Result<Call, DecodeError> {
    let parts = parts(ask);
    let catalog = Catalog::global();
    let host = catalog.host(ask.host).expect("AWS's");
    let body = (catalog.body_need(&host, &parts) == BodyNeed::Whole).then_some(ask.body);
    catalog.decode(&host, &parts, body, &RequestAuth::of(&parts), Some("123456789012"))
}

pub(crate) fn needs(ask: &Ask<'_>) -> Vec<String> {
    let call = decode(ask).unwrap();
    call.needs().map(|(action, resource)| format!("{} {resource}", action.name)).collect()
}

fn s3(method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Vec<String> {
    let host = "b.s3.eu-west-1.amazonaws.com";
    needs(&Ask { method, host, target, fields, body: body.as_bytes(), scope: "eu-west-1/s3" })
}

pub(crate) fn json(service: &str, target: &str, body: &str) -> Result<Call, DecodeError> {
    let host = format!("{service}.eu-west-1.amazonaws.com");
    let scope = format!("eu-west-1/{service}");
    let fields = [("x-amz-target", target)];
    decode(&Ask { method: "POST", host: &host, target: "/", fields: &fields, body: body.as_bytes(), scope: &scope })
}

pub(crate) fn form(service: &str, body: &str) -> Result<Call, DecodeError> {
    let host = format!("{service}.eu-west-1.amazonaws.com");
    let scope = format!("eu-west-1/{service}");
    decode(&Ask { method: "POST", host: &host, target: "/", fields: &[FORM], body: body.as_bytes(), scope: &scope })
}

#[test]
fn s3_needs_what_the_request_really_does() {
    assert_eq!(s3("GET", "/a%20b/c", &[], ""), ["s3:GetObject arn:aws:s3:::b/a b/c"]);
    assert_eq!(s3("HEAD", "/k", &[], ""), ["s3:GetObject arn:aws:s3:::b/k"]);
    assert_eq!(s3("GET", "/k?versionId=1", &[], ""), ["s3:GetObjectVersion arn:aws:s3:::b/k"]);
    assert_eq!(s3("GET", "/k?versionId=", &[], ""), ["s3:GetObject arn:aws:s3:::b/k"]);
    assert_eq!(s3("GET", "/?list-type=2&prefix=x", &[], ""), ["s3:ListBucket arn:aws:s3:::b"]);
    assert_eq!(s3("GET", "/folder/", &[], ""), ["s3:GetObject arn:aws:s3:::b/folder/"]);
    assert_eq!(s3("GET", "//k", &[], ""), ["s3:GetObject arn:aws:s3:::b//k"]);
    assert_eq!(s3("GET", "/../other/k", &[], ""), ["s3:GetObject arn:aws:s3:::b/../other/k"]);
    assert_eq!(s3("PUT", "/k?partNumber=1&uploadId=u", &[], ""), ["s3:PutObject arn:aws:s3:::b/k"]);
    assert_eq!(
        s3("PUT", "/k", &[("x-amz-copy-source", "/other/a%2Fb?versionId=3")], ""),
        ["s3:PutObject arn:aws:s3:::b/k", "s3:GetObjectVersion arn:aws:s3:::other/a/b"]
    );
    assert_eq!(
        s3("PUT", "/k", &[("x-amz-acl", "public-read"), ("x-amz-tagging", "a=b")], ""),
        ["s3:PutObjectAcl arn:aws:s3:::b/k", "s3:PutObjectTagging arn:aws:s3:::b/k", "s3:PutObject arn:aws:s3:::b/k"]
    );
    let delete = "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>a&amp;b</Key></Object>\
                  <Object><Key>c</Key><VersionId>1</VersionId></Object></Delete>";
    assert_eq!(
        s3("POST", "/?delete", &[], delete),
        ["s3:DeleteObject arn:aws:s3:::b/a&b", "s3:DeleteObjectVersion arn:aws:s3:::b/c"]
    );
    // Without a key it is malformed, which is S3's to say; it could be any.
    let empty = Ask {
        method: "POST",
        host: "b.s3.eu-west-1.amazonaws.com",
        target: "/?delete",
        fields: &[],
        body: b"<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>",
        scope: "eu-west-1/s3",
    };
    let empty = decode(&empty).unwrap();
    assert_eq!((&*empty.actions[0].name, &*empty.unknown[0].pattern), ("s3:DeleteObject", "arn:aws:s3:::b/*"));
    let path =
        Ask { method: "GET", host: "s3.amazonaws.com", target: "/", fields: &[], body: b"", scope: "us-east-1/s3" };
    assert_eq!(needs(&path), ["s3:ListAllMyBuckets *"]);
    let point = Ask { host: "ap-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", target: "/k", ..path };
    assert_eq!(
        needs(&Ask { scope: "eu-west-1/s3", ..point }),
        ["s3:GetObject arn:aws:s3:eu-west-1:123456789012:accesspoint/ap/object/k"]
    );
}

#[test]
fn other_services_need_what_their_parameters_name() {
    let of = |call: Result<Call, DecodeError>| -> Vec<String> {
        call.unwrap().needs().map(|(action, resource)| format!("{} {resource}", action.name)).collect()
    };
    let here = "eu-west-1:123456789012";
    assert_eq!(
        of(json("dynamodb", "DynamoDB_20120810.Query", "{\"TableName\":\"T\",\"IndexName\":\"i\"}")),
        [format!("dynamodb:Query arn:aws:dynamodb:{here}:table/T/index/i")]
    );
    assert_eq!(
        of(json("dynamodb", "DynamoDB_20120810.BatchGetItem", "{\"RequestItems\":{\"A\":{},\"B\":{}}}")),
        [
            format!("dynamodb:BatchGetItem arn:aws:dynamodb:{here}:table/A"),
            format!("dynamodb:BatchGetItem arn:aws:dynamodb:{here}:table/B")
        ]
    );
    let transact = "{\"TransactItems\":[{\"Put\":{\"TableName\":\"A\"}},{\"Delete\":{\"TableName\":\"B\"}}]}";
    let call = json("dynamodb", "DynamoDB_20120810.TransactWriteItems", transact).unwrap();
    let actions: Vec<_> = call.actions.iter().map(|action| action.name.as_ref()).collect();
    assert_eq!(actions, ["dynamodb:PutItem", "dynamodb:DeleteItem"]);
    assert_eq!(
        of(json("dynamodb", "DynamoDB_20120810.ExecuteStatement", "{\"Statement\":\"SELECT * FROM \\\"T\\\"\"}")),
        [format!("dynamodb:PartiQLSelect arn:aws:dynamodb:{here}:table/T")]
    );
    assert_eq!(
        of(json("secretsmanager", "secretsmanager.GetSecretValue", "{\"SecretId\":\"prod/db\"}")),
        [format!("secretsmanager:GetSecretValue arn:aws:secretsmanager:{here}:secret:prod/db")]
    );
    let arn = format!("arn:aws:secretsmanager:{here}:secret:prod/db-AbCdEf");
    assert_eq!(
        of(json("secretsmanager", "secretsmanager.GetSecretValue", &format!("{{\"SecretId\":\"{arn}\"}}"))),
        [format!("secretsmanager:GetSecretValue {arn}")]
    );
    let url = "{\"QueueUrl\":\"https://sqs.eu-west-1.amazonaws.com/111122223333/jobs\",\"Entries\":[]}";
    assert_eq!(
        of(json("sqs", "AmazonSQS.SendMessageBatch", url)),
        ["sqs:SendMessage arn:aws:sqs:eu-west-1:111122223333:jobs"]
    );
    // By its bare name, it is the account's own.
    assert_eq!(
        of(json("sqs", "AmazonSQS.PurgeQueue", "{\"QueueUrl\":\"jobs.fifo\"}")),
        [format!("sqs:PurgeQueue arn:aws:sqs:{here}:jobs.fifo")]
    );
    assert_eq!(
        of(json("kms", "TrentService.Decrypt", "{\"KeyId\":\"alias/a\"}")),
        [format!("kms:Decrypt arn:aws:kms:{here}:alias/a")]
    );
    let lambda = Ask {
        method: "POST",
        host: "lambda.eu-west-1.amazonaws.com",
        target: "/2015-03-31/functions/fn/invocations",
        fields: &[],
        body: b"ignored",
        scope: "eu-west-1/lambda",
    };
    assert_eq!(needs(&lambda), [format!("lambda:InvokeFunction arn:aws:lambda:{here}:function:fn")]);
    let partial = Ask { target: "/2015-03-31/functions/111122223333%3Afunction%3Afn/invocations", ..lambda };
    assert_eq!(needs(&partial), ["lambda:InvokeFunction arn:aws:lambda:eu-west-1:111122223333:function:fn"]);
    let create = "{\"FunctionName\":\"f\",\"Role\":\"arn:aws:iam::123456789012:role/r\",\"Code\":{}}";
    assert_eq!(
        needs(&Ask { target: "/2015-03-31/functions", body: create.as_bytes(), ..lambda }),
        [
            format!("lambda:CreateFunction arn:aws:lambda:{here}:function:f"),
            "iam:PassRole arn:aws:iam::123456789012:role/r".into()
        ]
    );
    let gateway = Ask {
        method: "DELETE",
        host: "apigateway.eu-west-1.amazonaws.com",
        target: "/restapis/abc",
        fields: &[],
        body: b"",
        scope: "eu-west-1/apigateway",
    };
    assert_eq!(needs(&gateway), ["apigateway:DELETE arn:aws:apigateway:eu-west-1::/restapis/abc"]);
    let execute = Ask {
        method: "GET",
        host: "abc.execute-api.eu-west-1.amazonaws.com",
        target: "/prod/pets?x=1",
        scope: "eu-west-1/execute-api",
        ..gateway
    };
    assert_eq!(needs(&execute), [format!("execute-api:Invoke arn:aws:execute-api:{here}:abc/prod/GET/pets")]);
    let user = Ask {
        method: "POST",
        host: "iam.amazonaws.com",
        target: "/",
        fields: &[FORM],
        body: b"Action=DeleteUser&Version=2010-05-08&UserName=bob",
        scope: "us-east-1/iam",
    };
    assert_eq!(needs(&user), ["iam:DeleteUser arn:aws:iam::123456789012:user/bob"]);
    let run = form("ec2", "Action=RunInstances&Version=2016-11-15&MinCount=1&NetworkInterface.1.SubnetId=s").unwrap();
    assert_eq!((run.protocol, run.level()), (Protocol::Ec2, AccessLevel::Write));
    assert_eq!(run.parameters["MinCount"], 1);
    assert_eq!(run.parameters["NetworkInterfaces"][0]["SubnetId"], "s");
}

#[test]
fn levels_are_iams() {
    let level = |call: Result<Call, DecodeError>| call.unwrap().level();
    assert_eq!(level(json("secretsmanager", "secretsmanager.ListSecrets", "{}")), AccessLevel::List);
    assert_eq!(level(json("secretsmanager", "secretsmanager.GetSecretValue", "{}")), AccessLevel::Read);
    assert_eq!(level(json("dynamodb", "DynamoDB_20120810.DeleteTable", "{}")), AccessLevel::Write);
    assert_eq!(level(json("dynamodb", "DynamoDB_20120810.TagResource", "{}")), AccessLevel::Tagging);
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let contradiction = |result: Result<Call, DecodeError>| {
        assert!(matches!(result, Err(DecodeError::Contradiction(_))), "{result:?}");
    };
    contradiction(form("sqs", "Action=ListQueues&Action=DeleteQueue"));
    contradiction(form("sqs", "Action=ListQueues&%41ction=DeleteQueue"));
    let sqs = Ask {
        method: "POST",
        host: "sqs.eu-west-1.amazonaws.com",
        target: "/",
        fields: &[FORM, ("x-amz-target", "AmazonSQS.ListQueues")],
        body: b"Action=DeleteQueue",
        scope: "eu-west-1/sqs",
    };
    contradiction(decode(&sqs));
    contradiction(decode(&Ask { target: "/?Action=DeleteQueue", fields: &[FORM], body: b"Action=ListQueues", ..sqs }));
    let twice = [("x-amz-target", "AmazonSQS.ListQueues"), ("x-amz-target", "AmazonSQS.DeleteQueue")];
    contradiction(decode(&Ask { fields: &twice, body: b"{}", ..sqs }));
    let target = [("x-amz-target", "AmazonSQS.ListQueues")];
    contradiction(decode(&Ask { fields: &target, method: "PUT", body: b"{}", ..sqs }));
    for body in [
        "{\"TableName\":\"a\",\"TableName\":\"b\"}",
        "{\"TableName\":null,\"TableName\":\"b\"}",
        "[]",
        "{}x",
        "{",
        "\u{feff}{}",
    ] {
        let result = json("dynamodb", "DynamoDB_20120810.DescribeTable", body);
        assert!(matches!(result, Err(DecodeError::Json { line: 1, .. } | DecodeError::Body(_))), "{body}: {result:?}");
    }
}

#[test]
fn the_scope_must_be_the_hosts() {
    let ask = Ask {
        method: "POST",
        host: "dynamodb.eu-west-1.amazonaws.com",
        target: "/",
        fields: &[("x-amz-target", "DynamoDB_20120810.ListTables")],
        body: b"{}",
        scope: "eu-west-1/dynamodb",
    };
    assert!(decode(&ask).is_ok());
    for scope in ["us-east-1/dynamodb", "eu-west-1/s3", "cn-north-1/dynamodb", "nowhere/dynamodb"] {
        assert!(matches!(decode(&Ask { scope, ..ask }), Err(DecodeError::Scope { .. })), "{scope}");
    }
    let global = Ask { host: "iam.amazonaws.com", fields: &[FORM], body: b"Action=ListUsers", ..ask };
    assert_eq!(decode(&Ask { scope: "us-east-1/iam", ..global }).unwrap().region.as_deref(), Some("us-east-1"));
    assert!(matches!(decode(&Ask { scope: "cn-north-1/iam", ..global }), Err(DecodeError::Scope { .. })));
    let unknown = Ask { host: "frobnicate.eu-west-1.amazonaws.com", scope: "eu-west-1/frobnicate", ..ask };
    assert_eq!(decode(&unknown), Err(DecodeError::UnknownService));
    let nothing = Ask { fields: &[("x-amz-target", "DynamoDB_20120810.Frobnicate")], ..ask };
    assert!(matches!(decode(&nothing), Err(DecodeError::NoOperation { .. })));
    let other = Ask { fields: &[("x-amz-target", "Kinesis_20131202.ListTables")], ..ask };
    assert!(matches!(decode(&other), Err(DecodeError::NoOperation { .. })));
}

#[test]
fn paths_that_normalise_to_something_else_are_refused() {
    for target in [
        "/2015-03-31/functions//invocations",
        "/2015-03-31/functions/../invocations",
        "/2015-03-31/functions/%2e%2e/invocations",
        "/2015-03-31/functions/./invocations",
    ] {
        let ask = Ask {
            method: "POST",
            host: "lambda.eu-west-1.amazonaws.com",
            target,
            fields: &[],
            body: b"",
            scope: "eu-west-1/lambda",
        };
        assert!(matches!(decode(&ask), Err(DecodeError::Path(_) | DecodeError::NoOperation { .. })), "{target}");
    }
}

#[test]
fn a_copy_source_or_a_deletion_that_names_nothing_is_refused() {
    let ask = Ask {
        method: "PUT",
        host: "b.s3.eu-west-1.amazonaws.com",
        target: "/k",
        fields: &[("x-amz-copy-source", "nokey")],
        body: b"",
        scope: "eu-west-1/s3",
    };
    assert!(matches!(decode(&ask), Err(DecodeError::Path(_))));
    let bomb = "<!DOCTYPE d [<!ENTITY a \"aaaa\">]><Delete><Object><Key>&a;</Key></Object></Delete>";
    for body in ["<Delete><Object/></Delete>", "", "<Delete><Object><Key>a</Key>", bomb, "<a/><b/>"] {
        let ask = Ask { method: "POST", target: "/?delete", fields: &[], body: body.as_bytes(), ..ask };
        assert!(decode(&ask).is_err(), "{body}");
    }
}

#[test]
fn large_inputs_are_cut_and_say_so() {
    let text = format!("{{\"TableName\":\"T\",\"Item\":{{\"a\":{{\"S\":\"{}\"}}}}}}", "é".repeat(5000));
    let call = json("dynamodb", "DynamoDB_20120810.PutItem", &text).unwrap();
    assert_eq!(call.resources, ["arn:aws:dynamodb:eu-west-1:123456789012:table/T"]);
    let mut batch = String::from("{\"RequestItems\":{");
    for i in 0..5000 {
        let _ = write!(batch, "\"T{i}\":{{}},");
    }
    batch.push_str("\"Secret\":{}}}");
    let call = json("dynamodb", "DynamoDB_20120810.BatchGetItem", &batch);
    assert_eq!(call, Err(DecodeError::TooLarge("list of resources")));
    let long = format!("{{\"TableName\":\"{}\"}}", "x".repeat(5000));
    let call = json("dynamodb", "DynamoDB_20120810.DescribeTable", &long);
    assert_eq!(call, Err(DecodeError::TooLarge("resource's name")));
    let call =
        json("secretsmanager", "secretsmanager.ListSecrets", &format!("{{\"NextToken\":\"{}\"}}", "é".repeat(5000)));
    let call = call.unwrap();
    assert_eq!(call.parameters["$truncated"], true);
    assert!(call.parameters["NextToken"].as_str().unwrap().len() < 4200);

    let mut deep = String::new();
    let mut wide = String::from("{\"Filters\":[");
    for i in 0..20_000 {
        let _ = write!(wide, "{}{{\"Key\":\"name\"}}", if i > 0 { "," } else { "" });
    }
    wide.push_str("]}");
    let call = json("secretsmanager", "secretsmanager.ListSecrets", &wide).unwrap();
    assert_eq!(call.parameters["$truncated"], true);
    assert!(call.parameters["Filters"].as_array().unwrap().len() <= 4096);
    for _ in 0..10_000 {
        deep.push_str("{\"M\":");
    }
    assert!(json("dynamodb", "DynamoDB_20120810.PutItem", &deep).is_err());
    let keys = format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(60_000));
    let ask = Ask {
        method: "POST",
        host: "b.s3.eu-west-1.amazonaws.com",
        target: "/?delete",
        fields: &[],
        body: keys.as_bytes(),
        scope: "eu-west-1/s3",
    };
    assert!(matches!(decode(&ask), Err(DecodeError::TooLarge(_))));
}

#[test]
fn hostile_cbor_is_refused() {
    let cbor = |body: &[u8]| {
        decode(&Ask {
            method: "POST",
            host: "monitoring.eu-west-1.amazonaws.com",
            target: "/service/GraniteServiceVersion20100801/operation/ListMetrics",
            fields: &[("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")],
            body,
            scope: "eu-west-1/monitoring",
        })
    };
    assert_eq!(cbor(b"\xa1\x69Namespace\x63AWS").unwrap().parameters["Namespace"], "AWS");
    assert_eq!(cbor(b"\xbf\x69Namespace\x7f\x61A\x62WS\xff\xff").unwrap().parameters["Namespace"], "AWS");
    let nested = vec![0x81_u8; 100_000];
    let mut within = b"\xa1\x69Namespace".to_vec();
    within.extend_from_slice(&nested);
    for body in [
        &b"\xa1"[..],
        b"\xa1\x69Namespace",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa1\x7b\xff\xff\xff\xff\xff\xff\xff\xffx",
        b"\xa0\xa0",
        b"\xa1\x01\x02",
        b"\x80",
        b"\xff",
        b"\xa2\x69Namespace\x61A\x69Namespace\x61B",
        &nested,
        &within,
    ] {
        assert!(cbor(body).is_err(), "{:02x?}", &body[..body.len().min(20)]);
    }
}

#[test]
fn unsigned_calls_are_decoded_too() {
    let ask = Ask {
        method: "GET",
        host: "public.s3.us-east-1.amazonaws.com",
        target: "/k",
        fields: &[],
        body: b"",
        scope: "",
    };
    let call = decode(&ask).unwrap();
    assert_eq!((call.operation.as_ref(), call.payload), ("GetObject", chaperone_model::Payload::None));
}

#[test]
fn what_clients_compress_is_decoded_and_nothing_else() {
    use std::io::Write as _;
    let packed = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = ("content-encoding", "gzip");
    let put = packed(b"Action=PutMetricData&Version=2010-08-01&Namespace=N&MetricData.member.1.MetricName=m");
    let ask = Ask {
        method: "POST",
        host: "monitoring.eu-west-1.amazonaws.com",
        target: "/",
        fields: &[FORM, gzip],
        body: &put,
        scope: "eu-west-1/monitoring",
    };
    let call = decode(&ask).unwrap();
    assert_eq!((call.operation.as_ref(), call.protocol), ("PutMetricData", Protocol::Query));
    assert_eq!(call.parameters["MetricData"][0]["MetricName"], "m");

    let json = packed(br#"{"Namespace":"N","MetricData":[]}"#);
    let fields = [("x-amz-target", "GraniteServiceVersion20100801.PutMetricData"), gzip];
    assert_eq!(decode(&Ask { fields: &fields, body: &json, ..ask }).unwrap().parameters["Namespace"], "N");

    let other = packed(b"Action=DeleteAlarms&Version=2010-08-01&AlarmNames.member.1=a");
    let twice = [FORM, gzip, gzip];
    let list = [FORM, ("content-encoding", "gzip, gzip")];
    for (fields, body) in
        [(&[FORM, gzip][..], &other[..]), (&twice, &put), (&list, &put), (&[FORM, gzip], b"Action=PutMetricData")]
    {
        assert!(matches!(decode(&Ask { fields, body, ..ask }), Err(DecodeError::Body(_))), "{fields:?}");
    }
}
