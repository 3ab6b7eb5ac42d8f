//! Endpoints of applications: what requests to them need, and what is refused.

use std::{collections::BTreeMap, sync::LazyLock};

use http::Request;

use super::*;
use crate::{Catalog, RequestAuth};

/// Every action with IAM's level.
static KNOWN: LazyLock<BTreeMap<String, AccessLevel>> = LazyLock::new(|| Catalog::global().actions());

fn ask(method: &str, host: &str, target: &str, fields: &[(&str, &str)]) -> Result<Vec<String>, DecodeError> {
    let mut request = Request::builder().method(method).uri(target).header("host", host);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let found = Catalog::global().host(host).expect("AWS's");
    let call = Catalog::global().decode(&found, &parts, Some(b""), &RequestAuth::of(&parts), Some("123456789012"))?;
    for action in &call.actions {
        assert_eq!(Some(&action.level), KNOWN.get(&*action.name), "{}", action.name);
    }
    Ok(call.needs().map(|(action, resource)| format!("{} {resource}", action.name)).collect())
}

fn one(method: &str, host: &str, target: &str) -> String {
    ask(method, host, target, &[]).map_or_else(|error| format!("refused: {error}"), |needs| needs.join(", "))
}

#[test]
fn requests_to_customers_endpoints_need_iams_actions() {
    let here = "eu-west-1:123456789012";
    let api = "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com";
    for (method, host, target, expected) in [
        // https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-control-access-using-iam-policies-to-invoke-api.html
        (
            "GET",
            api,
            "/test/mydemoresource/a",
            format!("execute-api:Invoke arn:aws:execute-api:{here}:a1b2c3d4e5/test/GET/mydemoresource/a"),
        ),
        ("POST", api, "/prod", format!("execute-api:Invoke arn:aws:execute-api:{here}:a1b2c3d4e5/prod/POST/")),
        (
            "POST",
            api,
            "/prod/@connections/L0SM9cOFvHcCIhw=",
            format!(
                "execute-api:ManageConnections arn:aws:execute-api:{here}:a1b2c3d4e5/prod/POST/@connections/L0SM9cOFvHcCIhw="
            ),
        ),
        (
            "GET",
            "a1b2c3d4e5.execute-api.cn-north-1.amazonaws.com.cn",
            "/s/x",
            "execute-api:Invoke arn:aws-cn:execute-api:cn-north-1:123456789012:a1b2c3d4e5/s/GET/x".into(),
        ),
        (
            "GET",
            "a1b2c3d4e5-vpce-01234567abcdef012.execute-api.eu-west-1.amazonaws.com",
            "/s/x",
            format!("execute-api:Invoke arn:aws:execute-api:{here}:a1b2c3d4e5/s/GET/x"),
        ),
        // https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
        ("POST", "abcdefg.lambda-url.us-east-1.on.aws", "/any", "lambda:InvokeFunctionUrl *".into()),
        // https://docs.aws.amazon.com/opensearch-service/latest/developerguide/ac.html
        (
            "GET",
            "search-test-domain-abc123.eu-west-1.es.amazonaws.com",
            "/commerce-data/_search",
            format!("es:ESHttpGet arn:aws:es:{here}:domain/test-domain/commerce-data/_search"),
        ),
        (
            "PUT",
            "vpc-test-domain-abc123.eu-west-1.es.amazonaws.com",
            "/i%2Cj/_doc/1",
            format!("es:ESHttpPut arn:aws:es:{here}:domain/test-domain/i,j/_doc/1"),
        ),
        (
            "POST",
            "07tjusf2h91cunochc.eu-west-1.aoss.amazonaws.com",
            "/i/_search",
            format!("aoss:APIAccessAll arn:aws:aoss:{here}:collection/07tjusf2h91cunochc"),
        ),
        // https://docs.aws.amazon.com/codecommit/latest/userguide/auth-and-access-control-permissions-reference.html
        (
            "GET",
            "git-codecommit.eu-west-1.amazonaws.com",
            "/v1/repos/MyDemoRepo/info/refs?service=git-upload-pack",
            format!("codecommit:GitPull arn:aws:codecommit:{here}:MyDemoRepo"),
        ),
        (
            "POST",
            "git-codecommit.eu-west-1.amazonaws.com",
            "/v1/repos/MyDemoRepo/git-receive-pack",
            format!("codecommit:GitPush arn:aws:codecommit:{here}:MyDemoRepo"),
        ),
        (
            "POST",
            "git-codecommit-fips.us-gov-west-1.amazonaws.com",
            "/v1/repos/R/git-upload-pack",
            "codecommit:GitPull arn:aws-us-gov:codecommit:us-gov-west-1:123456789012:R".into(),
        ),
        // https://docs.aws.amazon.com/appsync/latest/devguide/security-authz.html
        ("POST", "zvyymspqrbe2pivyrhhjmb.appsync-api.eu-west-1.amazonaws.com", "/graphql", "appsync:GraphQL *".into()),
        (
            "POST",
            "zvyymspqrbe2pivyrhhjmb.appsync-api.eu-west-1.amazonaws.com",
            "/event",
            "appsync:EventPublish *".into(),
        ),
        (
            "POST",
            "aps-workspaces.eu-west-1.amazonaws.com",
            "/workspaces/ws-1/api/v1/remote_write",
            format!("aps:RemoteWrite arn:aws:aps:{here}:workspace/ws-1"),
        ),
        (
            "GET",
            "name-svc-0a1b.7d67968.vpc-lattice-svcs.eu-west-1.on.aws",
            "/a/b",
            format!("vpc-lattice-svcs:Invoke arn:aws:vpc-lattice:{here}:service/svc-0a1b/a/b"),
        ),
        (
            "POST",
            "gw-x1.gateway.bedrock-agentcore.eu-west-1.amazonaws.com",
            "/mcp",
            format!("bedrock-agentcore:InvokeGateway arn:aws:bedrock-agentcore:{here}:gateway/gw-x1"),
        ),
    ] {
        assert_eq!(one(method, host, target), expected, "{method} {host} {target}");
    }
    let fresh = ask("GET", api, "/s/x", &[("cache-control", "max-age=0")]).unwrap();
    let resource = format!("arn:aws:execute-api:{here}:a1b2c3d4e5/s/GET/x");
    assert_eq!(fresh, [format!("execute-api:Invoke {resource}"), format!("execute-api:InvalidateCache {resource}")]);
    let endpoint = "vpce-0a1b-2c3d.execute-api.eu-west-1.vpce.amazonaws.com";
    let named = ask("GET", endpoint, "/s/x", &[("x-apigw-api-id", "a1b2c3d4e5")]).unwrap();
    assert_eq!(named, [format!("execute-api:Invoke {resource}")]);
    assert!(ask("GET", endpoint, "/s/x", &[]).is_err());
    assert!(ask("GET", api, "/s/x", &[("x-apigw-api-id", "other")]).is_err());
}

#[test]
fn a_registrys_steps_are_ecrs_actions() {
    let host = "111122223333.dkr.ecr.eu-west-1.amazonaws.com";
    let on = |name: &str| format!("arn:aws:ecr:eu-west-1:111122223333:repository/{name}");
    for (method, target, expected) in [
        ("GET", "/v2/", "ecr:GetAuthorizationToken *".to_owned()),
        ("GET", "/v2/team/app/manifests/latest", format!("ecr:BatchGetImage {}", on("team/app"))),
        ("HEAD", "/v2/app/manifests/sha256:ab", format!("ecr:BatchGetImage {}", on("app"))),
        ("PUT", "/v2/app/manifests/1.0", format!("ecr:PutImage {}", on("app"))),
        ("DELETE", "/v2/app/manifests/sha256:ab", format!("ecr:BatchDeleteImage {}", on("app"))),
        ("GET", "/v2/app/blobs/sha256:ab", format!("ecr:GetDownloadUrlForLayer {}", on("app"))),
        ("HEAD", "/v2/app/blobs/sha256:ab", format!("ecr:BatchCheckLayerAvailability {}", on("app"))),
        ("POST", "/v2/app/blobs/uploads/", format!("ecr:InitiateLayerUpload {}", on("app"))),
        ("PATCH", "/v2/app/blobs/uploads/u-1", format!("ecr:UploadLayerPart {}", on("app"))),
        ("GET", "/v2/app/tags/list", format!("ecr:ListImages {}", on("app"))),
    ] {
        assert_eq!(one(method, host, target), expected, "{method} {target}");
    }
    let done = ask("PUT", host, "/v2/app/blobs/uploads/u-1?digest=sha256:ab", &[("content-length", "0")]).unwrap();
    assert_eq!(done, [format!("ecr:CompleteLayerUpload {}", on("app"))]);
    let mount = one("POST", host, "/v2/app/blobs/uploads/?mount=sha256:ab&from=other");
    assert!(mount.contains(&format!("ecr:GetDownloadUrlForLayer {}", on("other"))), "{mount}");
    for (method, target) in [
        ("POST", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/%61pp/manifests/latest"),
        ("GET", "/v2/app/../other/manifests/latest"),
        ("GET", "/v2/app//manifests/latest"),
        ("DELETE", "/v2/app/blobs/uploads/u-1"),
        ("GET", "/v2/app/manifests/"),
    ] {
        assert!(one(method, host, target).starts_with("refused"), "{method} {target}");
    }
    let dual = one("GET", "111122223333.dkr-ecr.eu-west-1.on.aws", "/v2/app/manifests/latest");
    assert_eq!(dual, format!("ecr:BatchGetImage {}", on("app")));
}

// https://docs.aws.amazon.com/codeartifact/latest/ug/repository-endpoint.html has an endpoint of each format.
#[test]
fn package_managers_read_and_publish() {
    let host = "my-dom-111122223333.d.codeartifact.eu-west-1.amazonaws.com";
    let on = |tail: &str| format!("arn:aws:codeartifact:eu-west-1:111122223333:{tail}");
    for (method, target) in
        [("GET", "/npm/repo/lodash"), ("GET", "/pypi/repo/simple/boto3/"), ("HEAD", "/maven/repo/com/x/y/1.0/y.pom")]
    {
        let expected = format!("codeartifact:ReadFromRepository {}", on("repository/my-dom/repo"));
        assert_eq!(one(method, host, target), expected, "{target}");
    }
    let put = ask("PUT", host, "/npm/repo/@scope%2Fthing", &[]).unwrap().join(" ");
    assert!(put.contains(&format!("PublishPackageVersion {}", on("package/my-dom/repo/npm/*"))), "{put}");
    for (method, target) in [
        ("GET", "/npm/repo"),
        ("GET", "/other/repo/x"),
        ("GET", "/npm/../pypi/repo/x"),
        ("GET", "/npm//x"),
        ("PATCH", "/npm/repo/x"),
    ] {
        assert!(one(method, host, target).starts_with("refused"), "{method} {target}");
    }
    let other = one("GET", "my-dom-12.d.codeartifact.eu-west-1.amazonaws.com", "/npm/repo/x");
    assert!(other.starts_with("refused"), "{other}");
}

#[test]
fn what_iam_has_no_action_for_is_refused_and_says_so() {
    for host in [
        "oidc.eks.us-west-2.amazonaws.com",
        "c3k3sxyz.credentials.iot.us-east-1.amazonaws.com",
        "my-site.s3-website-us-west-2.amazonaws.com",
        "my.site.s3-website.eu-central-1.amazonaws.com",
        "my-site.s3-website.cn-north-1.amazonaws.com.cn",
        "my-lb-1234567890.us-east-2.elb.amazonaws.com",
        "my-nlb-1234567890.elb.us-east-2.amazonaws.com",
        "ec2-203-0-113-25.us-west-2.compute.amazonaws.com",
        "mydb.123456789012.us-east-1.rds.amazonaws.com",
    ] {
        assert!(
            one("GET", host, "/").starts_with("refused: IAM has no action for "),
            "{host}: {}",
            one("GET", host, "/")
        );
    }
}

/// What has AWS's authority is AWS's API, and what has none is between the agent and the application.
#[test]
fn requests_without_a_signature_are_an_applications() {
    let of = |host: &str, authorization: Option<&str>, target: &str| {
        let mut request = Request::get(target);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        match Catalog::global().host(host).unwrap().kind {
            crate::HostKind::Endpoint(endpoint) => endpoint.is_application(&parts),
            kind => panic!("{host}: {kind:?}"),
        }
    };
    let signed = "AWS4-HMAC-SHA256 Credential=A/20250601/eu-west-1/x/aws4_request, SignedHeaders=host, Signature=0";
    for host in [
        "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com",
        "abcdefg.lambda-url.us-east-1.on.aws",
        "search-d-abc123.eu-west-1.es.amazonaws.com",
        "abcdefg.appsync-api.eu-west-1.amazonaws.com",
    ] {
        for own in [None, Some("Bearer x"), Some("Basic x")] {
            assert!(of(host, own, "/s"), "{host} {own:?}");
        }
        for aws in [signed, "AWS A:x", "AWS4-ECDSA-P256-SHA256 Credential=A/20250601/x/aws4_request, Signature=0"] {
            assert!(!of(host, Some(aws), "/s"), "{host} {aws}");
        }
        assert!(!of(host, None, "/s?X-Amz-Signature=0&X-Amz-Credential=A%2F20250601"), "{host}");
    }
    for host in ["my-lb-1.eu-west-1.elb.amazonaws.com", "ec2-203-0-113-25.us-west-2.compute.amazonaws.com"] {
        assert!(of(host, None, "/") && of(host, Some(signed), "/"), "{host}");
    }
    for host in ["git-codecommit.eu-west-1.amazonaws.com", "aps-workspaces.eu-west-1.amazonaws.com"] {
        assert!(!of(host, None, "/"), "{host}");
    }
}

#[test]
fn paths_that_hide_something_are_refused() {
    let host = "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com";
    for target in
        ["/s/%61dmin", "/s/../admin", "/s/%2e%2e/admin", "/s/a%2F..%2Fadmin", "/s/%00", "/s/%zz", "/s/%ff", "/s/%2561"]
    {
        assert!(one("GET", host, target).starts_with("refused"), "{target}: {}", one("GET", host, target));
    }
    assert!(one("GET", host, "/s/a%20b/").ends_with("a1b2c3d4e5/s/GET/a b/"));
    // Whatever the endpoint makes of it must be permitted.
    let needed = ask("GET", host, "/s//a%2Dmin", &[]).unwrap();
    for resource in ["s/GET//a-min", "s/GET//a%2Dmin", "s/GET/a-min", "s/GET/a%2Dmin"] {
        assert!(needed.iter().any(|need| need.ends_with(&format!("a1b2c3d4e5/{resource}"))), "{resource}: {needed:?}");
    }
    let needed = ask("GET", "search-d-abc123.eu-west-1.es.amazonaws.com", "/i%2Dj/_search", &[]).unwrap();
    assert!(needed[0].ends_with("domain/d/i-j/_search") && needed[1].ends_with("domain/d/i%2Dj/_search"), "{needed:?}");
}

#[test]
fn every_action_of_an_endpoint_is_iams_with_its_level() {
    let source = include_str!("../endpoint.rs");
    let code = source.split("#[cfg(test)]").next().unwrap();
    let mut seen = 0;
    for text in code
        .split('"')
        .filter(|text| text.contains(':') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b':' || b == b'-'))
    {
        assert!(KNOWN.contains_key(text), "{text}");
        seen += 1;
    }
    assert!(seen > 30, "only {seen}");
}
