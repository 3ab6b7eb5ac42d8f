//! What a `forbid` names by its ARN is refused however a request names it, and what isn't said counts as anything.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use chaperone_model::{AccessLevel, Call, CgroupId, Session, SessionId};
use chaperone_policy::{ActionCatalog, CallFacts, Engine, PolicyVersion, Principal};
use time::OffsetDateTime;

use crate::{
    Catalog, DecodeError,
    decode_tests::{Ask, decode, form, json},
};

pub(crate) const HERE: &str = "eu-west-1:123456789012";

struct Iam(Arc<BTreeMap<String, AccessLevel>>);

impl ActionCatalog for Iam {
    fn level(&self, action: &str) -> Option<AccessLevel> {
        self.0.get(action).copied()
    }
    fn has_prefix(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.split_once(':').is_some_and(|(of, _)| of == prefix))
    }
    fn actions(&self) -> Vec<(String, AccessLevel)> {
        self.0.as_ref().clone().into_iter().collect()
    }
}

/// Policies that calls are put to.
pub(crate) struct Asked {
    engine: Engine,
    principal: Principal,
}

impl Asked {
    pub fn new(policies: &str) -> Self {
        static ACTIONS: LazyLock<Arc<BTreeMap<String, AccessLevel>>> =
            LazyLock::new(|| Arc::new(Catalog::global().actions()));
        let files = [(PathBuf::from("test.cedar"), policies.to_owned())];
        let engine = Engine::new(PolicyVersion::parse(&files, &Iam(ACTIONS.clone())).unwrap());
        let session = Session {
            id: SessionId::new(),
            agent: "coder".into(),
            groups: Vec::new(),
            cgroup: CgroupId(1),
            cgroup_path: "/agents/coder".into(),
            container: None,
            parent: None,
            started: OffsetDateTime::UNIX_EPOCH,
        };
        let principal = engine.principal(&session);
        Self { engine, principal }
    }

    pub fn allows(&self, call: &Call) -> bool {
        let facts =
            CallFacts { method: "POST", host: "h", path: "/", session: "s", exe: "/bin/aws", ..CallFacts::default() };
        self.engine.decide(&self.principal, call, facts).is_allowed()
    }
}

fn allows(policies: &str, call: &Call) -> bool {
    Asked::new(policies).allows(call)
}

/// Whether everything is permitted to it but what is on this resource.
pub(crate) fn passes(forbidden: &str, call: Result<Call, DecodeError>) -> bool {
    let Ok(call) = call else { return false };
    let condition = if forbidden.contains('*') {
        format!("resource) when {{ resource.arn like \"{forbidden}\" }};")
    } else {
        format!("resource == Resource::\"{forbidden}\");")
    };
    allows(&format!("permit (principal, action, resource); forbid (principal, action, {condition}"), &call)
}

fn rest(method: &str, service: &str, target: &str, body: &str) -> Result<Call, DecodeError> {
    let host = format!("{service}.eu-west-1.amazonaws.com");
    let scope = format!("eu-west-1/{service}");
    decode(&Ask { method, host: &host, target, fields: &[], body: body.as_bytes(), scope: &scope })
}

fn rds(body: &str) -> Result<Call, DecodeError> {
    form("rds", &format!("Version=2014-10-31&Action={body}"))
}

fn ec2(body: &str) -> Result<Call, DecodeError> {
    form("ec2", &format!("Version=2016-11-15&Action={body}"))
}

#[test]
fn a_forbidden_resource_is_refused_by_whatever_name() {
    let ssm = |operation: &str, body: &str| json("ssm", &format!("AmazonSSM.{operation}"), body);
    let parameter = format!("arn:aws:ssm:{HERE}:parameter/prod/db");
    for (operation, body) in [
        ("GetParameter", r#"{"Name":"/prod/db"}"#),
        ("GetParameter", r#"{"Name":"prod/db"}"#),
        ("GetParameter", r#"{"Name":"/prod/db:3"}"#),
        ("GetParameter", r#"{"Name":"/prod/db:live"}"#),
        ("GetParameters", r#"{"Names":["/dev","/prod/db"]}"#),
        ("GetParameterHistory", r#"{"Name":"/prod/db"}"#),
        ("GetParametersByPath", r#"{"Path":"/prod"}"#),
        ("GetParametersByPath", r#"{"Path":"/","Recursive":true}"#),
        ("DeleteParameter", r#"{"Name":"/prod/db"}"#),
        ("DeleteParameters", r#"{"Names":["/prod/db"]}"#),
        ("PutParameter", r#"{"Name":"/prod/db","Value":"x"}"#),
    ] {
        assert!(!passes(&parameter, ssm(operation, body)), "{operation} {body}");
    }
    let by_arn = format!(r#"{{"Name":"{parameter}"}}"#);
    assert!(!passes(&parameter, ssm("GetParameter", &by_arn)));
    assert!(passes(&parameter, ssm("GetParameter", r#"{"Name":"/dev/db"}"#)));
    assert!(passes(&parameter, ssm("GetParametersByPath", r#"{"Path":"/dev"}"#)));

    let function = format!("arn:aws:lambda:{HERE}:function:prod");
    for name in [
        "prod",
        "prod:live",
        "function:prod",
        "123456789012:prod",
        "123456789012:function:prod:1",
        "eu-west-1:123456789012:function:prod",
        "arn:aws:lambda:eu-west-1:123456789012:function:prod",
        "arn:aws:lambda:eu-west-1:123456789012:function:prod:1",
    ] {
        let name = name.replace(':', "%3A");
        let invoke = rest("POST", "lambda", &format!("/2015-03-31/functions/{name}/invocations"), "{}");
        assert!(!passes(&function, invoke), "{name}");
    }
    let qualified = rest("POST", "lambda", "/2015-03-31/functions/prod/invocations?Qualifier=live", "{}");
    assert!(!passes(&format!("{function}:live"), qualified.clone()));
    assert!(!passes(&function, qualified));
    assert!(passes(&function, rest("POST", "lambda", "/2015-03-31/functions/dev/invocations", "{}")));

    let secret = format!("arn:aws:secretsmanager:{HERE}:secret:prod-AbCdEf");
    let secrets = |operation: &str, body: &str| json("secretsmanager", &format!("secretsmanager.{operation}"), body);
    for (operation, body) in [
        ("GetSecretValue", r#"{"SecretId":"prod"}"#.to_owned()),
        ("GetSecretValue", format!(r#"{{"SecretId":"{secret}"}}"#)),
        ("BatchGetSecretValue", r#"{"SecretIdList":["dev","prod"]}"#.to_owned()),
        ("BatchGetSecretValue", r#"{"Filters":[{"Key":"name","Values":["prod"]}]}"#.to_owned()),
        ("DeleteSecret", r#"{"SecretId":"prod"}"#.to_owned()),
    ] {
        assert!(!passes(&secret, secrets(operation, &body)), "{operation} {body}");
    }
    let plain = format!("arn:aws:secretsmanager:{HERE}:secret:prod");
    assert!(!passes(&plain, secrets("GetSecretValue", &format!(r#"{{"SecretId":"{secret}"}}"#))));
    assert!(passes(&secret, secrets("GetSecretValue", r#"{"SecretId":"dev"}"#)));

    let key = format!("arn:aws:kms:{HERE}:key/1234");
    let kms = |operation: &str, body: &str| json("kms", &format!("TrentService.{operation}"), body);
    for body in [
        r#"{"KeyId":"1234"}"#,
        r#"{"KeyId":"alias/app"}"#,
        r#"{"KeyId":"arn:aws:kms:eu-west-1:123456789012:alias/app"}"#,
    ] {
        assert!(!passes(&key, kms("DisableKey", body)), "{body}");
    }
    assert!(!passes(&key, kms("Decrypt", r#"{"CiphertextBlob":"AAAA"}"#)), "the ciphertext names the key");
    assert!(!passes(&key, kms("CreateAlias", r#"{"AliasName":"alias/a","TargetKeyId":"1234"}"#)));
    assert!(!passes(&format!("arn:aws:kms:{HERE}:alias/prod"), kms("DisableKey", r#"{"KeyId":"5678"}"#)));
    assert!(passes(&key, kms("DisableKey", r#"{"KeyId":"5678"}"#)));
}

#[test]
fn names_that_the_templates_lacked_are_found() {
    for body in [
        "DeleteDBInstance&DBInstanceIdentifier=prod",
        "DeleteDBInstance&DBInstanceIdentifier=PROD",
        "RebootDBInstance&DBInstanceIdentifier=prod",
        "ModifyDBInstance&DBInstanceIdentifier=prod",
        "CreateDBInstanceReadReplica&DBInstanceIdentifier=new&SourceDBInstanceIdentifier=prod",
        "CreateDBSnapshot&DBSnapshotIdentifier=s&DBInstanceIdentifier=prod",
        "RestoreDBInstanceToPointInTime&TargetDBInstanceIdentifier=x&SourceDBInstanceIdentifier=prod",
    ] {
        assert!(!passes("*:db:prod*", rds(body)), "{body}");
    }
    assert!(passes("*:db:prod*", rds("DeleteDBInstance&DBInstanceIdentifier=dev")));
    assert!(!passes("*prod*", rds("CopyDBSnapshot&SourceDBSnapshotIdentifier=prod&TargetDBSnapshotIdentifier=x")));

    let group = format!("arn:aws:ec2:{HERE}:security-group/sg-prod");
    assert!(!passes(&group, ec2("AuthorizeSecurityGroupIngress&GroupId=sg-prod")));
    assert!(!passes(&group, ec2("AuthorizeSecurityGroupIngress&GroupName=production")), "by a name it could be any");
    assert!(passes(&group, ec2("AuthorizeSecurityGroupIngress&GroupId=sg-dev")));

    let instance = format!("arn:aws:ec2:{HERE}:instance/i-prod");
    assert!(!passes(&instance, ec2("TerminateInstances&InstanceId.1=i-dev&InstanceId.2=i-prod")));
    assert!(!passes(&instance, ec2("TerminateInstances&InstanceId.1=*")));
    assert!(!passes(&instance, ec2("TerminateInstances&InstanceId.1=i-pro?")));
    assert!(!passes(&instance, ec2("TerminateInstances")));
    assert!(passes(&instance, ec2("TerminateInstances&InstanceId.1=i-dev")));
    assert!(!passes(&instance, ec2("CreateTags&ResourceId.1=i-prod&Tag.1.Key=a&Tag.1.Value=b")));
    assert!(passes(&instance, ec2("CreateTags&ResourceId.1=i-dev&ResourceId.2=vol-1&Tag.1.Key=a&Tag.1.Value=b")));
    assert!(!passes(&instance, ec2("CreateTags&ResourceId.1=thing-1&Tag.1.Key=a&Tag.1.Value=b")));
    assert!(!passes(&instance, ec2("DisassociateIamInstanceProfile&AssociationId=iip-assoc-1")));
}

#[test]
fn what_is_selected_could_be_anything_of_its_type() {
    let ssm = |operation: &str, body: &str| json("ssm", &format!("AmazonSSM.{operation}"), body);
    let instance = format!("arn:aws:ec2:{HERE}:instance/i-prod");
    let send = |more: &str| ssm("SendCommand", &format!(r#"{{"DocumentName":"AWS-RunShellScript",{more}}}"#));
    assert!(!passes(&instance, send(r#""Targets":[{"Key":"tag:env","Values":["prod"]}]"#)));
    assert!(!passes(
        &instance,
        send(r#""InstanceIds":["i-dev"],"Targets":[{"Key":"InstanceIds","Values":["i-prod"]}]"#)
    ));
    assert!(!passes(&instance, send(r#""InstanceIds":["i-prod"]"#)));
    assert!(passes(&instance, send(r#""InstanceIds":["i-dev"]"#)));
    // Which document it is is known all the same.
    let document = format!("arn:aws:ssm:{HERE}:document/Wipe");
    assert!(passes(&document, send(r#""Targets":[{"Key":"tag:env","Values":["prod"]}]"#)));
    assert!(!passes(
        &instance,
        ssm("StartSession", r#"{"Target":"i-prod","DocumentName":"AWS-StartPortForwardingSession"}"#)
    ));
    assert!(passes(&instance, ssm("StartSession", r#"{"Target":"i-dev"}"#)));
}

#[test]
fn what_is_made_is_nothing_that_there_is() {
    let made = ec2("CreateVpc&CidrBlock=10.0.0.0/16");
    assert!(passes(&format!("arn:aws:ec2:{HERE}:vpc/vpc-prod"), made.clone()));
    let permit = |text: &str| allows(text, made.as_ref().unwrap());
    assert!(permit(r#"permit (principal, action == Action::"ec2:CreateVpc", resource);"#));
    assert!(permit(r#"permit (principal, action, resource) when { resource.arn like "arn:aws:ec2:*:vpc/*" };"#));
    assert!(!permit(&format!("permit (principal, action, resource == Resource::\"arn:aws:ec2:{HERE}:vpc/vpc-1\");")));
}

#[test]
fn names_that_aws_adds_to_are_known_in_part() {
    let stack = format!("arn:aws:cloudformation:{HERE}:stack/prod/0a1b");
    let delete =
        |name: &str| form("cloudformation", &format!("Version=2010-05-15&Action=DeleteStack&StackName={name}"));
    assert!(!passes(&stack, delete("prod")));
    assert!(!passes(&stack, delete(&stack)));
    assert!(passes(&stack, delete("dev")));
    assert!(passes(&stack, delete(&stack.replace("prod", "dev"))));
    let by_name = r#"permit (principal, action, resource) when { resource.arn like "*:stack/dev/*" };"#;
    assert!(allows(by_name, &delete("dev").unwrap()));
    assert!(!allows(by_name, &delete("prod").unwrap()));
    // A slash in a name can't make it another stack.
    assert!(!passes(&stack, delete("dev/../prod")));
}

#[test]
fn accounts_and_arns_are_collected_from_everywhere() {
    let ecr = json(
        "ecr",
        "AmazonEC2ContainerRegistry_V20150921.DescribeImages",
        r#"{"registryId":"210987654321","repositoryName":"r"}"#,
    )
    .unwrap();
    assert_eq!(ecr.references.accounts, ["210987654321"]);
    assert_eq!(ecr.resources, ["arn:aws:ecr:eu-west-1:210987654321:repository/r"]);
    let glue = json("glue", "AWSGlue.GetDatabase", r#"{"CatalogId":"210987654321","Name":"d"}"#).unwrap();
    assert_eq!(glue.references.accounts, ["210987654321"]);
    let grant = json(
        "kms",
        "TrentService.CreateGrant",
        r#"{"KeyId":"k","Operations":[],"GranteePrincipal":"arn:aws:iam::210987654321:role/r"}"#,
    )
    .unwrap();
    assert_eq!(
        (&grant.references.arns[..], &grant.references.accounts[..]),
        (&["arn:aws:iam::210987654321:role/r".to_owned()][..], &["210987654321".to_owned()][..])
    );
}

#[test]
fn what_policies_name_is_found_however_much_comes_before_it() {
    let policy = r#"permit (principal, action, resource); forbid (principal, action, resource) when {
        context.parameters.hasTag("Item.classified.S") || (context.parameters.hasTag("Item.level.N")
            && context.parameters.getTag("Item.level.N").contains("7")) };"#;
    let asked = Asked::new(policy);
    let padded = |last: &str| {
        let many: String = (0..4300).map(|i| format!(r#""a{i}":{{"S":"x"}},"#)).collect();
        format!(r#"{{"TableName":"t","Item":{{{many}{last}}}}}"#)
    };
    let put = |last: &str| -> Call {
        let body = padded(last);
        let fields = [("x-amz-target", "DynamoDB_20120810.PutItem")];
        let host = "dynamodb.eu-west-1.amazonaws.com";
        let ask = Ask {
            method: "POST",
            host,
            target: "/",
            fields: &fields,
            body: body.as_bytes(),
            scope: "eu-west-1/dynamodb",
        };
        let mut call = decode(&ask).unwrap();
        assert!(!asked.allows(&call), "not known whole");
        let (catalog, parts) = (Catalog::global(), crate::decode_tests::parts(&ask));
        let found = catalog.host(host).unwrap();
        catalog.look_up(&mut call, &found, &parts, Some(body.as_bytes()), asked.engine.parameter_paths());
        call
    };
    assert!(!asked.allows(&put(r#""classified":{"S":"yes"}"#)));
    assert!(!asked.allows(&put(r#""level":{"N":"7"}"#)));
    assert!(asked.allows(&put(r#""level":{"N":"6"}"#)));
    assert!(asked.allows(&put(r#""open":{"S":"yes"}"#)));
    // A member twice, of which only one can count; and more than is kept of what is looked for.
    assert!(!asked.allows(&put(r#""level":{"N":"6","N":"6"}"#)));
    let many = format!(r#""level":{{"N":[{}"1"]}}"#, r#""1","#.repeat(40_000));
    assert!(!asked.allows(&put(&many)));
    // ARNs and accounts are found there as well.
    let named = put(r#""owner":{"S":"210987654321"},"arn":{"S":"arn:aws:s3:::b"}"#);
    assert_eq!(named.references.arns, ["arn:aws:s3:::b"]);
    assert!(named.looked_up.is_some() && !named.is_input_incomplete());
}

#[test]
fn a_bucket_behind_an_access_point_could_be_any() {
    let s3 = |host: &str, method: &str, fields: &[(&str, &str)]| {
        decode(&Ask { method, host, target: "/k", fields, body: b"", scope: "eu-west-1/s3" })
    };
    let bucket = "arn:aws:s3:::prod/*";
    let point = "ap-123456789012.s3-accesspoint.eu-west-1.amazonaws.com";
    let alias = "ap-abcdef-s3alias.s3.eu-west-1.amazonaws.com";
    assert!(!passes(bucket, s3(point, "GET", &[])));
    assert!(!passes(bucket, s3(alias, "GET", &[])));
    assert!(!passes("arn:aws:s3:eu-west-1:123456789012:accesspoint/ap/*", s3(alias, "GET", &[])));
    assert!(passes(bucket, s3("dev.s3.eu-west-1.amazonaws.com", "GET", &[])));
    // Who permits an access point permits it.
    let permit = r#"permit (principal, action, resource) when { resource.arn like "*:accesspoint/ap/object/*" };"#;
    assert!(allows(permit, &s3(point, "GET", &[]).unwrap()));
    for source in [
        "/prod/k",
        "prod/k",
        "/prod/a%2Fb",
        "arn:aws:s3:eu-west-1:123456789012:accesspoint/x/object/k",
        "arn%3Aaws%3As3%3Aeu-west-1%3A123456789012%3Aaccesspoint/x/object/k",
        "/prod/k?versionId=1",
    ] {
        let copy = s3("dev.s3.eu-west-1.amazonaws.com", "PUT", &[("x-amz-copy-source", source)]);
        assert!(copy.is_ok() && !passes(bucket, copy), "{source}");
    }
    for source in [
        "/dev%2Fk/prod/k",
        "prod%2Fk",
        "/dev/k?versionId=1?x",
        "/dev/k?versionId=1&x=y",
        "/dev/k?x=y",
        "/dev/k#a",
        "dev",
        "/prod:x/k",
        "arn:aws:s3:::prod",
        "/",
        "",
    ] {
        let copy = s3("dev.s3.eu-west-1.amazonaws.com", "PUT", &[("x-amz-copy-source", source)]);
        assert!(copy.is_err(), "{source}: {copy:?}");
    }
}

#[test]
fn a_secret_is_one_by_every_road() {
    let ssm = |body: &str| json("ssm", "AmazonSSM.GetParameter", body);
    let secret = format!("arn:aws:secretsmanager:{HERE}:secret:prod-AbCdEf");
    for name in [
        "/aws/reference/secretsmanager/prod",
        "aws/reference/secretsmanager/prod",
        "arn:aws:ssm:eu-west-1:123456789012:parameter/aws/reference/secretsmanager/prod",
    ] {
        let call = ssm(&format!(r#"{{"Name":"{name}"}}"#));
        assert!(
            call.as_ref().unwrap().actions.iter().any(|action| action.name == "secretsmanager:GetSecretValue"),
            "{name}"
        );
        assert!(!passes(&secret, call), "{name}");
    }
    // `secret` has six letters, as what Secrets Manager adds to a name has.
    let full = format!("arn:aws:secretsmanager:{HERE}:secret:my-secret-AbCdEf");
    let partial = format!(r#"{{"SecretId":"arn:aws:secretsmanager:{HERE}:secret:my-secret"}}"#);
    assert!(!passes(&full, json("secretsmanager", "secretsmanager.GetSecretValue", &partial)));
}

#[test]
fn a_role_by_its_name_may_be_below_a_path() {
    let create = json("glue", "AWSGlue.CreateJob", r#"{"Name":"j","Role":"admin","Command":{}}"#);
    assert!(!passes("arn:aws:iam::123456789012:role/team/admin", create.clone()));
    assert!(passes("arn:aws:iam::123456789012:role/team/other", create));
}

#[test]
fn an_account_that_is_not_known_could_be_any() {
    let ask = Ask {
        method: "POST",
        host: "rds.eu-west-1.amazonaws.com",
        target: "/",
        fields: &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
        body: b"Version=2014-10-31&Action=DeleteDBInstance&DBInstanceIdentifier=prod",
        scope: "eu-west-1/rds",
    };
    let parts = crate::decode_tests::parts(&ask);
    let catalog = Catalog::global();
    let host = catalog.host(ask.host).unwrap();
    let call = catalog.decode(&host, &parts, Some(ask.body), &crate::RequestAuth::of(&parts), None);
    assert!(!passes(&format!("arn:aws:rds:{HERE}:db:prod"), call.clone()));
    assert!(passes(&format!("arn:aws:rds:{HERE}:db:dev"), call));
}

#[test]
fn another_account_in_the_input_is_looked_at() {
    let budget = |account: &str| {
        let body = format!(r#"{{"AccountId":"{account}","BudgetName":"b"}}"#);
        json("budgets", "AWSBudgetServiceGateway.DescribeBudget", &body)
    };
    let other = "arn:aws:budgets::999999999999:budget/b";
    assert!(!passes(other, budget("999999999999")));
    assert!(passes(other, budget("123456789012")));
    assert!(passes("arn:aws:budgets::999999999999:budget/c", budget("999999999999")));
}

#[test]
fn the_end_of_an_arn_in_a_names_place_is_not_another_name() {
    let grafana = format!("arn:aws:grafana:{HERE}:/workspaces/g-1");
    assert!(!passes(&grafana, rest("DELETE", "grafana", "/workspaces/%2Fworkspaces%2Fg-1", "")));
    assert!(!passes(&grafana, rest("DELETE", "grafana", "/workspaces/g-1", "")));
    assert!(passes(&grafana, rest("DELETE", "grafana", "/workspaces/g-2", "")));
    let stage = format!("arn:aws:codepipeline:{HERE}:release/approve");
    let disable = |stage: &str| {
        let body = format!(
            r#"{{"pipelineName":"release","stageName":"{stage}","transitionType":"Inbound","reason":"because"}}"#
        );
        json("codepipeline", "CodePipeline_20150709.DisableStageTransition", &body)
    };
    for (name, passed) in [("approve", false), ("release/approve", false), ("Release/approve", false), ("build", true)]
    {
        assert_eq!(passes(&stage, disable(name)), passed, "{name}");
    }
    // A stream of logs may begin with a word of its group's name.
    let stream = |name: &str| {
        let body = format!(r#"{{"logGroupName":"/ecs/app","logStreamName":"{name}","logEvents":[]}}"#);
        json("logs", "Logs_20140328.PutLogEvents", &body)
    };
    assert!(passes(&format!("arn:aws:logs:{HERE}:log-group:/ecs/app:log-stream:app/web/2"), stream("app/web/1")));
    assert!(!passes(&format!("arn:aws:logs:{HERE}:log-group:/ecs/app:log-stream:app/web/1"), stream("app/web/1")));
}

#[test]
fn what_another_member_of_the_same_type_names_is_found() {
    let address = format!("arn:aws:ec2:{HERE}:elastic-ip/eipalloc-prod");
    for member in ["AllocationId", "SecondaryAllocationId.1", "AvailabilityZoneAddress.1.AllocationId.1"] {
        let call = |id: &str| ec2(&format!("CreateNatGateway&SubnetId=subnet-1&{member}={id}"));
        assert!(!passes(&address, call("eipalloc-prod")), "{member}");
        assert!(passes(&address, call("eipalloc-dev")), "{member}");
    }
    let saved = format!("arn:aws:elasticbeanstalk:{HERE}:configurationtemplate/shop/prod");
    let copy = |name: &str| {
        let body = format!(
            "Action=CreateConfigurationTemplate&Version=2010-12-01&ApplicationName=mine&TemplateName=copy\
             &SourceConfiguration.ApplicationName=shop&SourceConfiguration.TemplateName={name}"
        );
        form("elasticbeanstalk", &body)
    };
    assert!(!passes(&saved, copy("prod")));
    assert!(passes(&saved, copy("dev")));
}

#[test]
fn what_iam_has_no_permission_for_counts_for_a_forbid() {
    let copy = |id: &str| ec2(&format!("CopyImage&Name=n&SourceRegion=eu-west-1&SourceImageId={id}"));
    let image = "arn:aws:ec2:eu-west-1::image/ami-prod";
    assert!(!passes(image, copy("ami-prod")));
    assert!(passes(image, copy("ami-dev")));
    let domain = format!("arn:aws:datazone:{HERE}:domain/dzd_1");
    assert!(!passes(&domain, rest("GET", "datazone", "/v2/domains/dzd_1/environment-blueprints/b-1", "")));
    // And no permission has to name it.
    let call = copy("ami-dev").unwrap();
    assert!(call.resources.iter().all(|resource| !resource.contains("ami-dev")), "{:?}", call.resources);
}

#[test]
fn another_region_in_the_input_is_looked_at() {
    let copy = |region: &str| ec2(&format!("CopySnapshot&SourceSnapshotId=snap-1&SourceRegion={region}"));
    let there = "arn:aws:ec2:us-east-1::snapshot/snap-1";
    assert!(!passes(there, copy("us-east-1")));
    assert!(!passes(there, copy("us-east-1%20")));
    assert!(passes(there, copy("us-west-2")));
    assert!(passes(there, copy("eu-west-1")));
}

/// Whether nothing but this is permitted to it.
pub(crate) fn is_enough(permitted: &str, call: Result<Call, DecodeError>) -> bool {
    allows(&format!("permit (principal, action, resource == Resource::\"{permitted}\");"), &call.unwrap())
}

#[test]
fn what_belongs_to_something_named_by_an_arn_is_named() {
    let service = "AmazonEC2ContainerServiceV20141113.DeleteService";
    let named = |cluster: &str| json("ecs", service, &format!("{{\"service\":\"prod\",\"cluster\":\"{cluster}\"}}"));
    let prod = format!("arn:aws:ecs:{HERE}:service/c/prod");
    for cluster in ["c", &format!("arn:aws:ecs:{HERE}:cluster/c")] {
        assert!(!passes(&prod, named(cluster)), "{cluster}");
        assert!(is_enough(&prod, named(cluster)), "{cluster}");
    }
    // Another account's cluster has its services there.
    let theirs = "arn:aws:ecs:eu-west-1:999999999999:cluster/c";
    assert!(!passes("arn:aws:ecs:eu-west-1:999999999999:service/c/prod", named(theirs)));
    assert!(passes(&prod, named(theirs)));
    // Who names a service in the cluster's place may get either.
    assert!(!passes(&prod, named(&format!("arn:aws:ecs:{HERE}:service/c/other"))));

    let layer = format!("arn%3Aaws%3Alambda%3A{}%3Alayer%3Al", HERE.replace(':', "%3A"));
    let version = || rest("GET", "lambda", &format!("/2018-10-31/layers/{layer}/versions/3"), "");
    assert!(!passes(&format!("arn:aws:lambda:{HERE}:layer:l:3"), version()));
    let qualified = format!("arn%3Aaws%3Alambda%3A{}%3Afunction%3Aprod", HERE.replace(':', "%3A"));
    let live = || rest("GET", "lambda", &format!("/2015-03-31/functions/{qualified}?Qualifier=LIVE"), "");
    assert!(!passes(&format!("arn:aws:lambda:{HERE}:function:prod:LIVE"), live()));
    assert!(!passes(&format!("arn:aws:lambda:{HERE}:function:prod"), live()));
}

#[test]
fn rules_are_on_the_bus_that_is_named() {
    let rule = |operation: &str, body: &str| json("events", &format!("AWSEvents.{operation}"), body);
    let on = |bus: &str| format!("{{\"Name\":\"prod\",\"EventBusName\":\"{bus}\"}}");
    let plain = format!("arn:aws:events:{HERE}:rule/prod");
    let below = format!("arn:aws:events:{HERE}:rule/bus/prod");
    assert!(is_enough(&plain, rule("DeleteRule", "{\"Name\":\"prod\"}")));
    assert!(is_enough(&plain, rule("DeleteRule", &on("default"))));
    for bus in ["bus", &format!("arn:aws:events:{HERE}:event-bus/bus")] {
        assert!(is_enough(&below, rule("DisableRule", &on(bus))), "{bus}");
        assert!(!passes(&below, rule("DisableRule", &on(bus))), "{bus}");
        // A rule of the bus's name on the default bus is another.
        assert!(!is_enough(&format!("arn:aws:events:{HERE}:rule/bus"), rule("DisableRule", &on(bus))), "{bus}");
    }
    assert!(!passes(&below, rule("PutTargets", "{\"Rule\":\"prod\",\"EventBusName\":\"bus\",\"Targets\":[]}")));
}

#[test]
fn models_are_told_apart_by_their_ids() {
    let call = |model: &str| {
        let model = model.replace(':', "%3A").replace('/', "%2F");
        decode(&Ask {
            method: "POST",
            host: "bedrock-runtime.eu-west-1.amazonaws.com",
            target: &format!("/model/{model}/converse"),
            fields: &[("content-type", "application/json")],
            body: b"{\"messages\":[]}",
            scope: "eu-west-1/bedrock",
        })
    };
    let claude = "anthropic.claude-3-haiku-20240307-v1:0";
    let foundation = format!("arn:aws:bedrock:eu-west-1::foundation-model/{claude}");
    assert!(is_enough(&foundation, call(claude)));
    assert!(!passes(&foundation, call(claude)));
    let profile = format!("arn:aws:bedrock:{HERE}:inference-profile/eu.{claude}");
    for named in [&format!("eu.{claude}"), &profile] {
        assert!(is_enough(&profile, call(named)), "{named}");
        // The model behind it is forbidden wherever it runs.
        assert!(!passes(&format!("arn:aws:bedrock:eu-north-1::foundation-model/{claude}"), call(named)), "{named}");
        assert!(passes("arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-lite-v1:0", call(named)), "{named}");
    }
    let application = format!("arn:aws:bedrock:{HERE}:application-inference-profile/abcdefghijkl");
    assert!(is_enough(&application, call(&application)));
    assert!(!passes(&foundation, call(&application)));
    // A provisioned model by its name, and what may be either.
    assert!(!passes(&format!("arn:aws:bedrock:{HERE}:provisioned-model/abcdefghijkl"), call("my-model")));
    for either in ["inference-profile/new.lab.model-2", "foundation-model/new.lab.model-2"] {
        let account = if either.starts_with("inf") { HERE } else { "eu-west-1:" };
        assert!(!passes(&format!("arn:aws:bedrock:{account}:{either}"), call("new.lab.model-2")), "{either}");
    }
}

#[test]
fn ids_tell_of_what_type_a_resource_is() {
    let session = |target: &str| json("ssm", "AmazonSSM.StartSession", &format!("{{\"Target\":\"{target}\"}}"));
    assert!(is_enough(&format!("arn:aws:ec2:{HERE}:instance/i-0abc"), session("i-0abc")));
    assert!(is_enough(&format!("arn:aws:ssm:{HERE}:managed-instance/mi-0abc"), session("mi-0abc")));
    assert!(!passes(&format!("arn:aws:ec2:{HERE}:instance/i-0abc"), session("i-0abc")));
    // What no form tells is of any type.
    for any in [format!("arn:aws:ec2:{HERE}:instance/web"), format!("arn:aws:ssm:{HERE}:managed-instance/web")] {
        assert!(!passes(&any, session("web")), "{any}");
    }
    assert!(!passes(&format!("arn:aws:ecs:{HERE}:task/c/0123"), session("ecs:c_0123_0123-1")));

    // What is made for what is named is touched, too.
    let logs = "Version=2016-11-15&Action=CreateFlowLogs&ResourceId.1=vpc-0abc&ResourceType=VPC&TrafficType=ALL";
    for touched in ["vpc/vpc-0abc", "vpc-flow-log/*"] {
        assert!(!passes(&format!("arn:aws:ec2:{HERE}:{touched}"), form("ec2", logs)), "{touched}");
    }
    assert!(passes(&format!("arn:aws:ec2:{HERE}:subnet/vpc-0abc"), form("ec2", logs)));
    let endpoint = "Version=2016-11-15&Action=CreateVpcEndpoint&VpcId=vpc-0abc&ServiceName=s";
    for touched in ["vpc/vpc-0abc", "vpc-endpoint/*"] {
        assert!(!passes(&format!("arn:aws:ec2:{HERE}:{touched}"), form("ec2", endpoint)), "{touched}");
    }

    let attach = |id: &str| {
        json(
            "organizations",
            "AWSOrganizationsV20161128.AttachPolicy",
            &format!("{{\"PolicyId\":\"{id}\",\"TargetId\":\"999999999999\"}}"),
        )
    };
    let policy = "arn:aws:organizations::123456789012:policy/o-abc/service_control_policy/p-12345678";
    assert!(!passes(policy, attach("p-12345678")));
}

#[test]
fn what_is_made_has_the_name_that_the_request_says() {
    let table = |body: &str| json("glue", "AWSGlue.CreateTable", body);
    let t = format!("arn:aws:glue:{HERE}:table/prod/t");
    assert!(!passes(&t, table("{\"DatabaseName\":\"prod\",\"TableInput\":{\"Name\":\"t\"}}")));
    assert!(!passes(&t, table("{\"DatabaseName\":\"prod\",\"Name\":\"t\",\"OpenTableFormatInput\":{}}")));
    let task = "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition";
    let task = json("ecs", task, "{\"family\":\"prod\",\"containerDefinitions\":[]}");
    assert!(!passes(&format!("arn:aws:ecs:{HERE}:task-definition/prod:*"), task));
    let user = |path: &str| form("iam", &format!("Version=2010-05-08&Action=CreateUser&UserName=u&Path={path}"));
    assert!(is_enough("arn:aws:iam::123456789012:user/dev/u", user("%2Fdev%2F")));
    for u in ["arn:aws:iam::123456789012:user/dev/u", "arn:aws:iam::123456789012:user/u"] {
        assert!(!passes(u, user("%2Fdev%2F")), "{u}");
    }
    // What the request leaves to AWS could be anything.
    let point = "Version=2014-10-31&Action=RestoreDBInstanceToPointInTime&SourceDBInstanceIdentifier=prod";
    let point = form("rds", &format!("{point}&TargetDBInstanceIdentifier=copy&DBName=x"));
    assert!(!passes(&format!("arn:aws:rds:{HERE}:db:prod"), point));
}

#[test]
fn a_log_group_is_named_by_either_member() {
    let events = |member: &str, value: &str| {
        json("logs", "Logs_20140328.FilterLogEvents", &format!("{{\"{member}\":\"{value}\"}}"))
    };
    let group = format!("arn:aws:logs:{HERE}:log-group:prod");
    for (member, value) in
        [("logGroupName", "prod"), ("logGroupIdentifier", "prod"), ("logGroupIdentifier", group.as_str())]
    {
        assert!(is_enough(&group, events(member, value)), "{member} {value}");
        assert!(!passes(&group, events(member, value)), "{member} {value}");
    }
}

#[test]
fn a_role_that_overrides_a_builds_is_passed() {
    let build = "{\"projectName\":\"p\",\"serviceRoleOverride\":\"arn:aws:iam::123456789012:role/admin\"}";
    for operation in ["StartBuild", "StartBuildBatch"] {
        let call = json("codebuild", &format!("CodeBuild_20161006.{operation}"), build);
        assert!(!passes("arn:aws:iam::123456789012:role/admin", call), "{operation}");
    }
}
