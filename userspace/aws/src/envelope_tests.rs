//! Requests that another reader could take for something else than they are decoded as: refused by name, or known not to
//! be whole. Each is a neighbour of one that a client of AWS's sends.

use chaperone_model::Call;

use crate::{
    DecodeError,
    decode_tests::{Ask, decode},
};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
const JSON: (&str, &str) = ("content-type", "application/x-amz-json-1.0");
const LIST_TABLES: (&str, &str) = ("x-amz-target", "DynamoDB_20120810.ListTables");
const RPC: (&str, &str) = ("smithy-protocol", "rpc-v2-cbor");
const CBOR: (&str, &str) = ("content-type", "application/cbor");
const LIST_METRICS: &str = "/service/GraniteServiceVersion20100801/operation/ListMetrics";

fn iam<'a>(method: &'a str, target: &'a str, fields: &'a [(&'a str, &'a str)], body: &'a str) -> Ask<'a> {
    Ask { method, host: "iam.amazonaws.com", target, fields, body: body.as_bytes(), scope: "us-east-1/iam" }
}

fn dynamodb<'a>(method: &'a str, target: &'a str, fields: &'a [(&'a str, &'a str)], body: &'a str) -> Ask<'a> {
    let host = "dynamodb.eu-west-1.amazonaws.com";
    Ask { method, host, target, fields, body: body.as_bytes(), scope: "eu-west-1/dynamodb" }
}

fn cloudwatch<'a>(method: &'a str, target: &'a str, fields: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Ask<'a> {
    let host = "monitoring.eu-west-1.amazonaws.com";
    Ask { method, host, target, fields, body, scope: "eu-west-1/monitoring" }
}

fn lambda<'a>(method: &'a str, target: &'a str, fields: &'a [(&'a str, &'a str)], body: &'a str) -> Ask<'a> {
    let host = "lambda.eu-west-1.amazonaws.com";
    Ask { method, host, target, fields, body: body.as_bytes(), scope: "eu-west-1/lambda" }
}

fn bucket<'a>(method: &'a str, target: &'a str, fields: &'a [(&'a str, &'a str)], body: &'a str) -> Ask<'a> {
    let host = "b.s3.eu-west-1.amazonaws.com";
    Ask { method, host, target, fields, body: body.as_bytes(), scope: "eu-west-1/s3" }
}

fn s3<'a>(method: &'a str, target: &'a str) -> Ask<'a> {
    Ask { host: "s3.eu-west-1.amazonaws.com", ..bucket(method, target, &[], "") }
}

fn ec2(body: &str) -> Result<Call, DecodeError> {
    let host = "ec2.eu-west-1.amazonaws.com";
    let body = body.as_bytes();
    decode(&Ask { method: "POST", host, target: "/", fields: &[FORM], body, scope: "eu-west-1/ec2" })
}

#[track_caller]
fn is(ask: &Ask<'_>, operation: &str) {
    let call = decode(ask).unwrap_or_else(|error| panic!("{} {}: {error}", ask.method, ask.target));
    assert_eq!(call.operation, operation);
    assert_eq!(call.unread, [""; 0], "{} {}", ask.method, ask.target);
}

#[track_caller]
fn refused(ask: &Ask<'_>) -> String {
    match decode(ask) {
        Ok(call) => panic!(
            "{} {} {:?} {}: {} {:?}",
            ask.method,
            ask.target,
            ask.fields,
            String::from_utf8_lossy(ask.body),
            call.operation,
            call.unread
        ),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn unread(call: Result<Call, DecodeError>, expected: &[&str]) {
    assert_eq!(call.unwrap().unread, expected);
}

const LIST: &str = "Action=ListUsers&Version=2010-05-08";
const CREATE: &str = "Action=CreateUser&Version=2010-05-08&UserName=eve";

#[test]
fn forms_are_posted_to_the_root_or_are_a_get_without_a_body() {
    is(&iam("POST", "/", &[FORM], LIST), "ListUsers");
    is(&iam("GET", "/?Action=ListUsers&Version=2010-05-08", &[], ""), "ListUsers");
    is(&iam("POST", "/?Action=ListUsers&Version=2010-05-08", &[FORM], ""), "ListUsers");
    let length = ("content-length", "48");
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "POST", "GET", "TRACE", "PROPFIND"] {
        for fields in [
            &[FORM, length][..],
            &[length],
            &[JSON, length],
            &[("content-type", "multipart/form-data; boundary=x"), length],
        ] {
            refused(&iam(method, "/?Action=ListUsers&Version=2010-05-08", fields, CREATE));
        }
    }
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"] {
        refused(&iam(method, "/", &[FORM, length], LIST));
        refused(&iam(method, "/?Action=ListUsers&Version=2010-05-08", &[], ""));
    }
    for target in
        ["/x", "//", "/./", "/%2F", "/;x", "/?x=1", "/?Version=2010-05-08", "/index.php", "/?%41ction=CreateUser"]
    {
        refused(&iam("POST", target, &[FORM], LIST));
    }
    // As browsers and curl send them, and other charsets than the one that is read.
    for kind in [
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=utf-7",
        "application/x-www-form-urlencoded; charset=ibm037",
        "application/x-www-form-urlencoded; charset=utf-8; charset=utf-7",
        "application/x-www-form-urlencoded; boundary=x",
        "application/x-www-form-urlencoded, application/json",
        "multipart/form-data; boundary=x",
        "application/json",
        "text/plain",
        "",
    ] {
        refused(&iam("POST", "/", &[("content-type", kind)], LIST));
    }
    refused(&iam("POST", "/", &[FORM, FORM], LIST));
    refused(&iam("POST", "/", &[], LIST));
}

#[test]
fn what_controls_a_form_has_one_place() {
    for more in [
        "Operation=CreateUser",
        "action=CreateUser",
        "ACTION=CreateUser",
        "Action[]=CreateUser",
        "Action[0]=CreateUser",
        "Action.1=CreateUser",
        "Action.member.1=CreateUser",
        "%41ction=CreateUser",
        "%2541ction=CreateUser",
        "Action%00=CreateUser",
        "+Action=CreateUser",
        "%20Action=CreateUser",
        "Action+=CreateUser",
        "%EF%BB%BFAction=CreateUser",
        "operation=CreateUser",
        "version=2010-05-08",
        "Version=2010-05-08",
        "Version.1=2010-05-08",
        "X-Amz-Target=AmazonIAM.CreateUser",
        "x_amz_target=AmazonIAM.CreateUser",
        "X-Amz-Security-Token=x",
        "X-Amz-Date=20250601T000000Z",
        "AWSAccessKeyId=AKIA",
        "awsaccesskeyid=AKIA",
        "Signature=x",
        "SignatureMethod=HmacSHA256",
        "SignatureVersion=2",
        "SecurityToken=x",
        "_method=PUT",
        "X-HTTP-Method-Override=PUT",
        "a=1;Action=CreateUser",
        "a=%zz",
        "a=%4",
        "a=%C0%AE",
        "a=%u0041",
        "a=b c",
    ] {
        for body in [format!("{LIST}&{more}"), format!("{more}&{LIST}")] {
            refused(&iam("POST", "/", &[FORM], &body));
            refused(&iam("GET", &format!("/?{}", body.replace(' ', "%20%zz")), &[], ""));
        }
    }
    let why = refused(&iam("POST", "/", &[FORM], &format!("{LIST}&Operation=CreateUser")));
    assert!(why.contains("`Operation`"), "{why}");
    for version in ["2010-05-09", "", "2009-01-01", "2010-05-08 "] {
        let body = format!("Action=ListUsers&Version={}", version.replace(' ', "+"));
        let why = refused(&iam("POST", "/", &[FORM], &body));
        assert!(why.contains("Version"), "{why}");
    }
}

#[test]
fn fields_that_make_another_request_of_it_are_refused() {
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x_http_method_override",
        "x_amz_target",
        "content_type",
        "transfer_encoding",
        "smithy-protocol",
        "x-amz-target",
    ] {
        for ask in [
            iam("POST", "/", &[FORM, (name, "DELETE")], LIST),
            bucket("GET", "/k", &[(name, "DELETE")], ""),
            lambda("GET", "/2015-03-31/functions", &[(name, "DELETE")], ""),
        ] {
            refused(&ask);
        }
    }
    let api = Ask {
        method: "GET",
        host: "abc.execute-api.eu-west-1.amazonaws.com",
        target: "/prod/pets",
        fields: &[("x-http-method-override", "DELETE")],
        body: b"",
        scope: "eu-west-1/execute-api",
    };
    refused(&api);
    assert!(decode(&Ask { fields: &[], ..api }).is_ok());
    refused(&dynamodb("POST", "/", &[LIST_TABLES, JSON, JSON], "{}"));
    refused(&dynamodb("POST", "/", &[LIST_TABLES, JSON, RPC], "{}"));
}

#[test]
fn targets_are_posted_to_the_root() {
    is(&dynamodb("POST", "/", &[LIST_TABLES, JSON], "{}"), "ListTables");
    is(
        &dynamodb("POST", "/", &[LIST_TABLES, ("content-type", "application/x-amz-json-1.0; charset=UTF-8")], "{}"),
        "ListTables",
    );
    for target in
        ["/x", "//", "/?Action=DeleteTable", "/?x", "/%2e", "/;a", "/service/DynamoDB_20120810/operation/DeleteTable"]
    {
        refused(&dynamodb("POST", target, &[LIST_TABLES, JSON], "{}"));
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        refused(&dynamodb(method, "/", &[LIST_TABLES, JSON, ("content-length", "2")], "{}"));
    }
    for kind in [
        FORM.1,
        CBOR.1,
        "application/xml",
        "text/plain",
        "application/x-amz-json-1.0; charset=utf-16",
        "multipart/form-data; boundary=x",
    ] {
        refused(&dynamodb("POST", "/", &[LIST_TABLES, ("content-type", kind)], "{}"));
    }
    let ecs = ("x-amz-target", "AmazonEC2ContainerServiceV20141113.ListClusters");
    let host = "ecs.eu-west-1.amazonaws.com";
    let ask = Ask { host, scope: "eu-west-1/ecs", ..dynamodb("POST", "/", &[], "{}") };
    is(&Ask { fields: &[ecs, JSON], ..ask }, "ListClusters");
    refused(&Ask { fields: &[ecs, JSON], target: "/?Action=CreateCluster", ..ask });
    refused(&Ask { fields: &[ecs, JSON, ("x-amzn-query-mode", "false")], ..ask });
}

#[test]
fn cbor_is_posted_to_its_operations_path() {
    is(&cloudwatch("POST", LIST_METRICS, &[RPC, CBOR], b"\xa0"), "ListMetrics");
    let more = [RPC, CBOR, ("smithy-protocol", "rpc-v2-json")];
    refused(&cloudwatch("POST", LIST_METRICS, &more, b"\xa0"));
    refused(&cloudwatch("POST", LIST_METRICS, &[("smithy-protocol", "rpc-v2-json"), CBOR], b"\xa0"));
    refused(&cloudwatch("POST", LIST_METRICS, &[("smithy-protocol", "RPC-v2-CBOR"), CBOR], b"\xa0"));
    refused(&cloudwatch("POST", LIST_METRICS, &[RPC, ("content-type", "application/json")], b"\xa0"));
    refused(&cloudwatch(
        "POST",
        LIST_METRICS,
        &[RPC, CBOR, ("x-amz-target", "GraniteServiceVersion20100801.DeleteAlarms")],
        b"\xa0",
    ));
    refused(&cloudwatch("PUT", LIST_METRICS, &[RPC, CBOR], b"\xa0"));
    refused(&cloudwatch("POST", LIST_METRICS, &[RPC, FORM], b"Action=DeleteAlarms&Version=2010-08-01"));
    for target in [
        format!("{LIST_METRICS}?Action=DeleteAlarms"),
        format!("{LIST_METRICS}/"),
        format!("/x{LIST_METRICS}"),
        format!("{LIST_METRICS}/operation/DeleteAlarms"),
        LIST_METRICS.replace("ListMetrics", "List%4detrics"),
        "/".to_owned(),
    ] {
        refused(&cloudwatch("POST", &target, &[RPC, CBOR], b"\xa0"));
    }
    // A tag, a text in bytes, a number in text: other readers may see more in them.
    refused(&cloudwatch("POST", LIST_METRICS, &[RPC, CBOR], b"\xa1\x69Namespace\xd8\x18\x63AWS"));
    unread(decode(&cloudwatch("POST", LIST_METRICS, &[RPC, CBOR], b"\xa1\x69Namespace\x43AWS")), &["body.Namespace"]);
    unread(decode(&cloudwatch("POST", LIST_METRICS, &[RPC, CBOR], b"\xa1\x63New\x01")), &["body.New"]);
}

#[test]
fn rest_requests_have_what_their_operation_takes() {
    is(&lambda("GET", "/2015-03-31/functions", &[], ""), "ListFunctions");
    is(&lambda("GET", "/2015-03-31/functions/f?Qualifier=1", &[], ""), "GetFunction");
    for ask in [
        lambda("GET", "/2015-03-31/functions", &[("content-length", "9")], "{\"a\":\"b\"}"),
        lambda("DELETE", "/2015-03-31/functions/f", &[("content-length", "9")], "{\"a\":\"b\"}"),
        lambda("DELETE", "/2015-03-31/functions/f", &[("transfer-encoding", "chunked")], "Action=x"),
        lambda("GET", "/2015-03-31/functions?Action=CreateFunction", &[], ""),
        lambda("GET", "/2015-03-31/functions?_method=DELETE", &[], ""),
        lambda("GET", "/2015-03-31/functions?X-Amz-Target=x", &[], ""),
        lambda("GET", "/2015-03-31/functions?Marker=a+b", &[], ""),
        lambda("GET", "/2015-03-31/functions?Marker=a;Action=b", &[], ""),
        lambda("GET", "/2015-03-31/functions?Marker=a&Marker=b", &[], ""),
        lambda("GET", "/2015-03-31/functions?Marker=%zz", &[], ""),
        lambda("GET", "/2015-03-31/functions/f;x=y", &[], ""),
        lambda("GET", "/2015-03-31/%66unctions/f", &[], ""),
        lambda("GET", "/2015-03-31/functions/%2e%2e", &[], ""),
        lambda("GET", "/2015-03-31/functions/f%00", &[], ""),
        lambda("GET", "/2015-03-31/functions/f%5c..", &[], ""),
        lambda("GET", "/2015-03-31/functions/f%zz", &[], ""),
        lambda("POST", "/2015-03-31/functions", &[FORM], "{\"FunctionName\":\"f\"}"),
        lambda("POST", "/2015-03-31/functions", &[("content-type", "application/xml")], "{\"FunctionName\":\"f\"}"),
        lambda("POST", "/2015-03-31/functions", &[("content-type", "application/json; charset=utf-7")], "{}"),
        bucket("PUT", "/?tagging", &[FORM], "<Tagging/>"),
        bucket("PUT", "/?tagging", &[("content-type", "application/json")], "<Tagging/>"),
        bucket("GET", "/k", &[("content-length", "3")], "abc"),
        bucket("HEAD", "/k", &[("content-length", "3")], "abc"),
        bucket("DELETE", "/k", &[("content-length", "3")], "abc"),
        bucket("PUT", "/?tagging", &[("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")], "<Tagging/>"),
        bucket("PUT", "/?tagging", &[("content-encoding", "aws-chunked")], "<Tagging/>"),
        bucket("PUT", "/k", &[("content-encoding", "aws-chunked"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "x"),
    ] {
        refused(&ask);
    }
    unread(decode(&lambda("GET", "/2015-03-31/functions?Newest=1", &[], "")), &["query.Newest"]);
    unread(decode(&lambda("GET", "/2015-03-31/functions", &[("x-amz-new", "1")], "")), &["header.x-amz-new"]);
    let body = "{\"FunctionName\":\"f\",\"Code\":{\"New\":1},\"role\":\"x\",\"Timeout\":\"3\"}";
    let ask = lambda("POST", "/2015-03-31/functions", &[], body);
    unread(decode(&ask), &["body.Code.New", "body.role", "body.Timeout"]);
}

#[test]
fn what_of_s3s_query_is_unknown_is_never_nothing() {
    is(&bucket("PUT", "/key", &[], ""), "PutObject");
    is(&bucket("PUT", "/key?x-id=PutObject", &[], ""), "PutObject");
    for target in [
        "/key?frobnicate",
        "/key?frobnicate=",
        "/key?ACL",
        "/key?Acl=x",
        "/key?policy",
        "/key?x-id=GetObject",
        "/key?x-id=PutObject&x-id=GetObject",
        "/key?x-amz-acl=public-read",
        "/key?X-Amz-Copy-Source=%2Fb%2Fsecret",
        "/key?acl&acl",
        "/key?%61cl%00",
    ] {
        refused(&bucket("PUT", target, &[], ""));
    }
    unread(decode(&bucket("PUT", "/key?frobnicate=1", &[], "")), &["query.frobnicate"]);
    unread(decode(&bucket("PUT", "/key", &[("x-amz-frobnicate", "1")], "")), &["header.x-amz-frobnicate"]);
    for target in ["/b%2Fkey", "/b%2fkey/x", "/b%00/key", "/%62/key", "/b%3Fx/key"] {
        refused(&s3("GET", target));
        refused(&s3("DELETE", target));
    }
    is(&s3("GET", "/b/k%2Fey"), "GetObject");
    for source in [
        "/b/k?versionId=1?versionId=2",
        "/b/k?versionId=1&versionId=2",
        "/b/k?versionid=1",
        "/b/k?x=y",
        "/b/k?",
        "/b/k?versionId=",
        "/b/k#x",
        "/b/k%zz",
    ] {
        refused(&bucket("PUT", "/k", &[("x-amz-copy-source", source)], ""));
    }
}

#[test]
fn registries_and_their_like_are_read_without_a_body() {
    for (host, target, scope) in [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "/v2/app/manifests/latest", ""),
        ("d-123456789012.d.codeartifact.eu-west-1.amazonaws.com", "/npm/r/p", ""),
        (
            "git-codecommit.eu-west-1.amazonaws.com",
            "/v1/repos/r/info/refs?service=git-upload-pack",
            "eu-west-1/codecommit",
        ),
        ("aps-workspaces.eu-west-1.amazonaws.com", "/workspaces/ws-1/api/v1/labels", "eu-west-1/aps"),
    ] {
        let ask = Ask { method: "GET", host, target, fields: &[], body: b"", scope };
        assert!(decode(&ask).is_ok(), "{host}");
        refused(&Ask { fields: &[("content-length", "1")], body: b"x", ..ask });
        refused(&Ask { fields: &[("transfer-encoding", "chunked")], body: b"x", ..ask });
    }
}

#[test]
fn an_operation_without_an_input_knows_no_member() {
    let host = "organizations.us-east-1.amazonaws.com";
    let fields = [("x-amz-target", "AWSOrganizationsV20161128.DeleteOrganization"), JSON];
    let ask = Ask { host, scope: "us-east-1/organizations", ..dynamodb("POST", "/", &fields, "{}") };
    is(&ask, "DeleteOrganization");
    unread(decode(&Ask { body: b"{\"New\":1}", ..ask }), &["body.New"]);
}

#[test]
fn a_path_begins_with_a_slash() {
    let ask = Ask { host: "name.s3.eu-west-1.amazonaws.com", ..bucket("DELETE", "*", &[], "") };
    let why = refused(&ask);
    assert!(why.contains("begin"), "{why}");
    refused(&iam("POST", "*", &[FORM], LIST));
    refused(&dynamodb("POST", "*", &[LIST_TABLES, JSON], "{}"));
}

#[test]
fn queues_are_named_in_one_way() {
    let host = "sqs.eu-west-1.amazonaws.com";
    let purge = ("x-amz-target", "AmazonSQS.PurgeQueue");
    let json = |url: &str| {
        let body = format!("{{\"QueueUrl\":\"{url}\"}}");
        let body = body.as_bytes();
        decode(&Ask { method: "POST", host, target: "/", fields: &[purge, JSON], body, scope: "eu-west-1/sqs" })
    };
    let url = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs";
    assert!(json(url).is_ok());
    for more in ["?x=/123456789012/prod", "#/123456789012/prod", "%2f..%2fprod", "\\\\x", ";x", " "] {
        assert!(json(&format!("{url}{more}")).is_err(), "{more}");
    }
    let form = |target: &str, body: &str| {
        let body = body.as_bytes();
        decode(&Ask { method: "POST", host, target, fields: &[FORM], body, scope: "eu-west-1/sqs" })
    };
    let purge = "Action=PurgeQueue&Version=2012-11-05";
    assert!(form("/123456789012/jobs", purge).is_ok());
    assert!(form("/123456789012/jobs", &format!("{purge}&QueueUrl={url}")).is_ok());
    assert!(form("/123456789012/prod", &format!("{purge}&QueueUrl={url}")).is_err());
    for target in [
        "/123456789012/jobs/",
        "/123456789012",
        "/x/jobs",
        "/123456789012/a%62c",
        "/123456789012/jobs?a=b",
        "//123456789012/jobs",
    ] {
        assert!(form(target, purge).is_err(), "{target}");
    }
}

#[test]
fn what_a_form_has_and_the_shape_has_not_is_named() {
    let of = |more: &str| ec2(&format!("Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-dev&{more}"));
    unread(of("InstanceId.2=i-b"), &[]);
    unread(of("DryRun=true"), &[]);
    for (more, expected) in [
        ("InstanceIds.1=i-prod", "body.InstanceIds.1"),
        ("InstanceId.x=i-prod", "body.InstanceId.x"),
        ("instanceId.2=i-prod", "body.instanceId.2"),
        ("InstanceId=", "body.InstanceId"),
        ("InstanceId=i-prod", "body.InstanceId"),
        ("InstanceId.member.2=i-prod", "body.InstanceId.member.2"),
        ("InstanceId.0=i-prod", "body.InstanceId.0"),
        ("InstanceId.3=i-prod", "body.InstanceId.3"),
        ("InstanceId.02=i-prod", "body.InstanceId.02"),
        ("InstanceId.%2B2=i-prod", "body.InstanceId.+2"),
        ("InstanceId.-1=i-prod", "body.InstanceId.-1"),
        ("InstanceId.4294967296=i-prod", "body.InstanceId.4294967296"),
        ("InstanceId.1.x=i-prod", "body.InstanceId.1.x"),
        ("InstanceId.2.Value=i-prod", "body.InstanceId.2.Value"),
        ("InstanceId[2]=i-prod", "body.InstanceId[2]"),
        ("DryRun.x=1", "body.DryRun.x"),
        ("Newest=1", "body.Newest"),
    ] {
        let call = of(more).unwrap();
        assert!(call.unread.contains(&expected.to_owned()), "{more}: {:?}", call.unread);
    }
    assert!(of("InstanceId.01=i-prod").is_err());
    let many: String = (0..5000).map(|i| format!("&New.{i}=x")).collect();
    let call = of(&many[1..]).unwrap();
    assert_eq!((call.unread.len(), call.unread.last().map(String::as_str)), (33, Some("…")));
    let long = of(&format!("{}=1", "é".repeat(30_000).replace('é', "%C3%A9"))).unwrap();
    assert!(long.unread.iter().all(|name| name.len() <= 200), "{:?}", long.unread);
    // A list of the query protocol that is empty.
    let tags = "Action=UntagUser&Version=2010-05-08&UserName=u&TagKeys=";
    is(&iam("POST", "/", &[FORM], tags), "UntagUser");
    let styles = "Action=UntagUser&Version=2010-05-08&UserName=u&TagKeys.member.1=a&TagKeys.2=b";
    unread(decode(&iam("POST", "/", &[FORM], styles)), &["body.TagKeys.2"]);
    let bare = "Action=UntagUser&Version=2010-05-08&UserName=u&TagKeys.1=b";
    unread(decode(&iam("POST", "/", &[FORM], bare)), &["body.TagKeys.1"]);
}

#[test]
fn xml_is_read_in_one_way() {
    const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
    let delete = |body: &str| decode(&bucket("POST", "/?delete", &[("content-type", "application/xml")], body));
    let inner = "<Object><Key>a</Key></Object>";
    for body in [
        format!("<Delete xmlns=\"{NAMESPACE}\">{inner}</Delete>"),
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns=\"{NAMESPACE}\">\n  {inner}\n</Delete>\n"),
        format!("<?xml version='1.0' encoding='utf-8' standalone='yes'?><Delete>{inner}</Delete>"),
    ] {
        unread(delete(&body), &[]);
    }
    for body in [
        format!("<?xml version=\"1.0\" encoding=\"UTF-7\"?><Delete>{inner}</Delete>"),
        format!("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><Delete>{inner}</Delete>"),
        format!("<?xml version=\"1.1\"?><Delete>{inner}</Delete>"),
        format!(" <?xml version=\"1.0\"?><Delete>{inner}</Delete>"),
        format!("<Delete>{inner}<?xml version=\"1.0\" encoding=\"UTF-8\"?></Delete>"),
        format!("<Delete><?x y?>{inner}</Delete>"),
        format!("<!DOCTYPE Delete><Delete>{inner}</Delete>"),
        "<Delete><Object><Key>a<!-- x -->b</Key></Object></Delete>".into(),
        format!("<!-- x --><Delete>{inner}</Delete>"),
        "<Delete><Object><Key>a\rb</Key></Object></Delete>".into(),
        "<Delete><Object><Key>a&#0;b</Key></Object></Delete>".into(),
        "<Delete><Object><Key>a&#1;b</Key></Object></Delete>".into(),
        "<Delete><Object><Key>a\u{1}b</Key></Object></Delete>".into(),
        format!("<Delete xmlns=\"http://example.com/\">{inner}</Delete>"),
        format!("<Delete xmlns=\"http://s3.amazonaws.com.example.com/doc/2006-03-01/\">{inner}</Delete>"),
        format!("<Delete xmlns:x=\"{NAMESPACE}\">{inner}</Delete>"),
        format!("<x:Delete xmlns:x=\"{NAMESPACE}\">{inner}</x:Delete>"),
        format!(
            "<Delete xmlns=\"{NAMESPACE}\"><Object xmlns=\"http://iam.amazonaws.com/doc/2006-03-01/\"><Key>a</Key></Object></Delete>"
        ),
        format!("<Delete>{inner}</Delete>x"),
        format!("x<Delete>{inner}</Delete>"),
        format!("<Delete>{inner}</Delete><![CDATA[]]>"),
        format!("<Delete>x{inner}</Delete>"),
        format!("<Delete>{inner}x</Delete>"),
        format!("\u{feff}<Delete>{inner}</Delete>"),
        format!("<Delete a=\"1\" b=\"2\" c=\"3\" d=\"4\" e=\"5\">{inner}</Delete>"),
        format!("<Delete xmlns=\"{NAMESPACE}\" xmlns=\"{NAMESPACE}\">{inner}</Delete>"),
    ] {
        assert!(delete(&body).is_err(), "{body}");
    }
    unread(delete("<Delete><Object><Key>a</Key><New>x</New></Object></Delete>"), &["body.Delete.Object.New"]);
    unread(delete("<Delete><Object><Key>a</Key><key>b</key></Object></Delete>"), &["body.Delete.Object.key"]);
    unread(delete("<Delete><Object><Key> a</Key></Object></Delete>"), &["body.Delete.Object.Key"]);
}
