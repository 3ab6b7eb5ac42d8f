//! What calls need beside their own action: roles that are passed, tags, layers, every item of a transaction.

use crate::{
    Catalog, DecodeError,
    decode_tests::{Ask, decode, form, json, needs},
};

const HERE: &str = "eu-west-1:123456789012";

fn of(call: Result<chaperone_model::Call, DecodeError>) -> Vec<String> {
    call.unwrap().needs().map(|(action, resource)| format!("{} {resource}", action.name)).collect()
}

#[test]
fn a_transaction_is_checked_item_by_item() {
    let dynamodb = |operation: &str, body: &str| json("dynamodb", &format!("DynamoDB_20120810.{operation}"), body);
    let table = |name: &str| format!("arn:aws:dynamodb:{HERE}:table/{name}");
    let body = r#"{"TransactItems":[{"Put":{"TableName":"A"}},{"Delete":{"TableName":"B"}},{"ConditionCheck":{"TableName":"C"}}]}"#;
    assert_eq!(
        of(dynamodb("TransactWriteItems", body)),
        [
            format!("dynamodb:PutItem {}", table("A")),
            format!("dynamodb:DeleteItem {}", table("B")),
            format!("dynamodb:ConditionCheckItem {}", table("C")),
        ]
    );
    // What doesn't say what it does needs everything.
    let unclear = of(dynamodb("TransactWriteItems", r#"{"TransactItems":[{"Put":{"TableName":"A"}},{}]}"#));
    assert_eq!(unclear.len(), 4, "{unclear:?}");
    let get = r#"{"TransactItems":[{"Get":{"TableName":"A"}},{"Get":{"TableName":"B"}}]}"#;
    assert_eq!(
        of(dynamodb("TransactGetItems", get)),
        [format!("dynamodb:GetItem {}", table("A")), format!("dynamodb:GetItem {}", table("B"))]
    );
    let write = r#"{"RequestItems":{"A":[],"B":[]}}"#;
    assert_eq!(
        of(dynamodb("BatchWriteItem", write)),
        [format!("dynamodb:BatchWriteItem {}", table("A")), format!("dynamodb:BatchWriteItem {}", table("B"))]
    );
}

#[test]
fn partiql_is_checked_statement_by_statement() {
    let dynamodb = |operation: &str, body: &str| json("dynamodb", &format!("DynamoDB_20120810.{operation}"), body);
    let table = |name: &str| format!("arn:aws:dynamodb:{HERE}:table/{name}");
    let batch =
        r#"{"Statements":[{"Statement":"SELECT * FROM \"A\" WHERE k=1"},{"Statement":"delete from B where k=1"}]}"#;
    assert_eq!(
        of(dynamodb("BatchExecuteStatement", batch)),
        [format!("dynamodb:PartiQLSelect {}", table("A")), format!("dynamodb:PartiQLDelete {}", table("B"))]
    );
    let transaction = r#"{"TransactStatements":[{"Statement":"EXISTS(SELECT * FROM \"A\" WHERE k=1)"},{"Statement":"INSERT INTO B VALUE {'k':1}"}]}"#;
    assert_eq!(
        of(dynamodb("ExecuteTransaction", transaction)),
        [format!("dynamodb:PartiQLSelect {}", table("A")), format!("dynamodb:PartiQLInsert {}", table("B"))]
    );
    for body in [
        r#"{"Statement":"DROP TABLE A"}"#,
        r#"{"Statement":""}"#,
        r"{}",
        r#"{"Statements":[{"Statement":"SELECT * FROM A"},{}]}"#,
    ] {
        assert!(matches!(dynamodb("BatchExecuteStatement", body), Err(DecodeError::Body(_))), "{body}");
    }
}

#[test]
fn launching_touches_all_that_iam_checks() {
    let body = "Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=1&ImageId=ami-1&SubnetId=subnet-1\
                &SecurityGroupId.1=sg-1&SecurityGroupId.2=sg-2&KeyName=k&IamInstanceProfile.Name=admin\
                &TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=b\
                &LaunchTemplate.LaunchTemplateId=lt-1&BlockDeviceMapping.1.Ebs.SnapshotId=snap-1";
    let run = |tail: &str| format!("ec2:RunInstances arn:aws:ec2:{HERE}:{tail}");
    assert_eq!(
        of(form("ec2", body)),
        [
            "ec2:RunInstances arn:aws:ec2:eu-west-1::image/ami-1".to_owned(),
            run("subnet/subnet-1"),
            run("security-group/sg-1"),
            run("security-group/sg-2"),
            run("network-interface/*"),
            run("instance/*"),
            run("volume/*"),
            run("key-pair/k"),
            run("launch-template/lt-1"),
            "ec2:RunInstances arn:aws:ec2:eu-west-1::snapshot/snap-1".to_owned(),
            format!("ec2:CreateTags arn:aws:ec2:{HERE}:instance/*"),
            "iam:PassRole arn:aws:iam::123456789012:instance-profile/admin".to_owned(),
        ]
    );
}

#[test]
fn roles_are_passed_by_arn_and_by_name() {
    let passes = |call| -> Vec<String> {
        let all = of(call);
        let mut roles: Vec<_> = all.iter().filter_map(|need| need.strip_prefix("iam:PassRole ")).collect();
        roles.sort_unstable(); // the document's order is the request's, or not: a feature of serde_json's
        roles.into_iter().map(str::to_owned).collect()
    };
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let ecs = |body: &str| json("ecs", "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition", body);
    let by_arn = format!(r#"{{"family":"f","taskRoleArn":"{}","executionRoleArn":"plain"}}"#, role("a"));
    assert_eq!(passes(ecs(&by_arn)), [role("a"), role("plain")]);
    assert_eq!(passes(ecs(r#"{"family":"f"}"#)), Vec::<String>::new());
    let run = r#"{"taskDefinition":"t","overrides":{"taskRoleArn":"deep"}}"#;
    assert_eq!(passes(json("ecs", "AmazonEC2ContainerServiceV20141113.RunTask", run)), [role("deep")]);
    let glue = json("glue", "AWSGlue.CreateJob", r#"{"Name":"j","Role":"service/by-name","Command":{}}"#);
    assert_eq!(passes(glue), [role("service/by-name")]);
    let stack = "Action=CreateStack&Version=2010-05-15&StackName=s&RoleARN=arn:aws:iam::123456789012:role/deployer";
    assert_eq!(passes(form("cloudformation", stack)), [role("deployer")]);
}

#[test]
fn layers_and_tags_on_creation_need_their_own_permission() {
    let layer = format!("arn:aws:lambda:{HERE}:layer:l:3");
    let body = format!(r#"{{"FunctionName":"f","Layers":["{layer}"],"Code":{{}}}}"#);
    let ask = Ask {
        method: "POST",
        host: "lambda.eu-west-1.amazonaws.com",
        target: "/2015-03-31/functions",
        fields: &[],
        body: body.as_bytes(),
        scope: "eu-west-1/lambda",
    };
    assert_eq!(
        needs(&ask),
        [format!("lambda:CreateFunction arn:aws:lambda:{HERE}:function:f"), format!("lambda:GetLayerVersion {layer}")]
    );
    let ecr = |body: &str| of(json("ecr", "AmazonEC2ContainerRegistry_V20150921.CreateRepository", body));
    let repository = format!("arn:aws:ecr:{HERE}:repository/r");
    let create = format!("ecr:CreateRepository {repository}");
    assert_eq!(ecr(r#"{"repositoryName":"r","tags":[]}"#), std::slice::from_ref(&create));
    let tagged = ecr(r#"{"repositoryName":"r","tags":[{"Key":"a","Value":"b"}]}"#);
    assert_eq!(tagged, [create, format!("ecr:TagResource {repository}")]);
}

#[test]
fn api_gateway_is_permitted_by_method_and_its_policies_by_themselves() {
    let gateway = |method: &'static str, target: &'static str, body: &'static str| {
        decode(&Ask {
            method,
            host: "apigateway.eu-west-1.amazonaws.com",
            target,
            fields: &[],
            body: body.as_bytes(),
            scope: "eu-west-1/apigateway",
        })
    };
    let patch = |path: &'static str| gateway("PATCH", "/restapis/abc", path);
    let arn = "arn:aws:apigateway:eu-west-1::/restapis/abc";
    let name = r#"{"patchOperations":[{"op":"replace","path":"/name","value":"n"}]}"#;
    assert_eq!(of(patch(name)), [format!("apigateway:PATCH {arn}")]);
    let policy = r#"{"patchOperations":[{"op":"replace","path":"/policy","value":"{}"}]}"#;
    assert_eq!(of(patch(policy)), [format!("apigateway:PATCH {arn}"), format!("apigateway:UpdateRestApiPolicy {arn}")]);
    assert_eq!(of(gateway("GET", "/v2/apis/abc", "")), ["apigateway:GET arn:aws:apigateway:eu-west-1::/v2/apis/abc"]);
}

#[test]
fn s3_expresss_actions_are_those_of_iam() {
    let all = Catalog::global().actions();
    let named: Vec<_> = all.keys().filter_map(|name| name.strip_prefix("s3express:")).collect();
    assert_eq!(named, crate::actions::EXPRESS);
}
