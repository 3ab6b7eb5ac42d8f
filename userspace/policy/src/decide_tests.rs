use std::path::PathBuf;

use chaperone_model::{
    AccessLevel, CgroupId, LookedUp, Payload, Protocol, References, SessionId, UnknownResources, Verdict,
};
use proptest::prelude::*;

use super::*;
use crate::{ActionCatalog, NoSuchMember, problem::PolicyError};

struct Few;

impl ActionCatalog for Few {
    fn level(&self, action: &str) -> Option<AccessLevel> {
        self.actions().into_iter().find(|(name, _)| name == action).map(|(_, level)| level)
    }
    fn has_prefix(&self, prefix: &str) -> bool {
        ["s3", "iam", "ec2"].contains(&prefix)
    }
    fn actions(&self) -> Vec<(String, AccessLevel)> {
        [
            ("s3:GetObject", AccessLevel::Read),
            ("s3:DeleteObject", AccessLevel::Write),
            ("iam:PassRole", AccessLevel::Write),
            ("ec2:RunInstances", AccessLevel::Write),
        ]
        .map(|(name, level)| (name.to_owned(), level))
        .into()
    }
    fn text_member(&self, action: &str, path: &str) -> Result<Vec<(String, String)>, NoSuchMember> {
        self.level(action).ok_or(NoSuchMember::Action)?;
        match path {
            "Password" | "Tags[].Value" => Ok(vec![("s3".into(), "Any".into())]),
            "Size" => Err(NoSuchMember::Unfit("is no text".into())),
            _ => Err(NoSuchMember::Unknown { segment: path.into(), known: vec!["Password".into(), "Size".into()] }),
        }
    }
}

pub(crate) fn version(text: &str) -> Result<PolicyVersion, PolicyError> {
    PolicyVersion::parse(&[(PathBuf::from("test.cedar"), text.to_owned())], &Few)
}

pub(crate) fn call(actions: &[&str], resources: &[&str]) -> Call {
    let action = |name: &&str| Action { name: (*name).to_owned().into(), level: Few.level(name).unwrap() };
    Call {
        partition: "aws".into(),
        region: Some("eu-west-1".into()),
        account: None,
        service: "s3".into(),
        signing_name: "s3".into(),
        operation: "Any".into(),
        candidates: vec![],
        protocol: Protocol::RestXml,
        actions: actions.iter().map(action).collect(),
        resources: resources.iter().map(|&arn| arn.to_owned()).collect(),
        pairs: vec![],
        unknown: vec![],
        unread: vec![],
        references: References::default(),
        parameters: serde_json::json!({"InstanceType": "t3.micro", "Tags": [{"Key": "a"}, {"Key": "b"}]}),
        looked_up: None,
        payload: Payload::None,
    }
}

pub(crate) fn session(groups: &[&str]) -> Session {
    Session {
        id: SessionId::new(),
        agent: "coder".into(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        cgroup: CgroupId(1),
        cgroup_path: "/agents/coder".into(),
        container: None,
        parent: None,
        started: time::OffsetDateTime::UNIX_EPOCH,
    }
}

pub(crate) const FACTS: CallFacts<'_> = CallFacts {
    method: "GET",
    host: "h",
    path: "/",
    session: "s",
    exe: "/bin/aws",
    argv: &[],
    over_budget: &[],
    at: Some(time::OffsetDateTime::UNIX_EPOCH),
    session_started: Some(time::OffsetDateTime::UNIX_EPOCH),
    body_bytes: Some(0),
    retry: false,
    unknown: &[],
};
const OBJECT: &str = "arn:aws:s3:::data/a/b";

fn decide(text: &str, call: &Call) -> Decision {
    let engine = Engine::new(version(text).unwrap());
    engine.decide(&engine.principal(&session(&["developers"])), call, FACTS)
}

#[test]
fn nothing_permitted_means_denied() {
    let decision =
        decide("permit (principal in Group::\"others\", action, resource);", &call(&["s3:GetObject"], &[OBJECT]));
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::NotPermitted));
    assert!(decision.message.contains("Agent: coder is not authorized to perform: s3:GetObject on resource: arn"));
}

#[test]
fn forbid_wins_and_is_named() {
    let text = r#"
        @id("all") permit (principal, action, resource);
        @id("prod") forbid (principal, action in Action::"Write", resource in Resource::"arn:aws:s3:::data");"#;
    assert!(decide(text, &call(&["s3:GetObject"], &[OBJECT])).is_allowed());
    let decision = decide(text, &call(&["s3:DeleteObject"], &[OBJECT]));
    assert_eq!(decision.policies, ["prod"]);
    assert_eq!(decision.reason, Reason::Forbidden);
}

#[test]
fn every_action_and_every_resource_must_be_permitted() {
    let text =
        "permit (principal, action == Action::\"s3:GetObject\", resource == Resource::\"arn:aws:s3:::data/a/b\");";
    assert!(decide(text, &call(&["s3:GetObject"], &[OBJECT])).is_allowed());
    assert!(!decide(text, &call(&["s3:GetObject", "s3:DeleteObject"], &[OBJECT])).is_allowed());
    assert!(!decide(text, &call(&["s3:GetObject"], &[OBJECT, "*"])).is_allowed());
    assert!(!decide(text, &call(&[], &[OBJECT])).is_allowed());
    // A copy reads one object and writes another; needs that name nothing are not permission.
    let both = [OBJECT, "arn:aws:s3:::data/other"];
    let text = r#"permit (principal, action == Action::"s3:GetObject", resource == Resource::"arn:aws:s3:::data/a/b");
        permit (principal, action == Action::"s3:DeleteObject", resource == Resource::"arn:aws:s3:::data/other");"#;
    let mut copy = call(&["s3:GetObject", "s3:DeleteObject"], &both);
    assert!(!decide(text, &copy).is_allowed());
    copy.pairs = vec![(0, 0), (1, 1)];
    assert!(decide(text, &copy).is_allowed());
    copy.pairs = vec![(0, 0), (1, 7)];
    assert!(!decide(text, &copy).is_allowed());
}

#[test]
fn a_forbid_that_fails_denies() {
    let text = r#"
        permit (principal, action, resource);
        @id("broken") forbid (principal, action, resource)
        when { 9223372036854775807 + (if context.method == "GET" then 1 else 0) > 0 };"#;
    let decision = decide(text, &call(&["s3:GetObject"], &[OBJECT]));
    assert_eq!((decision.reason, decision.policies), (Reason::PolicyError, vec!["broken".to_owned()]));
}

#[test]
fn parameters_are_tags_by_path() {
    let when = |condition: &str| {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        decide(&text, &call(&["ec2:RunInstances"], &["*"])).is_allowed()
    };
    assert!(when(
        r#"context.parameters.hasTag("InstanceType") && context.parameters.getTag("InstanceType").contains("t3.micro")"#
    ));
    assert!(when(
        r#"context.parameters.hasTag("Tags.Key") && context.parameters.getTag("Tags.Key").containsAll(["a", "b"])"#
    ));
    assert!(!when(r#"context.parameters.hasTag("ImageId")"#));
    assert!(when(r#"context.region == "eu-west-1""#));
}

#[test]
fn the_default_policy_holds() {
    struct All;
    impl ActionCatalog for All {
        fn level(&self, action: &str) -> Option<AccessLevel> {
            Some(if action == "iam:CreateUser" { AccessLevel::Write } else { AccessLevel::Read })
        }
        fn has_prefix(&self, _: &str) -> bool {
            true
        }
        fn actions(&self) -> Vec<(String, AccessLevel)> {
            vec![]
        }
    }
    let files = [(PathBuf::from("default.cedar"), crate::DEFAULT_POLICY.to_owned())];
    let engine = Engine::new(PolicyVersion::parse(&files, &All).unwrap());
    let principal = engine.principal(&session(&[]));
    let mut secret = call(&["s3:GetObject"], &["*"]);
    assert!(engine.decide(&principal, &secret, FACTS).is_allowed());
    secret.actions = vec![Action { name: "secretsmanager:GetSecretValue".into(), level: AccessLevel::Read }];
    assert_eq!(engine.decide(&principal, &secret, FACTS).policies, ["default-no-secrets"]);
    secret.actions = vec![Action { name: "iam:CreateUser".into(), level: AccessLevel::Write }];
    assert_eq!(engine.decide(&principal, &secret, FACTS).policies, ["default-no-iam-changes"]);
    secret.actions = vec![Action { name: "iam:ListUsers".into(), level: AccessLevel::List }];
    assert!(engine.decide(&principal, &secret, FACTS).is_allowed());
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let problems = |text: &str| match version(text) {
        Err(PolicyError::Invalid(problems)) => problems,
        other => panic!("{other:?}"),
    };
    let unknown = problems(
        "permit (principal, action, resource);\nforbid (principal, action == Action::\"s3:GetObjekt\", resource);",
    );
    assert_eq!((unknown[0].line, unknown[0].column), (2, 30));
    assert!(unknown[0].message.contains("s3:GetObjekt"));
    let syntax = problems("permit (principal, action, resource);\n\npermit (principal action, resource);");
    assert_eq!(syntax[0].line, 3);
    let attribute = problems("permit (principal, action, resource)\nwhen { context.regoin == \"x\" };");
    assert_eq!(attribute[0].line, 2, "{attribute:?}");
    let level = problems("forbid (principal, action in Action::\"Reed\", resource);");
    assert!(level[0].message.contains("Reed"));
    let twice =
        problems("@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);");
    assert_eq!(twice[0].line, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// The slice's decision and reasons equal the whole set's.
    #[test]
    fn a_slice_decides_as_the_whole_set(choices in prop::collection::vec((0..6usize, 0..6usize, 0..3usize, 0..10usize, any::<bool>()), 1..40),
                                        action in 0..4usize, group in 0..2usize) {
        let principals = ["principal", "principal == Agent::\"coder\"", "principal == Agent::\"other\"",
            "principal in Group::\"developers\"", "principal in Group::\"others\"", "principal is Agent in Group::\"developers\""];
        let actions = ["action", "action == Action::\"s3:GetObject\"", "action in Action::\"s3:*\"",
            "action in [Action::\"Write\", Action::\"iam:PassRole\"]", "action in Action::\"Read\"", "action == Action::\"ec2:RunInstances\""];
        let resources = ["resource", "resource == Resource::\"*\"", "resource in Resource::\"arn:aws:s3:::data\""];
        let conditions = ["", "when { context.level == \"Read\" }", "unless { context has exe && context.exe like \"/usr/*\" }",
            "when { resource.name like \"data/*\" }", "when { resource in Resource::\"arn:aws:s3:::data\" }",
            "unless { principal.name == \"coder\" }", "when { context[\"region\"] == \"eu-west-1\" }", "when { resource has arn && resource.account == \"\" }",
            "when { context.parameters.hasTag(\"Key\") }", "when { [context].contains(context) && {a: context}.a.level == \"Read\" }"];
        let text: String = choices.iter().map(|(p, a, r, c, permit)| {
            format!("{} ({}, {}, {}) {};\n", if *permit { "permit" } else { "forbid" }, principals[*p], actions[*a], resources[*r], conditions[*c])
        }).collect();
        let engine = Engine::new(version(&text).unwrap());
        let principal = engine.principal(&session(&[["developers", "others"][group]]));
        let action = call(&[["s3:GetObject", "s3:DeleteObject", "iam:PassRole", "ec2:RunInstances"][action]], &[OBJECT]);
        let sliced = engine.slice(engine.version(), &principal, &action.actions[0]);
        let decisions = Arc::default();
        let whole = Slice {
            parts: vec![Part::of(&decisions, engine.version().policies.clone(), Reads::everything())],
            decisions,
            json: OnceLock::new(),
            policies: PolicySet::from_policies(engine.version().policies.iter().cloned()).unwrap(),
            action: sliced.action.clone(),
            entities: sliced.entities.clone(),
            reads: Reads::everything(),
        };
        // One after the other: what was decided of one is kept, and must not be taken for another's.
        for resource in [OBJECT, "arn:aws:s3:::data", OBJECT] {
            for (facts, approved) in [(FACTS, false), (CallFacts { exe: "/bin/sh", ..FACTS }, true)] {
                for region in ["eu-west-1", "us-east-1"] {
                    let call = Call { region: Some(region.into()), ..action.clone() };
                    let need = Need { resource, unknown_resource: None, alias: false };
                    let decided = |slice| engine.one(slice, &principal, &call.actions[0], &need, &call, facts, approved);
                    prop_assert_eq!(decided(&sliced), decided(&whole));
                }
            }
        }
    }

    /// What is permitted on resources that aren't known is permitted on each that they could be.
    #[test]
    fn what_an_incomplete_call_may_do_every_complete_one_may(
        choices in prop::collection::vec((0..4usize, 0..9usize, 0..9usize, any::<bool>(), any::<bool>(), any::<bool>()), 1..8),
        which in 0..4usize,
    ) {
        let scopes = ["resource", "resource == Resource::\"arn:aws:s3:::data/a\"", "resource in Resource::\"arn:aws:s3:::data\"",
            "resource is Resource in Resource::\"arn:aws:s3:::other\""];
        let conditions = ["true", "resource.arn like \"*data/a*\"", "resource.name == \"data/a\"", "resource.service == \"s3\"",
            "[\"data/a\", \"data/b\"].contains(resource.name)", "resource in Resource::\"arn:aws:s3:::data\"",
            "(if resource.name like \"*a\" then resource.account == \"\" else context.level == \"Read\")",
            "resource.region != \"\"", "resource in [Resource::\"arn:aws:s3:::data/b\", Resource::\"arn:aws:s3:::data/a\"]"];
        let text: String = choices.iter().map(|(scope, one, other, permit, not, and)| {
            format!("{} (principal, action, {}) {} {{ {}({}) {} {} }};\n", if *permit { "permit" } else { "forbid" }, scopes[*scope],
                if *not { "unless" } else { "when" }, if *and { "!" } else { "" }, conditions[*one], if *and { "&&" } else { "||" }, conditions[*other])
        }).collect();
        let (pattern, possible): (_, &[&str]) = [
            ("arn:aws:s3:::data/*", &["arn:aws:s3:::data/a", "arn:aws:s3:::data/b", "arn:aws:s3:::data/", "arn:aws:s3:::data/x/data/a"][..]),
            ("arn:aws:s3:::*", &["arn:aws:s3:::data", "arn:aws:s3:::data/a", "arn:aws:s3:::other/a", "arn:aws:s3:::third"][..]),
            ("*", &["arn:aws:s3:::data/a", "*", "arn:aws:ec2:eu-west-1:1:instance/a"][..]),
            ("arn:aws:s3:::data/a", &["arn:aws:s3:::data/a"][..]),
        ][which];
        if decide(&text, &partly("s3:GetObject", &["*"], pattern)).is_allowed() {
            for arn in possible {
                prop_assert!(decide(&text, &call(&["s3:GetObject"], &[arn])).is_allowed(), "{} of {}: {}", arn, pattern, text);
            }
        }
        // With nothing unknown, nothing is lost.
        if which == 3 {
            let complete = decide(&text, &call(&["s3:GetObject"], possible)).is_allowed();
            prop_assert_eq!(complete, decide(&text, &partly("s3:GetObject", &["*"], pattern)).is_allowed());
        }
    }
}

/// A call on the known resources, and on those that fit the pattern.
pub(crate) fn partly(action: &str, resources: &[&str], pattern: &'static str) -> Call {
    let mut call = call(&[action], resources);
    call.unknown = vec![UnknownResources {
        action: None,
        pattern: pattern.into(),
        why: "selected by Filters".into(),
        alias: false,
    }];
    call
}

const INSTANCES: &str = "arn:aws:ec2:eu-west-1:123456789012:instance/*";

#[test]
fn a_forbid_that_could_match_an_unknown_resource_holds() {
    for forbid in [
        r#"forbid (principal, action, resource) when { resource.arn like "*prod*" };"#,
        r#"forbid (principal, action, resource == Resource::"arn:aws:ec2:eu-west-1:123456789012:instance/i-1");"#,
        r#"forbid (principal, action, resource) unless { resource.name like "instance/dev-*" };"#,
        r#"forbid (principal, action, resource) when { if resource.name like "*x" then true else false };"#,
        r#"forbid (principal, action, resource) when { {a: resource.arn}.a == "b" };"#,
    ] {
        let text = format!("permit (principal, action, resource);\n@id(\"f\") {forbid}");
        let decision = decide(&text, &partly("ec2:RunInstances", &["*"], INSTANCES));
        assert_eq!((decision.reason, decision.policies), (Reason::Forbidden, vec!["f".to_owned()]), "{forbid}");
        assert!(decision.message.contains("selected by Filters"), "{}", decision.message);
    }
    for other in [
        r#"forbid (principal, action, resource) when { resource.arn like "arn:aws:s3:*" };"#,
        r#"forbid (principal, action, resource in Resource::"arn:aws:s3:::data");"#,
        r#"forbid (principal, action, resource) unless { resource.name like "instance/*" };"#,
        r#"forbid (principal, action == Action::"s3:GetObject", resource) when { resource.arn like "*prod*" };"#,
    ] {
        let text = format!("permit (principal, action, resource);\n{other}");
        assert!(decide(&text, &partly("ec2:RunInstances", &["*"], INSTANCES)).is_allowed(), "{other}");
    }
}

#[test]
fn a_permit_must_be_for_all_that_an_unknown_resource_can_be() {
    let allowed = |condition: &str| {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        decide(&text, &partly("ec2:RunInstances", &["*"], INSTANCES)).is_allowed()
    };
    assert!(allowed("true"));
    assert!(allowed(r#"resource.arn like "arn:aws:ec2:*:instance/*""#));
    assert!(allowed(r#"resource.service == "ec2" && resource.account == "123456789012""#));
    assert!(!allowed(r#"resource.arn like "arn:aws:ec2:*:instance/i-1""#));
    assert!(!allowed(r#"!(resource.arn like "*prod*")"#));
    // What is known beside it has to be permitted as well.
    let text = r#"permit (principal, action, resource) when { resource.arn like "arn:aws:ec2:*" };"#;
    assert!(!decide(text, &partly("ec2:RunInstances", &[OBJECT], INSTANCES)).is_allowed());
}

#[test]
fn what_was_not_read_may_be_anything() {
    let mut some = call(&["s3:DeleteObject"], &[OBJECT]);
    some.unread = vec!["body.Frobnicate".into()];
    let with = |more: &str| decide(&format!("permit (principal, action, resource); {more}"), &some);
    assert!(with("").is_allowed());
    assert!(with(r#"forbid (principal, action, resource) when { context.region == "us-east-1" };"#).is_allowed());
    let denied = with(r#"@id("f") forbid (principal, action, resource in Resource::"arn:aws:s3:::other");"#);
    assert_eq!((denied.reason, &denied.policies[..]), (Reason::Forbidden, &["f".to_owned()][..]));
    assert!(denied.message.contains("body.Frobnicate was not understood"), "{}", denied.message);
    assert!(!with(r#"forbid (principal, action, resource) when { context.parameters.hasTag("x") };"#).is_allowed());
    assert!(
        !with(r#"forbid (principal, action, resource) unless { context.parameters.hasTag("InstanceType") };"#)
            .is_allowed()
    );
    assert!(!with(r#"forbid (principal, action, resource) when { context.accounts.contains("1") };"#).is_allowed());
    let permit = |text: &str| decide(text, &some).is_allowed();
    assert!(!permit(r#"permit (principal, action, resource) when { context.parameters.hasTag("InstanceType") };"#));
    assert!(!permit(r#"permit (principal, action, resource in Resource::"arn:aws:s3:::data");"#));
}

#[test]
fn parameters_that_were_cut_are_not_known() {
    let mut cut = call(&["s3:DeleteObject"], &[OBJECT]);
    let text = r#"permit (principal, action, resource);
        forbid (principal, action, resource) when { context.parameters.hasTag("Item.classified") };"#;
    assert!(decide(text, &cut).is_allowed());
    cut.parameters = serde_json::json!({"Item": {"a": "b"}, "$truncated": true});
    assert_eq!(decide(text, &cut).reason, Reason::Forbidden);
    // Found in the whole, though it isn't kept.
    let looked_up = |values: &[(&str, &str)]| LookedUp {
        paths: Arc::new(["Item.classified".to_owned()].into()),
        values: values.iter().map(|&(path, value)| (path.to_owned(), vec![value.to_owned()])).collect(),
    };
    cut.looked_up = Some(looked_up(&[]));
    assert!(decide(text, &cut).is_allowed());
    cut.looked_up = Some(looked_up(&[("Item.classified", "yes")]));
    assert_eq!(decide(text, &cut).reason, Reason::Forbidden);
    let other = text.replace("Item.classified", "Item.other");
    assert_eq!(decide(&other, &cut).reason, Reason::Forbidden, "this one was not looked for");
    cut.looked_up = None;
    // Where texts alone were cut, others are whole.
    let mut long = cut.clone();
    long.parameters = serde_json::json!({"Item": {"a": "b…[cut]"}, "$truncated": true, "$only_texts": true});
    assert!(decide(text, &long).is_allowed());
    assert_eq!(decide(&text.replace("classified", "a"), &long).reason, Reason::Forbidden);
    // Resources are known all the same.
    assert!(decide(r#"permit (principal, action, resource in Resource::"arn:aws:s3:::data");"#, &cut).is_allowed());
}

#[test]
fn unknown_resources_of_no_action_are_not_permission() {
    let mut some = partly("s3:GetObject", &[OBJECT], "*");
    some.unknown[0].action = Some(3);
    assert!(!decide("permit (principal, action, resource);", &some).is_allowed());
}

#[test]
fn all_needs_are_looked_at_and_told() {
    let text = r#"permit (principal, action == Action::"s3:GetObject", resource);
        @id("p") @why("production") forbid (principal, action == Action::"ec2:RunInstances", resource);"#;
    let engine = Engine::new(version(text).unwrap());
    let principal = engine.principal(&session(&[]));
    let some = call(&["s3:DeleteObject", "s3:GetObject", "ec2:RunInstances"], &[OBJECT]);
    let Ruling::Deny(denial) = engine.rule(&principal, &some, FACTS, Approval::None) else { panic!() };
    let refused: Vec<_> = denial.refused.iter().map(|one| (one.action.as_str(), one.reason)).collect();
    assert_eq!(refused, [("ec2:RunInstances", Reason::Forbidden), ("s3:DeleteObject", Reason::NotPermitted)]);
    assert_eq!(denial.policies[0].annotations.get("why").map(String::as_str), Some("production"));
    assert!(denial.message.ends_with("in the Chaperone policy p (and 1 more)"), "{}", denial.message);
}

const ASKS: &str = r#"permit (principal, action, resource);
        @id("ask") @approvers("ops") forbid (principal, action in Action::"Write", resource) unless { context.approved };"#;

#[test]
fn a_person_is_asked_where_nothing_else_forbids() {
    let rule = |text: &str, call: &Call, approval| {
        let engine = Engine::new(version(text).unwrap());
        engine.rule(&engine.principal(&session(&[])), call, FACTS, approval)
    };
    let delete = call(&["s3:DeleteObject"], &[OBJECT]);
    let Ruling::Ask(question) = rule(ASKS, &delete, Approval::None) else { panic!() };
    assert_eq!((question.approvers[0].0.id.as_str(), question.approvers[0].1.as_str()), ("ask", "ops"));
    assert_eq!(question.denial.decision().verdict, Verdict::Deny);
    let Ruling::Permit(permit) = rule(ASKS, &delete, Approval::Given) else { panic!() };
    assert_eq!(permit.decision().verdict, Verdict::Allow);
    // Something else forbids it, or nothing permits it.
    let more = format!("{ASKS} forbid (principal, action == Action::\"s3:DeleteObject\", resource);");
    assert!(matches!(rule(&more, &delete, Approval::None), Ruling::Deny(_)));
    let less = ASKS.replace("permit (principal, action,", "permit (principal, action == Action::\"s3:GetObject\",");
    assert!(matches!(rule(&less, &delete, Approval::None), Ruling::Deny(_)));
    // An incomplete call made it hold: nobody could tell what they would approve.
    let asks = ASKS.replace("unless {", "when { resource.arn like \"*prod*\" } unless {");
    let unknown = partly("s3:DeleteObject", &[OBJECT], "arn:aws:s3:::data/*");
    assert!(matches!(rule(&asks, &unknown, Approval::None), Ruling::Deny(_)));
    // Approvers of what doesn't ask.
    for wrong in ["permit (principal, action, resource);", "forbid (principal, action, resource);"] {
        let text = format!("@approvers(\"ops\") {wrong}");
        assert!(matches!(version(&text), Err(PolicyError::Invalid(_))), "{wrong}");
    }
}

#[test]
fn what_the_input_names_can_be_decided_by() {
    let mut some = call(&["s3:GetObject"], &[OBJECT]);
    some.references.accounts = vec!["210987654321".into()];
    let text = r#"permit (principal, action, resource) when { ["123456789012"].containsAll(context.accounts) };"#;
    assert!(!decide(text, &some).is_allowed());
    some.references.accounts.clear();
    assert!(decide(text, &some).is_allowed());
}

#[test]
fn another_name_of_a_resource_can_be_forbidden_and_needs_no_permit() {
    let mut some = partly("s3:GetObject", &[OBJECT], "arn:aws:s3:*:*:accesspoint/*");
    some.unknown[0].alias = true;
    let permit = r#"permit (principal, action, resource in Resource::"arn:aws:s3:::data");"#;
    assert!(decide(permit, &some).is_allowed());
    let forbid = r#"forbid (principal, action, resource) when { resource.arn like "*accesspoint/prod" };"#;
    assert_eq!(decide(&format!("{permit} {forbid}"), &some).reason, Reason::Forbidden);
}

#[test]
fn masks_are_a_set_of_their_own_and_permit_nothing() {
    let text = r#"
        permit (principal, action == Action::"s3:GetObject", resource);
        @id("m") @mask("github, Items[].Secret")
        permit (principal, action == Action::"s3:GetObject", resource in Resource::"arn:aws:s3:::b")
          unless { principal in Group::"trusted" };
        @id("p") @mask("sensitive") permit (principal, action, resource) when { context.parameters.hasTag("InstanceType") };
        @id("n") @mask("none") permit (principal == Agent::"boss", action, resource);
        @mask("sensitive") permit (principal, action == Action::"s3:DeleteObject", resource);
    "#;
    let engine = Engine::new(version(text).unwrap());
    let of = |name: &str, groups: &[&str], call: &Call| {
        let mut session = session(groups);
        session.agent = name.to_owned();
        let masks = engine.masks(&engine.principal(&session), call, FACTS);
        (masks.lifted, masks.policies.into_iter().map(|(id, _)| id).collect::<Vec<_>>())
    };
    let object = call(&["s3:GetObject"], &["arn:aws:s3:::b/k"]);
    assert_eq!(of("coder", &[], &object), (false, vec!["m".to_owned(), "p".to_owned()]));
    assert_eq!(of("coder", &["trusted"], &object), (false, vec!["p".to_owned()]));
    assert!(of("boss", &["trusted"], &object).0);
    let mut other = call(&["s3:GetObject"], &["arn:aws:s3:::other/k"]);
    assert_eq!(of("coder", &[], &other).1, ["p"]);
    other.parameters = serde_json::json!({});
    assert_eq!(of("coder", &[], &other).1, Vec::<String>::new());
    // What isn't known could be masked; and a part that is masked masks the whole.
    other.unread = vec!["x".into()];
    assert_eq!(of("coder", &[], &other).1, ["m", "p"]);
    let both = call(&["s3:GetObject"], &["arn:aws:s3:::other/k", "arn:aws:s3:::b/k"]);
    assert!(of("coder", &[], &both).1.contains(&"m".to_owned()));
    // Nothing is permitted by them.
    let delete = call(&["s3:DeleteObject"], &["arn:aws:s3:::b/k"]);
    let decision = engine.decide(&engine.principal(&session(&[])), &delete, FACTS);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::NotPermitted));
    for bad in [
        "@mask(\"a[\") permit (principal, action, resource);",
        "@mask(\"sensitive\") forbid (principal, action, resource);",
    ] {
        let error = version(&format!("permit (principal, action, resource);\n{bad}")).unwrap_err().to_string();
        assert!(error.contains("test.cedar:2:1") && error.contains("@mask"), "{error}");
    }
}

#[test]
fn values_go_back_where_a_policy_that_matches_for_certain_says_so() {
    let text = r#"
        permit (principal, action, resource);
        @id("all") @mask("Secret") @unmask_into("ec2:RunInstances.Password, s3:GetObject.Tags[].Value")
        permit (principal, action == Action::"s3:GetObject", resource);
        @id("b") @mask("Secret") @unmask_into("iam:PassRole.Password")
        permit (principal, action == Action::"s3:GetObject", resource in Resource::"arn:aws:s3:::b")
          unless { principal in Group::"interns" };
    "#;
    let policies = version(text).unwrap();
    let warned: Vec<String> = policies.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warned.len() == 1 && warned[0].contains("test.cedar:3:") && warned[0].contains("Tags[].Value"),
        "{warned:?}"
    );
    let engine = Engine::new(policies);
    let of = |groups: &[&str], call: &Call| {
        let masks = engine.masks(&engine.principal(&session(groups)), call, FACTS);
        masks.unmask.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    let object = call(&["s3:GetObject"], &["arn:aws:s3:::b/k"]);
    assert_eq!(of(&[], &object), ["all", "b"]);
    assert_eq!(of(&["interns"], &object), ["all"]);
    assert_eq!(of(&[], &call(&["s3:GetObject"], &["arn:aws:s3:::b/k", "arn:aws:s3:::c/k"])), ["all"]);
    assert_eq!(of(&[], &call(&["s3:GetObject", "s3:DeleteObject"], &["arn:aws:s3:::b/k"])), Vec::<String>::new());
    // What isn't known could be another's secret: it is masked, and goes nowhere.
    let mut unknown = object.clone();
    unknown.unread = vec!["x".into()];
    assert_eq!(of(&[], &unknown), ["all"]);
    let masks = engine.masks(&engine.principal(&session(&[])), &object, FACTS);
    let targets: Vec<String> = masks.unmask[0].1.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["ec2:RunInstances.Password", "s3:GetObject.Tags[].Value"]);
    // Nothing is permitted by them.
    assert!(engine.version().unmask_targets("b")[0].operations == [("s3".to_owned(), "Any".to_owned())]);
    for (bad, why) in [
        ("@unmask_into(\"ec2:RunInstances.Password\")", "no `@mask`"),
        ("@mask(\"none\") @unmask_into(\"ec2:RunInstances.Password\")", "masks nothing"),
        ("@mask(\"Secret\") @unmask_into(\"\")", "no action with a member"),
        ("@mask(\"Secret\") @unmask_into(\"ec2:RunInstances\")", "no action with a member"),
        ("@mask(\"Secret\") @unmask_into(\"ec2:RunInstance.Password\")", "did you mean ec2:RunInstances"),
        ("@mask(\"Secret\") @unmask_into(\"ec2:RunInstances.Pasword\")", "did you mean `Password`"),
        ("@mask(\"Secret\") @unmask_into(\"ec2:RunInstances.Size\")", "is no text"),
        ("@mask(\"Secret\") @unmask_into(\"ec2:*.Password\")", "has a `*`"),
        ("@mask(\"Secret\") @unmask_into(\"ec2:RunInstances.Tags.*\")", "has a `*`"),
        ("@mask(\"Secret\") @unmask_in(\"ec2:RunInstances.Password\")", "did you mean `@unmask_into`"),
    ] {
        let text = format!("permit (principal, action, resource);\n  {bad}\npermit (principal, action, resource);");
        let error = version(&text).unwrap_err().to_string();
        assert!(error.contains("test.cedar:2:") && error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn an_identity_is_decided_by_and_is_nobody_elses() {
    let identity = |subject: &str, groups: &[&str], team: &str| Identity {
        provider: "idp".into(),
        issuer: "https://idp".into(),
        subject: subject.into(),
        groups: groups.iter().map(|&it| it.to_owned()).collect(),
        sponsor: Some("alice".into()),
        display_name: None,
        token_id: "t".into(),
        claims: [("team".to_owned(), team.to_owned())].into(),
        expires: time::OffsetDateTime::UNIX_EPOCH,
    };
    let bot = identity("bot", &["idp:a"], "red");
    for (condition, of_bot, of_nobody, of_other) in [
        ("principal.identified", true, false, true),
        ("principal in Group::\"idp:a\"", true, false, false),
        ("principal in Group::\"developers\"", true, true, true),
        ("principal.subject == \"bot\" && principal.issuer == \"https://idp\"", true, false, false),
        ("principal.sponsor == \"alice\"", true, false, true),
        ("principal.hasTag(\"team\") && principal.getTag(\"team\") == \"red\"", true, false, false),
        ("principal.subject == \"\"", false, true, false),
    ] {
        let policy = format!("@id(\"p\") permit (principal, action, resource) when {{ {condition} }};");
        let engine = Engine::new(version(&policy).unwrap());
        let session = session(&["developers"]);
        // One after the other by the same engine, so that what is kept for one isn't taken for another.
        for (identity, expected) in
            [(Some(&bot), of_bot), (None, of_nobody), (Some(&identity("eve", &["idp:b"], "blue")), of_other)]
        {
            let decision = engine.decide(
                &engine.identified(&session, identity),
                &call(&["s3:GetObject"], &["arn:aws:s3:::b/k"]),
                FACTS,
            );
            assert_eq!(decision.is_allowed(), expected, "{condition} {identity:?}: {}", decision.message);
        }
    }
}
