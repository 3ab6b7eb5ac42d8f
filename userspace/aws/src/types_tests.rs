//! Resources of several types that one member can name: what tells the type, a member or the id's form, leaves only that
//! one. And words of the API that ARNs have otherwise.

use chaperone_model::Call;

use crate::{
    DecodeError,
    decode_tests::{Ask, decode, form, json},
    resources_tests::{HERE, is_enough, passes},
};

fn at(host: &str, service: &str, target: &str, body: &str) -> Result<Call, DecodeError> {
    let fields = [("x-amz-target", target), ("content-type", "application/x-amz-json-1.1")];
    let scope = format!("eu-west-1/{service}");
    decode(&Ask { method: "POST", host, target: "/", fields: &fields, body: body.as_bytes(), scope: &scope })
}

#[test]
fn a_member_tells_the_type_of_what_is_tagged() {
    let tag = |kind: &str, id: &str| {
        let body = format!("{{\"ResourceType\":\"{kind}\",\"ResourceId\":\"{id}\",\"TagKeys\":[\"k\"]}}");
        json("ssm", "AmazonSSM.RemoveTagsFromResource", &body)
    };
    let arn = |of: &str| format!("arn:aws:ssm:{HERE}:{of}");
    for (kind, id, of) in [
        ("Parameter", "prod", "parameter/prod"),
        ("Parameter", "/prod/db", "parameter/prod/db"),
        ("Document", "prod", "document/prod"),
        ("MaintenanceWindow", "mw-0123", "maintenancewindow/mw-0123"),
        ("PatchBaseline", "pb-0123", "patchbaseline/pb-0123"),
        ("ManagedInstance", "mi-0123", "managed-instance/mi-0123"),
    ] {
        assert!(is_enough(&arn(of), tag(kind, id)), "{kind} {id}");
        assert!(!passes(&arn(of), tag(kind, id)), "{kind} {id}");
        assert!(passes(&arn("opsitem/prod"), tag(kind, id)), "{kind} {id}");
    }
    // What isn't known could be of any type.
    for kind in ["parameter", "Parameter ", "SomethingNew", ""] {
        assert!(!passes(&arn("parameter/prod"), tag(kind, "prod")), "{kind}");
    }
    assert!(!passes(
        &arn("parameter/prod"),
        json("ssm", "AmazonSSM.RemoveTagsFromResource", "{\"ResourceId\":\"prod\"}")
    ));
}

#[test]
fn a_member_tells_the_type_of_a_rule_group() {
    let delete = |members: &str| json("network-firewall", "NetworkFirewall_20201112.DeleteRuleGroup", members);
    let arn = |of: &str| format!("arn:aws:network-firewall:{HERE}:{of}");
    let stateful = delete("{\"RuleGroupName\":\"prod\",\"Type\":\"STATEFUL\"}");
    assert!(is_enough(&arn("stateful-rulegroup/prod"), stateful));
    for (members, stateful, stateless) in [
        ("{\"RuleGroupName\":\"prod\",\"Type\":\"STATEFUL\"}", true, false),
        ("{\"RuleGroupName\":\"prod\",\"Type\":\"STATELESS\"}", false, true),
        ("{\"RuleGroupName\":\"prod\"}", true, true),
        ("{\"RuleGroupName\":\"prod\",\"Type\":\"NEW\"}", true, true),
        ("{}", true, true),
    ] {
        assert_eq!(!passes(&arn("stateful-rulegroup/prod"), delete(members)), stateful, "{members}");
        assert_eq!(!passes(&arn("stateless-rulegroup/prod"), delete(members)), stateless, "{members}");
    }
    let by_arn = format!("{{\"RuleGroupArn\":\"{}\"}}", arn("stateful-rulegroup/prod"));
    assert!(is_enough(&arn("stateful-rulegroup/prod"), delete(&by_arn)));
    assert!(!passes(&arn("stateful-rulegroup/prod"), delete(&by_arn)));
}

fn zone_tags(kind: &str, id: &str) -> Result<Call, DecodeError> {
    decode(&Ask {
        method: "GET",
        host: "route53.amazonaws.com",
        target: &format!("/2013-04-01/tags/{kind}/{id}"),
        fields: &[],
        body: b"",
        scope: "us-east-1/route53",
    })
}

#[test]
fn a_label_tells_the_type_of_what_has_tags() {
    assert!(is_enough("arn:aws:route53:::hostedzone/Z1", zone_tags("hostedzone", "Z1")));
    assert!(!passes("arn:aws:route53:::hostedzone/Z1", zone_tags("hostedzone", "Z1")));
    assert!(passes("arn:aws:route53:::healthcheck/Z1", zone_tags("hostedzone", "Z1")));
    assert!(!passes("arn:aws:route53:::hostedzone/Z1", zone_tags("HostedZone", "Z1")));
}

#[test]
fn words_of_the_api_are_those_of_arns() {
    let delete = |scope: &str| {
        let body = format!("{{\"Name\":\"prod\",\"Id\":\"a1\",\"Scope\":\"{scope}\",\"LockToken\":\"t\"}}");
        json("wafv2", "AWSWAF_20190729.DeleteWebACL", &body)
    };
    let regional = format!("arn:aws:wafv2:{HERE}:regional/webacl/prod/a1");
    assert!(is_enough(&regional, delete("REGIONAL")));
    assert!(!passes(&regional, delete("REGIONAL")));
    assert!(passes(&regional, delete("CLOUDFRONT")));
    assert!(!passes(&format!("arn:aws:wafv2:{HERE}:global/webacl/prod/a1"), delete("CLOUDFRONT")));
    assert!(!passes(&regional, delete("Regional")));

    let metrics = |of: &str| {
        let body = format!("{{\"ServiceType\":\"{of}\",\"Identifier\":\"db-1\"}}");
        json("pi", "PerformanceInsightsv20180227.GetResourceMetadata", &body)
    };
    assert!(is_enough(&format!("arn:aws:pi:{HERE}:metrics/rds/db-1"), metrics("RDS")));
    for of in ["RDS", "DOCDB"] {
        assert!(!passes("arn:aws:pi:*:metrics/*/db-1", metrics(of)), "{of}");
    }
}

/// SageMaker keeps a name's case and takes it in any, and has ARNs in lower case.
#[test]
fn an_arn_in_lower_case_is_the_same() {
    let delete = |name: &str| {
        let body = format!("{{\"EndpointName\":\"{name}\"}}");
        at("api.sagemaker.eu-west-1.amazonaws.com", "sagemaker", "SageMaker.DeleteEndpoint", &body)
    };
    let prod = format!("arn:aws:sagemaker:{HERE}:endpoint/prod");
    for name in ["prod", "Prod", "PROD"] {
        assert!(!passes(&prod, delete(name)), "{name}");
    }
    assert!(!passes(&format!("arn:aws:sagemaker:{HERE}:endpoint/Prod"), delete("Prod")));
    assert!(passes(&prod, delete("Other")));
}

#[test]
fn forms_of_ids_tell_the_type() {
    let attach = |id: &str| {
        let body = format!("{{\"PolicyId\":\"p-12345678\",\"TargetId\":\"{id}\"}}");
        json("organizations", "AWSOrganizationsV20161128.AttachPolicy", &body)
    };
    let arn = |of: &str| format!("arn:aws:organizations::123456789012:{of}");
    let targets = [
        ("999999999999", arn("account/o-abc/999999999999")),
        ("ou-ab12-cd345678", arn("ou/o-abc/ou-ab12-cd345678")),
        ("r-ab12", arn("root/o-abc/r-ab12")),
    ];
    for (id, _) in &targets {
        for (other, arn) in &targets {
            assert_eq!(passes(arn, attach(id)), id != other, "{id} {arn}");
        }
    }
    // What has no form of these could be any.
    for (_, arn) in &targets {
        assert!(!passes(arn, attach("*")), "{arn}");
    }

    let profile = |id: &str| {
        decode(&Ask {
            method: "GET",
            host: "bedrock.eu-west-1.amazonaws.com",
            target: &format!("/inference-profiles/{id}"),
            fields: &[],
            body: b"",
            scope: "eu-west-1/bedrock",
        })
    };
    let (own, system) = ("abcdefghijkl", "eu.anthropic.claude-3-haiku-20240307-v1:0");
    let of = |kind: &str, id: &str| format!("arn:aws:bedrock:{HERE}:{kind}/{id}");
    assert!(is_enough(&of("application-inference-profile", own), profile(own)));
    assert!(is_enough(&of("inference-profile", system), profile(&system.replace(':', "%3A"))));
    assert!(!passes(&of("application-inference-profile", own), profile(own)));

    let session = |id: &str| {
        decode(&Ask {
            method: "GET",
            host: "bedrock-agentcore.eu-west-1.amazonaws.com",
            target: &format!("/browsers/{id}/sessions/get?sessionId=s1"),
            fields: &[],
            body: b"",
            scope: "eu-west-1/bedrock-agentcore",
        })
    };
    assert!(is_enough("arn:aws:bedrock-agentcore:eu-west-1:aws:browser/aws.browser.v1", session("aws.browser.v1")));
    let custom = format!("arn:aws:bedrock-agentcore:{HERE}:browser-custom/mine-0123456789");
    assert!(is_enough(&custom, session("mine-0123456789")));
    assert!(!passes(&custom, session("mine-0123456789")));
}

#[test]
fn what_is_made_is_touched_whatever_stands_in_its_names_place() {
    let endpoint =
        |vpc: &str| form("ec2", &format!("Version=2016-11-15&Action=CreateVpcEndpoint&VpcId={vpc}&ServiceName=s"));
    for vpc in ["vpc-0abc", "subnet-0abc", "arn:aws:ec2:eu-west-1:123456789012:vpc/vpc-0abc", "x", "*"] {
        for made in ["arn:*:ec2:*:*:vpc-endpoint/*", "*:vpc-endpoint/*"] {
            assert!(!passes(made, endpoint(vpc)), "{vpc} {made}");
        }
    }
    let fleet = "Version=2016-11-15&Action=CreateFleet&LaunchTemplateConfigs.1.LaunchTemplateSpecification\
                 .LaunchTemplateId=lt-0abc&LaunchTemplateConfigs.1.Overrides.1.SubnetId=subnet-0abc";
    for touched in ["fleet/*", "instance/*", "launch-template/lt-0abc", "subnet/subnet-0abc", "volume/vol-1"] {
        assert!(!passes(&format!("arn:aws:ec2:{HERE}:{touched}"), form("ec2", fleet)), "{touched}");
    }
    assert!(passes(&format!("arn:aws:ec2:{HERE}:vpc/vpc-1"), form("ec2", fleet)));
}

#[test]
fn what_the_account_has_one_of_and_what_a_path_says_is_named() {
    let host = "api.ecr-public.eu-west-1.amazonaws.com";
    let registry = at(host, "ecr-public", "SpencerFrontendService.GetRegistryCatalogData", "{}");
    assert!(is_enough("arn:aws:ecr-public::123456789012:registry/123456789012", registry));
    let alias = "{\"name\":\"live\",\"routingConfiguration\":[{\"weight\":100,\"stateMachineVersionArn\":\
                 \"arn:aws:states:eu-west-1:123456789012:stateMachine:prod:7\"}]}";
    for machine in ["stateMachine:prod", "stateMachine:prod:7"] {
        let call = json("states", "AWSStepFunctions.CreateStateMachineAlias", alias);
        assert!(!passes(&format!("arn:aws:states:{HERE}:{machine}"), call), "{machine}");
    }
}
