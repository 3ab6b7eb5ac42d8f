//! The default policy against everything that the catalog knows.

use std::collections::BTreeSet;

use chaperone_model::AccessLevel;
use chaperone_policy::DEFAULT_POLICY;

use crate::{
    Catalog,
    decode_tests::{Ask, decode, form, json},
    resources_tests::Asked,
};

#[test]
fn no_secret_is_read_by_the_default_policy() {
    let (asked, catalog) = (Asked::new(DEFAULT_POLICY), Catalog::global());
    // Any call will do, with other actions: the policy goes by them, but for API Gateway's.
    let mut call = form("sts", "Action=GetCallerIdentity&Version=2011-06-15").unwrap();
    let (mut reads, mut secrets, mut handed) = (0, 0, Vec::new());
    for position in 0..catalog.service_names().count() {
        for operation in &catalog.service(position).operations {
            let only_reads = operation.actions.iter().all(|action| action.level() <= AccessLevel::Read);
            call.actions = operation
                .actions
                .iter()
                .map(|action| chaperone_model::Action { name: action.0.into(), level: action.level() })
                .collect();
            reads += usize::from(only_reads);
            let Some(secret) = operation.secret else { continue };
            if call.actions.iter().any(|action| action.name == "apigateway:GET") {
                continue;
            }
            secrets += usize::from(only_reads);
            if asked.allows(&call) {
                handed.push(format!("{}:{} {secret}", catalog.service(position).name, operation.name));
            }
        }
    }
    assert!(handed.is_empty(), "run `cargo xtask catalog`: {handed:?}");
    println!("{secrets} of {reads} operations that only read hand out secrets");
    assert!(secrets >= 190 && reads > 7000, "{secrets} of {reads}");
}

#[test]
fn secrets_that_were_once_permitted_are_not() {
    let asked = Asked::new(DEFAULT_POLICY);
    let known: BTreeSet<String> = Catalog::global().actions().into_keys().collect();
    let mut call = form("sts", "Action=GetCallerIdentity&Version=2011-06-15").unwrap();
    for action in [
        "acm:ExportCertificate",
        "appsync:ListApiKeys",
        "chime:GetAttendee",
        "codebuild:BatchGetProjects",
        "codepipeline:GetJobDetails",
        "cognito-identity:GetCredentialsForIdentity",
        "cognito-identity:GetOpenIdToken",
        "cognito-idp:DescribeUserPoolClient",
        "connect:GetFederationToken",
        "datazone:GetEnvironmentCredentials",
        "ec2:DescribeInstanceAttribute",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeVpnConnections",
        "ec2:GetPasswordData",
        "ecr-public:GetAuthorizationToken",
        "ecr:GetAuthorizationToken",
        "ecs:DescribeTaskDefinition",
        "glue:GetConnections",
        "kinesisvideo:GetIceServerConfig",
        "lakeformation:GetTemporaryGlueTableCredentials",
        "lambda:GetFunctionConfiguration",
        "lambda:GetLayerVersion",
        "lambda:ListFunctions",
        "redshift:GetClusterCredentials",
        "s3:GetDataAccess",
        "secretsmanager:BatchGetSecretValue",
        "ssm:GetParametersByPath",
        "sts:GetSessionToken",
    ] {
        assert!(known.contains(action), "{action}");
        call.actions = vec![chaperone_model::Action { name: action.into(), level: AccessLevel::Read }];
        assert!(!asked.allows(&call), "{action}");
    }
}

#[test]
fn looking_is_permitted_as_ever() {
    let asked = Asked::new(DEFAULT_POLICY);
    let get = |host: &str, target: &str, scope: &str| {
        decode(&Ask { method: "GET", host, target, fields: &[], body: b"", scope }).unwrap()
    };
    let gateway = |target: &str| get("apigateway.eu-west-1.amazonaws.com", target, "eu-west-1/apigateway");
    for call in [
        form("sts", "Action=GetCallerIdentity&Version=2011-06-15").unwrap(),
        form("ec2", "Action=DescribeInstances&Version=2016-11-15").unwrap(),
        form("rds", "Action=DescribeDBInstances&Version=2014-10-31").unwrap(),
        form("cloudformation", "Action=DescribeStacks&Version=2010-05-15").unwrap(),
        json("dynamodb", "DynamoDB_20120810.ListTables", "{}").unwrap(),
        json("dynamodb", "DynamoDB_20120810.Scan", r#"{"TableName":"t"}"#).unwrap(),
        json("logs", "Logs_20140328.FilterLogEvents", r#"{"logGroupName":"g"}"#).unwrap(),
        json("ecs", "AmazonEC2ContainerServiceV20141113.ListClusters", "{}").unwrap(),
        get("b.s3.eu-west-1.amazonaws.com", "/k", "eu-west-1/s3"),
        get("s3.eu-west-1.amazonaws.com", "/", "eu-west-1/s3"),
        get("eks.eu-west-1.amazonaws.com", "/clusters/c", "eu-west-1/eks"),
        gateway("/restapis"),
    ] {
        assert!(asked.allows(&call), "{} {}", call.service, call.operation);
    }
    for target in ["/apikeys", "/apikeys/abc?includeValue=true", "/usageplans/p/keys", "/usageplans/p/keys/k"] {
        assert!(!asked.allows(&gateway(target)), "{target}");
    }
}
